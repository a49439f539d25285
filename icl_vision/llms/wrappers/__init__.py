"""LLMs around an LLM: cached, metered, with others to fall back on, or never asked.

Knows: its modules, by their names. Refuses to know: any provider.
"""
