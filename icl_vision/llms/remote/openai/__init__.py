"""OpenAI's protocol: its own models, and every server that speaks it.

Knows: its modules, by their names. Refuses to know: other protocols.
"""
