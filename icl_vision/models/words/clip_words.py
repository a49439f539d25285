"""An image's nearest words in the joint space of a CLIP-like model (CLIP, SigLIP and others of that shape).

Knows: how transformers loads such a model, its image and text towers, its pixel statistics.
Refuses to know: files of ours, ONNX. Needs transformers, at build time only.

Source: Radford et al. 2021 (arXiv:2103.00020) for the joint space; the words of the whole image are the "global"
words of V2L Tokenizer (Zhu et al. 2024, arXiv:2403.07874).

Letters in shapes: B batch, S side of the square input, T vocabulary, c width of the joint space.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, UsageError
from icl_vision.models.words.photo import WordsEncoder
from icl_vision.models.words.processor import agreement, read_processor
from icl_vision.tokenizers.pixels import Preprocessing

logger = logging.getLogger(__name__)

TEMPLATES = ("{}", "a photo of a {}.")


class ClipWords(WordsEncoder):
    """The image tower, its normalisation and a cosine with every word.

    Args:
        model: a transformers model with ``get_image_features``.
        mean, std: three numbers each, of pixels in [0, 1].
        k: words in the graph.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float], k: int = 64) -> None:
        super().__init__(k)
        # The text tower stays outside: only what get_image_features touches is exported.
        self.model: Any = model
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1))

    def scores(  # type: ignore[override]  # the graph's inputs have names
        self, pixels: Tensor, codebook: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosine of the image with every word [B,T], and the image's unit vector [B,c].

        pixels: uint8 [B,S,S,3]. codebook: float32 [T,c], unit rows.
        """
        x = (pixels.permute(0, 3, 1, 2).to(torch.float32) / 255.0 - self.mean) / self.std
        features = nn.functional.normalize(_pooled(self.model.get_image_features(pixel_values=x)), dim=-1)
        return features @ codebook.T, features

    def forward(self, pixels: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # the graph's inputs have names
        return super().forward(pixels, codebook)


@dataclass
class ClipParts:
    """What ``load_clip`` finds: the model, its tokenizer, and how it wants its images.

    mean, std: of pixels in [0, 1]; the processor's rescaling is folded into them.
    """

    name: str
    model: Any
    tokenizer: Any
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def embed_texts(self, texts: Sequence[str], *, template: str, batch_size: int = 256) -> npt.NDArray[np.float32]:
        """Unit vectors of texts in the joint space, float32 [N, c]. ``template`` holds one ``{}``."""
        vectors = []
        # SigLIP was trained on, and CLIP ignores, padding to the full length.
        length = int(self.model.config.text_config.max_position_embeddings)
        for start in range(0, len(texts), batch_size):
            filled = [template.format(text) for text in texts[start : start + batch_size]]
            batch = self.tokenizer(
                filled, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask") if key in batch}
            if "siglip" in str(self.model.config.model_type):
                inputs.pop("attention_mask", None)  # trained without a mask
            with torch.inference_mode():
                features = _pooled(self.model.get_text_features(**inputs))
            vectors.append(nn.functional.normalize(features.float(), dim=-1).numpy())
        return np.concatenate(vectors)

    def word_vectors(self, words: Sequence[str], templates: Sequence[str] = TEMPLATES) -> npt.NDArray[np.float32]:
        """Unit vectors of words: the mean over ``templates``, float32 [T, c]."""
        total = sum((self.embed_texts(words, template=template) for template in templates), np.zeros(()))
        mean: npt.NDArray[np.float32] = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
        return mean


def load_clip(encoder: str | os.PathLike[str]) -> ClipParts:
    """Load a CLIP-like model by folder, or by hub name through transformers' own cache and download.

    Raises:
        MissingExtraError: transformers is not installed.
        ArtefactNotFoundError: no such folder, and nothing of that name that transformers can reach.
        UsageError: a model without image and text features, or a processor that does what cannot be repeated here.
        ArtefactError: features by the processor itself are others than by what its fields say.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("building on a CLIP model (transformers)", "train") from error
    name = os.fspath(encoder)
    try:
        model = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(name)
        processor: Any = AutoImageProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]  # transformers does not type it
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtefactNotFoundError(
            f"no CLIP-like model {name!r}: give a folder that transformers saved (model, tokenizer, image processor) "
            f"or a hub name that can be downloaded ({lines[0]})"
        ) from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise UsageError(f"{name!r} is a {type(model).__name__}; it needs both image and text features, as CLIP has")
    rule = read_processor(name, processor)

    def features(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            pooled = _pooled(model.get_image_features(pixel_values=torch.from_numpy(pixels)))
        return np.asarray(pooled.float().numpy())

    logger.info("%s: pixels as its processor's to a cosine of %.4f", name, agreement(rule, processor, features))
    return ClipParts(name, model, tokenizer, rule.preprocessing, rule.mean, rule.std)


def _pooled(output: Any) -> Tensor:
    """Features as every transformers 4 and 5 model gives them: a tensor, or an output object that holds it."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features
