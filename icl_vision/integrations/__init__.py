"""Bridges to other libraries, each in a module of its own, imported when asked for: LangChain, scikit-learn, Ray.

Knows: nothing but their names. Refuses to know: any of them; ``import icl_vision.integrations`` loads none.
"""
