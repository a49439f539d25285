"""A codebook for LQAE: words of the portable vocabulary with the rows of a masked language model's own word table.

    python -m icl_vision.exporters.table_codebook --source minilm --out DIR [--words 4096]
    python -m icl_vision.exporters.table_codebook --source roberta-base --out DIR --all

The packaged portable words carry sentence vectors, which no text encoder reads as its input; LQAE needs the rows of the
very table that its frozen text encoder looks words up in. Of the words that are single pieces of that model's tokenizer
the most frequent are taken (in BERT's vocabularies a lower number is a more frequent piece), without function words:
"the" would say as little of a place as a number.

``--all`` takes every row of the table instead, as the LQAE paper's repository does: 50,265 of RoBERTa's, continuations
and special tokens among them. A row is then called what the tokenizer calls it ("Ġcat" of RoBERTa's, "##s" of BERT's),
or by its number where that cannot be a word: no token has that row, or its piece holds what cannot be seen. Such words
are neither portable nor in a dictionary.

Knows: which words are taken, and what the card says of it. Refuses to know: images, models that read the words.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from icl_vision.checks import count
from icl_vision.codebook import DEFAULT_CODEBOOK, Codebook
from icl_vision.errors import IclVisionError, UsageError, VocabularyError
from icl_vision.models.words.masked_lm import MaskedTextEncoder
from icl_vision.models.words.masked_lm_files import ALL_ROWS, piece_names, single_pieces
from icl_vision.screening import function_words
from icl_vision.vocabulary import Vocabulary

WORDS = 4096


def build_table_codebook(
    out: str | Path,
    *,
    text_encoder: str,
    name: str,
    words: int = WORDS,
    licence: str = "unknown",
    origin: str | None = None,
    among: str = DEFAULT_CODEBOOK,
) -> Codebook:
    """Choose, and write the codebook folder with its card.

    Args:
        out: the folder to write.
        text_encoder: as ``MaskedTextEncoder.load`` takes it: "minilm", a folder that transformers saved, a hub name.
        name: of the codebook.
        words: how many.
        licence, origin: of the text encoder, for the card; origin None is ``text_encoder``.
        among: the packaged codebook, or a folder of one, whose words are chosen from.

    Returns:
        The codebook as read back from ``out``.

    Raises:
        UsageError: fewer words than asked for are single pieces. What ``MaskedTextEncoder.load`` raises.
    """
    words = count("words", words)
    source = Codebook.load(among)
    pieces = single_pieces(text_encoder, tuple(source.vocabulary))
    empty = function_words()
    ranked = sorted((piece, word) for word, piece in pieces.items() if word not in empty)
    if len(ranked) < words:
        raise UsageError(
            f"{len(ranked)} words of {source.name!r} are single pieces of {text_encoder!r}, {words} are wanted"
        )
    chosen = [word for _, word in ranked[:words]]
    table = MaskedTextEncoder.load(text_encoder, layers=0, words=chosen).table
    card = {
        "licence": licence,
        "provenance": {
            "text_encoder": origin or Path(text_encoder).name,
            "vectors": "rows of its word-embedding table, as they are",
            "words": f"of {source.name}: single pieces of its tokenizer, no function words, the lowest numbers",
            "among_hash": source.hash,
        },
        "built_with": f"python -m icl_vision.exporters.table_codebook --words {words}",
    }
    rows = table.detach().numpy().astype(np.float32)
    return Codebook(Vocabulary(chosen, name=name), rows, name=name).save(out, card=card)


def build_whole_codebook(
    out: str | Path, *, text_encoder: str, name: str, licence: str = "unknown", origin: str | None = None
) -> Codebook:
    """Every row of a text encoder's table, in its order, and write the codebook folder with its card.

    Args, errors: see ``build_table_codebook``.

    Returns:
        The codebook as read back from ``out``; its card says ``"rows": "all"``.
    """
    table = MaskedTextEncoder.load(text_encoder, layers=0).table
    words = _row_names(piece_names(text_encoder), len(table))
    card = {
        "licence": licence,
        "rows": ALL_ROWS,
        "provenance": {
            "text_encoder": origin or Path(text_encoder).name,
            "vectors": "its whole word-embedding table, as it is",
            "words": "what its tokenizer calls each row, special tokens and continuations among them",
        },
        "built_with": "python -m icl_vision.exporters.table_codebook --all",
    }
    rows = table.detach().numpy().astype(np.float32)
    return Codebook(Vocabulary(words, name=name), rows, name=name).save(out, card=card)


def _row_names(pieces: Mapping[int, str], rows: int) -> list[str]:
    """A word for every row: its piece, or its number where that is none or cannot be a word."""
    names: dict[str, None] = {}
    for row in range(rows):
        piece = pieces.get(row, "")
        try:
            Vocabulary([piece])
        except VocabularyError:
            piece = ""
        names[piece if piece and piece not in names else f"<row-{row}>"] = None
    return list(names)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m icl_vision.exporters.table_codebook", description=__doc__)
    parser.add_argument("--source", required=True, help='"minilm", a folder that transformers saved, or a hub name')
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--name", help="name of the codebook (default: that of the folder)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--words", type=int, default=WORDS, help="how many words (default %(default)s)")
    which.add_argument("--all", action="store_true", help="every row of the table, as the paper's repository has it")
    parser.add_argument("--licence", default="unknown", help="of the text encoder, for the card")
    parser.add_argument("--origin", help="what the card says of where the text encoder is from (default: the source)")
    given = parser.parse_args(arguments)
    common = {
        "text_encoder": given.source, "name": given.name or given.out.name, "licence": given.licence,
        "origin": given.origin,
    }  # fmt: skip
    try:
        if given.all:
            codebook = build_whole_codebook(given.out, **common)
        else:
            codebook = build_table_codebook(given.out, words=given.words, **common)
    except IclVisionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{codebook.name}: {len(codebook)} words in {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
