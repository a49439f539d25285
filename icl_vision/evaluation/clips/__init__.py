"""How much of clips their words keep, and what the same words or bytes give otherwise.

Knows: its modules, by their names. Refuses to know: the evaluations of other tasks.
"""
