"""One segment asked of an LLM until it is read or refused: constraint, repair, asking again, best of several.

Knows: what a profile allows, and what to do with an answer that is not what was asked for. Refuses to know: pyramids,
templates, the order of segments, how words are chosen by their probabilities (``word_by_word``).

Where the LLM's output can be restricted it is: the allowed words, exactly as many as the segment has. Whatever comes
back is read by ``repair`` all the same. What cannot be read is asked for again, sampled, with another seed: from the
first word that is missing where the LLM continues plain text, as a whole where it chats. When no request is left the
segment is refused, or filled where that was asked for. Nothing is ever filled in silently.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import isawaitable
from typing import Any, Literal

from icl_vision import checks
from icl_vision.contracts import Constraint, Prompt, TextLLM, Usage
from icl_vision.drawing.drawing import SegmentAnswer
from icl_vision.drawing.repair import Change, WordSet, printable, read_words
from icl_vision.drawing.stages import Decoding
from icl_vision.drawing.word_by_word import Guidance, WordByWordWriter
from icl_vision.errors import CapabilityError, LLMNoAnswerError, LLMResponseError
from icl_vision.llms.answers import check
from icl_vision.llms.scores import all_impossible, checked_logprobs
from icl_vision.spelling import composed

logger = logging.getLogger(__name__)

REASK_TEMPERATURE = 0.7
"""Least temperature of a request that repeats another: greedy decoding would only repeat its answer."""

_TEXT = 2000
"""Characters kept of each answer."""


@dataclass(frozen=True, slots=True)
class SegmentInquiry:
    """What is put to an LLM about a segment of one query.

    prompt: as built. places: the words allowed at each of its places. decoding: settings of its stage. key: names query
    and segment, for seeds. max_tokens: for an unrestricted answer of the whole segment. known: given words, by place
    from 0. before: the words shown last, for the control of repetition. used: how often each word was written on the
    layer already, for the same. marks: beginnings of the prompt's lines. filling: a word for each place that may stand
    in for one that is not answered; () where none may. about: whatever an injected score needs to know. against: the
    prompt without the condition, where there is guidance.
    """

    prompt: Prompt
    places: tuple[WordSet, ...]
    decoding: Decoding
    key: str
    max_tokens: int
    known: Mapping[int, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    used: Mapping[str, int] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    filling: tuple[str, ...] = ()
    about: Any = None
    against: Prompt | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to choose from: the inquiry with what it is ``about``, and the words."""

    inquiry: SegmentInquiry
    words: tuple[str, ...]


Score = Callable[[Sequence[Candidate]], Sequence[float] | Awaitable[Sequence[float]]]
"""How good candidates are, more is better: a function or coroutine function of all candidates of one segment."""

Constrain = Literal["auto", "always", "never"]
CONSTRAIN = ("auto", "always", "never")


@dataclass(slots=True)
class _Try:
    """A segment while it is asked for."""

    words: list[str | None]
    changes: list[Change] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    restricted: bool = True
    problem: str = ""
    silent: LLMNoAnswerError | None = None
    """Why the last request brought no answer at all."""


