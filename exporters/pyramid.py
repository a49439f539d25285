"""A model of words on grids as an artefact folder: two graphs and a card, compared with the module.

    encoder  pixels uint8 [batch, S, S, 3]; codebook float32 [T, c]; perhaps further inputs that never change
             -> ids int32 [batch, K], coarse first; features float32 [batch, d], a vector for the whole image
    decoder  ids int32 [batch, K]; layers int64 [1]; codebook -> pixels uint8 [batch, S, S, 3]

Of clips there are frames between batch and side, [batch, frames, S, S, 3].

The codebook is an input: it lives once, in a folder of its own. "fp16" as a precision means fp16 arithmetic in the
nets (weights are stored as fp16 either way); the search for words stays in fp32. Its words are compared with those
of the fp32 module and their agreement goes onto the card.

Knows: the order of steps that every family goes through, signatures, what goes onto every card.
Refuses to know: families (``spae.py``, ``lqae.py``: what their graphs compute), training, checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.models.interface import ModelConfig, WordAutoencoder
from icl_vision.models.rounding import round_to_fp16, round_to_int8
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.artefact import DECODER_FILE, ENCODER_FILE
from icl_vision.tokenizers.onnx import PYRAMID
from icl_vision.tokenizers.sessions import CPU, cpu_settings

from . import artefact, parts, validate_pyramids
from .checkpoint import Export, graph
from .validate import check_signature


class PixelsToWords(nn.Module):
    """uint8 pixels [B,S,S,3], codebook [T,c] -> ids int32 [B,K] and features fp32 [B,d].

    A family subclasses it with ``forward`` and ``spelled``. grey: the model takes one channel. dtype: of the nets.
    """

    def __init__(self, layout: PyramidLayout, *, grey: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.layout = layout
        self.grey = grey
        self.dtype = dtype

    def images(self, pixels: Tensor) -> Tensor:
        """[B,ch,S,S] (of clips [B,T,ch,S,S]) in [0,1], in the nets' type."""
        images = pixels.movedim(-1, -3).to(torch.float32) / 255
        if self.grey:
            images = images.mean(-3, keepdim=True)
        return images.to(self.dtype)

    def spelled(self, pixels: Tensor, codebook: Tensor) -> validate_pyramids.Spelling:
        """The module's words of images, and how near others are; no gradients."""
        raise NotImplementedError


class WordsToPixels(nn.Module):
    """ids int32 [B,K], how many layers of them count, codebook [T,c] -> uint8 pixels [B,S,S,3].

    A family subclasses it with ``images``.
    """

    def __init__(self, layout: PyramidLayout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, ids: Tensor, layers: Tensor, codebook: Tensor) -> Tensor:
        parts_of = torch.split(ids, list(self.layout.counts), 1)
        grids = [part.reshape(-1, *grid) for part, grid in zip(parts_of, self.layout.grids, strict=True)]
        images = self.images(grids, layers, codebook).to(torch.float32).clamp(0, 1)
        images = images.expand(*(-1,) * (images.ndim - 3), 3, -1, -1)
        return (images * 255).round().to(torch.uint8).movedim(-3, -1)

    def images(self, grids: Sequence[Tensor], layers: Tensor, codebook: Tensor) -> Tensor:
        """[B,ch,S,S] (of clips [B,T,ch,S,S]), of ids int32 [B,h_l,w_l], one tensor per layer."""
        raise NotImplementedError


class Pieces:
    """What a family gives: its graphs of a model, constants of the encoder, and what only its cards say."""

    def encoder(self, dtype: torch.dtype) -> PixelsToWords:
        raise NotImplementedError

    def decoder(self, dtype: torch.dtype) -> WordsToPixels:
        raise NotImplementedError

    def constants(self) -> dict[str, Tensor]:
        """Further inputs of the encoder that never change, by name."""
        return {}

    def files(self) -> dict[str, Path]:
        """Further files of the folder, by name."""
        return {}

    def card(self) -> dict[str, Any]:
        """``description``, ``draws_from`` and ``model``."""
        raise NotImplementedError


