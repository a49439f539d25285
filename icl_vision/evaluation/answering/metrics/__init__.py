"""How right an answer is, and how near a caption is to what people wrote. Pure functions on texts.

Knows: rules of the field, with their traps named where each stands. Refuses to know: who answered.

Nothing here starts Java or fetches anything. The usual code for captions (pycocoevalcap 1.2, 104 MB) and the packages
around it (aac-metrics 0.6, capevalkit 0.1) start Stanford's tokenizer in Java; no maintained package with CIDEr-D
without it was found in November 2026, so CIDEr-D, BLEU and ROUGE-L are written here and held against that code's
numbers by tests. WUPS is not offered: it needs WordNet, and every package looked at (wn, nltk, oewn-core, pywsd, cyg,
textblob) downloads it when first used.
"""

from icl_vision.evaluation.answering.metrics.answers import (
    exact_answer,
    is_empty,
    normalise_answer,
    plain_vqa_accuracy,
    raw_exact_answer,
    read_yes_no,
    vqa_accuracy,
)
from icl_vision.evaluation.answering.metrics.bleu import Bleu, sentence_bleu
from icl_vision.evaluation.answering.metrics.caption_tokens import caption_tokens
from icl_vision.evaluation.answering.metrics.cider import CiderD
from icl_vision.evaluation.answering.metrics.rouge import rouge_l
from icl_vision.evaluation.answering.metrics.vl_icl import vl_icl_right

__all__ = [
    "Bleu",
    "CiderD",
    "caption_tokens",
    "exact_answer",
    "is_empty",
    "normalise_answer",
    "plain_vqa_accuracy",
    "raw_exact_answer",
    "read_yes_no",
    "rouge_l",
    "sentence_bleu",
    "vl_icl_right",
    "vqa_accuracy",
]
