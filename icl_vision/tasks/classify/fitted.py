"""A classifier as it was fitted: what it asks, whom, with which examples, and how its replies are weighed.

Knows: how options, labelled words and an LLM become prepared prompts; what is put to the LLM about each query, what it
learns beforehand, what all of it would cost. Refuses to know: images, what a user is told.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from icl_vision.asking.inquiries import Group, Inquiry, Reply, Window, Writing, ask, fitting
from icl_vision.asking.plan import Plan, plan_of
from icl_vision.contracts import Classification, Prompt, ScoringMethod, TextLLM, Tokenizer, Usage
from icl_vision.errors import BudgetExceededError, CapabilityError, DroppedGuaranteeWarning, LLMError
from icl_vision.image_words import ImageWords
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.loop import run_sync
from icl_vision.llms.word_tables import learn, learns
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.probabilities import ProbabilityMap
from icl_vision.prompting import PromptSize, check_tokens
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.base import Fitted
from icl_vision.tasks.classify import calibrating, scoring
from icl_vision.tasks.classify import scoring as ladder
from icl_vision.tasks.classify import selection as choosing
from icl_vision.tasks.classify.ensemble import Ensemble, shared_parts
from icl_vision.tasks.classify.prompts import Example, PreparedPrompt, PromptBuilder
from icl_vision.tasks.classify.scoring import Shown
from icl_vision.tasks.classify.selection import Support, SupportExample
from icl_vision.tokenizers.likely import likely_words
from icl_vision.tokenizers.wrapping import fingerprint

logger = logging.getLogger(__name__)

T = TypeVar("T")

QUERIES_PER_CALL = 4
"""Queries whose labels are scored in one call: enough for an adapter to batch, few enough for progress to show."""


QUERIES_PER_ENSEMBLE = 16
"""The same with an ensemble, whose prompts then serve so many queries: an embedded LLM takes little more for all their
words than for those of one (benchmarks/scoring_rules.py)."""


@dataclass(slots=True)
class Bias:
    """What a prompt alone says of each label (log, float64 [labels]), and what of asking for it is not booked yet."""

    values: npt.NDArray[np.float64]
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Asker:
    """What a fitted classifier asks, and of whom.

    labels: as texts, in the order of ``classes_``. calibrate: subtract the bias of the prompt itself. size: what
    makes prompts long, for the advice where one is too long. shared: the
    prepared prompt that all queries share, None where each has its own. words: which an image is likely to have, for
    an LLM that can learn beforehand what an ensemble's prompts say of them.
    """

    llm: TextLLM
    method: ScoringMethod
    labels: tuple[str, ...]
    calibrate: bool
    size: PromptSize
    seed: int
    shared: Shown | None = None
    words: tuple[str, ...] = ()
    _used: set[str] = field(default_factory=set, repr=False)
    """Prompts of an ensemble that were asked once."""
    _learnt: set[str] = field(default_factory=set, repr=False)
    _unbooked: Usage = field(default_factory=Usage, repr=False)
    """What learning took and no reply has been charged with yet."""
    _bias: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    """Of the shared prompt."""
    _writing: Writing | None = field(default=None, repr=False)
    """How an answer is written, once it is known how long it may be; None where none is."""

    @property
    def room(self) -> int:
        """Tokens kept free for an answer that the LLM writes; 0 where it writes none."""
        return 0 if self._writing is None else self._writing.max_tokens

    def inquiry(self, prepared: Shown, words: str) -> Inquiry:
        """What is put to the LLM about an image with these words."""
        return scoring.make_inquiry(self.method, prepared, self.labels, words, self._writing)

    async def prepare(self, largest: Inquiry) -> None:
        """Find out how long an answer may be, and refuse a support set that leaves no room for this inquiry.

        Raises:
            PromptTooLongError: as ``check_window``.
        """
        if self.method in ("constrained", "parse"):
            texts = [" " + composed(label) for label in self.labels]
            tokens = await Window(self.llm).most_counted(texts)
            longest = max(len(text.encode()) for text in texts)
            room = scoring.ANSWER_ROOM + (longest if tokens is None else tokens)
            self._writing = scoring.written_label(self.method, self.labels, room, self.seed)
        await self.check_window(largest)

    async def check_window(self, inquiry: Inquiry) -> None:
        """Refuse an inquiry that does not fit the LLM's window, before it is sent.

        Raises:
            PromptTooLongError: it does not; the message names tokens, window and what shrinks the prompt.
        """
        excess = await Window(self.llm).excess(inquiry.texts, room=self.room)
        if excess is not None:
            check_tokens(excess.tokens, excess.window, reserve=excess.room, size=self.size)

    # What an LLM may learn beforehand.

    async def learn(self, done: Callable[[int], None]) -> Usage:
        """Have the LLM learn what the prompts of the shared ensemble say of ``words``; what it took.

        done: told how many prompts are finished. A budget that does not allow it is no error: words are asked then.
        """
        if not isinstance(self.shared, Ensemble):
            return Usage()
        return await self._learn(self.shared.prompts, done)

    def pays(self, groups: Sequence[tuple[Shown, int]]) -> list[Prompt]:
        """The prompts that are to be learnt before so many queries of each group are asked."""
        calls: Counter[Prompt] = Counter()
        for prepared, queries in groups:
            if isinstance(prepared, Ensemble):
                for prompt in dict.fromkeys(prepared.prompts):
                    calls[prompt] += -(-queries // QUERIES_PER_ENSEMBLE)
        return [
            prompt
            for prompt, times in calls.items()
            if times + (prompt.text in self._used) > 1 and prompt.text not in self._learnt
        ]

    def learnt_at_fit(self) -> list[Prompt]:
        """The shared ensemble's prompts, those that ``learn`` was called for."""
        prompts = self.shared.prompts if isinstance(self.shared, Ensemble) else ()
        return [prompt for prompt in dict.fromkeys(prompts) if prompt.text in self._learnt]

    async def _learn_what_pays(self, groups: Sequence[tuple[Shown, Sequence[str]]]) -> None:
        """Learn the prompts that would be asked twice: now, in several calls, or now and before.

        Learning takes about as long as asking twice, so who asks once is not made to wait for what nobody uses, and
        who asks often never waits for more than twice what was needed.
        """
        often = self.pays([(prepared, len(texts)) for prepared, texts in groups])
        for prepared, _ in groups:
            if isinstance(prepared, Ensemble):
                self._used.update(prompt.text for prompt in prepared.prompts)
        try:
            self._unbooked += await self._learn(often, lambda count: None)
        except LLMError as error:
            logger.debug("nothing learnt, words are asked: %s", error)  # and whoever asks is told what is wrong

    async def _learn(self, prompts: Sequence[Prompt], done: Callable[[int], None]) -> Usage:
        if not learns(self.llm):
            return Usage()
        try:
            spent = await learn(self.llm, prompts, self.words, done)
            self._learnt.update(prompt.text for prompt in prompts)
            return spent
        except BudgetExceededError as error:
            logger.info("nothing learnt beforehand: %s", error)
            return Usage()

    # Asking, and what it would cost.

    async def ask(
        self,
        groups: Sequence[tuple[Shown, Sequence[str]]],
        *,
        concurrency: int,
        keep_errors: bool,
        done: Callable[[int], None],
        read: Callable[[int, int, Reply | Exception], Awaitable[T]],
    ) -> list[list[T]]:
        """Ask about images with these words, grouped by the prepared prompt they share; see ``asking.inquiries.ask``.

        read: told of each reply, with log-probabilities by label, calibrated where that was asked for.
        """
        if self.words and learns(self.llm):
            await self._learn_what_pays(groups)
        biases = {
            number: Bias(self._bias)
            for number, (prepared, _) in enumerate(groups)
            if self.calibrate and self._bias is not None and prepared is self.shared
        }

        async def read_weighed(number: int, query: int, reply: Reply | Exception) -> T:
            if isinstance(reply, Reply):
                prepared, texts = groups[number]
                reply = self._weighed(reply, prepared, texts[query], biases.get(number))
            return await read(number, query, reply)

        return await ask(
            self.llm,
            [
                self._group(prepared, texts, partial(self._begin, biases, number, prepared))
                for number, (prepared, texts) in enumerate(groups)
            ],
            concurrency=concurrency,
            read=read_weighed,
            keep_errors=keep_errors,
            check=None if self.llm.profile.context_window is None else self.check_window,
            done=done,
        )

    def plan(
        self,
        llm: DryLLM,
        groups: Sequence[tuple[Shown, Sequence[str]]],
        unusable: Sequence[Classification] = (),
        prices: PriceTable | None = None,
        *,
        concurrency: int,
    ) -> Plan:
        """What ``ask`` about these groups would send.

        llm: the one that would be asked. unusable: images that cannot be asked about, which the plan names.
        """
        all_groups = [self._group(prepared, texts) for prepared, texts in groups]
        fitted, refused = run_sync(fitting(all_groups, self.check_window))
        learning = []
        if learns(llm) and self.words:
            learning = self.pays(
                [(prepared, group.queries) for (prepared, _), group in zip(groups, fitted, strict=True)]
            )
        plan = plan_of(
            llm,
            fitted,
            concurrency=concurrency,
            prices=prices,
            learnt=self.learnt_at_fit(),
            learning=learning,
            words=self.words,
        )
        lost = (*unusable, *(Classification(None, None, (), None, error=error) for error in refused))
        remarks = {"model": f"scoring: {self.method}", **({"images": f"{len(lost)} unusable"} if lost else {})}
        return replace(
            plan,
            unusable=lost,
            facts={"method": str(self.method), "images": plan.queries, "unusable": len(lost)},
            lines=(("images", f"{plan.queries:,}"),),
            remarks={**plan.remarks, **remarks},
            subject="classifying",
            advice="use fewer images, fewer shots= or a smaller k=",
        )

    def _group(
        self,
        prepared: Shown,
        texts: Sequence[str],
        begun: Callable[[Sequence[Reply]], None] = lambda replies: None,
    ) -> Group:
        """Queries with these words that share a prepared prompt."""
        size = QUERIES_PER_CALL if self.method in ("channel", "direct") else 1
        # Where there is a prefix cache the first request goes alone, with one query, and fills it for the others.
        leads = self.llm.profile.prefix_cache
        if isinstance(prepared, Ensemble):
            size, leads = QUERIES_PER_ENSEMBLE, False  # short prompts, each its own: there is nothing to fill
        before: tuple[Inquiry, ...] = ()
        if self.calibrate and not (prepared is self.shared and self._bias is not None):
            before = scoring.content_free_inquiries(self.method, prepared, self.labels)
        return Group(lambda query: self.inquiry(prepared, texts[query]), len(texts), size, leads, before, begun)

    def _begin(self, biases: dict[int, Bias], number: int, prepared: Shown, replies: Sequence[Reply]) -> None:
        """What came back of a group's inputs without content."""
        inputs = scoring.content_free(self.method)
        rows = [
            scoring.of_labels(prepared, self.labels, reply.logprobs or (), words)
            for reply, words in zip(replies, inputs, strict=True)
        ]
        biases[number] = Bias(scoring.log_bias(rows), sum((reply.usage for reply in replies), Usage()))
        if prepared is self.shared:
            self._bias = biases[number].values  # paid for once

    def _weighed(self, reply: Reply, prepared: Shown, text: str, bias: Bias | None) -> Reply:
        """A reply with log-probabilities by label, less the prompt's bias."""
        if reply.logprobs is not None:
            logprobs = scoring.of_labels(prepared, self.labels, reply.logprobs, text)
            if bias is not None:
                # Inputs without content are one word: a bag of several words has the bias of each of them.
                words = prepared.length(text) if isinstance(prepared, Ensemble) else 1
                logprobs = tuple((np.asarray(logprobs) - words * bias.values).tolist())
                # What calibration cost is booked on the first that has an answer.
                reply, bias.usage = replace(reply, usage=reply.usage + bias.usage), Usage()
            reply = replace(reply, logprobs=logprobs)
        if self._unbooked.requests:
            reply, self._unbooked = replace(reply, usage=reply.usage + self._unbooked), Usage()
        return reply


