"""How an LLM's answer becomes a label: the ladder of methods, best available first, and contextual calibration.

Knows: what is put to the LLM about one query by each method, how log-probabilities of labels are weighed, and which
label a reply means.
Refuses to know: images, examples, how anything is asked (``icl_vision.asking``).

The ladder (``scoring="auto"`` takes the first that the LLM and the template allow):

- "channel": log P(words | label, examples) for every label: the noisy channel of Min et al. 2022 (Noisy Channel
  Language Model Prompting for Few-Shot Text Classification, eq. 2), labels a priori equal. With an ensemble (the
  default) every example has a prompt of its own, and each word is scored by itself: see
  ``icl_vision.tasks.classify.ensemble``.
- "direct": log P(label | words, examples) for every label.
- "constrained": the LLM writes one of the labels and can write nothing else.
- "parse": the LLM writes what it likes; a label is looked for in it.

The first two give probabilities. Without an ensemble they score whole continuations including the terminator, so a
label that is a prefix of another has no advantage. Only a known label is ever returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from icl_vision.asking.inquiries import TERMINATOR, Inquiry, Reply, Writing
from icl_vision.contracts import Classification, Constraint, Profile, ScoringMethod
from icl_vision.errors import CapabilityError, LLMResponseError, TemplateError, UnknownAnswerError
from icl_vision.llms.scores import all_impossible
from icl_vision.probabilities import ProbabilityMap
from icl_vision.spelling import composed
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tasks.classify.prompts import PreparedPrompt, PromptBuilder

Scoring = Literal["auto", "channel", "direct", "constrained", "parse"]
EnsembleOption = Literal["auto", "examples"] | None
Shown = PreparedPrompt | Ensemble
"""The examples as a query finds them: all in one prompt, or each in its own."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, as of Zhao et al. 2021 (Calibrate Before Use, section 5), in place of an image's words."""

ANSWER_ROOM = 16
"""Tokens left for an answer beyond the longest label: quotes, a full stop, "The answer is"."""


def choose_method(
    scoring: str, profile: Profile, builder: PromptBuilder, labels: int | Sequence[str] = 2
) -> ScoringMethod:
    """The rung of the ladder to stand on, to choose among these ``labels``, or so many of no length to speak of.

    Raises:
        CapabilityError: the LLM cannot do what ``scoring`` asks for.
        TemplateError: ``builder`` has no channel twin where one is needed, or is nothing but a channel template.
    """
    if scoring in ("channel", "direct") and not profile.scores_text:
        raise CapabilityError(
            f"scoring={scoring!r} needs log-probabilities of given text, which the LLM {profile.name!r} does not give; "
            "use scoring='auto', or an LLM that gives them (local does)"
        )
    if scoring == "constrained" and profile.constraint is None:
        raise CapabilityError(
            f"scoring='constrained' needs an LLM whose output can be restricted; that of {profile.name!r} cannot: "
            "use scoring='parse' or 'auto'"
        )
    limit = profile.too_much(_stand_ins(labels) if isinstance(labels, int) else labels)
    restrictable = profile.constraint is not None and not limit
    if scoring == "constrained" and not restrictable:
        number = labels if isinstance(labels, int) else len(labels)
        if profile.constraint_limit is not None and number > profile.constraint_limit:
            limit = str(profile.constraint_limit)
        raise CapabilityError(
            f"scoring='constrained' among {number} labels is more than {profile.name!r} can be restricted to ({limit}"
            "); use scoring='parse' or 'auto'"
        )
    method: ScoringMethod
    if scoring == "channel" or (scoring == "auto" and profile.scores_text and builder.has_channel()):
        method = "channel"
    elif scoring == "direct" or (scoring == "auto" and profile.scores_text):
        method = "direct"
    elif scoring == "constrained" or (scoring == "auto" and restrictable):
        method = "constrained"
    else:
        method = "parse"
    if method == "channel":
        builder.channel()  # raises, with what to add, where there is none
    elif builder.kind == "channel":
        raise TemplateError(
            f"the template {builder.template.info.name!r} is for noisy-channel scoring only, but scoring is "
            f"{method!r}; use its direct twin, or an LLM that scores text (local does)"
        )
    return method


def _stand_ins(number: int) -> list[str]:
    return [f"{name}" for name in range(number)]


