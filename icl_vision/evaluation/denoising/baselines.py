"""Restoring without an LLM: what the words of the context and of the condition give by themselves.

Knows: examples, conditions, known places. Refuses to know: LLMs, pixels, metrics.

In every one of these the known words are kept just as the LLM's rows keep them, so that only the unknown ones differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Profile
from icl_vision.drawing.drawing import Pair, Query, plurality
from icl_vision.drawing.passes import SegmentPrompts
from icl_vision.drawing.repair import unused
from icl_vision.drawing.stages import Stage, first_place, pnar
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.denoise.tasks import Alignment
from icl_vision.tokenizers.base import on_grids
from icl_vision.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Task:
    """What a baseline sees: the examples, the condition's words [all layers], the query, the codebook if any, and how
    the LLM would be asked: by which stages, and what of the condition is moved back where it belongs."""

    pairs: Sequence[Pair]
    condition: TokenPyramid
    query: Query
    vectors: npt.NDArray[np.float32] | None
    seed: int = 0
    stages: tuple[Stage, ...] = pnar(allowed="place")
    alignment: Alignment = field(default_factory=Alignment)

    @property
    def layout(self) -> PyramidLayout:
        return self.pairs[0].target.layout

    @property
    def vocabulary(self) -> Vocabulary:
        found = self.pairs[0].target.vocabulary
        assert found is not None  # drawing refuses pictures of characters
        return found


def plurality_vote(task: Task) -> TokenPyramid:
    """The most frequent word of each place in the context."""
    return _picture(task, plurality([pair.target for pair in task.pairs]))


def nearest_example(task: Task) -> TokenPyramid:
    """The words of the example whose condition is nearest: mean cosine of the words' vectors over the known places (all
    where none is known), or the share of equal words without a codebook."""
    places = sorted(task.query.known) or list(range(task.layout.cumulative[-1]))
    own = _ids(task.query.condition)
    at = [place for place in places if place < own.size] or list(range(own.size))
    best, highest = 0, -np.inf
    for number, pair in enumerate(task.pairs):
        other = _ids(pair.condition)[at]
        if task.vectors is None:
            near = float((own[at] == other).mean())
        else:
            near = float((task.vectors[own[at]] * task.vectors[other]).sum(1).mean())
        if near > highest:
            best, highest = number, near
    return _picture(task, task.pairs[best].target.words())


def condition_words(task: Task) -> TokenPyramid:
    """The condition's own words: the degraded picture through the tokenizer."""
    return task.condition.truncate(len(task.layout))


def nearest_known_word(task: Task) -> TokenPyramid | None:
    """At each place the word of the nearest known place of its layer; where a layer has none, the plurality vote. None
    where nothing is known."""
    if not task.query.known:
        return None
    words = list(plurality([pair.target for pair in task.pairs]))
    for number, grid in enumerate(task.layout.grids, start=1):
        start, stop = first_place(task.layout, number), first_place(task.layout, number + 1)
        known = np.array([place - start for place in sorted(task.query.known) if start <= place < stop], dtype=np.intp)
        if not known.size:
            continue
        cells = np.stack(np.unravel_index(known, grid), 1)
        for place in range(start, stop):
            cell = np.array(np.unravel_index(place - start, grid))
            nearest = known[int(np.square(cells - cell).sum(1).argmin())]
            words[place] = task.query.known[start + int(nearest)]
    return _picture(task, words)


def aligned_words(task: Task) -> TokenPyramid | None:
    """The condition's own words where they belong in the intact picture; None where nothing was moved."""
    if task.alignment == Alignment():
        return None
    return task.alignment.undo(task.condition).truncate(len(task.layout))


def extrapolated_words(task: Task) -> TokenPyramid | None:
    """Of a clip whose first frames are known: at each cell the vectors of its words of the last two known times run on
    in a straight line, and the word nearest to where they come; on a layer with one known time that word again, and
    without any the condition's. None where what is known is not the beginning and nothing else, or without vectors.
    """
    if len(task.layout.finest) != 3 or task.vectors is None or not task.query.known:
        return None
    table = task.vectors / np.maximum(np.linalg.norm(task.vectors, axis=1, keepdims=True), 1e-12)
    layers = []
    for number, ids in enumerate(task.condition.truncate(len(task.layout)).ids, start=1):
        start = first_place(task.layout, number)
        known = np.array([start + place in task.query.known for place in range(ids.size)]).reshape(ids.shape)
        until = int(known.all((1, 2)).sum())
        if not (known[:until].all() and not known[until:].any()):
            return None
        layers.append((run_on(ids, until, table) if until else ids).ravel())
    return _picture(task, [task.vocabulary.word(int(place)) for place in np.concatenate(layers)])


def run_on(ids: npt.NDArray[Any], known: int, table: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """A layer's words, int [times, rows, columns], of which the first ``known`` times, at least one, stay; in the rest
    stand the words nearest to where the vectors of the last two known times come in a straight line.

    table: unit vectors of all words, [V, c].
    """
    made = ids.copy()
    last, before = table[ids[known - 1]], table[ids[max(0, known - 2)]]
    for time in range(known, len(ids)):
        made[time] = ((last + (time - known + 1) * (last - before)) @ table.T).argmax(-1)
    return made


def random_allowed(task: Task) -> TokenPyramid:
    """At each place any of the words that the LLM may answer there, no more often than it may: what the restriction
    alone gives."""
    draw = np.random.default_rng([task.seed, *composed(task.query.name).encode()])
    prompts = SegmentPrompts(task.stages, task.pairs, (task.query,), {}, Profile("no LLM"))
    words = prompts.canvas(prompts.queries[0]).words
    for pass_ in prompts.passes:
        inquiry = prompts.inquiry(pass_, 0, words)
        uses = Counter(inquiry.used)
        for place, allowed in enumerate(inquiry.places):
            if place in inquiry.known:
                continue
            most = inquiry.decoding.most_uses
            left = allowed.words if most is None else unused(allowed.words, uses, most)
            word = left[int(draw.integers(len(left)))]
            words[pass_.segment.start + place] = word
            uses[word] += 1
    return _picture(task, [word or "" for word in words])


BASELINES: dict[str, tuple[Callable[[Task], TokenPyramid | None], str]] = {
    "plurality": (plurality_vote, "the most frequent word of each place in the context"),
    "nearest example": (nearest_example, "the words of the example whose condition is nearest by its words"),
    "nearest known word": (nearest_known_word, "each unknown word copied from the nearest known place of its layer"),
    "random allowed": (random_allowed, "any of the words that the LLM may choose from"),
    "condition words": (condition_words, "the condition itself, through the tokenizer"),
    "extrapolated words": (
        extrapolated_words,
        "of a clip: the vectors of the words of the last two known times run on in a straight line",
    ),
    "aligned words": (aligned_words, "the condition's words, moved to where they belong in the intact picture"),
}


def _ids(condition: object) -> npt.NDArray[np.intp]:
    assert isinstance(condition, TokenPyramid)  # denoising has no other conditions
    return np.concatenate([layer.ravel() for layer in condition.ids]).astype(np.intp)


def _picture(task: Task, words: Sequence[str]) -> TokenPyramid:
    """Some words, with the known ones in their places."""
    kept = [task.query.known.get(place, word) for place, word in enumerate(words)]
    ids = np.asarray(task.vocabulary.ids(kept), dtype=np.int32)
    return TokenPyramid(on_grids(ids, task.layout), task.layout, task.vocabulary)
