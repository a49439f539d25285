"""What draws from states: the demonstration's U-Net and its noise, a draft before it, samplers.

Knows: nothing; the modules are imported by name. Refuses to know: where states come from.
"""
