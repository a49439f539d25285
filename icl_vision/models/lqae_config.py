"""What an LQAE is made of, as a typed, strict, JSON- and YAML-ready value.

Knows: which values exist, which fit together, and the layout of words that they give.
Refuses to know: training, where a codebook or a language model's weights come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from icl_vision.checks import count, number
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields, from_plain, to_plain
from icl_vision.models.spae_config import PHOTO_STRIDE, TrainOn, check_channels, check_thaw
from icl_vision.models.words.masked_lm_files import TextShape
from icl_vision.pyramid import PyramidLayout

LqaeNet = Literal["vit", "photo"]
StraightThrough = Literal["encoder", "decoder"]

_SIZES = (
    "side",
    "channels",
    "grid",
    "dim",
    "neighbours",
    "width",
    "blocks",
    "hidden",
    "layers",
    "heads",
    "inner",
    "patch",
)


@dataclass(frozen=True)
class LqaeConfig:
    """A Language-Quantized AutoEncoder. The defaults are the paper's (256 px, 256 words), but for ``text``.

    net: ``vit``, the paper's (``hidden``, ``layers``, ``heads``, ``inner``, ``patch``); ``photo``, ours: light nets on
    TAEF2's latents (``width``, ``blocks`` and ``decoder_blocks`` of each grid, 0: as many as ``blocks``; ``thaw``).
    side, channels: of the images. grid: rows (= columns) of the words: 8 is 64 words, 16 is 256.
    dim: c, the width of the words' table.

    How the nearest word is found:
    directions: 0 looks in the table as it is; n looks at the words along the n principal directions of the table in
    which it spreads most, each scaled to unit spread (whitened), so that the encoder speaks n channels. Ours.
    batch_norm: the encoder's vectors are normalised, channel by channel, to the mean and spread of the words looked
    among. Ours: without it a fresh encoder starts far from all words.
    normalise: look for the largest cosine (L2-normalised, the paper's). Losses see the vectors as they are.
    neighbours: in training, take one of so many nearest words at random; 1, the paper's, takes the nearest.
    straight_through: where the decoder's gradient reaches the encoder: through the text encoder at the words
    (``encoder``), or around it (``decoder``, an ablation of the paper).
    learned, words: a codebook that is learned instead of a language's (the VQ row): ``words`` vectors drawn at random;
    its numbers become words when it is exported. Needs directions 0 and no text encoder.

    text: the frozen masked language model between words and decoder; null for none.
    mask: the share of words hidden from the text encoder in training: for every picture a number drawn uniformly
    between the two. Without text encoder hidden words are the table's mean.

    train_on, thaw: see ``SpaeConfig``.

    Raises:
        UsageError: a value that cannot work, with the reason.
    """

    net: LqaeNet = "vit"
    side: int = 256
    channels: int = 3
    grid: int = 16
    dim: int = 768
    directions: int = 0
    batch_norm: bool = False
    normalise: bool = True
    neighbours: int = 1
    straight_through: StraightThrough = "encoder"
    learned: bool = False
    words: int | None = None
    text: TextShape | None = None
    mask: tuple[float, float] = (0.5, 0.5)
    train_on: TrainOn = "pixels"
    width: int = 96
    blocks: int = 2
    decoder_blocks: int = 0
    thaw: bool = False
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    patch: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        for name in _SIZES:
            count(name, getattr(self, name))
        for name in ("directions", "decoder_blocks"):
            count(name, getattr(self, name), least=0)
        check_channels(self.channels)
        for share in self.mask:
            number("each of mask", share, least=0, most=1)
        if self.mask[0] > self.mask[1]:
            raise UsageError(f"mask is the least and the most share that is hidden; got {list(self.mask)}")
        if self.directions > self.dim:
            raise UsageError(f"directions can be {self.dim} at most, as wide as the table; got {self.directions}")
        self._check_words()
        self._check_net()

    def _check_words(self) -> None:
        if self.learned:
            if self.words is None:
                raise UsageError("learned draws a codebook: say of how many words with words")
            count("words", self.words)
            if self.directions or self.text is not None:
                raise UsageError(
                    "a learned codebook has no language: set directions to 0 and text to null, or learned to false"
                )
        elif self.words is not None:
            raise UsageError("words is the size of a codebook that is learned: set learned: true, or drop it")
        if self.text is not None and self.text.width != self.dim:
            raise UsageError(
                f"words have the text encoder's own vectors: dim must be its width {self.text.width}; got {self.dim}"
            )
        if self.text is not None and self.text.positions < self.grid**2:
            raise UsageError(
                f"a grid of {self.grid} has {self.grid**2} words, and the text encoder {self.text.positions} positions"
            )

    def _check_net(self) -> None:
        if self.net == "photo":
            if self.side not in (PHOTO_STRIDE * self.grid, 2 * PHOTO_STRIDE * self.grid):
                raise UsageError(
                    f"net photo makes the image {PHOTO_STRIDE} or {2 * PHOTO_STRIDE} times smaller, so side must be "
                    f"so many times the grid; got side {self.side} and grid {self.grid}"
                )
            if self.side % 16 or self.channels != 3:
                raise UsageError(
                    f"net photo takes RGB images whose side is a multiple of 16; got side {self.side} with "
                    f"{self.channels} channels"
                )
            check_thaw(self.thaw, self.train_on)
            return
        if self.train_on == "latents" or self.thaw or self.decoder_blocks:
            raise UsageError("train_on latents, thaw and decoder_blocks are for net photo; got net vit")
        if self.grid * self.patch != self.side:
            raise UsageError(
                f"net vit needs side to be grid times patch; got {self.side}, {self.grid} and {self.patch}"
            )
        if self.hidden % self.heads:
            raise UsageError(f"heads must divide hidden {self.hidden}; got {self.heads}")

    @property
    def channels_of_z(self) -> int:
        """The width of what the encoder gives: directions, or c where the table is looked at as it is."""
        return self.directions or self.dim

    @property
    def layout(self) -> PyramidLayout:
        """One layer."""
        return PyramidLayout(((self.grid, self.grid),))

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready form; every field is there."""
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> LqaeConfig:
        """The config that ``to_dict`` wrote; what is left out takes its default.

        Raises:
            UsageError: not a mapping, an unknown key (the known ones are named), or a value that cannot work.
        """
        return from_plain(cls, document)
