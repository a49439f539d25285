"""``describe-photo``: what is seen, what people would say of it, and what is where, each word with its probability.

Knows: how a classifier's last map, pooled features and logits become words and probabilities of them.
Refuses to know: the trunk that makes these three, pixels, captions, how the head is trained, files, ONNX.

Three answers from one pass of the trunk:

*what*: the words of ``words-photo`` in the same order (``words/photo.py``). A word's p(w | x) there sums to 1 over the
vocabulary; its probability here says how often such a word is right, which is something else:

    P(w is right) = sigmoid(a0 + a1 log p(w | x) + a2 log rank + v_w . u)        rank from 1, v_w the word's vector

u says which directions of the codebook hold words that people use of pictures at all.

*said*: words of captions, by a linear head (``SaidHead``), which knows S words. Its probability is a sigmoid, and
means: at least one of five people says the word.

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
LEAST_SHARE = 1e-5
"""The least p(w | x) that the head tells from none."""
_LEAST = 1e-12  # of a probability whose logarithm or root is taken


class SaidHead(nn.Module):
    """Views of a picture and its class words -> logits of S words: one linear map of low rank, and a share of *what*.

        z_w = b_w + W_w x + g_w log p(w | x)

    x is the mean of the map beside the root of the class probabilities (whose dot product is the Bhattacharyya
    coefficient of two pictures' classes), each of length 1. p(w | x) is that of *what*, which knows words that hardly
    any caption held.

    Args:
        features: F. classes: C. words: S. rank: of W.
    """

    ids: Tensor
    gain: Tensor

    def __init__(self, features: int, classes: int, words: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.zeros(words, dtype=torch.int64))  # of its words in the codebook
        self.register_buffer("gain", torch.zeros(words))
        self.down = nn.Linear(features + classes, rank, bias=False)
        self.up = nn.Linear(rank, words)

    def forward(self, features: Tensor, logits: Tensor, shares: Tensor) -> Tensor:
        """Logits of the S words [B,S]. features: [B,F]. logits: [B,C]. shares: p(w | x) of the codebook [B,T]."""
        known = shares[:, self.ids].clamp(min=LEAST_SHARE).log()
        scores: Tensor = self.up(self.down(views(features, logits))) + self.gain * known
        return scores


def views(features: Tensor, logits: Tensor) -> Tensor:
    """What the head sees of pictures, [B, F + C]; see ``SaidHead``."""
    probabilities = (logits / CLASS_TEMPERATURE).softmax(1)
    return torch.cat([F.normalize(features), probabilities.clamp(min=_LEAST).sqrt()], dim=1)


class DescribeHeads(nn.Module):
    """All that ``describe-photo`` computes after the trunk, but for colours and read text.

    Args:
        classifier: float [C, F], the trunk's last layer, for the look-alikes.
        class_vectors: float [C, c], unit rows in the codebook's space.
        said: the head.
        rank: of the classifier's difference for regions; at most F and C, whatever is asked.
        k: words of *what*.

    Random or neutral until trained: probabilities of *what* and *where* are p / (1 + p) of p(w | x).
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

        classifier: [C, F]. differences: [N, F], of regions to whole pictures, any number of them; the squared error of
        their logits is the least there is at this rank (their principal axes). None: of all directions alike.
        """
        with torch.no_grad():
            rank = self.region_down.out_features
            # The strongest directions among logits of classes: of those of the differences, or of any features.
            outputs = classifier.T if differences is None else differences @ classifier.T  # [., C]
            _, directions = torch.linalg.eigh((outputs.T @ outputs).double())  # the weakest first
            axes = directions[:, -rank:].T.float()  # [r, C]
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
        words = class_words(best, index, self, codebook, class_bias)
        shares, ids = words.topk(self.k, dim=1)
        biased = logits + class_bias
        said = self.said(features, biased, words).sigmoid()
        difference = region_means(map) - features.unsqueeze(1)  # [B,5,F]
        region_shares, region_ids = self.region_scores(difference, biased, codebook, class_bias)
        return (
            ids.to(torch.int32),
            word_chances(shares, codebook[ids] @ self.sayable, self.calibration),
            said,
            region_ids.to(torch.int32),
            word_chances(region_shares, codebook[region_ids] @ self.sayable, self.region_calibration),
        )

    def region_scores(
        self, difference: Tensor, biased: Tensor, codebook: Tensor, class_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The best p(w | region) and whose they are, [B,5,8] each; for the arguments see ``region_words``."""
        words = self.region_words(difference, biased, codebook, class_bias)
        shares, ids = words.topk(min(REGION_WORDS, words.shape[2]), dim=2)
        return shares, ids

    def region_words(self, difference: Tensor, biased: Tensor, codebook: Tensor, class_bias: Tensor) -> Tensor:
        """p(w | region) of every word [B,5,T].

        difference: of the regions' means to the picture's, [B,5,F]. biased: logits with the bias added [B,C].
        """
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


def word_chances(shares: Tensor, says: Tensor, weights: Tensor) -> Tensor:
    """Probabilities that words are right, [..., k]: the sigmoid of the module docstring.

    shares: p(w | x) [..., k], best first. says: v_w . u [..., k]. weights: a0, a1, a2.
    """
    return torch.sigmoid(word_terms(shares) @ weights + says)


def word_terms(shares: Tensor) -> Tensor:
    """What ``weights`` weigh of words: 1, log p(w | x), log rank, [..., k, 3]. shares: [..., k], best first."""
    rank = torch.arange(1, shares.shape[-1] + 1, dtype=shares.dtype, device=shares.device).log()
    log = shares.clamp(min=_LEAST).log()
    return torch.stack([torch.ones_like(log), log, rank.expand_as(log)], dim=-1)
