"""`icl-vision build`: tokenizers of one's own, their codebooks and heads.

Knows: options and what is reported. Refuses to know: how anything is built; the torch side is imported only when a
build starts.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from icl_vision.cli.options.common import (
    bar,
    json_option,
    print_json,
    quiet_option,
    say,
    seed_option,
    try_out,
)
from icl_vision.errors import MissingExtraError, UsageError, VocabularyError
from icl_vision.llms.redaction import redacted_url
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.vocabulary import Vocabulary


@click.group(name="build")
def command() -> None:
    """Build a tokenizer of your own, its codebook, or the words that it may say."""


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
    try_out(out, folder=True)
    vocabulary = _vocabulary(words_file, vocabulary_folder)
    out = out.absolute()
    # importlib: exporters/ lies outside the package folder and type checkers cannot follow the mapping
    exporter = _import("icl_vision.exporters.words")
    words = counted(len(vocabulary), "word")
    say(f"embedding {words} and exporting {encoder} (minutes for a large model)", quiet=quiet)
    extra = {"templates": templates} if templates else {}
    card = exporter.build_clip_words(encoder, out, vocabulary=vocabulary, licence=licence, **extra)
    if as_json:
        print_json({"out": str(out), "codebook": str(out.parent / card["codebook"]["name"]), "card": card})
        return
    parity = card["metrics"]["parity"]
    click.echo(f"{card['name']}: {out}\ncodebook: {out.parent / card['codebook']['name']}")
    click.echo(
        f"parity with torch: {counted(parity['ids'], 'id')}, "
        f"{counted(parity['mismatches'], 'mismatch', 'mismatches')}, {counted(parity['ties'], 'tie')} "
        f"on {counted(parity['images'], 'image')} at batches {', '.join(map(str, parity['batches']))}"
    )


@command.command("codebook")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="SOURCE",
    help="Where the vectors come from: portable-minilm (sentence embeddings by the installed all-MiniLM-L6-v2), "
    "gguf:PATH (an LLM's input embeddings), transformers:NAME_OR_FOLDER (the same), or embeddings:MODEL[@URL] (an "
    "OpenAI-like embeddings endpoint; without URL OpenAI's own, key in OPENAI_API_KEY; with one, key in "
    "OPENAI_COMPATIBLE_API_KEY).",
)
@click.option(
    "--words",
    "words_file",
    default="portable",
    show_default=True,
    metavar="FILE|portable",
    help="The words, one a line. The default costs one token a word in every common LLM.",
)
@click.option(
    "--dim",
    type=click.IntRange(min=1),
    metavar="N",
    help="Project the vectors onto their N strongest axes; the card then says which share of each word's neighbours "
    "stayed. Default: no projection, nothing is lost. 128 keeps an artefact small (the packaged codebook has it).",
)
@click.option(
    "--several-tokens",
    type=click.Choice(["refuse", "mean"]),
    default="refuse",
    show_default=True,
    help="Words that are several tokens of the LLM: stop, or take the mean of their tokens' vectors. An LLM reads the "
    "tokens, not their mean, hence the default. For gguf and transformers.",
)
@click.option(
    "--template",
    default="{}",
    show_default=True,
    metavar="TEXT",
    help="Text a word is embedded in, {} standing for the word. For portable-minilm and embeddings; the bare word is "
    "what the packaged codebook embeds.",
)
@click.option(
    "--batch", "batch_size", default=512, show_default=True, type=click.IntRange(1, 2048), metavar="N",
    help="Words a request, for embeddings: OpenAI takes 2,048 at most, smaller servers fewer.",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="The codebook's name on its card. Default: the folder's name.")
@click.option(
    "--licence",
    metavar="TEXT",
    help="Licence of the vectors, for the card. Default: what the source says, 'unknown' where it says nothing.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The codebook's folder; an older codebook there is replaced.",
)
@seed_option()
@json_option
@quiet_option
def codebook_command(
    source: str,
    words_file: str,
    dim: int | None,
    several_tokens: str,
    template: str,
    batch_size: int,
    name: str | None,
    licence: str | None,
    out: Path,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a codebook: words and one vector a word, the alphabet of a tokenizer that is to be trained.

    It is used by its folder wherever a codebook is named, in a training config for one. Needs the extra 'train'; for
    gguf also 'local', whose llama.cpp applies the file's tokenizer.
    """
    try_out(out, folder=True)
    vocabulary = _vocabulary(None if words_file == "portable" else Path(words_file), None)
    # importlib: exporters/ lies outside the package folder and type checkers cannot follow the mapping
    builder = _import("icl_vision.exporters.word_codebook")
    say(f"looking up {counted(len(vocabulary), 'word')} in {redacted_url(source)}", quiet=quiet)
    options = {"several": several_tokens, "template": template, "batch_size": batch_size}
    found, queries = builder.find_vectors(source, vocabulary.words, **options)
    book = builder.build_codebook(
        found, vocabulary, out, dimension=dim, queries=queries, name=name, licence=licence, seed=seed
    )
    if as_json:
        print_json({"out": str(out.absolute()), "card": dict(book.card)})
        return
    metrics = book.card["metrics"]
    click.echo(f"{book.name}: {counted(len(book), 'word')} of width {book.dimension} in {out.absolute()}")
    if metrics["overlap@5"] is not None:
        click.echo(
            f"kept of each word's neighbours: {metrics['overlap@5']:.0%} of 5, {metrics['overlap@10']:.0%} of 10"
        )
    if "use" in book.card:
        click.echo(book.card["use"])


