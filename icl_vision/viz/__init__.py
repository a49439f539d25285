"""Pictures and pages: one kit, self-contained HTML that loads nothing from anywhere.

Knows: layout, escaping, inline images. Refuses to know: how what it shows came to be.
"""
