"""How well a diffusion model draws what its text encoder, or an LLM in its place, makes of a text.

Knows: its modules, by their names. Refuses to know: the evaluations of other tasks.
"""
