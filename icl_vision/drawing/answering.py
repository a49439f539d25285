"""One segment asked of an LLM until it is read or refused: constraint, repair, asking again, best of several.

Knows: what a profile allows, and what to do with an answer that is not what was asked for. Refuses to know: pyramids,
templates, the order of segments.

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
from inspect import isawaitable
from typing import Any, Literal

from icl_vision.contracts import Constraint, Prompt, TextLLM, Usage
from icl_vision.drawing.drawing import SegmentAnswer
from icl_vision.drawing.guided import Guidance, GuidedWriter
from icl_vision.drawing.repair import Change, printable, read_words
from icl_vision.drawing.stages import Decoding
from icl_vision.drawing.wordsets import WordSet
from icl_vision.errors import CapabilityError, LLMNoAnswerError, LLMResponseError, UsageError
from icl_vision.llms.answers import check
from icl_vision.llms.checked_scores import all_impossible, checked_logprobs
from icl_vision.spelling import composed

logger = logging.getLogger(__name__)

REASK_TEMPERATURE = 0.7
"""Least temperature of a request that repeats another: greedy decoding would only repeat its answer."""

_TEXT = 2000
"""Characters kept of each answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for a segment of one query.

    prompt: as built. places: the words allowed at each of its places. decoding: settings of its stage. key: names query
    and segment, for seeds. max_tokens: for an unrestricted answer of the whole segment. known: given words, by place
    from 0. before: the words shown last, for the control of repetition. used: how often each word was written on the
    layer already, for the same. marks: beginnings of the prompt's lines. filling: a word for each place that may stand
    in for one that is not answered; () where none may. context: whatever an injected score needs to know. against: the
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
    context: Any = None
    against: Prompt | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to choose from: the question with its ``context``, and its words."""

    question: Question
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
        if constrain not in CONSTRAIN:
            raise UsageError(f"constrain must be one of {', '.join(CONSTRAIN)}; got {constrain!r}")
        if isinstance(asks, bool) or not isinstance(asks, int) or asks < 1:
            raise UsageError(f"asks must be 1 or more requests; got {asks!r}")
        if constrain == "always" and llm.profile.constraint is None:
            raise CapabilityError(
                f"constrain='always' needs an LLM whose output can be restricted; that of {llm.profile.name!r} cannot: "
                "use constrain='auto', which repairs its answers"
            )
        self.llm = llm
        self.constrain = constrain
        self.asks = asks
        self.score = score
        self._guided = GuidedWriter(llm)
        self._cannot: set[tuple[str, ...]] = set()  # the sets that the LLM refused to be restricted to

    def check(self, decoding: Decoding) -> None:
        """Raise CapabilityError where candidates could not be compared, or nothing can guide."""
        if decoding.guidance != 1 and not self._scores_words:
            raise CapabilityError(
                f"guidance={decoding.guidance:g} chooses among the allowed words by their log-probabilities, which "
                f"{self.llm.profile.name!r} does not give (or constrain='never' forbids): use guidance=1"
            )
        if decoding.best_of > 1 and self.score is None and not self.llm.profile.scores_text:
            raise CapabilityError(
                f"best_of={decoding.best_of} keeps the likeliest answer, but {self.llm.profile.name!r} gives no "
                "log-probabilities of given text: give a score= of your own, or best_of=1"
            )

    async def ask(self, question: Question) -> SegmentAnswer:
        """The words of a segment, or why there are none.

        Raises:
            LLMError, PromptTooLongError: the LLM cannot answer.
        """
        answers = [await self._candidate(question, number) for number in range(question.decoding.best_of)]
        if len(answers) == 1:
            return answers[0]
        usage = sum((answer.usage for answer in answers), Usage())
        read = {answer.words: answer for answer in reversed(answers) if answer.words is not None}
        if not read:
            return replace(answers[0], usage=usage, candidates=len(answers))
        candidates = [Candidate(question, words) for words in sorted(read)]
        scores, spent = await self._scores(candidates) if len(read) > 1 or self.score else ([0.0], Usage())
        best = max(range(len(candidates)), key=lambda place: scores[place])
        score = scores[best] if len(read) > 1 or self.score else None
        return replace(read[candidates[best].words], usage=usage + spent, score=score, candidates=len(answers))

    async def _scores(self, candidates: Sequence[Candidate]) -> tuple[list[float], Usage]:
        if self.score is not None:
            found = self.score(candidates)
            scores = [float(one) for one in (await found if isawaitable(found) else found)]
            spent = Usage()
        else:
            pairs = [(one.question.prompt, " " + composed(" ".join(one.words))) for one in candidates]
            answer = await self.llm.score(pairs, terminator="")
            scores, spent = list(checked_logprobs(answer, len(pairs), self.llm.profile.name)), answer.usage
            if all_impossible(scores):
                raise LLMResponseError(
                    f"{self.llm.profile.name!r} holds all {len(scores)} candidates impossible (log-probability -inf), "
                    "so none is the likeliest; use best_of=1, or give a score= of your own"
                )
        if len(scores) != len(candidates) or any(score != score for score in scores):
            raise LLMResponseError(f"{len(candidates)} candidates need as many scores, all numbers; got {scores}")
        return scores, spent

    async def _candidate(self, question: Question, number: int) -> SegmentAnswer:
        """Ask until every word is there or no request is left."""
        state = _Try([question.known.get(place) for place in range(len(question.places))])
        asks, barred = self.asks, dict[int, str]()
        if question.decoding.most_uses is not None and self._continues:
            # Each of these requests settles one more place at least.
            asks += len(question.places)
        one_by_one = self.one_by_one(question.decoding, question.against is not None)
        for attempt in range(asks):
            if None not in state.words:
                break
            last = attempt + 1 == asks
            # A word that repeats too often is better than none: whom nothing restricts may have it at last.
            lifted = last and (self.constrain == "never" or self.llm.profile.constraint is None)
            places = [
                one.without(barred[place]) if place in barred and not lifted else one
                for place, one in enumerate(question.places)
            ]
            key = f"{question.key}/{number}/{attempt}"
            if one_by_one:
                await self._guide(question, state, places, key, again=attempt > 0)
            else:
                places = places if lifted else _left(question, state, places)
                await self._request(question, state, places, key, again=attempt > 0)
            at = _repetition(question, state)
            if at is not None:
                word = state.words[at] or ""
                if not last and len(places[at]) > 1:
                    barred[at] = word
                    state.words[at:] = [question.known.get(place) for place in range(at, len(state.words))]
                state.changes.append(Change("run", at + 1, word, state.words[at] or ""))
        if state.silent is not None and None in state.words and question.filling:
            # Words that cannot be read may be filled in, no answer at all may not: nothing would be left of the LLM's.
            raise state.silent
        return self._finish(question, state)

    async def _guide(
        self, question: Question, state: _Try, places: Sequence[WordSet], key: str, *, again: bool
    ) -> None:
        """The words from the first missing one on, chosen one by one: nothing else can come out, nothing to read."""
        start = next(place for place, word in enumerate(state.words) if word is None)
        said = [composed(word) for word in state.words[:start] if word is not None]
        given, without = (
            one and replace(one, query=" ".join([one.query, *said])) for one in (question.prompt, question.against)
        )
        assert given is not None
        decoding = question.decoding
        temperature = max(decoding.temperature, REASK_TEMPERATURE) if again else decoding.temperature
        allowed = [
            (question.known[place],) if place in question.known else places[place].words
            for place in range(start, len(places))
        ]
        guidance = Guidance(decoding.guidance, temperature, decoding.most_uses)
        used = Counter(question.used)
        used.update(word for place, word in enumerate(state.words[:start]) if word and place not in question.known)
        known = frozenset(place - start for place in question.known)
        words, usage = await self._guided.write(
            given, without, allowed, guidance, seed_of(decoding.seed, key), used=used, known=known
        )
        state.words[start:] = words
        state.texts.append(" " + " ".join(words))
        state.usage += usage

    def one_by_one(self, decoding: Decoding, guided: bool) -> bool:
        """Whether words are chosen one by one, by their log-probabilities: with guidance, and where a limit to
        repetition can so leave words out instead of asking about them again, at no great price."""
        limited = decoding.most_uses is not None and self.llm.profile.scores_bags
        return self._scores_words and (guided or limited)

    @property
    def _scores_words(self) -> bool:
        return self.llm.profile.scores_text and self.constrain != "never"

    @property
    def _continues(self) -> bool:
        """Whether the LLM goes on with a text, so that a prompt may end in the middle of an answer."""
        return self.llm.profile.api == "completions"

    def _start(self, state: _Try) -> int:
        """The first place that is asked for."""
        if not self._continues:
            return 0
        return next((place for place, word in enumerate(state.words) if word is None), len(state.words))

    async def _request(
        self, question: Question, state: _Try, places: Sequence[WordSet], key: str, *, again: bool
    ) -> None:
        """One request for the places from the first without a word on, read into ``state``."""
        prompt, start = question.prompt, self._start(state)
        if start:
            said = composed(" ".join(word for word in state.words[:start] if word is not None))
            prompt = replace(prompt, query=f"{prompt.query} {said}")
        known = {place - start: word for place, word in question.known.items() if place >= start}
        asked = list(places[start:])
        constraint = self.constraint(asked, known)
        settings = question.decoding
        temperature = max(settings.temperature, REASK_TEMPERATURE) if again else settings.temperature
        seed = seed_of(settings.seed, key) if temperature else settings.seed
        profile = self.llm.profile
        options: dict[str, Any] = {
            "max_tokens": question.max_tokens,
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
        reading = read_words(completion.text, asked, known=known, query=question.prompt.query, marks=question.marks)
        state.problem = reading.problem
        state.changes.extend(replace(one, place=one.place + start) if one.place else one for one in reading.changes)
        kept = list(reading.words)
        if None in kept:
            # What follows a word that is missing may stand at the wrong place.
            gap = kept.index(None)
            kept[gap:] = [known.get(place) for place in range(gap, len(kept))]
            if not self._continues:
                kept = [known.get(place) for place in range(len(kept))]
        state.words[start:] = kept

    def constraint(self, places: Sequence[WordSet], known: Mapping[int, str]) -> Constraint | None:
        """What an answer is restricted to: the words of its places, but for those that are known."""
        profile = self.llm.profile
        if self.constrain == "never" or profile.constraint is None:
            return None
        first = places[0]
        if not known and all(one is first for one in places):
            constraint = Constraint(first.words, len(places))
        else:
            constraint = Constraint.at_places(
                [(known[place],) if place in known else one.words for place, one in enumerate(places)]
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

    def _finish(self, question: Question, state: _Try) -> SegmentAnswer:
        if None in state.words and question.filling:
            for place, word in enumerate(state.words):
                if word is None:
                    state.words[place] = question.filling[place]
                    state.changes.append(Change("filled", place + 1, "", question.filling[place]))
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


def _repetition(question: Question, state: _Try) -> int | None:
    """The first answered place whose word stands too many times in a row or on its layer; None where none does."""
    longest, most = question.decoding.longest_run, question.decoding.most_uses
    uses = Counter(question.used)
    run, last = 0, None
    for place, word in enumerate([*question.before, *state.words], start=-len(question.before)):
        run, last = (run + 1 if word == last else 1), word
        if word is None:
            return None
        if place < 0 or place in question.known:
            continue
        if longest is not None and run > longest:
            return place
        if most is not None and uses[word] >= most and any(uses[one] < most for one in question.places[place].words):
            return place
        uses[word] += 1
    return None


def _left(question: Question, state: _Try, places: Sequence[WordSet]) -> list[WordSet]:
    """The words allowed at each place, without those that were written often enough before it."""
    most = question.decoding.most_uses
    if most is None:
        return list(places)
    uses = Counter(question.used)
    found: list[WordSet] = []
    made: dict[tuple[int, tuple[str, ...]], WordSet] = {}  # places that share a set go on sharing it
    for place, one in enumerate(places):
        worn = tuple(word for word, count in uses.items() if count >= most)
        key = (id(one), worn)
        if key not in made:
            made[key] = one.without(*worn)
        found.append(made[key])
        word = state.words[place]
        if word is not None and place not in question.known:
            uses[word] += 1
    return found


def seed_of(seed: int, key: str) -> int:
    """A seed below 2**31 for one request, the same for the same seed and key."""
    return zlib.crc32(f"{seed}/{key}".encode()) & 0x7FFFFFFF
