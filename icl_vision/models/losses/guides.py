"""Guides: how well every word of a vocabulary fits an image, for the semantic loss.

Knows: three ways to tell: a CLIP-like model, a classifier with named classes (ConSE), known labels.
Refuses to know: pools, thresholds, losses; the loss brings each image's scores to [0, 1] itself.

Sources: CLIP as SPAE uses it, Yu et al. 2023 (arXiv:2306.17842), section 3.1; ConSE, Norouzi et al. 2014
(arXiv:1312.5650), eq. 4.

Letters in shapes: B images, ch channels (1 or 3), S side, T words, c width of the joint space, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision import contracts
from icl_vision.errors import UsageError
from icl_vision.models.nets.batches import apply_rule, rgb, scale
from icl_vision.models.nets.efficientnet import SIDE, load_published
from icl_vision.models.words.clip_words import ClipParts, load_clip
from icl_vision.models.words.photo import CLASS_TEMPERATURE, WITHHELD, WordsPhoto, class_vectors, imagenet_names
from icl_vision.models.words.text_embedding import SentenceEmbedder
from icl_vision.models.words.text_features import IMAGENET_TEMPLATES, vocabulary_features

if TYPE_CHECKING:
    import numpy.typing as npt

    from icl_vision.codebook import Codebook
    from icl_vision.vocabulary import Vocabulary

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@runtime_checkable
class Guide(contracts.Guide, Protocol):
    """``contracts.Guide`` for torch training: batches of tensors, and labels for guides that need them."""

    def similarity(self, images: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """How well each word fits each image, float32 [B, T], higher is better, any scale; no gradient.

        images: [B, ch, S, S] in [0, 1]. labels: int64 [B] or None.
        """
        ...


class Embedder(Protocol):
    """Texts to vectors; a ``SentenceEmbedder`` is one."""

    dimension: int

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class _FrozenGuide(nn.Module):
    """What all guides share: frozen, in evaluation mode for good, moved with ``to``."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def _freeze(self) -> None:
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.similarity(images, labels=labels)
        return scores

    def similarity(self, images: Tensor, *, labels: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class CLIPGuide(_FrozenGuide):
    """Dot product of CLIP's unit image vector with eq. (5)'s text features.

    Args:
        parts: a CLIP-like model, from ``load_clip``.
        features: float32 [T, c], from ``vocabulary_features``.
    """

    features: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, parts: ClipParts, features: Tensor) -> None:
        super().__init__()
        self.model: Any = parts.model
        self.preprocessing = parts.preprocessing
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("mean", torch.tensor(parts.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(parts.std).view(1, -1, 1, 1), persistent=False)
        self._freeze()

    @classmethod
    def load(
        cls,
        encoder: str | os.PathLike[str],
        vocabulary: Vocabulary,
        *,
        templates: Sequence[str] = IMAGENET_TEMPLATES,
        cache: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> CLIPGuide:
        """A guide from a folder or hub name that transformers loads; the paper's is CLIP ViT-L/14.

        Text features are computed once and cached (see ``vocabulary_features`` for ``templates`` and ``cache``).

        Raises:
            MissingExtraError: transformers is not installed.
            ArtefactNotFoundError: nothing of that name that transformers can reach.
            UsageError: not a model with image and text features, or bad templates.
        """
        parts = load_clip(encoder)
        features = vocabulary_features(parts, vocabulary, templates=templates, cache=cache, device=device)
        return cls(parts, features).to(device)

    @torch.no_grad()
    def similarity(self, images: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Dot products, float32 [B, T]. ``labels`` are not looked at."""
        pixels = (apply_rule(rgb(images), self.preprocessing) - self.mean) / self.std
        output = self.model.get_image_features(pixel_values=pixels)
        vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return F.normalize(vectors.float(), dim=-1) @ self.features.T


class ConSEGuide(_FrozenGuide):
    """ConSE: the mean vector of EfficientNet-Lite0's 10 best classes, weighted by probability, against every word.

    Needs no download beyond PyPI packages. The classifier was trained with ImageNet's labels: figures on classes of
    ImageNet must say so, or withhold those classes.

    Unlike the mixture of ``words-photo`` (whose 10 best classes these are), which is made for naming and gives most
    words almost nothing, a cosine falls off gently, so that thresholds of 0.98 to 0.80 cut pools of useful sizes.

    Args:
        words: classifier and class vectors in the codebook's space.
        codebook: float32 [T, c], unit rows.
        withheld: class indices that are never named.
    """

    codebook: Tensor
    class_bias: Tensor

    def __init__(self, words: WordsPhoto, codebook: Tensor, withheld: Sequence[int] = ()) -> None:
        super().__init__()
        classes = words.class_vectors.shape[0]
        outside = [index for index in withheld if not 0 <= index < classes]
        if outside:
            raise UsageError(f"withheld classes must be 0 to {classes - 1}; got {outside}")
        self.words = words
        self.register_buffer("codebook", codebook, persistent=False)
        bias = torch.zeros(classes)
        bias[list(withheld)] = WITHHELD
        self.register_buffer("class_bias", bias, persistent=False)
        self._freeze()

    @classmethod
    def load(
        cls,
        codebook: Codebook,
        *,
        embedder: Embedder | None = None,
        withheld: Sequence[int] = (),
        device: torch.device | str = "cpu",
    ) -> ConSEGuide:
        """The guide over a codebook's words.

        Args:
            codebook: built from a sentence model.
            embedder: that same model; None takes all-MiniLM-L6-v2, that of the packaged codebook.
            withheld: see the class.
            device: where it runs.

        Raises:
            MissingExtraError: a package is missing; the message names it.
            ArtefactNotFoundError: all-MiniLM-L6-v2 is not installed.
            UsageError: the embedder is not the codebook's.
        """
        embedder = SentenceEmbedder() if embedder is None else embedder
        _check_space(embedder, codebook)
        trunk = load_published().fold()
        words = WordsPhoto(trunk, class_vectors(imagenet_names(), embedder, codebook))
        return cls(words, _vectors(codebook), withheld).to(device)

    @torch.no_grad()
    def similarity(self, images: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Cosines, float32 [B, T]. ``labels`` are not looked at."""
        pixels = scale(rgb(images), SIDE) * 255
        best, index, _ = self.words.top_classes(pixels.permute(0, 2, 3, 1), self.class_bias)
        share = (best / CLASS_TEMPERATURE).softmax(1).unsqueeze(1)  # [B, 1, 10]
        mean = (share @ self.words.class_vectors[index]).squeeze(1)  # [B, c]
        return F.normalize(mean, dim=1) @ self.codebook.T


class LabelGuide(_FrozenGuide):
    """Cosine of the true class's name with every word: guidance for labelled images such as digits.

    What it teaches is the label: with it the first word may simply name the class. Say so on the card, and train a twin
    without guidance as the control.

    Args:
        names: float32 [C, c], unit rows, the classes' names in the codebook's space.
        codebook: float32 [T, c], unit rows.
    """

    table: Tensor

    def __init__(self, names: Tensor, codebook: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", names @ codebook.T, persistent=False)  # [C, T]
        self._freeze()

    @classmethod
    def load(
        cls, codebook: Codebook, names: Sequence[str] = DIGIT_NAMES, *, embedder: Embedder | None = None
    ) -> LabelGuide:
        """The guide for classes called ``names``, in label order.

        A name that is a word of the codebook has that word's vector; only others need ``embedder`` (the sentence model
        that the codebook was built from; None takes all-MiniLM-L6-v2).

        Raises:
            UsageError: no names, or an embedder that is not the codebook's.
            ArtefactNotFoundError: all-MiniLM-L6-v2 is needed and not installed.
        """
        if isinstance(names, str) or not names:
            raise UsageError(f"names must be a list of class names, in label order; got {names!r}")
        vocabulary = codebook.vocabulary
        others = [name for name in names if name not in vocabulary]
        known = {name: codebook.vectors[vocabulary.ids([name])[0]] for name in names if name in vocabulary}
        if others:
            embedder = SentenceEmbedder() if embedder is None else embedder
            _check_space(embedder, codebook)
            vectors = class_vectors([[name] for name in others], embedder, codebook)
            known |= dict(zip(others, vectors, strict=True))
        return cls(torch.from_numpy(np.stack([known[name] for name in names])), _vectors(codebook))

    @torch.no_grad()
    def similarity(self, images: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Cosines, float32 [B, T].

        Raises UsageError where ``labels`` are missing, are not one per image, or name no class.
        """
        classes = len(self.table)
        if labels is None:
            raise UsageError("LabelGuide needs the images' labels: give labels, int64 [B], or another guide")
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise UsageError(
                f"labels must be whole numbers [{len(images)}], one per image; got {labels.dtype} {list(labels.shape)}"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UsageError(f"labels must be 0 to {classes - 1}; got {int(labels.min())} to {int(labels.max())}")
        return self.table[labels.to(self.table.device)]


def _vectors(codebook: Codebook) -> Tensor:
    return F.normalize(torch.from_numpy(codebook.vectors.copy()), dim=1)


def _check_space(embedder: Embedder, codebook: Codebook) -> None:
    if embedder.dimension != codebook.source_dimension:
        raise UsageError(
            f"the embedder gives {embedder.dimension} numbers, the codebook {codebook.name!r} was built from "
            f"{codebook.source_dimension}: give the sentence model that the codebook was built with"
        )
