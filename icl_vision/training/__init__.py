"""How tokenizers are trained: empty so far.

Will know: data, the loop, configurations. Refuses to know: the nets, which are in ``models``.
"""
