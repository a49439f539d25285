"""A whole run: the stages one after another, each from where it was stopped, and the parts at the end.

    RUN/run.json, journal.jsonl, lock, results.json     configuration, losses, how well states are mapped
    RUN/denoiser, RUN/stage1, RUN/stage2                checkpoints of each stage
    RUN/parts                                           what ``paint`` and ``LLMTextToImage`` take

Knows: the order of things. Refuses to know: steps and losses.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from icl_vision.checks import choice
from icl_vision.cores import usable_cores
from icl_vision.errors import UsageError
from icl_vision.files.runs import Run
from icl_vision.files.typed import from_plain, to_plain
from icl_vision.text_to_image.captions import ENGLISH, WORDS, training_captions, validation_captions
from icl_vision.text_to_image.denoisers.unet import DenoiserConfig
from icl_vision.text_to_image.llm_folders import GEMMA, NAMED, SMOLLM2
from icl_vision.text_to_image.parts import DENOISER, Parts, load_parts, rounded, rounded_denoiser, save_parts
from icl_vision.text_to_image.parts import PACKAGED as PACKAGED_PARTS
from icl_vision.text_to_image.states import FrozenLLM, TextStates
from icl_vision.text_to_image.text_encoder import SentenceStates, TextEncoder
from icl_vision.text_to_image.training.config import COMMAND, PACKAGED, TextToImageConfig
from icl_vision.text_to_image.training.denoising import CaptionTable, Digits, open_digits, train_denoiser
from icl_vision.text_to_image.training.mapping import (
    HeldOut,
    Metric,
    fit_of,
    sensitivity,
    target_text,
    taught,
    train_adapters,
    train_mapper,
)
from icl_vision.text_to_image.training.stage import Where, size_of
from icl_vision.training.seeds import kept_generators
from icl_vision.vocabulary import read_card

logger = logging.getLogger(__name__)

STAGES: Final = ("denoiser", "stage1", "stage2")
"""The stages of a run, in their order."""
DIGITS: Final = Path(__file__).parents[2] / "artefacts" / "examples" / "digits"
PARTS: Final = "parts"
_LICENCES: Final = {
    SMOLLM2: "Apache-2.0 (weights); trained on MNIST, CC BY-SA 3.0",
    GEMMA: "Gemma Terms of Use; the denoiser Apache-2.0",
}
_DATA: Final = "MNIST (denoiser; CC BY-SA 3.0); captions written for this library"


@dataclass(frozen=True)
class TextToImageResult:
    """How a run ended. folder: the run's. parts: the folder of the parts. fit: of each stage, on held-out captions: R2
    and cosine of mapped states, and of how many captions the nearest of the ten plain states is the right one. kept:
    of each stage, how many steps the weights had that did best on held-out captions, their numbers and those of the
    beginning. sizes: parameters of every part. seconds: of this call."""

    folder: Path
    parts: Path | None
    fit: dict[str, dict[str, float]]
    kept: dict[str, dict[str, Any]]
    sizes: dict[str, int]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folder": str(self.folder),
            "parts": None if self.parts is None else str(self.parts),
            "fit": self.fit,
            "kept": self.kept,
            "sizes": self.sizes,
            "seconds": self.seconds,
        }


def train(
    config: TextToImageConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    until: str = STAGES[-1],
    parts: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    encoder: TextEncoder | None = None,
    llm: FrozenLLM | None = None,
) -> TextToImageResult:
    """Train what a configuration says, and leave everything in the run folder ``out``.

    resume: go on with the run in ``out``, at the step of the stage where it was stopped. until: the last stage to do,
    one of ``STAGES``. parts: where to leave the parts; None: in the run folder.
    encoder, llm: instead of MiniLM and the LLM that the configuration names.

    Raises:
        UsageError, ArtefactError: the data or a part cannot be used. MissingExtraError: an extra is not installed.
        RunMismatchError, RunLockedError: ``out`` holds another run, or is in use.
        TrainingError: a loss that is no number.
    """
    choice("until", until, STAGES)
    began = time.perf_counter()
    # PyTorch heeds affinity, not the share of CPU time that a container grants.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    if config.subject == "named":
        from icl_vision.text_to_image.training.named import train_named  # it needs this module

        return train_named(config, Path(out), resume, until, parts, progress, encoder, llm)
    if config.subject == "captions":
        from icl_vision.text_to_image.training.captioned import train_captioned  # the same

        return train_captioned(config, Path(out), resume, until, parts, progress, encoder, llm)
    if config.data.path is None:
        config = replace(config, data=replace(config.data, path=str(DIGITS)))
    digits = open_digits(config, progress)
    deciding = _deciding(config, digits)
    encoder = SentenceStates(length=config.denoiser.length) if encoder is None else encoder
    with Run.open(out, COMMAND, deciding, seed=config.seed, resume=resume) as run, kept_generators():
        work = _Work(config, Path(out), run, digits, encoder, progress)
        unet = work.denoiser()
        if until == STAGES[0]:
            sizes = {"denoiser": size_of(unet)}
            result = TextToImageResult(Path(out), None, {}, {}, sizes, time.perf_counter() - began)
        else:
            found = work.mapped(unet, until, llm)
            target = save_parts(Path(out) / PARTS if parts is None else Path(parts), found)
            card = found.card
            result = TextToImageResult(
                Path(out), target, card["fit"], card["kept"], card["parameters"], time.perf_counter() - began
            )
        run.finish({"format_version": 1, "kind": "training", **result.to_dict()})
    return result


class _Work:
    """One run while it is done."""

    def __init__(
        self,
        config: TextToImageConfig,
        folder: Path,
        run: Run,
        digits: Digits,
        encoder: TextEncoder,
        progress: bool | None,
    ) -> None:
        self.config, self.folder, self.run, self.digits = config, folder, run, digits
        self.encoder, self.progress = encoder, progress
        own = config.captions
        self.captions = training_captions(own.templates, own.foreign, config.seed, own.bare)
        self.checked = validation_captions()
        shown = [one for one in self.captions if one.language == ENGLISH or config.captions.encoded == "all"]
        self.table = CaptionTable(encoder, shown, [target_text(caption, config) for caption in self.captions])
        self.denoiser_config = config.denoiser

    def where(self, number: int) -> Where:
        """Of a stage."""
        # What decides a stage is all that decides the run but the lengths of the stages after it.
        deciding = _deciding(self.config, self.digits)
        for later in range(number + 1, len(STAGES)):
            deciding.pop(f"stage{later}")
        if number == 0:
            for name in ("llm", "prompt", "mapper", "adapters", "loss"):
                deciding.pop(name)
        return Where(self.folder, STAGES[number], number, self.run, self.config.seed, deciding, progress=self.progress)

    def denoiser(self) -> Any:
        """The U-Net: trained, or of other parts."""
        config = self.config
        if config.parts is None:
            begun = None if config.init is None else self._denoiser_of(config.init)
            return rounded_denoiser(train_denoiser(self.where(0), config, self.digits, self.table, self.encoder, begun))
        return self._denoiser_of(config.parts)

    def _denoiser_of(self, name: str) -> Any:
        """The denoiser of other parts, whose configuration becomes this run's."""
        parts = load_parts(_folder(name))
        if parts.denoiser is None:
            raise UsageError(f"the parts in {str(parts.folder)!r} hold no denoiser; name others")
        self.denoiser_config = from_plain(DenoiserConfig, parts.card["denoiser"], "denoiser")
        return parts.denoiser

    def mapped(self, unet: Any, until: str, llm: FrozenLLM | None) -> Parts:
        """Stages 1 and 2."""
        config = self.config
        unet.requires_grad_(False)
        if llm is None:
            llm = FrozenLLM.open(config.llm, prompt=config.prompt, progress=self.progress)
        metric = Metric()
        if config.loss.weights == "sensitivity":
            metric = sensitivity(unet, self.table, self.digits, config)
        texts = [caption.text for caption in self.captions]
        checked = [caption.text for caption in self.checked]
        fit: dict[str, dict[str, float]] = {}
        kept: dict[str, dict[str, Any]] = {}

        states = llm.cached_states(texts, progress=self.progress)
        held = self._held_out(llm.cached_states(checked, progress=self.progress))
        lesson = taught(states, self.captions, self.table, config)
        mapper, trained = train_mapper(self.where(1), config, lesson, self.table, metric, held)
        mapper = rounded(mapper)
        kept["stage1"] = trained.to_dict()
        with torch.no_grad():
            fit["stage1"] = self._fit(held.mapped(mapper), held, metric)
        sizes = {"denoiser": size_of(unet), "mapper": size_of(mapper), "llm": llm.parameters}
        tensors: dict[str, Tensor] | None = None
        if until == STAGES[2]:
            below = len(llm.blocks) - config.adapters.blocks
            lower = llm.cached_states(texts, below=below, progress=self.progress)
            lesson = taught(lower, self.captions, self.table, config)
            held = self._held_out(llm.cached_states(checked, below=below, progress=self.progress))
            groups, trained = train_adapters(
                self.where(2), config, lesson, self.table, metric, llm, mapper, unet, self.digits, held
            )
            kept["stage2"] = trained.to_dict()
            if not groups:
                mapper = rounded(mapper)
            upper = llm.upper(below)
            with torch.no_grad():
                mapped = held.mapped(lambda values, mask: mapper(upper(values, mask), mask))
                fit["stage2"] = self._fit(mapped, held, metric)
            if not trained.step:
                logger.warning("stage 2 was no better on held-out captions than stage 1, whose weights are kept")
            elif groups:
                tensors = {name: value for adapters in groups for name, value in adapters.tensors().items()}
                sizes["adapters"] = sum(value.numel() for value in tensors.values())
            for adapters in groups:
                adapters.remove()
        if config.mapper.kind == "choice" and config.loss.sharpen != 1:
            # Not before: a choice that is firm learns nothing more.
            mapper.sharpen(config.loss.sharpen)
            mapper = rounded(mapper)
        return Parts(self._card(llm, fit, kept, sizes, until), mapper, unet, tensors)

    def _held_out(self, states: TextStates) -> HeldOut:
        """The validation captions with these states of theirs."""
        return HeldOut(
            states,
            self.encoder.encode([target_text(caption, self.config) for caption in self.checked]),
            torch.tensor([caption.digit for caption in self.checked]),
            torch.tensor([caption.language == ENGLISH for caption in self.checked]),
            self.encoder.encode(list(WORDS[ENGLISH])),
        )

    def _fit(self, mapped: Tensor, held: HeldOut, metric: Metric) -> dict[str, float]:
        weighted = metric(mapped, held.wanted).sum() / metric(self.table.mean.expand_as(mapped), held.wanted).sum()
        numbers = held.numbers(mapped, metric)
        right = {name: numbers[name] for name in ("right_english", "right_other")}
        return {**fit_of(mapped, held.wanted, self.table.mean), "weighted_r2": float(1 - weighted), **right}

    def _card(
        self,
        llm: FrozenLLM,
        fit: dict[str, dict[str, float]],
        kept: dict[str, dict[str, Any]],
        sizes: dict[str, int],
        until: str,
    ) -> dict[str, Any]:
        config = self.config
        return {
            "name": self.folder.name,
            "description": f"Draws digits from what {llm.spec} makes of a text: a denoiser that reads "
            f"{self.encoder.name}, and a mapper from the LLM to it.",
            "licence": _LICENCES.get(llm.spec, f"that of {llm.spec}; trained on MNIST, CC BY-SA 3.0"),
            "data": _DATA,
            "llm": {"spec": llm.spec, "width": llm.width, "prompt": llm.prompt, "blocks": len(llm.blocks)},
            "text_encoder": {"name": self.encoder.name, "length": self.encoder.length, "width": self.encoder.width},
            "denoiser": to_plain(self.denoiser_config),
            "adapters": to_plain(config.adapters),
            "drawing": {"sampler": "ddim", **to_plain(config.drawing)},
            "recipe": {"command": COMMAND, "until": until, "config": _recipe(config, self.digits)},
            "parameters": sizes,
            "fit": fit,
            "kept": kept,
        }


def _folder(name: str) -> Path:
    return PACKAGED_PARTS if name == PACKAGED else Path(name)


def _deciding(config: TextToImageConfig, digits: Digits) -> dict[str, Any]:
    """What decides a run: its pictures and another run's denoiser by what they are, not by where they lie."""
    document = config.deciding() | {"images": digits.data.fingerprint}
    for key, name in (("parts", config.parts), ("init", config.init)):
        if name is not None:
            document[key] = read_card(_folder(name)).get("files", {}).get(DENOISER)
    return document


def _recipe(config: TextToImageConfig, digits: Digits) -> dict[str, Any]:
    """The same for a card, which says nothing of the machine."""
    document = _deciding(config, digits)
    return {**document, "llm": config.llm if config.llm in NAMED else Path(config.llm).name}
