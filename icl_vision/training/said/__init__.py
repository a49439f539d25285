"""How the heads of ``describe-photo`` learn which words people say: captions, targets, fit, calibration, measures.

Knows: its modules, by their names. Refuses to know: the graph that they become.
"""
