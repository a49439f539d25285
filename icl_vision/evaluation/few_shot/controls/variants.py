"""Rows in which something is exchanged: the controls, and the "untrained" baseline.

Knows: how a control's altered words reach the classifier. Refuses to know: what a control alters, and why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from icl_vision.errors import CapabilityError
from icl_vision.evaluation.few_shot import scorers
from icl_vision.evaluation.few_shot.controls.controls import CONTROLS, UNTRAINED, Control, Setup, Shown
from icl_vision.evaluation.few_shot.scorers import RowResult, Task
from icl_vision.evaluation.few_shot.shared_answers import SharedAnswers, UnaskedLLM
from icl_vision.tokenizers.wrapping import WrappedTokenizer

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.pyramid import TokenPyramid


class DealtTokenizer(WrappedTokenizer):
    """``inner`` whose words for some paths are others.

    words: path -> pyramid. Any other image is ``inner``'s.
    """

    def __init__(self, inner: Tokenizer, words: Mapping[str, TokenPyramid]) -> None:
        super().__init__(inner)
        self._words = words

    def encode(self, images: Any, k: int | None = None) -> list[TokenPyramid]:
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
