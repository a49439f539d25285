"""What classifying images would send and cost, without asking anything.

Knows: requests, tokens, which of them a provider's cache would serve. Refuses to know: prices (the user's table says),
answers.

Estimated, and on the high side: every answer is taken to be as long as it may be. Not counted: what a provider adds
around messages and schemas, requests tried again, and what the response cache already holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icl_vision.contracts import Classification, Constraint, Prompt, Usage
from icl_vision.errors import PromptTooLongError, UsageError
from icl_vision.images import ImageSource
from icl_vision.llms.cost import Cost, PriceTable
from icl_vision.llms.dry import DryLLM, by_prompt
from icl_vision.llms.loop import run_sync
from icl_vision.llms.tokens import how_counted
from icl_vision.llms.word_tables import LEARNING, WordTable, learns, table_of
from icl_vision.tasks.asking import QUERIES_PER_ENSEMBLE
from icl_vision.tasks.calibrating import check_images
from icl_vision.tasks.few_shot import FewShotClassifier
from icl_vision.tasks.scoring import Question, content_free_questions


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    images: to be asked about. unusable: images that cannot be asked about (no image, too long a prompt), each a
    ``Classification`` with its error. usage: requests and tokens; ``cached_tokens`` is the estimate of what a provider
    reads from its cache, ``completion_tokens`` a bound. exact, counted_by: whether the model's own tokenizer counted.
    cost, cost_uncached: with and without those cache reads.
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; an unknown cost is null beside its reason."""
        return {
            "model": self.model,
            "method": self.method,
            "images": self.images,
            "unusable": len(self.unusable),
            "requests": self.usage.requests,
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
        lines = [
            f"model               {self.model} (scoring: {self.method})",
            f"images              {self.images:,}" + (f" ({len(self.unusable)} unusable)" if self.unusable else ""),
            f"requests            {usage.requests:,}",
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
    """What ``classifier.classify(images)`` would send.

    Args:
        classifier: fitted with ``llm=DryLLM(...)``, so that nothing can be asked by mistake.
        prices: of models, by name; None knows none.

    Raises:
        UsageError: a classifier with another LLM.
    """
    llm = classifier.llm_
    if not isinstance(llm, DryLLM):
        raise UsageError(f"a plan needs a classifier fitted with llm=DryLLM(connect(...)); got {llm!r}")
    quiet = classifier.quietly()
    words, groups = quiet._read(images)
    asker = classifier._asker
    unusable = [Classification(None, None, (), None, error=one) for one in words if isinstance(one, Exception)]
    usage, asked = Usage(), 0
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
        if asker.calibrate and questions:
            questions = [*content_free_questions(asker.method, group.prepared, asker.labels), *questions]
        usage += _usage(llm, questions, asker.room, frozenset(asker.words))
    table = prices or PriceTable()
    plain = Usage(usage.requests, usage.prompt_tokens, 0, usage.completion_tokens)
    name = llm.profile.name
    return Plan(
        model=name,
        method=str(asker.method),
        images=asked,
        unusable=tuple(unusable),
        usage=usage,
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


def _usage(llm: DryLLM, questions: Sequence[Question], room: int, expected: frozenset[str]) -> Usage:
    """What these questions would use; prompts with the same fixed part share it in a provider's cache.

    expected: words that an LLM learns after prompts which would be asked more than once.
    """
    profile = llm.profile
    kept = profile.prompt_cache is not None or profile.prefix_cache
    usage = Usage()
    asked: Counter[str] = Counter()
    first: dict[str, Prompt] = {}
    # An ensemble's prompts serve several images in one call, and their words are then scored together.
    size = QUERIES_PER_ENSEMBLE if any(question.shown for question in questions) else 1
    learning = size > 1 and len(questions) > size and bool(expected) and learns(llm)
    known: dict[str, WordTable | frozenset[str]] = {}
    for start in range(0, len(questions), size):
        call = questions[start : start + size]
        for prompt, continuations in by_prompt((pair for one in call for pair in one.pairs), ""):
            if size > 1 and prompt.text not in known:
                table = table_of(llm, prompt)
                if table is None and learning:
                    tokens = llm.count_prompt(prompt)
                    usage += Usage(LEARNING, LEARNING * tokens, (LEARNING - 1) * tokens, LEARNING)
                known[prompt.text] = table if table is not None else expected if learning else frozenset()
            if size > 1:
                continuations = [one for one in continuations if one[1:] not in known[prompt.text]]
                if not continuations:
                    continue
            if continuations[0]:
                spent = llm.scored(prompt, [one + call[0].terminator for one in continuations])
                times = 1 if profile.scores_bags else spent.requests
            else:
                constraint = Constraint(call[0].labels) if call[0].method == "constrained" else None
                written = llm.most_tokens(room, constraint)
                spent, times = Usage(1, llm.count_prompt(prompt), 0, written), 1
            usage += spent if kept else replace(spent, cached_tokens=0)
            if prompt.prefix:
                asked[prompt.prefix] += times
                first.setdefault(prompt.prefix, prompt)
    for prefix, requests in asked.items():
        fixed = llm.count(prefix)
        if kept and requests > 1 and fixed >= profile.prompt_cache_minimum:
            written = fixed if llm.marks_prefix(first[prefix]) else 0
            usage += Usage(cached_tokens=fixed * (requests - 1), cache_write_tokens=written)
    return usage
