"""LLMs behind a provider's or a server's HTTP API, and what all of them share.

Knows: its modules, by their names; each is imported when first used. Refuses to know: this machine's own LLM.
"""
