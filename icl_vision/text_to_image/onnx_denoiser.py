"""A denoiser computed by onnxruntime instead of torch: on a CPU the same pictures in less time.

The graph is made of the parts' denoiser once, into the user's cache, where it lies under the sha256 of the weights that
it was made of (``exporters/denoiser.py``, which compares it with torch first).

Knows: where the graph lies, and what diffusers' pipelines ask of a U-Net. Refuses to know: how graphs are made, and how
a picture is drawn.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from icl_vision.errors import ArtefactDamagedError, MissingExtraError, UsageError
from icl_vision.files.storage import atomic_path, cache_dir
from icl_vision.text_to_image.parts import DENOISER, Parts
from icl_vision.tokenizers.sessions import GraphSession

logger = logging.getLogger(__name__)

_NEEDED: Final = ("onnx", "onnxscript", "onnxruntime")
# Of graphs made before a change of what they compute: raised with such a change.
_EDITION: Final = 1


def onnx_graph(parts: Parts, *, progress: bool | None = None) -> Path:
    """The graph of the parts' denoiser in the user's cache, made where it is not there yet (seconds).

    parts: from a folder, with a denoiser of their own. progress: say on stderr that it is made; None does so for a
    terminal.

    Raises:
        UsageError: there is no denoiser in the parts. MissingExtraError: making it needs onnx (extra 'train').
        ArtefactError: the graph does not compute what torch computes. StorageError: the cache cannot be written.
    """
    if parts.denoiser is None or parts.folder is None:
        raise UsageError(
            f"a graph is made of the denoiser of saved parts; those in {str(parts.folder)!r} have none of their own"
        )
    digest = str(parts.card["files"][DENOISER])
    path = cache_dir() / "text-to-image" / "onnx" / f"{digest[:32]}-{_EDITION}.onnx"
    if path.is_file():
        return path
    watched = sys.stderr.isatty() if progress is None else progress
    logger.log(logging.WARNING if watched else logging.INFO, "making the denoiser's ONNX graph once, into %s", path)
    try:
        # importlib: exporters/ lies outside the package folder and type checkers cannot follow the mapping
        exporter = importlib.import_module("icl_vision.exporters.denoiser")
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in _NEEDED:
            raise MissingExtraError(f"making an ONNX graph ({error.name})", "train") from error
        raise
    length = int(parts.mapper.length)
    data, facts = exporter.export_denoiser(parts.denoiser, length=length)
    logger.info("the graph is %.1g from torch at most, at batches %s", facts["largest_difference"], facts["batches"])
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


class OnnxDenoiser:
    """A U-Net for diffusers' pipelines that onnxruntime computes, on the CPU.

    path: of the graph. config: of the U-Net it was made of. threads: of one run; None takes the cores that this process
    may use.

    Raises ArtefactDamagedError where the file is no such graph.
    """

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, path: Path, config: Any, *, threads: int | None = None) -> None:
        self.path, self.config = path, config
        # Of its own accord onnxruntime would take a GPU, and copy every step there and back.
        self._session = GraphSession(path.read_bytes(), "denoiser", providers="cpu", threads=threads)
        if set(self._session.inputs) != {"latents", "times", "states"}:
            raise ArtefactDamagedError(
                f"{str(path)!r} is no denoiser's graph (its inputs are {', '.join(self._session.inputs)}); remove it, "
                "and it is made again"
            )

    def __call__(self, latents: Tensor, time: Tensor, encoder_hidden_states: Tensor, **options: Any) -> tuple[Tensor]:
        """latents [B, C, S, S], time of all or of each, states [B, N, e] -> ([B, C, S, S],).

        Raises UsageError for options of a U-Net that the graph has not.
        """
        unknown = sorted(name for name, value in options.items() if name != "return_dict" and value is not None)
        if unknown:
            raise UsageError(f"a denoiser computed by onnxruntime takes no {', '.join(unknown)}")
        times = np.broadcast_to(np.asarray(time.cpu(), dtype=np.int64).reshape(-1), (len(latents),))
        feeds = {
            "latents": latents.float().cpu().numpy(),
            "times": times,
            "states": encoder_hidden_states.float().cpu().numpy(),
        }
        (velocity,) = self._session.run(feeds, ["velocity"])
        return (torch.from_numpy(np.array(velocity)),)
