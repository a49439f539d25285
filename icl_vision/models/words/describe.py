"""``describe-photo``: what is seen, what people would say of it, and what is where, each word with its probability.

Knows: how a classifier's last map, pooled features and logits become words and probabilities of them.
Refuses to know: the trunk that makes these three, pixels, captions, how the head is trained (``said/``), files, ONNX.

Three answers from one pass of the trunk:

*what*: the words of ``words-photo`` in the same order (``words/photo.py``). A word's p(w | x) there sums to 1 over the
vocabulary; its probability here says how often such a word is right, which is something else:

    P(w is right) = sigmoid(a0 + a1 log p(w | x) + a2 log rank + v_w . u)        rank from 1, v_w the word's vector

u says which directions of the codebook hold words that people use of pictures at all.

*said*: words of captions, by a linear head on views of the picture (below), which knows S words. Its probability is a
sigmoid, and means: at least one of five people says the word.

*where*: the class words of five regions. The map is averaged over a region; averaging and the last, linear layer may
change places, so a region has class logits as the whole picture has (class activation maps, Zhou et al. 2016,
arXiv:1512.04150). A region alone is seen out of context, so half of it is the whole picture's:

    s(c | r) = s(c | x) + (1 - 0.5) U D (mean of the map over r - mean of the map over the picture)

U D is the classifier's matrix, of low rank here: only the difference goes through it, and the trunk keeps its own.

Letters in shapes: B batch, F features, h/w sides of the map, C classes, T words of the codebook, c its width,
S words of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.errors import UsageError
from icl_vision.models.words.photo import (
    CLASS_TEMPERATURE,
    best_classes,
    class_words,
    look_alike_classes,
    words_of_classes,
)

K_MAX = 64
"""Words of *what* in the graph."""
REGIONS = ("top", "bottom", "left", "right", "centre")
REGION_WORDS = 8
REGION_CLASSES = 16
"""Classes whose words are looked up for all regions of a picture: the most probable in any of them."""
_WHOLE = 0.5
_LEAST = 1e-12  # of a probability whose logarithm is taken


class SaidHead(nn.Module):
    """Views of a picture -> logits of S words: one linear map of low rank.

    The views, each of length 1 and times its own weight: the mean of the map, its maximum over places, and the root of
    the class probabilities (so that their dot product is the Bhattacharyya coefficient of two pictures' classes).

    Args:
        features: F. classes: C. words: S. rank: of the map.
    """

    view_weights: Tensor

    def __init__(self, features: int, classes: int, words: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("view_weights", torch.ones(3))
        self.down = nn.Linear(2 * features + classes, rank, bias=False)
        self.up = nn.Linear(rank, words)

    def views(self, map: Tensor, features: Tensor, logits: Tensor) -> Tensor:
        """[B, 2F + C]; see the class."""
        probabilities = (logits / CLASS_TEMPERATURE).softmax(1)
        parts = (features, map.amax((2, 3)), probabilities.clamp(min=_LEAST).sqrt())
        return torch.cat([self.view_weights[place] * F.normalize(part) for place, part in enumerate(parts)], dim=1)

    def forward(self, map: Tensor, features: Tensor, logits: Tensor) -> Tensor:
        """Logits of the S words [B, S]."""
        scores: Tensor = self.up(self.down(self.views(map, features, logits)))
        return scores


class DescribeHeads(nn.Module):
    """All that ``describe-photo`` computes after the trunk, but for colours and read text.

    Args:
        classifier: float [C, F], the trunk's last layer, for the look-alikes.
        class_vectors: float [C, c], unit rows in the codebook's space.
        said: the head.
        rank: of the classifier's difference for regions; at most F and C, whatever is asked.
        k: words of *what*.

    Random or neutral until trained: probabilities of *what* and *where* are p(w | x) itself.
    """

    class_vectors: Tensor
    look_alikes: Tensor
    likeness: Tensor
    calibration: Tensor
    sayable: Tensor
    region_calibration: Tensor

    def __init__(
        self, classifier: Tensor, class_vectors: Tensor, said: SaidHead, *, rank: int = 128, k: int = K_MAX
    ) -> None:
        super().__init__()
        classes, features = classifier.shape
        if class_vectors.ndim != 2 or len(class_vectors) != classes:
            raise UsageError(f"class_vectors must be [{classes}, c]; got shape {list(class_vectors.shape)}")
        self.k, rank = k, min(rank, classes, features)
        self.said = said
        self.register_buffer("class_vectors", class_vectors.detach().clone())
        likeness, look_alikes = look_alike_classes(classifier.detach())
        self.register_buffer("look_alikes", look_alikes)  # int64 [C,5]
        self.register_buffer("likeness", likeness)  # float32 [C,5]
        self.region_down = nn.Linear(features, rank, bias=False)
        self.region_up = nn.Linear(rank, classes, bias=False)
        for name in ("calibration", "region_calibration"):
            self.register_buffer(name, torch.tensor([0.0, 1.0, 0.0]))
        self.register_buffer("sayable", torch.zeros(class_vectors.shape[1]))
        self.fit_regions(classifier)
        self.eval().requires_grad_(False)

    def fit_regions(self, classifier: Tensor, differences: Tensor | None = None) -> None:
        """The best low-rank stand-in of the classifier, in place.

        classifier: [C, F]. differences: [N, F], of regions to whole pictures; the squared error of their logits is the
        least there is at this rank (a singular value decomposition of their logits). None: of all directions alike.
        """
        with torch.no_grad():
            rank = self.region_down.out_features
            outputs = classifier if differences is None else differences @ classifier.T
            basis = torch.linalg.svd(outputs.double(), full_matrices=False)
            # Rows of V^T span the logits; without differences, the columns of the classifier themselves.
            axes = (basis.Vh[:rank] if differences is not None else basis.U[:, :rank].T).float()  # [r, C]
            self.region_up.weight.copy_(axes.T)
            self.region_down.weight.copy_(axes @ classifier)

    def forward(
        self, map: Tensor, features: Tensor, logits: Tensor, codebook: Tensor, class_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Words and probabilities of what, of what is said, and of regions.

        Args:
            map: float32 [B,F,h,w], the trunk's last map; h and w at least 2.
            features: float32 [B,F], its mean.
            logits: float32 [B,C].
            codebook: float32 [T,c], unit rows.
            class_bias: float32 [C], added to the logits: 0, or ``photo.WITHHELD`` for a class that must not be named.

        Returns:
            what's ids int32 [B,64], best first, and their probabilities float32 [B,64]; the probabilities of the head's
            words float32 [B,S]; the regions' ids int32 [B,5,8], in the order of ``REGIONS``, best first, and their
            probabilities float32 [B,5,8].
        """
        best, index = best_classes(logits, class_bias)
        shares, ids = class_words(best, index, self, codebook, class_bias).topk(self.k, dim=1)
        says = codebook @ self.sayable  # [T]
        biased = logits + class_bias
        said = self.said(map, features, biased).sigmoid()
        region_shares, region_ids = self.region_scores(map, features, biased, codebook, class_bias)
        return (
            ids.to(torch.int32),
            _calibrated(shares, says[ids], self.calibration),
            said,
            region_ids.to(torch.int32),
            _calibrated(region_shares, says[region_ids], self.region_calibration),
        )

    def region_scores(
        self, map: Tensor, features: Tensor, biased: Tensor, codebook: Tensor, class_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The best p(w | region) and whose they are, [B,5,8] each."""
        words = self.region_words(map, features, biased, codebook, class_bias)
        shares, ids = words.topk(min(REGION_WORDS, words.shape[2]), dim=2)
        return shares, ids

    def region_words(
        self, map: Tensor, features: Tensor, biased: Tensor, codebook: Tensor, class_bias: Tensor
    ) -> Tensor:
        """p(w | region) of every word [B,5,T]."""
        difference = region_means(map) - features.unsqueeze(1)  # [B,5,F]
        logits = biased.unsqueeze(1) + (1 - _WHOLE) * self.region_up(self.region_down(difference))  # [B,5,C]
        share = (logits / CLASS_TEMPERATURE).softmax(2)
        index = share.amax(1).topk(min(REGION_CLASSES, share.shape[2]), dim=1).indices  # [B,16]
        among = logits.gather(2, index.unsqueeze(1).expand(-1, len(REGIONS), -1))
        words: Tensor = (among / CLASS_TEMPERATURE).softmax(2) @ words_of_classes(index, self, codebook, class_bias)
        return words

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], *, k: int = K_MAX) -> DescribeHeads:
        """The heads of a saved ``state_dict()``; their sizes are those of its tensors.

        Raises:
            UsageError: tensors are missing, or do not fit each other.
        """
        try:
            classes, width = weights["class_vectors"].shape
            rank, features = weights["region_down.weight"].shape
            words, said_rank = weights["said.up.weight"].shape
            said = SaidHead(features, classes, words, said_rank)
            heads = cls(torch.zeros(classes, features), torch.zeros(classes, width), said, rank=rank, k=k)
            heads.load_state_dict(dict(weights))
        except (KeyError, ValueError, RuntimeError) as error:
            raise UsageError(f"these are not the weights of describe-photo's heads: {error}") from error
        return heads


def region_means(map: Tensor) -> Tensor:
    """Means of a map [B,F,h,w] over its ``REGIONS`` [B,5,F]: halves without the middle line, and the middle.

    Of 7 x 7 places: 3 rows, 3 rows, 3 columns, 3 columns, and the 3 x 3 in the centre.
    """
    height, width = map.shape[2:]
    rows, columns = height // 2, width // 2
    top, left = (height - rows) // 2, (width - columns) // 2
    regions: Sequence[Tensor] = (
        map[:, :, :rows],
        map[:, :, height - rows :],
        map[:, :, :, :columns],
        map[:, :, :, width - columns :],
        map[:, :, top : top + rows, left : left + columns],
    )
    return torch.stack([region.mean((2, 3)) for region in regions], dim=1)


def _calibrated(shares: Tensor, says: Tensor, weights: Tensor) -> Tensor:
    """Probabilities that words are right: shares p(w | x) [..., k] sorted, says v_w . u [..., k], three weights."""
    rank = torch.arange(1, shares.shape[-1] + 1, dtype=shares.dtype, device=shares.device).log()
    log = shares.clamp(min=_LEAST).log()
    return torch.sigmoid(weights[0] + weights[1] * log + weights[2] * rank + says)
