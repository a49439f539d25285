"""Words seen through learned maps, and layers that are given their words."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.quantizers.projected import ProjectedQuantizer
from icl_vision.pyramid import PyramidLayout

LAYOUT = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))


def quantizer(given: int = 1, **options: int) -> ProjectedQuantizer:
    torch.manual_seed(0)
    return ProjectedQuantizer(torch.randn(60, 12), LAYOUT, 5, given=given, **options)


def z(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, 4, 4, generator=torch.Generator().manual_seed(1))


GIVEN = (torch.tensor([[[7]], [[8]]]),)


def test_words_stand_for_the_sum_of_their_maps() -> None:
    found = quantizer()
    output = found(z(), None, GIVEN)
    assert [tuple(one.shape) for one in output.ids] == [(2, 1, 1), (2, 2, 2), (2, 4, 4), (2, 4, 4)]
    assert output.ids[0].tolist() == GIVEN[0].tolist()
    for layers in range(1, 5):
        torch.testing.assert_close(found.decode_ids(output.ids, layers), output.partial[layers - 1])
    # By hand, at the position that layer 2's first word owns.
    place = int(found.places.index(2)[0])
    total = sum(
        found.maps[layer - 1]((found.codebook[output.ids[layer - 1][0].flatten()[index]] - found.centre) / found.spread)
        * found.open[layer - 1]
        for layer, index in ((2, 0), (3, place), (4, place))
    )
    torch.testing.assert_close(output.partial[-1][0].flatten(1)[:, place], total)


def test_each_layer_looks_up_the_nearest_mapped_word_of_what_is_left() -> None:
    found = quantizer()
    output = found(z(), None, GIVEN)
    for layer in (2, 3, 4):
        mapped = found.nearness(layer, range(60), found.codebook)
        target = output.targets[layer - 1].flatten(2).transpose(1, 2).reshape(-1, 5)
        nearest = torch.cdist(target.double(), mapped.double()).argmin(1)
        assert output.ids[layer - 1].flatten().tolist() == nearest.tolist()


def test_gradients_go_straight_through_and_only_the_codebook_loss_moves_maps() -> None:
    found = quantizer()
    vectors = z().requires_grad_()
    output = found(vectors, None, GIVEN)
    output.quantized.sum().backward()
    torch.testing.assert_close(vectors.grad, torch.ones_like(vectors))
    assert all(one.weight.grad is None for one in found.maps)
    output.codebook_loss.backward()
    assert all(one.weight.grad is not None for one in found.maps)
    assert float(output.commitment[0].detach()) == 0.0 < float(output.commitment[3].detach())


def test_a_map_learns_what_a_given_word_foretells() -> None:
    found = quantizer()
    optimiser = torch.optim.Adam(found.parameters(), lr=0.05)
    first = None
    for _ in range(60):
        loss = found(z(), 1, GIVEN).codebook_loss
        first = float(loss.detach()) if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert first is not None
    assert float(loss.detach()) < 0.6 * first


def test_training_may_look_among_some_words_only() -> None:
    found = quantizer(candidates=10).train()
    torch.manual_seed(3)
    ids = found.encode_ids(z(8), given=(torch.zeros(8, 1, 1, dtype=torch.int64),))
    assert 1 < len(torch.cat([one.flatten() for one in ids[1:]]).unique()) <= 10
    found.eval()
    ids = found.encode_ids(z(8), given=(torch.zeros(8, 1, 1, dtype=torch.int64),))
    assert len(torch.cat([one.flatten() for one in ids[1:]]).unique()) > 10


def test_what_a_layer_does_not_look_up_must_be_given() -> None:
    with pytest.raises(PyramidError, match="first 1 layers must be given; got those of 0"):
        quantizer()(z())
    with pytest.raises(UsageError, match="given must be a whole number from 0 to 3 layers; got 4"):
        quantizer(given=4)
    with pytest.raises(UsageError, match="width, the channels of z"):
        ProjectedQuantizer(torch.randn(6, 3), LAYOUT, 0)
    with pytest.raises(UsageError, match="candidates must be a whole number of 0 or more words; got -1"):
        quantizer(candidates=-1)
    with pytest.raises(UsageError, match=r"the codebook must be \[T, 12\]"):
        quantizer(0).encode_ids(z(), torch.randn(60, 5))
    with pytest.raises(UsageError, match=r"z must be \[B, 5, 4, 4"):
        quantizer(0)(torch.randn(2, 12, 4, 4))


def test_dimensions_open_layer_by_layer() -> None:
    found = quantizer()
    ids = found(z(), None, GIVEN).ids
    first, second = found.decode_ids(ids, 3), found.decode_ids(ids, 4)
    assert first[:, 3:].abs().max() == 0 < first[:, :3].abs().max()  # 3 of 5 dimensions, rounded up
    assert second[:, 3:].abs().max() > 0
    assert found.decode_ids(ids, 2)[:, 3:].abs().max() == 0
