"""`icl-vision eval reconstruction`: how much of pictures their words keep.

Knows: the command's options, and which optional measures can be had here. Refuses to know: how they are computed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
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
    tokenizer_option,
    try_out,
)
from icl_vision.cli.options.denoising import PHOTO
from icl_vision.cli.reconstruct import DECODER
from icl_vision.errors import IclVisionError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.evaluation.reconstruction import Instruments
    from icl_vision.tokenizers.onnx import OnnxTokenizer

MEASURES = ("lpips", "guidance", "frechet", "reader")
LIMIT = 1000


@click.command("reconstruction")
@click.option(
    "--data",
    required=True,
    metavar="DIR|FILE.npz",
    type=click.Path(exists=True, path_type=Path),
    help="Pictures: a folder (searched with its subfolders), or an .npz file with uint8 x_test and perhaps y_test, "
    "as MNIST has. For a tokenizer of clips: a .tar or folder of clips, with clips.jsonl where it has parts, or an "
    ".npz file of digits, which are made to move.",
)
@tokenizer_option(DECODER)
@click.option(
    "-k",
    "ks",
    type=click.IntRange(min=1),
    multiple=True,
    help="Numbers of words to decode from; repeat it for several. Default: every number that fills whole layers, to "
    "show the rate curve.",
)
@click.option(
    "--measure",
    "measures",
    type=click.Choice(MEASURES),
    multiple=True,
    help="Beside PSNR, SSIM and word usage, also: lpips, guidance (similarity of each layer's words), frechet "
    "(a FID-like distance), reader (is a digit still read right). Repeat it for several. "
    "Default: none, since the first three need the 'train' extra and the last needs digits.",
)
@click.option(
    "--inception",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="With --measure frechet: the TorchScript file of the Inception network, for a FID proper. Default: "
    "EfficientNet-Lite0 features, and the figure says so.",
)
@click.option(
    "--i3d",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Of clips, with --measure frechet: the TorchScript file of the I3D network, for an FVD proper. Default: "
    "EfficientNet-Lite0 features of the frames in their order, and the figure says so.",
)
@click.option(
    "--beside",
    metavar="NAME|DIR",
    default=PHOTO,
    show_default=True,
    help="Of clips: the image tokenizer that is given the same number of words for key frames; 'none' leaves it out.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=LIMIT,
    show_default=True,
    help="At most so many pictures, drawn by --seed: a thousand give PSNR within a few hundredths of a dB.",
)
@click.option(
    "--out",
    metavar="RUN",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder: every picture is kept there as soon as it is measured.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out. Same pictures, same options.")
@seed_option()
@json_option
@quiet_option
def command(
    data: Path,
    tokenizer: str,
    ks: tuple[int, ...],
    measures: tuple[str, ...],
    inception: Path | None,
    i3d: Path | None,
    beside: str,
    limit: int,
    out: Path,
    resume: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how well pictures come back from their words, for every number of words.

    A picture is compared with itself as the tokenizer takes it. Means carry 95% intervals. With --json the output is
    what results.json of the run folder holds.

    With a tokenizer of clips, clips: beside stills, key frames of an image tokenizer and animated files of as many
    bytes; the run folder then has a report.html that moves.
    """
    from icl_vision.cli.eval.clips import clip_table, measure_clips
    from icl_vision.evaluation.kit.pictures import list_pictures
    from icl_vision.evaluation.reconstruction import ReconstructionEvaluation
    from icl_vision.files.runs import Run, versions
    from icl_vision.tokenizers.onnx import OnnxTokenizer
    from icl_vision.tokenizers.wrapping import fingerprint

    try_out(out, folder=True)
    loaded = OnnxTokenizer.from_pretrained(tokenizer)
    if loaded.modality == "clip":
        found = measure_clips(
            data, loaded, ks=ks, measures=measures, i3d=i3d, beside=beside, limit=limit, out=out, resume=resume,
            seed=seed, quiet=quiet,
        )  # fmt: skip
        print_json(found) if as_json else click.echo(clip_table(found))
        say(f"kept in {out}", quiet=quiet or as_json)
        return
    pictures = list_pictures(data, limit=limit, seed=seed)
    notes: dict[str, str] = {}
    tools = _instruments(loaded, measures, inception, notes)
    for name, why in notes.items():
        say(f"{name}: {why}", quiet=quiet)
    evaluation = ReconstructionEvaluation(loaded, ks or None, tools)
    config = {
        "data": data.name,
        "pictures": len(pictures),
        "tokenizer": fingerprint(loaded),
        "ks": list(evaluation.ks or ()),
        "measures": sorted(set(measures) - set(notes)),
        "seed": seed,
        "limit": limit,
    }
    started = time.monotonic()
    with kept(out, quiet=quiet), Run.open(out, "eval reconstruction", config, seed=seed, resume=resume) as run:
        with bar(len(pictures), "picture", quiet=quiet, done=len(run.done)) as done:
            evaluation.measure(pictures, run, done=done)
        results: dict[str, Any] = {
            "format_version": 1,
            "kind": "reconstruction",
            "tokenizer": loaded.name,
            "config": config,
            **evaluation.summary(run),
            "frechet": evaluation.frechet(pictures, run),
            "notes": notes,
            "seconds": time.monotonic() - started,
            "versions": versions(),
        }
        run.finish(results)
    if as_json:
        print_json(results)
        return
    click.echo(_table(results))
    say(f"kept in {out}", quiet=quiet)


