"""A tiny SPAE of clips through the whole of training: a run, a resume, a start from an image model, the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from icl_vision.cli import main
from icl_vision.errors import UsageError
from icl_vision.models.clips import ClipSPAE
from icl_vision.models.nets.taef2 import DECODER_FILE, ENCODER_FILE, Taef2Decoder, Taef2Encoder
from icl_vision.training import TrainConfig, load_config, load_model, train
from icl_vision.training.checkpoint import latest_checkpoint
from icl_vision.training.clips import ClipsTrainConfig

Make = Callable[..., ClipsTrainConfig]


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten squares that move, four frames each."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(10):
        frames = []
        for step in range(4):
            pixels = np.full((16, 16, 3), 255, dtype=np.uint8)
            pixels[number : number + 4, 2 * step : 2 * step + 4] = (40 * (number % 5), 90, 200)
            frames.append(Image.fromarray(pixels))
        frames[0].save(
            folder / f"{number}.webp", save_all=True, append_images=frames[1:], duration=40, loop=0, lossless=True
        )
    return folder


@pytest.fixture
def tiny_clips(codebook_folder: Path, clips_folder: Path) -> Make:
    """A configuration of four steps of the paper's net; keyword arguments are laid over it, mapping by mapping."""

    def make(**changes: Any) -> ClipsTrainConfig:
        document: dict[str, Any] = {
            "family": "clips",
            "model": {
                "frames": 4, "side": 16, "grids": [[1, 1, 1], [1, 2, 2], [2, 4, 4]], "dim": 8, "filters": 8,
                "multipliers": [1, 2, 2], "halvings": [True, False], "blocks": 1,
            },
            "loss": {"perceptual": 0.0},
            "codebook": str(codebook_folder),
            "data": {"path": str(clips_folder), "validation": 2, "roll": True, "reverse": True},
            "optimiser": {"rate": 1e-3},
            "log": {"every": 2, "validate": 4, "grid": 4, "checkpoint": 2, "tensorboard": False, "images": 2},
            "steps": 4,
            "batch": 4,
            "devices": {"accelerator": "cpu"},
        }  # fmt: skip
        for key, value in changes.items():
            document[key] = {**document[key], **value} if isinstance(value, dict) and key in document else value
        config = TrainConfig.from_dict(document)
        assert isinstance(config, ClipsTrainConfig)
        return config

    return make


@pytest.fixture
def tiny_photo(tiny_clips: Make, tmp_path: Path) -> ClipsTrainConfig:
    """The same on the latents of a TAEF2 with random weights, remembered."""
    from safetensors.torch import save_file

    weights = tmp_path / "taef2"
    weights.mkdir()
    torch.manual_seed(0)
    for name, net in ((ENCODER_FILE, Taef2Encoder()), (DECODER_FILE, Taef2Decoder())):
        save_file({key: value.half() for key, value in net.state_dict().items()}, weights / name)
    document = tiny_clips().to_dict()
    document["model"] = {
        "net": "photo3d", "frames": 4, "side": 16, "grids": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "dim": 8, "width": 8,
        "blocks": 1, "quantizer": "projected", "projection": 4, "train_on": "latents", "candidates": 8,
    }  # fmt: skip
    document |= {"pretrained": str(weights), "remember": True, "depth": {"mode": "random"}}
    config = TrainConfig.from_dict(document)
    assert isinstance(config, ClipsTrainConfig)
    return config


def same_weights(first: Path, second: Path) -> bool:
    one, two = latest_checkpoint(first), latest_checkpoint(second)
    assert one is not None and two is not None and one.step == two.step
    left, right = one.tensors("model"), two.tensors("model")
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_a_run_leaves_what_a_run_of_images_leaves(tiny_clips: Make, tmp_path: Path) -> None:
    result = train(tiny_clips(), tmp_path / "run")
    assert set(result.metrics) == {"psnr", "psnr/1", "psnr/2", "psnr/3"}
    model = load_model(tmp_path / "run", trust=True)
    assert isinstance(model, ClipSPAE)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["command"] == "train clips"
    with Image.open(tmp_path / "run" / "grids" / "step-00000004.png") as grid:
        assert grid.width > 8 * 60 and grid.height > 3 * 60  # four frames of two clips; originals and three layers


def test_training_makes_clips_better(tiny_clips: Make, tmp_path: Path) -> None:
    config = tiny_clips(steps=30, optimiser={"rate": 1e-2}, stop={"perplexity": None})
    result = train(config, tmp_path / "run")
    first = train(tiny_clips(steps=1), tmp_path / "one")
    assert result.metrics["psnr"] > first.metrics["psnr"] + 1


