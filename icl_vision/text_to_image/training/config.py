"""What a training run of text_to_image is made of: one typed value, read from YAML, strict about every key.

Knows: the keys, their defaults, the shipped configurations. Refuses to know: what the values do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, get_args

from icl_vision.checks import choice, count, number
from icl_vision.errors import UsageError
from icl_vision.files.configs import find_config, named_in, override_config, put, read_config, shipped_in
from icl_vision.files.trust import Reader
from icl_vision.files.typed import check_fields, from_plain, to_plain
from icl_vision.text_to_image.denoisers.unet import BlurConfig, DenoiserConfig
from icl_vision.text_to_image.llm_folders import NAMED
from icl_vision.text_to_image.mapper import MapperConfig
from icl_vision.text_to_image.repadapter import AdapterConfig
from icl_vision.text_to_image.states import PLACE, check_place
from icl_vision.training.data.batches import DataConfig
from icl_vision.training.schedule import ScheduleConfig

COMMAND: Final = "train text-to-image"
_PACKAGE: Final = "icl_vision.text_to_image"
PACKAGED: Final = "packaged"
"""The name of the packaged parts, where a configuration may name a denoiser."""
Weights = Literal["none", "sensitivity"]
Target = Literal["caption", "plain"]
Subject = Literal["digits", "named", "captions"]
Keep = Literal["best", "last"]
Encoded = Literal["english", "all"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of training. steps, batch: its length, and examples a step. rate: peak learning rate of AdamW.
    weight_decay: decoupled. clip: largest norm of the gradient. ema: share of the averaged weights that a step keeps, 0
    for no average. checkpoint: steps between two checkpoints. check: steps between two looks at held-out captions
    (stages 1 and 2). keep: the weights that did "best" there, those of the beginning among them, or the "last" ones."""

    steps: int
    batch: int = 64
    rate: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.99
    checkpoint: int = 50
    check: int = 25
    keep: Keep = "best"
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="cosine", warmup=0.05, cooldown=0.0))

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "batch", "checkpoint", "check"):
            count(name, getattr(self, name))
        for name in ("rate", "clip"):
            number(name, getattr(self, name), above=0)
        choice("keep", self.keep, get_args(Keep))
        number("weight_decay", self.weight_decay, least=0)
        number("ema", self.ema, least=0, most=0.9999)


@dataclass(frozen=True)
class CaptionConfig:
    """Captions. templates: of each English word and numeral. foreign: of each word of another language, 0 for English
    alone. bare: also each word alone, with a capital letter, a full stop, in quotes. encoded: which captions the
    denoiser reads in training: "english", or "all" of them as they are, which teaches the text encoder's states of
    other languages too (a control for what the LLM brings)."""

    templates: int = 100
    foreign: int = 8
    bare: bool = True
    encoded: Encoded = "english"

    def __post_init__(self) -> None:
        check_fields(self)
        count("captions.templates", self.templates, least=2)
        choice("captions.encoded", self.encoded, get_args(Encoded))
        count("captions.foreign", self.foreign, least=0, most=self.templates)


@dataclass(frozen=True)
class LossConfig:
    """What a mapper is trained with. target: the text encoder's states of the caption's English counterpart, or of the
    plainest caption of what it shows ("seven"): what a caption says beside that is then left out, and wordings that
    were never trained on are read better. weights: how differences of states count: "none", every feature alike, or
    "sensitivity", by how much the denoiser's prediction moves with them. even: share of the even count in the second.
    ridge: of the least squares that a linear mapper ("choice", "last") begins with.
    noise: on the LLM's states in stage 1, in standard deviations of a state.
    sharpen: what the scores of a mapper of kind "choice" are multiplied by when it has been trained (the other kinds
    have none); a denoiser draws one of the states it knows better than a mixture of them. Of named pictures: before it
    is trained, since there are hundreds to choose from.
    diffusion: weight of the diffusion loss in stage 2, 0 for none. pictures: of a batch that it looks at."""

    target: Target = "plain"
    weights: Weights = "sensitivity"
    even: float = 0.25
    ridge: float = 10.0
    noise: float = 0.0
    sharpen: float = 1.0
    diffusion: float = 0.1
    pictures: int = 12

    def __post_init__(self) -> None:
        check_fields(self)
        choice("loss.target", self.target, get_args(Target))
        choice("loss.weights", self.weights, get_args(Weights))
        number("loss.even", self.even, above=0, most=1)
        number("loss.ridge", self.ridge, above=0)
        number("loss.sharpen", self.sharpen, least=1, most=100)
        number("loss.noise", self.noise, least=0, most=10)
        number("loss.diffusion", self.diffusion, least=0)
        count("loss.pictures", self.pictures)


@dataclass(frozen=True)
class DrawingConfig:
    """How the parts draw where nothing else is said (with DDIM): written on their card. steps, guidance: as ``draw``
    has them. alone: what a text of one word is put into, with one {}. chosen: in a line, by what."""

    steps: int = 10
    guidance: float = 3.0
    alone: str = PLACE
    chosen: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        count("drawing.steps", self.steps, most=1000)
        number("drawing.guidance", self.guidance, least=0, most=100)
        check_place("drawing.alone", self.alone, "the word")


