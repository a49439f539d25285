"""How well an LLM draws digits.

Knows: its modules, by their names. Refuses to know: the evaluations of other tasks.
"""
