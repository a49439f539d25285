"""SPAE of clips: its nets, its config, the line from frames to words and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.clips import ClipSPAE, build_clip_nets
from icl_vision.models.clips_config import ClipsConfig
from icl_vision.models.losses.clips import ClipLoss
from icl_vision.models.losses.spae import LossConfig, SpaeLoss
from icl_vision.models.quantizers.frame_words import FrameWords
from icl_vision.models.quantizers.motion_words import MOTIONS, MotionWords
from icl_vision.models.spae import SPAE, SpaeConfig

CNN = ClipsConfig(
    frames=4, side=16, grids=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)), dim=8, filters=8, multipliers=(1, 2, 2),
    halvings=(True, False), blocks=1,
)  # fmt: skip
PHOTO = ClipsConfig(
    net="photo3d", frames=8, side=32, grids=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)), dim=8, width=16, blocks=1,
    quantizer="projected", projection=6, named_layers=2,
)  # fmt: skip


MOVING = ClipsConfig.from_dict({
    **PHOTO.to_dict(), "named_layers": 3, "motion_layer": 2,
    "grids": [[1, 1, 1], [1, 1, 1], [1, 2, 2], [2, 4, 4], [2, 4, 4]],
})  # fmt: skip


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


def squares(place: Callable[[int], tuple[float, float, float, float]], light: float = 1.0) -> Tensor:
    """A rectangle over a plain ground, [1, 8, 3, 32, 32]. place: its top, left, height, width in each frame."""
    rows, columns = torch.arange(32).reshape(-1, 1) + 0.5, torch.arange(32).reshape(1, -1) + 0.5
    frames = []
    for frame in range(8):
        top, left, height, width = place(frame)
        inside = ((rows - top).clamp(0, 1) * (top + height - rows).clamp(0, 1)).clamp(0, 1)
        inside = inside * ((columns - left).clamp(0, 1) * (left + width - columns).clamp(0, 1)).clamp(0, 1)
        frames.append(1 - light + (2 * light - 1) * inside)
    return torch.stack(frames)[None, :, None].expand(-1, -1, 3, -1, -1).clone()


SEEN: list[tuple[str, str, Callable[[int], tuple[float, float, float, float]]]] = [
    ("right", "left", lambda t: (10, 4 + 1.5 * t, 8, 8)),
    ("downward", "upward", lambda t: (4 + 1.5 * t, 10, 8, 8)),
    ("growing", "shrinking", lambda t: (14 - t, 14 - t, 4 + 2 * t, 4 + 2 * t)),
    ("shaking", "shaking", lambda t: (10, 10 + 3 * (t % 2), 8, 8)),
    ("jumping", "jumping", lambda t: (10 + 3 * (t % 2), 10, 8, 8)),
    ("still", "still", lambda t: (10, 10, 8, 8)),
]


@pytest.mark.parametrize(
    ("word", "backwards", "place"), SEEN, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("light", [1.0, 0.0], ids=["on black", "on white"])
def test_a_word_says_how_a_clip_moves_and_another_how_its_reverse_does(
    word: str, backwards: str, place: Callable[[int], tuple[float, float, float, float]], light: float
) -> None:
    namer = MotionWords(32)
    clip = squares(place, light)
    for played, wanted in ((clip, word), (clip.flip(1), backwards)):
        assert MOTIONS[int(namer.scores(played).argmax())] == wanted, namer.scores(played)
    namer.say(range(20, 20 + len(MOTIONS)))
    assert namer(clip).shape == (1, 1, 1, 1) and int(namer(clip)) == 20 + MOTIONS.index(word)


def test_what_turns_turns_and_what_blinks_changes() -> None:
    angles = torch.arange(8) * 0.2
    rows, columns = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    across = [(rows * torch.cos(angle) - columns * torch.sin(angle)).abs() for angle in angles]
    along = [(rows * torch.sin(angle) + columns * torch.cos(angle)).abs() for angle in angles]
    bars = torch.stack([(3 - a).clamp(0, 1) * (12 - b).clamp(0, 1) for a, b in zip(across, along, strict=True)])
    blinking = squares(lambda t: (10, 10, 8, 8)) * (torch.arange(8) % 2 == 0).reshape(1, 8, 1, 1, 1)
    namer = MotionWords(32)
    turning = bars[None, :, None].expand(-1, -1, 3, -1, -1)
    assert [MOTIONS[int(namer.scores(clip).argmax())] for clip in (turning, blinking)] == ["turning", "changing"]


def test_a_layer_of_motion_stands_at_its_place_and_the_others_are_as_without_it() -> None:
    model = ClipSPAE(MOVING, words(MOVING)).eval()
    plain = ClipSPAE(PHOTO, words(PHOTO)).eval()
    assert model.motion is not None and model.regions is not None and plain.regions is not None
    plain.regions.load_state_dict(model.regions.state_dict())
    model.motion.say(range(len(MOTIONS)))
    clip = squares(lambda t: (10, 4 + 1.5 * t, 8, 8))
    ids = model.encode_ids(clip)
    assert [tuple(layer.shape[1:]) for layer in ids] == list(MOVING.grids) and int(ids[1]) == MOTIONS.index("right")
    known = model.frozen(clip)
    assert len(known) == 3  # which way a clip is played is no part of what is remembered
    output = model.train()(clip.flip(1), None, (known[0].flip(1), *known[1:]))
    assert int(output.quantized.ids[1]) == MOTIONS.index("left") and torch.equal(output.quantized.ids[2], known[2])
    scores = model.named_scores(clip, model.quantizer.codebook)
    assert scores.shape == (1, 6, 24) and int(scores[0, 1].argmax()) == MOTIONS.index("right")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motion_layer": 3}, "of one word; got motion_layer 3"),
        ({"motion_layer": 4}, "named_layers 3"),
        ({"motion_layer": 1, "named_layers": 1}, "two or more named layers"),
    ],
)
def test_a_layer_of_motion_that_cannot_be_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(MOVING, **changes)
    with pytest.raises(UsageError, match="multiple of 16 px"):
        MotionWords(40)


def test_clips_may_count_alike_by_their_decibels() -> None:
    target, made = torch.zeros(2, 1, 1, 2, 2), torch.tensor([0.1, 1.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 1, 2, 2)
    gradients = []
    for even in (0.0, 1.0):
        found = made.clone().requires_grad_()
        loss = ClipLoss(LossConfig(gan=0, perceptual=0, semantic=0), torch.zeros(3, 4), even=even)._pixel(found, target)
        assert float(loss.detach()) == pytest.approx(0.505)  # the size of a squared error, either way
        (gradient,) = torch.autograd.grad(loss, found)
        gradients.append(gradient.flatten(1).sum(1) * torch.tensor([0.1, 1.0]))  # of one per cent more error each
    assert float(gradients[0][1] / gradients[0][0]) == pytest.approx(100, rel=1e-4)
    assert float(gradients[1][1] / gradients[1][0]) == pytest.approx(1, rel=1e-4)


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
