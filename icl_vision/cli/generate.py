"""`icl-vision generate`: draw pictures from texts with a text LLM.

Knows: the command's options, where files go and what is printed. Refuses to know: how a picture is drawn.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    Sampling,
    bar,
    force_option,
    json_option,
    kept,
    print_json,
    quiet_option,
    sampling_options,
    say,
    taken_by_name,
    tokenizer_for,
    try_out,
)
from icl_vision.cli.options.generation import budget_options, drawing_options
from icl_vision.clips.saving import SAVED_SUFFIXES, save_clip
from icl_vision.errors import UsageError
from icl_vision.tasks.draw.examples import TEXT, TEXT_OF_CLIPS
from icl_vision.wording import counted

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.tasks.draw.session import GeneratedImage, Preview

ATTRIBUTION = "The packaged digits are MNIST's (Y. LeCun, C. Cortes, C. J. C. Burges), CC BY-SA 3.0."
PAGE = "drawings.html"
PART = ".part"
"""Ending of the folder that keeps the answers of a single picture until that is written."""


@click.command("generate")
@click.option(
    "--examples",
    required=True,
    metavar="DIR|digits",
    help="Pictures with their texts: 'digits' (100 packaged ones), or a folder: with captions.jsonl (lines of "
    '{"file", "text"}), or with a sub-folder for each kind, or with files named by what they show.',
)
@click.option(
    "--query",
    "queries",
    required=True,
    multiple=True,
    metavar="TEXT",
    help="What to draw, such as 'an image of 3'. Repeat it for several: ten at once take far less than ten times as "
    "long as one.",
)
@click.option(
    "--out",
    required=True,
    metavar="DIR|PNG",
    type=click.Path(path_type=Path),
    help="A .png file, for one picture: exactly the decoded pixels; until it is there its answers are kept in "
    f"FILE.png{PART}. Or a folder: a .png and an animated preview (.gif) "
    f"of each, {PAGE}, results.json, and every answer as soon as it is there, so that --resume can go on. Of a "
    "tokenizer of clips: a .webp, .gif, .png or .apng that moves, or a folder with a .webp of each.",
)
@click.option(
    "--text",
    default=TEXT,
    show_default=f"{TEXT}; of clips {TEXT_OF_CLIPS}",
    metavar="TEXT",
    help="Text of an example that is named by its folder or file; {} stands for that name. The papers' preamble.",
)
@click.option(
    "-n",
    "--n",
    "count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Pictures of each text. More than one are sampled: without --temperature at 0.5.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run in --out. Same options; in a folder queries may be added."
)
@click.option("--dry-run", is_flag=True, help="Print the plan only: segments, tokens, time, cost. Nothing is asked.")
@sampling_options
@drawing_options
@budget_options
@force_option
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    examples: str,
    queries: tuple[str, ...],
    out: Path,
    text: str,
    count: int,
    resume: bool,
    dry_run: bool,
    sampling: Sampling,
    drawing: dict[str, Any],
    budget: dict[str, Any],
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw pictures, or clips, from texts, through words, with a frozen text LLM.

    The LLM is shown example pictures as words, each with its text, and asked for the words of a new picture, a segment
    at a time; the tokenizer turns them into pixels. The plan is printed first.
    """
    from icl_vision.tasks.draw.examples import read_examples
    from icl_vision.tasks.draw.generator import ImageGenerator

    takes = taken_by_name(drawing["tokenizer"])
    clips = takes.one == "clip"
    if clips and ctx.get_parameter_source("text") is click.core.ParameterSource.DEFAULT:
        text = TEXT_OF_CLIPS
    single = out.suffix.lower() in (SAVED_SUFFIXES if clips else (".png",))
    if not dry_run:
        try_out(out, folder=not single, force=force, instead="or a .png file, for one picture: its exact pixels")
    if single and (len(queries) > 1 or count > 1):
        raise click.UsageError(f"--out {out} is one picture; give a folder for {len(queries)} queries, {count} of each")
    if count > 1 and not drawing["temperature"]:
        drawing["temperature"] = 0.5
    pairs = read_examples(examples, text, takes)
    if sampling:
        drawing["tokenizer"] = tokenizer_for(drawing["tokenizer"], None, sampling)
    generator = ImageGenerator(**drawing, **budget, errors="return")
    generator.fit([pair.path for pair in pairs], [pair.text for pair in pairs])
    plan = generator.plan(queries, count)
    seconds = plan.seconds() if generator.llm_.profile.embedded else None
    if dry_run:
        if as_json:
            print_json(plan.to_dict() | {"seconds_estimate": seconds})
        else:
            click.echo(_plan(plan, seconds))
        return
    say(_plan(plan, seconds), quiet=quiet)
    frames: dict[int, list[Image.Image]] = {}
    started = time.monotonic()

    def watch(preview: Preview) -> None:
        frames.setdefault(preview.query, []).append(preview.image)
        done()

    # A single picture's answers are kept beside it until it is there.
    run = out.with_name(out.name + PART) if single else out
    with kept(run, quiet=quiet), bar(len(plan.passes) * len(queries) * count, "segment", quiet=quiet) as done:
        results = generator.generate(queries, count, out=run, resume=resume, watch=watch)
    elapsed = time.monotonic() - started
    if single:
        _save(results[0], out)
        rows = [_row(results[0], out)]
        if not results[0].error:
            shutil.rmtree(run, ignore_errors=True)
    else:
        rows = _folder(results, frames, out, elapsed, clips=clips)
    if as_json:
        print_json({"plan": plan.to_dict(), "seconds": elapsed, "images": rows})
    else:
        click.echo("\n".join(_line(row) for row in rows))
        say(f"{len(rows)} drawn in {elapsed:.0f} s" + ("" if single else f"; see {out / PAGE}"), quiet=quiet)
    failed = [row for row in rows if row["error"]]
    for row in failed:
        say(f"{row['text']}: {row['error']}")
    if failed:
        say(f"what was answered is kept in {run}; --resume goes on from there", quiet=quiet)
        raise click.exceptions.Exit(1)


