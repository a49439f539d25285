"""`icl-vision eval denoising`: how well an LLM restores pictures, beside what needs none.

Knows: the command's options, run folders, the table. Refuses to know: how anything is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    bar,
    json_option,
    kept,
    print_json,
    quiet_option,
    say,
    seed_option,
    try_out,
)
from icl_vision.cli.options.denoising import CLIP_TASK_NAMES, EVERY_TASK, TASK_NAMES, denoising_options
from icl_vision.errors import BudgetExceededError, IclVisionError, UsageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.drawing.stages import Stride
    from icl_vision.evaluation.denoising.evaluation import DenoisingEvaluation
    from icl_vision.evaluation.kit.pictures import Picture


def _strides(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[Stride, ...]:
    strides: list[Stride] = []
    for value in values:
        if value != "rows" and not (value.isdecimal() and int(value) > 0):
            raise click.BadParameter(f"{value!r} is neither a number of words nor 'rows'")
        strides.append("rows" if value == "rows" else int(value))
    return tuple(dict.fromkeys(strides))


@click.command("denoising")
@click.option(
    "--data",
    required=True,
    metavar="DIR|FILE.npz",
    type=click.Path(exists=True, path_type=Path),
    help="Intact pictures: a folder (searched with its subfolders), or an .npz file as MNIST's. Examples and pictures "
    "to restore are drawn from it by --seed, none twice. For a tokenizer of clips: a .tar or folder of clips, of whose "
    "parts the test one is taken, or an .npz file of digits, which are made to move.",
)
@click.option(
    "--context",
    metavar="DIR|FILE.npz",
    type=click.Path(exists=True, path_type=Path),
    help="Take the examples from here instead. Default: from --data, of clips that have parts from the training one.",
)
@click.option(
    "--tasks",
    "tasks",
    type=click.Choice([*EVERY_TASK, "all"]),
    multiple=True,
    default=("all",),
    show_default=True,
    help="Tasks to measure; repeat it for several. Of clips, with a tokenizer that takes them, all are prediction, "
    "filling, outpainting, inpainting, deblurring and reconstruction.",
)
@click.option("--n", "n", type=click.IntRange(min=1), default=24, show_default=True,
              help="Pictures to restore: a few dozen show differences of about 0.05 LPIPS.")  # fmt: skip
@click.option(
    "--stride",
    "strides",
    multiple=True,
    default=("rows",),
    show_default=True,
    metavar="N|rows",
    callback=_strides,
    help="Words asked for at a time in the upper layers, or rows of the layer's grid; repeat it for several.",
)
@click.option(
    "--control",
    "controls",
    type=click.Choice(["single pass", "shuffled words", "none"]),
    multiple=True,
    default=("single pass", "shuffled words"),
    show_default=True,
    help="The LLM's control rows, each about as dear as one stride; 'none' leaves them out.",
)
@click.option(
    "--lpips/--no-lpips",
    default=True,
    show_default=True,
    help="LPIPS too, where the 'train' extra and its weights are installed; else said and left out.",
)
@click.option(
    "--out",
    required=True,
    metavar="RUN",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder: every segment and every row is kept there as soon as it is there.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out. Same pictures, same options.")
@click.option("--dry-run", is_flag=True, help="Print the plan only: requests, tokens and time of every row.")
@denoising_options
@seed_option()
@json_option
@quiet_option
def command(
    data: Path,
    context: Path | None,
    tasks: tuple[str, ...],
    n: int,
    strides: tuple[Stride, ...],
    controls: tuple[str, ...],
    lpips: bool,
    out: Path,
    resume: bool,
    dry_run: bool,
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
    """Measure restored pictures: PSNR, SSIM and LPIPS on the unknown region, with baselines and paired differences.

    Baselines on the same pictures: the most frequent word of each place, the nearest example, the nearest known word,
    random words of those allowed, the condition through the tokenizer, moved back where it belongs, and as it is, and
    the intact picture through the tokenizer (a ceiling). With --json the output is what results.json of the run folder
    holds; report.html shows every picture of every row, failures included.
    """
    from icl_vision.evaluation.denoising.evaluation import DenoisingEvaluation
    from icl_vision.files.runs import Run, versions
    from icl_vision.llms.redaction import without_secrets
    from icl_vision.tokenizers import ImageTokenizer
    from icl_vision.tokenizers.wrapping import fingerprint

    if not dry_run:
        try_out(out, folder=True)
    loaded = ImageTokenizer.from_pretrained(tokenizer)
    clips = loaded.modality == "clip"
    if clips:
        shown, restored = _drawn_clips(data, context, n, examples, seed, loaded.frames)
    else:
        shown, restored = _drawn(data, context, n, examples, seed)
    settings = {
        "llm": llm, "tokenizer": loaded, "protocol": protocol, "layers": layers, "window": window, "refine": refine,
        "context": examples, "corruption": corruption, "allowed": allowed,
        "most_uses": most_uses, "guidance": guidance, "seed": seed,
    }  # fmt: skip
    notes: dict[str, str] = {}
    evaluation = DenoisingEvaluation(
        settings,
        (CLIP_TASK_NAMES if clips else TASK_NAMES) if "all" in tasks else tuple(dict.fromkeys(tasks)),
        shown,
        restored,
        strides,
        () if "none" in controls else tuple(dict.fromkeys(controls)),
        _lpips(notes) if lpips else None,
        max_tokens,
        notes,
    )
    for name, why in notes.items():
        say(f"{name}: {why}", quiet=quiet)
    plans = evaluation.plan()
    tokens, seconds = sum(plan.tokens for _, plan in plans), sum(plan.seconds() for _, plan in plans)
    if dry_run:
        rows = [{"row": cell.item, **plan.to_dict()} for cell, plan in plans]
        total = {"tokens": tokens, "seconds_estimate_local": round(seconds, 1), "max_tokens": max_tokens}
        print_json({"rows": rows, "total": total}) if as_json else click.echo(_planned(plans, tokens, seconds))
        return
    say(_planned(plans, tokens, seconds), quiet=quiet)
    if max_tokens is not None and tokens > max_tokens and not resume:
        raise BudgetExceededError(
            f"the plan needs about {tokens:,} tokens, the budget is {max_tokens:,}: fewer tasks, strides or pictures, "
            "--control none, fewer --examples, or --refine none"
        )
    config = {
        **{key: value for key, value in settings.items() if key != "tokenizer"},
        "llm": without_secrets(llm),
        "corruption": list(corruption),
        "tokenizer": fingerprint(loaded),
        "data": data.name,
        "shown": [picture.name for picture in shown],
        "restored": [picture.name for picture in restored],
        "tasks": list(evaluation.tasks),
        "strides": list(strides),
        "controls": list(evaluation.controls),
        "lpips": evaluation.perceptual is not None,
    }
    with kept(out, quiet=quiet), Run.open(out, "eval denoising", config, seed=seed, resume=resume) as run:
        _measure(evaluation, run, quiet)
        results: dict[str, Any] = {
            "format_version": 1,
            "kind": "denoising",
            "tokenizer": loaded.name,
            "llm": without_secrets(llm),
            "config": config,
            **evaluation.summary(run),
            "versions": versions(),
        }
        run.finish(results)
        _write_page(evaluation, run, results)
    if as_json:
        print_json(results)
        return
    click.echo(table(results))
    say(f"kept in {out}", quiet=quiet)


def _drawn(data: Path, context: Path | None, n: int, examples: int, seed: int) -> tuple[list[Picture], list[Picture]]:
    """The pictures of the prompts, and those to restore."""
    from icl_vision.evaluation.few_shot.episodes.drawing import Draw
    from icl_vision.evaluation.kit.pictures import list_pictures

    wanted = n + (examples if context is None else 0)
    pictures = list_pictures(data, limit=wanted, seed=seed)
    if len(pictures) < wanted:
        raise UsageError(
            f"{str(data)!r} holds {counted(len(pictures), 'picture')}; {n} to restore"
            + (f" and {counted(examples, 'example')}" if context is None else "")
            + f" need {wanted}: lower --n or --examples"
        )
    if context is not None:
        return list_pictures(context, limit=examples, seed=seed), pictures
    order = Draw("denoising", seed).shuffled(range(wanted))
    return [pictures[index] for index in sorted(order[:examples])], [
        pictures[index] for index in sorted(order[examples:])
    ]


def _drawn_clips(
    data: Path, context: Path | None, n: int, examples: int, seed: int, frames: int
) -> tuple[list[Picture], list[Picture]]:
    """The clips of the prompts, from the training part where there is one, and those to restore, from the test part."""
    from icl_vision.evaluation.clips.sets import NamedClip, read_clips
    from icl_vision.evaluation.kit.pictures import Picture

    def pictures(clips: list[NamedClip]) -> list[Picture]:
        return [Picture(clip.name, clip.frames) for clip in clips]

    source = data if context is None else context
    if source.is_dir() and not (source / "clips.jsonl").is_file() and context is None:
        found = read_clips(source, frames=frames, limit=n + examples, seed=seed)
        shown, restored = found[:examples], found[examples:]
    else:
        shown = read_clips(source, frames=frames, part="train", limit=examples, seed=seed)
        restored = read_clips(data, frames=frames, limit=n, seed=seed)
    if len(shown) < examples or len(restored) < n:
        raise UsageError(
            f"{counted(n, 'clip')} to restore and {counted(examples, 'example')} were asked for; there are "
            f"{len(restored)} and {len(shown)}: lower --n or --examples"
        )
    return pictures(shown), pictures(restored)


def _lpips(notes: dict[str, str]) -> Any:
    try:
        from icl_vision.models.losses import instruments

        return instruments.perceptual()
    except ModuleNotFoundError as error:
        notes["lpips"] = f"left out: {error.name} is not installed; pip install 'icl-vision[train]'"
    except IclVisionError as error:
        notes["lpips"] = f"left out: {error}"
    return None


def _measure(evaluation: DenoisingEvaluation, run: Any, quiet: bool) -> None:
    with bar(len(evaluation.cells()), "row", quiet=quiet) as done:
        evaluation.measure(run, done=lambda cell: done())


def _write_page(evaluation: DenoisingEvaluation, run: Any, results: dict[str, Any]) -> None:
    from icl_vision.evaluation.denoising.page import denoising_page
    from icl_vision.files.storage import write_text

    write_text(run.folder / "report.html", denoising_page(evaluation, run, results))


def _planned(plans: list[Any], tokens: int, seconds: float) -> str:
    lines = [f"{'row':<36}{'requests':>9}{'tokens':>12}{'cached':>12}{'seconds':>9}  (the embedded LLM's speed)"]
    for cell, plan in plans:
        lines.append(
            f"{cell.item:<36}{plan.usage.requests:>9,}{plan.tokens:>12,}{plan.usage.cached_tokens:>12,}"
            f"{plan.seconds():>9,.0f}"
        )
    lines.append(f"{'together':<36}{'':>9}{tokens:>12,}{'':>12}{seconds:>9,.0f}")
    return "\n".join([*lines, *(plans[0][1].facts["decided"] if plans else ())])


def table(results: dict[str, Any]) -> str:
    """For people: means with 95% intervals, and what the LLM is shown to be better and worse than."""
    from icl_vision.evaluation.kit.metrics import mean_text

    pictures = counted(results["n"], "picture")
    lines = [f"{results['tokenizer']}, {results['llm']}, {pictures} a task, {results['protocol']}"]
    if results["leaking"]:
        lines.append(f"LEAKING: {results['leaking']}")
    for task in results["config"]["tasks"]:
        lines.append(f"\n{task}, unknown region{'':<20}{'PSNR':>22}{'SSIM':>24}{'LPIPS':>24}")
        for row in results["rows"]:
            if row["task"] == task:
                cells = "".join(
                    mean_text(row[name], 2 if name == "psnr" else 3).rjust(24) for name in ("psnr", "ssim", "lpips")
                )
                name = row["row"] + (f", stride {row['stride']}" if row["stride"] else "")
                lines.append(f"  {name:<28}{cells}  {row['problem'] or ''}".rstrip())
        lines += [f"  {verdict}" for verdict in verdicts(results, task)]
    return "\n".join(lines)


def verdicts(results: dict[str, Any], task: str) -> list[str]:
    """What the paired differences show of the LLM, by metric."""
    sentences = []
    for stride in results["config"]["strides"]:
        for metric in ("psnr", "ssim", "lpips"):
            pairs = [
                pair
                for pair in results["pairs"]
                if (pair["task"], pair["metric"], pair["stride"]) == (task, metric, str(stride))
                and pair["second"] != "ceiling"
            ]
            if pairs:
                named = {
                    verdict: [pair["second"] for pair in pairs if pair["better"] is verdict]
                    for verdict in (True, False, None)
                }
                sentences.append(
                    f"{metric} at stride {stride}: better than {', '.join(named[True]) or 'none'}; worse than "
                    f"{', '.join(named[False]) or 'none'}; no difference shown: {', '.join(named[None]) or 'none'}"
                )
    return sentences
