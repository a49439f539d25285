"""A tiny LQAE goes through the loop of all families: trains, resumes bit for bit, is loaded again; what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.files.runs import read_results
from icl_vision.models.lqae import LQAE
from icl_vision.models.nets.taef2 import DECODER_FILE, ENCODER_FILE, Taef2Decoder, Taef2Encoder
from icl_vision.models.rounding import round_to_fp16
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.training import TrainConfig, load_config, load_model, shipped_configs, train
from icl_vision.training.checkpoint import latest_checkpoint
from icl_vision.training.lqae import LqaeTrainConfig

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of 32 px."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def taef2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TAEF2's two files, with random weights."""
    folder = tmp_path_factory.mktemp("taef2")
    torch.manual_seed(0)
    for name, net in ((ENCODER_FILE, Taef2Encoder()), (DECODER_FILE, Taef2Decoder())):
        save_file(net.state_dict(), folder / name)
    return folder


@pytest.fixture
def lqae(codebook_folder: Path, photographs: Path, taef2: Path) -> Make:
    """A configuration of six steps, two of them past the text encoder; keyword arguments are laid over it."""

    def make(**changes: Any) -> TrainConfig:
        document: dict[str, Any] = {
            "family": "lqae",
            "model": {
                "net": "photo", "side": 32, "grid": 2, "dim": 8, "directions": 4, "batch_norm": True, "width": 16,
                "blocks": 1, "train_on": "latents", "mask": [0.0, 0.6],
                "text": {"width": 8, "layers": 1, "heads": 2, "inner": 16, "positions": 8, "head": True},
            },
            "loss": {"mlm": 0.1},
            "past_text": 2,
            "remember": True,
            "codebook": str(codebook_folder),
            "pretrained": str(taef2),
            "data": {"path": str(photographs), "validation": 4, "workers": 0},
            "optimiser": {"rate": 1e-3},
            "log": {"every": 2, "validate": 3, "grid": 6, "checkpoint": 3, "tensorboard": False, "images": 4},
            "steps": 6,
            "batch": 4,
            "devices": {"accelerator": "cpu"},
        }  # fmt: skip
        for key, value in changes.items():
            document[key] = {**document[key], **value} if isinstance(value, dict) and key in document else value
        return TrainConfig.from_dict(document)

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.tensors("model")


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_resumed_run_ends_in_the_very_same_weights(lqae: Make, tmp_path: Path, one_thread: None) -> None:
    train(lqae(), tmp_path / "whole")
    train(lqae(), tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    torch.manual_seed(99)
    train(lqae(), tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_the_text_encoder_takes_part_after_the_first_steps(lqae: Make, tmp_path: Path) -> None:
    train(lqae(log={"every": 1}), tmp_path / "run")
    rows = dict(read_results(tmp_path / "run"))
    mlm = [rows[f"step-{step:08}"]["loss/mlm"] for step in range(1, 7)]
    assert mlm[:2] == [0.0, 0.0] and any(value > 0 for value in mlm[2:])
    assert all(np.isfinite(row["loss/total"]) for row in rows.values())


def test_training_makes_reconstructions_better_and_leaves_frozen_parts_alone(
    lqae: Make, tmp_path: Path, codebook_folder: Path, taef2: Path
) -> None:
    config = lqae(steps=40, optimiser={"rate": 1e-2}, log={"validate": 1, "checkpoint": 40}, past_text=0)
    train(config, tmp_path / "run")
    loss = [row["loss/pixel"] for _, row in read_results(tmp_path / "run") if "loss/pixel" in row]
    assert loss[-1] < 0.9 * loss[0]
    model = load_model(tmp_path / "run", trust=True)
    assert isinstance(model, LQAE) and not model.training
    published = Taef2Encoder.load(taef2 / ENCODER_FILE).state_dict()
    torch.testing.assert_close(dict(model.encoder.latents.state_dict()), dict(published), rtol=0, atol=0)
    images = torch.rand(2, 3, 32, 32)
    assert model.decode_ids(model.encode_ids(images)).shape == (2, 3, 32, 32)


def test_a_learned_codebook_is_trained_and_stored(lqae: Make, tmp_path: Path) -> None:
    changes = {"learned": True, "words": 12, "directions": 0, "text": None}
    train(lqae(model=changes, codebook=None, loss={"mlm": 0}, past_text=0), tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert isinstance(model, LQAE) and model.learned_codebook is not None and model.learned_codebook.shape == (12, 8)


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_a_trained_run_is_exported_and_says_the_models_words(
    lqae: Make, tmp_path: Path, codebook_folder: Path, learned: bool
) -> None:
    from icl_vision.exporters.checkpoint import Wishes, export_checkpoint

    vq = {"learned": True, "words": 12, "directions": 0, "text": None}
    config = lqae(model=vq, codebook=None, loss={"mlm": 0}, past_text=0) if learned else lqae()
    train(config, tmp_path / "run")
    wishes = Wishes(licence="MIT", codebook=None if learned else codebook_folder)
    card = export_checkpoint(tmp_path / "run", tmp_path / "tokenizer", wishes)
    tokenizer = ImageTokenizer.from_pretrained(tmp_path / "tokenizer", providers="cpu")
    assert tokenizer.layout.grids == ((2, 2),) and card["recipe"]["step"] == 6
    # The numbers of a learned codebook are called by the first packaged words; they mean nothing there.
    names = Codebook.load().vocabulary.words[:12] if learned else Codebook.load(codebook_folder).vocabulary.words
    assert tokenizer.vocabulary is not None and tuple(tokenizer.vocabulary) == tuple(names)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pyramids = tokenizer.encode(list(pixels))
    again = [tokenizer.from_text(tokenizer.to_text(pyramid)) for pyramid in pyramids]
    assert again == pyramids and [image.size for image in tokenizer.decode(again)] == [(32, 32)] * 3
    model = load_model(tmp_path / "run", trust=True)
    round_to_fp16(model)
    (ids,) = model.encode_ids(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    assert np.array_equal(np.stack([pyramid.ids[0] for pyramid in pyramids]), ids.numpy())


def test_weights_of_a_text_encoder_must_be_of_the_codebooks_table(
    lqae: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icl_vision.models.words.masked_lm import MaskedTextEncoder
    from icl_vision.models.words.masked_lm_files import TextShape

    asked: dict[str, Any] = {}

    def load(source: str, layers: int | None = None, words: tuple[str, ...] | None = None) -> MaskedTextEncoder:
        asked.update(source=source, layers=layers, words=words)
        shape = TextShape(width=8, layers=1, heads=asked.get("heads", 2), inner=16, positions=8, head=True)
        return MaskedTextEncoder(shape, torch.zeros(16, 8))

    monkeypatch.setattr(MaskedTextEncoder, "load", staticmethod(load))
    with pytest.raises(UsageError, match="does not hold the rows of the table of 'somewhere'"):
        train(lqae(text_encoder="somewhere"), tmp_path / "run")
    assert asked["source"] == "somewhere" and asked["layers"] == 1 and len(asked["words"]) == 16
    asked["heads"] = 4
    with pytest.raises(UsageError, match="write that into model.text"):
        train(lqae(text_encoder="somewhere"), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"text": None}, "past_text": 0}, "needs a text encoder with its masked-word head"),
        ({"model": {"text": None}, "loss": {"mlm": 0}}, "past_text leaves out a text encoder"),
        (
            {"model": {"text": None}, "loss": {"mlm": 0}, "past_text": 0, "text_encoder": "x"},
            "model.text, which is null",
        ),
        ({"data": {"flip": True}}, "remember"),
        (
            {"model": {"train_on": "pixels"}, "loss": {"even": 1}},
            "weighs latents, which model.train_on pixels does not",
        ),
        ({"loss": {"pixel": 0, "commitment": 0, "mlm": 0}}, "nothing teaches the decoder"),
        ({"past_text": -1}, "past_text"),
        ({"loss": {"mlm": -1}}, "mlm"),
    ],
)
def test_a_configuration_that_cannot_work_says_why(lqae: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lqae(**changes)


def test_a_codebook_must_be_named_and_fit(lqae: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="codebook is null"):
        train(lqae(codebook=None), tmp_path / "run")
    with pytest.raises(UsageError, match="8 dimensions and model.dim is 16"):
        text = {"width": 16, "layers": 1, "heads": 2, "inner": 16, "positions": 8, "head": True}
        train(lqae(model={"dim": 16, "text": text}), tmp_path / "run")


def test_a_photo_net_needs_taef2(lqae: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--set pretrained=FOLDER"):
        train(lqae(pretrained=None), tmp_path / "run")


@pytest.mark.parametrize("name", [name for name in shipped_configs() if name.startswith("lqae")])
def test_a_shipped_configuration_is_of_this_family(name: str) -> None:
    config = load_config(name, ["pretrained=taef2"])
    assert isinstance(config, LqaeTrainConfig)
    if config.model.text is not None:
        assert isinstance(load_config(name, ["pretrained=taef2", "text_encoder=bert"]), LqaeTrainConfig)