def _plan(plan: Any, seconds: float | None) -> str:
    expected = "unknown (it depends on the provider)" if seconds is None else f"about {seconds:,.0f} s on two cores"
    return f"{plan}\ntime                {expected}"


def _save(drawn: GeneratedImage, target: Path) -> None:
    from icl_vision.files.storage import atomic_path

    if drawn.image is None:
        return
    if drawn.frames:
        save_clip(drawn.frames, target)
        return
    with atomic_path(target) as temporary:
        drawn.image.save(temporary, format="PNG")


def _folder(
    results: list[GeneratedImage], frames: dict[int, list[Image.Image]], out: Path, seconds: float, *, clips: bool
) -> list[dict[str, Any]]:
    """Pictures, previews, the page and results.json."""
    from icl_vision.files.storage import write_json
    from icl_vision.viz.drawing_page import DrawingPage, DrawingTile, write_gif, write_page

    rows, tiles = [], []
    for index, (drawn, name) in enumerate(zip(results, file_names(results), strict=True)):
        target = out / f"{name}.{'webp' if clips else 'png'}"
        _save(drawn, target)
        if drawn.image is not None:
            moving = list(drawn.frames) or frames.get(index) or [drawn.image]
            if not clips:
                write_gif(out / f"{name}.gif", moving)
            usage = drawn.usage
            note = f"{counted(usage.requests, 'request')}, {counted(usage.prompt_tokens, 'prompt token')}, "
            note += counted(len(drawn.changes), "repair")
            layers = [] if drawn.pyramid is None else [drawn.pyramid.words(n + 1) for n in range(drawn.pyramid.layers)]
            tiles.append(DrawingTile(drawn.text, drawn.image, moving, layers, note, clip=clips))
        rows.append(_row(drawn, target))
    write_page(out / PAGE, DrawingPage("Drawn by a text LLM, word by word", tiles, {"seconds": f"{seconds:.0f}"},
                                       "" if clips else ATTRIBUTION))  # fmt: skip
    write_json(out / "results.json", {"seconds": seconds, "images": rows})
    return rows


def file_names(results: list[GeneratedImage]) -> list[str]:
    """A file's name for each picture, from its text; letters of other scripts stay."""
    names: list[str] = []
    for drawn in results:
        base = re.sub(r"[^\w]+", "-", drawn.text.lower()).strip("-_")[:60] or "drawing"
        name = base if drawn.number == 1 else f"{base}-{drawn.number}"
        again = 1
        while name in names:
            again += 1
            name = f"{base}-{drawn.number}-{again}"
        names.append(name)
    return names


def _row(drawn: GeneratedImage, target: Path) -> dict[str, Any]:
    if drawn.image is None and not drawn.error:
        raise UsageError(f"the drawing of {drawn.text!r} has neither a picture nor an error")  # cannot be
    return {"file": None if drawn.image is None else str(target), **drawn.to_dict()}


def _line(row: dict[str, Any]) -> str:
    done = "failed" if row["error"] else row["file"]
    return f"{done}  {row['text']}  {counted(len(row['changes']), 'repair')}"
