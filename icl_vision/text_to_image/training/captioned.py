"""A mapper to a Stable Diffusion that is there already, from captions alone.

No picture is needed, and no U-Net: the mapper is taught what the pipeline's own text encoder makes of captions, which
is encoded anew at every step, since 77 states of each of many captions fit into no memory.

Knows: files of captions, which of them are held out, the one stage. Refuses to know: pictures, denoisers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.files.reading import read_text
from icl_vision.files.runs import Run
from icl_vision.files.typed import to_plain
from icl_vision.text_to_image.llm_folders import NAMED
from icl_vision.text_to_image.mapper import Mapper
from icl_vision.text_to_image.parts import Parts, rounded, save_parts
from icl_vision.text_to_image.states import FrozenLLM
from icl_vision.text_to_image.text_encoder import ClipStates, TextEncoder
from icl_vision.text_to_image.training.config import COMMAND, TextToImageConfig
from icl_vision.text_to_image.training.launch import PARTS, STAGES, TextToImageResult
from icl_vision.text_to_image.training.mapping import fit_of
from icl_vision.text_to_image.training.stage import TOTAL, Losses, Where, size_of, train_stage
from icl_vision.training.seeds import ORDER, SPLIT, WEIGHTS, generator, kept_generators, seed_globally

MOST_BYTES: Final = 256 * 2**20
LEAST: Final = 20
"""Captions that a mapper is taught with at least."""
_HELD: Final = 256
_AT_ONCE: Final = 32


def read_captions(path: str | os.PathLike[str]) -> list[str]:
    """Captions of a file: a line each of a .txt, or the ``text`` (or ``caption``) of each object of a .jsonl. Equal
    ones count once.

    Raises UsageError for a line that holds none, or too few of them.
    """
    name = os.fspath(path)
    found: dict[str, None] = {}
    for number, raw in enumerate(read_text(path, most=MOST_BYTES).splitlines(), start=1):
        if not raw.strip():
            continue
        text: Any = raw
        if name.lower().endswith(".jsonl"):
            try:
                line = json.loads(raw)
            except ValueError as error:
                raise UsageError(f"line {number} of {name!r} is no JSON: {error}") from error
            text = line.get("text", line.get("caption")) if isinstance(line, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f'line {number} of {name!r} has no caption; got {raw[:200]!r} (.jsonl: {{"text": "..."}})')
        found[" ".join(text.split())] = None
    if len(found) < LEAST:
        raise UsageError(f"{name!r} holds {len(found)} different captions; a mapper needs at least {LEAST}")
    return list(found)


def train_captioned(
    config: TextToImageConfig,
    out: Path,
    resume: bool,
    until: str,
    parts: str | os.PathLike[str] | None,
    progress: bool | None,
    encoder: TextEncoder | None,
    llm: FrozenLLM | None,
) -> TextToImageResult:
    """As ``launch.train``, for captions alone: the stage stage1.

    Raises UsageError for a configuration that asks for what needs pictures, or names no pipeline.
    """
    began = time.perf_counter()
    if until != STAGES[1] or config.loss.weights != "none" or config.loss.target != "caption":
        raise UsageError("from captions alone stage1 is trained, with loss.weights=none and loss.target=caption")
    if config.data.path is None:
        raise UsageError("there are no captions: give a .txt with one a line, or a .jsonl (--data)")
    if encoder is None:
        if config.diffusion is None:
            raise UsageError(
                "diffusion must name the Stable Diffusion pipeline to draw with, a folder or hub name "
                "(--set diffusion=OWNER/NAME)"
            )
        encoder = ClipStates.open(config.diffusion)
    captions = read_captions(config.data.path)
    digest = hashlib.sha256("\n".join(captions).encode("utf-8", "surrogatepass")).hexdigest()
    deciding = config.deciding() | {"captions_file": digest}
    with Run.open(out, COMMAND, deciding, seed=config.seed, resume=resume) as run, kept_generators():
        if llm is None:
            llm = FrozenLLM.open(config.llm, prompt=config.prompt, progress=progress)
        own = {key: value for key, value in deciding.items() if key != "stage2"}
        where = Where(out, STAGES[1], 1, run, config.seed, own, progress=progress)
        mapper, fit = _mapper(config, where, captions, encoder, llm, progress)
        sizes = {"mapper": size_of(mapper), "llm": llm.parameters}
        card = _card(config, out.name, len(captions), deciding, encoder, llm) | {"parameters": sizes, "fit": fit}
        target = save_parts(out / PARTS if parts is None else Path(parts), Parts(card, mapper))
        result = TextToImageResult(out, target, fit, {}, sizes, time.perf_counter() - began)
        run.finish({"format_version": 1, "kind": "training", **result.to_dict()})
    return result


def _mapper(
    config: TextToImageConfig,
    where: Where,
    captions: Sequence[str],
    encoder: TextEncoder,
    llm: FrozenLLM,
    progress: bool | None,
) -> tuple[Mapper, dict[str, dict[str, float]]]:
    order = torch.randperm(len(captions), generator=generator(config.seed, SPLIT)).tolist()
    held = min(_HELD, len(order) // 10)
    checked, taught = ([captions[place] for place in part] for part in (order[:held], order[held:]))
    states = llm.cached_states(taught, progress=progress)
    seed_globally(config.seed, WEIGHTS, 1)
    mapper = Mapper(config.mapper, inputs=llm.width, length=encoder.length, outputs=encoder.width)
    mapper.mean.copy_(encoder.encode(taught[:_HELD]).mean(0))
    mapper.null.copy_(encoder.encode([""])[0])

    def loss(index: Tensor, _: torch.Generator) -> Losses:
        some = states.take(index)
        wanted = encoder.encode([taught[place] for place in index.tolist()])
        return {TOTAL: (mapper(some.values, some.mask) - wanted).square().mean()}

    def drawn(first: int, last: int) -> Iterator[Tensor]:
        for step in range(first, last):
            random = generator(config.seed, ORDER, 4, step)
            yield torch.randint(0, len(taught), (config.stage1.batch,), generator=random)

    trained = train_stage(where, config.stage1, mapper, drawn, loss)
    assert isinstance(trained.module, Mapper)
    mapper = rounded(trained.module)
    rows: list[dict[str, float]] = []
    for start in range(0, len(checked), _AT_ONCE):
        some = checked[start : start + _AT_ONCE]
        found = llm.states(some)
        with torch.no_grad():
            rows.append(fit_of(mapper(found.values, found.mask), encoder.encode(some), mapper.mean))
    return mapper, {"stage1": {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}}


def _card(
    config: TextToImageConfig,
    name: str,
    captions: int,
    deciding: dict[str, Any],
    encoder: TextEncoder,
    llm: FrozenLLM,
) -> dict[str, Any]:
    recipe = {
        **deciding,
        "diffusion": encoder.name,
        "llm": config.llm if config.llm in NAMED else Path(config.llm).name,
    }
    return {
        "name": name,
        "description": f"From what {llm.spec} makes of a text to what the text encoder of {encoder.name} makes of it: "
        "to be drawn with that pipeline.",
        "licence": f"that of {llm.spec}, of {encoder.name} and of the captions it was trained on",
        "data": f"{captions} captions of the user's",
        "llm": {"spec": llm.spec, "width": llm.width, "prompt": llm.prompt, "blocks": len(llm.blocks)},
        "text_encoder": {"name": encoder.name, "length": encoder.length, "width": encoder.width},
        "adapters": to_plain(config.adapters),
        "drawing": {"sampler": "ddim", "steps": 30, "guidance": 7.5},
        "recipe": {"command": COMMAND, "until": STAGES[1], "config": recipe},
    }