@dataclass(frozen=True)
class TextToImageConfig:
    """A whole run: a denoiser that reads a text encoder, then a mapper from an LLM to it (stage 1), then adapters in
    the LLM and the mapper (stage 2).

    subject: what pictures are of: "digits" (in classes), or "named", one picture each, with a list of their names;
    or "captions" alone, where what draws is there already. diffusion: that, a Stable Diffusion pipeline by folder or
    hub name.
    llm: as ``llm_folders`` names them. prompt: what a caption is put into before the LLM reads it, with one {}.
    parts: where the denoiser comes from: "packaged", or a folder of parts; null trains one.
    init: parts whose denoiser the training of this one starts from; null starts from nothing.
    drop: share of captions that the denoiser is trained without. late: share of its examples that are of the noisiest
    fifth of times (named pictures). drawing: how the parts draw by default.
    """

    paths: ClassVar[tuple[str, ...]] = ("llm", "parts", "init", "diffusion", "data.path")
    """Keys that may lead to a place on the machine."""

    subject: Subject = "digits"
    llm: str = "smollm2"
    prompt: str = PLACE
    parts: str | None = None
    diffusion: str | None = None
    init: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    blur: BlurConfig = field(default_factory=BlurConfig)
    mapper: MapperConfig = field(default_factory=MapperConfig)
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    drop: float = 0.1
    late: float = 0.0
    drawing: DrawingConfig = field(default_factory=DrawingConfig)
    stage0: StageConfig = field(default_factory=lambda: StageConfig(steps=500))
    stage1: StageConfig = field(
        default_factory=lambda: StageConfig(
            steps=400, batch=256, rate=1e-3, weight_decay=0.05, checkpoint=200, check=50
        )
    )
    stage2: StageConfig = field(
        default_factory=lambda: StageConfig(steps=60, batch=24, rate=3e-4, ema=0.9, checkpoint=20, check=10)
    )
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        count("seed", self.seed, least=0)
        choice("subject", self.subject, get_args(Subject))
        number("drop", self.drop, least=0, most=0.9)
        number("late", self.late, least=0, most=1)
        check_place("prompt", self.prompt, "the caption")
        if self.parts is not None and self.init is not None:
            raise UsageError("parts takes a denoiser as it is and init trains it further: give one of them")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        document: dict[str, Any] = to_plain(self)
        return document

    def deciding(self) -> dict[str, Any]:
        """What decides what is learned: without where the data is, how fast it is read, and how is drawn afterwards."""
        document = self.to_dict()
        document.pop("drawing")
        # Keys that came later: a run that was begun before they did has them not.
        for entry, key in ((document, "late"), (document["denoiser"], "draft")):
            if not entry[key]:
                entry.pop(key)
        document["data"] = {key: value for key, value in document["data"].items() if key not in ("path", "workers")}
        return document


def shipped_configs() -> list[str]:
    """Names of the configurations inside the package, sorted."""
    return shipped_in(_PACKAGE)


def load_config(
    source: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    data: str | os.PathLike[str] | None = None,
    trust: bool = False,
) -> TextToImageConfig:
    """A configuration by shipped name or as a YAML file.

    overrides: ``key=value`` with a dotted key and a YAML value. data: where the digits are, instead of ``data.path``.
    trust: follow the places that a file names.

    Raises UsageError: no such configuration, no YAML, a key or value that cannot work. UntrustedNameError: a file names
    a place.
    """
    document = read_config(find_config(source, _PACKAGE), empty=False)
    own = set()
    wanted: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    for override in overrides:
        override_config(wanted, override, "stage0.steps=100")
        own.add(override.partition("=")[0].strip())
    if data is not None:
        put(wanted, ["data", "path"], os.fspath(data))
        own.add("data.path")
    if not trust:
        _check_places(document, own, Reader(os.fspath(source), how="trust=True (--trust)"))
    return from_plain(TextToImageConfig, _with_defaults(wanted))


def _with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """A stage's keys laid over that stage's own defaults: what is left out is as this configuration has it."""
    defaults = {item.name: item.default_factory for item in dataclasses.fields(TextToImageConfig)}
    laid = dict(document)
    for name in ("stage0", "stage1", "stage2"):
        factory = defaults[name]
        if isinstance(laid.get(name), dict) and factory is not dataclasses.MISSING:
            laid[name] = {**to_plain(factory()), **laid[name]}
    return laid


def _check_places(document: dict[str, Any], own: set[str], reader: Reader) -> None:
    for key in TextToImageConfig.paths:
        value = named_in(document, key)
        if isinstance(value, str) and key not in own:
            allowed = {"llm": NAMED, "parts": (PACKAGED,), "init": (PACKAGED,)}.get(key, ())
            instead = "--data (data=)" if key == "data.path" else f"--set {key}=VALUE (an override)"
            reader.packaged(key, value, allowed, instead)
