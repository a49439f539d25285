"""Probabilities that mean what they say: of the head's words by groups of frequency, of class words by their vectors.

Knows: logistic calibration (Platt 1999) on predictions for pictures that were not trained on. Refuses to know: files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icl_vision.models.words.describe import word_terms

GROUPS = (0.0, 0.01, 0.03, 0.1, 1.0)
"""Bounds of the groups: the share of pictures whose captions say a word."""
_DECAY = 1e-4  # of u, per row: keeps it from learning single words


def group_of(said: Tensor) -> Tensor:
    """The frequency group of each word, [S]. said: [N, S]."""
    return torch.bucketize(said.float().mean(0), torch.tensor(GROUPS[1:-1]), right=True)


def by_group(logits: Tensor, said: Tensor, weights: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of each word's logits, [S] each, one pair a group.

    Args:
        logits: of words on pictures that the head did not learn from [N, S]; NaN where it did not know the word.
        said: [N, S]. weights: [N]. groups: [S].
    """
    scale, shift = torch.ones(len(groups)), torch.zeros(len(groups))
    for group in range(len(GROUPS) - 1):
        columns = groups == group
        if not columns.any():
            continue
        known = ~logits[:, columns].isnan()
        z, truth = logits[:, columns][known], said[:, columns][known].float()
        weight = weights.unsqueeze(1).expand(-1, int(columns.sum()))[known]
        terms = torch.stack([torch.ones_like(z), z], dim=1)
        fitted = _logistic(terms, truth, weight, torch.tensor([0.0, 1.0]), decay=0.0, start=2)
        shift[columns], scale[columns] = fitted[0], fitted[1].clamp(min=0.0)  # never turned round
    return scale, shift


@dataclass(frozen=True, slots=True)
class Words:
    """Words that a picture was given by classes, best first, and whether they are right.

    shares: p(w | x) [N, ..., k]. ids: in the codebook, same shape. right: same shape.
    """

    shares: Tensor
    ids: Tensor
    right: Tensor

    def of(self, rows: Tensor) -> Words:
        """Those of some pictures."""
        return Words(self.shares[rows], self.ids[rows], self.right[rows])


def by_words(what: Words, regions: Words, weights: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of *what* [3], those of regions [3] and their common u [c]; see ``models/words/describe.py``."""
    blocks, truths, shares = [], [], []
    for place, words in enumerate((what, regions)):
        terms = word_terms(words.shares).flatten(0, -2)
        own = torch.zeros(len(terms), 6)
        own[:, 3 * place : 3 * place + 3] = terms
        blocks.append(torch.cat([own, codebook[words.ids.flatten()]], dim=1))
        truths.append(words.right.flatten().float())
        each = words.shares[0].numel()
        shares.append((weights / each).repeat_interleave(each))  # a picture counts the same in both
    start = torch.zeros(6 + codebook.shape[1])
    start[[1, 4]] = 1.0
    fitted = _logistic(torch.cat(blocks), torch.cat(truths), torch.cat(shares), start, decay=_DECAY, start=6)
    return fitted[:3], fitted[3:6], fitted[6:]


def _logistic(terms: Tensor, truth: Tensor, weights: Tensor, first: Tensor, *, decay: float, start: int) -> Tensor:
    """Weighted logistic regression from ``first``, [K]; coefficients from ``start`` on are kept small by ``decay``."""
    found = first.clone().requires_grad_()
    share = weights / weights.sum().clamp(min=1e-9)
    optimiser = torch.optim.LBFGS([found], max_iter=60, history_size=8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = share @ nn.functional.binary_cross_entropy_with_logits(terms @ found, truth, reduction="none")
        loss = loss + decay * found[start:].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # torch does not type it
    return found.detach()
