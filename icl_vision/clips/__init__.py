"""Clips: frames in their order.

Knows: its modules, by their names. Refuses to know: words, models.
"""
