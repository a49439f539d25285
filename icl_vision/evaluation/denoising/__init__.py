"""How well an LLM restores pictures.

Knows: its modules, by their names. Refuses to know: the evaluations of other tasks.
"""
