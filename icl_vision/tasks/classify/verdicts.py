"""A reply becomes a classification.

Knows: which label a reply means. Refuses to know: how it was had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icl_vision.asking.inquiries import Reply
from icl_vision.contracts import Classification, ScoringMethod
from icl_vision.errors import LLMResponseError, UnknownAnswerError
from icl_vision.llms.scores import all_impossible
from icl_vision.probabilities import ProbabilityMap
from icl_vision.spelling import composed
from icl_vision.tasks.classify.parsing import parse_label
from icl_vision.tasks.classify.scoring import log_softmax


def verdict(
    reply: Reply | Exception,
    words: tuple[tuple[str, ...], ...],
    method: ScoringMethod,
    labels: Sequence[str],
    *,
    unknown_is_error: bool,
    calibration: ProbabilityMap | None = None,
) -> Classification:
    """The likeliest label (of equals the first), or the one that the text names.

    An exception, and with ``unknown_is_error`` a text that names no label, becomes the classification's ``error``; so
    does a reply that holds every label impossible: no label is then likelier than another.

    calibration: what makes probabilities of the scores; None takes them as they are. The label does not depend on it.
    """
    if isinstance(reply, Exception):
        return Classification(None, None, words, None, error=reply)
    if reply.logprobs is not None:
        if all_impossible(reply.logprobs):
            nothing = LLMResponseError(
                f"the LLM holds every label impossible (log-probability -inf): {', '.join(map(repr, labels))}; there "
                "is nothing to choose by"
            )
            return Classification(None, None, words, method, usage=reply.usage, error=nothing)
        shares = np.exp(log_softmax(reply.logprobs)) if calibration is None else calibration(reply.logprobs)
        best = labels[int(np.argmax(reply.logprobs))]
        probabilities = dict(zip(labels, shares.tolist(), strict=True))
        calibrated = calibration is not None
        return Classification(best, probabilities, words, method, usage=reply.usage, calibrated=calibrated)
    label = parse_label(reply.text, labels).label
    if method == "constrained" and composed(reply.text.strip()) not in map(composed, labels):
        method = "parse"  # the restriction was not kept, so whatever label is found was parsed
    error = None
    if label is None and unknown_is_error:
        error = UnknownAnswerError(
            f"the LLM answered {reply.text!r}, which is none of the labels {', '.join(map(repr, labels))}; "
            "with on_unknown='abstain' the prediction is None"
        )
    return Classification(label, None, words, method, reply.text, reply.usage, error)
