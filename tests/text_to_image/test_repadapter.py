"""Adapters: identity at the start, toggled and un-merged exactly, and where they would not work they refuse."""

from __future__ import annotations

import pytest
import torch
from tiny_t2i import tiny_llm
from torch import nn

from icl_vision.errors import UsageError
from icl_vision.text_to_image.mapper import Mapper, MapperConfig
from icl_vision.text_to_image.parts import fill_adapters, put_adapters
from icl_vision.text_to_image.repadapter import AdapterConfig, Adapters

CONFIG = AdapterConfig(blocks=2, hidden=4)


class Net(nn.Module):
    """One layer with a bias, one without."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 6, bias=False)
        self.rest = nn.Sequential(nn.GELU(), nn.Linear(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.rest(self.first(x))
        return out


def trained(adapters: Adapters) -> None:
    """As if something had been learned."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in adapters.parameters:
            weight.add_(torch.randn_like(weight) * 0.3)


def test_identity_at_the_start_then_not():
    net, x = Net().eval(), torch.randn(3, 5, 8)
    before = net(x)
    adapters = Adapters(net, CONFIG)
    net.eval()
    assert torch.equal(net(x), before)
    trained(adapters)
    assert not torch.allclose(net(x), before, atol=1e-2)


def test_switched_off_and_removed_it_is_bit_for_bit_the_model_without():
    net, x = Net().eval(), torch.randn(3, 8)
    before, layers = net(x), [net.first, net.rest[1]]
    adapters = Adapters(net, CONFIG)
    trained(adapters)
    net.eval()
    with adapters.switched(False):
        assert torch.equal(net(x), before) and not adapters.on
    assert adapters.on and not torch.equal(net(x), before)
    adapters.remove()
    assert torch.equal(net(x), before) and [net.first, net.rest[1]] == layers


@pytest.mark.parametrize("how", ["copy", "solve"])
def test_merged_and_taken_out_again(how: str):
    net, x = Net().eval(), torch.randn(64, 8)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    adapters = Adapters(net, CONFIG)
    trained(adapters)
    net.eval()
    adapted = net(x)
    adapters.merge(keep=how == "copy")
    assert net.first.linear.bias is not None, "a layer without a bias gets one"
    torch.testing.assert_close(net(x), adapted, rtol=1e-5, atol=1e-5)
    adapters.unmerge(how)  # type: ignore[arg-type]  # a text of the two
    adapters.remove()
    assert set(net.state_dict()) == set(weights), "and loses it again"
    for name, value in net.state_dict().items():
        if how == "copy":
            assert torch.equal(value, weights[name])
        else:
            torch.testing.assert_close(value, weights[name], rtol=1e-6, atol=1e-6)


def test_the_form_is_that_of_the_paper():
    net = Net()
    adapters = Adapters(net, AdapterConfig(hidden=4, groups=2, scale=0.5))
    trained(adapters)
    net.eval()
    adapter = adapters.layers["first"].adapter
    x = torch.randn(8)
    hidden = adapter.down.weight @ x + adapter.down.bias
    convolution = nn.Conv1d(4, 8, 1, groups=2)
    with torch.no_grad():
        convolution.weight.copy_(adapter.up.unsqueeze(-1))
        convolution.bias.copy_(adapter.up_bias)  # type: ignore[union-attr]  # it has one
        expected = x + 0.5 * convolution(hidden[None, :, None])[0, :, 0]
        torch.testing.assert_close(adapter(x), expected)
    # 13 d + 8 numbers for h = 8 and two groups.
    assert Adapters(Net(), AdapterConfig()).size == 13 * 8 + 8 + 13 * 6 + 8


