"""Encoders, decoders and pretrained trunks.

Knows: its modules, by their names. Refuses to know: words and losses.
"""
