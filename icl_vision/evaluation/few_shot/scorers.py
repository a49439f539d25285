"""The rows of a few-shot table that an LLM under test fills: open-ended answers, likelihoods, constrained output.

Knows: how the queries of an episode are asked in each way, and which way of judging an answer is which row.
Refuses to know: episodes' files, journals, tables.

One open-ended completion is judged four times (exact, exact_normalised, prefix, substring), and direct scores serve
"calibrated" too, so that all rows of an item take few LLM calls: ``SharedAnswers`` is one LLM for all of them, which is
asked once what two rows ask alike, and counts. ``UnaskedLLM`` answers nothing but says what it would have been sent,
for estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Unpack

from icl_vision.asking.inquiries import Inquiry, Reply, complete
from icl_vision.contracts import Completion, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import CapabilityError
from icl_vision.evaluation.few_shot.baselines import Need, Row
from icl_vision.evaluation.kit.metrics import normalised_match, prefix_match, strict_match, substring_match
from icl_vision.llms.base import Settings, completed, scored
from icl_vision.llms.forced_requests import START
from icl_vision.llms.loop import OwnThread, run_sync
from icl_vision.llms.scores import PartialScores, attach, take
from icl_vision.llms.word_tables import word_tables
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.llms.wrappers.wrapped import WrappedLLM
from icl_vision.prompting import PromptSize
from icl_vision.spelling import composed
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.classify.fitted import Asker
from icl_vision.tasks.classify.prompts import Example, PreparedPrompt, PromptBuilder
from icl_vision.tasks.classify.scoring import choose_method

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer
    from icl_vision.evaluation.few_shot.config import Setting


def shares(total: int, parts: int) -> list[int]:
    """A number of things dealt as evenly as can be to so many that they were for."""
    each, rest = divmod(total, parts)
    return [each + (number < rest) for number in range(parts)]


class SharedAnswers(WrappedLLM):
    """``llm``, asked each question once; for one episode, in one thread at a time.

    Counted so far: ``calls``, prompts that rows wanted answered (a scored continuation is one); ``asked``, those that
    the LLM was really asked; ``usage``, what it spent on them.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.calls = 0
        self.asked = 0
        self.usage = Usage()
        self._scores: dict[tuple[str, str, str], float] = {}
        self._completions: dict[tuple[Any, ...], Completion] = {}

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        self.calls += 1
        key = (prompt.text, tuple(settings.values()))
        known = self._completions.get(key)
        if known is None:
            known = await completed(self.llm, prompt, **settings)
            self.asked += 1
            self.usage += known.usage
            self._completions[key] = replace(known, usage=Usage(), raw={})  # what it cost is booked once
        return known

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.calls += len(pairs)
        keys = [(prompt.text, continuation, terminator) for prompt, continuation in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._scores}
        usage, method = Usage(), "shared"
        if new:
            try:
                scores = await scored(self.llm, list(new.values()), terminator=terminator)
            except Exception as error:
                self._keep(list(new), take(error))
                there = {index: self._scores[key] for index, key in enumerate(keys) if key in self._scores}
                attach(error, PartialScores(there, Usage(), "shared"))  # what it cost is booked here
                raise
            usage, method = scores.usage, scores.method
            self.asked += len(new)
            self.usage += usage
            self._scores.update(zip(new, scores.logprobs, strict=True))
        return Scores(tuple(self._scores[key] for key in keys), usage, method)

    def _keep(self, asked: Sequence[tuple[str, str, str]], partial: PartialScores) -> None:
        """What came back of a call that failed."""
        self.asked += len(partial.logprobs)
        self.usage += partial.usage
        self._scores.update({asked[index]: value for index, value in partial.logprobs.items()})


