"""SPAE of clips: its nets, its config, the line from frames to words and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.clips import ClipSPAE, build_clip_nets
from icl_vision.models.clips_config import ClipsConfig
from icl_vision.models.losses.spae import LossConfig, SpaeLoss
from icl_vision.models.quantizers.frame_words import FrameWords
from icl_vision.models.spae import SPAE, SpaeConfig

CNN = ClipsConfig(
    frames=4, side=16, grids=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)), dim=8, filters=8, multipliers=(1, 2, 2),
    halvings=(True, False), blocks=1,
)  # fmt: skip
PHOTO = ClipsConfig(
    net="photo3d", frames=8, side=32, grids=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)), dim=8, width=16, blocks=1,
    quantizer="projected", projection=6, named_layers=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def words(config: ClipsConfig | SpaeConfig, count: int = 24) -> Tensor:
    return nn.functional.normalize(torch.randn(count, config.dim) + 1.0, dim=1)


def clips(config: ClipsConfig, count: int = 2) -> Tensor:
    return torch.rand(count, config.frames, config.channels, config.side, config.side)


def changed(config: ClipsConfig, **changes: Any) -> ClipsConfig:
    return ClipsConfig.from_dict({**config.to_dict(), **changes})


def test_the_papers_video_model_has_176_million_parameters_and_its_words() -> None:
    config = ClipsConfig()
    with torch.device("meta"):
        encoder, decoder = build_clip_nets(config)
        vectors = encoder(clips(config, 1))
        made = decoder(vectors)
    assert sum(one.numel() for net in (encoder, decoder) for one in net.parameters()) == 175_901_187
    assert vectors.shape == (1, 1536, 4, 16, 16)
    assert made.shape == (1, 16, 3, 128, 128)
    assert config.layout.cumulative == (1, 5, 21, 149, 1173, 2197)


@pytest.mark.parametrize("config", [CNN, PHOTO], ids=lambda config: config.net)
def test_frames_become_words_and_words_frames(config: ClipsConfig) -> None:
    model = ClipSPAE(config, words(config)).eval()
    batch = clips(config)
    ids = model.encode_ids(batch)
    assert [tuple(layer.shape[1:]) for layer in ids] == list(config.grids)
    for layers in range(1, 5):
        made = model.decode_ids(ids, layers).detach()
        assert made.shape == batch.shape and 0 <= float(made.min()) <= float(made.max()) <= 1
    with pytest.raises(PyramidError, match="depth"):
        model.decode_ids(ids, 5)


def test_a_step_moves_every_trainable_weight_of_the_papers_net() -> None:
    model = ClipSPAE(CNN, words(CNN)).train()
    batch = clips(CNN)
    loss = SpaeLoss(LossConfig(gan=0, perceptual=0, semantic=0), model.quantizer.codebook)
    before = float(loss.generator(batch, model(batch), step=0).total.detach())
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(8):
        total = loss.generator(batch, model(batch), step=step).total
        optimiser.zero_grad()
        total.backward()
        assert all(one.grad is not None for one in model.parameters())
        optimiser.step()
    assert float(loss.generator(batch, model(batch), step=9).total.detach()) < 0.9 * before


def test_an_image_model_starts_one_of_clips_that_sees_each_frame_as_it_did() -> None:
    config = SpaeConfig(side=16, grids=(1, 2, 4, 4), dim=8, filters=8, multipliers=(1, 2, 2), blocks=1)
    book = words(config)
    image_model = SPAE(config, book).eval()
    still = changed(CNN, frames=2, grids=[[1, 1, 1], [1, 2, 2], [2, 4, 4], [2, 4, 4]], halvings=[False, False])
    model = ClipSPAE(still, book).eval()
    model.warm_start(image_model.state_dict())
    image = torch.rand(1, 3, 16, 16)
    clip = image.unsqueeze(1).expand(-1, 2, -1, -1, -1)
    with torch.no_grad():
        # Equal frames have the statistics of one, so the norms over all frames see what those of an image saw.
        vectors = model.encode(clip)
        assert torch.allclose(vectors, image_model.encode(image).unsqueeze(2).expand_as(vectors), atol=1e-4)
        made = model.decode(vectors)
        truth = image_model.decode(image_model.encode(image)).unsqueeze(1).expand_as(made)
    assert torch.allclose(made, truth, atol=1e-4)


def test_a_model_of_clips_takes_its_own_weights_again() -> None:
    first, second = ClipSPAE(PHOTO, words(PHOTO)).eval(), ClipSPAE(PHOTO, words(PHOTO)).eval()
    second.warm_start(first.state_dict())
    batch = clips(PHOTO)
    assert torch.equal(first.encode(batch), second.encode(batch))
    with pytest.raises(RuntimeError, match="size mismatch"):
        ClipSPAE(changed(PHOTO, width=8), words(PHOTO)).warm_start(first.state_dict())


def test_training_on_latents_compares_latents_and_leaves_taef2_alone() -> None:
    config = changed(PHOTO, train_on="latents")
    model = ClipSPAE(config, words(config)).train()
    batch = clips(config)
    known = model.frozen(batch)
    assert [tuple(part.shape) for part in known] == [(2, 8, 32, 4, 4), (2, 1, 1, 1), (2, 1, 2, 2)]
    output = model(batch, 3, known)
    assert output.target is not None and output.reconstruction.shape == output.target.shape == (2, 8, 32, 4, 4)
    assert torch.equal(output.quantized.ids[1], known[2])
    (output.reconstruction - output.target).square().mean().backward()
    assert model.encoder.blocks[0].time.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator, index]  # nn.Module knows no parts
    assert all(one.grad is None for name, one in model.named_parameters() if ".pixels." in name or ".latents." in name)
    metric = model.decoder.metric.clone()  # type: ignore[operator, union-attr]  # nn.Module knows no buffers by name
    model.decoder.measure(known[0][:1, :2])
    assert not torch.equal(model.decoder.metric, metric)  # type: ignore[arg-type]  # as above


def test_what_one_part_of_a_clip_shows_is_known_in_the_others() -> None:
    model = ClipSPAE(PHOTO, words(PHOTO)).eval()
    first = clips(PHOTO, 1)
    second = first.clone()
    second[:, 6:] = 1 - second[:, 6:]
    with torch.no_grad():
        difference = (model.encode(first) - model.encode(second)).abs().amax((0, 1, 3, 4))
    assert float(difference.min()) > 1e-6


def test_named_layers_are_blind_to_order_and_see_the_whole_clip() -> None:
    namer = FrameWords((1, 2), 32, 8, frames=8).eval()
    nn.init.normal_(namer.class_vectors)
    assert namer.looks == [1, 3, 5, 7]
    batch, book = clips(PHOTO, 1), words(PHOTO)
    (whole, quarters), vector = namer(batch, book)
    assert whole.shape == (1, 1, 1, 1) and quarters.shape == (1, 1, 2, 2) and vector.shape == (1, 8)
    looked_at = torch.zeros_like(batch)
    looked_at[:, namer.looks] = batch[:, namer.looks[::-1]]
    again = namer(looked_at, book)
    assert torch.equal(again[0][1], quarters) and torch.allclose(again[1], vector, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 15}, "15 frames of 16 px"),
        ({"side": 32}, "frames of 32 px"),
        ({"grids": [[1, 1, 1], [3, 2, 2], [2, 4, 4]]}, "multiple of every grid"),
        ({"grids": []}, "at least one layer"),
        ({"halvings": [True]}, "2 down-samplings"),
        ({"projection": 4}, "projected needs projection"),
        ({"quantizer": "projected"}, "projected needs projection"),
        ({"named_layers": 1}, "needs net photo3d"),
        ({"train_on": "latents"}, "for net photo3d"),
        ({"channels": 2}, "channels must be 1"),
        ({"multipliers": []}, "multipliers must be"),
        ({"net": "cnn"}, "cnn3d"),
    ],
)
def test_what_cannot_work_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(CNN, **changes)


def test_what_cannot_work_with_taef2_is_said() -> None:
    with pytest.raises(UsageError, match="a whole number of times shorter"):
        changed(PHOTO, frames=9)
    with pytest.raises(UsageError, match="channels must be 3"):
        changed(PHOTO, channels=1)
    with pytest.raises(UsageError, match="one frame and as many rows"):
        changed(PHOTO, grids=[[1, 1, 1], [2, 2, 2], [2, 4, 4], [2, 4, 4]])
    with pytest.raises(UsageError, match="no pretrained parts"):
        ClipSPAE(CNN, words(CNN)).load_pretrained("nowhere")
    with pytest.raises(UsageError, match=r"clips must be \[B, 4, 3, 16, 16\]"):
        ClipSPAE(CNN, words(CNN)).encode(torch.rand(1, 3, 16, 16))
    with pytest.raises(UsageError, match="divide bytes"):
        ClipSPAE(CNN, words(CNN)).encode(torch.zeros(1, 4, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"codebook must be \[T, 8\]"):
        ClipSPAE(CNN, torch.zeros(4, 9))
