"""Bridges to other libraries, each in a module of its own and imported only when asked for: LangChain, scikit-learn.

Knows: nothing but their names. Refuses to know: either library; ``import icl_vision.integrations`` loads neither.
"""
