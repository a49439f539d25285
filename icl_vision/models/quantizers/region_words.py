"""Words for the upper layers of a pyramid: what is seen in the whole image, in its quarters, in its sixteenths.

Knows: how a classifier's map of features becomes class probabilities of regions, and these become words.
Refuses to know: appearance, quantization, files of ours other than the packaged ``words-photo``.

The trunk, the class vectors and the mixture of words are those of ``words-photo`` (``words/photo.py``); only the look
is new. The trunk's last map is averaged over each cell of a layer's grid. Averaging and the last, linear layer may
change places, so every region gets class logits as the whole image does (class activation maps, Zhou et al. 2016,
arXiv:1512.04150). A region alone is seen out of context, so its logits are mixed with those of the whole image:

    s(c | r) = g s(c | image) + (1 - g) s(c | region r alone)                g: ``_WHOLE``
    p(c | r) = softmax of (s / 1.5) over the 16 classes that are most probable in any region
    p(w | r) = sum over these classes of p(c | r) p(w | c)                   p(w | c) as in words/photo.py

Regions choose in order, coarse first, rows before columns, each the best word that is not taken yet: a word said twice
tells an LLM nothing new, and one that follows is still apt.

Letters in shapes: B batch, S side, R regions of all layers, C classes, T words, c codebook width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.models.nets.efficientnet import MEAN, STD, EfficientNetLite0
from icl_vision.models.quantizers.nearest import full_precision
from icl_vision.models.words.photo import CLASS_TEMPERATURE, LOOK_ALIKES, look_alike_classes, words_of_classes

TOP_CLASSES = 16
_WHOLE = 0.5
"""The share of the whole image in what is said of a region."""
_MAP_STRIDE = 32
_ENLARGED = 2  # the trunk was trained at 224 px; at twice 128 px its last map is 8 x 8


class RegionWords(nn.Module):
    """Images -> words for each region of the given grids, best first come.

    The weights are random until ``load_packaged``; they are frozen, and belong to ``state_dict()``.

    Args:
        grids: rows (= columns) of each layer, coarse first; each must divide S / 16.
        side: S.
        dim: c.
        classes: C.

    Raises:
        UsageError: a side or grids over which the trunk's last map cannot be shared out.
    """

    class_vectors: Tensor
    look_alikes: Tensor
    likeness: Tensor

    def __init__(self, grids: Sequence[int], side: int, dim: int, classes: int = 1000) -> None:
        super().__init__()
        cells = side * _ENLARGED // _MAP_STRIDE
        if side * _ENLARGED % _MAP_STRIDE or any(cells % grid for grid in grids):
            raise UsageError(
                f"words of regions need a side of a multiple of 16 px and grids that divide side / 16; got side {side} "
                f"and grids {list(grids)}"
            )
        self.grids = tuple(grids)
        self.trunk = EfficientNetLite0(classes).fold()
        self.register_buffer("class_vectors", torch.zeros(classes, dim))
        self.register_buffer("look_alikes", torch.zeros(classes, LOOK_ALIKES, dtype=torch.int64))
        self.register_buffer("likeness", torch.zeros(classes, LOOK_ALIKES))
        self.eval().requires_grad_(False)

    def forward(
        self, images: Tensor, codebook: Tensor, class_bias: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The words of each layer, int64 [B, h_l, w_l], and the image's unit vector among the words, fp32 [B, c].

        images: floating [B, 3, S, S] in [0, 1]. codebook: float32 [T, c], unit rows. class_bias: float32 [C], added to
        the logits: 0 for every class, ``WITHHELD`` for one that must not be named.
        """
        with torch.no_grad():
            logits = self.region_logits(images).float()
            with full_precision(images.device):
                if class_bias is not None:
                    logits = logits + class_bias
                scores = self.word_scores(logits, codebook, class_bias)
                return self._chosen(scores), F.normalize(scores[:, 0] @ codebook, dim=1)

    def region_logits(self, images: Tensor) -> Tensor:
        """Class logits of every region, the whole image mixed in, [B, R, C]."""
        features = self.features(images)
        regions = [_averages(features, grid) for grid in (1, *self.grids)]
        logits: Tensor = self.trunk.classifier(torch.cat(regions, dim=1))
        whole = logits[:, :1]
        return _WHOLE * whole + (1 - _WHOLE) * logits[:, 1:]

    def features(self, images: Tensor) -> Tensor:
        """The trunk's last map, [B, 1280, S/16, S/16]."""
        size = (images.shape[2] * _ENLARGED, images.shape[3] * _ENLARGED)
        pixels = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False) * 255.0
        trunk = self.trunk
        features: Tensor = trunk.head(trunk.blocks(trunk.stem((pixels - MEAN) / STD)))
        return features

    def word_scores(self, logits: Tensor, codebook: Tensor, class_bias: Tensor | None = None) -> Tensor:
        """p(w | region) of every word, [B, R, T], from ``region_logits`` and the codebook."""
        share = (logits / CLASS_TEMPERATURE).softmax(2)
        index = share.amax(1).topk(min(TOP_CLASSES, share.shape[2]), dim=1).indices  # [B, 16]
        p_word = words_of_classes(index, self, codebook, class_bias)  # [B, 16, T]
        among = logits.gather(2, index.unsqueeze(1).expand(-1, logits.shape[1], -1))
        return (among / CLASS_TEMPERATURE).softmax(2) @ p_word

    def _chosen(self, scores: Tensor) -> tuple[Tensor, ...]:
        free = torch.zeros_like(scores[:, 0])
        chosen = []
        for region in range(scores.shape[1]):
            best = (scores[:, region] + free).argmax(1, keepdim=True)
            free = free.scatter(1, best, -2.0)  # below every probability
            chosen.append(best)
        parts = torch.split(torch.cat(chosen, dim=1), [grid * grid for grid in self.grids], dim=1)
        return tuple(part.reshape(-1, grid, grid) for part, grid in zip(parts, self.grids, strict=True))

    def train(self, mode: bool = True) -> RegionWords:
        return super().train(False)  # frozen, whatever the model around it does

    def load_packaged(self) -> None:
        """Take the weights of the packaged ``words-photo``, in place.

        Raises:
            MissingExtraError: the package onnx, which reads them, is not installed.
            ArtefactError: the packaged tokenizer is missing or damaged.
            UsageError: another number of classes or another codebook width.
        """
        weights = _packaged_weights()
        if weights["class_vectors"].shape != self.class_vectors.shape:
            raise UsageError(
                f"words-photo holds class vectors {list(weights['class_vectors'].shape)}, this model needs "
                f"{list(self.class_vectors.shape)}: set model.dim to the width of the packaged codebook"
            )
        self.class_vectors.copy_(weights.pop("class_vectors"))
        self.trunk.load_state_dict({name.removeprefix("trunk."): value for name, value in weights.items()})
        likeness, look_alikes = look_alike_classes(self.trunk.classifier.weight.detach())
        self.look_alikes.copy_(look_alikes)
        self.likeness.copy_(likeness)


def _averages(features: Tensor, grid: int) -> Tensor:
    """Means over the cells of a grid, raster order: [B, F, h, w] -> [B, grid * grid, F]."""
    cell = features.shape[2] // grid
    return F.avg_pool2d(features, cell).flatten(2).transpose(1, 2)


def _packaged_weights() -> dict[str, Tensor]:
    """Trunk and class vectors by name, float32, out of the graph of ``words-photo``."""
    from icl_vision.tokenizers.artefact import ENCODER_FILE
    from icl_vision.tokenizers.parts import whole_graph
    from icl_vision.tokenizers.zoo import find
    from icl_vision.vocabulary import read_card

    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("reading the weights of words-photo (onnx)", "train") from error
    folder = find("words-photo")
    model = onnx.load_model_from_string(whole_graph(folder, read_card(folder), ENCODER_FILE))
    arrays = {tensor.name.removesuffix("_fp16"): numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        name: torch.from_numpy(array.astype("float32"))
        for name, array in arrays.items()
        if name.startswith("trunk.") or name == "class_vectors"
    }
