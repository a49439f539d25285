"""One item of a benchmark: an episode's question in one setting, put to every row, as a JSON document.

Knows: which rows there are, what to do when one cannot be had. Refuses to know: journals, tables, where episodes are
kept.

Rows that cannot be had are noted, never a crash: "exceeds window", "not installed: ...", "not available: ...". A
question that fails raises: its item is recorded as an error by the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Usage
from icl_vision.errors import (
    BudgetExceededError,
    CapabilityError,
    ImageError,
    LLMError,
    MissingExtraError,
    PromptTooLongError,
    TemplateError,
)
from icl_vision.evaluation.few_shot import baselines, scorers
from icl_vision.evaluation.few_shot.baselines import ROWS, View
from icl_vision.evaluation.few_shot.controls.variants import Variant
from icl_vision.evaluation.few_shot.scorers import RowAnswer, Task
from icl_vision.evaluation.few_shot.shared_answers import SharedAnswers
from icl_vision.evaluation.kit.journalling import Failed

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.evaluation.few_shot.episodes.drawing import Episode
    from icl_vision.evaluation.few_shot.settings import Setting

EXCEEDS_WINDOW = "exceeds window"


@dataclass
class ItemMaker:
    """Makes the items of episodes.

    llm: under test. tokenizer: its words; each image should be remembered. k: words per image. image: path of an
    episode -> path on disk. scorers: rows of ``LLM_ROWS``. baselines: rows of ``ROWS`` that need no LLM, or "blind".
    variants: controls and "untrained", asked in the first ``variant_episodes`` episodes and judged by
    ``variant_scorer``. options: of ``FewShotClassifier``.
    """

    llm: TextLLM
    tokenizer: Tokenizer
    k: int | None
    image: Callable[[str], str]
    scorers: tuple[str, ...]
    baselines: tuple[str, ...]
    variants: tuple[Variant, ...] = ()
    variant_episodes: int = 0
    variant_scorer: str = "likelihood"
    options: Mapping[str, Any] = field(default_factory=dict)

    def items(
        self, number: int, episode: Episode, settings: Sequence[Setting]
    ) -> Iterator[tuple[Setting, dict[str, Any] | Failed]]:
        """Each setting's document, or that its question failed, as soon as it is there."""
        llms: dict[int, SharedAnswers] = {}

        def llm_of(llm: TextLLM) -> SharedAnswers:
            return llms.setdefault(id(llm), SharedAnswers(llm))

        for setting in settings:
            began = time.monotonic()
            spent = sum((llm.usage for llm in llms.values()), Usage())
            before = {key: llm.usage for key, llm in llms.items()}
            asked = sum(llm.asked for llm in llms.values())
            try:
                document = self._item(number, episode, setting, llm_of)
            except (LLMError, ImageError) as error:
                after = sum((llm.usage for llm in llms.values()), Usage())
                yield setting, Failed(error, Usage(**_difference(after.to_dict(), spent.to_dict())))
                continue
            after = sum((llm.usage for llm in llms.values()), Usage())
            document["usage"] = _difference(after.to_dict(), spent.to_dict())
            # Of LLMs beside the one under test (a control's), whose price is another.
            document["other_llms"] = {
                llm.profile.name: _difference(llm.usage.to_dict(), before.get(key, Usage()).to_dict())
                for key, llm in llms.items()
                if llm.llm is not self.llm and llm.usage != before.get(key, Usage())
            }
            document["asked"] = sum(llm.asked for llm in llms.values()) - asked
            document["seconds"] = round(time.monotonic() - began, 3)
            yield setting, document

    def _item(
        self, number: int, episode: Episode, setting: Setting, llm_of: Callable[[TextLLM], SharedAnswers]
    ) -> dict[str, Any]:
        shown = episode.with_shots(setting.shots)
        query = shown.queries[0]
        task = Task(
            setting,
            tuple(self.image(item.path) for item in shown.support),
            tuple(item.label for item in shown.support),
            self.image(query.path),
            query.label,
            self.tokenizer,
            self.k,
            llm_of(self.llm),
            self.options,
        )
        answers: dict[str, RowAnswer] = {}
        notes: dict[str, str] = {}
        prompts = {"open": "", "channel": ""}

        def fill(names: Sequence[str], ask: Callable[[], tuple[dict[str, RowAnswer], str]]) -> str:
            try:
                found, sent = ask()
            except (PromptTooLongError, CapabilityError, TemplateError, MissingExtraError) as error:
                notes.update(dict.fromkeys(names, note_of(error)))
                return ""
            answers.update(found)
            return sent

        # Direct prompts first, then the noisy channel's: neighbours share the longest prefixes.
        judged = [row for row in scorers.OPEN_ENDED if row in self.scorers]
        if judged:
            prompts["open"] = fill(judged, lambda: scorers.open_ended(task, judged))
        for name, ask in scorers.CLASSIFIED.items():
            if name == "likelihood" and "blind" in self.baselines:
                fill(["blind"], lambda: (_blind(task), ""))
            if name in self.scorers:
                sent = fill([name], partial(ask, task))
                if name == "likelihood":
                    prompts["channel"] = sent
        self._without_llm(task, shown.labels, answers, notes)
        for variant in self.variants if number < self.variant_episodes else ():
            try:
                answers[variant.name] = variant.answer(task, number, llm_of, self.variant_scorer)
            except BudgetExceededError:
                raise
            except (LLMError, PromptTooLongError, TemplateError, MissingExtraError) as error:
                notes[variant.name] = note_of(error)  # a control that cannot be had never costs the item
        support_words = self.tokenizer.encode(list(task.support), self.k)
        (query_words,) = self.tokenizer.encode([task.query], self.k)
        return {
            "id": item_id(number, setting),
            "episode": number,
            "setting": setting.id,
            "labels": list(shown.labels),
            "support": [
                {"image": item.path, "label": item.label, "words": pyramid.words()}
                for item, pyramid in zip(shown.support, support_words, strict=True)
            ],
            "query": {"image": query.path, "label": query.label, "words": query_words.words()},
            "prompts": prompts,
            "answers": {name: answer.to_dict() for name, answer in answers.items()},
            "notes": notes,
        }

    def _without_llm(
        self,
        task: Task,
        labels: tuple[str, ...],
        answers: dict[str, RowAnswer],
        notes: dict[str, str],
    ) -> None:
        """The baselines that need words and vectors only."""
        wanted = [ROWS[name] for name in self.baselines if ROWS[name].answer is not None]
        view = self._view(task, labels, any("vectors" in row.needs for row in wanted))
        for row in wanted:
            lacking = view.lacks(row.needs)
            found = None if lacking else row(view)
            if found is None:
                notes[row.name] = lacking or "not available: a label's words are not in the codebook"
            else:
                answers[row.name] = RowAnswer(found[0], found[0] == task.truth)

    def _view(self, task: Task, labels: tuple[str, ...], vectors: bool) -> View:
        support = self.tokenizer.encode(list(task.support), self.k)
        query = self.tokenizer.encode([task.query], self.k)
        view = View(
            labels,
            tuple(support),
            task.support_labels,
            tuple(query),
            self.tokenizer.codebook if self.tokenizer.vocabulary is not None else None,
            self.tokenizer.vocabulary,
        )
        if not (vectors and self.tokenizer.can_embed):
            return view
        rows = self.tokenizer.embed([*task.support, task.query])
        return replace(view, support_vectors=rows[:-1], query_vectors=rows[-1:])


def _blind(task: Task) -> dict[str, RowAnswer]:
    before = task.llm.calls
    label = baselines.blind(task.llm, task.prepared, task.labels)
    return {"blind": RowAnswer(label, label == task.truth, None, None, task.llm.calls - before)}


def item_id(number: int, setting: Setting) -> str:
    """What an item is known by in the journal: "e00017/5w-1s-0r-i"."""
    return f"e{number:05d}/{setting.id}"


def note_of(error: Exception) -> str:
    """What a cell says where a row cannot be had."""
    if isinstance(error, PromptTooLongError):
        return EXCEEDS_WINDOW
    if isinstance(error, MissingExtraError):
        return f"not installed: pip install 'icl-vision[{error.extra}]'"
    text = str(error)
    return text if text.startswith(("not installed", "not available")) else f"not available: {text}"


def _difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {key: after[key] - before[key] for key in after}