class UnaskedLLM(DryLLM):
    """``llm`` as it looks from outside, whose answers are a dash and whose usage is what the question would have been.

    fixed_tokens: tokens that an earlier prompt already began with (its fixed part; the whole prompt where many words
    are scored after one), which a prefix cache saves.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.fixed_tokens = 0
        # Once a connection, not once an episode: an echo's check, and the start of all prompts.
        self._checks = 0
        self._forced.hold((START,))
        self._fixed: set[str] = set()
        # Counting is no work for the loop that serves every LLM, and this count no work for two threads.
        self._thread = OwnThread("icl-vision-counting")

    def forget(self) -> None:
        """Take no fixed part for known any more: what comes next is another episode."""
        self._fixed.clear()

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        tokens = await self._thread.run(self._completed, prompt)
        # (An empty one would be no answer.)
        return Completion(
            "-", "stop", Usage(1, tokens, 0, self.most_tokens(settings["max_tokens"], settings["constraint"]))
        )

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        usage = await self._thread.run(self._all_scored, pairs, terminator)
        return Scores((0.0,) * len(pairs), usage, "not asked")

    def _completed(self, prompt: Prompt) -> int:
        self._known(prompt, 1)
        return self.count_prompt(prompt)

    def _all_scored(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Usage:
        usage = Usage()
        for prompt, spent in self.call(pairs, terminator):
            if prompt is not None:
                self._known(prompt, 1 if self.profile.scores_bags else spent.requests)
            self.fixed_tokens += spent.cached_tokens
            usage += spent
        return usage

    def _known(self, prompt: Prompt, times: int) -> None:
        """Count the fixed part of a prompt that is sent so often as saved, but for the first time ever."""
        fixed = self.count(prompt.prefix) if prompt.prefix else 0
        self.fixed_tokens += fixed * (times - (prompt.prefix not in self._fixed))
        self._fixed.add(prompt.prefix)


_LLM: frozenset[Need] = frozenset({"llm"})

LLM_ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row("exact", "the model writes freely; right if the line is the name and nothing else", "exact", _LLM,
            constrained=False),
        Row("exact_normalised", "the same answer; stripped, first line, lower case, then equal to the name",
            "exact, normalised", _LLM, constrained=False),
        Row("prefix", "the same answer; its line begins with the name", "prefix", _LLM, constrained=False),
        Row("substring", "the same answer; the name stands anywhere in it", "substring", _LLM, constrained=False),
        Row("likelihood", "the classifier's own path: noisy channel by default, the likeliest label wins",
            "likelihood", _LLM),
        Row("direct", "the likelihood of each label after the words", "likelihood", _LLM),
        Row("calibrated", "the same, less what the prompt says of each label for inputs without content",
            "calibrated likelihood", _LLM),
        Row("constrained", "the model can write nothing but one of the labels", "constrained output", _LLM),
    )
}  # fmt: skip
"""Every row of the LLM under test, by name, in the order of the table."""

OPEN_ENDED = ("exact", "exact_normalised", "prefix", "substring")
PROMPT_OPTIONS = ("template", "templates", "order_seed")
"""Options of ``FewShotClassifier`` that change prompts and so hold for every row of the LLM."""

LADDER: Mapping[str, Row] = {
    "channel": LLM_ROWS["likelihood"],
    "direct": LLM_ROWS["likelihood"],
    "constrained": LLM_ROWS["constrained"],
    "parse": Row("parsed", "the model writes freely; a label is looked for in what it writes", "tolerant parse", _LLM),
}
"""Rung of the classifier's ladder -> the row that asks by it."""