def export_pyramid(
    model: WordAutoencoder, config: ModelConfig, pieces: Pieces, width: int, out: Path, export: Export
) -> dict[str, Any]:
    """Round, export, compare and write one artefact folder; it appears only when everything holds.

    Args:
        model: trained; its weights are rounded in place (kept as fp32): to fp16, kernels and matrices perhaps to int8.
        config: the model's. pieces: what its family gives, of this very model. width: c, of its words' vectors.
        out: the folder.
        export: what to say about it.

    Returns:
        The card.

    Raises:
        ArtefactError: a graph does not compute what the module computes.
        UsageError: the codebook or pictures do not fit the model, or a weight exceeds the range of fp16.
    """
    if export.codebook.dimension != width or export.preprocessing.size != config.side:
        raise UsageError(
            f"the model has words of width {width} and images of {config.side} px; the codebook "
            f"{export.codebook.name!r} has width {export.codebook.dimension}, the preprocessing "
            f"{export.preprocessing.size} px"
        )
    round_to_fp16(model.eval())
    if export.weights == "int8":
        round_to_int8(model)
    codebook = torch.from_numpy(np.array(export.codebook.vectors))
    pixels = torch.from_numpy(export.pixels)
    constants = {"codebook": codebook, **pieces.constants()}
    reference = pieces.encoder(torch.float32).eval()
    with torch.inference_mode():
        spelled = [reference(part, **constants) for part in torch.split(pixels, 32 if pixels.ndim == 4 else 2)]
    truth, features = torch.cat([ids for ids, _ in spelled]), spelled[0][1].shape[1]
    dtype = torch.float16 if export.precision == "fp16" else torch.float32
    if export.precision == "fp16":
        model.half()  # the search computes in fp32 whatever its inputs are
    encoder, decoder = pieces.encoder(dtype).eval(), pieces.decoder(dtype).eval()
    batch = torch.export.Dim("batch")
    encoder_data, facts = graph(
        encoder, {"pixels": pixels[:2], **constants}, ["ids", "features"], {"pixels": {0: batch}}, export, model.layout
    )
    layers = torch.tensor([len(model.layout)])
    inputs = {"ids": truth[:2], "layers": layers, "codebook": codebook}
    decoder_data, _ = graph(decoder, inputs, ["pixels"], {"ids": {0: batch}}, export, model.layout)
    _check_signatures(encoder_data, decoder_data, pixels, truth, constants, features)
    parity = validate_pyramids.check_pyramids(
        encoder, decoder, encoder_data, decoder_data, pixels.numpy(), constants, exact=export.precision == "fp32"
    )
    metrics = {"parity": parity.to_dict(), **export.card.get("metrics", {})}
    if export.precision == "fp16":
        metrics["fp16_agreement"] = validate_pyramids.agreement(encoder_data, pixels.numpy(), constants, truth.numpy())
    stored = {ENCODER_FILE: parts.share(encoder_data), DECODER_FILE: parts.share(decoder_data)}
    whole = {
        **facts,
        "layout": model.layout.to_dict(),
        "features": features,
        "opset": artefact.OPSET,
        "preprocessing": export.preprocessing.to_dict(),
        "precision": export.precision,
        "weights": export.weights,
        **pieces.card(),
        **export.card,
        "metrics": metrics,
        "versions": artefact.versions(),
        **parts.facts(stored),
    }
    with artefact.writing(out, kind=PYRAMID) as folder:
        for name, each in stored.items():
            (folder / name).write_bytes(each.data)
        for name, file in pieces.files().items():
            shutil.copyfile(file, folder / name)
        return artefact.write_card(folder, whole)


def _check_signatures(
    encoder: bytes, decoder: bytes, pixels: Tensor, ids: Tensor, constants: Mapping[str, Tensor], features: int
) -> None:
    shape, words = ["batch", *pixels.shape[1:]], ids.shape[1]
    fixed = {name: ("tensor(float)", list(value.shape)) for name, value in constants.items()}
    check_signature(
        ort.InferenceSession(encoder, cpu_settings(), providers=[CPU]),
        {"pixels": ("tensor(uint8)", shape), **fixed},
        {"ids": ("tensor(int32)", ["batch", words]), "features": ("tensor(float)", ["batch", features])},
    )
    check_signature(
        ort.InferenceSession(decoder, cpu_settings(), providers=[CPU]),
        {"ids": ("tensor(int32)", ["batch", words]), "layers": ("tensor(int64)", [1]), "codebook": fixed["codebook"]},
        {"pixels": ("tensor(uint8)", shape)},
    )
