"""What is looked at while a training runs: validation, grids of pictures, logs, numbers that are none.

Knows: its modules, by their names. Refuses to know: how a step is taken.
"""
