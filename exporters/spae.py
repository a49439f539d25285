"""SPAE as an artefact folder: a SPAE, RQ or VQ model becomes two graphs and a card.

Knows: what the two graphs compute, what is compared with the module, what goes onto the card.
Refuses to know: training, checkpoints (checkpoint.py), how folders are written (artefact.py).

    encoder  pixels uint8 [batch, S, S, 3]; codebook float32 [T, c]; where the model names regions by classes, also
             class_bias float32 [C]
             -> ids int32 [batch, K], coarse first; features float32 [batch, c or d], the mean of the vectors before
                they become words; where regions are named, the image's unit vector among the words
    decoder  ids int32 [batch, K]; layers int64 [1]; codebook -> pixels uint8 [batch, S, S, 3]

The codebook is an input: it lives once, in a folder of its own. "fp16" as a precision means fp16 arithmetic in the
nets (weights are stored as fp16 either way); the search for words stays in fp32. Its words are compared with those
of the fp32 module and their agreement goes onto the card.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.models.quantizers.base import Quantized
from icl_vision.models.rounding import round_to_fp16, round_to_int8
from icl_vision.models.spae import SPAE
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.artefact import CLASSES_FILE, DECODER_FILE, ENCODER_FILE
from icl_vision.tokenizers.onnx import PYRAMID
from icl_vision.tokenizers.sessions import CPU, cpu_settings
from icl_vision.tokenizers.zoo import find

from . import artefact, parts, validate_pyramids
from .checkpoint import Export, graph
from .validate import check_signature


class EncoderGraph(nn.Module):
    """uint8 pixels [B,S,S,3] -> ids int32 [B,K] and features fp32 [B,c or d]."""

    def __init__(self, spae: SPAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.spae = spae
        self.dtype = dtype

    def forward(self, pixels: Tensor, codebook: Tensor, class_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images = self.images(pixels)
        ids, features = self.spae.spell(images, self.latent(images), codebook, class_bias)
        return torch.cat([layer.flatten(1) for layer in ids], 1).to(torch.int32), features

    def images(self, pixels: Tensor) -> Tensor:
        """[B,ch,S,S] in [0,1], in the nets' type."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.spae.config.channels == 1:
            images = images.mean(1, keepdim=True)
        return images.to(self.dtype)

    def latent(self, images: Tensor) -> Tensor:
        """z, fp32 [B,c or d,H,W]."""
        return self.spae.encode(images).to(torch.float32)

    @property
    def layout(self) -> PyramidLayout:
        return self.spae.layout

    def spelled(self, pixels: Tensor, codebook: Tensor) -> SpaeSpelling:
        """The words of images, and how near others are; no gradients."""
        with torch.inference_mode():
            images = self.images(pixels)
            regions, given, scores = self.spae.regions, (), torch.empty(0)
            if regions is not None:
                given, _ = regions(images, codebook)
                scores = regions.word_scores(regions.region_logits(images), codebook)
            quantized = self.spae.quantizer(self.latent(images), None, given)
        return SpaeSpelling(self.spae, codebook, quantized, scores)


@dataclass(frozen=True)
class SpaeSpelling:
    """What the module says of a batch. scores: probability of every word in each region [B,R,T]; empty without."""

    spae: SPAE
    codebook: Tensor
    quantized: Quantized
    scores: Tensor

    @property
    def ids(self) -> tuple[Tensor, ...]:
        return self.quantized.ids

    def waits(self, layer: int) -> bool:
        return layer <= self.spae.config.region_layers  # a region's word is free for the next only if it was not taken

    def equally_good(self, image: int, layer: int, index: int, pair: list[int]) -> bool:
        if self.waits(layer):
            start = [0, *self.spae.layout.cumulative][layer - 1]
            return validate_pyramids.equally_likely(self.scores[image, start + index], pair)
        target = self.quantized.targets[layer - 1][image].flatten(1)[:, index].double()
        words = self.spae.quantizer.nearness(layer, pair, self.codebook).double()
        return validate_pyramids.equally_near(target, words, self.spae.quantizer.normalise)