@dataclass(slots=True)
class Together:
    """Images that share a prepared prompt: their numbers among those of a lot, and their words as text."""

    prepared: Shown
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lot:
    """Images that are asked about in one go: as it was fitted when they were read, the words of each, or why there are
    none, and who shares a prompt."""

    fitted: FittedClassifier
    words: list[TokenPyramid | Exception]
    together: list[Together]

    @property
    def inquiries(self) -> list[tuple[Shown, Sequence[str]]]:
        """What ``Asker`` takes: prepared prompts with the texts of their queries."""
        return [(group.prepared, group.texts) for group in self.together]

    @property
    def unusable(self) -> list[tuple[int, Classification]]:
        """Images that have no words, by number, with the error that says why."""
        return [
            (number, Classification(None, None, (), None, error=words))
            for number, words in enumerate(self.words)
            if isinstance(words, Exception)
        ]


@dataclass(frozen=True, kw_only=True)
class FittedClassifier(Fitted):
    """What a ``FewShotClassifier`` was fitted with.

    builder: of the template in use. alone: whether every example has a prompt of its own. neighbours: None unless each
    image has its own examples. probability_map: what calibrates, None where nothing does. usage: what ``fit`` asked.
    """

    kept: Support
    builder: PromptBuilder
    asker: Asker
    alone: bool
    neighbours: choosing.Neighbours | None
    probability_map: ProbabilityMap | None
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def of(cls, params: Mapping[str, Any], llm: TextLLM, tokenizer: Tokenizer, support: Support) -> Self:
        """The classifier of these options and examples.

        Raises:
            CapabilityError, TemplateError: as ``builder_of``.
            PromptTooLongError: the examples do not fit the LLM's window.
        """
        shots, selection = params["shots"], params["selection"]
        examples, texts = support.examples, tuple(composed(str(label)) for label in support.classes)
        builder, method = builder_of(params, llm, [str(label) for label in support.classes])
        if params["scoring"] == "auto" and method == "direct" and (lost := builder.lost_channel()) is not None:
            warnings.warn(lost, DroppedGuaranteeWarning, stacklevel=4)  # whoever called fit
        alone = ladder.choose_ensemble(params["ensemble"], method, llm.profile)
        likely: tuple[str, ...] = ()
        if alone and getattr(llm, "learns_words", False):
            own = (" ".join(example.pyramid.words()) if by_part(examples) else example.text for example in examples)
            words = likely_words(tokenizer, params["k"], own)
            likely = tuple(dict.fromkeys(map(composed, words)))
        asker = Asker(
            llm=llm,
            method=method,
            labels=texts,
            calibrate=params["calibration"] is not None,
            size=PromptSize(shots, params["k"], params["repeats"], selection),
            seed=int(params["order_seed"] or 0) % 2**31,
            words=likely,
        )
        neighbours = None
        if selection == "nearest":
            codebook = None if tokenizer.vocabulary is None else tokenizer.codebook
            neighbours = choosing.Neighbours(examples, codebook)
            # The largest prompt that could ever be asked is the one to measure.
            chosen = choosing.longest_of_each(examples, shots)
        elif selection == "random" and shots is not None:
            chosen = choosing.random_of_each(examples, shots, params["order_seed"])
        else:
            chosen = choosing.first_of_each(examples, shots)
        prepared = _prepare(builder, chosen, texts, alone=alone)
        if neighbours is None:
            asker.shared = prepared
        longest = max(examples, key=lambda example: len(example.text))
        text = longest.text if isinstance(prepared, PreparedPrompt) else prepared.asked(longest.pyramid, longest.text)
        run_sync(asker.prepare(asker.inquiry(prepared, text)))
        return cls(
            params=params,
            llm=llm,
            tokenizer=tokenizer,
            kept=support,
            builder=builder,
            asker=asker,
            alone=alone,
            neighbours=neighbours,
            probability_map=support.own_map
            or calibrating.packaged_map(
                llm,
                tokenizer,
                builder,
                chosen,
                method=method,
                ensemble=alone,
                contextual=params["calibration"] is not None,
                selection=selection,
            ),
        )

    @property
    def method(self) -> ScoringMethod:
        """The rung in use."""
        return self.asker.method

    def shown(self, examples: Sequence[SupportExample]) -> Shown:
        """These examples as a query finds them."""
        return _prepare(self.builder, examples, self.asker.labels, alone=self.alone)

    def shown_for(self, pyramid: TokenPyramid) -> Shown:
        """The examples that an image of these words is asked about with."""
        if self.neighbours is not None:
            return self.shown(self.neighbours.of(pyramid, self.params["shots"]))
        assert self.asker.shared is not None  # all share one unless selection="nearest"
        return self.asker.shared

    def text_of(self, pyramid: TokenPyramid, prepared: Shown) -> str:
        """An image's words as the LLM is asked about them after these examples."""
        text = self.tokenizer.to_text(pyramid)
        return prepared.asked(pyramid, text) if isinstance(prepared, Ensemble) else text

    def lot(self, words: Sequence[TokenPyramid | Exception]) -> Lot:
        """The images that have these words, by the prompt they share."""
        groups: dict[str, Together] = {}
        for number, pyramid in enumerate(words):
            if not isinstance(pyramid, Exception):
                prepared = self.shown_for(pyramid)
                # By what is sent, so that images for which "nearest" chose the same examples share a prefix after all.
                group = groups.setdefault(prepared.context, Together(prepared))
                group.numbers.append(number)
                group.texts.append(self.text_of(pyramid, prepared))
        return Lot(self, list(words), [*groups.values()])

    def run_config(self, calibration: ProbabilityMap | None, *, on_unknown: str) -> dict[str, Any]:
        """What decides answers, as plain JSON: a run goes on only with the same. calibration: the map in use."""
        params, asker, support = self.params, self.asker, self.kept.examples
        prepared = asker.shared or self.shown(choosing.first_of_each(support, params["shots"]))
        examples = [[example.label, example.text] for example in support]
        # A prompt with everything in it: template, induction, order, repeats.
        prompt = str(asker.inquiry(prepared, self.text_of(support[0].pyramid, prepared)))
        return {
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "tokenizer": {"name": self.tokenizer.name, "hash": fingerprint(self.tokenizer)},
            "k": params["k"],
            "method": asker.method,
            "calibration": params["calibration"],
            "selection": params["selection"],
            "shots": params["shots"],
            "on_unknown": on_unknown,
            "order_seed": params["order_seed"],
            "labels": list(asker.labels),
            "examples": hashlib.sha256(repr(examples).encode()).hexdigest(),
            "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
            # Only where a map is in use: raw answers are those of version 0.1.0, whose runs can be gone on with.
            **(
                {}
                if calibration is None
                else {"probabilities": f"calibrated, temperature {calibration.temperature:.6g}"}
            ),
        }


