"""Pages and pictures of token pyramids.

Knows: its modules, by their names. Refuses to know: how a pyramid came to be.
"""
