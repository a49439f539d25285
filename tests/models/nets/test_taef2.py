"""TAEF2: tensor names and shapes as published, the literal sequence, files of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError
from icl_vision.models.nets.taef2 import DECODER_FILE, ENCODER_FILE, Taef2Decoder, Taef2Encoder, load_taef2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in fp16, as the published files are."""
    path = tmp_path_factory.mktemp("taef2")
    torch.manual_seed(0)
    for net, name in ((Taef2Encoder(), ENCODER_FILE), (Taef2Decoder(), DECODER_FILE)):
        save_file({key: value.half() for key, value in net.state_dict().items()}, path / name)
    return path


def block(w: dict[str, torch.Tensor], i: int, x: torch.Tensor) -> torch.Tensor:
    """The unit of the reference notes, from tensors alone."""
    if f"{i}.pool.0.weight" in w:
        y = F.conv2d(x, w[f"{i}.pool.0.weight"])
        y = F.group_norm(y, 4, w[f"{i}.pool.1.weight"], w[f"{i}.pool.1.bias"]).relu()
        x = x + F.conv2d(y, w[f"{i}.pool.3.weight"])
    y = x
    for layer in (0, 2, 4):
        y = F.conv2d(y, w[f"{i}.conv.{layer}.weight"], w[f"{i}.conv.{layer}.bias"], padding=1)
        y = y.relu() if layer < 4 else y
    return (x + y).relu()


def test_both_nets_are_the_literal_sequence(folder: Path) -> None:
    encoder, decoder = load_taef2(folder)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    w = {key: value.float() for key, value in load_file(folder / ENCODER_FILE).items()}
    x = block(w, 1, F.conv2d(images, w["0.weight"], w["0.bias"], padding=1))
    for start in (2, 6, 10):
        x = F.conv2d(x, w[f"{start}.weight"], stride=2, padding=1)
        for i in range(start + 1, start + 4):
            x = block(w, i, x)
    latents = F.conv2d(x, w["14.weight"], w["14.bias"], padding=1)
    torch.testing.assert_close(encoder(images), latents)
    assert latents.shape == (2, 32, 4, 4)

    w = {key: value.float() for key, value in load_file(folder / DECODER_FILE).items()}
    far = latents * 50  # where squeezing matters
    x = F.conv2d(3 * torch.tanh(far / 3), w["1.weight"], w["1.bias"], padding=1).relu()
    for i in (3, 4, 5):
        x = block(w, i, x)
    for up, blocks in ((7, (8, 9, 10)), (12, (13, 14, 15)), (17, (18,))):
        x = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), w[f"{up}.weight"], padding=1)
        for i in blocks:
            x = block(w, i, x)
    torch.testing.assert_close(decoder(far), F.conv2d(x, w["19.weight"], w["19.bias"], padding=1))
    assert decoder(far).shape == images.shape


def test_names_are_the_published_ones() -> None:
    encoder, decoder = (set(net().state_dict()) for net in (Taef2Encoder, Taef2Decoder))
    assert len(encoder) == len(decoder) == 79
    assert {name.split(".")[0] for name in encoder if "pool" in name} == {"11", "12", "13"}
    assert {name.split(".")[0] for name in decoder if "pool" in name} == {"3", "4", "5"}
    assert {"0.bias", "2.weight", "6.weight", "10.weight", "14.bias"} <= encoder and "2.bias" not in encoder
    assert {"1.bias", "7.weight", "12.weight", "17.weight", "19.bias"} <= decoder and "7.bias" not in decoder


def test_loaded_nets_are_fp32_and_evaluating(folder: Path) -> None:
    for net in load_taef2(folder):
        assert not net.training and all(value.dtype == torch.float32 for value in net.state_dict().values())


def test_bad_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFoundError, match="no TAEF2 weights at .*taef2-encoder.safetensors"):
        load_taef2(tmp_path)
    with pytest.raises(ArtefactDamagedError, match="does not hold the weights of Taef2Decoder: 86 tensors"):
        Taef2Decoder.load(folder / ENCODER_FILE)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not")
    with pytest.raises(ArtefactDamagedError, match="is not a safetensors file"):
        Taef2Encoder.load(bad)
    weights = load_file(folder / ENCODER_FILE)
    save_file(weights | {"14.bias": torch.zeros(31)}, bad)
    with pytest.raises(ArtefactDamagedError, match="1 tensors are missing, left over or of another shape.* 14.bias"):
        Taef2Encoder.load(bad)
