"""A tiny LQAE through the exporter and back, and the packaged one: the same words, the contract, an honest card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from icl_vision.codebook import Codebook
from icl_vision.exporters.checkpoint import Export
from icl_vision.exporters.lqae import export_lqae
from icl_vision.models.lqae import LQAE, LqaeConfig
from icl_vision.models.words.masked_lm_files import TextShape
from icl_vision.testing import check_tokenizer
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.pixels import Preprocessing

WORDS = "lqae-bert-128"
TEXT = TextShape(width=128, layers=1, heads=2, inner=64, positions=16, head=True)
TINY = LqaeConfig(
    net="vit", side=32, channels=3, grid=4, dim=128, directions=6, batch_norm=True, text=TEXT, patch=8, hidden=16,
    layers=1, heads=2, inner=24,
)  # fmt: skip


def tiny(config: LqaeConfig = TINY) -> LQAE:
    torch.manual_seed(3)
    model = LQAE(config, torch.from_numpy(np.array(Codebook.load(WORDS).vectors)))
    model.train()
    model(torch.rand(8, 3, 32, 32))  # BatchNorm has seen something
    return model.eval()


def job(weights: str = "fp16") -> Export:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    card = {"licence": "MIT", "data": "noise"}
    return Export("tiny", Codebook.load(WORDS), Preprocessing(32), pixels, card, weights=weights)  # type: ignore[arg-type]  # a str of the test's table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, "fp16"),
        ({"directions": 0, "normalise": False, "batch_norm": False, "text": None}, "fp16"),
        ({"net": "photo", "grid": 2}, "int8"),
    ],
)
def test_the_exported_tokenizer_says_the_modules_words_and_keeps_the_contract(
    tmp_path: Path, changes: dict[str, object], weights: str
) -> None:
    model = tiny(dataclasses.replace(TINY, **changes))  # type: ignore[arg-type]  # checked by the config itself
    export = job(weights)
    card = export_lqae(model, tmp_path / "tiny", export)
    words = model.layout.cumulative[-1]
    parity = card["metrics"]["parity"]
    assert (parity["mismatches"], parity["ids"]) == (0, 3 * 9 * words) and parity["pixel_difference"] <= 1
    tokenizer = OnnxTokenizer(tmp_path / "tiny", providers="cpu")
    assert tokenizer.can_decode and tokenizer.can_embed and tokenizer.layout == model.layout
    pyramids = tokenizer.encode(list(export.pixels[:3]))
    images = torch.from_numpy(export.pixels[:3]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        (ids,) = model.encode_ids(images)  # the exporter rounded its weights in place
        made = (model.decode_ids((ids,)) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack([pyramid.ids[0] for pyramid in pyramids]), ids.numpy())
    again = np.stack([np.asarray(image) for image in tokenizer.decode(pyramids)]).astype(int)
    assert np.abs(again - made).max() <= 1
    check_tokenizer(lambda: OnnxTokenizer(tmp_path / "tiny", providers="cpu"))


@pytest.mark.slow
def test_a_tokenizer_that_computes_in_half_precision_finds_the_same_words(tmp_path: Path) -> None:
    card = export_lqae(tiny(), tmp_path / "half", dataclasses.replace(job(), precision="fp16"))
    assert card["metrics"]["parity"]["mismatches"] == 0 and card["metrics"]["fp16_agreement"]["agreement"] > 0.95
    assert OnnxTokenizer(tmp_path / "half", providers="cpu").card["precision"] == "fp16"


def test_the_packaged_one_is_of_64_portable_words() -> None:
    tokenizer = ImageTokenizer.from_pretrained("lqae-photo-128", providers="cpu")
    assert tokenizer.layout.grids == ((8, 8),) and len(tokenizer.vocabulary) == 4096
    assert set(tokenizer.vocabulary) <= set(Codebook.load().vocabulary)
    card = json.loads((Path(str(tokenizer.folder)) / "card.json").read_text())  # type: ignore[attr-defined]  # an OnnxTokenizer
    assert card["metrics"]["parity"]["mismatches"] == 0 and "non-commercial" in card["data"]


@pytest.mark.slow
def test_the_packaged_one_keeps_the_contract() -> None:
    check_tokenizer(lambda: ImageTokenizer.from_pretrained("lqae-photo-128", providers="cpu"))