class DecoderGraph(nn.Module):
    """ids int32 [B,K] and how many layers of them count -> uint8 pixels [B,S,S,3]."""

    def __init__(self, spae: SPAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.spae = spae
        self.dtype = dtype

    def forward(self, ids: Tensor, layers: Tensor, codebook: Tensor) -> Tensor:
        return (self.images(ids, layers, codebook) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def images(self, ids: Tensor, layers: Tensor, codebook: Tensor) -> Tensor:
        """fp32 [B,3,S,S] in [0,1]."""
        layout = self.spae.layout
        parts = torch.split(ids, list(layout.counts), 1)
        grids = [part.reshape(-1, *grid) for part, grid in zip(parts, layout.grids, strict=True)]
        latent = self.spae.quantizer.decode_ids(grids, layers.reshape(()), codebook)
        images = self.spae.decode(latent.to(self.dtype)).to(torch.float32).clamp(0, 1)
        return images.expand(-1, 3, -1, -1)


def export_spae(spae: SPAE, out: Path, export: Export) -> dict[str, Any]:
    """Round, export, compare and write one artefact folder; it appears only when everything holds.

    Args:
        spae: trained; its weights are rounded in place (kept as fp32): to fp16, kernels and matrices perhaps to int8.
        out: the folder.
        export: what to say about it.

    Returns:
        The card.

    Raises:
        ArtefactError: a graph does not compute what the module computes.
        UsageError: the codebook or pictures do not fit the model, or a weight exceeds the range of fp16.
    """
    if export.codebook.dimension != spae.config.dim or export.preprocessing.size != spae.config.side:
        raise UsageError(
            f"the model has words of width {spae.config.dim} and images of {spae.config.side} px; the codebook "
            f"{export.codebook.name!r} has width {export.codebook.dimension}, the preprocessing "
            f"{export.preprocessing.size} px"
        )
    round_to_fp16(spae.eval())
    if export.weights == "int8":
        round_to_int8(spae)
    codebook = torch.from_numpy(np.array(export.codebook.vectors))
    pixels = torch.from_numpy(export.pixels)
    constants = {"codebook": codebook}
    if spae.regions is not None:
        constants["class_bias"] = torch.zeros(len(spae.regions.class_vectors))
    reference = EncoderGraph(spae).eval()
    with torch.inference_mode():
        spelled = [reference(part, **constants) for part in torch.split(pixels, 32)]
    truth, width = torch.cat([ids for ids, _ in spelled]), spelled[0][1].shape[1]
    dtype = torch.float16 if export.precision == "fp16" else torch.float32
    if export.precision == "fp16":
        spae = spae.half()  # the quantizer computes in fp32 whatever its inputs are
    encoder, decoder = EncoderGraph(spae, dtype).eval(), DecoderGraph(spae, dtype).eval()
    batch = torch.export.Dim("batch")
    encoder_data, facts = graph(
        encoder, {"pixels": pixels[:2], **constants}, ["ids", "features"], {"pixels": {0: batch}}, export, spae.layout
    )
    layers = torch.tensor([len(spae.layout)])
    inputs = {"ids": truth[:2], "layers": layers, "codebook": codebook}
    decoder_data, _ = graph(decoder, inputs, ["pixels"], {"ids": {0: batch}}, export, spae.layout)
    _check_signatures(encoder_data, decoder_data, spae, constants, width)
    parity = validate_pyramids.check_pyramids(
        encoder, decoder, encoder_data, decoder_data, pixels.numpy(), constants, exact=export.precision == "fp32"
    )
    metrics = {"parity": parity.to_dict(), **export.card.get("metrics", {})}
    if export.precision == "fp16":
        metrics["fp16_agreement"] = validate_pyramids.agreement(encoder_data, pixels.numpy(), constants, truth.numpy())
    stored = {ENCODER_FILE: parts.share(encoder_data), DECODER_FILE: parts.share(decoder_data)}
    whole = {
        **facts,
        "description": f"Images as pyramids of words, {spae.layout.cumulative[-1]} at most, and back.",
        "layout": spae.layout.to_dict(),
        "features": width,
        "opset": artefact.OPSET,
        "preprocessing": export.preprocessing.to_dict(),
        "precision": export.precision,
        "weights": export.weights,
        "draws_from": spae.config.region_layers + 1,
        "model": spae.config.to_dict(),
        **export.card,
        "metrics": metrics,
        "versions": artefact.versions(),
        **parts.facts(stored),
    }
    with artefact.writing(out, kind=PYRAMID) as folder:
        for name, each in stored.items():
            (folder / name).write_bytes(each.data)
        if spae.regions is not None:  # the classes are those of words-photo, whose trunk and vectors these are
            shutil.copyfile(find("words-photo") / CLASSES_FILE, folder / CLASSES_FILE)
        return artefact.write_card(folder, whole)


def _check_signatures(encoder: bytes, decoder: bytes, spae: SPAE, constants: Mapping[str, Tensor], width: int) -> None:
    side, words = spae.config.side, spae.layout.cumulative[-1]
    fixed = {name: ("tensor(float)", list(value.shape)) for name, value in constants.items()}
    check_signature(
        ort.InferenceSession(encoder, cpu_settings(), providers=[CPU]),
        {"pixels": ("tensor(uint8)", ["batch", side, side, 3]), **fixed},
        {"ids": ("tensor(int32)", ["batch", words]), "features": ("tensor(float)", ["batch", width])},
    )
    book = fixed["codebook"]
    check_signature(
        ort.InferenceSession(decoder, cpu_settings(), providers=[CPU]),
        {"ids": ("tensor(int32)", ["batch", words]), "layers": ("tensor(int64)", [1]), "codebook": book},
        {"pixels": ("tensor(uint8)", ["batch", side, side, 3])},
    )
