"""The training loss of clips: that of images, in which clips may count alike.

Knows: how a clip's squared error is weighted. Refuses to know: all other parts (``spae.py``), data, optimisers.

Squared errors are dominated by clips that are hard, those that move; what is measured is decibels, of which a clip that
stands still gains as much by a smaller error as one that moves by a larger. Ours, not the paper's: each clip's error e
is weighted by (mean e / e)^even, without gradient. even 0 is the squared error; even 1 has the gradient of the mean of
log e, which is the mean of the clips' PSNR, at the squared error's size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from icl_vision.models.losses.spae import SpaeLoss

_TINY = 1e-8


class ClipLoss(SpaeLoss):
    """``SpaeLoss`` of clips [B, T, ch, S, S], or of their latents.

    Args: see ``SpaeLoss``. even: 0 to 1, see above.
    """

    def __init__(self, *parts: Any, even: float = 0.0) -> None:
        super().__init__(*parts)
        self.even = even

    def _pixel(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        if not self.even:
            return super()._pixel(reconstruction, target)
        errors = (reconstruction.float() - target.float()).square().flatten(1).mean(1)
        known = errors.detach().clamp(min=_TINY)
        return ((known.mean() / known) ** self.even * errors).mean()
