"""What OnnxTokenizer says about folders that are not what they should be. A copy of words-photo is damaged in turn."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import icl_vision
from icl_vision.errors import ArtefactDamagedError, ArtefactError, ArtefactNotFoundError, UsageError
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import GraphSession

PACKAGED = Path(icl_vision.__file__).parent / "artefacts"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED / "tokenizers/words-photo", tmp_path / "mine"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ArtefactDamagedError, match=match):
        OnnxTokenizer(folder)


def test_a_copy_elsewhere_works(folder: Path) -> None:
    assert OnnxTokenizer(folder).vocabulary.words


def test_no_folder_no_card(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFoundError, match="there is no folder"):
        OnnxTokenizer(tmp_path / "none")
    refused(tmp_path, "has no card.json")


def test_missing_changed_and_truncated_files(folder: Path) -> None:
    data = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.onnx").write_bytes(data[:-1000])
    refused(folder, r"encoder.onnx in .* is not the file its card describes: its sha256 is")
    (folder / "encoder.onnx").unlink()
    refused(folder, r"has no encoder.onnx; fetch or build the folder again")
    (folder / "encoder.onnx").write_bytes(data)
    (folder / "classes.txt").write_text("cat\n")
    refused(folder, "classes.txt in .* is not the file its card describes")


def test_a_file_changed_after_it_was_checked(folder: Path) -> None:
    tokenizer = OnnxTokenizer(folder)
    (folder / "encoder.onnx").write_bytes(b"other")
    with pytest.raises(ArtefactDamagedError, match="encoder.onnx was changed since it was checked"):
        _ = tokenizer.provider


def test_files_outside_the_folder_are_refused(folder: Path) -> None:
    edit(folder, lambda card: card["files"].update({"../secret": "0" * 64}))
    refused(folder, "lists '../secret', which is no plain file name")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda card: card.update(kind="decoder"), "its card is of kind 'decoder'"),
        (lambda card: card.update(format_version=99), "has format 99"),
        (lambda card: card.update(opset=99), "its graph has opset 99; this icl-vision reads 13 to 23"),
        (lambda card: card.pop("vocabulary"), "its card lacks vocabulary"),
        (lambda card: card.update(k_max=0), "its card says k_max = 0"),
        (lambda card: card.update(files=[]), "must list encoder.onnx with its sha256"),
        (lambda card: card.update(preprocessing="squash"), "preprocessing must be an object with a size"),
        (lambda card: card["preprocessing"].update(size=10**9), "size must be 1 to 4096"),
        (lambda card: card["preprocessing"].update(resize="pad"), "resize must be 'squash' or 'crop'; got 'pad'"),
        (lambda card: card["preprocessing"].update(filter="magic"), "filter must be one of nearest, bilinear"),
        (lambda card: card["codebook"].update(name="../x"), "must name its codebook and the codebook's hash"),
        (lambda card: card["codebook"].update(name="none"), "no such folder inside or beside it, nor in the package"),
        (lambda card: card["codebook"].update(hash="0" * 64), "'portable-minilm-128' has [0-9a-f]{12}"),
        (lambda card: card.update(vocabulary="0" * 64), "has other words than it was built with"),
    ],
)
def test_cards_that_do_not_fit(folder: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    edit(folder, change)
    refused(folder, match)


def test_own_codebook_beside_the_folder_wins_by_hash(folder: Path) -> None:
    beside = shutil.copytree(PACKAGED / "codebooks/portable-minilm-128", folder.parent / "portable-minilm-128")
    assert OnnxTokenizer(folder).vocabulary
    (beside / "codebook.safetensors").write_bytes(b"broken")
    refused(folder, "codebook.safetensors in .* is not the file its card describes")


def test_a_graph_onnxruntime_cannot_read(folder: Path) -> None:
    (folder / "encoder.onnx").write_bytes(b"not a graph")
    digest = hashlib.sha256(b"not a graph").hexdigest()
    edit(folder, lambda card: card["files"].update({"encoder.onnx": digest}))
    with pytest.raises(ArtefactDamagedError, match=r"onnxruntime [\d.]+ cannot read the graph of 'words-photo'"):
        _ = OnnxTokenizer(folder).provider


def test_wrong_inputs_at_run_time_are_wrapped() -> None:
    data = (PACKAGED / "tokenizers/words-photo/encoder.onnx").read_bytes()
    session = GraphSession(data, "words-photo", providers="cpu")
    with pytest.raises(ArtefactError, match="onnxruntime failed while running 'words-photo'"):
        session.run({}, ["ids"])


def test_tokenizer_without_classes_cannot_withhold(folder: Path) -> None:
    (folder / "classes.txt").unlink()
    edit(folder, lambda card: card["files"].pop("classes.txt"))
    with pytest.raises(UsageError, match="recognises no fixed classes, so none can be withheld"):
        OnnxTokenizer(folder, withhold=["cat"])


def test_crop_takes_the_centre_and_squash_takes_all() -> None:
    from PIL import Image

    wide = Image.new("RGB", (90, 30), "blue")
    wide.paste("red", (30, 0, 60, 30))
    crop = Preprocessing(16, "crop", "nearest", short=16).apply(wide)
    assert crop.getcolors() == [(256, (255, 0, 0))]
    squash = Preprocessing(18, "squash", "nearest").apply(wide)
    assert sorted(squash.getcolors() or []) == [(108, (255, 0, 0)), (216, (0, 0, 255))]
    with pytest.raises(ArtefactDamagedError, match="a crop of 32 needs short"):
        Preprocessing(32, "crop", "nearest", short=16)
