"""The passes of eq. (11) with their prompts: what is put to an LLM about each segment of each query.

Knows: which words go into which part of a prompt, and which words an answer may hold. Refuses to know: LLMs' answers,
scheduling, money.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Profile, Prompt
from icl_vision.drawing.answering import SegmentInquiry
from icl_vision.drawing.drawing import (
    Canvas,
    Condition,
    Pair,
    Query,
    check_pairs,
    check_query,
    condition_text,
    condition_words,
    plurality,
)
from icl_vision.drawing.prompts import PreparedSegment, SegmentExample, SegmentPlace, SegmentPromptBuilder
from icl_vision.drawing.repair import WordSet
from icl_vision.drawing.stages import Segment, Stage, shown_places, split, strides_of
from icl_vision.errors import UsageError
from icl_vision.llms.tokens import ESTIMATE_ERROR, count_tokens
from icl_vision.spelling import composed

if TYPE_CHECKING:
    from icl_vision.codebook import Codebook
    from icl_vision.pyramid import PyramidLayout, TokenPyramid
    from icl_vision.vocabulary import Vocabulary

SPARE_TOKENS = 8
"""Tokens an unrestricted answer may have beyond the longest example's and one for each word."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of eq. (11).

    number: t, from 1. segment: what is decoded. stage: its place among the stages, from 0. shown: the places shown.
    wave: passes of one wave do not depend on each other; each wave needs those before it.
    """

    number: int
    segment: Segment
    stage: int
    shown: tuple[int, ...]
    wave: int


def resolve(stages: Sequence[Stage], layout: PyramidLayout) -> tuple[Stage, ...]:
    """The stages with their layers and rows as numbers: layers of None are all, a last layer of -1 is the pyramid's
    last, a stride of "rows" or None is one for each layer.

    Raises:
        UsageError: no stages, layers that there are not, or that two stages decode, or a stride that does not fit.
    """
    if isinstance(stages, Stage) or not stages:
        raise UsageError("stages must be a sequence of at least one Stage, as par(), pnar() or two_stage() give it")
    resolved: list[Stage] = []
    end = 0
    for number, stage in enumerate(stages, start=1):
        first, last = stage.layers or (1, -1)
        last = len(layout) if last == -1 else last
        if not end < first <= last <= len(layout):
            raise UsageError(
                f"stage {number} decodes layers {first} to {last}; stages go down the pyramid's {len(layout)} layers "
                f"in order and do not overlap (the one before ends at {end})"
            )
        end = last
        stride = stage.stride
        if not isinstance(stride, int) and stride != "all":
            stride = strides_of(layout, stride, (first, last))
        resolved.append(replace(stage, layers=(first, last), stride=stride))
    return tuple(resolved)


def passes_of(stages: Sequence[Stage], layout: PyramidLayout) -> tuple[Pass, ...]:
    """All passes, in the order of their segments. stages: resolved.

    Raises:
        UsageError: a stride that does not fit.
    """
    passes: list[Pass] = []
    waves: dict[int, int] = {}  # of each place that some pass decodes
    for index, stage in enumerate(stages):
        assert stage.layers is not None
        for segment in split(layout, stage.stride, stage.layers):
            shown = shown_places(layout, segment, stage.given, stage.layers[0])
            wave = max((waves[place] + 1 for place in shown if place in waves), default=0)
            waves.update(dict.fromkeys(segment.places, wave))
            passes.append(Pass(len(passes) + 1, segment, index, shown, wave))
    return tuple(passes)


@dataclass(frozen=True, slots=True)
class About:
    """What an injected score knows of an inquiry: the query's number, the pass, and the words by place before it."""

    query: int
    pass_: Pass
    words: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What all queries of a pass share."""

    prepared: PreparedSegment
    places: tuple[WordSet, ...]
    max_tokens: int
    filling: tuple[str, ...]
    segment_tokens: int


@dataclass(slots=True)
class SegmentPrompts:
    """All passes over some pairs and queries, with what each puts to an LLM.

    Args:
        stages: how to decode.
        pairs: the examples of eq. (10), in the order to show.
        queries: what to draw.
        stage_pairs: other examples for a stage, by its number from 1, of the same layout and vocabulary.
        profile: of the LLM, for its tokenizer.
        fill: whether a place that is not answered may take the examples' most frequent word.
        templates: a folder of your own templates.
        codebook: for repair by nearness.

    Raises:
        UsageError: stages, pairs or queries that do not fit together, or places that nobody draws.
        TemplateError: a stage's template cannot be used.
    """

    stages: tuple[Stage, ...]
    pairs: Sequence[Pair]
    queries: tuple[Query, ...]
    stage_pairs: Mapping[int, Sequence[Pair]]
    profile: Profile
    fill: bool = False
    templates: str | os.PathLike[str] | None = None
    codebook: Codebook | None = None
    layout: PyramidLayout = field(init=False)
    vocabulary: Vocabulary = field(init=False)
    passes: tuple[Pass, ...] = field(init=False)
    _builders: list[SegmentPromptBuilder] = field(init=False)
    _words: list[list[list[str]]] = field(init=False)
    _fixed: dict[int, _Fixed] = field(init=False, default_factory=dict)
    _sets: dict[tuple[int, str], WordSet] = field(init=False, default_factory=dict)
    _conditions: dict[int, tuple[TokenPyramid, list[str]]] = field(init=False, default_factory=dict)
    _layers: list[int] = field(init=False)
    _starts: tuple[int, ...] = field(init=False)
    _items: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.layout, self.vocabulary = check_pairs(self.pairs)
        self.stages = resolve(self.stages, self.layout)
        self.passes = passes_of(self.stages, self.layout)
        self._starts = (0, *self.layout.cumulative)
        self._layers = [layer for layer, count in enumerate(self.layout.counts, start=1) for _ in range(count)]
        for number, pairs in self.stage_pairs.items():
            if not 1 <= number <= len(self.stages):
                raise UsageError(
                    f"stage_pairs has examples for stage {number}; there are stages 1 to {len(self.stages)}"
                )
            if check_pairs(pairs) != (self.layout, self.vocabulary):
                raise UsageError(f"the examples of stage {number} have another layout or vocabulary than the others")
        self.queries = _named(self.queries)
        drawn = {place for pass_ in self.passes for place in pass_.segment.places}
        rest = set(range(len(self._layers))) - drawn
        for query in self.queries:
            check_query(query, self.layout, self.vocabulary)
            lost = sorted(rest - set(query.known))
            if lost:
                raise UsageError(
                    f"no stage draws layer {self._layers[lost[0]]} and the query {query.name!r} does not give "
                    "all its words: add a stage, or give them as known"
                )
        for pass_ in self.passes:
            if self.stages[pass_.stage].condition == "same":
                examples = self.pairs_of(pass_.stage)
                for condition in (*(pair.condition for pair in examples), *(query.condition for query in self.queries)):
                    if isinstance(condition, str) or pass_.segment.stop > len(self._words_of(condition)):
                        condition_words(condition, pass_.segment.places)  # refuses it, here and not in mid-picture
        self._builders = [
            SegmentPromptBuilder(stage.template, folder=self.templates, induction=stage.induction)
            for stage in self.stages
        ]
        self._words = [[pair.target.words() for pair in self.pairs_of(index)] for index in range(len(self.stages))]
        self._items = [_item_of(query) for query in self.queries]

    def pairs_of(self, stage: int) -> Sequence[Pair]:
        """The examples of a stage, counted from 0."""
        return self.stage_pairs.get(stage + 1, self.pairs)

    def canvas(self, query: Query) -> Canvas:
        """A query's picture before anything is drawn: the known words."""
        words = [query.known.get(place) for place in range(len(self._layers))]
        return Canvas(query, self.layout, self.vocabulary, words)

    def item(self, number: int, pass_: Pass) -> str:
        """What a segment of query ``number`` (from 0) is known by in a run folder's journal."""
        return f"{self._items[number]}/{pass_.number:04d}"

    def wanted(self, pass_: Pass, query: Query) -> bool:
        """Whether a pass has anything to draw for a query."""
        return any(place not in query.known for place in pass_.segment.places)

    def prompt(self, pass_: Pass, query: Query, words: Sequence[str | None]) -> Prompt:
        """The prompt of eq. (11): examples ([u, v_<t'], v_t) and the query's [u, v_<t'].

        words: the query's words by place; all that the pass is shown must be there.
        """
        return self._prompt(pass_, self._condition(pass_, query.condition), words)

    def inquiry(self, pass_: Pass, number: int, words: Sequence[str | None]) -> SegmentInquiry:
        """What is put to the LLM about one segment of query ``number`` (from 0)."""
        query, fixed = self.queries[number], self.fixed(pass_)
        start = pass_.segment.start
        before: list[str] = []
        if self.stages[pass_.stage].decoding.longest_run is not None:
            # Only over what the LLM is shown directly before the segment, so that no order of work matters.
            shown, place = set(pass_.shown), start - 1
            while place in shown and (word := words[place]) is not None and word == (before or [word])[0]:
                before.append(word)
                place -= 1
        used = self._used(pass_, query, words)
        return SegmentInquiry(
            prompt=self.prompt(pass_, query, words),
            places=self._places(pass_, number),
            decoding=self.stages[pass_.stage].decoding,
            key=composed(f"{query.name}/{pass_.number}"),
            max_tokens=fixed.max_tokens,
            known=self._known(pass_, query),
            before=tuple(before),
            used=used,
            marks=fixed.prepared.template.literals,
            filling=fixed.filling,
            about=About(number, pass_, tuple(words)),
            against=self.against(pass_, query, words),
        )

    def _used(self, pass_: Pass, query: Query, words: Sequence[str | None]) -> Mapping[str, int]:
        """How often the LLM wrote each word on the segment's layer, where the control of repetition asks for it. Only
        places that the segment is shown count, so that no order of work matters."""
        if self.stages[pass_.stage].decoding.most_uses is None:
            return {}
        layer = pass_.segment.layer
        written = (words[place] for place in pass_.shown if self._layers[place] == layer and place not in query.known)
        return Counter(word for word in written if word is not None)

    def against(self, pass_: Pass, query: Query, words: Sequence[str | None]) -> Prompt | None:
        """The prompt of a pass without the query's condition; None where no guidance is asked for."""
        stage = self.stages[pass_.stage]
        if stage.decoding.guidance == 1 or stage.condition == "none":
            return None
        return self._prompt(pass_, "", words)

    def allowed(self, pass_: Pass, number: int) -> tuple[tuple[WordSet, ...], dict[int, str]]:
        """The words allowed at each place of a segment, and those that are known, by place from 0."""
        return self._places(pass_, number), self._known(pass_, self.queries[number])

    def sets(self, pass_: Pass, number: int) -> list[tuple[str, ...]]:
        """What there is to choose from at each place of a segment: one word where there is no choice."""
        places, known = self.allowed(pass_, number)
        return [(known[place],) if place in known else words.words for place, words in enumerate(places)]

    def _known(self, pass_: Pass, query: Query) -> dict[int, str]:
        start = pass_.segment.start
        return {place - start: query.known[place] for place in pass_.segment.places if place in query.known}

    def _places(self, pass_: Pass, number: int) -> tuple[WordSet, ...]:
        """The words allowed at each place of a segment: those of its stage, the query's own, or both."""
        stage, query, places = self.stages[pass_.stage], self.queries[number], self.fixed(pass_).places
        shown = stage.allowed == "shown" and stage.condition == "same"
        alone = stage.allowed in ("shown", "own")
        if not (query.also or shown):
            return places
        sets: list[WordSet] = []
        merged: dict[tuple[int, int], WordSet] = {}  # places with the same words go on sharing one set
        for place, words in zip(pass_.segment.places, places, strict=True):
            layer = self._layers[place]
            key = (id(words), layer)
            if key not in merged:
                own: Sequence[str] = query.also.get(layer, ())
                if shown:
                    same = [other for other in pass_.segment.places if self._layers[other] == layer]
                    # A single word would be no choice.
                    own = condition_words(query.condition, same).split() if len(same) > 1 else own
                names = self._in_order({*(() if alone and own else words.words), *own})
                merged[key] = words if names == list(words.words) else WordSet(names, self.codebook)
            sets.append(merged[key])
        return tuple(sets)

    def fixed(self, pass_: Pass) -> _Fixed:
        """What all queries of a pass share; made once."""
        if pass_.number not in self._fixed:
            self._fixed[pass_.number] = self._fix(pass_)
        return self._fixed[pass_.number]

    def segment_tokens(self, pass_: Pass) -> int:
        """About how many tokens a segment's words have."""
        return self.fixed(pass_).segment_tokens

    def example_words(self, pass_: Pass) -> list[str]:
        """What the examples have there, each once, as it would stand after the prompt: how much room words need."""
        start, stop = pass_.segment.start, pass_.segment.stop
        return list(dict.fromkeys(" " + composed(" ".join(words[start:stop])) for words in self._words[pass_.stage]))

    def stand_in(self, pass_: Pass, query: Query) -> Prompt:
        """A prompt about as long as the real one, whose words are not there yet: with the first example's."""
        words = self._words[pass_.stage][0]
        return self.prompt(pass_, query, [query.known.get(place, word) for place, word in enumerate(words)])

    def stand_in_against(self, pass_: Pass, query: Query) -> Prompt | None:
        """As ``stand_in``, what guidance weighs against."""
        words = self._words[pass_.stage][0]
        return self.against(pass_, query, [query.known.get(place, word) for place, word in enumerate(words)])

    def digest(self) -> str:
        """A hash of everything that decides the prompts beside the queries: examples, templates, words."""
        parts = [self.vocabulary.hash, str(self.layout)]
        for index, builder in enumerate(self._builders):
            parts.append(builder.template.source)
            parts += [
                f"{condition_text(pair.condition)}\n{' '.join(pair.target.words())}" for pair in self.pairs_of(index)
            ]
        return hashlib.sha256(composed("\n\n".join(parts)).encode("utf-8", "backslashreplace")).hexdigest()

    def _fix(self, pass_: Pass) -> _Fixed:
        segment = pass_.segment
        words = self._words[pass_.stage]
        examples = [
            SegmentExample(
                self._condition(pass_, pair.condition),
                " ".join([target[place] for place in pass_.shown]),
                " ".join(target[segment.start : segment.stop]),
            )
            for pair, target in zip(self.pairs_of(pass_.stage), words, strict=True)
        ]
        place = SegmentPlace(
            count=len(segment.places),
            layer=segment.layer,
            layers=len(self._starts) - 1,
            first=segment.start - self._starts[segment.layer - 1] + 1,
            size=self._starts[segment.layer] - self._starts[segment.layer - 1],
            segment=pass_.number,
            segments=len(self.passes),
        )
        longest = max((example.answer for example in examples), key=len)
        counted = count_tokens(" " + longest, self.profile.name, encoding=self.profile.tokenizer)
        tokens = counted.tokens if counted.exact else math.ceil(counted.tokens * (1 + ESTIMATE_ERROR))
        filling: tuple[str, ...] = ()
        if self.fill:
            filling = plurality([pair.target for pair in self.pairs_of(pass_.stage)])[segment.start : segment.stop]
        return _Fixed(
            self._builders[pass_.stage].prepare(examples, place),
            tuple(self._allowed(pass_.stage, place) for place in segment.places),
            tokens + len(segment.places) + SPARE_TOKENS,
            filling,
            counted.tokens,
        )

    def _prompt(self, pass_: Pass, condition: str, words: Sequence[str | None]) -> Prompt:
        lacking = next((place for place in pass_.shown if words[place] is None), None)
        if lacking is not None:
            raise UsageError(f"pass {pass_.number} is shown place {lacking}, which has no word yet")
        shown = " ".join([words[place] or "" for place in pass_.shown])
        return self.fixed(pass_).prepared.query(condition=condition, words=shown)

    def _condition(self, pass_: Pass, condition: Condition) -> str:
        """A condition as a pass shows it."""
        shown = self.stages[pass_.stage].condition
        if shown == "none":
            return ""
        if isinstance(condition, str):
            return condition
        words = self._words_of(condition)
        return " ".join(words if shown == "all" else [words[place] for place in pass_.segment.places])

    def _words_of(self, condition: TokenPyramid) -> list[str]:
        """A condition's words, looked up once."""
        if id(condition) not in self._conditions:
            # Held with its words, so that no other object can have its id.
            self._conditions[id(condition)] = (condition, condition.words())
        return self._conditions[id(condition)][1]

    def _allowed(self, stage: int, place: int) -> WordSet:
        """The words allowed at a place; places with the same words share one set."""
        mode, words = self.stages[stage].allowed, self._words[stage]
        if mode == "vocabulary":
            key, chosen = "", range(0)
        elif mode == "context":
            key, chosen = "all", range(len(self._layers))
        elif mode == "layer":
            layer = self._layers[place]
            key, chosen = f"layer {layer}", range(self._starts[layer - 1], self._starts[layer])
        else:
            key, chosen = f"place {place}", range(place, place + 1)
        if (stage, key) not in self._sets:
            held = {target[place] for target in words for place in chosen}
            self._sets[stage, key] = WordSet(self._in_order(held) if held else self.vocabulary.words, self.codebook)
        return self._sets[stage, key]

    def _in_order(self, words: Set[str]) -> list[str]:
        """Words in the order of the vocabulary."""
        ids = self.vocabulary.ids(words).tolist()
        return [word for _, word in sorted(zip(ids, words, strict=True))]


def _named(queries: Sequence[Query]) -> tuple[Query, ...]:
    """The queries, each with a name of its own.

    Raises:
        UsageError: no queries, something else than queries, or a name given twice.
    """
    named: list[Query] = []
    for number, query in enumerate(queries, start=1):
        if not isinstance(query, Query):
            raise UsageError(f"query {number} must be a Query(condition); got {type(query).__name__}")
        named.append(replace(query, name=query.name or str(number)))
    names = [composed(query.name) for query in named]
    if not names:
        raise UsageError("there is nothing to draw: give at least one Query")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two queries are named {twice!r}; give each a name of its own")
    return tuple(named)


def _item_of(query: Query) -> str:
    """What a query is known by in a run folder's journal: its name, and what it says."""
    said: Any = [composed(condition_text(query.condition)), sorted(query.known.items())]
    if query.also:
        said.append(sorted((layer, *words) for layer, words in query.also.items()))
    digest = hashlib.sha256(repr(said).encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return f"{composed(query.name)}#{digest}"
