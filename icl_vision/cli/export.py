"""`icl-vision export`: from a training run to a tokenizer.

Knows: options and what is reported. Refuses to know: how graphs are made; the torch side is imported only when an
export starts.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from icl_vision.cli.options.common import json_option, print_json, quiet_option, say, trust_option, try_out
from icl_vision.errors import MissingExtraError
from icl_vision.wording import counted


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="CHECKPOINT")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The tokenizer's folder. A codebook that is not packaged goes beside it: keep the two together.",
)
@click.option("--name", default=None, help="The tokenizer's name. Default: the folder's.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of the nets. fp32 gives torch's words exactly; fp16 is for GPUs, and the card says how many of "
    "its words are the same.",
)
@click.option(
    "--weights",
    type=click.Choice(["fp16", "int8"]),
    default="fp16",
    show_default=True,
    help="How weights are stored. int8 halves the files and rounds weights to 255 levels a channel: measure again.",
)
@click.option(
    "--resize",
    type=click.Choice(["squash", "crop"]),
    default="squash",
    show_default=True,
    help="How any image becomes the model's square: squash loses nothing at the borders, crop keeps shapes.",
)
@click.option(
    "--margin",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Black border around a squashed image, in pixels: 2 for 28x28 digits on 32x32.",
)
@click.option(
    "--pictures",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR|FILE.npz",
    help="Pictures on which graphs and torch module are compared; for a tokenizer of clips a folder or .tar of "
    "animations. Default: packaged photographs.",
)
@click.option(
    "--metrics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="results.json of `icl-vision eval reconstruction` on this tokenizer, to stand on its card. Default: none.",
)
@click.option("--licence", default="unknown", show_default=True, help="Licence of the weights, for the card.")
@click.option("--data", default="unknown", show_default=True, help="What the weights were trained on, for the card.")
@click.option(
    "--limits", default="", help="What a user should know before believing it, for the card. Default: nothing."
)
@click.option(
    "--ema/--no-ema",
    default=True,
    show_default=True,
    help="Export the averaged weights where the run kept them; they are what validation measured.",
)
@click.option(
    "--codebook",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The codebook that the run was trained with, where it is not a packaged one. Default: none; with --trust the "
    "folder that the run names.",
)
@trust_option
@json_option
@quiet_option
def command(
    checkpoint: Path,
    out: Path,
    name: str | None,
    precision: str,
    weights: str,
    resize: str,
    margin: int,
    pictures: Path | None,
    metrics: Path | None,
    licence: str,
    data: str,
    limits: str,
    ema: bool,
    codebook: Path | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn a training run (or one of its checkpoints) into a tokenizer that needs no torch.

    The folder gets an encoder and a decoder graph and a card; it appears only when both compute what the trained
    module computes. Use it by its folder: icl-vision tokenize IMG --tokenizer FOLDER. Needs the extra 'train'.
    """
    try_out(out, folder=True)
    try:
        # importlib: exporters/ lies outside the package folder and type checkers cannot follow the mapping
        exporter = importlib.import_module("icl_vision.exporters.checkpoint")
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in ("torch", "onnx", "onnxscript"):
            raise MissingExtraError(f"exporting a tokenizer ({error.name})", "train") from error
        raise
    say(f"exporting {checkpoint}", quiet=quiet)
    wishes = exporter.Wishes(
        name, licence, data, limits, precision, resize, margin, pictures, metrics, ema, weights, codebook, trust
    )
    card = exporter.export_checkpoint(checkpoint, out, wishes)
    if as_json:
        print_json({"out": str(out), "card": card})
        return
    parity = card["metrics"]["parity"]
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{card['name']}: {out} ({size / 1e6:.1f} MB)")
    click.echo(
        f"parity with torch: {counted(parity['ids'], 'id')}, "
        f"{counted(parity['mismatches'], 'mismatch', 'mismatches')}, {counted(parity['ties'], 'tie')} "
        f"on {counted(parity['images'], 'image')} at batches {', '.join(map(str, parity['batches']))}"
    )
