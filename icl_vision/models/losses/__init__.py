"""What training minimises, and learned measures of images.

Knows: its modules, by their names. Refuses to know: the training loop.
"""
