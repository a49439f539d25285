"""Questions about pictures and captions of them, measured: data, answers, metrics, pages.

Knows: measuring. Refuses to know: commands, and how an answer is found (``tasks/answer`` has that).
"""
