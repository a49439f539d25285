"""The network of FVD, from a user's file: the Frechet video distance under its own name.

Knows: how frames go into I3D. Refuses to know: where its file comes from, sets, distances (``evaluation/clips`` has
them).

The file is the TorchScript of I3D trained on Kinetics-400 that StyleGAN-V's metrics use (``i3d_torchscript.pt``):
called with float videos [N, 3, T, H, W] of 0 to 255, ``rescale=True, resize=True, return_features=True``, it gives
[N, 400]. What could be checked here is that the call is made so; the published network itself was not at hand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from icl_vision.errors import UsageError
from icl_vision.models.losses.torchscript import load_torchscript

LEAST = 10
"""Frames that I3D's pooling over time needs."""


class I3DFeatures:
    """I3D's features of clips.

    Args:
        path: the TorchScript file.
        batch: clips at once.

    Raises:
        ArtefactNotFoundError: no such file. ArtefactDamagedError: not a TorchScript file.
    """

    name = "FVD"

    def __init__(self, path: str | os.PathLike[str], *, batch: int = 8) -> None:
        self._net = load_torchscript(path, what="I3D", without="FVD-like")
        self._batch = batch

    @torch.no_grad()
    def __call__(self, clips: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[Any]:
        """Clips, each uint8 [T, S, S, 3] -> float32 [N, D]. Raises UsageError for clips of fewer than 10 frames."""
        if any(len(clip) < LEAST for clip in clips):
            raise UsageError(f"I3D needs {LEAST} frames a clip or more; got {min(map(len, clips))}")
        rows = []
        for start in range(0, len(clips), self._batch):
            videos = torch.from_numpy(np.stack(clips[start : start + self._batch])).permute(0, 4, 1, 2, 3).float()
            rows.append(self._net(videos, rescale=True, resize=True, return_features=True).cpu().numpy())
        return np.concatenate(rows)
