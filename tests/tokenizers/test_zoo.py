"""The zoo: names, folders, hub ids, and what it says where there is nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import icl_vision
from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, UsageError
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer, zoo
from icl_vision.tokenizers.onnx import OnnxTokenizer

PACKAGED = Path(icl_vision.__file__).parent / "artefacts"


def test_available_and_cards() -> None:
    assert zoo.available() == [
        "ascii",
        "describe-photo",
        "lqae-photo-128",
        "spae-clips-64",
        "spae-digits-32",
        "spae-photo-128",
        "words-photo",
    ]
    for name in zoo.available():
        assert zoo.card(name)["name"] == name


def test_load_by_name_and_by_folder() -> None:
    assert isinstance(zoo.load("ascii", rows=4, columns=4), AsciiTokenizer)
    for name in ("words-photo", PACKAGED / "tokenizers/words-photo", str(PACKAGED / "tokenizers/words-photo")):
        assert isinstance(zoo.load(name), OnnxTokenizer)


def test_unknown_names_list_what_exists(tmp_path: Path) -> None:
    for name in ("words-foto", "", "../words-photo/none", "https://example.org/x", str(tmp_path / "none")):
        with pytest.raises((ArtefactNotFoundError, UsageError)) as caught:
            zoo.load(name)
        assert (
            "ascii, describe-photo, lqae-photo-128, spae-clips-64, spae-digits-32, spae-photo-128, words-photo"
            in str(caught.value)
            or not name
        )


def test_a_file_or_a_codebook_is_no_tokenizer() -> None:
    with pytest.raises(ArtefactNotFoundError, match="a tokenizer is a folder, and .* is a file; did you mean its"):
        zoo.load(PACKAGED / "tokenizers/words-photo/encoder.onnx")
    names = "ascii, describe-photo, lqae-photo-128, spae-clips-64, spae-digits-32, spae-photo-128, words-photo"
    with pytest.raises(ArtefactNotFoundError, match=f"is a codebook, not a tokenizer; available are {names}"):
        zoo.load(PACKAGED / "codebooks/portable-minilm-128")


def test_names_must_be_strings_or_paths() -> None:
    bad: Any
    for bad in (None, 7, ""):
        with pytest.raises(UsageError, match="a tokenizer is named by a string or a path; got"):
            zoo.load(bad)


def test_unknown_options_are_named() -> None:
    with pytest.raises(UsageError, match=r"'words-photo' has no option device; it has providers, threads"):
        ImageTokenizer.from_pretrained("words-photo", device="cuda")
    with pytest.raises(UsageError, match="'ascii' has no option threads; it has rows"):
        ImageTokenizer.from_pretrained("ascii", threads=2)


def test_from_pretrained_on_another_kind() -> None:
    with pytest.raises(UsageError, match="'ascii' is a AsciiTokenizer, not a OnnxTokenizer"):
        OnnxTokenizer.from_pretrained("ascii")


def test_hub_id_without_the_hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ArtefactNotFoundError, match="no tokenizer 'org/name': available are"):
        zoo.load("org/name")
    with pytest.raises(MissingExtraError, match="downloading 'org/name'"):
        zoo.load("org/name", download=True)


def test_hub_id_stays_local_unless_a_download_is_asked_for() -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ArtefactNotFoundError, match="not in the local hub cache; pass download=True to fetch it"):
        zoo.load("org/name")


def test_hub_id_is_downloaded_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(PACKAGED / "tokenizers/words-photo")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert zoo.load("org/name", download=True).name == "words-photo"
    assert asked["repository"] == "org/name"
    assert asked["local_files_only"] is False
    assert not any("pkl" in pattern or "py" in pattern for pattern in asked["allow_patterns"])
