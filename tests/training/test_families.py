"""Another family of models goes through the same loop: a toy, made of what a family has to give and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional

from icl_vision.checks import count, number
from icl_vision.cli import main
from icl_vision.codebook import Codebook
from icl_vision.errors import RunMismatchError, StorageError, UntrustedNameError, UsageError
from icl_vision.files.runs import read_results
from icl_vision.files.typed import check_fields
from icl_vision.models.interface import WordAutoencoder, check_images
from icl_vision.models.quantizers.streaming import Quantized, VectorQuantizer
from icl_vision.pyramid import PyramidLayout
from icl_vision.training import Adversary, Family, TrainConfig, TrainingStep, load_config, load_model, register, train
from icl_vision.training.checkpoint import latest_checkpoint

# -- what would stand in models/


@dataclass(frozen=True)
class ToyConfig:
    """A grid of words without a pyramid. guess: a head that fills in words which are hidden from the decoder."""

    side: int = 16
    channels: int = 1
    grid: int = 2
    guess: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        count("grid", self.grid)

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout(((self.grid, self.grid),))


class Toy(WordAutoencoder):
    def __init__(self, config: ToyConfig, codebook: Tensor) -> None:
        super().__init__()
        self.config = config
        self.layout = config.layout
        cell, dim = config.side // config.grid, codebook.shape[1]
        self.encoder = nn.Conv2d(config.channels, dim, cell, stride=cell)
        self.quantizer = VectorQuantizer(codebook, grid=(config.grid, config.grid), normalise=True)
        self.decoder = nn.ConvTranspose2d(dim, config.channels, cell, stride=cell)
        self.head = nn.Conv2d(dim, dim, 3, padding=1) if config.guess else None

    @property
    def words(self) -> int:
        return self.quantizer.words

    def encode_ids(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.quantizer.encode_ids(self.encoder(images))

    def decode_ids(self, ids: Sequence[Tensor], layers: int | Tensor | None = None) -> Tensor:
        return self.decode(self.quantizer.decode_ids(ids)).clamp(0, 1)

    def decode(self, vectors: Tensor) -> Tensor:
        images: Tensor = self.decoder(vectors if self.head is None else vectors + self.head(vectors))
        return images

    def warm_start(self, tensors: Mapping[str, Tensor]) -> None:
        fresh = {name: value for name, value in self.state_dict().items() if name.startswith("head.")}
        self.load_state_dict({**fresh, **tensors})


# -- what would stand in training/


@dataclass(frozen=True)
class ToyLoss:
    pixel: float = 1.0
    commitment: float = 0.25
    adversary: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        number("loss.pixel", self.pixel, least=0)


@dataclass(frozen=True)
class ToyTrainConfig(TrainConfig):
    """hide: share of words that the decoder does not see in training. words_of: a path, as a text encoder's may be."""

    family: ClassVar[str] = "toy"
    paths = {**TrainConfig.paths, "words_of": tuple}  # noqa: RUF012 (the base says that it belongs to the class)

    model: ToyConfig = field(default_factory=ToyConfig)
    loss: ToyLoss = field(default_factory=ToyLoss)
    hide: float = 0.5
    words_of: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        number("hide", self.hide, least=0, most=1)

    def check_codebook(self, codebook: Codebook | None) -> None:
        if codebook is None:
            raise UsageError("a toy says words of a codebook: name one with codebook")


