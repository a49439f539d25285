"""The fit of the head: many logistic regressions that share what they know through the words' vectors.

Knows: views of pictures, targets, the loss, how the fitted map becomes low-rank layers. Refuses to know: captions,
files.

    z_w = b_w + x . (A v_w + u_w) + g log p(w | x)
    loss = sum over pictures and words of their weight times the binary cross-entropy + a |A|^2 + o sum |u_w|^2

x are the strongest principal axes of the views; v_w the words' vectors, less their mean. A lets "puppies", of which
three pictures are known, learn from "dog" (label embedding, Akata et al. 2013), u_w is what a word has of its own. All
of it is one linear map in the end, and its outputs on the training pictures are kept as well as the rank allows.

Letters in shapes: N pictures, D width of the views, S words, c width of the words' vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.models.words.describe import SaidHead


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the head is fitted (docs/describe-photo.md). The weight decays were chosen by five-fold cross-validation on
    the tuning captions, ``most`` by the same with ridge regressions; axes, rank and steps were set, not tuned.

    axes: principal axes of the views. shared, own: weight decay of A and of u. steps: of L-BFGS at most. rank: of the
    linear map. most: how many times a picture of a small set may count, where sets differ in size.
    """

    axes: int = 300
    shared: float = 1e-3
    own: float = 3e-4
    steps: int = 70
    rank: int = 128
    most: float = 3.0


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted head of full precision: logits = (x down) up + bias + gain log p(w | x).

    down: [D, r]. up: [r, S]. bias, gain: [S].
    """

    down: Tensor
    up: Tensor
    bias: Tensor
    gain: Tensor

    def logits(self, views: Tensor, logs: Tensor) -> Tensor:
        """views: [N, D]. logs: log p(w | x) [N, S]. -> [N, S]."""
        return views @ self.down @ self.up + self.bias + self.gain * logs

    def scaled(self, scale: Tensor, shift: Tensor) -> Linear:
        """The head whose logits are ``scale * logits + shift``; both [S]."""
        return Linear(self.down, self.up * scale, self.bias * scale + shift, self.gain * scale)

    def head(self, ids: Tensor, features: int) -> SaidHead:
        """As the module that is exported. ids: [S], of the words in the codebook. features: F of the views' F + C."""
        module = SaidHead(features, len(self.down) - features, len(ids), self.down.shape[1])
        with torch.no_grad():
            module.ids.copy_(ids)
            module.gain.copy_(self.gain)
            module.down.weight.copy_(self.down.T)
            module.up.weight.copy_(self.up.T)
            module.up.bias.copy_(self.bias)
        return module.eval().requires_grad_(False)


def fit(views: Tensor, logs: Tensor, said: Tensor, weights: Tensor, vectors: Tensor, recipe: Recipe) -> Linear:
    """Fit the head.

    Args:
        views: [N, D]. logs: log p(w | x) [N, S]. said: 1 where captions say the word, [N, S]. weights: of pictures [N].
        vectors: of the words, [S, c].

    Raises:
        UsageError: fewer than two pictures.
    """
    if len(views) < 2:
        raise UsageError(f"a head needs at least two captioned pictures; got {len(views)}")
    share = (weights / weights.sum()).unsqueeze(1)
    centre, level = views.mean(0), logs.mean(0)
    _, _, axes = torch.linalg.svd(views - centre, full_matrices=False)
    axes = axes[: recipe.axes]
    x = (views - centre) @ axes.T
    scale = x.square().sum(1).mean().sqrt().clamp(min=1e-9)
    x, around, words = x / scale, logs - level, vectors - vectors.mean(0)
    often = (share * said).sum(0).clamp(1e-4, 1 - 1e-4)
    bias = torch.logit(often).requires_grad_()
    shared = torch.zeros(x.shape[1], words.shape[1], requires_grad=True)
    own = torch.zeros(x.shape[1], said.shape[1], requires_grad=True)
    gain = torch.full((1,), 0.3, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [bias, shared, own, gain], max_iter=recipe.steps, history_size=8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        scores = bias + x @ own + (x @ shared) @ words.T + gain * around
        each = nn.functional.binary_cross_entropy_with_logits(scores, said, reduction="none")
        loss = (share * each).sum() + recipe.shared * shared.square().sum() + recipe.own * own.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # torch does not type it
    with torch.no_grad():
        matrix = own + shared @ words.T  # [axes, S]
        kept = torch.linalg.svd(share.sqrt() * (x @ matrix), full_matrices=False).Vh[: recipe.rank]  # [r, S]
        down = axes.T @ (matrix @ kept.T) / scale
        return Linear(
            down,
            kept,
            bias.detach() - centre @ down @ kept - gain.detach() * level,
            gain.detach().expand(said.shape[1]).clone(),
        )


def picture_weights(sets: Tensor, most: float) -> Tensor:
    """Weights of pictures [N]: those of smaller sets count more, up to ``most`` times. sets: number of its set, [N]."""
    counts = torch.bincount(sets).clamp(min=1)
    return (counts.max() / counts).clamp(max=most).float()[sets]
