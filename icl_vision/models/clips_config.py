"""What a SPAE of clips is made of, as a typed, strict, JSON- and YAML-ready value.

Knows: which values exist, which fit together, and the layout of words that they give.
Refuses to know: torch, training, and where a codebook comes from.

Letters: T frames of a clip, S side of a frame, t x h x w a layer's grid (frames, rows, columns).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from icl_vision.checks import count
from icl_vision.errors import PyramidError, UsageError
from icl_vision.files.typed import check_fields, from_plain, to_plain
from icl_vision.models.spae_config import PHOTO_STRIDE, TrainOn, check_channels
from icl_vision.pyramid import PyramidLayout

ClipNet = Literal["cnn3d", "photo3d"]
ClipQuantizer = Literal["saq", "projected"]

_COUNTS = ("projection", "candidates", "named_layers", "motion_layer", "decoder_blocks")
_SIZES = ("frames", "side", "channels", "dim", "filters", "blocks", "width")


@dataclass(frozen=True)
class ClipsConfig:
    """A Semantic Pyramid AutoEncoder of clips. The defaults are the paper's video model (128 px, 2,197 words).

    net: ``cnn3d``, the paper's image CNN inflated (``filters``, ``multipliers``, ``blocks`` per scale, ``halvings``);
    ``photo3d``, light nets around TAEF2, frame by frame (``width``, ``blocks``).
    frames, side, channels: of a clip, T frames of S x S; 1 channel is grey, 3 is RGB.
    grids: frames, rows and columns of each layer, coarse first; the last is the grid of the vectors. A frame of a grid
    stands for T / t frames of the clip.
    halvings: whether each down-sampling of ``cnn3d`` halves time too, finest first; one fewer than ``multipliers``.
    quantizer: ``saq`` (streaming average) or ``projected`` (ours), as for images; see ``SpaeConfig``, also for ``dim``,
    ``projection``, ``candidates``, ``fill`` and ``train_on``.
    named_layers: the first so many layers, of one frame each, name what a classifier sees in the regions of the clip,
    by the mean of its frames (see ``FrameWords``); only with net photo3d and ``projected``. Ours; 0: none.
    motion_layer: which of these, from 1, a layer of one word, says how the clip moves instead (see ``MotionWords``);
    another must be left that names. Ours; 0: none.
    decoder_blocks: residual blocks of the photo3d net's decoder, 0: as many as ``blocks``.

    Raises:
        UsageError: a value that cannot work, with the reason.
    """

    net: ClipNet = "cnn3d"
    frames: int = 16
    side: int = 128
    channels: int = 3
    grids: tuple[tuple[int, int, int], ...] = (
        (1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (4, 16, 16),
    )  # fmt: skip
    quantizer: ClipQuantizer = "saq"
    dim: int = 1536
    fill: Literal["finest", "zeros"] = "finest"
    train_on: TrainOn = "pixels"
    filters: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    halvings: tuple[bool, ...] = (True, True, False)
    blocks: int = 2
    width: int = 128
    projection: int = 0
    candidates: int = 0
    named_layers: int = 0
    motion_layer: int = 0
    decoder_blocks: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in _SIZES:
            count(name, getattr(self, name))
        for name in _COUNTS:
            count(name, getattr(self, name), least=0)
        check_channels(self.channels)
        try:
            finest = self.layout.finest
        except PyramidError as error:
            raise UsageError(f"grids: {error}") from error
        if not self.multipliers or min(self.multipliers) < 1:
            raise UsageError(f"multipliers must be one or more whole numbers, 1 or more; got {list(self.multipliers)}")
        self._check_quantizer()
        self._check_net(finest)

    def _check_quantizer(self) -> None:
        if (self.quantizer == "projected") != (self.projection > 0):
            raise UsageError(
                "quantizer projected needs projection, the width it maps words to (16, say), and no other quantizer "
                f"has one; got quantizer {self.quantizer} and projection {self.projection}"
            )
        if self.motion_layer:
            one = self.motion_layer <= self.named_layers and self.grids[self.motion_layer - 1] == (1, 1, 1)
            if not one or self.named_layers < 2:
                raise UsageError(
                    "motion_layer must be one of two or more named layers, of one word; got motion_layer "
                    f"{self.motion_layer}, named_layers {self.named_layers} and grids {list(self.grids)}"
                )
        if not self.named_layers:
            return
        if self.net != "photo3d" or self.quantizer != "projected" or self.named_layers >= len(self.grids):
            raise UsageError(
                "named_layers must leave a layer that is looked up, and needs net photo3d and quantizer projected; got "
                f"{self.named_layers} of {len(self.grids)} layers, net {self.net} and quantizer {self.quantizer}"
            )
        for grid in self.grids[: self.named_layers]:
            if grid[0] != 1 or grid[1] != grid[2]:
                raise UsageError(f"named layers have one frame and as many rows as columns; got {list(grid)}")

    def _check_net(self, finest: tuple[int, ...]) -> None:
        if self.net == "photo3d":
            stride, why = (self.frames // finest[0] if self.frames % finest[0] == 0 else 0, PHOTO_STRIDE), "TAEF2"
            if self.channels != 3:
                raise UsageError(f"net photo3d is for RGB clips: channels must be 3; got {self.channels}")
        else:
            if len(self.halvings) != len(self.multipliers) - 1:
                raise UsageError(
                    f"halvings says for each of {len(self.multipliers) - 1} down-samplings whether time is halved; got "
                    f"{list(self.halvings)}"
                )
            stride, why = (2 ** sum(self.halvings), 2 ** len(self.halvings)), f"{len(self.multipliers)} multipliers"
            if self.train_on == "latents" or self.decoder_blocks:
                raise UsageError("train_on latents and decoder_blocks are for net photo3d; got net cnn3d")
        wanted = (finest[0] * stride[0], finest[1] * stride[1], finest[2] * stride[1])
        if wanted != (self.frames, self.side, self.side):
            raise UsageError(
                f"net {self.net} makes a clip {stride[0] or 'a whole number of'} times shorter and {stride[1]} times "
                f"smaller ({why}); got {self.frames} frames of {self.side} px and the last grid {list(finest)}"
            )

    @property
    def channels_of_z(self) -> int:
        """The width of what the encoder gives and the decoder takes: d, or c where words are not projected."""
        return self.projection or self.dim

    @property
    def layout(self) -> PyramidLayout:
        """The grids as a layout of words."""
        return PyramidLayout(self.grids)

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready form; every field is there."""
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ClipsConfig:
        """The config that ``to_dict`` wrote; what is left out takes its default.

        Raises:
            UsageError: not a mapping, an unknown key (the known ones are named), or a value that cannot work.
        """
        return from_plain(cls, document)
