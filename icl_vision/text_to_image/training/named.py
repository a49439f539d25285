"""Pictures that are called by their names: a denoiser that knows them by heart, and a mapper from an LLM to it.

Every name has one picture. The denoiser is trained on the plain names, as a text encoder gives them, and begins with a
draft where it has one (``denoisers/draft.py``); the mapper on names in several wordings, to the states of the plain
name. Names that are held out are seen by neither. The states of no caption are the mean of all.

Knows: which picture belongs to which states, and the order of the two stages. Refuses to know: files (``emoji``), the
steps of a stage, and digits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.files.runs import Run
from icl_vision.files.typed import to_plain
from icl_vision.text_to_image.denoisers.unet import Blur, Noise, build_denoiser, to_latents
from icl_vision.text_to_image.emoji import TEMPLATES, UNSEEN, Named, captions, open_named
from icl_vision.text_to_image.llm_folders import NAMED
from icl_vision.text_to_image.mapper import Mapper
from icl_vision.text_to_image.parts import Parts, load_parts, rounded, rounded_denoiser, save_parts
from icl_vision.text_to_image.states import FrozenLLM
from icl_vision.text_to_image.text_encoder import SentenceStates, TextEncoder
from icl_vision.text_to_image.training.config import COMMAND, TextToImageConfig
from icl_vision.text_to_image.training.launch import PARTS, STAGES, TextToImageResult
from icl_vision.text_to_image.training.mapping import fit_of
from icl_vision.text_to_image.training.stage import TOTAL, Losses, Where, size_of, train_stage
from icl_vision.training.seeds import ORDER, SPLIT, WEIGHTS, generator, kept_generators, seed_globally

_AT_ONCE: Final = 64
_LATER: Final = ("llm", "prompt", "mapper", "adapters", "loss")


def train_named(
    config: TextToImageConfig,
    out: Path,
    resume: bool,
    until: str,
    parts: str | os.PathLike[str] | None,
    progress: bool | None,
    encoder: TextEncoder | None,
    llm: FrozenLLM | None,
) -> TextToImageResult:
    """As ``launch.train``, for named pictures: the stages denoiser and stage1.

    Raises UsageError for a configuration that asks for what there is for digits alone.
    """
    began = time.perf_counter()
    if until == STAGES[2] or config.loss.weights != "none" or config.init is not None:
        raise UsageError("named pictures are trained until stage1, with loss.weights=none and without init")
    if config.denoiser.colours != 3:
        raise UsageError(f"named pictures are coloured: denoiser.colours must be 3; got {config.denoiser.colours}")
    if config.data.path is None:
        raise UsageError("there are no pictures: give a folder or .tar with a clips.jsonl (--data)")
    named = open_named(config.data.path)
    if config.data.limit is not None:
        order = torch.randperm(len(named.train), generator=generator(config.seed, SPLIT)).numpy()
        named = replace(named, train=named.train[np.sort(order[: config.data.limit])])
    encoder = SentenceStates(length=config.denoiser.length) if encoder is None else encoder
    deciding = config.deciding() | {"images": named.fingerprint}
    with Run.open(out, COMMAND, deciding, seed=config.seed, resume=resume) as run, kept_generators():
        work = _Work(config, out, run, named, encoder, deciding, progress)
        unet = work.denoiser()
        sizes = {"denoiser": size_of(unet)}
        fit: dict[str, dict[str, float]] = {}
        target = None
        if until == STAGES[1]:
            if llm is None:
                llm = FrozenLLM.open(config.llm, prompt=config.prompt, progress=progress)
            mapper, fit["stage1"] = work.mapper(llm)
            sizes |= {"mapper": size_of(mapper), "llm": llm.parameters}
            found = Parts(work.card(llm, fit, sizes), mapper, unet)
            target = save_parts(out / PARTS if parts is None else Path(parts), found)
        result = TextToImageResult(out, target, fit, {}, sizes, time.perf_counter() - began)
        run.finish({"format_version": 1, "kind": "training", **result.to_dict()})
    return result


class _Work:
    def __init__(
        self,
        config: TextToImageConfig,
        folder: Path,
        run: Run,
        named: Named,
        encoder: TextEncoder,
        deciding: dict[str, Any],
        progress: bool | None,
    ) -> None:
        self.config, self.folder, self.run, self.named = config, folder, run, named
        self.encoder, self.deciding, self.progress = encoder, deciding, progress
        self.names = [named.names[place] for place in named.train]
        self.wanted = encoder.encode(self.names)
        self.null = self.wanted.mean(0)

    def where(self, number: int) -> Where:
        own = {key: value for key, value in self.deciding.items() if number or key not in _LATER}
        for later in range(number + 1, len(STAGES)):
            own.pop(f"stage{later}")
        return Where(self.folder, STAGES[number], number, self.run, self.config.seed, own, progress=self.progress)

    def denoiser(self) -> Any:
        """The U-Net: trained, or of other parts."""
        config = self.config
        if config.parts is not None:
            unet = load_parts(Path(config.parts)).denoiser
            if unet is None or unet.config.in_channels != 3 * config.denoiser.factor**2:
                raise UsageError(f"the parts in {config.parts!r} hold no denoiser as this configuration has it")
            return unet
        own = (config.denoiser.length, config.denoiser.width)
        if own != (self.encoder.length, self.encoder.width):
            raise UsageError(
                f"denoiser.length and denoiser.width must be those of {self.encoder.name}, {self.encoder.length} and "
                f"{self.encoder.width}; got {own}"
            )
        states = self.wanted
        pixels = torch.from_numpy(np.ascontiguousarray(self.named.pixels[self.named.train])).permute(0, 3, 1, 2)
        latents = to_latents(pixels, config.denoiser.factor)
        seed_globally(config.seed, WEIGHTS, 0)
        unet = build_denoiser(config.denoiser)
        if config.denoiser.draft:
            unet.solve(states, latents, config.denoiser.draft)
        noise, blur = Noise(config.late), Blur(config.blur, states)

        def loss(index: Tensor, random: torch.Generator) -> Losses:
            seen = blur(states[index], random)
            dropped = torch.rand((len(index), 1, 1), generator=random) < config.drop
            seen = torch.where(dropped, self.null, seen)
            return {TOTAL: noise.loss(unet, latents[index], seen, random).mean()}

        stage = config.stage0
        trained = train_stage(
            self.where(0), stage, unet, lambda a, b: self._drawn(len(states), a, b, stage.batch, 0), loss
        )
        return rounded_denoiser(trained.module)

    def mapper(self, llm: FrozenLLM) -> tuple[Mapper, dict[str, float]]:
        """Stage 1, and how well captions of unseen wordings are mapped."""
        config = self.config
        shown = captions(self.names, TEMPLATES)
        wanted = self.wanted
        place = torch.tensor([place for _, place in shown])
        states = llm.cached_states([text for text, _ in shown], progress=self.progress)
        seed_globally(config.seed, WEIGHTS, 1)
        mapper = Mapper(config.mapper, inputs=llm.width, length=self.encoder.length, outputs=self.encoder.width)
        mapper.mean.copy_(wanted.mean(0))
        mapper.null.copy_(self.null)
        # A mapper that listens for the name begins with texts that end with it.
        ending = torch.tensor([row for row, (text, name) in enumerate(shown) if text.endswith(self.names[name])])
        begun = ending if config.mapper.last == 0 else torch.arange(len(shown))
        some = states.take(begun)
        mapper.solve(some.values, some.mask, wanted[place[begun]], config.loss.ridge)
        if config.loss.sharpen != 1:
            mapper.sharpen(config.loss.sharpen)  # among hundreds of states the scores of least squares choose none

        def loss(index: Tensor, _: torch.Generator) -> Losses:
            batch = states.take(index)
            return {TOTAL: (mapper(batch.values, batch.mask) - wanted[place[index]]).square().mean()}

        stage = config.stage1
        trained = train_stage(
            self.where(1), stage, mapper, lambda a, b: self._drawn(len(shown), a, b, stage.batch, 1), loss
        )
        assert isinstance(trained.module, Mapper)
        mapper = rounded(trained.module)
        unseen = captions(self.names, UNSEEN[:1])
        held = llm.cached_states([text for text, _ in unseen], progress=self.progress)
        rows = torch.arange(len(unseen))
        parts = [held.take(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)]
        with torch.no_grad():
            mapped = torch.cat([mapper(part.values, part.mask) for part in parts])
        nearest = torch.cdist(mapped.flatten(1), wanted.flatten(1)).argmin(1)
        right = float((nearest == torch.arange(len(unseen))).float().mean())
        return mapper, {**fit_of(mapped, wanted, mapper.mean), "nearest": right}

    def _drawn(self, size: int, first: int, last: int, batch: int, stage: int) -> Iterator[Tensor]:
        """Which captions a step sees, int64 [B]."""
        for step in range(first, last):
            yield torch.randint(0, size, (batch,), generator=generator(self.config.seed, ORDER, 3, stage, step))

    def card(self, llm: FrozenLLM, fit: dict[str, dict[str, float]], sizes: dict[str, int]) -> dict[str, Any]:
        config = self.config
        recipe = {**self.deciding, "llm": config.llm if config.llm in NAMED else Path(config.llm).name, "parts": None}
        return {
            "name": self.folder.name,
            "description": f"Draws pictures by their names from what {llm.spec} makes of a text: a denoiser that reads "
            f"{self.encoder.name}, and a mapper from the LLM to it.",
            "licence": f"that of {llm.spec}, and of the pictures it was trained on",
            "data": f"{len(self.names)} named pictures; {len(self.named.test)} held out, and their twins left out",
            "names": self.names,
            "llm": {"spec": llm.spec, "width": llm.width, "prompt": llm.prompt, "blocks": len(llm.blocks)},
            "text_encoder": {"name": self.encoder.name, "length": self.encoder.length, "width": self.encoder.width},
            "denoiser": to_plain(config.denoiser),
            "adapters": to_plain(config.adapters),
            "drawing": {"sampler": "ddim", **to_plain(config.drawing)},
            "recipe": {"command": COMMAND, "until": STAGES[1], "config": recipe},
            "parameters": sizes,
            "fit": fit,
        }