def test_a_and_b_alone_are_saved():
    net = Net().eval()
    adapters = Adapters(net, CONFIG, prefix="net.")
    trained(adapters)
    names = {"down.weight", "down.bias", "up", "up_bias"}
    assert set(adapters.tensors()) == {f"net.{layer}.{name}" for layer in ("first", "rest.1") for name in names}
    other = Net().eval()
    second = Adapters(other, CONFIG, prefix="net.")
    second.load(adapters.tensors())
    net.eval(), other.eval()
    x = torch.randn(2, 8)
    assert torch.equal(other(x), net(x))
    with pytest.raises(UsageError, match="are of other layers"):
        Adapters(Net(), CONFIG).load(adapters.tensors())
    with pytest.raises(UsageError, match="has shape"):
        Adapters(Net(), AdapterConfig(hidden=8), prefix="net.").load(adapters.tensors())


def test_where_they_would_not_work_they_refuse():
    with pytest.raises(UsageError, match="'self_attn.out_proj' lies in an nn.MultiheadAttention"):
        Adapters(nn.TransformerEncoderLayer(8, 2), CONFIG)
    packed = Net()
    packed.first.weight = nn.Parameter(torch.zeros(6, 8, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UsageError, match="'first' .*weights of 4 or 8 bits"):
        Adapters(packed, CONFIG)
    once = Net()
    adapters = Adapters(once, CONFIG)
    with pytest.raises(UsageError, match="has an adapter already"):
        Adapters(once, CONFIG)
    adapters.merge()
    with pytest.raises(UsageError, match="merged already"):
        adapters.merge()
    with pytest.raises(UsageError, match="cannot be switched off"):
        adapters.switch(False)
    adapters.unmerge()
    with pytest.raises(UsageError, match="are not merged"):
        adapters.unmerge()
    adapters.merge(keep=False)
    with pytest.raises(UsageError, match="no copy was kept"):
        adapters.unmerge("copy")
    with pytest.raises(UsageError, match="no linear layer"):
        Adapters(nn.GELU(), CONFIG)
    with pytest.raises(UsageError, match="groups must divide the 8 inputs"):
        Adapters(Net(), AdapterConfig(hidden=6, groups=3))
    with pytest.raises(UsageError, match="groups must divide adapters.hidden 8; got 3"):
        AdapterConfig(groups=3)


def test_in_an_llm_and_a_mapper():
    llm = tiny_llm()
    mapper = Mapper(MapperConfig(width=8, blocks=1, heads=2), inputs=32, length=4, outputs=16).eval()
    texts = ["draw seven", "two"]
    before = llm.states(texts)
    mapped = mapper(before.values, before.mask)
    groups = put_adapters(llm, mapper, CONFIG)
    # Seven linears a block, in the two uppermost of three.
    assert sum(name.startswith("llm.") for group in groups for name in group.layers) == 14
    assert not any(name.startswith("llm.0.") for group in groups for name in group.layers)
    assert torch.equal(llm.states(texts).values, before.values)
    for adapters in groups:
        trained(adapters)
    adapted = llm.states(texts)
    assert not torch.allclose(adapted.values, before.values, atol=1e-3)
    entering = llm.states(texts, below=1)
    with torch.no_grad():
        upper = llm.upper(1)(entering.values, entering.mask)
    assert torch.equal(upper * entering.mask.unsqueeze(-1), adapted.values), "the upper blocks have them too"
    saved = {name: value for adapters in groups for name, value in adapters.tensors().items()}
    for adapters in groups:
        adapters.switch(False)
    assert torch.equal(llm.states(texts).values, before.values)
    assert torch.equal(mapper(before.values, before.mask), mapped)
    other = tiny_llm()
    again = put_adapters(other, Mapper(mapper.config, inputs=32, length=4, outputs=16), CONFIG)
    fill_adapters(again, saved)
    assert torch.equal(other.states(texts).values, adapted.values)
    with pytest.raises(UsageError, match="no place for 'more'"):
        fill_adapters(again, {**saved, "more": torch.zeros(1)})
    with pytest.raises(UsageError, match="adapters.blocks must be a whole number from 0 to 3"):
        put_adapters(tiny_llm(), mapper, AdapterConfig(blocks=4))
