"""LQAE: its config, the line from image to words and back, gradients, what is hidden, its losses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.losses.lqae import LqaeLossConfig, entropy_loss, lqae_loss, mlm_loss
from icl_vision.models.lqae import LQAE, LqaeConfig, build_nets
from icl_vision.models.nets.spae_photo import PhotoDecoder
from icl_vision.models.words.masked_lm_files import TextShape

TEXT = TextShape(width=8, layers=2, heads=2, inner=16, positions=16, head=True)
TINY = LqaeConfig(net="photo", side=32, grid=2, dim=8, directions=4, batch_norm=True, text=TEXT, width=16, blocks=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


VIT = LqaeConfig(
    net="vit", side=32, channels=1, grid=4, dim=8, text=TEXT, patch=8, hidden=16, layers=2, heads=4, inner=24
)


def table(words: int = 24, width: int = 8) -> Tensor:
    return torch.randn(words, width) + 1.0


def made(**changes: Any) -> LQAE:
    config = dataclasses.replace(TINY, **changes)
    return LQAE(config, None if config.learned else table())


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32)


def test_an_image_becomes_words_and_an_image_again() -> None:
    model = made().eval()
    (ids,) = model.encode_ids(pictures())
    assert ids.shape == (3, 2, 2) and ids.dtype == torch.int64 and int(ids.max()) < model.words == 24
    images = model.decode_ids((ids,))
    assert images.shape == (3, 3, 32, 32) and bool(((images >= 0) & (images <= 1)).all())
    assert model.layout.grids == ((2, 2),)
    assert [state.shape for state in model.hidden_states(ids)] == [(3, 4, 8)] * 3


@pytest.mark.parametrize("grid", [2, 4])
def test_the_photo_net_has_two_grids(grid: int) -> None:
    model = made(grid=grid).eval()
    assert model.encode(pictures()).shape == (3, 4, grid, grid)
    assert model.decode_ids(model.encode_ids(pictures())).shape == (3, 3, 32, 32)


def test_what_the_decoder_reads_is_the_text_encoders_last_state() -> None:
    model = made().eval()
    (ids,) = model.encode_ids(pictures())
    state = model.hidden_states(ids)[-1].transpose(1, 2).reshape(3, 8, 2, 2)
    torch.testing.assert_close(model.decode_ids((ids,)), model.decoder(state).clamp(0, 1))


def test_whitened_vectors_stay_near_the_middle_and_raw_ones_take_the_tables_scale() -> None:
    model = made()
    z = model.encode(pictures(8))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    plain = made(directions=0)
    z = plain.encode(pictures(8))
    torch.testing.assert_close(z.mean((0, 2, 3)), plain.codebook.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        z.std((0, 2, 3), unbiased=False), plain.codebook.std(0, unbiased=False), atol=0.02, rtol=0
    )


@pytest.mark.parametrize("where", ["encoder", "decoder"])
@pytest.mark.parametrize("directions", [0, 4])
def test_gradients_reach_the_encoder_and_nothing_frozen(where: str, directions: int) -> None:
    model = made(straight_through=where, directions=directions)
    output = model(pictures())
    F.mse_loss(output.reconstruction, torch.zeros_like(output.reconstruction)).backward()
    trained = [p for p in model.encoder.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert model.text is not None
    assert all(p.grad is None for p in [*model.text.parameters(), *model.decoder.pixels.parameters()])


def test_straight_through_changes_no_value() -> None:
    model = made(mask=(0.0, 0.0))
    output = model(pictures())
    assert output.states is not None
    (state,) = (model.hidden_states(output.ids)[-1],)
    assert torch.equal(output.states, state)
    around = made(mask=(0.0, 0.0), straight_through="decoder")
    around.load_state_dict(model.state_dict())
    around.lookup.codebook.copy_(model.lookup.codebook)
    output = around(pictures())
    assert output.states is not None
    assert torch.equal(output.states, around.hidden_states(output.ids)[-1])


def test_a_share_of_the_words_is_hidden_from_the_text_encoder() -> None:
    assert not made(mask=(0.0, 0.0))(pictures()).masked.any()
    assert made(mask=(1.0, 1.0))(pictures()).masked.all()
    model = made(mask=(0.5, 0.5), grid=4)
    shares = torch.stack([model(pictures(8)).masked.float().mean() for _ in range(10)])
    assert 0.4 < shares.mean() < 0.6
    all_hidden = made(mask=(1.0, 1.0))
    output = all_hidden(pictures())
    assert output.states is not None
    torch.testing.assert_close(output.states[0], output.states[1])  # the text encoder saw no word


def test_without_text_encoder_hidden_words_are_the_tables_mean() -> None:
    model = made(text=None, mask=(1.0, 1.0))
    output = model(pictures())
    assert output.states is None
    torch.testing.assert_close(output.reconstruction, model.decoder(torch.zeros(3, 8, 2, 2)))


def test_past_the_text_encoder_nothing_is_hidden_and_no_layer_looks() -> None:
    model = made(mask=(1.0, 1.0))
    output = model(pictures(), past_text=True)
    assert output.states is None and not output.masked.any()
    first = model.hidden_states(output.ids)[0].transpose(1, 2).reshape(3, 8, 2, 2)
    torch.testing.assert_close(output.reconstruction, model.decoder(first))


def test_a_learned_codebook_moves_and_has_no_language() -> None:
    model = made(learned=True, words=10, directions=0, text=None)
    output = model(pictures())
    report = lqae_loss(LqaeLossConfig(mlm=0.0), pictures(), output, model)
    report.total.backward()
    assert set(report.parts) == {"pixel", "commitment", "codebook"}
    assert model.learned_codebook is not None and model.learned_codebook.grad is not None
    used = torch.zeros(10, dtype=torch.bool)
    used[output.ids.unique()] = True
    assert (model.learned_codebook.grad.abs().sum(1) > 0).tolist() == used.tolist()


# -- the paper's net


def test_the_papers_net_makes_words_of_patches_and_images_of_words() -> None:
    model = LQAE(VIT, table()).eval()
    images = torch.rand(2, 1, 32, 32)
    assert model.encode(images).shape == (2, 8, 4, 4)
    assert model.decode_ids(model.encode_ids(images)).shape == (2, 1, 32, 32)
    output = model.train()(images)
    lqae_loss(LqaeLossConfig(), images, output, model).total.backward()
    # The mask hides no picture from the encoder: its whole net learns.
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert model.frozen(images) == ()


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        encoder, decoder = build_nets(LqaeConfig())
        vectors = encoder(torch.empty(1, 3, 256, 256))
        assert vectors.shape == (1, 768, 16, 16) and decoder(vectors).shape == (1, 3, 256, 256)
    sizes = [sum(one.numel() for one in net.parameters()) for net in (encoder, decoder)]
    assert sizes == [115_011_072, 115_011_075]


def test_patches_are_seen_by_their_own_place_first() -> None:
    """A patch that changes moves its own vector most."""
    encoder = build_nets(VIT)[0].eval()
    images = torch.rand(1, 1, 32, 32)
    changed = images.clone()
    changed[..., 8:16, 16:24] += 1.0
    moved = (encoder(changed) - encoder(images)).norm(dim=1)[0]
    assert int(moved.argmax()) == 1 * 4 + 2


# -- losses


def test_the_total_is_the_weighted_sum_of_the_formulas() -> None:
    model, images = made(mask=(0.5, 0.5)), pictures()
    config = LqaeLossConfig(pixel=2.0, direct=0.5, commitment=0.25, mlm=0.125, entropy=0.0625)
    output = model(images, direct=True)
    report = lqae_loss(config, images, output, model)
    assert model.text is not None and output.states is not None and output.direct is not None
    pixel = ((output.reconstruction - images) ** 2).mean()
    direct = ((output.direct - images) ** 2).mean()
    commitment = ((output.points - model.lookup.seen(model.codebook[output.ids.flatten(1)])) ** 2).mean()
    logits = model.text.logits(output.states)
    assert logits is not None
    each = -logits.log_softmax(-1).gather(2, output.ids.flatten(1)[..., None])[..., 0]
    mlm = (each * output.masked).sum() / output.masked.sum()
    points, words = (
        F.normalize(output.points.flatten(0, 1), dim=1),
        F.normalize(model.lookup.seen(model.codebook), dim=1),
    )
    share = (-(torch.cdist(points, words) ** 2) / 0.01).softmax(1)
    mean = share.mean(0)
    entropy = -(share * (share + 1e-30).log()).sum(1).mean() + (mean * (mean + 1e-30).log()).sum()
    wanted = 2 * pixel + 0.5 * direct + 0.25 * commitment + 0.125 * mlm + 0.0625 * entropy
    torch.testing.assert_close(report.total, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(report.parts["mlm"], mlm.detach(), atol=1e-5, rtol=1e-5)


def test_no_hidden_word_is_no_loss_and_no_nan() -> None:
    model = made(mask=(0.0, 0.0))
    output = model(pictures())
    assert mlm_loss(model, output).item() == 0.0
    report = lqae_loss(LqaeLossConfig(), pictures(), output, model)
    assert torch.isfinite(report.total)


def test_sure_vectors_that_use_all_words_have_the_least_entropy_loss() -> None:
    sure_of_all, sure_of_one, unsure = 50 * torch.eye(6), torch.zeros(6, 6), torch.zeros(6, 6)
    sure_of_one[:, 0] = 50
    values = [float(entropy_loss(logits)) for logits in (sure_of_all, sure_of_one, unsure)]
    assert values[0] == pytest.approx(-float(torch.tensor(6.0).log()), abs=1e-3)
    assert values[1] == pytest.approx(0, abs=1e-3) and values[2] == pytest.approx(0, abs=1e-3)


# -- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": (0.6, 0.2)}, "least and the most"),
        ({"mask": (0.0, 1.5)}, "mask"),
        ({"directions": 9}, "directions can be 8 at most"),
        ({"learned": True}, "say of how many words"),
        ({"learned": True, "words": 5}, "no language"),
        ({"words": 5}, "learned: true"),
        ({"dim": 12}, "dim must be its width 8"),
        ({"grid": 3}, "side must be"),
        ({"side": 128, "grid": 8}, "16 positions"),
        ({"channels": 1}, "RGB"),
        ({"thaw": True, "train_on": "latents"}, "thaw needs train_on pixels"),
        ({"net": "vit", "patch": 16, "train_on": "latents"}, "for net photo"),
        ({"net": "vit", "patch": 5}, "grid times patch"),
    ],
)
def test_a_config_that_cannot_work_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **changes)


def test_a_config_goes_to_plain_values_and_back() -> None:
    assert LqaeConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(UsageError, match="gird"):
        LqaeConfig.from_dict({"gird": 3})


def test_words_that_cannot_be_are_refused() -> None:
    model = made().eval()
    with pytest.raises(PyramidError, match="one layer"):
        model.decode_ids((torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)))
    with pytest.raises(PyramidError, match=r"\[B, 2, 2\]"):
        model.decode_ids((torch.zeros(1, 3, 3, dtype=torch.int64),))
    with pytest.raises(PyramidError, match="0 to 23"):
        model.decode_ids((torch.full((1, 2, 2), 24),))
    with pytest.raises(UsageError, match="needs the words' table"):
        LQAE(TINY)
    with pytest.raises(UsageError, match=r"\[T, 8\]"):
        LQAE(TINY, torch.zeros(3, 5))
    with pytest.raises(UsageError, match="no text encoder"):
        made(text=None).hidden_states(torch.zeros(1, 2, 2, dtype=torch.int64))


def test_latents_that_count_alike() -> None:
    torch.manual_seed(0)
    decoder = PhotoDecoder(32, 8, 8, 1)
    features = torch.randn(2, 32, 4, 4)
    grams = []
    for even in (0.0, 1.0, 1e6):
        decoder.measure(features, even)
        grams.append((decoder.metric @ decoder.metric.T).double())
    pixels, half, alike = grams
    identity = torch.eye(32, dtype=torch.float64)
    scale = float(pixels.trace()) / 32
    torch.testing.assert_close(half, (pixels + scale * identity) / 2, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(alike, scale * identity, atol=1e-5 * scale, rtol=1e-3)
