"""Calibrated probabilities of a fitted classifier: which packaged map is its own, or one fitted to the user's images.

Knows: what of a classifier decides its map, which images may calibrate it. Refuses to know: how a temperature is found
(``icl_vision.probabilities``), how anything is asked.

A packaged map is known for the embedded LLM with the packaged prompts and tokenizers as they are, so anything else (an
own template, repeats, "nearest") stays raw until ``calibrate_probabilities`` was called.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Classification, ScoringMethod, TextLLM, Tokenizer
from icl_vision.errors import CapabilityError, ImageError, LLMResponseError, UsageError
from icl_vision.images import ImageSource
from icl_vision.probabilities import ProbabilityMap, fit_map
from icl_vision.probabilities.packaged import Situation, find_map, knows_llm
from icl_vision.spelling import composed
from icl_vision.tasks.classify.prompts import Example, PromptBuilder
from icl_vision.tasks.classify.selection import SupportExample
from icl_vision.tasks.inputs import as_labels, as_sources, rereadable
from icl_vision.tokenizers.taking import IMAGES, Taking, taken_by
from icl_vision.tokenizers.wrapping import fingerprint
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.asking.many import Outcome
    from icl_vision.tasks.classify.classifier import FewShotClassifier

logger = logging.getLogger(__name__)

LEAST_IMAGES = 50
"""Different images that ``calibrate_probabilities`` needs: with fewer, chance decides (docs/probabilities.md)."""

UNDERFLOWED = 1e-300
"""A probability that a float cannot tell from 0 is taken for this, so that it has a logarithm."""


def packaged_map(
    llm: TextLLM,
    tokenizer: Tokenizer,
    builder: PromptBuilder,
    shown: Sequence[SupportExample],
    *,
    method: ScoringMethod,
    ensemble: bool,
    contextual: bool,
    selection: str,
) -> ProbabilityMap | None:
    """The packaged map for a classifier with these parts; None where none was measured.

    builder: of the template in use (the channel's, where the channel is scored). shown: the examples in the prompt.
    """
    identity = str(getattr(llm, "identity", llm.profile.name))
    # "nearest" shows other examples than those the maps were fitted with: closer ones, so other scores.
    if method not in ("channel", "direct") or selection == "nearest" or not knows_llm(identity):
        return None
    ways = len({example.label for example in shown})
    packaged = find_map(
        Situation(
            llm=identity,
            prompt=prompt_digest(builder),
            tokenizer=fingerprint(tokenizer),
            method=method,
            ensemble=ensemble,
            contextual=contextual,
            words=statistics.median(len(example.text.split()) for example in shown),
            ways=ways,
            shots=len(shown) / ways,
        )
    )
    if packaged is not None and packaged.note:
        logger.info("calibrated probabilities: %s", packaged.note)
    return packaged


def prompt_digest(builder: PromptBuilder) -> str:
    """Hex sha256 of what a template makes of two fixed examples, with its options; the order of examples left out."""
    plain = copy.copy(builder)
    plain.order_seed = None
    prepared = plain.prepare([Example("one two", "this"), Example("three four", "that")], ["that", "this"])
    query = prepared.query(words="five six") if plain.kind == "direct" else prepared.query(label="this")
    return hashlib.sha256(query.text.encode()).hexdigest()


# One's own images.


def check_images(
    classifier: FewShotClassifier, images: Iterable[ImageSource], labels: Iterable[Any]
) -> tuple[list[ImageSource], list[int]]:
    """The images that calibrate, each content once, and the numbers of their labels among ``classes_``.

    Raises:
        CapabilityError: the scoring in use gives no probabilities.
        UsageError: unequal lengths, a label that is no class, a support image, too few images, or a classifier from a
            file that does not say which its support images were.
        ImageError: an image that cannot be used.
    """
    fitted = classifier.fitted
    classes, examples = fitted.kept.classes, fitted.kept.examples
    if fitted.method not in ("channel", "direct"):
        raise CapabilityError(
            f"scoring by {fitted.method!r} gives no probabilities to calibrate; use an LLM that scores text "
            "(local does) with scoring='auto', 'direct' or 'channel'"
        )
    takes = taken_by(fitted.tokenizer)
    sources, names = as_sources(images, single=False, takes=takes), as_labels(labels)
    if len(sources) != len(names):
        raise UsageError(
            f"images and labels must be of equal length; got {counted(len(sources), 'image')} and "
            f"{counted(len(names), 'label')}"
        )
    # As people spell them: names of folders are in separate characters on some file systems.
    own = {composed(label) if isinstance(label, str) else label: label for label in classes}
    names = [own.get(composed(label) if isinstance(label, str) else label, label) for label in names]
    unknown = [label for label in names if label not in classes]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} is no class of this classifier, so no probability can be right for it; its classes are "
            f"{', '.join(map(repr, classes))}"
        )
    if any(example.digest is None for example in examples):
        raise UsageError(
            "this classifier comes from a file that does not say which its support images were, so it cannot be told "
            "whether the calibration images are among them; fit it again, then calibrate"
        )
    support = {example.digest for example in examples}
    chosen: dict[str, tuple[ImageSource, int]] = {}
    for index, (source, label) in enumerate(zip(sources, names, strict=True)):
        try:
            digest, source = content_of(source, takes)
        except ImageError as error:
            raise type(error)(f"{takes.several}[{index}]: {error}") from error
        if digest in support:
            named = f" ({os.fspath(source)!r})" if isinstance(source, str | os.PathLike) else ""
            raise UsageError(
                f"images[{index}]{named} is one of the support images, which the LLM was shown with its label: leave "
                "it out and calibrate on images that are not in the support set"
            )
        chosen.setdefault(digest, (source, classes.index(label)))
    if len(chosen) < LEAST_IMAGES:
        raise UsageError(
            f"calibrate_probabilities needs {LEAST_IMAGES} different images or more that are not in the support set; "
            f"got {len(chosen)}"
        )
    return [source for source, _ in chosen.values()], [number for _, number in chosen.values()]


def raw_twin(classifier: FewShotClassifier) -> FewShotClassifier:
    """The same classifier with the LLM's probabilities as they are; a failed question raises."""
    twin = copy.copy(classifier)
    twin.probabilities, twin.errors = "raw", "raise"
    return twin


def map_of(shares: Sequence[Sequence[float]], truths: Sequence[int], llm: TextLLM) -> ProbabilityMap:
    """A map fitted to raw probabilities of images with these labels.

    Since probabilities are scores up to a constant, their logarithms fit the same map.
    """
    scores = [[math.log(max(share, UNDERFLOWED)) for share in row] for row in shares]
    tally = Counter(truths)
    note = f"fitted to {len(scores)} images of {len(tally)} classes, asked of {llm.profile.name}"
    return fit_map(scores, truths, source="own", note=note)


def shares_of(results: Sequence[Classification]) -> list[list[float]]:
    """Probabilities by image, in the order of the classes."""
    return [list((result.probabilities or {}).values()) for result in results]


def shares_in(outcome: Outcome) -> list[list[float]]:
    """The same of a run's rows.

    Raises:
        LLMError: a question failed; what was answered is in the run folder.
    """
    failed = [row for row in outcome.rows if row["probabilities"] is None]
    if failed:
        raise LLMResponseError(
            f"{len(failed)} of {len(outcome.rows)} calibration images have no answer ({failed[0].get('error')}); what "
            f"was answered is kept in {str(outcome.folder)!r}: call it again with resume=True"
        )
    return [list(row["probabilities"].values()) for row in outcome.rows]


def content_of(source: Any, takes: Taking = IMAGES) -> tuple[str, Any]:
    """A digest of what a picture shows, the same for a file, its bytes and its pixels; and the picture, in a form that
    can be read again.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return _of_file(os.fspath(source), _state(source), takes), source
    source = rereadable(source)
    return takes.digest(takes.load(source)), source


def known_content(source: Any, takes: Taking = IMAGES) -> tuple[str | None, Any]:
    """The same, without a digest where the picture cannot be read: who makes words of it says what is wrong."""
    source = rereadable(source)
    try:
        return content_of(source, takes)
    except ImageError as error:
        logger.debug("a support image cannot be read: %s", error)
        return None, source


def _state(path: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return (0, 0)  # what is wrong with it is said by whoever opens it
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def _of_file(path: str, state: tuple[int, int], takes: Taking) -> str:
    return takes.digest(takes.load(path))  # (state: a file that changed is another picture)
