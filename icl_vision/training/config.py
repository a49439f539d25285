"""What a training run is made of: one typed value, read from YAML, strict about every key.

Knows: the keys that all families share, and how files build on each other (``base``). Refuses to know: what the values
do, and a family's own keys (``spae.py``).

Shipped configurations lie in ``configs/``; each is a name for ``icl-vision train spae --config NAME``.
"""

from __future__ import annotations

import copy
import functools
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from icl_vision.checks import count, number
from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import UsageError
from icl_vision.files.configs import find_config, named_in, override_config, put, read_config, shipped_in
from icl_vision.files.runs import config_hash
from icl_vision.files.trust import Reader
from icl_vision.files.typed import check_fields, from_plain, to_plain
from icl_vision.models.interface import ModelConfig
from icl_vision.training.data.batches import DataConfig
from icl_vision.training.ema import EmaConfig
from icl_vision.training.families import DEFAULT, KEY, family_named
from icl_vision.training.schedule import ScheduleConfig
from icl_vision.training.watching.logs import LogConfig
from icl_vision.training.watching.watch import StopConfig

BASE = "base"
_PACKAGE = "icl_vision.training"
_WHERE_AND_HOW = ("path", "workers")
"""Keys of ``data`` that say where and how fast, not what."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, one for the model and one like it for a net that is trained against it (a discriminator).

    rate: peak learning rate. betas, eps: Adam's. weight_decay: decoupled, on weights of two or more dimensions. clip:
    largest norm of the gradient; null never clips.
    """

    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        number("optimiser.rate", self.rate, above=0)
        if self.clip is not None and self.clip <= 0:
            raise UsageError(f"optimiser.clip must be above 0, or null to never clip; got {self.clip}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"optimiser.betas must be at least 0 and below 1; got {self.betas}")


@dataclass(frozen=True)
class DevicesConfig:
    """Where a run computes; it does not change what is learned, up to rounding.

    accelerator: "auto" takes a GPU if there is one. count: processes, one a device; each takes its part of the batch.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    count: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        count("devices.count", self.count)


@dataclass(frozen=True)
class TrainConfig:
    """What a whole run of any family is made of. A family adds its own keys (``training.spae`` for SPAE's).

    model, loss: the family's own. codebook: name of a packaged codebook or a folder; null where a family needs none.
    pretrained: folder with the weights of a model's frozen parts.
    init: start from the (averaged) weights of this run or checkpoint, whose model has the same shapes.
    remember: keep in memory what a model's frozen parts say of every image, from the first epoch on; only without
    augmentation.

    steps, batch: length, and images of a step over all devices. seed: of everything random. precision: "bf16-mixed"
    computes in half precision where that is safe; a search for words never does. channels_last: memory order of
    images, often faster for convolutions.
    """

    family: ClassVar[str]
    """The family's name, as the key ``family`` of a file says it."""
    paths: ClassVar[Mapping[str, Callable[[], Collection[str]]]] = {
        "data.path": tuple,
        "codebook": packaged_codebooks,
        "pretrained": tuple,
        "init": tuple,
    }
    """Keys that say where something is, and what they may say without leading anywhere."""

    model: ModelConfig
    loss: Any
    codebook: str | None = None
    pretrained: str | None = None
    init: str | None = None
    remember: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
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
        check_fields(self)
        for name in ("steps", "batch"):
            count(name, getattr(self, name))
        count("seed", self.seed, least=0)
        if self.batch % self.devices.count:
            raise UsageError(f"batch {self.batch} cannot be dealt evenly to devices.count {self.devices.count}")

    def check_codebook(self, codebook: Codebook | None) -> None:
        """Raises UsageError where a model cannot be made with this codebook (None: the configuration names none)."""

    def check_width(self, codebook: Codebook, dim: int) -> None:
        """Raises UsageError unless the codebook's vectors are as wide as the model's words, ``model.dim``."""
        width = codebook.vectors.shape[1]
        if width != dim:
            raise UsageError(
                f"the codebook {self.codebook!r} has {width} dimensions and model.dim is {dim}: set "
                "model.dim to the codebook's, or name another codebook"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON- and YAML-ready; ``from_dict`` reads them again."""
        named = {} if self.family == DEFAULT else {KEY: self.family}
        return {**named, **to_plain(self)}

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> TrainConfig:
        """From plain values, as the configuration of the family that they name.

        Raises UsageError naming the key that is wrong and what it may be.
        """
        kind: type[TrainConfig] = family_named(named_family(document)).config
        return from_plain(kind, {key: value for key, value in document.items() if key != KEY})

    @property
    def command(self) -> str:
        """What a run folder of it is the work of."""
        return f"train {self.family}"

    def deciding(self) -> dict[str, Any]:
        """The part that decides what is learned: without devices, logging and the data's path."""
        document = {key: value for key, value in self.to_dict().items() if key not in ("devices", "log")}
        document["data"] = {key: value for key, value in document["data"].items() if key not in _WHERE_AND_HOW}
        return document

    def without_paths(self) -> dict[str, Any]:
        """``to_dict`` without where things lay on the machine that trained; names of packaged things stay."""
        document = self.to_dict()
        for key, packaged in self.paths.items():
            parts = key.split(".")
            said: Any = functools.reduce(operator.getitem, parts, document)
            if said not in packaged():
                put(document, parts, None)
        return document

    @property
    def hash(self) -> str:
        """Hex sha256 of ``deciding()``; a checkpoint of another hash is not resumed."""
        return config_hash(self.command, self.deciding())


def named_family(document: object) -> object:
    """The family that plain values name."""
    return document.get(KEY, DEFAULT) if isinstance(document, Mapping) else DEFAULT


def shipped_configs() -> list[str]:
    """Names of the configurations inside the package, sorted."""
    return shipped_in(_PACKAGE)


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
    wanted = copy.deepcopy(document)
    for override in overrides:
        override_config(wanted, override, "loss.gan=0")
    if data is not None:
        wanted["data"] = {**(wanted.get("data") or {}), "path": os.fspath(data)}
    if not trust:
        own = {override.partition("=")[0].strip() for override in overrides} | (
            {"data.path"} if data is not None else set()
        )
        paths = family_named(named_family(wanted)).config.paths
        _check_paths(document, paths, Reader(os.fspath(source), how="trust=True (--trust)"), own)
    return TrainConfig.from_dict(wanted)


def _check_paths(
    document: Mapping[str, Any],
    paths: Mapping[str, Callable[[], Collection[str]]],
    reader: Reader,
    own: Collection[str],
) -> None:
    """Raises UntrustedNameError for a path that the document names and the caller does not.

    own: dotted keys that the caller sets.
    """
    for key, packaged in paths.items():
        value = named_in(document, key)
        if isinstance(value, str) and not any(mine == key or key.startswith(f"{mine}.") for mine in own):
            instead = "--data (data=)" if key == "data.path" else f"--set {key}=VALUE (an override)"
            reader.packaged(key, value, packaged(), instead)


def _read(source: str | os.PathLike[str], seen: tuple[str, ...], reader: Reader) -> dict[str, Any]:
    path = find_config(source, _PACKAGE)
    if str(path) in seen:
        raise UsageError(f"the configuration {str(source)!r} is its own base: {' -> '.join((*seen, str(path)))}")
    document = read_config(path, empty=True)
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


def _laid_over(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged
