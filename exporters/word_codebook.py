"""A codebook folder of chosen words and the vectors of some source, projected to fewer dimensions if wanted.

Knows: how vectors become a codebook, what its card says, how well a projection kept the words' neighbours.
Refuses to know: where the vectors come from (``models/words/word_sources.py``) and which tokenizer will use them.

The packaged codebook has a build of its own, with the proof of its words: ``exporters/codebook.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.codebook import Codebook, normalise
from icl_vision.errors import StorageError, UsageError, VocabularyError
from icl_vision.llms.redaction import redacted_url
from icl_vision.llms.remote.openai.compatible import parse_spec
from icl_vision.models.words.text_embedding import SentenceEmbedder
from icl_vision.models.words.word_sources import (
    Several,
    WordVectors,
    embedding_vectors,
    gguf_vectors,
    sentence_vectors,
    transformers_vectors,
)
from icl_vision.vocabulary import CARD_FILE, WORDS_FILE, Vocabulary

from .codebook import imagenet_class_names, overlap, project_words

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

_SAMPLE = 2000


def build_codebook(
    source: WordVectors,
    vocabulary: Vocabulary,
    out: str | os.PathLike[str],
    *,
    dimension: int | None = None,
    queries: Vectors | None = None,
    name: str | None = None,
    licence: str | None = None,
    seed: int = 0,
) -> Codebook:
    """Write the codebook folder and return the codebook as read back from it.

    Args:
        source: one vector a word, in the vocabulary's order.
        vocabulary: the words.
        out: the folder; a codebook there is replaced, anything else is refused.
        dimension: c, the length of the projected vectors, 1 to the source's D; None keeps D, unprojected. The axes are
            those of ``exporters.codebook.fit_projection``: uncentred principal axes.
        queries: unit vectors [Q, D] that weigh one half in the choice of the axes; None leaves the axes to the words.
        name: for the card; None takes the folder's.
        licence: of the vectors, for the card; None takes what the source says.
        seed: of the words drawn to measure the projection.

    Raises:
        UsageError: a dimension out of range, vectors that do not fit the words, a name with odd characters.
        VocabularyError: words whose vectors are zero, so that they have no direction.
        StorageError: ``out`` holds something that is no codebook.
    """
    folder = Path(out)
    name = folder.absolute().name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UsageError(f"a codebook's name is made of letters, digits, '.', '_' and '-'; got {name!r}")
    _check_folder(folder)
    vectors = normalise(source.vectors)
    if vectors.ndim != 2 or len(vectors) != len(vocabulary):
        raise UsageError(f"{len(vocabulary)} words need vectors [{len(vocabulary)}, D]; got {list(vectors.shape)}")
    width = vectors.shape[1]
    if dimension is not None and not 1 <= dimension <= width:
        raise UsageError(f"dimension must be 1 to {width}, the length of the source's vectors; got {dimension}")
    empty = [word for word, row in zip(vocabulary.words, vectors, strict=True) if not row.any()]
    if empty:
        raise VocabularyError(f"{len(empty)} words have a zero vector, such as {empty[0]!r}; leave them out")
    if dimension is None:
        # Rounded as it will be stored, so that what is measured is what is written.
        stored = vectors.astype(np.float16).astype(np.float32)
        book = Codebook(vocabulary, stored, name=name)
        space: dict[str, Any] = {"metric": "cosine", "formula": "normalise(v)"}
    else:
        book = project_words(vocabulary, vectors, vectors if queries is None else queries, dimension, name)
        space = {
            "metric": "cosine",
            "formula": "normalise((v - mean) @ projection)",
            "axes": "uncentred principal axes",
        }
    card = {
        "licence": licence or source.licence,
        **({"use": source.use} if source.use else {}),
        "provenance": source.provenance,
        "space": space,
        "words_of_several_tokens": source.several,
        "metrics": measure(book, vectors, seed=seed),
        "seed": seed,
        "built_with": "icl-vision build codebook",
    }
    return book.save(folder, card=card)


def find_vectors(
    source: str, words: Sequence[str], *, several: Several = "refuse", template: str = "{}", batch_size: int = 512
) -> tuple[WordVectors, Vectors | None]:
    """The vectors that a source's name stands for, and what else should weigh in a projection's axes (or None).

    Args:
        source: "portable-minilm", "gguf:PATH", "transformers:NAME_OR_FOLDER" or "embeddings:MODEL[@URL]".
        words: T words.
        several: for gguf and transformers, see ``models.word_sources.gguf_vectors``.
        template, batch_size: for portable-minilm and embeddings (batches: embeddings alone).

    Raises:
        UsageError: no such source.
        Whatever the source's own function raises, see ``models/words/word_sources.py``.
    """
    kind, _, rest = source.partition(":")
    if source == "portable-minilm":
        # As for the packaged codebook: what is looked up later are class names, not only words.
        embedder = SentenceEmbedder()
        vectors = sentence_vectors(words, template=template, embedder=embedder)
        return vectors, embedder.embed(imagenet_class_names(), template=template)
    if kind == "gguf" and rest:
        return gguf_vectors(rest, words, several=several), None
    if kind == "transformers" and rest:
        return transformers_vectors(rest, words, several=several), None
    if kind == "embeddings" and rest:
        model, url = parse_spec(rest) if "@http" in rest else (rest, None)
        return embedding_vectors(model, words, url=url, template=template, batch_size=batch_size), None
    raise UsageError(
        f"{redacted_url(source)!r} names no source of vectors; valid are portable-minilm, gguf:PATH, "
        "transformers:NAME_OR_FOLDER and embeddings:MODEL[@URL]"
    )


def measure(book: Codebook, vectors: Vectors, *, seed: int = 0) -> dict[str, Any]:
    """Figures that tell whether a codebook is of use, from up to 2,000 words drawn by ``seed``.

    Returns:
        ``overlap@5`` and ``overlap@10``: the mean share of a word's true nearest words that are still nearest (None
        where the words were not projected or are too few); ``mean_length``: the length of the mean of all words'
        vectors, 0 where they point everywhere, 1 where all point one way; ``nearest_cosine``: the median cosine of a
        word and its nearest other word (None for one word).
    """
    chosen = np.random.default_rng(seed).choice(len(book), size=min(_SAMPLE, len(book)), replace=False)
    figures: dict[str, Any] = {}
    for k in (5, 10):
        measured = book.projection is not None and len(book) > k
        figures[f"overlap@{k}"] = (
            round(overlap(Codebook(book.vocabulary, vectors), book, vectors[chosen], k, chosen), 4)
            if measured
            else None
        )
    figures["mean_length"] = round(float(np.linalg.norm(book.vectors.mean(axis=0))), 4)
    near = book.nearest(book.vectors[chosen], min(2, len(book)))[1]
    figures["nearest_cosine"] = round(float(np.median(near[:, 1])), 4) if near.shape[1] > 1 else None
    return figures


def _check_folder(folder: Path) -> None:
    """StorageError where the folder holds something that is no codebook; where it is one, it may be replaced."""
    if folder.is_file():
        raise StorageError(f"{str(folder)!r} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        ours = {CARD_FILE, WORDS_FILE, "codebook.safetensors"}
        others = sorted(entry.name for entry in folder.iterdir() if entry.name not in ours)
        if others:
            raise StorageError(
                f"{str(folder)!r} holds other files ({', '.join(others[:3])}); name a new folder for the codebook"
            )
