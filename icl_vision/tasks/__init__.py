"""Tasks: the whole line from images to answers, composed of the other packages' parts.

Knows: the order of the steps. Refuses to know: how any step works.
"""

from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.classify.scoring import Question
from icl_vision.tasks.many import Outcome, aclassify_many, classify_many

__all__ = ["FewShotClassifier", "Outcome", "Question", "aclassify_many", "classify_many"]
