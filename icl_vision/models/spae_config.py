"""What a SPAE is made of, as a typed, strict, JSON- and YAML-ready value.

Knows: which values exist, which fit together, and the layout of words that they give.
Refuses to know: torch, training, and where a codebook comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from icl_vision.checks import count, number
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields, from_plain, to_plain
from icl_vision.pyramid import PyramidLayout

Net = Literal["cnn", "patches", "photo"]
TrainOn = Literal["pixels", "latents"]
QuantizerName = Literal["saq", "rq", "vq", "projected"]

_COUNTS = ("names", "projection", "region_layers", "decoder_blocks", "candidates")
_SIZES = ("side", "channels", "dim", "filters", "blocks", "width")
PHOTO_STRIDE = 8  # pixels per cell of the TAEF2 latents that the photo net works in


@dataclass(frozen=True)
class SpaeConfig:
    """A Semantic Pyramid AutoEncoder. The defaults are the paper's image model (128 px, 597 words).

    net: ``cnn``, the paper's (``filters``, ``multipliers``, ``blocks`` per scale); ``patches``, a small mixer for
    small images (``width``, ``blocks``); ``photo``, light nets around frozen pretrained ones (``width``, ``blocks``).
    side, channels: of the images; 1 channel is grey, 3 is RGB.
    grids: rows (= columns) of each layer, coarse first; the last is the grid of the latents.
    quantizer: ``saq`` (streaming average), ``rq`` (residual: equal grids), ``vq`` (plain: one grid), ``projected``
    (each layer sees the words through a learned linear map into ``projection`` dimensions, see ``ProjectedQuantizer``;
    ours).
    dim: c, the width of the words' vectors. projection: d, the width that nets and quantizer work in; only, and always,
    with ``projected``.
    candidates: words that ``projected`` looks among in a training step, 0: all; see ``ProjectedQuantizer``.
    region_layers: the first so many layers name what a classifier sees in the regions of their grids, instead of
    looking up vectors (see ``RegionWords``); only with net photo and ``projected``. Ours; 0: none.
    learned: train the codebook instead of keeping it frozen. words: how many words a codebook drawn at random has;
    only for a learned one that is not given.
    names: the first so many words of the codebook belong to layer 1 and to no other (see ``NamedAverageQuantizer``); 0:
    all layers share all words. Ours; only with saq.
    normalise: look for the largest cosine. fill: what a position without a word holds, see ``Quantizer``.
    standardise: the encoder speaks, and the decoder hears, in units of the codebook's mean and spread per dimension.
    Ours, not the paper's: words of one sentence model fill a narrow cone, far from where a fresh net starts.
    word_noise: in training, every word below the first layer is replaced by another image's word of the same place
    with a probability drawn per image between 0 and twice this rate. Ours: it makes the decoder forgive what an LLM
    writes. 0 is off.
    train_on: what a training step reconstructs and a loss compares. ``latents``, only with net photo: TAEF2's latents
    instead of pixels, which spares the pass through its decoder and back, by far the dearest part of a step.
    thaw: let TAEF2's decoder learn too; only with net photo and ``pixels``. decoder_blocks: residual blocks of the
    photo net's decoder, 0: as many as ``blocks``.

    Raises:
        UsageError: a value that cannot work, with the reason.
    """

    net: Net = "cnn"
    side: int = 128
    channels: int = 3
    grids: tuple[int, ...] = (1, 2, 4, 8, 16, 16)
    quantizer: QuantizerName = "saq"
    dim: int = 1536
    learned: bool = False
    words: int | None = None
    names: int = 0
    normalise: bool = False
    fill: Literal["finest", "zeros"] = "finest"
    standardise: bool = False
    word_noise: float = 0.0
    train_on: TrainOn = "pixels"
    filters: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 2
    width: int = 64
    projection: int = 0
    candidates: int = 0
    region_layers: int = 0
    thaw: bool = False
    decoder_blocks: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in _SIZES:
            count(name, getattr(self, name))
        for name in ("grids", "multipliers"):
            if not getattr(self, name):
                raise UsageError(f"{name} must be a list of one or more whole numbers; got []")
            for size in getattr(self, name):
                count(f"each of {name}", size)
        check_channels(self.channels)
        number("word_noise", self.word_noise, least=0, most=0.5)
        for name in _COUNTS:
            count(name, getattr(self, name), least=0)
        if self.words is not None and count("words", self.words) and not self.learned:
            raise UsageError("words asks for a codebook drawn at random, which must be learned: set learned: true")
        _ = self.layout  # checks the grids among each other
        self._check_quantizer()
        self._check_net()

    def _check_quantizer(self) -> None:
        if self.names and (self.quantizer != "saq" or len(self.grids) < 2):
            raise UsageError(
                f"names gives layer 1 words of its own, which needs quantizer saq and two layers or more; got "
                f"quantizer {self.quantizer} and grids {list(self.grids)}"
            )
        if (self.quantizer == "projected") != (self.projection > 0):
            raise UsageError(
                "quantizer projected needs projection, the width it maps words to (16, say), and no other quantizer "
                f"has one; got quantizer {self.quantizer} and projection {self.projection}"
            )
        if self.quantizer == "projected" and (self.learned or self.normalise or self.standardise):
            raise UsageError(
                "quantizer projected learns maps of frozen words, which set the scale themselves: learned, normalise "
                "and standardise must be false"
            )
        if self.region_layers and not (self.net == "photo" and 0 < self.region_layers < len(self.grids)):
            raise UsageError(
                f"region_layers must leave a layer that is looked up, and needs net photo; got {self.region_layers} of "
                f"{len(self.grids)} layers and net {self.net}"
            )
        if self.region_layers and self.quantizer != "projected":
            raise UsageError(f"region_layers needs quantizer projected; got {self.quantizer}")
        if self.quantizer == "vq" and len(self.grids) != 1:
            raise UsageError(f"quantizer vq has one grid; got grids {list(self.grids)}")
        if self.quantizer == "rq" and len(set(self.grids)) != 1:
            raise UsageError(f"quantizer rq needs equal grids, one per layer; got {list(self.grids)}")

    def _check_net(self) -> None:
        grid = self.grids[-1]
        if self.train_on == "latents" and self.net != "photo":
            raise UsageError(f"train_on latents is for net photo, which has TAEF2's latents; got net {self.net}")
        if (self.thaw or self.decoder_blocks) and self.net != "photo":
            raise UsageError(f"thaw and decoder_blocks are for net photo; got net {self.net}")
        check_thaw(self.thaw, self.train_on)
        if self.net == "patches":
            cell = self.side // grid
            if self.side % grid or cell < 2 or cell & (cell - 1):
                raise UsageError(
                    f"net patches needs side to be the last grid times 2, 4, 8, ...; got side {self.side}, grid {grid}"
                )
            return
        stride = PHOTO_STRIDE if self.net == "photo" else 2 ** (len(self.multipliers) - 1)
        if grid * stride != self.side:
            why = "TAEF2" if self.net == "photo" else f"{len(self.multipliers)} multipliers"
            raise UsageError(
                f"net {self.net} makes the image {stride} times smaller ({why}), so side must be {stride} times the "
                f"last grid; got side {self.side} and grid {grid}"
            )
        if self.net == "photo" and self.channels != 3:
            raise UsageError(f"net photo is for RGB images: channels must be 3; got {self.channels}")

    @property
    def channels_of_z(self) -> int:
        """The width of what the encoder gives and the decoder takes: d, or c where words are not projected."""
        return self.projection or self.dim

    @property
    def layout(self) -> PyramidLayout:
        """The grids as a layout of words."""
        return PyramidLayout(tuple((size, size) for size in self.grids))

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready form; every field is there."""
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SpaeConfig:
        """The config that ``to_dict`` wrote; what is left out takes its default.

        Raises:
            UsageError: not a mapping, an unknown key (the known ones are named), or a value that cannot work.
        """
        return from_plain(cls, document)


def check_channels(channels: int) -> None:
    """Raises UsageError unless images are grey or RGB."""
    if channels not in (1, 3):
        raise UsageError(f"channels must be 1 (grey) or 3 (RGB); got {channels}")


def check_thaw(thaw: bool, train_on: TrainOn) -> None:
    """Raises UsageError where TAEF2's decoder is to learn from what it takes no part in."""
    if thaw and train_on == "latents":
        raise UsageError("thaw needs train_on pixels: on latents TAEF2's decoder takes no part")
