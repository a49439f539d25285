"""Vectors to words of a codebook and back, on pyramids of grids.

Knows: its modules, by their names. Refuses to know: the nets around a quantizer.
"""
