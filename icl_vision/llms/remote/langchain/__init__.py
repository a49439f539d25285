"""LangChain's models as LLMs of this library.

Knows: its modules, by their names. Refuses to know: agents and tools, which are in ``integrations``.
"""