class SegmentAsker:
    """Asks for segments.

    Args:
        llm: who is asked.
        constrain: "auto" restricts the LLM's output where its profile allows it, "always" demands it.
        asks: requests for one segment at most (for each candidate), 1 or more.
        score: chooses among candidates; None takes the likeliest, which needs an LLM that scores text.

    Raises:
        UsageError: a value out of range.
        CapabilityError: ``constrain="always"`` with an LLM whose output cannot be restricted.
    """

    def __init__(
        self, llm: TextLLM, *, constrain: Constrain = "auto", asks: int = 3, score: Score | None = None
    ) -> None:
        checks.choice("constrain", constrain, CONSTRAIN)
        checks.count("asks", asks, of="requests")
        if constrain == "always" and llm.profile.constraint is None:
            raise CapabilityError(
                f"constrain='always' needs an LLM whose output can be restricted; that of {llm.profile.name!r} cannot: "
                "use constrain='auto', which repairs its answers"
            )
        self.llm = llm
        self._profile = llm.profile
        self.constrain = constrain
        self.asks = asks
        self.score = score
        self._cannot: set[tuple[str, ...]] = set()  # the sets that the LLM refused to be restricted to

    def check(self, decoding: Decoding) -> None:
        """Raise CapabilityError where candidates could not be compared, or nothing can guide."""
        if decoding.guidance != 1 and not self._scores_words:
            raise CapabilityError(
                f"guidance={decoding.guidance:g} chooses among the allowed words by their log-probabilities, which "
                f"{self._profile.name!r} does not give (or constrain='never' forbids): use guidance=1"
            )
        if decoding.best_of > 1 and self.score is None and not self._profile.scores_text:
            raise CapabilityError(
                f"best_of={decoding.best_of} keeps the likeliest answer, but {self._profile.name!r} gives no "
                "log-probabilities of given text: give a score= of your own, or best_of=1"
            )

    async def ask(self, inquiry: SegmentInquiry) -> SegmentAnswer:
        """The words of a segment, or why there are none.

        Raises:
            LLMError, PromptTooLongError: the LLM cannot answer.
        """
        answers = [await self._candidate(inquiry, number) for number in range(inquiry.decoding.best_of)]
        if len(answers) == 1:
            return answers[0]
        usage = sum((answer.usage for answer in answers), Usage())
        read = {answer.words: answer for answer in reversed(answers) if answer.words is not None}
        if not read:
            return replace(answers[0], usage=usage, candidates=len(answers))
        candidates = [Candidate(inquiry, words) for words in sorted(read)]
        scores, spent = await self._scores(candidates) if len(read) > 1 or self.score else ([0.0], Usage())
        best = max(range(len(candidates)), key=lambda number: scores[number])
        score = scores[best] if len(read) > 1 or self.score else None
        return replace(read[candidates[best].words], usage=usage + spent, score=score, candidates=len(answers))

    async def _scores(self, candidates: Sequence[Candidate]) -> tuple[list[float], Usage]:
        if self.score is not None:
            given = self.score(candidates)
            scores = [float(score) for score in (await given if isawaitable(given) else given)]
            spent = Usage()
        else:
            pairs = [(candidate.inquiry.prompt, " " + composed(" ".join(candidate.words))) for candidate in candidates]
            said = await self.llm.score(pairs, terminator="")
            scores, spent = list(checked_logprobs(said, len(pairs), self._profile.name)), said.usage
            if all_impossible(scores):
                raise LLMResponseError(
                    f"{self._profile.name!r} holds all {len(scores)} candidates impossible (log-probability -inf), "
                    "so none is the likeliest; use best_of=1, or give a score= of your own"
                )
        if len(scores) != len(candidates) or any(score != score for score in scores):
            raise LLMResponseError(f"{len(candidates)} candidates need as many scores, all numbers; got {scores}")
        return scores, spent

    async def _candidate(self, inquiry: SegmentInquiry, number: int) -> SegmentAnswer:
        """Ask until every word is there or no request is left."""
        state = _Try([inquiry.known.get(place) for place in range(len(inquiry.places))])
        asks, barred = self.asks, dict[int, str]()
        if inquiry.decoding.most_uses is not None and self._continues:
            # Each of these requests settles one more place at least.
            asks += len(inquiry.places)
        word_by_word = self.word_by_word(inquiry.decoding, inquiry.against is not None)
        for attempt in range(asks):
            if None not in state.words:
                break
            last = attempt + 1 == asks
            # A word that repeats too often is better than none: whom nothing restricts may have it at last.
            lifted = last and (self.constrain == "never" or self._profile.constraint is None)
            places = [
                words.without(barred[place]) if place in barred and not lifted else words
                for place, words in enumerate(inquiry.places)
            ]
            key = f"{inquiry.key}/{number}/{attempt}"
            if word_by_word:
                await self._write_word_by_word(inquiry, state, places, key, again=attempt > 0)
            else:
                places = places if lifted else _left(inquiry, state, places)
                await self._request(inquiry, state, places, key, again=attempt > 0)
            worn = _repetition(inquiry, state)
            if worn is not None:
                word = state.words[worn] or ""
                if not last and len(places[worn]) > 1:
                    barred[worn] = word
                    state.words[worn:] = [inquiry.known.get(place) for place in range(worn, len(state.words))]
                state.changes.append(Change("run", worn + 1, word, state.words[worn] or ""))
        if state.silent is not None and None in state.words and inquiry.filling:
            # Words that cannot be read may be filled in, no answer at all may not: nothing would be left of the LLM's.
            raise state.silent
        return self._finish(inquiry, state)

    async def _write_word_by_word(
        self, inquiry: SegmentInquiry, state: _Try, places: Sequence[WordSet], key: str, *, again: bool
    ) -> None:
        """The words from the first missing one on, each by its probability: there is nothing to read then."""
        start = next(place for place, word in enumerate(state.words) if word is None)
        said = [composed(word) for word in state.words[:start] if word is not None]
        given, without = (
            prompt and replace(prompt, query=" ".join([prompt.query, *said]))
            for prompt in (inquiry.prompt, inquiry.against)
        )
        assert given is not None
        decoding = inquiry.decoding
        temperature = max(decoding.temperature, REASK_TEMPERATURE) if again else decoding.temperature
        allowed = [
            (inquiry.known[place],) if place in inquiry.known else places[place].words
            for place in range(start, len(places))
        ]
        guidance = Guidance(decoding.guidance, temperature, decoding.most_uses)
        used = Counter(inquiry.used)
        used.update(word for place, word in enumerate(state.words[:start]) if word and place not in inquiry.known)
        known = frozenset(place - start for place in inquiry.known)
        words, usage = await self._writer.write(
            given, without, allowed, guidance, seed_of(decoding.seed, key), used=used, known=known
        )
        state.words[start:] = words
        state.texts.append(" " + " ".join(words))
        state.usage += usage

    @cached_property
    def _writer(self) -> WordByWordWriter:
        return WordByWordWriter(self.llm)

    def word_by_word(self, decoding: Decoding, guided: bool) -> bool:
        """Whether each word is chosen by its log-probability: with guidance, and where a limit to repetition can so
        leave words out instead of asking about them again, at no great price."""
        limited = decoding.most_uses is not None and self._profile.scores_bags
        return self._scores_words and (guided or limited)

    @property
    def _scores_words(self) -> bool:
        return self._profile.scores_text and self.constrain != "never"

    @property
    def _continues(self) -> bool:
        """Whether the LLM goes on with a text, so that a prompt may end in the middle of an answer."""
        return self._profile.api == "completions"

    def _start(self, state: _Try) -> int:
        """The first place that is asked for."""
        if not self._continues:
            return 0
        return next((place for place, word in enumerate(state.words) if word is None), len(state.words))

    async def _request(
        self, inquiry: SegmentInquiry, state: _Try, places: Sequence[WordSet], key: str, *, again: bool
    ) -> None:
        """One request for the places from the first without a word on, read into ``state``."""
        prompt, start = inquiry.prompt, self._start(state)
        if start:
            said = composed(" ".join(word for word in state.words[:start] if word is not None))
            prompt = replace(prompt, query=f"{prompt.query} {said}")
        known = {place - start: word for place, word in inquiry.known.items() if place >= start}
        left = list(places[start:])
        constraint = self.constraint(left, known)
        settings = inquiry.decoding
        temperature = max(settings.temperature, REASK_TEMPERATURE) if again else settings.temperature
        seed = seed_of(settings.seed, key) if temperature else settings.seed
        profile = self._profile
        options: dict[str, Any] = {
            "max_tokens": inquiry.max_tokens,
            "temperature": temperature,
            "seed": seed if profile.seed else None,
        }
        stop = ("\n",) if self._continues else ()
        state.silent = None
        try:
            try:
                completion = await self.llm.complete(
                    prompt, stop=() if constraint else stop, constraint=constraint, **options
                )
            except CapabilityError as error:
                if constraint is None or self.constrain == "always":
                    raise
                logger.info("answers stay unrestricted: %s", error)
                self._cannot.add(constraint.allowed)
                constraint = None
                completion = await self.llm.complete(prompt, stop=stop, **options)
            check(completion, profile.name)
        except LLMNoAnswerError as error:
            # Nothing to read; asked again, sampled, it may answer.
            state.silent = error
            state.problem = str(error)
            state.texts.append("")
            state.usage += Usage(error.requests, error.prompt_tokens, 0, error.completion_tokens)
            return
        state.restricted = state.restricted and constraint is not None
        state.usage += completion.usage
        state.texts.append(printable(completion.text, _TEXT))
        reading = read_words(completion.text, left, known=known, query=inquiry.prompt.query, marks=inquiry.marks)
        state.problem = reading.problem
        for change in reading.changes:
            state.changes.append(replace(change, place=change.place + start) if change.place else change)
        words = list(reading.words)
        if None in words:
            # What follows a missing word may stand at the wrong place; an LLM that chats is asked for all again.
            gap = words.index(None) if self._continues else 0
            words[gap:] = [known.get(place) for place in range(gap, len(words))]
        state.words[start:] = words

    def constraint(self, places: Sequence[WordSet], known: Mapping[int, str]) -> Constraint | None:
        """What an answer is restricted to: the words of its places, but for those that are known."""
        profile = self._profile
        if self.constrain == "never" or profile.constraint is None:
            return None
        first = places[0]
        if not known and all(words is first for words in places):
            constraint = Constraint(first.words, len(places))
        else:
            constraint = Constraint.at_places(
                [(known[place],) if place in known else words.words for place, words in enumerate(places)]
            )
        limit = profile.too_much(constraint.allowed)
        if limit:
            if self.constrain == "always":
                raise CapabilityError(
                    f"{profile.name!r} bears {limit}, the words of this segment; use allowed='place' or 'context' with "
                    "fewer examples, or constrain='auto'"
                )
            return None
        return None if self._cannot and constraint.allowed in self._cannot else constraint

    def _finish(self, inquiry: SegmentInquiry, state: _Try) -> SegmentAnswer:
        if None in state.words and inquiry.filling:
            for place, word in enumerate(state.words):
                if word is None:
                    state.words[place] = inquiry.filling[place]
                    state.changes.append(Change("filled", place + 1, "", inquiry.filling[place]))
        words = [word for word in state.words if word is not None]
        whole = len(words) == len(state.words)
        return SegmentAnswer(
            tuple(words) if whole else None,
            tuple(state.changes),
            tuple(state.texts),
            bool(state.texts) and state.restricted,
            state.usage,
            "" if whole else f"{state.problem or 'no answer'} (after {len(state.texts)} requests)",
        )