@command.command("describe")
@click.option(
    "--captions",
    "sources",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="ARCHIVE|FOLDER",
    help="Captioned pictures: a tar archive or folder with captions.jsonl (file, captions) or COCO's index.json; may "
    "be repeated. Pictures that have questions beside captions are kept for testing.",
)
@click.option(
    "--terms",
    multiple=True,
    metavar="TEXT",
    help="Terms of use of a --captions, in the same order, for the card. Default: it says that they are unknown.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The tokenizer's folder. Weights, words and figures of the heads go beside it, into DIR-heads.",
)
@click.option(
    "--least",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Pictures whose captions must hold a word; rarer ones are not learnt.",
)
@seed_option()
@json_option
@quiet_option
def describe_command(
    sources: tuple[Path, ...],
    terms: tuple[str, ...],
    out: Path,
    least: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a describe-photo whose words are those of your captions.

    The pictures are seen once by the frozen trunk; a linear head learns which words people say of them, and every
    probability is calibrated and measured on pictures that its fit did not see. The result is used by its folder:
    icl-vision tokenize IMG --tokenizer DIR. Needs the extra 'train'.
    """
    try_out(out, folder=True)
    out = out.absolute()
    heads = out.with_name(f"{out.name}-heads")
    trainer = _import("icl_vision.training.said.build")
    # importlib: exporters/ lies outside the package folder and type checkers cannot follow the mapping
    exporter = _import("icl_vision.exporters.describe")
    exporter.artefact.check_replaceable(out, kind=exporter.KIND)
    try_out(heads, folder=True)
    captioned = trainer.read(sources, terms)
    say(f"looking at {counted(len(captioned), 'captioned picture')}; then six fits (minutes)", quiet=quiet)
    with bar(len(captioned), "picture", quiet=quiet) as told:
        trained = trainer.train_photo(captioned, seed=seed, least=least, told=told)
    trained.save(heads)
    say("exporting, and comparing the graph with its modules", quiet=quiet)
    card = exporter.build_describe_photo(
        out, heads / trainer.WEIGHTS_FILE, heads / trainer.SAID_FILE, facts=heads / trainer.FACTS_FILE
    )
    if as_json:
        print_json({"out": str(out), "heads": str(heads), "card": card})
        return
    click.echo(f"{card['name']}: {out}\nheads: {heads}")
    click.echo(f"{counted(len(trained.said), 'word')}, on pictures that were left out of the fit:")
    figures = trained.facts["metrics"]
    for name, rows in figures["said"]["precision"].items():
        shares = ", ".join(
            f"{first} words {row['mean']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]"
            for first, row in rows.items()
        )
        n = next(iter(rows.values()))["n"]
        click.echo(f"  in the picture's own captions, {name} (n = {n}): {shares}")
    for part in ("said", "what", "where"):
        error = figures[part]["reliability"]["error"]
        click.echo(f"  expected calibration error of {part}: {error:.3f}")


def _vocabulary(words_file: Path | None, folder: Path | None) -> Vocabulary:
    from icl_vision.codebook import Codebook
    from icl_vision.files.reading import read_text
    from icl_vision.vocabulary import MOST_WORDS, Vocabulary

    if words_file is not None and folder is not None:
        raise click.UsageError("--words and --vocabulary exclude each other; give one of them")
    if folder is not None:
        return Vocabulary.load(folder)
    if words_file is None:
        return Codebook.load().vocabulary
    try:
        lines = read_text(words_file, most=MOST_WORDS).splitlines()
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