class ToyStep(TrainingStep):
    model: Toy

    def __init__(self, model: Toy, config: ToyTrainConfig) -> None:
        super().__init__(model)
        self.config = config
        self.measured: int | None = None
        if config.loss.adversary:
            self.adversary = ToyAdversary(self)

    def measure(self, images: Tensor) -> None:
        self.measured = len(images)

    def forward(
        self, images: Tensor, labels: Tensor | None, step: int, frozen: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        check_images(images, self.model.config)
        assert labels is not None and self.measured == 8
        quantized: Quantized = self.model.quantizer(self.model.encoder(images))
        self.ids = quantized.ids
        hidden = torch.rand(quantized.ids[0].shape, device=images.device) < self.config.hide
        self.reconstruction = self.model.decode(quantized.quantized * ~hidden[:, None])
        pixel = functional.mse_loss(self.reconstruction, images)
        total = self.config.loss.pixel * pixel + self.config.loss.commitment * quantized.commitment[0]
        return {"pixel": pixel, "hidden": hidden.float().mean(), "total": total}


class ToyAdversary(Adversary):
    def __init__(self, step: ToyStep) -> None:
        self.step = step
        self.net = nn.Conv2d(1, 1, 4)

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        both = self.net(torch.cat([images, self.step.reconstruction.detach()]))
        real, made = both.chunk(2)
        return {"gap": (real - made).mean(), "total": functional.softplus(made - real).mean()}


def build_toy(config: ToyTrainConfig, codebook: Codebook | None) -> Toy:
    assert codebook is not None  # the config's check
    return Toy(config.model, torch.tensor(codebook.vectors))


def toy_step(config: ToyTrainConfig, model: Toy, codebook: Codebook | None, classes: Sequence[str]) -> ToyStep:
    assert list(classes) == list("0123456789")
    return ToyStep(model, config)


# -- what would stand in exporters/


class ToyEncoderGraph(nn.Module):
    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy

    def forward(self, pixels: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        images = pixels.permute(0, 3, 1, 2).float().mean(1, keepdim=True) / 255
        vectors = self.toy.encoder(images)
        (ids,) = self.toy.quantizer.encode_ids(vectors, codebook)
        return ids.flatten(1).to(torch.int32), vectors.mean((2, 3))


class ToyDecoderGraph(nn.Module):
    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy

    def forward(self, ids: Tensor, layers: Tensor, codebook: Tensor) -> Tensor:
        grid = ids.reshape(-1, *self.toy.layout.finest)
        images = self.toy.decode(self.toy.quantizer.decode_ids([grid], layers.reshape(()), codebook)).clamp(0, 1)
        return (images.expand(-1, 3, -1, -1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def export_toy(model: Toy, out: Path, export: Any) -> dict[str, Any]:
    from icl_vision.exporters import artefact
    from icl_vision.exporters.checkpoint import graph
    from icl_vision.models.rounding import round_to_fp16

    round_to_fp16(model)
    codebook, pixels = torch.tensor(export.codebook.vectors), torch.from_numpy(export.pixels[:2])
    encoder, decoder = ToyEncoderGraph(model).eval(), ToyDecoderGraph(model).eval()
    batch = {0: torch.export.Dim("batch")}
    with torch.inference_mode():
        ids, vectors = encoder(pixels, codebook)
    inputs = {"pixels": pixels, "codebook": codebook}
    encoder_data, facts = graph(encoder, inputs, ["ids", "features"], {"pixels": batch}, export, model.layout)
    inputs = {"ids": ids, "layers": torch.tensor([1]), "codebook": codebook}
    decoder_data, _ = graph(decoder, inputs, ["pixels"], {"ids": batch}, export, model.layout)
    card = {
        **facts,
        "layout": model.layout.to_dict(),
        "features": vectors.shape[1],
        "opset": artefact.OPSET,
        "preprocessing": export.preprocessing.to_dict(),
        **export.card,
    }
    with artefact.writing(out, kind=facts["kind"]) as folder:
        (folder / "encoder.onnx").write_bytes(encoder_data)
        (folder / "decoder.onnx").write_bytes(decoder_data)
        return artefact.write_card(folder, card)


FAMILY = register(Family("toy", ToyTrainConfig, build_toy, toy_step, f"{__name__}:export_toy"))


# -- and the proof


@pytest.fixture
def toy(codebook_folder: Path, digits_file: Path, tmp_path: Path) -> Any:
    """Writes a configuration as a file and reads it; keyword arguments are laid over it, mapping by mapping."""

    def make(**changes: Any) -> TrainConfig:
        document: dict[str, Any] = {
            "family": "toy",
            "codebook": str(codebook_folder),
            "data": {"path": str(digits_file), "validation": 8, "shift": 1},
            "optimiser": {"rate": 1e-2, "weight_decay": 0.01},
            "log": {"every": 2, "validate": 3, "grid": 6, "checkpoint": 3, "tensorboard": False},
            "steps": 6,
            "batch": 8,
            "devices": {"accelerator": "cpu"},
        }
        for key, value in changes.items():
            document[key] = {**document[key], **value} if isinstance(value, dict) and key in document else value
        file = tmp_path / "toy.yaml"
        file.write_text(yaml.safe_dump(document))
        return load_config(file, trust=True)

    return make


def weights(run: Path, name: str) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    return checkpoint.tensors(name)


@pytest.mark.parametrize("adversary", [False, True])
def test_it_trains_and_a_resumed_run_ends_in_the_very_same_weights(toy: Any, tmp_path: Path, adversary: bool) -> None:
    config = toy(loss={"adversary": adversary})
    result = train(config, tmp_path / "whole")
    assert set(result.metrics) == {"psnr", "psnr/1"}
    rows = dict(read_results(tmp_path / "whole"))
    assert {"loss/hidden", "loss/pixel", "loss/total", "perplexity/1", "psnr"} <= set(rows["step-00000006"])
    assert ("discriminator/gap" in rows["step-00000006"]) is adversary
    assert (tmp_path / "whole" / "grids" / "step-00000006.png").is_file()
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["command"] == "train toy"
    train(config, tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    torch.manual_seed(99)
    train(config, tmp_path / "parts", resume=True)
    for name in ("model", "ema", "optimiser", *(["discriminator"] if adversary else [])):
        whole, parts = weights(tmp_path / "whole", name), weights(tmp_path / "parts", name)
        assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole), name
    with pytest.raises(RunMismatchError, match="another configuration"):
        train(toy(hide=0.25, loss={"adversary": adversary}), tmp_path / "parts", resume=True)


def test_a_run_gives_its_own_kind_of_model_back(toy: Any, tmp_path: Path, codebook_folder: Path) -> None:
    train(toy(steps=1), tmp_path / "run")
    model = load_model(tmp_path / "run", codebook=codebook_folder)
    assert type(model) is Toy and not model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights(tmp_path / "run", "ema").items())


def test_a_model_may_grow_out_of_an_earlier_run(toy: Any, tmp_path: Path) -> None:
    train(toy(), tmp_path / "first")
    start = weights(tmp_path / "first", "ema")
    grown = toy(model={"guess": True}, init=str(tmp_path / "first"), steps=1, optimiser={"rate": 1e-12})
    with pytest.raises(AssertionError):  # nothing is measured anew where weights were learned: the step says so itself
        train(grown, tmp_path / "second")
    from icl_vision.training.building import build_model, load_codebook

    model = build_model(grown, load_codebook(grown))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in start.items())
    assert "head.weight" in model.state_dict()
    with pytest.raises(StorageError, match="does not fit the model"):
        other = toy(model={"grid": 4}, init=str(tmp_path / "first"))
        build_model(other, load_codebook(other))


def test_configurations_name_their_family(toy: Any, tmp_path: Path) -> None:
    config = toy()
    assert type(config) is ToyTrainConfig
    assert config.to_dict()["family"] == "toy" and TrainConfig.from_dict(config.to_dict()) == config
    assert "family" not in load_config("spae-digits-32").to_dict()  # as in 0.1.0, whose hashes decide on resuming
    assert toy(hide=0.25).hash != config.hash == toy(log={"every": 5}).hash
    with pytest.raises(UsageError, match=r"unknown key 'hid' \(did you mean 'hide'\?\)"):
        toy(hid=1)
    with pytest.raises(UsageError, match="hide must be a number from 0 to 1; got 2"):
        toy(hide=2)
    with pytest.raises(UsageError, match="unknown key 'guide'"):
        toy(guide={"kind": "none"})
    with pytest.raises(UsageError, match="family must be one of clips, lqae, spae, toy; got 'lqea'"):
        toy(family="lqea")
    (tmp_path / "named.yaml").write_text("family: toy\nwords_of: elsewhere\n")
    with pytest.raises(UntrustedNameError, match="names the words_of .*--set words_of=VALUE"):
        load_config(tmp_path / "named.yaml")
    named = load_config(tmp_path / "named.yaml", trust=True, data="mine")
    assert named.without_paths() == {
        **named.to_dict(),
        "words_of": None,
        "data": named.to_dict()["data"] | {"path": None},
    }


def test_the_command_of_another_family_is_named(toy: Any, tmp_path: Path) -> None:
    toy()
    arguments = ["train", "spae", "--config", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "run"), "--trust"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "of another family: icl-vision train toy takes it" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_name_belongs_to_one_family() -> None:
    assert register(FAMILY) is FAMILY
    with pytest.raises(UsageError, match="a family is called 'toy' already"):
        register(Family("toy", ToyTrainConfig, build_toy, toy_step, "elsewhere:export"))


@pytest.mark.slow
def test_its_export_is_a_tokenizer(toy: Any, tmp_path: Path, codebook_folder: Path, digits_file: Path) -> None:
    from icl_vision.exporters.checkpoint import Wishes, export_checkpoint
    from icl_vision.models.rounding import round_to_fp16
    from icl_vision.testing import check_tokenizer
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    train(toy(), tmp_path / "run")
    card = export_checkpoint(tmp_path / "run", tmp_path / "tokenizer", Wishes(licence="MIT", codebook=codebook_folder))
    assert card["recipe"]["config"]["family"] == "toy" and card["licence"] == "MIT"
    tokenizer = OnnxTokenizer(tmp_path / "tokenizer", providers="cpu")
    assert tokenizer.layout.cumulative == (4,) and tokenizer.can_decode
    model = round_to_fp16(load_model(tmp_path / "run", codebook=codebook_folder))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)
    ids = model.encode_ids(torch.from_numpy(pixels)[:, None].float() / 255)[0]
    for image, pyramid in enumerate(tokenizer.encode(list(np.repeat(pixels[..., None], 3, axis=3)))):
        assert np.array_equal(pyramid.ids[0], ids[image].numpy())
    check_tokenizer(lambda: OnnxTokenizer(tmp_path / "tokenizer", providers="cpu"))