def _repetition(inquiry: SegmentInquiry, state: _Try) -> int | None:
    """The first answered place whose word stands too many times in a row or on its layer; None where none does."""
    longest, most = inquiry.decoding.longest_run, inquiry.decoding.most_uses
    uses = Counter(inquiry.used)
    run, last = 0, None
    for place, word in enumerate([*inquiry.before, *state.words], start=-len(inquiry.before)):
        run, last = (run + 1 if word == last else 1), word
        if word is None:
            return None
        if place < 0 or place in inquiry.known:
            continue
        if longest is not None and run > longest:
            return place
        if most is not None and uses[word] >= most and any(uses[other] < most for other in inquiry.places[place].words):
            return place
        uses[word] += 1
    return None


def _left(inquiry: SegmentInquiry, state: _Try, places: Sequence[WordSet]) -> list[WordSet]:
    """The words allowed at each place, without those that were written often enough before it."""
    most = inquiry.decoding.most_uses
    if most is None:
        return list(places)
    uses = Counter(inquiry.used)
    left: list[WordSet] = []
    shared: dict[tuple[int, tuple[str, ...]], WordSet] = {}  # places that share a set go on sharing it
    for place, words in enumerate(places):
        worn = tuple(word for word, count in uses.items() if count >= most)
        key = (id(words), worn)
        if key not in shared:
            shared[key] = words.without(*worn)
        left.append(shared[key])
        word = state.words[place]
        if word is not None and place not in inquiry.known:
            uses[word] += 1
    return left


def seed_of(seed: int, key: str) -> int:
    """A seed below 2**31 for one request, the same for the same seed and key."""
    return zlib.crc32(f"{seed}/{key}".encode()) & 0x7FFFFFFF
