"""`icl-vision train spae`, `lqae` and `clips`: tokenizers of one's own, trained.

Knows: options, and what is said at the end. Refuses to know: how anything is trained; torch is imported only when a
training starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    json_option,
    kept,
    print_json,
    progress_wanted,
    quiet_option,
    say,
    trust_option,
    try_out,
)
from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.training import TrainResult

FAMILIES: tuple[tuple[str, str], ...] = (
    (
        "spae",
        "Train a Semantic Pyramid AutoEncoder: images become words of a frozen codebook, and words images.\n\n"
        "Needs the extra 'train'. What every key of a configuration means is said in docs/training.md.",
    ),
    (
        "lqae",
        "Train a Language-Quantized AutoEncoder: images become the nearest words of a masked language model's table, "
        "and what it says of them images.\n\nNeeds the extra 'train'. What every key of a configuration means is said "
        "in docs/training.md.",
    ),
    (
        "clips",
        "Train a Semantic Pyramid AutoEncoder of clips: short animations become words of a frozen codebook on grids of "
        "frames, rows and columns, and words clips.\n\nNeeds the extra 'train'. --data is a folder of GIF, WebP or "
        "PNG animations or a .tar of them; where a clips.jsonl lies in it, the files whose split it says is train.",
    ),
)
"""The families of tokenizers that can be trained, and what --help says of each."""

SHOWN = 10
"""Skipped files that are named one by one at the end; results.json names all."""


def family_command(family: str, about: str) -> click.Command:
    """The sub-command of one family of models."""
    noun = "clip" if family == "clips" else "image"  # what is learned from

    @click.command(family, help=about)
    @click.option(
        "--config",
        "source",
        required=True,
        metavar="NAME|FILE",
        help="A shipped configuration (spae-digits-32, spae-photo-128, spae-paper-128 ...; a wrong name lists them "
        "all) or a YAML file.",
    )
    @click.option(
        "--data",
        metavar="DIR|TAR|NPZ",
        type=click.Path(path_type=Path),
        help="Images to learn from: a folder (class folders or not), a folder of .tar shards, a .tar, or an .npz with "
        "x_train. Default: data.path of the configuration.",
    )
    @click.option(
        "--out",
        required=True,
        metavar="RUN",
        type=click.Path(file_okay=False, path_type=Path),
        help="Run folder: checkpoints, numbers, pictures of reconstructions.",
    )
    @click.option(
        "--resume",
        is_flag=True,
        help="Go on from the newest checkpoint in --out, as if the run had never stopped. Same options, same data.",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one key of the configuration, such as loss.gan=0 or model.grids=[1,2,4]; may be repeated.",
    )
    @click.option("--steps", type=click.IntRange(min=1), help="Length of the run. Default: the configuration's.")
    @click.option(
        "--seed", type=click.IntRange(min=0), help="Seed of everything random. Default: the configuration's, usually 0."
    )
    @click.option(
        "--devices",
        type=click.IntRange(min=1),
        help="Processes, one a GPU (or on the CPU); each takes its part of every batch. Default: the configuration's, "
        "usually 1.",
    )
    @trust_option
    @json_option
    @quiet_option
    def train_family(
        source: str,
        data: Path | None,
        out: Path,
        resume: bool,
        overrides: tuple[str, ...],
        steps: int | None,
        seed: int | None,
        devices: int | None,
        trust: bool,
        as_json: bool,
        quiet: bool,
    ) -> None:
        try_out(out, folder=True)
        try:
            from icl_vision.training import load_config, train
        except ImportError as error:
            if error.name and error.name.partition(".")[0] in ("torch", "lightning_fabric"):
                raise MissingExtraError(f"training ({error.name})", "train") from error
            raise
        given: dict[str, Any] = {"steps": steps, "seed": seed, "devices.count": devices}
        own = [f"{key}={value}" for key, value in given.items() if value is not None]
        config = load_config(source, [*overrides, *own], data=data, trust=trust)
        if config.family != family:
            raise UsageError(
                f"{source!r} is a configuration of another family: icl-vision train {config.family} takes it"
            )
        batch = counted(config.batch, noun)
        say(f"training {source} for {counted(config.steps, 'step')} of {batch} into {out}", quiet=quiet)
        with kept(out, what="the last checkpoint"):
            result = train(config, out, resume=resume, progress=progress_wanted(quiet))
        for name, why in list(result.skipped.items())[:SHOWN]:
            say(f"skipped {name}: {why}")
        if len(result.skipped) > SHOWN:
            say(f"skipped {counted(len(result.skipped) - SHOWN, 'more file')}; results.json names them")
        if as_json:
            print_json(result.to_dict())
            return
        click.echo(_for_people(result, noun))

    return train_family


def _for_people(result: TrainResult, noun: str) -> str:
    numbers = [f"{value:.2f}" for name, value in result.metrics.items() if name.startswith("psnr/")]
    of_layers = f" from the first {', '.join(map(str, range(1, len(numbers) + 1)))} layers:" if len(numbers) > 1 else ""
    psnr = f"; PSNR{of_layers} {', '.join(numbers)} dB" if numbers else ""
    return (
        f"{counted(result.steps, 'step')}, {result.images_per_second:.0f} {noun}s/s{psnr}\n"
        f"model: {result.checkpoint}\npictures: {result.folder / 'grids'}"
    )
