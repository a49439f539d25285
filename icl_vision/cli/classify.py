"""`icl-vision classify`: images against a folder of labelled examples.

Knows: folders as labels, and how results read. Refuses to know: how an image is classified.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    Sampling,
    expand,
    json_option,
    llm_option,
    print_json,
    progress_wanted,
    quiet_option,
    sampling_options,
    say,
    seed_option,
    taken_by_name,
    tokenizer_option,
)
from icl_vision.cli.options.runs import RunOptions, run_options
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.contracts import Classification


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMG...", type=click.Path(path_type=Path))
@click.option(
    "--support",
    required=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Labelled examples: one sub-folder for each class, named as the class, with its images.",
)
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    help="Words per image. Default: the tokenizer's own number, the one its card's figures were measured with.",
)
@tokenizer_option()
@sampling_options
@llm_option()
@click.option(
    "--shots",
    type=click.IntRange(min=1),
    help="At most so many examples of each class are shown. Default: all, since more examples rarely hurt.",
)
@click.option(
    "--selection",
    type=click.Choice(["all", "random", "nearest"]),
    default="all",
    show_default=True,
    help="Which examples are shown, if --shots leaves some out: the first, a seeded draw, or those with words closest "
    "to the image's. The first two share one prompt, which an LLM's prefix cache makes cheap.",
)
@click.option(
    "--scoring",
    type=click.Choice(["auto", "channel", "direct", "constrained", "parse"]),
    default="auto",
    show_default=True,
    help="How the label is read off the LLM; auto takes the best that it offers.",
)
@click.option(
    "--ensemble",
    type=click.Choice(["auto", "examples", "none"]),
    default="auto",
    show_default=True,
    help="With channel scoring. examples: each example in a prompt of its own, each word scored by itself, the most "
    "accurate for a small LLM; none: all examples in one prompt. auto: examples where many words after one prompt cost "
    "little more than one (local, a llama.cpp server); elsewhere each word would be a request.",
)
@click.option(
    "--calibration",
    type=click.Choice(["none", "contextual"]),
    default="none",
    show_default=True,
    help="contextual: take off what the prompt alone says of each label. Off because noisy-channel scoring, which auto "
    "prefers, needs it less than it costs.",
)
@click.option(
    "--probabilities",
    type=click.Choice(["calibrated", "raw"]),
    default="calibrated",
    show_default=True,
    help="calibrated: as sure as the answers turn out right, where a map is known (local with the packaged prompts and "
    "tokenizers); elsewhere, and with raw, the LLM's own, which are mostly far too sure. Labels are the same.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many times more the examples are shown; 0 keeps the prompt short.",
)
@click.option(
    "--induction/--no-induction",
    default=True,
    show_default=True,
    help="Name the labels in the prompt's first line, so that the LLM knows what it may answer.",
)
@click.option("--template", default="classification", show_default=True, help="Prompt template, by name.")
@click.option(
    "--templates",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your own templates, looked in first. Default: the packaged ones only.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Requests to the LLM at the same time; a provider that says 429 is asked less often all by itself.",
)
@run_options
@seed_option()
@json_option
@quiet_option
def command(
    images: tuple[Path, ...],
    support: Path,
    k: int | None,
    tokenizer: str,
    sampling: Sampling,
    llm: str,
    shots: int | None,
    selection: str,
    scoring: str,
    ensemble: str,
    calibration: str,
    probabilities: str,
    repeats: int,
    induction: bool,
    template: str,
    templates: Path | None,
    concurrency: int,
    run: RunOptions,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify images from a folder of labelled examples.

    Each sub-folder of --support is a class. Prints, for every IMG (a file, or a folder of images), its label, how
    probable it is (~ before a raw per cent, which is not calibrated), and the words that the LLM saw. An image that
    cannot be used is reported and the others go on; the exit status is then 1.

    With --out every answer is journalled in a run folder as soon as it is there; the same command with --resume goes on
    after a stop of any kind and asks only what is missing.
    """
    from icl_vision.tasks.inputs import read_classes

    takes = taken_by_name(tokenizer)
    sources, labels = read_classes(support, "--support", takes)
    targets = expand(images, takes)
    from icl_vision.llms.word_tables import word_tables
    from icl_vision.tasks import FewShotClassifier

    parts = run.connect(llm, tokenizer, sampling.of(tokenizer))
    classifier = FewShotClassifier(
        parts.llm,
        parts.tokenizer,
        k,
        shots=shots,
        repeats=repeats,
        induction=induction,
        selection=selection,  # type: ignore[arg-type]  # click.Choice saw to it
        scoring=scoring,  # type: ignore[arg-type]  # click.Choice saw to it
        ensemble=None if ensemble == "none" else ensemble,  # type: ignore[arg-type]  # click.Choice saw to it
        calibration=None if calibration == "none" else calibration,  # type: ignore[arg-type]  # click.Choice saw to it
        probabilities=probabilities,  # type: ignore[arg-type]  # click.Choice saw to it
        order_seed=seed,
        template=template,
        templates=templates,
        errors="return",
        concurrency=concurrency,
        progress=progress_wanted(quiet),
    )
    of = counted(len(set(labels)), "class", "classes")
    say(f"{counted(len(sources), 'example')} of {of} in {support}", quiet=quiet)
    with word_tables("off"):  # whether learning the examples pays is known when the images are
        classifier.fit(sources, labels)
    with word_tables("on" if run.cache else "off"):
        if run.dry_run:
            run.show_plan(classifier, targets, as_json=as_json)
            return
        if run.out is None:
            results = classifier.classify(targets)
            rows = [_row(path, result) for path, result in zip(targets, results, strict=True)]
        else:
            outcome = run.classify(classifier, targets, quiet=quiet)
            rows = [{key: value for key, value in row.items() if key != "text"} for row in outcome.rows]
    parts.report(quiet=quiet)
    if as_json:
        print_json(rows)
    else:
        click.echo(_table(rows))
    failed = [row for row in rows if "error" in row]
    for row in failed:
        # A failure is no remark: --quiet keeps it.
        say(f"{row['image']}: {row['error']}")
    if failed:
        raise click.exceptions.Exit(1)


def _row(path: Path, result: Classification) -> dict[str, Any]:
    row = {"image": str(path)}
    known = result.to_dict()
    row.update({key: known[key] for key in ("label", "probabilities", "words", "method", "calibrated")})
    if result.error is not None:
        row["error"] = known["error"]
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    """One line an image: path, label, its probability in percent (if known), words."""
    cells = []
    for row in rows:
        if "error" in row:
            label, share = "failed", ""
        else:
            label = row["label"] if row["label"] is not None else "unknown"
            share = "" if row["probabilities"] is None else f"{100 * row['probabilities'][row['label']]:.0f}%"
            # A raw share is no per cent of anything that will turn out right.
            share = share if row["calibrated"] or not share else f"~{share}"
        words = " / ".join(" ".join(layer) for layer in row["words"])
        cells.append((row["image"], label, share, words if len(words) <= 100 else words[:97] + "..."))
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    return "\n".join(
        f"{image:<{widths[0]}}  {label:<{widths[1]}}  {share:>{widths[2]}}  {words}".rstrip()
        for image, label, share, words in cells
    )
