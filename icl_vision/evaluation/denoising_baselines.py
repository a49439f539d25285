"""Restoring without an LLM: what the words of the context and of the condition give by themselves.

Knows: examples, conditions, known places. Refuses to know: LLMs, pixels, metrics.

In every one of these the known words are kept just as the LLM's rows keep them, so that only the unknown ones differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_vision.decoding.drawing import Pair, Query, plurality
from icl_vision.decoding.segments import first_place
from icl_vision.decoding.stages import Allowed
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import on_grids
from icl_vision.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Task:
    """What a baseline sees: the examples, the condition's words [all layers], the query, the codebook if any. upper:
    the layers that are decided first, where each place has its own allowed words. allowed, most_uses: of the first
    stage, see ``decoding.stages``."""

    pairs: Sequence[Pair]
    condition: TokenPyramid
    query: Query
    vectors: npt.NDArray[np.float32] | None
    seed: int = 0
    upper: int = 99
    allowed: Allowed = "place"
    most_uses: int | None = None

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
    """The condition's own words where they belong in the intact picture; None where nothing was moved, or where the
    query shows the upper layers only."""
    shown = task.query.condition
    assert isinstance(shown, TokenPyramid)
    if len(shown.layout) < len(task.layout) or shown.truncate(len(task.layout)) == condition_words(task):
        return None
    return shown.truncate(len(task.layout))


def random_allowed(task: Task) -> TokenPyramid:
    """At each place any of the words that the LLM may answer there, no more often than it may: what the restriction
    alone gives."""
    draw = np.random.default_rng([task.seed, *task.query.name.encode()])
    words: list[str] = []
    for number, grid in enumerate(task.layout.grids, start=1):
        start = first_place(task.layout, number)
        uses: Counter[str] = Counter()
        for place in range(start, start + math.prod(grid)):
            row = start + (place - start) // grid[-1] * grid[-1]
            allowed = _allowed(task, number, range(row, row + grid[-1]), place)
            if task.most_uses is not None:
                allowed = [word for word in allowed if uses[word] < task.most_uses] or allowed
            words.append(allowed[int(draw.integers(len(allowed)))])
            uses[words[-1]] += place not in task.query.known
    return _picture(task, words)


def _allowed(task: Task, layer: int, row: range, place: int) -> list[str]:
    """Words that the LLM may answer at a place when it is asked for its row."""
    own = {*task.query.also.get(layer, ())}
    if task.allowed == "shown":
        shown = task.query.condition
        assert isinstance(shown, TokenPyramid)
        if row.stop <= sum(map(math.prod, shown.layout.grids)):
            words = shown.words()
            return sorted({words[at] for at in row})
    if task.allowed in ("shown", "own") and own:
        return sorted(own)
    targets = [pair.target.words() for pair in task.pairs]
    start, stop = first_place(task.layout, layer), first_place(task.layout, layer + 1)
    wide = {word for one in targets for word in one[start:stop]} if layer > task.upper else set()
    return sorted(wide | {one[place] for one in targets} | own)


BASELINES: dict[str, tuple[Callable[[Task], TokenPyramid | None], str]] = {
    "plurality": (plurality_vote, "the most frequent word of each place in the context"),
    "nearest example": (nearest_example, "the words of the example whose condition is nearest by its words"),
    "nearest known word": (nearest_known_word, "each unknown word copied from the nearest known place of its layer"),
    "random allowed": (random_allowed, "any of the words that the LLM may choose from by default"),
    "condition words": (condition_words, "the condition itself, through the tokenizer"),
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
