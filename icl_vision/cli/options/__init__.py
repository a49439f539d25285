"""Options that several commands share.

Knows: its modules, by their names. Refuses to know: what a command does.
"""