def builder_of(params: Mapping[str, Any], llm: TextLLM, labels: Sequence[str]) -> tuple[PromptBuilder, ScoringMethod]:
    """The builder of the template in use, and the rung of the ladder; before any image is opened.

    Raises:
        CapabilityError, TemplateError: ``scoring``, ``calibration`` or ``ensemble`` ask what the LLM or the template
            does not offer.
    """
    order_seed = params["order_seed"]
    builder = PromptBuilder(
        params["template"],
        folder=params["templates"],
        induction=params["induction"],
        repeats=int(params["repeats"]),
        order_seed=None if order_seed is None else int(order_seed),
    )
    method = ladder.choose_method(params["scoring"], llm.profile, builder, labels)
    if params["calibration"] is not None and method not in ("channel", "direct"):
        raise CapabilityError(
            f"calibration={params['calibration']!r} needs log-probabilities, but scoring is {method!r} "
            f"with the LLM {llm.profile.name!r}; use calibration=None, or an LLM that scores text (local does)"
        )
    ladder.choose_ensemble(params["ensemble"], method, llm.profile)  # raises where it cannot be had
    return (builder.channel() if method == "channel" else builder), method


def by_part(examples: Sequence[SupportExample]) -> bool:
    """Whether the words of these examples have parts."""
    return bool(examples) and all(isinstance(example.pyramid, ImageWords) for example in examples)


def _prepare(
    builder: PromptBuilder, examples: Sequence[SupportExample], labels: Sequence[str], *, alone: bool
) -> Shown:
    """All examples in one prompt, or each alone in its own (each part of it, where words have parts)."""
    if alone and by_part(examples):
        parted = [(words, labels[example.label]) for example in examples
                  if isinstance(words := example.pyramid, ImageWords)]  # fmt: skip
        if shared_parts([words for words, _ in parted]):
            return Ensemble.by_part(builder, parted, labels)
    shown = [Example(example.text, labels[example.label]) for example in examples]
    return Ensemble.of(builder, shown, labels) if alone else builder.prepare(shown, labels)
