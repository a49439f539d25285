"""The items of an episode: one of its queries in one setting, put to every row, as a JSON document.

Knows: which rows there are, what to do when one cannot be had. Refuses to know: journals, tables, where episodes are
kept.

Rows that cannot be had are noted, never a crash: "exceeds window", "not installed: ...", "not available: ...". An
item that fails is given as ``Failed``: the caller records it as an error, or raises. An estimate prepares the first
episode of each series as it would be, and asks nobody.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from icl_vision.evaluation.few_shot.config import Estimate
from icl_vision.evaluation.few_shot.controls.controls import Variant
from icl_vision.evaluation.few_shot.scorers import Judged, RowResult, SharedAnswers, Task, shares
from icl_vision.evaluation.kit.running import Failed, note_of

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.evaluation.few_shot.config import Setting
    from icl_vision.evaluation.few_shot.episodes.drawing import Episode
    from icl_vision.evaluation.few_shot.scorers import UnaskedLLM


@dataclass
class ItemMaker:
    """Makes the items of episodes.

    llm: under test. tokenizer: its words; each image should be remembered. k: words per image. image: path of an
    episode -> path on disk. scorers: rows of ``LLM_ROWS``. baselines: rows of ``ROWS`` that need no LLM, or "blind".
    variants: controls and "untrained", asked in the first ``variant_episodes`` episodes and judged by
    ``variant_scorer``. options: of ``FewShotClassifier``. strict: a row of the LLM that cannot be had fails the
    item, instead of being noted.
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
    strict: bool = False

    def items(
        self, number: int, episode: Episode, settings: Sequence[Setting]
    ) -> Iterator[tuple[Setting, dict[str, Any] | Failed]]:
        """A document for each setting and query, or that a setting failed, as soon as it is there.

        What is asked and spent in a setting is dealt to its queries evenly.
        """
        llms: dict[int, SharedAnswers] = {}

        def llm_of(llm: TextLLM) -> SharedAnswers:
            return llms.setdefault(id(llm), SharedAnswers(llm))

        for setting in settings:
            began = time.monotonic()
            before = {key: llm.usage for key, llm in llms.items()}
            asked = sum(llm.asked for llm in llms.values())
            try:
                documents = self._documents(number, episode, setting, llm_of)
            except (LLMError, ImageError) as error:
                yield setting, Failed(error, Usage(**_spent(llms.values(), before)))
                continue
            parts = len(documents)
            usage = _dealt(_spent(llms.values(), before), parts)
            # Of LLMs beside the one under test (a control's), whose price is another.
            others = {
                llm.profile.name: _dealt(_spent([llm], before), parts)
                for key, llm in llms.items()
                if llm.llm is not self.llm and llm.usage != before.get(key, Usage())
            }
            new = shares(sum(llm.asked for llm in llms.values()) - asked, parts)
            seconds = round((time.monotonic() - began) / parts, 3)
            for index, document in enumerate(documents):
                document["usage"] = usage[index]
                document["other_llms"] = {name: spent[index] for name, spent in others.items()}
                document["asked"] = new[index]
                document["seconds"] = seconds
                yield setting, document

    def answered(
        self, number: int, episode: Episode, settings: Sequence[Setting]
    ) -> Iterator[tuple[Setting, dict[str, Any]]]:
        """``items``, where the error of one that failed is raised."""
        for setting, document in self.items(number, episode, settings):
            if isinstance(document, Failed):
                raise document.error
            yield setting, document

    def _documents(
        self, number: int, episode: Episode, setting: Setting, llm_of: Callable[[TextLLM], SharedAnswers]
    ) -> list[dict[str, Any]]:
        shown = episode.with_shots(setting.shots)
        task = Task(
            setting,
            tuple(self.image(item.path) for item in shown.support),
            tuple(item.label for item in shown.support),
            tuple(self.image(item.path) for item in shown.queries),
            tuple(item.label for item in shown.queries),
            self.tokenizer,
            self.k,
            llm_of(self.llm),
            self.options,
        )
        results: dict[str, list[RowResult]] = {}
        notes: dict[str, str] = {}
        prompts = {"open": [""] * len(shown.queries), "channel": [""] * len(shown.queries)}

        def fill(names: Sequence[str], ask: Callable[[], Judged], sent: str = "") -> None:
            try:
                judged, asked = ask()
            except (PromptTooLongError, CapabilityError, TemplateError, MissingExtraError) as error:
                if self.strict:
                    raise
                notes.update(dict.fromkeys(names, note_of(error)))
                return
            results.update(judged)
            if sent and not any(prompts[sent]):
                prompts[sent] = asked

        # Direct prompts first, then the noisy channel's: neighbours share the longest prefixes.
        judged = [row for row in scorers.OPEN_ENDED if row in self.scorers]
        if judged:
            fill(judged, lambda: scorers.open_ended(task, judged), "open")
        for name, ask in scorers.CLASSIFIED.items():
            if name == "likelihood" and "blind" in self.baselines:
                fill(["blind"], lambda: (_blind(task), []))
            if name in self.scorers:
                fill([name], partial(ask, task), _PROMPT_OF.get(name, ""))
        self._without_llm(task, shown.labels, results, notes)
        for variant in self.variants if number < self.variant_episodes else ():
            try:
                results[variant.name] = variant.ask(task, number, llm_of, self.variant_scorer)
            except BudgetExceededError:
                raise
            except (LLMError, PromptTooLongError, TemplateError, MissingExtraError) as error:
                notes[variant.name] = note_of(error)  # a control that cannot be had never costs the item
        words = self.tokenizer.encode([*task.support, *task.queries], self.k)
        support = [
            {"image": item.path, "label": item.label, "words": pyramid.words()}
            for item, pyramid in zip(shown.support, words[: len(shown.support)], strict=True)
        ]
        return [
            {
                "id": item_id(number, setting, index),
                "episode": number,
                "setting": setting.id,
                "labels": list(shown.labels),
                "support": support,
                "query": {"image": item.path, "label": item.label, "words": pyramid.words()},
                "prompts": {kind: texts[index] for kind, texts in prompts.items()},
                "answers": {name: rows[index].to_dict() for name, rows in results.items()},
                "notes": notes,
            }
            for index, (item, pyramid) in enumerate(zip(shown.queries, words[len(shown.support) :], strict=True))
        ]

    def _without_llm(
        self, task: Task, labels: tuple[str, ...], results: dict[str, list[RowResult]], notes: dict[str, str]
    ) -> None:
        """The baselines that need words and vectors only."""
        wanted = [ROWS[name] for name in self.baselines if ROWS[name].answer is not None]
        view = self._view(task, labels, any("vectors" in row.needs for row in wanted))
        for row in wanted:
            lacking = view.lacks(row.needs)
            named = None if lacking else row(view)
            if named is None:
                notes[row.name] = lacking or "not available: a label's words are not in the codebook"
            else:
                pairs = zip(named, task.truths, strict=True)
                results[row.name] = [RowResult(label, label == truth) for label, truth in pairs]

    def _view(self, task: Task, labels: tuple[str, ...], vectors: bool) -> View:
        view = View(
            labels,
            tuple(self.tokenizer.encode(list(task.support), self.k)),
            task.support_labels,
            tuple(self.tokenizer.encode(list(task.queries), self.k)),
            self.tokenizer.codebook if self.tokenizer.vocabulary is not None else None,
            self.tokenizer.vocabulary,
        )
        if not (vectors and self.tokenizer.can_embed):
            return view
        rows = self.tokenizer.embed([*task.support, *task.queries])
        count = len(task.support)
        return replace(view, support_vectors=rows[:count], query_vectors=rows[count:])


