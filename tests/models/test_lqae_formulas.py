"""The step of a tiny LQAE beside the paper's formulas written out anew, from weights alone: values and gradients.

Nothing of the lookup, the text encoder, the straight-through estimator or the losses is shared with the package; the
two image nets are taken as they are.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from icl_vision.models.losses.lqae import LqaeLossConfig, lqae_loss
from icl_vision.models.lqae import LQAE, LqaeConfig
from icl_vision.models.lqae_config import StraightThrough
from icl_vision.models.words.masked_lm_files import TextShape

ALPHA, BETA = 0.3, 0.2  # far larger than the paper's, so that an error in either part shows
TEXT = TextShape(width=8, layers=2, heads=2, inner=12, positions=20, head=True)


def model_of(where: StraightThrough, mask: float) -> LQAE:
    torch.manual_seed(0)
    config = LqaeConfig(
        side=32, grid=4, patch=8, dim=8, text=TEXT, mask=(mask, mask), straight_through=where,
        hidden=16, layers=1, heads=2, inner=24,
    )  # fmt: skip
    model = LQAE(config, torch.randn(30, 8) * torch.linspace(0.2, 3, 30)[:, None])
    assert model.text is not None
    with torch.no_grad():  # as drawn, biases and norms are 0 and 1, and hide what was mixed up
        for parameter in model.text.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.text.mask.mul_(20)
    return model.train()


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    return unit * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return torch.einsum("...i,oi->...o", x, state[f"{name}.weight"]) + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def bert(rows: Tensor, masked: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The last states of a post-LN encoder, head by head."""
    hidden = masked[..., None].float()
    x = norm(rows * (1 - hidden) + state["mask"] * hidden + state["positions"][: rows.shape[1]], state, "norm")
    for index in range(TEXT.layers):
        at = f"layers.{index}."
        query, key, value = (linear(x, state, f"{at}attention.{part}") for part in ("query", "key", "value"))
        heads = []
        for part in range(TEXT.heads):
            cut = slice(4 * part, 4 * part + 4)
            weight = (query[..., cut] @ key[..., cut].transpose(1, 2) / math.sqrt(4)).exp()
            heads.append(weight / weight.sum(-1, keepdim=True) @ value[..., cut])
        x = norm(x + linear(torch.cat(heads, -1), state, f"{at}attention.out"), state, f"{at}attention_norm")
        x = norm(x + linear(gelu(linear(x, state, f"{at}inner")), state, f"{at}outer"), state, f"{at}norm")
    return x


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_a_step_is_that_of_the_formulas(where: StraightThrough, mask: float) -> None:
    model = model_of(where, mask)
    assert model.text is not None
    images = torch.rand(3, 3, 32, 32)
    output = model(images)
    loss = LqaeLossConfig(pixel=1.0, commitment=BETA, mlm=ALPHA)
    total = lqae_loss(loss, images, output, model).total
    names = [name for name, each in model.named_parameters() if each.requires_grad]
    parameters = dict(model.named_parameters())
    ours = torch.autograd.grad(total, [parameters[name] for name in names])

    table = model.codebook.clone()
    state = {name: value.detach() for name, value in model.text.state_dict().items()}
    z = model.encoder(images).flatten(2).transpose(1, 2)
    ids = np.zeros(z.shape[:2], dtype=np.int64)
    for place in np.ndindex(*ids.shape):
        cosines = [float(np.dot(z[place].detach().numpy(), word) / np.linalg.norm(word)) for word in table.numpy()]
        ids[place] = int(np.argmax(cosines))
    assert np.array_equal(output.ids.flatten(1).numpy(), ids)
    words = table[torch.from_numpy(ids)]
    commitment = (z - words).square().mean()  # of the vectors as they are, whatever the lookup normalised
    if where == "encoder":
        states = bert(words + (z - z.detach()), output.masked, state)
    else:
        states = bert(words, output.masked, state) + (z - z.detach())
    pictures = model.decoder(states.transpose(1, 2).reshape(3, 8, 4, 4))
    logits = norm(gelu(linear(states, state, "head.dense")), state, "head.norm") @ table.T + state["head.bias"]
    missed = [
        logits[place].exp().sum().log() - logits[place][ids[place]]
        for place in np.ndindex(*ids.shape)
        if output.masked[place]
    ]
    mlm = torch.stack(missed).mean() if missed else torch.zeros(())
    wanted = (pictures - images).square().mean() + BETA * commitment + ALPHA * mlm
    theirs = torch.autograd.grad(wanted, [parameters[name] for name in names])

    assert bool(output.masked.any()) == (mask > 0) and bool(output.masked.all()) == (mask == 1)
    assert torch.isfinite(total)
    torch.testing.assert_close(total, wanted, atol=1e-5, rtol=1e-5)
    assert len(names) > 20 and all(name.startswith(("encoder.", "decoder.")) for name in names)
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=2e-3, msg=lambda text, name=name: f"{name}: {text}")
