"""Convolutional blocks the image autoencoders are built of.

Knows: the residual block, down- and upsampling of MaskGIT's VQGAN (Chang et al. 2022, arXiv:2202.04200, the network
SPAE takes over: GroupNorm and swish, convolutions without bias, average pooling down, nearest neighbour up), and a
mixer block that lets the few cells of a small grid see each other.
Refuses to know: words, quantization, losses, what an image shows.

Letters in shapes: B batch, C channels, H/W height and width, P cells of a grid, D hidden width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # of every GroupNorm where channels suffice; as in MaskGIT and the diffusion U-Nets


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or as many as leave every group at least four of few channels."""
    groups = max(1, min(GROUPS, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv3(c_in: int, c_out: int, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)


class ResBlock(nn.Module):
    """Norm, swish, 3x3, twice, plus the input (by a 1x1 convolution where widths differ). [B,C,H,W] -> [B,C',H,W]."""

    def __init__(self, c_in: int, c_out: int | None = None) -> None:
        super().__init__()
        c_out = c_in if c_out is None else c_out
        self.norm1 = group_norm(c_in)
        self.conv1 = conv3(c_in, c_out)
        self.norm2 = group_norm(c_out)
        self.conv2 = conv3(c_out, c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Head(nn.Module):
    """Norm, swish and one last convolution with bias. [B,C,H,W] -> [B,C',H,W]."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        self.norm = group_norm(c_in)
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.silu(self.norm(x)))
        return y


class Upsample(nn.Module):
    """Nearest neighbour, twice the size, then a 3x3 convolution. [B,C,H,W] -> [B,C,2H,2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class Downsample(nn.Module):
    """The mean of 2x2, then a 3x3 convolution. [B,C,H,W] -> [B,C,H/2,W/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.avg_pool2d(x, 2))
        return y


class MixerBlock(nn.Module):
    """Mixes cells, then channels, each by an MLP with layer norm before and the input added. [B,P,D] -> [B,P,D].

    A layer of MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601). Cells have fixed places, so the grid is fixed, and
    cost grows with the square of their number: meant for some dozens.

    Args:
        width: D.
        cells: P, the number of cells of the grid.
        hidden: width of the MLP across cells; the one across channels is twice as wide as they are.
    """

    def __init__(self, width: int, cells: int, hidden: int = 64) -> None:
        super().__init__()
        self.norm_cells = nn.LayerNorm(width)
        self.cells = nn.Sequential(nn.Linear(cells, hidden), nn.SiLU(), nn.Linear(hidden, cells))
        self.norm_channels = nn.LayerNorm(width)
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.cells(self.norm_cells(x).transpose(1, 2)).transpose(1, 2)
        y: Tensor = x + self.channels(self.norm_channels(x))
        return y
