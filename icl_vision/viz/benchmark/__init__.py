"""The page of a few-shot run.

Knows: its modules, by their names. Refuses to know: how a run is made.
"""
