"""What every evaluation uses: metrics, intervals, comparisons in pairs, journals, pictures to measure on.

Knows: numbers and pictures. Refuses to know: which task is measured.
"""
