"""What classifying images would send and cost, without asking anything.

Knows: requests, tokens, which of them a provider's cache would serve. Refuses to know: prices (the user's table says),
answers.

Tokens are estimated, and on the high side: every answer is taken to be as long as it may be. Requests are those that a
run makes, call by call, but of texts that llama.cpp scores token by token their number is an estimate where words are
not one token each (labels, line ends). Counted: what the embedded LLM learns of the examples before, and the two short
requests by which an echo is checked. Not counted: what a provider adds around messages and schemas, requests tried
again, and what the response cache already holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from icl_vision.contracts import Classification, Constraint, Prompt, Usage
from icl_vision.errors import PromptTooLongError, UsageError
from icl_vision.images import ImageSource
from icl_vision.llms.cost import Cost, PriceTable
from icl_vision.llms.local.scoring import SIBLINGS
from icl_vision.llms.loop import run_sync
from icl_vision.llms.tokens import how_counted
from icl_vision.llms.word_tables import learns, table_of
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.tasks.classify.asking import Asker
from icl_vision.tasks.classify.calibrating import check_images
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.classify.scoring import Question, Shown, content_free_questions


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    images: to be asked about. unusable: images that cannot be asked about (no image, too long a prompt), each a
    ``Classification`` with its error. usage: requests and tokens; ``cached_tokens`` is the estimate of what a provider
    reads from its cache, ``completion_tokens`` a bound. exact, counted_by: whether the model's own tokenizer counted.
    cost, cost_uncached: with and without those cache reads. learning: those of the requests by which the embedded LLM
    learns what the examples' prompts say of words: it keeps that, and the next plan has none of them.
    """

    model: str
    method: str
    images: int
    unusable: tuple[Classification, ...]
    usage: Usage
    exact: bool
    counted_by: str
    cost: Cost
    cost_uncached: Cost
    learning: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; an unknown cost is null beside its reason."""
        return {
            "model": self.model,
            "method": self.method,
            "images": self.images,
            "unusable": len(self.unusable),
            "requests": self.usage.requests,
            "requests_of_learning": self.learning,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens_estimate": self.usage.cached_tokens,
            "cache_write_tokens_estimate": self.usage.cache_write_tokens,
            "completion_tokens_at_most": self.usage.completion_tokens,
            "tokens_exact": self.exact,
            "tokens_counted_by": self.counted_by,
            "cost_at_most": self.cost.to_dict(),
            "cost_at_most_without_cache": self.cost_uncached.to_dict(),
        }

    def __str__(self) -> str:
        usage = self.usage
        how = how_counted(self.exact, self.counted_by)
        learning = f" ({self.learning:,} of them to learn the examples, once: they are kept)" if self.learning else ""
        lines = [
            f"model               {self.model} (scoring: {self.method})",
            f"images              {self.images:,}" + (f" ({len(self.unusable)} unusable)" if self.unusable else ""),
            f"requests            {usage.requests:,}{learning}",
            f"prompt tokens       {usage.prompt_tokens:,} ({how})",
            f"  of them cached    {usage.cached_tokens:,} (estimate: what an earlier prompt began with)",
            f"completion tokens   at most {usage.completion_tokens:,}",
            f"cost                at most {self.cost}" if self.cost.amount is not None else f"cost  {self.cost}",
        ]
        if self.cost_uncached.amount is not None:
            lines.append(f"  without its cache at most {self.cost_uncached}")
        if usage.cache_write_tokens:
            lines.insert(5, f"  written to it     {usage.cache_write_tokens:,}")
        return "\n".join(lines)


def plan(classifier: FewShotClassifier, images: Sequence[ImageSource], prices: PriceTable | None = None) -> Plan:
    """What ``classifier.classify(images)`` would send; ``fit``, too, where that has the LLM learn the examples.

    Args:
        classifier: fitted with ``llm=DryLLM(...)``, so that nothing can be asked by mistake.
        prices: of models, by name; None knows none.

    Raises:
        UsageError: a classifier with another LLM.
    """
    llm = classifier.llm_
    if not isinstance(llm, DryLLM):
        raise UsageError(f"a plan needs a classifier fitted with llm=DryLLM(connect(...)); got {llm!r}")
    llm.begin()
    quiet = classifier.quietly()
    words, groups = quiet._read(images)
    asker = classifier._asker
    unusable = [Classification(None, None, (), None, error=one) for one in words if isinstance(one, Exception)]
    if classifier.tokenizer_.vocabulary is not None:
        llm.whole = frozenset(classifier.tokenizer_.vocabulary)
    asked = 0
    questioned: list[tuple[Shown, list[Question]]] = []
    for group in groups:
        questions: list[Question] = []
        for text in group.texts:
            question = asker.question(group.prepared, text)
            try:
                run_sync(asker.check_window(question))
            except PromptTooLongError as error:
                unusable.append(Classification(None, None, (), None, error=error))
                continue
            questions.append(question)
        asked += len(questions)
        questioned.append((group.prepared, questions))
    usage, learnt = _usage(llm, asker, questioned)
    table = prices or PriceTable()
    plain = Usage(usage.requests, usage.prompt_tokens, 0, usage.completion_tokens)
    name = llm.profile.name
    return Plan(
        model=name,
        method=str(asker.method),
        images=asked,
        unusable=tuple(unusable),
        usage=usage,
        learning=learnt,
        exact=llm.exact,
        counted_by=llm.how,
        cost=table.cost(name, usage),
        cost_uncached=table.cost(name, plain),
    )


def plan_calibration(
    classifier: FewShotClassifier,
    images: Iterable[ImageSource],
    labels: Iterable[Any],
    prices: PriceTable | None = None,
) -> Plan:
    """What ``classifier.calibrate_probabilities(images, labels)`` would send; it refuses what that would refuse.

    Args:
        classifier: fitted with ``llm=DryLLM(...)``, as for ``plan``.

    Raises:
        UsageError, CapabilityError, ImageError: as ``calibrate_probabilities``, and for a classifier with another LLM.
    """
    sources, _ = check_images(classifier, images, labels)
    return plan(classifier, sources, prices)


def _usage(llm: DryLLM, asker: Asker, groups: Sequence[tuple[Shown, Sequence[Question]]]) -> tuple[Usage, int]:
    """What these questions would use, call by call, and how many of the requests learn what is kept afterwards.

    Prompts with the same fixed part share it in a provider's cache.
    """
    profile = llm.profile
    kept = profile.prompt_cache is not None or profile.prefix_cache
    asked: Counter[str] = Counter()
    first: dict[str, Prompt] = {}
    tables = _Tables(llm, asker.words)
    usage = sum(map(tables.learn, asker.learnt_at_fit()), Usage())
    if learns(llm) and asker.words:
        usage += sum(map(tables.learn, asker.pays([(shown, len(questions)) for shown, questions in groups])), Usage())
    learnt = usage.requests
    chains = [_chain(asker, shown, questions) for shown, questions in groups if questions]
    # Groups are asked side by side, as many as there are requests at a time.
    rounds = [
        (call, alone and len(chains) == 1)
        for start in range(0, len(chains), asker.concurrency)
        for turn in zip_longest(*chains[start : start + asker.concurrency])
        for call, alone in filter(None, turn)
    ]
    for call, alone in rounds:
        if call[0].method not in ("channel", "direct"):
            constraint = Constraint(call[0].labels) if call[0].method == "constrained" else None
            prompt = call[0].pairs[0][0]
            written = llm.most_tokens(asker.room, constraint)
            parts: list[tuple[Prompt | None, Usage]] = [
                (prompt, Usage(1, llm.count_prompt(prompt), 0, written)) for _ in call
            ]
        else:
            pairs = tables.unknown([pair for one in call for pair in one.pairs], call[0].terminator)
            parts = llm.call(pairs, call[0].terminator, alone=alone) if pairs else []
        for part, spent in parts:
            usage += spent if kept else replace(spent, cached_tokens=0)
            if part is not None and part.prefix:
                asked[part.prefix] += 1 if profile.scores_bags else spent.requests
                first.setdefault(part.prefix, part)
    for prefix, requests in asked.items():
        fixed = llm.count(prefix)
        if kept and requests > 1 and fixed >= profile.prompt_cache_minimum:
            written = fixed if llm.marks_prefix(first[prefix]) else 0
            usage += Usage(cached_tokens=fixed * (requests - 1), cache_write_tokens=written)
    return usage, learnt


def _chain(asker: Asker, shown: Shown, questions: Sequence[Question]) -> list[tuple[list[Question], bool]]:
    """The calls about one group's questions in their order, and whether each is made while no other is."""
    calls, leads = asker.calls(shown, len(questions))
    together = [[questions[place] for place in call] for call in calls]
    if asker.calibrate:
        together = [[*content_free_questions(asker.method, shown, asker.labels)], *together]
        leads = True
    return [(call, len(together) == 1 or (leads and not number)) for number, call in enumerate(together)]


