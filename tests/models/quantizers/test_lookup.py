"""The nearest word on one grid: the table as it is, whitened directions, neighbours, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.models.quantizers.lookup import WordLookup


def table(words: int = 40, width: int = 8) -> Tensor:
    """Rows in a narrow cone that differ most along the first few dimensions, as a language model's do."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(words, width, generator=generator) * torch.linspace(2.0, 0.1, width) + 5.0


def vectors(width: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, width, 2, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_word_is_the_one_with_the_largest_cosine_or_the_smallest_distance(normalise: bool) -> None:
    rows, z = table(), vectors(8) + 5.0
    found = WordLookup(rows, normalise=normalise)(z)
    points = z.flatten(2).transpose(1, 2).reshape(-1, 8).double().numpy()
    words = rows.double().numpy()
    if normalise:
        scores = points @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T
    else:
        scores = -((points[:, None] - words) ** 2).sum(-1)
    assert found.shape == (3, 2, 4) and found.dtype == torch.int64
    assert np.array_equal(found.flatten().numpy(), scores.argmax(1))


def test_directions_are_whitened_and_lead_back_to_the_table() -> None:
    rows = table()
    some = WordLookup(rows, directions=3).seen(rows)
    assert some.shape == (40, 3)
    torch.testing.assert_close(some.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(some.T), torch.eye(3), atol=1e-3, rtol=0)
    whole = WordLookup(rows, directions=8)
    torch.testing.assert_close(whole.lifted(whole.seen(rows)) + rows.mean(0), rows, atol=1e-3, rtol=0)
    # The first direction is the one in which words differ most: what it leaves unsaid are the other variances.
    first = WordLookup(rows, directions=1)
    rest = rows - rows.mean(0) - first.lifted(first.seen(rows))
    variances = torch.linalg.eigvalsh(torch.cov(rows.T))
    torch.testing.assert_close(rest.var(0).sum(), variances[:-1].sum(), atol=1e-3, rtol=0)


def test_the_codebook_may_be_the_input_of_a_graph() -> None:
    rows, z = table(), vectors(3)
    lookup = WordLookup(rows, directions=3)
    assert torch.equal(lookup(z, rows.clone()), lookup(z))
    assert not torch.equal(lookup(z, rows.flip(0)), lookup(z))


def test_a_model_made_half_still_searches_in_full_precision() -> None:
    rows, z = table(), vectors(3)
    half = WordLookup(rows, directions=3).half()
    as_half = WordLookup(rows, directions=3)
    as_half.load_state_dict(half.float().state_dict())  # the same rounded numbers, held as fp32
    assert torch.equal(half.half()(z, rows), as_half(z, rows))


@pytest.mark.parametrize("directions", [0, 3])
def test_words_and_their_closeness_are_of_full_precision_in_mixed_training(directions: int) -> None:
    lookup = WordLookup(table(), directions=directions)
    points = vectors(directions or 8).flatten(2).transpose(1, 2).flatten(0, 1)
    seen, closeness = lookup.seen(table()), lookup.closeness(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(lookup.seen(table()), seen)
        torch.testing.assert_close(lookup.closeness(points), closeness)


def test_neighbours_are_drawn_in_training_alone() -> None:
    rows, z = table(), vectors(8)
    lookup = WordLookup(rows, neighbours=5)
    lookup.eval()
    assert torch.equal(lookup(z), WordLookup(rows)(z))
    lookup.train()
    torch.manual_seed(0)
    drawn = torch.stack([lookup(z).flatten() for _ in range(200)])
    points = z.flatten(2).transpose(1, 2).reshape(-1, 8)
    nearest = (points @ torch.nn.functional.normalize(rows, dim=1).T).topk(5, dim=1).indices
    for place in range(drawn.shape[1]):
        assert set(drawn[:, place].tolist()) == set(nearest[place].tolist())


@pytest.mark.parametrize("normalise", [True, False])
def test_the_closest_word_is_the_nearest(normalise: bool) -> None:
    rows, z = table(), vectors(8) + 5.0
    lookup = WordLookup(rows, normalise=normalise)
    points = z.flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.equal(lookup.closeness(points).argmax(1), lookup(z).flatten())


def test_a_frozen_table_is_stored_elsewhere_and_a_learned_one_here() -> None:
    assert set(WordLookup(table(), directions=3).state_dict()) == {"centre", "into", "back"}
    learned = WordLookup(table(), learned=True)
    assert "codebook" in learned.state_dict() and learned.codebook.requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"directions": 9}, "directions"),
        ({"neighbours": 41}, "neighbours"),
        ({"neighbours": 0}, "neighbours"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WordLookup(table(), **changes)  # type: ignore[arg-type]  # the names are checked by the test's own table


def test_a_table_must_be_finite() -> None:
    with pytest.raises(UsageError, match="finite numbers"):
        WordLookup(torch.full((3, 2), torch.nan))
