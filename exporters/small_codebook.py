"""A small codebook out of a large one: words that must be in it, then pattern words spread over the space.

    python -m icl_vision.exporters.small_codebook --out DIR

For tokenizers of small images. An LLM that draws in context has to guess the next word, and a few hundred bits of an
image do not need 14,210 words: with fewer, every word comes up often enough in some dozens of examples to be learned,
and a training step is not spent on the search. Pattern words stand for strokes, not for what they mean, so they are
kept away from the words that must be in it: a digit's name never means a stroke.

Knows: how words are chosen and what the card says of it. Refuses to know: images, models, where the vectors came from.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icl_vision.codebook import DEFAULT_CODEBOOK, Codebook, normalise
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.models.losses.guides import DIGIT_NAMES
from icl_vision.portable import BPETokenizer, WordTokenizer
from icl_vision.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

_ROUNDS = 50  # of k-means; it has settled by then
_BAND = 0.12  # how much less fitting than the best a more common word of a cluster may be, in cosine
_CHOICE = 24  # words of a cluster that are looked at


@dataclass(frozen=True)
class Choice:
    """How a small codebook is made.

    names: words that come first, in this order, ids 0, 1, ... patterns: how many pattern words follow.
    apart: largest cosine between a pattern word and a name. seed: of the clustering.
    """

    names: tuple[str, ...] = DIGIT_NAMES
    patterns: int = 128
    apart: float = 0.45
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patterns < 1:
            raise UsageError(f"patterns, the number of pattern words, must be 1 or more; got {self.patterns}")
        if not -1.0 < self.apart <= 1.0:
            raise UsageError(f"apart must be a cosine, above -1 and at most 1; got {self.apart}")


def small_codebook(source: Codebook, choice: Choice, commonness: WordTokenizer, *, name: str) -> Codebook:
    """The words of ``choice``, with their vectors from ``source``.

    Pattern words: spherical k-means among the words far enough from all names, and of each cluster the most common
    word among the central ones. Sorted by commonness.

    Args:
        source: the large codebook, unit vectors.
        choice: what to choose.
        commonness: a BPE tokenizer; a word with a lower first id is taken for more common (merges come by frequency).
        name: of the new codebook.

    Raises:
        UsageError: too few words are far enough from the names. UnknownWordError: a name is not in the source.
    """
    named = source.vocabulary.ids(choice.names)
    vectors = source.vectors
    nearest_name = (vectors @ vectors[named].T).max(axis=1) if len(named) else np.full(len(source), -1.0)
    candidates = np.setdiff1d(np.flatnonzero(nearest_name <= choice.apart), named)
    if len(candidates) < choice.patterns:
        raise UsageError(
            f"{len(candidates)} words lie at a cosine of at most {choice.apart} from every name, fewer than the "
            f"{choice.patterns} patterns wanted: raise apart, or want fewer"
        )
    ranks = {int(word): commonness.encode(" " + source.vocabulary.word(int(word)))[0] for word in candidates}
    centres = _centres(vectors[candidates], choice.patterns, np.random.default_rng(choice.seed))
    fits = vectors[candidates] @ centres.T  # [candidates, patterns]
    chosen: list[int] = []
    for column in fits.T:
        order = np.argsort(-column, kind="stable")
        free = [int(candidates[row]) for row in order if int(candidates[row]) not in chosen][:_CHOICE]
        best = float(vectors[free[0]] @ centres[len(chosen)])
        near = [word for word in free if float(vectors[word] @ centres[len(chosen)]) >= best - _BAND]
        chosen.append(min(near, key=lambda word: (ranks[word], word)))
    rows = [*map(int, named), *sorted(chosen, key=lambda word: (ranks[word], word))]
    words = Vocabulary([source.vocabulary.word(row) for row in rows], name=name)
    return Codebook(words, vectors[rows], source.projection, source.mean, name=name)


def build_small_codebook(
    out: str | Path,
    *,
    choice: Choice | None = None,
    source: str = DEFAULT_CODEBOOK,
    name: str = "digits-minilm-128",
    commonness: WordTokenizer | None = None,
) -> Codebook:
    """Choose, and write the codebook folder with its card.

    Args:
        out: the folder to write.
        choice: None takes the digit tokenizer's.
        source: a packaged codebook or a folder of one.
        name: of the codebook.
        commonness: None takes cl100k_base from the installed package bpe-openai.

    Returns:
        The codebook as read back from ``out``.
    """
    choice = choice or Choice()
    large = Codebook.load(source)
    small = small_codebook(large, choice, commonness or BPETokenizer("cl100k_base"), name=name)
    among = small.vectors @ small.vectors.T - 2 * np.eye(len(small), dtype=np.float32)
    patterns = among[len(choice.names) :, len(choice.names) :]
    card = {
        "licence": large.card.get("licence", "unknown"),
        "provenance": {"codebook": large.name, "codebook_hash": large.hash, "words": "a choice of its words"},
        "choice": {
            "names": list(choice.names),
            "patterns": choice.patterns,
            "apart": choice.apart,
            "seed": choice.seed,
            "commonness": "lowest first cl100k_base id among the central words of each k-means cluster",
        },
        "metrics": {
            "median_cosine_to_nearest_pattern": round(float(np.median(patterns.max(axis=1))), 4)
            if choice.patterns > 1
            else None
        },
        "built_with": "python -m icl_vision.exporters.small_codebook",
    }
    return small.save(out, card=card)


def _centres(points: Vectors, count: int, generator: np.random.Generator) -> Vectors:
    """Spherical k-means: unit centres [count, c] of unit points [N, c]; seeds are drawn far apart (k-means++)."""
    first = int(generator.integers(len(points)))
    centres = [points[first]]
    distance = 1.0 - points @ points[first]
    for _ in range(count - 1):
        weight = np.clip(distance.astype(np.float64), 0.0, None)
        # Where all points are taken (duplicates), any one serves.
        share = weight / weight.sum() if weight.sum() > 0 else np.full(len(points), 1 / len(points))
        centres.append(points[int(generator.choice(len(points), p=share))])
        distance = np.minimum(distance, 1.0 - points @ centres[-1])
    current = np.stack(centres)
    for _ in range(_ROUNDS):
        owner = (points @ current.T).argmax(axis=1)
        sums = np.zeros_like(current)
        np.add.at(sums, owner, points)
        # A centre that lost all its points stays where it is.
        empty = np.linalg.norm(sums, axis=1) < 1e-6
        current = np.where(empty[:, None], current, normalise(sums))
    return current


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m icl_vision.exporters.small_codebook", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--source", default=DEFAULT_CODEBOOK, help="packaged codebook or folder (%(default)s)")
    parser.add_argument("--name", default="digits-minilm-128", help="name of the new codebook (%(default)s)")
    parser.add_argument("--patterns", type=int, default=Choice.patterns, help="pattern words (%(default)s)")
    parser.add_argument("--apart", type=float, default=Choice.apart, help="largest cosine to a name (%(default)s)")
    parser.add_argument("--seed", type=int, default=Choice.seed, help="of the clustering (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        choice = Choice(patterns=given.patterns, apart=given.apart, seed=given.seed)
        codebook = build_small_codebook(given.out, choice=choice, source=given.source, name=given.name)
    except IclVisionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{codebook.name}: {len(codebook)} words in {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
