"""The nearest word of many vectors at once, without ever holding a score for every pair.

Knows: distances to a codebook's rows, how the search is cut into chunks, and fp32 under autocast.
Refuses to know: pyramids, layers, gradients (ids have none).

The nearest row by squared Euclidean distance is ``argmax_k x.e(k) - |e(k)|^2 / 2``: the part that all words share,
``|x|^2``, decides nothing and is left out, so one matrix product does nearly all of the work. With ``normalise`` it is
``argmax_k x.e(k) / |e(k)|``, the cosine (ViT-VQGAN, Yu et al. 2021; LQAE, Liu et al. 2023, section 3).

Equal scores go to the lowest id. Two words whose scores differ by less than fp32's rounding may swap places when the
shape of the matrix product changes (another batch, another chunk): such ties are counted where parity is measured.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.errors import UsageError

CPU_CHUNK = 1 << 22
"""Scores at once on a CPU, 16 MiB. Smaller ones that stay in the cache are no faster, and every step of every chunk
waits for all threads, which costs a multiple of the product itself where cores are shared."""

DEVICE_CHUNK = 1 << 26
"""Scores at once elsewhere, 256 MiB: few and large kernels."""

_WIDE = 1 << 14
_BLOCK = 64
_TRACED = 1 << 11
"""Words at once in a graph, where the number of points is not known: 256 positions hold 2 MiB of scores an image."""


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast is off for ``device``; nothing at all where it is not on (so graphs stay clean)."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def check_chunk(chunk: int | None) -> int | None:
    """Scores held at once, 1 or more, or None. Raises UsageError."""
    return count("chunk, the number of scores held at once,", chunk, none="what the device is best at")


def word_terms(codebook: Tensor, *, normalise: bool = False) -> Tensor:
    """What a search needs of each word beside its vector, fp32 [T]: ``|e|^2 / 2``, or ``1 / |e|`` to normalise.

    A zero vector has no direction: its ``1 / |e|`` is given as 0, so it is chosen only where no cosine is positive.
    """
    squares = codebook.detach().float().square().sum(1)
    if not normalise:
        return squares / 2
    return torch.where(squares > 0, squares.clamp(min=torch.finfo(torch.float32).tiny).rsqrt(), 0.0)


def nearest_words(
    points: Tensor,
    codebook: Tensor,
    *,
    normalise: bool = False,
    chunk: int | None = None,
    terms: Tensor | None = None,
) -> Tensor:
    """The id of the nearest word of each point, computed in fp32 whatever the inputs' type and autocast.

    Args:
        points: floating [N, c]; N may be 0.
        codebook: floating [T, c].
        normalise: the largest cosine instead of the smallest Euclidean distance.
        chunk: how many scores (points times words) may exist at once, 1 or more; None is 16 MiB of them on a CPU
            and 256 MiB elsewhere. In a traced graph (``torch.export``, ``torch.compile``) only the words are cut up,
            into parts of 2,048, because the number of points may be unknown there.
        terms: ``word_terms(codebook, normalise=normalise)``, where it is known already.

    Returns:
        int64 [N]; the lowest id where words are equally near.

    Raises:
        UsageError: shapes that do not fit, an empty codebook, a chunk below 1.
    """
    if points.ndim != 2 or codebook.ndim != 2 or points.shape[1] != codebook.shape[1]:
        raise UsageError(
            f"points must be [N, c] and the codebook [T, c]; got {list(points.shape)} and {list(codebook.shape)}"
        )
    if codebook.shape[0] < 1:
        raise UsageError("the codebook has no words; give one of shape [T, c] with T of 1 or more")
    chunk = check_chunk(chunk)
    with torch.no_grad(), full_precision(points.device):
        x, words = points.detach().float(), codebook.detach().float()
        if torch.compiler.is_compiling():
            return _traced(x, words, terms, normalise)
        if terms is None:
            terms = word_terms(words, normalise=normalise)
        return _chunked(x, words, terms, normalise, chunk)


def _traced(x: Tensor, words: Tensor, terms: Tensor | None, normalise: bool) -> Tensor:
    """The search as a graph: no writing in place, no shape that depends on data, every loop of known length."""
    best, ids = None, None
    for start in range(0, words.shape[0], _TRACED):
        part = words[start : start + _TRACED]
        term = word_terms(part, normalise=normalise) if terms is None else terms[start : start + _TRACED]
        scores = x @ part.T * term if normalise else x @ part.T - term
        value, place = scores.max(1)
        if best is None or ids is None:
            best, ids = value, place
        else:
            ids = torch.where(value > best, place + start, ids)
            best = torch.maximum(value, best)
    assert ids is not None  # the codebook has words
    return ids


def _chunked(x: Tensor, words: Tensor, terms: Tensor, normalise: bool, chunk: int | None) -> Tensor:
    chunk = chunk or (CPU_CHUNK if x.device.type == "cpu" else DEVICE_CHUNK)
    spans = _spans(words.shape[0], min(_WIDE, chunk))
    widest = max(end - start for start, end in spans)
    tall = max(1, min(chunk // widest, x.shape[0]))
    room = torch.empty(tall * widest, device=x.device)
    ids = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    for top in range(0, x.shape[0], tall):
        rows, nearest = x[top : top + tall], ids[top : top + tall]
        best = torch.full((len(rows),), -torch.inf, device=x.device)
        for start, end in spans:
            scores = room[: len(rows) * (end - start)].view(len(rows), end - start)
            torch.mm(rows, words[start:end].T, out=scores)
            if normalise:
                scores.mul_(terms[start:end])
            else:
                scores.sub_(terms[start:end])
            # A later word must be nearer, not as near, to replace an earlier one: hence ">".
            value, place = _largest(scores)
            torch.where(value > best, place + start, nearest, out=nearest)
            torch.maximum(best, value, out=best)
    return ids


def _spans(count: int, wide: int) -> list[tuple[int, int]]:
    """Words 0 to ``count`` cut into spans of ``wide``, whole blocks as far as there are any."""
    if wide > _BLOCK:
        wide -= wide % _BLOCK
    whole = count - count % _BLOCK if wide > _BLOCK else count
    spans = [(start, min(start + wide, whole)) for start in range(0, whole, wide)]
    return spans if whole == count else [*spans, (whole, count)]


def _largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row of [N, n] and its place, the first of equals.

    On a CPU the largest value alone is found 20 times faster than its place, so first in blocks, then inside one.
    """
    if scores.shape[1] % _BLOCK or scores.shape[1] == _BLOCK or scores.device.type != "cpu":
        value, place = scores.max(1)
        return value, place
    blocks = scores.view(len(scores), -1, _BLOCK)
    value, block = blocks.amax(2).max(1)
    inside = blocks[torch.arange(len(scores)), block].argmax(1)
    return value, block * _BLOCK + inside
