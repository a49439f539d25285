"""Eyes for programs that only speak a protocol: the proxy in front of any LLM, and the MCP server.

Both take pictures from people nobody knows, and stand in front of an LLM that somebody pays for. What guards them is
here once: ``pictures`` (from a reference to bytes), ``hosts`` (who may ask), ``words`` (a picture as text that cannot
pass for more).

Knows: its modules, by their names. Refuses to know: how a picture becomes words, how an LLM answers. Nothing here is
imported by the rest of the library but its commands, and what an extra brings only by the modules that need it.
"""