def _instruments(
    tokenizer: OnnxTokenizer, measures: tuple[str, ...], inception: Path | None, notes: dict[str, str]
) -> Instruments:
    """What can be had of the measures asked for; what cannot is said in ``notes`` and left out."""
    from icl_vision.evaluation.reconstruction import Instruments

    makers: dict[str, Callable[[], Any]] = {
        "perceptual": _lpips,
        "guidance": functools.partial(_guidance, tokenizer),
        "frechet": functools.partial(_frechet, inception),
        "reader": _reader,
    }
    tools: dict[str, Any] = {}
    for name, maker in makers.items():
        said = "lpips" if name == "perceptual" else name
        if said not in measures:
            continue
        try:
            tools[name] = maker()
        except ModuleNotFoundError as error:
            notes[said] = f"not measured: {error}; install it with: pip install 'icl-vision[train]'"
        except IclVisionError as error:
            notes[said] = f"not measured: {error}"
    return Instruments(**tools)


def _lpips() -> Any:
    from icl_vision.models.losses import instruments

    return instruments.perceptual()


def _guidance(tokenizer: OnnxTokenizer) -> Any:
    from icl_vision.codebook import Codebook
    from icl_vision.models.losses import instruments
    from icl_vision.tokenizers.artefact import find_codebook

    codebook: Codebook = find_codebook(tokenizer.folder, tokenizer.card)
    return instruments.conse_guidance(codebook)


def _frechet(inception: Path | None) -> Any:
    from icl_vision.models.losses import instruments

    return instruments.SetDistance(inception)


def _reader() -> Any:
    from icl_vision.evaluation.kit.digit_reader import DigitReader

    return DigitReader()


def _table(results: dict[str, Any]) -> str:
    """For people: a line for each number of words."""
    from icl_vision.evaluation.kit.metrics import mean_text

    names = [name for name in ("psnr", "ssim", "lpips") if any(layer[name] for layer in results["layers"])]
    read = any(layer["read"] for layer in results["layers"])
    distances = (results["frechet"] or {}).get("at", {})
    lines = [f"{results['tokenizer']} on {counted(results['n'], 'picture')} (mean, 95% interval)"]
    lines.append("     k layers" + "".join(f"{name:>24}" for name in names) + ("   read right" if read else ""))
    for layer in results["layers"]:
        cells = ""
        for name in names:
            cells += mean_text(layer[name], 2 if name == "psnr" else 3).rjust(24)
        if read:
            low, high = layer["read"]["interval"]
            cells += f"   {layer['read']['accuracy']:.1%} [{low:.1%}, {high:.1%}]"
        if str(layer["k"]) in distances:
            cells += f"   {results['frechet']['name']} {distances[str(layer['k'])]:.2f}"
        lines.append(f"{layer['k']:>6} {layer['layers']:>6}" + cells)
    if results["originals"]["read"]:
        lines.append(f"originals read right: {results['originals']['read']['accuracy']:.1%}")
    for usage, score in zip(results["words"], results["guidance"], strict=True):
        said = f", guidance {score['mean']:.3f}" if score else ""
        lines.append(
            f"layer {usage['layer']}: {counted(usage['distinct'], 'word')} used, "
            f"perplexity {usage['perplexity']:.0f}{said}"
        )
    return "\n".join(lines)