def test_a_resumed_run_ends_in_the_very_same_weights(tiny_photo: ClipsTrainConfig, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_photo, whole)
    train(tiny_photo, parts)
    shutil.rmtree(parts / "checkpoints" / "step-00000004")
    torch.manual_seed(99)  # what the caller does in between changes nothing
    train(tiny_photo, parts, resume=True)
    assert same_weights(whole, parts)
    assert (parts / "memory.safetensors").is_file()


def test_what_frozen_nets_said_before_may_be_brought_along(tiny_photo: ClipsTrainConfig, tmp_path: Path) -> None:
    train(tiny_photo, tmp_path / "first")
    (tmp_path / "second").mkdir()
    shutil.copyfile(tmp_path / "first" / "memory.safetensors", tmp_path / "second" / "memory.safetensors")
    train(tiny_photo, tmp_path / "second")
    assert same_weights(tmp_path / "first", tmp_path / "second")


def test_an_image_run_starts_one_of_clips(tiny: Callable[..., TrainConfig], tiny_clips: Make, tmp_path: Path) -> None:
    cnn = {
        "net": "cnn", "side": 16, "channels": 3, "grids": [1, 2, 4], "dim": 8, "filters": 8, "multipliers": [1, 2, 2],
        "blocks": 1, "word_noise": 0.0,
    }  # fmt: skip
    images = tiny().to_dict()
    images |= {"model": cnn, "loss": {"gan": 0, "perceptual": 0, "semantic": 0}, "steps": 1}
    train(TrainConfig.from_dict(images), tmp_path / "images")
    train(tiny_clips(init=str(tmp_path / "images"), steps=1, optimiser={"rate": 1e-9}), tmp_path / "clips")
    flat, deep = (latest_checkpoint(tmp_path / name) for name in ("images", "clips"))
    assert flat is not None and deep is not None
    kernel, inflated = (each.tensors("ema")["encoder.layers.0.weight"] for each in (flat, deep))
    assert inflated.shape == (8, 3, 3, 3, 3)
    assert torch.allclose(inflated[:, :, 1], kernel, atol=1e-6)
    assert inflated[:, :, [0, 2]].abs().max() < 1e-6


def test_lpips_looks_at_frames(tiny_clips: Make) -> None:
    from icl_vision.training.clips import FramesAlike

    class Mean(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == (6, 3, 4, 4)
            return (a - b).abs().mean((1, 2, 3))

    clips = torch.rand(2, 3, 3, 4, 4)
    assert FramesAlike(Mean())(clips, clips.flip(1)).shape == (6,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook": None}, "codebook is null"),
        ({"depth": {"weights": [1.0]}}, "one number for each of 3 layers"),
        ({"channels_last": True}, "channels_last is for images"),
        ({"remember": True}, "remember is for net photo"),
        ({"loss": {"perceptual": -1.0}}, "loss weight perceptual"),
        ({"loss": {"gan": 0.1}}, "unknown key"),
        ({"model": {"dim": 9}}, "8 dimensions and model.dim is 9"),
    ],
)
def test_what_cannot_work_is_said(tiny_clips: Make, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(tiny_clips(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shipped_configurations_of_clips_hold_together() -> None:
    paper = load_config("spae-paper-video", ["codebook=portable-minilm-128"])
    assert isinstance(paper, ClipsTrainConfig) and paper.model.layout.cumulative[-1] == 2197
    ours = load_config("spae-clips-64")
    assert isinstance(ours, ClipsTrainConfig) and ours.model.frames == 16 and ours.model.side == 64
    with pytest.raises(UsageError, match="LPIPS cannot look at"):
        load_config("spae-clips-64", ["loss.perceptual=0.1"])


def test_the_command_trains_clips_and_sends_other_families_away(tiny_clips: Make, tmp_path: Path) -> None:
    import yaml

    config = tmp_path / "tiny.yaml"
    document = tiny_clips(steps=1).to_dict()
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    arguments = ["--config", str(config), "--out", str(tmp_path / "run"), "--trust", "--quiet"]
    result = CliRunner().invoke(main, ["train", "clips", *arguments])
    assert result.exit_code == 0, result.output
    assert "PSNR from the first 1, 2, 3 layers" in result.stdout and "clips/s" in result.stdout
    refused = CliRunner().invoke(main, ["train", "spae", *arguments])
    assert refused.exit_code != 0 and "icl-vision train clips takes it" in refused.output
