"""The denoiser of text to image becomes one ONNX graph, which computes what the U-Net computes.

    graph, facts = export_denoiser(load_parts(folder).denoiser, length=16)

Knows: inputs and outputs of the graph, how its weights are stored, and how far it may be from torch. Refuses to know:
where it is kept (``icl_vision.text_to_image.onnx_denoiser``), pipelines and samplers.

Letters in shapes: B pictures, N states of a caption, e their width.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from icl_vision.errors import ArtefactError
from icl_vision.text_to_image.denoisers.unet import TRAIN_STEPS
from icl_vision.tokenizers.sessions import GraphSession

from . import artefact

logger = logging.getLogger(__name__)

INPUTS: Final = ("latents", "times", "states")
OUTPUT: Final = "velocity"
TOLERANCE: Final = 1e-4
"""How far a predicted velocity may be from torch's, in units of the noise (which is 1). It is usually 1e-6."""
OPSET: Final = 18
_BATCHES: Final = (1, 2, 5)


class _Velocity(nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        velocity: Tensor = self.unet(latents, times, states, return_dict=False)[0]
        return velocity


def export_denoiser(unet: Any, *, length: int, tolerance: float = TOLERANCE) -> tuple[bytes, dict[str, Any]]:
    """One graph: latents float32 [B, 4, S, S], times int64 [B], states float32 [B, N, e] -> velocity [B, 4, S, S].

    Args:
        unet: diffusers' UNet2DConditionModel in evaluation mode. Weights that int8 with a scale a channel, or fp16,
            hold exactly are stored so; none is rounded here.
        length: N of the examples that graph and U-Net are compared on; the graph takes others too.
        tolerance: most difference of a velocity from torch's.

    Returns:
        The file's bytes, and what was found: batches compared and the largest difference.

    Raises:
        ArtefactError: the graph computes something else.
    """
    model = _graph(unet, length)
    int8, (half, left) = artefact.store_int8(model), artefact.store_fp16(model)
    logger.info("%d weights stored as int8, %d as fp16, %d left as fp32", int8, half, left)
    artefact.set_metadata(model, {"kind": "text-to-image-denoiser"})
    data = model.SerializeToString(deterministic=True)
    largest = _largest_difference(unet, data, length)
    if not largest <= tolerance:
        raise ArtefactError(
            f"the denoiser's graph is {largest:.2g} from torch where {tolerance:g} is allowed; nothing was written"
        )
    return data, {"batches": list(_BATCHES), "largest_difference": largest, "tolerance": tolerance}


def _graph(unet: Any, length: int) -> onnx.ModelProto:
    first = next(iter(_examples(unet, length)))
    with warnings.catch_warnings(), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # torch's own: this exporter is the old one
        written = Path(folder) / "denoiser.onnx"
        torch.onnx.export(
            _Velocity(unet).eval(),
            first,
            written,
            # The new one takes twenty times as long for a U-Net (145 s against 7) and its graph is no faster.
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch"} for name in (*INPUTS, OUTPUT)} | {"states": {0: "batch", 1: "length"}},
        )
        return onnx.load_model(written)


def _largest_difference(unet: Any, data: bytes, length: int) -> float:
    session = GraphSession(data, "denoiser", providers="cpu")
    largest = 0.0
    for example in _examples(unet, length):
        with torch.inference_mode():
            wanted = unet(*example, return_dict=False)[0].numpy()
        feeds = {name: value.numpy() for name, value in zip(INPUTS, example, strict=True)}
        (found,) = session.run(feeds, [OUTPUT])
        difference = float(np.abs(found - wanted).max())
        largest = max(largest, difference) if np.isfinite(difference) else float("inf")
    return largest


def _examples(unet: Any, length: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    config = unet.config
    side = int(config.sample_size)
    random = torch.Generator().manual_seed(0)
    for size in _BATCHES:
        yield (
            torch.randn(size, int(config.in_channels), side, side, generator=random),
            torch.randint(0, TRAIN_STEPS, (size,), generator=random),
            torch.randn(size, length, int(config.cross_attention_dim), generator=random),
        )
