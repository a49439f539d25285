"""Rows of a benchmark in which something is exchanged or withheld, to see what it was worth.

Knows: its modules, by their names. Refuses to know: how answers are counted.
"""
