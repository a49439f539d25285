"""The prompt templates, one jinja file a task; installed as ``icl_vision.prompts``.

Knows: nothing but the files beside it. Refuses to know: how they are loaded (``icl_vision.prompting``).
"""
