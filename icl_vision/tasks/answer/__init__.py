"""Answers about pictures: questions (``VisualQA``) and captions (``Captioner``) on one answering core.

Knows: nothing but the modules beside it. Refuses to know: labels of a fixed set of classes (``tasks.classify``).
"""
