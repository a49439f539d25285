"""The few-shot benchmark of the Frozen, LQAE and SPAE papers, as one resumable run.

Knows: its modules, by their names. Refuses to know: the evaluations of other tasks.
"""
