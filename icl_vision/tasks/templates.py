"""The templates of every task, for who has to tell them apart: ``icl-vision prompts``.

Knows: which tasks declare templates. Refuses to know: what they declare.
"""

from __future__ import annotations

from icl_vision.drawing.prompts import SEGMENT
from icl_vision.prompting.declarations import Declaration
from icl_vision.tasks.answer.prompts import ANSWERING, CAPTIONING
from icl_vision.tasks.classify.prompts import CLASSIFICATION
from icl_vision.tasks.editing import EDITING
from icl_vision.tasks.routing import ROUTING

DECLARATIONS: tuple[Declaration, ...] = (CLASSIFICATION, SEGMENT, CAPTIONING, ANSWERING, ROUTING, EDITING)
"""A template that fits several belongs to the first."""
