"""Families of models that training knows by name: what builds the model and its losses, and what exports it.

A family is one module in ``models``, one here and one in ``exporters``. The one here says what its configuration is
and puts it all together:

    FAMILY = register(Family("spae", SpaeTrainConfig, build_model, build_step, "icl_vision.exporters.spae:export_spae"))

The key ``family`` of a configuration names it; without that key it is "spae", as in every configuration of 0.1.0.

Knows: names. Refuses to know: what a family is made of.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from icl_vision.errors import UsageError

if TYPE_CHECKING:
    from icl_vision.codebook import Codebook
    from icl_vision.models.interface import WordAutoencoder
    from icl_vision.training.config import TrainConfig
    from icl_vision.training.data.batches import Data
    from icl_vision.training.step import TrainingStep

KEY: Final = "family"
DEFAULT: Final = "spae"
_OURS: Final = {
    "spae": "icl_vision.training.spae",
    "lqae": "icl_vision.training.lqae",
    "clips": "icl_vision.training.clips",
}
"""Our families, and the modules that register them when they are first asked for."""

C = TypeVar("C", bound="TrainConfig")
M = TypeVar("M", bound="WordAutoencoder")


def _nothing(config: Any, model: Any) -> None:
    pass


def _images(config: Any, progress: bool | None) -> Data:
    from icl_vision.training.data.batches import open_data

    model = config.model
    return open_data(config.data, size=model.side, channels=model.channels, seed=config.seed, progress=progress)


@dataclass(frozen=True)
class Family(Generic[C, M]):
    """One family of models.

    name: as configurations have it. config: their class, whose ``family`` is ``name``.
    build_model: a model from a configuration and its codebook (None where the configuration names none), with fresh
    weights; global generators are seeded when it is called.
    build_step: the model with its losses, from the same and the names of the data's classes, in label order.
    exporter: ``module:function`` with the signature of ``exporters.spae.export_spae``, imported by an export alone.
    start: puts published weights into a fresh model, where it needs any (not where it starts from a run, ``init``).
    open_data: what a configuration says is learned from, with a bar on stderr if wanted; images, unless a family learns
    from something else.
    """

    name: str
    config: type[C]
    build_model: Callable[[C, Codebook | None], M]
    build_step: Callable[[C, M, Codebook | None, Sequence[str]], TrainingStep]
    exporter: str
    start: Callable[[C, M], None] = _nothing
    open_data: Callable[[C, bool | None], Data] = _images

    def load_exporter(self) -> Callable[..., dict[str, Any]]:
        """The function that ``exporter`` names."""
        module, _, name = self.exporter.partition(":")
        function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
        return function


_registered: dict[str, Family[Any, Any]] = {}


def register(family: Family[C, M]) -> Family[C, M]:
    """Make a family known by its name.

    Raises UsageError where another one has that name.
    """
    before = _registered.setdefault(family.name, family)
    if before != family or family.config.family != family.name:
        raise UsageError(
            f"a family is called {family.name!r} already, or its configuration says it is of another "
            f"({family.config.family!r})"
        )
    return family


def family_named(name: object) -> Family[Any, Any]:
    """The family of that name. Raises UsageError, naming those there are."""
    if isinstance(name, str) and name in _OURS and name not in _registered:
        importlib.import_module(_OURS[name])
    if not isinstance(name, str) or name not in _registered:
        raise UsageError(f"family must be one of {', '.join(sorted({*_OURS, *_registered}))}; got {name!r}")
    return _registered[name]
