"""Tasks: the whole line from images to answers, composed of the other packages' parts.

Knows: the order of the steps. Refuses to know: how any step works.
"""

from icl_vision.asking.inquiries import Inquiry
from icl_vision.asking.many import Outcome
from icl_vision.asking.plan import Plan
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.many import aclassify_many, classify_many

__all__ = ["FewShotClassifier", "Inquiry", "Outcome", "Plan", "aclassify_many", "classify_many"]
