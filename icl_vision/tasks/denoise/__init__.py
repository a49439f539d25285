"""Denoising: pictures to pictures.

Knows: its modules, by their names. Refuses to know: the other tasks.
"""