SHARED_OPTIONS = (*PROMPT_OPTIONS, "probabilities")
"""The same, and what holds for every row that gives probabilities."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What one row says about one query.

    label: the label it names, None for none. right: whether the row's rule counts it as right. raw: the text written,
    None where none was. probabilities: label -> share, None where the row gives none. calls: prompts it needed.
    calibrated: whether the probabilities are, see ``Classification``.
    """

    label: str | None
    right: bool
    raw: str | None = None
    probabilities: Mapping[str, float] | None = None
    calls: int = 0
    calibrated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {label, right, raw, probabilities, calls, calibrated}."""
        return {
            "label": self.label,
            "right": self.right,
            "raw": self.raw,
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
            "calls": self.calls,
            "calibrated": self.calibrated,
        }


@dataclass(frozen=True)
class Task:
    """The queries of one episode in one setting.

    setting: ways, shots, repeats, induction. support: paths of the support images, shot by shot. support_labels: their
    labels. queries: paths of the images asked about. truths: their labels. tokenizer, k: make the words. llm: asked;
    counts. options: of ``FewShotClassifier``, for the likelihood row; ``PROMPT_OPTIONS`` among them hold for all.
    """

    setting: Setting
    support: tuple[str, ...]
    support_labels: tuple[str, ...]
    queries: tuple[str, ...]
    truths: tuple[str, ...]
    tokenizer: Tokenizer
    k: int | None
    llm: SharedAnswers
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels as every prompt names them: sorted, like the classifier's."""
        return tuple(sorted(set(self.support_labels), key=composed))

    @cached_property
    def builder(self) -> PromptBuilder:
        """Prompts of this setting."""
        options = self.prompt_options
        return PromptBuilder(
            options.get("template", "classification"),
            folder=options.get("templates"),
            induction=self.setting.induction,
            repeats=self.setting.repeats,
            order_seed=options.get("order_seed", 0),
        )

    @cached_property
    def prepared(self) -> PreparedPrompt:
        """The direct prompt's fixed part, as free answers and the blind baseline get it."""
        words = [self.tokenizer.to_text(pyramid) for pyramid in self.tokenizer.encode(list(self.support), self.k)]
        examples = [Example(text, label) for text, label in zip(words, self.support_labels, strict=True)]
        return self.builder.prepare(examples, self.labels)

    @cached_property
    def query_words(self) -> list[str]:
        """The words of each query as the LLM reads them."""
        return [self.tokenizer.to_text(pyramid) for pyramid in self.tokenizer.encode(list(self.queries), self.k)]

    @property
    def prompt_options(self) -> dict[str, Any]:
        """The options that hold for every row's prompts."""
        return {name: self.options[name] for name in PROMPT_OPTIONS if name in self.options}

    @property
    def shared_options(self) -> dict[str, Any]:
        """The options that hold for every row that asks a classifier."""
        return {name: self.options[name] for name in SHARED_OPTIONS if name in self.options}

    @property
    def size(self) -> PromptSize:
        """What makes this prompt long, for advice where it is too long."""
        return PromptSize(self.setting.shots, self.k, self.setting.repeats)

    def classifier(self, **options: Any) -> FewShotClassifier:
        """A ``FewShotClassifier`` with these options, fitted on the support set."""
        classifier = FewShotClassifier(
            self.llm,
            self.tokenizer,
            self.k,
            induction=self.setting.induction,
            repeats=self.setting.repeats,
            progress=False,
            **options,
        )
        return classifier.fit(self.support, self.support_labels)


Judged = tuple[dict[str, list[RowResult]], list[str]]
"""Row -> its result for each query, and the prompt of each query as sent."""


def open_ended(task: Task, rows: Sequence[str]) -> Judged:
    """One greedy completion for each query, judged by each of ``rows``.

    Raises:
        PromptTooLongError: it does not fit the window. LLMError: no answer, an empty or withheld one among them.
        TemplateError: the template is for noisy-channel scoring only.
    """
    choose_method("parse", task.llm.profile, task.builder, len(task.labels))  # a channel template writes no labels
    seed = int(task.options.get("order_seed") or 0) % 2**31
    asker = Asker(task.llm, "parse", task.labels, False, task.size, seed)
    results: dict[str, list[RowResult]] = {row: [] for row in rows}
    prompts: list[str] = []
    for words, truth in zip(task.query_words, task.truths, strict=True):
        before = task.llm.calls
        run_sync(asker.prepare(asker.inquiry(task.prepared, words)))
        inquiry = asker.inquiry(task.prepared, words)  # whose answer has room now
        reply = run_sync(complete(task.llm, inquiry))
        calls = task.llm.calls - before
        for row in rows:
            results[row].append(_judged(row, reply, task.labels, truth, calls))
        prompts.append(inquiry.pairs[0][0].text)
    return results, prompts


