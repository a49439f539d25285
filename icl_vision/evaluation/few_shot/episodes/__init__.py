"""Few-shot episodes: drawn from class folders, read from files and from the papers' archives.

Knows: its modules, by their names. Refuses to know: who is asked.
"""