def choose_ensemble(ensemble: EnsembleOption, method: ScoringMethod, profile: Profile) -> bool:
    """Whether every example gets a prompt of its own.

    "auto": yes, where the channel is scored by an LLM that scores bags of words cheaply. Elsewhere each word of each
    example would be a request.

    Raises:
        CapabilityError: "examples" with another rung of the ladder.
    """
    if ensemble == "examples" and method != "channel":
        raise CapabilityError(
            f"ensemble='examples' scores words by noisy channel, but scoring is {method!r}; use scoring='channel' with "
            "an LLM that scores text (local does), or ensemble='auto'"
        )
    return ensemble == "examples" or (ensemble == "auto" and method == "channel" and profile.scores_bags)


def make_inquiry(
    method: ScoringMethod, prepared: Shown, labels: tuple[str, ...], words: str, writing: Writing | None = None
) -> Inquiry:
    """What is put to the LLM about an image with these words.

    For "channel" and "direct" one continuation a label (of an ensemble, every word after every example's prompt) is
    scored; otherwise the LLM writes. What is scored is in composed characters, as the prompts are.

    Args:
        prepared: the examples; for "channel", of the channel template.
        labels: in the order of ``classes_``.
        writing: how an answer is written, where it is.
    """
    words = composed(words)
    if isinstance(prepared, Ensemble):
        return Inquiry(prepared.pairs(words), terminator="")  # words are scored one by one: nothing ends them
    if method == "channel":
        return Inquiry(tuple((prepared.query(label=label), " " + words) for label in labels))
    prompt = prepared.query(words=words)
    if method == "direct":
        return Inquiry(tuple((prompt, " " + composed(label)) for label in labels))
    return Inquiry.written(prompt, writing or written_label(method, labels))


def written_label(method: ScoringMethod, labels: tuple[str, ...], room: int = ANSWER_ROOM, seed: int = 0) -> Writing:
    """How a label is written: greedily, up to the end of the line; nothing but a label where that can be had."""
    constraint = Constraint(labels) if method == "constrained" else None
    # A constrained answer ends by itself, and a JSON one may hold line ends.
    return Writing(room, () if constraint else (TERMINATOR,), seed=seed, constraint=constraint)


def content_free(method: ScoringMethod) -> tuple[str, ...]:
    """The inputs without content of a method. For "channel" the empty one is left out: an empty text has no probability
    to compare."""
    return tuple(words for words in CONTENT_FREE if words or method == "direct")


def content_free_inquiries(method: ScoringMethod, prepared: Shown, labels: tuple[str, ...]) -> tuple[Inquiry, ...]:
    """What contextual calibration asks: the same prompts about inputs without content."""
    return tuple(make_inquiry(method, prepared, labels, words) for words in content_free(method))


def of_labels(prepared: Shown, labels: Sequence[str], logprobs: Sequence[float], words: str) -> tuple[float, ...]:
    """The log-probabilities of an inquiry's pairs about these words as one for each label."""
    return prepared.pooled(logprobs, composed(words), labels) if isinstance(prepared, Ensemble) else tuple(logprobs)


def log_bias(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """What the prompt alone says of each label: log of its mean probability over inputs without content.

    Zhao et al. 2021, section 5: subtracting it from a query's log-probabilities is their W = diag(p_cf)^-1, b = 0.
    rows: log-probabilities [inputs, labels]; one that holds every label impossible says nothing and is left out.
    Returns finite values [labels].

    Raises:
        LLMResponseError: every row is such a one.
    """
    rows = [row for row in rows if not all_impossible(row)]
    if not rows:
        raise LLMResponseError(
            "the LLM holds every label impossible for inputs without content, so there is nothing to calibrate by; use "
            "calibration=None"
        )
    # In log space: noisy-channel scores of different labels lie so far apart that probabilities would underflow.
    logs = np.asarray([log_softmax(row) for row in rows], dtype=np.float64)
    bias = np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))
    # A label held impossible for every such input must not become certain for every image.
    return np.asarray(np.maximum(bias, bias[np.isfinite(bias)].min()), dtype=np.float64)


def log_softmax(logprobs: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log-probabilities of continuations, normalised over labels. logprobs: one finite at least."""
    values = np.asarray(logprobs, dtype=np.float64)
    # From the likeliest on: beside numbers as large as a mask's (-3.4e38) a sum of shares leaves no trace.
    values = values - values.max()
    return np.asarray(values - np.logaddexp.reduce(values), dtype=np.float64)


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
    # Its patterns take milliseconds to compile, and most replies are scores.
    from icl_vision.tasks.classify.parsing import parse_label

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
