"""Text features of a vocabulary in the space of a CLIP-like model, computed once and kept.

Knows: the 80 ImageNet templates, eq. (5) of SPAE, and where the result is kept.
Refuses to know: images, and what the features guide.

Source: f'(k) = mean over templates of f(p_i(k)), eq. (5) of Yu et al. 2023, "SPAE" (arXiv:2306.17842), with f CLIP's
unit vectors; the mean is not brought back to length 1. The templates are those of CLIP's zero-shot ImageNet
classifier (Radford et al. 2021, arXiv:2103.00020, appendix A; the code's list of 80).

80 templates x 14,210 words are 1.1 million passes of the text tower: minutes on a GPU, a day on a few CPU cores. Hence
the cache, and ``templates`` may be shortened.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from icl_vision.errors import UsageError
from icl_vision.files.storage import atomic_path, cache_dir
from icl_vision.models.words.clip_words import ClipParts
from icl_vision.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

IMAGENET_TEMPLATES: tuple[str, ...] = tuple(
    """
    a bad photo of a {}.|a photo of many {}.|a sculpture of a {}.|a photo of the hard to see {}.
    a low resolution photo of the {}.|a rendering of a {}.|graffiti of a {}.|a bad photo of the {}.
    a cropped photo of the {}.|a tattoo of a {}.|the embroidered {}.|a photo of a hard to see {}.
    a bright photo of a {}.|a photo of a clean {}.|a photo of a dirty {}.|a dark photo of the {}.
    a drawing of a {}.|a photo of my {}.|the plastic {}.|a photo of the cool {}.
    a close-up photo of a {}.|a black and white photo of the {}.|a painting of the {}.|a painting of a {}.
    a pixelated photo of the {}.|a sculpture of the {}.|a bright photo of the {}.|a cropped photo of a {}.
    a plastic {}.|a photo of the dirty {}.|a jpeg corrupted photo of a {}.|a blurry photo of the {}.
    a photo of the {}.|a good photo of the {}.|a rendering of the {}.|a {} in a video game.
    a photo of one {}.|a doodle of a {}.|a close-up photo of the {}.|a photo of a {}.
    the origami {}.|the {} in a video game.|a sketch of a {}.|a doodle of the {}.
    a origami {}.|a low resolution photo of a {}.|the toy {}.|a rendition of the {}.
    a photo of the clean {}.|a photo of a large {}.|a rendition of a {}.|a photo of a nice {}.
    a photo of a weird {}.|a blurry photo of a {}.|a cartoon {}.|art of a {}.
    a sketch of the {}.|a embroidered {}.|a pixelated photo of a {}.|itap of the {}.
    a jpeg corrupted photo of the {}.|a good photo of a {}.|a plushie {}.|a photo of the nice {}.
    a photo of the small {}.|a photo of the weird {}.|the cartoon {}.|art of the {}.
    a drawing of the {}.|a photo of the large {}.|a black and white photo of a {}.|the plushie {}.
    a dark photo of a {}.|itap of a {}.|graffiti of the {}.|a toy {}.
    itap of my {}.|a photo of a cool {}.|a photo of a small {}.|a tattoo of the {}.
    """.strip().replace("\n", "|").replace("|    ", "|").split("|")
)  # fmt: skip


def model_fingerprint(model: Any) -> str:
    """Hex sha256 of a CLIP-like model's class and of every weight outside its image tower, whatever file it is from."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith(("vision", "visual")):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def vocabulary_features(
    parts: ClipParts,
    vocabulary: Vocabulary,
    *,
    templates: Sequence[str] = IMAGENET_TEMPLATES,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Eq. (5) for every word: float32 [T, c] on the CPU; read from the cache where it was computed before.

    Args:
        parts: the model, from ``load_clip``. Left on ``device``.
        vocabulary: the words.
        templates: each with one ``{}``.
        cache: the folder of the cache; None takes ``text-features`` in the user's cache folder. A file there is keyed
            by the model's weights, the vocabulary's hash and the templates.
        device: where the text tower runs.

    Raises:
        UsageError: no templates, or one without ``{}``.
    """
    templates = tuple(templates)
    wrong = [template for template in templates if "{}" not in template]
    if not templates or wrong:
        raise UsageError(
            f"templates must hold {{}} where the word goes, one template or more; got {wrong or templates}"
        )
    kinds = hashlib.sha256("\n".join(templates).encode()).hexdigest()
    key = f"{model_fingerprint(parts.model)[:24]}-{vocabulary.hash[:24]}-{kinds[:12]}"
    path = (cache_dir() / "text-features" if cache is None else cache) / f"{key}.safetensors"
    stored = _read(path, len(vocabulary))
    if stored is not None:
        return stored
    on_device = replace(parts, model=_TextTower(parts.model.to(device), torch.device(device)))
    total = np.zeros(())
    for template in tqdm(templates, desc="text features", unit="template", disable=not sys.stderr.isatty()):
        total = total + on_device.embed_texts(vocabulary.words, template=template)
    features = torch.from_numpy((total / len(templates)).astype(np.float32))
    with atomic_path(path) as temporary:
        save_file({"features": features}, temporary, metadata={"model": parts.name, "vocabulary": vocabulary.hash})
    logger.info("kept the text features of %d words by %s in %s", len(features), parts.name, path)
    return features


class _TextTower:
    """A CLIP-like model as ``ClipParts.embed_texts`` needs it, whatever device it is on: CPU tensors in and out."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.config = model.config
        self._model = model
        self._device = device

    def get_text_features(self, **inputs: Tensor) -> Tensor:
        output = self._model.get_text_features(**{name: value.to(self._device) for name, value in inputs.items()})
        features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return features.cpu()


def _read(path: Path, words: int) -> Tensor | None:
    """The kept features; None where there are none, or where the file is damaged (it is then written again)."""
    if not path.is_file():
        return None
    try:
        features: Tensor = load_file(path)["features"]
        if features.ndim == 2 and len(features) == words and bool(torch.isfinite(features).all()):
            return features
        reason = f"features of shape {list(features.shape)} or not finite"
    except (SafetensorError, KeyError, OSError) as error:
        reason = str(error)
    logger.warning("%s is damaged (%s); the text features are computed again", path, reason)
    return None
