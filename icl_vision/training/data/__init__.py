"""Training images: where they come from, how they are changed, which of them a step gets.

Knows: its modules, by their names. Refuses to know: nets.
"""
