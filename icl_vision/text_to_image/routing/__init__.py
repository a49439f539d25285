"""What the router is made of: features of a line, instructions as files, the fit.

Knows: where they are. Refuses to know: torch; nothing in this folder imports it.
"""
