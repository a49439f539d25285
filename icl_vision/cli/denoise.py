"""`icl-vision denoise`: restore pictures with a text LLM.

Knows: the command's options, where files go and what is printed. Refuses to know: how a picture is restored.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    Sampling,
    bar,
    expand,
    json_option,
    kept,
    print_json,
    quiet_option,
    sampling_options,
    say,
    seed_option,
    tokenizer_for,
    try_out,
)
from icl_vision.cli.options.denoising import EVERY_TASK, denoising_options
from icl_vision.errors import UsageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.tasks.denoise.fitted import DenoisedImage


@click.command("denoise")
@click.argument("images", nargs=-1, required=True, metavar="IMG...", type=click.Path(path_type=Path))
@click.option(
    "--task",
    required=True,
    type=click.Choice(EVERY_TASK),
    help="What is done to each picture and undone by the LLM; prediction and filling are of clips, with a tokenizer "
    "that takes them.",
)
@click.option(
    "--context",
    "context",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Intact pictures for the examples, like those to restore and none of them. Needed for --protocol leak-free.",
)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where pictures, words and results.json go; every segment is kept there as soon as it is answered.",
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Words asked for at a time in the upper layers. Default: a row of the layer's grid, the fewest requests that "
    "still go step by step.",
)
@click.option(
    "--as-is",
    is_flag=True,
    help="The pictures are degraded already, in the task's way: do not degrade them first. Leak-free only.",
)
@click.option("--resume", is_flag=True, help="Go on with what is in --out. Same pictures, same options.")
@click.option("--dry-run", is_flag=True, help="Print the plan only: requests, tokens, time, who decides which words.")
@sampling_options
@denoising_options
@seed_option()
@json_option
@quiet_option
def command(
    images: tuple[Path, ...],
    task: str,
    context: Path | None,
    out: Path,
    stride: int | None,
    as_is: bool,
    resume: bool,
    dry_run: bool,
    sampling: Sampling,
    tokenizer: str,
    llm: str,
    protocol: str,
    layers: int | None,
    window: str,
    refine: str | None,
    examples: int,
    corruption: tuple[float, float],
    allowed: str | None,
    most_uses: int | None,
    guidance: float | None,
    max_tokens: int | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Restore pictures from part of them, or from a degraded copy, with a frozen text LLM.

    Each IMG (a file, or a folder of images) is degraded as --task says, and the LLM is asked for the words of the
    intact picture. Written for each: NAME.png, decoded from those words; NAME-condition.png, what the LLM was shown;
    and where only a part was missing NAME-merged.png, the shown picture with that part filled in. The plan is printed
    first. Clips, with a tokenizer that takes them, are written as animations (.webp).
    """
    from icl_vision.files.storage import write_json
    from icl_vision.tasks.denoise.denoiser import ImageDenoiser
    from icl_vision.tasks.denoise.fitted import LEAK
    from icl_vision.tokenizers.taking import taken_by

    if protocol == "leak-free" and context is None:
        raise click.UsageError("--protocol leak-free needs --context DIR, a folder of other intact pictures")
    if (out / "results.json").exists() and not (resume or dry_run):
        raise UsageError(f"{str(out)!r} already holds results; choose another folder, or --resume")
    if not dry_run:
        try_out(out, folder=True)
    loaded = tokenizer_for(tokenizer, None, sampling)
    takes = taken_by(loaded)
    targets = expand(images, takes)
    denoiser = ImageDenoiser(
        llm,
        loaded,
        task,
        protocol=protocol,  # type: ignore[arg-type]  # click.Choice saw to it
        layers=layers,
        stride=stride or "rows",
        window=window,  # type: ignore[arg-type]  # click.Choice saw to it
        refine=refine,  # type: ignore[arg-type]  # click.Choice saw to it
        context=examples,
        corruption=corruption,
        allowed=allowed,  # type: ignore[arg-type]  # click.Choice saw to it
        guidance=guidance,
        most_uses=most_uses,
        degrade=not as_is,
        max_tokens=max_tokens,
        errors="return",
        seed=seed,
    )
    denoiser.fit(takes.listed(context) if context is not None and protocol == "leak-free" else ())
    names = _names(targets)
    puzzles = denoiser.puzzles(targets, names)
    plan = denoiser.plan_of(puzzles)
    if dry_run:
        print_json(plan.to_dict()) if as_json else click.echo(str(plan))
        return
    say(str(plan), quiet=quiet)
    if denoiser.leaking:
        say(f"LEAKING: {LEAK}", quiet=quiet)
    with kept(out, quiet=quiet), bar(plan.inquiries, "segment", quiet=quiet) as done:
        results = denoiser.solve(puzzles, out=out, resume=resume, watch=lambda _: done())
    rows = [_written(restored, out, path) for restored, path in zip(results, targets, strict=True)]
    document = {"plan": plan.to_dict(), "leaking": LEAK if denoiser.leaking else "", "images": rows}
    write_json(out / "results.json", document)
    if as_json:
        print_json(document)
    else:
        click.echo("\n".join(_line(row) for row in rows))
    failed = [row for row in rows if row["error"]]
    for row in failed:
        say(f"{row['image']}: {row['error']}")
    if failed:
        raise click.exceptions.Exit(1)


def _names(targets: list[Path]) -> list[str]:
    """A short name for each picture, its own: the file's, with a number where several share it."""
    names: list[str] = []
    for path in targets:
        stem = re.sub(r"[^\w.-]+", "-", path.stem) or "image"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _written(restored: DenoisedImage, out: Path, path: Path) -> dict[str, Any]:
    """Write a picture's files; its entry in the results."""
    from icl_vision.clips import save_clip
    from icl_vision.files.storage import atomic_path

    files: dict[str, str] = {}
    for kind, made in _made(restored).items():
        file = out / (restored.puzzle.name + (f"-{kind}" if kind else "") + (".webp" if restored.is_clip else ".png"))
        if isinstance(made, list):
            save_clip(made, file)
        else:
            with atomic_path(file) as temporary:
                made.save(temporary, format="PNG")
        files[kind or "restored"] = file.name
    return {"image": str(path), "files": files, **restored.to_dict()}


def _made(restored: DenoisedImage) -> dict[str, Any]:
    """What there is to write, by kind: pictures, or of clips lists of frames."""
    clip = restored.is_clip
    made: dict[str, Any] = {"condition": restored.clip_condition if clip else restored.condition}
    if restored.decoded is not None:
        made[""] = restored.clip if clip else restored.image
        if restored.puzzle.query.known:
            made["merged"] = restored.clip_merged if clip else restored.merged
    return made


def _line(row: dict[str, Any]) -> str:
    usage = row["usage"]
    tokens = counted(usage["prompt_tokens"] + usage["completion_tokens"], "token")
    return (
        f"{row['image']}: {row['files'].get('restored', 'failed')}, {counted(usage['requests'], 'request')}, {tokens}, "
        f"{counted(len(row['changes']), 'repair')}"
    )