def _judged(row: str, reply: Reply, labels: Sequence[str], truth: str, calls: int) -> RowResult:
    """A free answer by the rule of one open-ended row."""
    judges: dict[str, Callable[[str, str], bool]] = {
        "exact": partial(strict_match, ended=reply.finish_reason != "length"),
        "exact_normalised": normalised_match,
        "prefix": prefix_match,
        "substring": substring_match,
    }
    named = [label for label in labels if judges[row](reply.text, label)]
    right = truth in named
    # Of several that fit (a name that begins another), the true one counts, as the rule has it; else the longest.
    label = truth if right else max(named, key=len, default=None)
    return RowResult(label, right, reply.text, None, calls)


def likelihood(task: Task) -> Judged:
    """The classifier's own path, with every option as given.

    Raises:
        CapabilityError: the LLM gives no log-probabilities.
    """
    if not task.llm.profile.scores_text:
        raise _no_logprobs(task.llm)
    return _classified(task, "likelihood", **task.options)


def direct(task: Task) -> Judged:
    """The likelihood of each label after the query's words."""
    return _classified(task, "direct", scoring="direct", **task.shared_options)


def calibrated(task: Task) -> Judged:
    """``direct`` with contextual calibration (Zhao et al. 2021)."""
    return _classified(task, "calibrated", scoring="direct", calibration="contextual", **task.shared_options)


def constrained(task: Task) -> Judged:
    """The label that the LLM writes when it can write nothing else."""
    return _classified(task, "constrained", scoring="constrained", **task.shared_options)


def parsed(task: Task) -> Judged:
    """The label that the classifier finds in what the LLM writes."""
    return _classified(task, "parsed", scoring="parse", **task.shared_options)


CLASSIFIED: Mapping[str, Callable[[Task], Judged]] = {
    "direct": direct,
    "calibrated": calibrated,
    "constrained": constrained,
    "likelihood": likelihood,
    "parsed": parsed,
}
"""How each row but the open-ended ones is asked, in an order that leaves a prefix cache warm: direct prompts first."""


def _classified(task: Task, row: str, **options: Any) -> Judged:
    before = task.llm.calls
    if row in ("direct", "calibrated") and not task.llm.profile.scores_text:
        raise _no_logprobs(task.llm)
    with word_tables("off"):  # its examples come up once: nothing is learnt of them beforehand
        classifier = task.classifier(**options)
        answers = classifier.classify(task.queries)
    calls = shares(task.llm.calls - before, len(answers))
    results = [
        RowResult(
            answer.label, answer.label == truth, answer.text or None, answer.probabilities, own, answer.calibrated
        )
        for answer, truth, own in zip(answers, task.truths, calls, strict=True)
    ]
    return {row: results}, [as_sent(classifier.prompt_for(query)) for query in task.queries]


def _no_logprobs(llm: SharedAnswers) -> CapabilityError:
    return CapabilityError(f"{llm.profile.name!r} gives no log-probabilities of given text")


def as_sent(inquiry: Inquiry) -> str:
    """An inquiry as text: the part that its prompts share once, then what is asked after it, a line for each.

    Prompts that share nothing (an ensemble's) stand one after the other, each with what was scored after it.
    """
    asked: dict[str, list[str]] = {}
    for prompt, continuation in inquiry.pairs:
        asked.setdefault(prompt.text, []).append(continuation)
    prefixes = {prompt.prefix for prompt, _ in inquiry.pairs}
    if len(prefixes) != 1:
        return "\n".join(text + " |".join(continuations) for text, continuations in asked.items())
    if len(asked) == 1:
        ((shared, continuations),) = asked.items()
        lines = [continuation for continuation in continuations if continuation]
    else:
        (shared,) = prefixes
        lines = [prompt.query + continuation for prompt, continuation in inquiry.pairs]
    return shared + ("" if not lines or shared.endswith("\n") else "\n") + "\n".join(lines)
