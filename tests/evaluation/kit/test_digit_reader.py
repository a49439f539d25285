"""The packaged digit reader and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import icl_vision
from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError
from icl_vision.evaluation.kit.digit_reader import DigitReader

PACKAGED = Path(icl_vision.__file__).parent / "artefacts" / "readers" / "digits"


def one() -> Image.Image:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    return Image.fromarray(pixels).convert("RGB")


def test_it_reads_and_its_probabilities_add_up() -> None:
    reader = DigitReader(threads=1)
    assert reader.read([one()]) == ["1"] and reader.read([]) == []
    probabilities = reader.probabilities([one()] * 300)  # more than one batch
    assert probabilities.shape == (300, 10) and np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert reader.card["metrics"]["x_test"]["accuracy"] >= 0.99


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFoundError):
        DigitReader(tmp_path / "none")
    copy = Path(shutil.copytree(PACKAGED, tmp_path / "copy"))
    (copy / "reader.onnx").write_bytes(b"other")
    with pytest.raises(ArtefactDamagedError, match="not the file its card describes"):
        DigitReader(copy)
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps(card | {"kind": "words"}))
    with pytest.raises(ArtefactDamagedError, match="holds no digit reader"):
        DigitReader(copy)
