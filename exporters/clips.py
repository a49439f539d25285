"""SPAE of clips as an artefact folder: the graphs of images (``spae.py``), with frames between batch and side.

    encoder  pixels uint8 [batch, T, S, S, 3]; codebook float32 [V, c]; perhaps class_bias float32 [C]
             -> ids int32 [batch, K], coarse first, in each layer frames before rows before columns; features float32
                [batch, d]
    decoder  ids int32 [batch, K]; layers int64 [1]; codebook -> pixels uint8 [batch, T, S, S, 3]

Knows: what a card of clips says beside, clips to compare graphs and module on. Refuses to know: training, checkpoints
(checkpoint.py), how folders are written (artefact.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.models.clips import ClipsConfig, ClipSPAE
from icl_vision.models.quantizers.motion_words import MOTIONS
from icl_vision.tokenizers.pixels import Preprocessing

from .checkpoint import Export
from .pyramid import export_pyramid
from .spae import DecoderGraph, EncoderGraph, SpaePieces

__all__ = ["ClipPieces", "DecoderGraph", "EncoderGraph", "export_clips", "parity_clips"]

COMPARED = 8
"""Clips that graphs and module are compared on; each is as much work as many pictures."""


class ClipPieces(SpaePieces):
    """What a SPAE of clips gives an export."""

    def card(self) -> dict[str, Any]:
        config = self._spae.config
        assert isinstance(self._spae, ClipSPAE)
        frames = self._spae.config.frames
        return {
            **super().card(),
            "description": f"Clips of {frames} frames as pyramids of words, {config.layout.cumulative[-1]} at most, "
            f"and back.{_said_of_motion(self._spae.config)}",
            "modality": "clip",
            "frames": frames,
        }


def _said_of_motion(config: ClipsConfig) -> str:
    if not config.motion_layer:
        return ""
    return f" Layer {config.motion_layer} says how the clip moves, in one of these words: {', '.join(MOTIONS)}."


def export_clips(spae: ClipSPAE, out: Path, export: Export) -> dict[str, Any]:
    """One artefact folder of a trained SPAE of clips; see ``export_pyramid`` for what is done, returned and raised.

    Args: see ``export_spae``; the pictures compared on are clips, uint8 [N,T,S,S,3].
    """
    return export_pyramid(spae, spae.config, ClipPieces(spae), spae.config.dim, out, export)


def parity_clips(preprocessing: Preprocessing, frames: int, source: Path | None = None) -> npt.NDArray[np.uint8]:
    """Clips to compare on, uint8 [N,T,S,S,3]: animations of a folder or tar, or windows across packaged pictures."""
    from icl_vision.clips.opening import read_clip
    from icl_vision.training.data.clips import listed

    from .words import parity_pixels

    side = preprocessing.size
    if source is not None:
        files = list(listed(source).values())[:COMPARED]
        return np.stack([read_clip(data, frames=frames, shrink=preprocessing.apply) for data in files])
    wide = parity_pixels(Preprocessing(2 * side), photographs=COMPARED - 2, synthetic=2)
    at = np.linspace(0, side, frames).astype(int)
    return np.stack(
        [np.stack([picture[step : step + side, side - step : 2 * side - step] for step in at]) for picture in wide]
    )
