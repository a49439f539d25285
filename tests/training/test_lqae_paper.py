"""The paper's LQAE in small: lqae-paper-256 with a tiny ViT, and a tiny RoBERTa of transformers, whose whole table is
the words, from the masked language model on disk to a tokenizer: codebook, training, resumption, export, and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_masked_lm
import torch
from PIL import Image

from icl_vision.codebook import Codebook
from icl_vision.exporters.checkpoint import Wishes, export_checkpoint
from icl_vision.exporters.table_codebook import build_table_codebook, build_whole_codebook
from icl_vision.models.lqae import LQAE
from icl_vision.models.rounding import round_to_fp16
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.training import TrainConfig, load_config, load_model, train
from icl_vision.training.checkpoint import latest_checkpoint

SHAPE = "{width: 16, layers: 3, heads: 2, inner: 24, positions: 20, eps: 1.0e-12, head: true}"
SMALL = (
    "model.side=32", "model.grid=4", "model.patch=8", "model.dim=16", "model.hidden=16", "model.layers=2",
    "model.heads=2", "model.inner=24", f"model.text={SHAPE}", "data.validation=4", "data.workers=0",
    "data.load_size=36", "batch=4", "steps=4", "log.every=1", "log.validate=2", "log.grid=4", "log.checkpoint=2",
    "log.tensorboard=false", "precision=32-true", "loss.mlm=0.1", "devices.accelerator=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny RoBERTa."""
    folder = tmp_path_factory.mktemp("roberta")
    tiny_masked_lm.saved(folder, "roberta")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of 36 px, cut to 32 in training."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(random.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(folder: Path, book: Path, photographs: Path, *changes: str) -> TrainConfig:
    return load_config(
        "lqae-paper-256", [*SMALL, f"text_encoder={folder}", f"codebook={book}", *changes], data=photographs
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.tensors("model")


def test_a_run_on_all_rows_is_resumed_bit_for_bit(
    roberta: Path, photographs: Path, tmp_path: Path, one_thread: None
) -> None:
    build_whole_codebook(tmp_path / "book", text_encoder=str(roberta), name="book")
    settings = config(roberta, tmp_path / "book", photographs)
    train(settings, tmp_path / "run", progress=False)
    whole = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    torch.manual_seed(99)
    train(settings, tmp_path / "run", resume=True, progress=False)
    again = weights(tmp_path / "run")
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


@pytest.mark.slow
def test_a_run_on_all_rows_is_exported_and_read_back(roberta: Path, photographs: Path, tmp_path: Path) -> None:
    book = build_whole_codebook(tmp_path / "book", text_encoder=str(roberta), name="book")
    train(config(roberta, tmp_path / "book", photographs, "steps=2"), tmp_path / "run", progress=False)
    export_checkpoint(tmp_path / "run", tmp_path / "tiny", Wishes(codebook=tmp_path / "book"))
    tokenizer = ImageTokenizer.from_pretrained(tmp_path / "tiny", providers="cpu")
    assert tokenizer.layout.grids == ((4, 4),) and tokenizer.vocabulary == book.vocabulary
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pyramids = tokenizer.encode(list(pixels))
    texts = [tokenizer.to_text(pyramid) for pyramid in pyramids]
    assert [tokenizer.from_text(text) for text in texts] == pyramids
    assert [image.size for image in tokenizer.decode(pyramids)] == [(32, 32)] * 3
    model = load_model(tmp_path / "run", trust=True)
    assert isinstance(model, LQAE) and model.words == 60
    round_to_fp16(model)
    (ids,) = model.encode_ids(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    assert np.array_equal(np.stack([pyramid.ids[0] for pyramid in pyramids]), ids.numpy())


def test_the_text_encoder_has_the_published_weights_and_keeps_them(
    roberta: Path, photographs: Path, tmp_path: Path
) -> None:
    build_whole_codebook(tmp_path / "book", text_encoder=str(roberta), name="book")
    train(config(roberta, tmp_path / "book", photographs), tmp_path / "run", progress=False)
    model = load_model(tmp_path / "run", trust=True)
    assert isinstance(model, LQAE) and model.text is not None
    theirs = tiny_masked_lm.transformers.AutoModelForMaskedLM.from_pretrained(roberta)
    layer = theirs.roberta.encoder.layer[1].intermediate.dense.weight
    assert torch.equal(dict(model.text.named_parameters())["layers.1.inner.weight"], layer)
    # A word that is the padding (row 1) is a word like any other: states are transformers' own at these positions.
    ids = torch.tensor([[5, 1, 7, 9, 0, 1, 2, 30, 59, 8, 8, 8, 8, 8, 8, 8]])
    with torch.no_grad():
        expected = theirs(ids, position_ids=torch.arange(2, 18)[None], output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(model.hidden_states(ids.reshape(1, 4, 4))[-1], expected, atol=2e-3, rtol=1e-3)


def test_words_of_a_choice_are_looked_up_as_pieces(roberta: Path, photographs: Path, tmp_path: Path) -> None:
    among = Codebook.load()
    known = [word for word in tiny_masked_lm.PLAIN if word in among.vocabulary]
    build_table_codebook(tmp_path / "book", text_encoder=str(roberta), name="book", words=len(known))
    train(config(roberta, tmp_path / "book", photographs, "steps=2"), tmp_path / "run", progress=False)
    model = load_model(tmp_path / "run", trust=True)
    assert isinstance(model, LQAE) and model.words == len(known) > 3
