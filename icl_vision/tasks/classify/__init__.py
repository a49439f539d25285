"""Few-shot classification: images to labels.

Knows: its modules, by their names. Refuses to know: the other tasks.
"""
