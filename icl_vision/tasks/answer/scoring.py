"""How an answer is found: the ladder of methods, best available first, and what a query's replies mean together.

Knows: what is put to the LLM about one query by each method, one inquiry after the other, and how prompts, candidates
and evidence are weighed. Refuses to know: images, which examples are shown, how anything is asked.

Among given choices (``scoring="auto"`` takes the first that the LLM allows):

- "choices": log P(choice | prompt) for every choice, line end included. ``scoring="direct"``.
- "constrained": the LLM writes one of them and can write nothing else.
- "parsed": it writes what it likes; a choice is looked for in that. ``scoring="parse"``.

Without:

- "fused": the candidate with the highest log P(candidate | prompt) + weight * log P(candidate | picture), see
  ``candidates``. The prompt shows no words of the pictures then: what they say comes in by the second term.
- "read": where a question asks for text and some was read in the pictures (``scoring="auto"`` alone): all that was
  read, or, where the question names a thing, the string that the LLM, shown all of them, holds likeliest. It has no
  probability: the LLM's shares say which string is meant, not whether it was read rightly, and one alone is certain.
- "greedy": what the LLM writes, shown the words, up to the line's end.

Of several prompts (an ensemble) scores are averaged; of written answers the one with the highest mean log-probability
is taken, or the one most prompts gave, where the LLM tells no probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from icl_vision.asking.inquiries import TERMINATOR, Inquiry, Reply, Writing
from icl_vision.contracts import Answer, AnswerMethod, Constraint, Profile, Prompt, Usage
from icl_vision.errors import CapabilityError, LLMNoAnswerError, LLMResponseError, UsageError
from icl_vision.llms.scores import all_impossible
from icl_vision.probabilities import ProbabilityMap
from icl_vision.probabilities.maps import softmax
from icl_vision.spelling import composed
from icl_vision.tasks.answer.answered import MOST_ANSWER, MOST_CAPTION
from icl_vision.tasks.answer.candidates import MOST_WORDS, candidates, log_vision, read_as_answers, speaks
from icl_vision.tasks.answer.reading import first_line, in_known_spelling, normal_form, short_answer

AnswerScoring = Literal["auto", "fused", "direct", "greedy", "constrained", "parse"]

SHORTLIST = 8
"""Candidates that are scored with their line's end, where scoring many words without it is cheap: the best ones."""

MOST_WITHOUT_BAGS = 16
"""Words of the pictures that are candidates for an LLM to which each is a request of its own."""

CHOICE_ROOM = 16
"""Tokens left for a choice beyond the longest one: quotes, a full stop, "The answer is"."""

TOLD = 10
"""Candidates whose probabilities an answer tells, the likeliest first."""


def choose_method(scoring: str, profile: Profile, choices: Sequence[str] | None, *, evidence: bool) -> AnswerMethod:
    """The rung of the ladder to stand on.

    evidence: whether the pictures' words can say anything of an answer; character art cannot.

    Raises:
        CapabilityError: the LLM cannot do what ``scoring`` asks for.
        UsageError: ``scoring`` needs choices and there are none.
    """
    if scoring in ("direct", "constrained", "parse") and choices is None:
        raise UsageError(f"scoring={scoring!r} chooses among given answers; give choices=, or use scoring='auto'")
    if scoring in ("fused", "direct") and not profile.scores_text:
        raise CapabilityError(
            f"scoring={scoring!r} needs log-probabilities of given text, which the LLM {profile.name!r} does not give; "
            "use scoring='auto', or an LLM that gives them (local does)"
        )
    if scoring == "fused" and not evidence:
        raise CapabilityError("scoring='fused' weighs words of the picture; this tokenizer gives none: use 'greedy'")
    if scoring in ("fused", "greedy"):
        return "fused" if scoring == "fused" else "greedy"
    if choices is None:
        return "fused" if profile.scores_text and evidence else "greedy"
    restrictable = profile.constraint is not None and not profile.too_much(choices)
    if scoring == "constrained" and not restrictable:
        why = profile.too_much(choices) if profile.constraint is not None else "its output cannot be restricted"
        raise CapabilityError(
            f"scoring='constrained' among {len(choices)} choices cannot be had of {profile.name!r} ({why}); use "
            "scoring='parse' or 'auto'"
        )
    if scoring == "direct" or (scoring == "auto" and profile.scores_text):
        return "choices"
    return "constrained" if scoring == "constrained" or (scoring == "auto" and restrictable) else "parsed"


@dataclass(frozen=True, slots=True)
class Way:
    """How one task's answers are found. method: the rung. weight: of what vision says, for "fused". short: an answer
    is a word or two; else it is the whole first line. max_tokens: of a written answer. bags: many words after one
    prompt cost the LLM little more than one. seed: for an LLM that takes one. told: candidates whose probability an
    answer tells."""

    method: AnswerMethod
    weight: float
    short: bool
    max_tokens: int
    bags: bool
    seed: int
    told: int | None = TOLD