class _Tables:
    """What an LLM that learns words knows of each prompt, now and after what it is to learn."""

    def __init__(self, llm: DryLLM, words: Sequence[str]) -> None:
        self._llm = llm
        self._words = frozenset(words)
        self._kept: dict[str, Container[str]] = {}
        self._learnt: set[str] = set()

    def learn(self, prompt: Prompt) -> Usage:
        """Have a prompt's words learnt, unless they are; what that would use."""
        known = self._of(prompt)
        if prompt.text in self._learnt or sum(word not in known for word in self._words) < SIBLINGS:
            return Usage()
        self._learnt.add(prompt.text)
        return self._llm.learnt(prompt)

    def unknown(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> list[tuple[Prompt, str]]:
        """The pairs of one call that are to be asked."""
        if terminator or not learns(self._llm):
            return list(pairs)
        return [(prompt, text) for prompt, text in pairs if not self._knows(prompt, text[1:])]

    def _knows(self, prompt: Prompt, word: str) -> bool:
        return (prompt.text in self._learnt and word in self._words) or word in self._of(prompt)

    def _of(self, prompt: Prompt) -> Container[str]:
        if prompt.text not in self._kept:
            self._kept[prompt.text] = table_of(self._llm, prompt) or ()
        return self._kept[prompt.text]
