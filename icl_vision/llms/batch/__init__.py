"""The batch endpoints of providers: half the price, up to a day's wait, behind the same calls.

Knows: its modules, by their names. Refuses to know: what is asked.
"""