@dataclass(slots=True)
class Dialogue:
    """One query while it is asked: what comes next, and in the end its answer.

    prompts: one, or several of an ensemble. choices: what may be answered, None where that is open. chances: what the
    pictures say of words. answers: of the examples shown, whose spelling an answer takes. rates: how probable words
    are of any picture, where that is known. read: text that was read in the pictures, for "read".
    """

    way: Way
    question: str | None
    prompts: tuple[Prompt, ...]
    choices: tuple[str, ...] | None
    chances: Mapping[str, float]
    answers: tuple[str, ...]
    rates: Mapping[str, float] = field(default_factory=dict)
    read: tuple[str, ...] = ()
    written: list[tuple[str, float | None]] = field(default_factory=list)
    """What came back of each prompt so far: (text, log-probability or None)."""
    offered: tuple[str, ...] = ()
    scores: npt.NDArray[np.float64] | None = None
    """Of ``offered``: log P(candidate | prompt), the mean over prompts, plus what vision says."""
    finalists: tuple[int, ...] = ()
    failure: Exception | None = None
    usage: Usage = field(default_factory=Usage)
    """Of all replies so far."""

    def first(self) -> Inquiry:
        """What is put to the LLM first."""
        if self.way.method == "choices":
            assert self.choices is not None  # choose_method saw to it
            self.offered = tuple(map(composed, self.choices))
            return self._scored(range(len(self.offered)), TERMINATOR)
        if self.way.method == "read":
            self.offered = tuple(map(composed, read_as_answers(self.question, self.read)))
            return self._scored(range(len(self.offered)), TERMINATOR)
        return self._writes(0)

    def then(self, reply: Reply | Exception) -> Inquiry | None:
        """What is put to it next, after this came back; None where nothing is."""
        method = self.way.method
        if isinstance(reply, Reply):
            self.usage += reply.usage
        if method in ("choices", "read"):
            return None
        if self.scores is not None or self.offered:
            return self._rated(reply)
        if isinstance(reply, Reply):
            self.written.append((reply.text, reply.logprob))
        elif isinstance(reply, LLMNoAnswerError):
            self.failure = reply  # another prompt, or the candidates, may still do
            self.written.append(("", None))
        else:
            return None
        if method == "fused":
            own = short_answer(self.written[0][0], self.answers, most=MOST_ANSWER)
            if self.choices is not None:
                self.offered = tuple(map(composed, self.choices))
            else:
                most = MOST_WORDS if self.way.bags else MOST_WITHOUT_BAGS
                found = candidates(self.question, self.chances, self.answers, own, most)
                self.offered = tuple(map(composed, found))
                if not self.offered:
                    return None  # nobody knows of any: that the LLM wrote nothing stands
            return self._scored(range(len(self.offered)), "" if self.way.bags else TERMINATOR)
        return self._writes(len(self.written)) if len(self.written) < len(self.prompts) else None

    def _rated(self, reply: Reply | Exception) -> Inquiry | None:
        """After scores of candidates: the best of them once more, with the line's end, where it was left out."""
        if isinstance(reply, Exception) or reply.logprobs is None or not self.way.bags or self.scores is not None:
            return None
        rated = self._weighed(self._means(reply, len(self.offered)), range(len(self.offered)))
        if not np.isfinite(rated).any():
            return None
        self.scores = rated
        order = sorted(range(len(rated)), key=lambda place: (-rated[place], place))
        self.finalists = tuple(sorted(order[:SHORTLIST]))
        return self._scored(self.finalists, TERMINATOR)

    def answer(self, reply: Reply | Exception, calibration: ProbabilityMap | None) -> Answer:
        """What the replies mean together; ``words`` and ``examples`` are left to the caller.

        reply: the last one. calibration: from scores to probabilities, None for raw.
        """
        raw = self.written[0][0] if self.written else ""
        if isinstance(reply, Reply) and reply.logprobs is not None:
            answer = self._best(reply, calibration)
        elif isinstance(reply, Reply) or (
            isinstance(reply, LLMNoAnswerError) and any(text for text, _ in self.written)
        ):
            answer = self._said()  # one of several prompts may go without an answer
        else:
            answer = Answer("", (), None, None, error=reply)
        return replace(answer, raw=raw, usage=self.usage)

    # Scored.

    def _best(self, reply: Reply, calibration: ProbabilityMap | None) -> Answer:
        """The best of the candidates by all scores there are."""
        places = self.finalists or range(len(self.offered))
        fresh = self._means(reply, len(places))
        if all_impossible(fresh.tolist()):
            nothing = LLMResponseError(
                f"the LLM holds every answer impossible (log-probability -inf): {', '.join(self.offered[:TOLD])}"
            )
            return Answer("", (), None, self.way.method, error=nothing)
        scores = np.full(len(self.offered), -np.inf) if self.scores is None else self.scores.copy()
        scores[list(places)] = self._weighed(fresh, places)
        best = max(places, key=lambda place: (scores[place], -place))
        if self.scores is not None:
            # Those not asked with their line's end could only have lost by it.
            scores = np.where(np.isin(np.arange(len(scores)), places), scores, np.minimum(scores, scores[best]))
        if self.way.method == "read":
            note = "text in the picture" + (f", one of {len(self.offered)}" if len(self.offered) > 1 else "")
            return Answer(self.offered[best], (), None, "read", note=note)
        shares = softmax(scores) if calibration is None else calibration(scores)
        order = sorted(range(len(scores)), key=lambda place: (place != best, -shares[place], place))
        given = self.choices if self.choices is not None else self.offered
        told = order if self.choices is not None else order[: self.way.told]
        return Answer(
            given[best],
            (),
            float(shares[best]),
            self.way.method,
            calibrated=calibration is not None,
            probabilities={given[place]: float(shares[place]) for place in told},
        )

    def _weighed(self, logs: npt.NDArray[np.float64], places: Sequence[int]) -> npt.NDArray[np.float64]:
        if self.way.method != "fused" or not self.chances or not (self.choices is not None or speaks(self.question)):
            return logs
        vision = [log_vision(self.offered[place], self.chances, self.rates) for place in places]
        return np.asarray(logs + self.way.weight * np.asarray(vision), dtype=np.float64)

    def _means(self, reply: Reply, number: int) -> npt.NDArray[np.float64]:
        """The mean log-probability over prompts of each of ``number`` candidates."""
        rows = np.asarray(reply.logprobs, dtype=np.float64).reshape(len(self.prompts), number)
        return np.asarray(rows.mean(axis=0), dtype=np.float64)

    def _scored(self, places: Sequence[int], terminator: str) -> Inquiry:
        pairs = tuple((prompt, " " + self.offered[place]) for prompt in self.prompts for place in places)
        return Inquiry(pairs, terminator=terminator)

    # Written.

    def _writes(self, number: int) -> Inquiry:
        way, several = self.way, len(self.prompts) > 1
        constraint = None
        if way.method == "constrained":
            assert self.choices is not None  # choose_method saw to it
            constraint = Constraint(tuple(map(composed, self.choices)))
        # A constrained answer ends by itself, and a JSON one may hold line ends.
        stop = () if constraint else (TERMINATOR,)
        writing = Writing(
            way.max_tokens,
            stop,
            seed=way.seed,
            constraint=constraint,
            logprobs=constraint is None and way.method == "greedy" and (several or way.short),
        )
        return Inquiry.written(self.prompts[number], writing)

    def _said(self) -> Answer:
        """The answer that was written, or the best of several."""
        texts = [self._read(text) for text, _ in self.written]
        said = [place for place, text in enumerate(texts) if text]
        method = self.way.method
        if method == "constrained":
            allowed = set(map(normal_form, self.choices or ()))
            if any(normal_form(self.written[place][0]) not in allowed for place in said):
                method = "parsed"  # the restriction was not kept, so whatever was found was looked for
        if not said:
            nothing = LLMNoAnswerError(f"the LLM wrote {self.written[0][0]!r:.200}, which holds no answer")
            return Answer("", (), None, method, error=self.failure or nothing)
        logs = [logprob for _, logprob in self.written]
        if len(texts) == 1:
            told = None if logs[0] is None else math.exp(min(0.0, logs[0]))
            return Answer(texts[0], (), told, method)
        forms: dict[str, list[int]] = {}
        for place in said:
            forms.setdefault(normal_form(texts[place]), []).append(place)
        means = {form: _mean([logs[place] for place in places]) for form, places in forms.items()}
        if all(mean is not None for mean in means.values()):
            best = max(forms, key=lambda form: (means[form] or 0.0, len(forms[form])))
            how = "the highest mean log-probability"
        else:
            best = max(forms, key=lambda form: len(forms[form]))
            how = "by majority, since the LLM tells no probabilities"
        note = f"{len(forms[best])} of {len(texts)} prompts; {how}"
        return Answer(texts[forms[best][0]], (), None, method, note=note)

    def _read(self, text: str) -> str:
        """The answer in what was written; "" where there is none, or none of the choices."""
        if not self.way.short:
            return first_line(text, MOST_CAPTION)
        if self.choices is None:
            return short_answer(text, self.answers, most=MOST_ANSWER)
        # Its patterns take milliseconds to compile, and most replies are scores.
        from icl_vision.tasks.classify.parsing import parse_label

        own = dict(zip(map(composed, self.choices), self.choices, strict=True))
        label = parse_label(text, [*own]).label
        if label is None:
            label = composed(in_known_spelling(short_answer(text, most=MOST_ANSWER), self.choices))  # "2" for "two"
        return own.get(label, "")


def _mean(logs: Sequence[float | None]) -> float | None:
    known = [log for log in logs if log is not None]
    return sum(known) / len(known) if len(known) == len(logs) and known else None
