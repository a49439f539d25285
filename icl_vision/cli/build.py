"""`icl-vision build`: tokenizers of one's own.

Knows: options and what is reported. Refuses to know: how anything is built; the torch side is imported only when a
build starts.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icl_vision.cli.common import json_option, print_json, quiet_option, say
from icl_vision.errors import MissingExtraError, UsageError, VocabularyError

if TYPE_CHECKING:
    from icl_vision.vocabulary import Vocabulary


@click.group(name="build")
def command() -> None:
    """Build a tokenizer of your own."""


@command.command("words")
@click.option(
    "--encoder",
    required=True,
    metavar="NAME|FOLDER",
    help="A CLIP or SigLIP model: a folder that transformers saved, or a hub name (transformers downloads that).",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The tokenizer's folder; its codebook goes beside it, into DIR-codebook. Keep the two together.",
)
@click.option(
    "--words",
    "words_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Your own words, one a line. Default: the packaged portable words, a single token in every common LLM.",
)
@click.option(
    "--vocabulary",
    "vocabulary_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A saved vocabulary or codebook folder, instead of --words.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help="Text a word is embedded in, with one {} for the word; may be repeated, the mean counts. "
    "Default: '{}' and 'a photo of a {}.', as CLIP was trained on captions.",
)
@click.option("--licence", default="unknown", show_default=True, help="Licence of the model's weights, for the card.")
@json_option
@quiet_option
def words_command(
    encoder: str,
    out: Path,
    words_file: Path | None,
    vocabulary_folder: Path | None,
    templates: tuple[str, ...],
    licence: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a words tokenizer of a CLIP-like model: an image becomes its nearest words in the joint space.

    The result is used by its folder: icl-vision tokenize IMG --tokenizer DIR. Needs the extra 'train'.
    """
    vocabulary = _vocabulary(words_file, vocabulary_folder)
    out = out.absolute()
    # importlib: exporters/ lies outside the package folder and type checkers cannot follow the mapping
    exporter = _import("icl_vision.exporters.words")
    say(f"embedding {len(vocabulary)} words and exporting {encoder} (minutes for a large model)", quiet=quiet)
    extra = {"templates": templates} if templates else {}
    card = exporter.build_clip_words(encoder, out, vocabulary=vocabulary, licence=licence, **extra)
    if as_json:
        print_json({"out": str(out), "codebook": str(out.parent / card["codebook"]["name"]), "card": card})
        return
    parity = card["metrics"]["parity"]
    click.echo(f"{card['name']}: {out}\ncodebook: {out.parent / card['codebook']['name']}")
    click.echo(
        f"parity with torch: {parity['ids']} ids, {parity['mismatches']} mismatches, {parity['ties']} ties "
        f"on {parity['images']} images at batches {', '.join(map(str, parity['batches']))}"
    )


def _vocabulary(words_file: Path | None, folder: Path | None) -> Vocabulary:
    from icl_vision.codebook import Codebook
    from icl_vision.vocabulary import Vocabulary

    if words_file is not None and folder is not None:
        raise click.UsageError("--words and --vocabulary exclude each other; give one of them")
    if folder is not None:
        return Vocabulary.load(folder)
    if words_file is None:
        return Codebook.load().vocabulary
    try:
        lines = words_file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"the words file {str(words_file)!r} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"the words file {str(words_file)!r} is not UTF-8 text ({error.reason})") from error
    return Vocabulary([line.strip() for line in lines if line.strip()], name=words_file.stem)


def _import(module: str):  # type: ignore[no-untyped-def]  # a module is an object of any attributes
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in ("torch", "onnx", "onnxscript", "transformers"):
            raise MissingExtraError(f"building a tokenizer ({error.name})", "train") from error
        raise
