"""Files: read with suspicion, written atomically, kept in run folders and caches.

Knows: its modules, by their names. Refuses to know: images and what is in a file.
"""