_PROMPT_OF = {"constrained": "open", "parsed": "open", "likelihood": "channel"}
"""Row -> which of an item's prompts it shows; of several rows that share one, the first that was asked."""


def _blind(task: Task) -> dict[str, list[RowResult]]:
    before = task.llm.calls
    label = baselines.blind(task.llm, task.prepared, task.labels)  # the same whatever the query
    calls = shares(task.llm.calls - before, len(task.truths))
    return {
        "blind": [
            RowResult(label, label == truth, None, None, own) for truth, own in zip(task.truths, calls, strict=True)
        ]
    }


def item_id(number: int, setting: Setting, query: int = 0) -> str:
    """What an item is known by in the journal: "e00017/5w-1s-0r-i", and "/q1" for the second query of the episode."""
    return f"e{number:05d}/{setting.id}" + (f"/q{query}" if query else "")


def _spent(llms: Iterable[SharedAnswers], before: Mapping[int, Usage]) -> dict[str, int]:
    """What these LLMs were asked for since ``before``, their usage by the id of the LLM."""
    spent: Counter[str] = Counter(Usage().to_dict())
    for llm in llms:
        spent.update(llm.usage.to_dict())
        spent.subtract(before.get(id(llm.llm), Usage()).to_dict())
    return dict(spent)


def _dealt(spent: Mapping[str, int], parts: int) -> list[dict[str, int]]:
    """A usage dealt to so many queries."""
    dealt = {name: shares(value, parts) for name, value in spent.items()}
    return [{name: values[index] for name, values in dealt.items()} for index in range(parts)]


def estimate(
    maker: ItemMaker,
    llm: UnaskedLLM,
    firsts: Mapping[int, Episode],
    settings: Sequence[Setting],
    *,
    episodes: int,
    done: Collection[str] = (),
) -> Estimate:
    """What is left to ask.

    Args:
        maker: of items, with ``llm`` in place of every LLM.
        llm: counts.
        firsts: ways -> the series' first episode, which stands for the others.
        settings: every episode is asked in those of its ways.
        episodes: in each series.
        done: ids of items that a run has already.

    Raises:
        ImageError: an image of the first episodes cannot be used.
    """
    items = requests = tokens = saved = written = lacking = 0
    # Asked once as an episode with controls and once as one without, each standing for those like it.
    controlled = min(episodes, maker.variant_episodes) if maker.variants else 0
    for ways, episode in firsts.items():
        own = [setting for setting in settings if setting.ways == ways]
        for number, alike in ((0, range(controlled)), (maker.variant_episodes, range(controlled, episodes))):
            missing = [[setting for setting in own if item_id(other, setting) not in done] for other in alike]
            counts = Counter(setting for settings_of in missing for setting in settings_of)
            lacking += sum(map(bool, missing))
            before = llm.fixed_tokens
            for setting, document in maker.answered(number, episode, [setting for setting in own if counts[setting]]):
                count, usage = counts[setting], document["usage"]
                items += count
                requests += count * usage["requests"]
                tokens += count * usage["prompt_tokens"]
                written += count * usage["completion_tokens"]
                saved += count * (llm.fixed_tokens - before)
                before = llm.fixed_tokens
            llm.forget()
    return Estimate(items, requests, tokens, tokens - saved, written, llm.exact, lacking)
