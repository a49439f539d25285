"""The mapper: shapes, pads, what it starts from."""

from __future__ import annotations

import pytest
import torch

from icl_vision.errors import UsageError
from icl_vision.text_to_image.mapper import Mapper, MapperConfig


def made(kind: str, **keys: int) -> Mapper:
    torch.manual_seed(0)
    config = MapperConfig(kind=kind, width=8, blocks=2, heads=2, **keys)  # type: ignore[arg-type]  # a text of the two
    return Mapper(config, inputs=12, length=5, outputs=6).eval()


@pytest.mark.parametrize("kind", ["choice", "last", "queries", "tokens"])
@pytest.mark.parametrize("tokens", [3, 9])
def test_pads_say_nothing(kind: str, tokens: int):
    mapper = made(kind)
    values = torch.randn(2, tokens, 12)
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[1, 2:] = False
    out = mapper(values, mask)
    assert out.shape == (2, 5, 6)
    noisy = torch.where(mask.unsqueeze(-1), values, torch.randn_like(values) * 100)
    torch.testing.assert_close(mapper(noisy, mask), out)
    torch.testing.assert_close(mapper(values[1:, :2], mask[1:, :2])[0], out[1])


@pytest.mark.parametrize("kind", ["last", "queries", "tokens"])
def test_states_of_any_size_are_normed_first(kind: str):
    mapper = made(kind)
    values, mask = torch.randn(1, 4, 12) * 1100, torch.ones(1, 4, dtype=torch.bool)
    torch.testing.assert_close(mapper(values, mask), mapper(values / 1100, mask), atol=1e-3, rtol=1e-3)


def test_what_it_learns_is_what_a_text_changes():
    mapper = made("queries")
    before = mapper(torch.ones(1, 2, 12), torch.ones(1, 2, dtype=torch.bool))
    mapper.mean.fill_(3.0)
    torch.testing.assert_close(mapper(torch.ones(1, 2, 12), torch.ones(1, 2, dtype=torch.bool)), before + 3)
    assert {"mean", "null"} <= set(mapper.state_dict())


def test_tokens_are_mapped_one_by_one_and_empty_places_are_the_mean():
    mapper = made("tokens")
    mapper.mean.fill_(2.0)
    values, mask = torch.randn(1, 3, 12), torch.ones(1, 3, dtype=torch.bool)
    out = mapper(values, mask)
    changed = values.clone()
    changed[0, 1] = torch.randn(12)
    again = mapper(changed, mask)
    assert torch.equal(again[0, [0, 2]], out[0, [0, 2]]) and not torch.equal(again[0, 1], out[0, 1])
    assert torch.equal(out[0, 3:], torch.full((2, 6), 2.0))


def test_the_last_tokens_alone_are_read():
    mapper = made("last", last=2)
    values, mask = torch.randn(1, 5, 12), torch.ones(1, 5, dtype=torch.bool)
    out = mapper(values, mask)
    early, late = values.clone(), values.clone()
    early[0, :3] = torch.randn(3, 12)
    late[0, 3] = torch.randn(12)
    assert torch.equal(mapper(early, mask), out) and not torch.equal(mapper(late, mask), out)


def test_a_soft_choice_among_learned_states():
    mapper = made("choice", last=2)
    torch.manual_seed(1)
    states = torch.randn(3, 5, 6)
    which = torch.arange(60) % 3
    values = torch.randn(60, 4, 12)
    values[torch.arange(60), -1, which] += 8
    mask = torch.ones(60, 4, dtype=torch.bool)
    mapper.solve(values, mask, states[which], 1.0)
    found = mapper(values, mask)
    near = ((found[:, None] - states[None]) ** 2).sum((2, 3)).argmin(1)
    assert (near == which).float().mean() > 0.9
    with pytest.raises(UsageError, match="cannot choose among 9 states: raise mapper.width"):
        mapper.solve(values[:9], mask[:9], torch.randn(9, 5, 6), 1.0)


def test_another_llm_is_refused():
    with pytest.raises(UsageError, match="reads states of 12 numbers, and the LLM's have 13"):
        made("queries")(torch.zeros(1, 2, 13), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match="mapper.heads must divide mapper.width 10; got 4"):
        MapperConfig(width=10, heads=4)


def test_a_choice_is_sharpened_and_stays_the_same_choice():
    torch.manual_seed(0)
    mapper = Mapper(MapperConfig(width=8, last=1), inputs=6, length=2, outputs=3).eval()
    values, mask = torch.randn(40, 1, 6), torch.ones(40, 1, dtype=torch.bool)
    mapper.solve(values, mask, torch.randn(5, 2, 3)[torch.arange(40) % 5], 1.0)
    shares: list[torch.Tensor] = []
    mapper.body.leave.register_forward_pre_hook(lambda _, given: shares.append(given[0]))
    mapper(values, mask)
    mapper.sharpen(50.0)
    mapper(values, mask)
    soft, firm = shares
    assert torch.equal(soft.argmax(1), firm.argmax(1)) and firm.amax(1).mean() > soft.amax(1).mean() + 0.2
    other = Mapper(MapperConfig(kind="last"), inputs=6, length=2, outputs=3)
    with pytest.raises(UsageError, match="only a mapper of kind 'choice' can be sharpened; this one is 'last'"):
        other.sharpen(2.0)


def test_a_name_is_found_wherever_it_stands():
    torch.manual_seed(0)
    mapper = Mapper(MapperConfig(width=4, last=0), inputs=12, length=1, outputs=3).eval()
    names, filler, wanted = torch.randn(3, 1, 12) * 2, torch.randn(3, 2, 12) * 2, torch.randn(3, 1, 3)
    with torch.no_grad():
        mapper.solve(torch.cat([filler, names], 1), torch.ones(3, 3, dtype=torch.bool), wanted, 0.01)
        early = torch.cat([names, filler.flip(0)], 1)  # no text of these ended with a filler
        assert torch.allclose(mapper(early, torch.ones(3, 3, dtype=torch.bool)), wanted, atol=0.05)
        alone = mapper(torch.cat([names, filler * 9], 1), torch.tensor([[True, False, False]] * 3))
        assert torch.allclose(alone, wanted, atol=0.05)  # what stands where no token is says nothing
    with pytest.raises(UsageError, match="mapper.last"):
        MapperConfig(kind="last", last=0)
