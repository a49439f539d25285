"""Images and words in one space: guides, classifiers, text features, where vectors of words come from.

Knows: its modules, by their names. Refuses to know: pyramids.
"""
