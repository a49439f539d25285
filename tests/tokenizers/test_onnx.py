"""OnnxTokenizer with the packaged words-photo: the contract, withheld classes, pickling, providers. No torch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import icl_vision
from icl_vision.errors import ProviderError, PyramidError, UsageError
from icl_vision.images import list_images
from icl_vision.pyramid import PyramidLayout
from icl_vision.testing import Check, tokenizer_checks
from icl_vision.tokenizers import ImageTokenizer, sessions
from icl_vision.tokenizers.onnx import OnnxTokenizer

DEMO = Path(icl_vision.__file__).parent / "demo_data"


def load(**options: Any) -> OnnxTokenizer:
    return OnnxTokenizer.from_pretrained("words-photo", providers="cpu", **options)


@pytest.fixture(scope="module")
def tokenizer() -> OnnxTokenizer:
    return load()


@pytest.mark.parametrize("check", tokenizer_checks(load, ks=[1, 5, 64]), ids=lambda check: check.name)
def test_contract(check: Check) -> None:
    check()


def test_photographs_get_words_that_name_them(tokenizer: OnnxTokenizer) -> None:
    paths = list_images(DEMO)
    for label in ("lobster", "elephant", "pizza"):
        chosen = [path for path in paths if path.parent.name == label][:8]
        said = sum(label in pyramid.words(1) for pyramid in tokenizer.encode(chosen))
        assert said >= len(chosen) / 2, f"{label!r} is among the words of only {said} of {len(chosen)} photographs"


def test_words_are_distinct_and_default_is_five(tokenizer: OnnxTokenizer, photo: np.ndarray) -> None:
    assert tokenizer.layout == PyramidLayout.flat(5)
    words = tokenizer.encode(photo, k=64)[0].words(1)
    assert len(words) == len(set(words)) == 64


def test_too_many_words_says_the_limit(tokenizer: OnnxTokenizer, photo: np.ndarray) -> None:
    with pytest.raises(PyramidError, match="'words-photo' gives 1 to 64 words an image; got k=65"):
        tokenizer.encode(photo, k=65)


def test_codebook_is_float32_and_shared(tokenizer: OnnxTokenizer) -> None:
    assert tokenizer.codebook.dtype == np.float32
    assert tokenizer.codebook.shape == (len(tokenizer.vocabulary), 128)
    assert tokenizer.card["codebook"]["name"] == "portable-minilm-128"
    assert tokenizer.card["vocabulary"] == tokenizer.vocabulary.hash


def test_embed_gives_pooled_features(tokenizer: OnnxTokenizer, photo: np.ndarray) -> None:
    assert tokenizer.embed([photo, photo]).shape == (2, 1280)


def test_withheld_classes_are_never_recognised() -> None:
    lobsters = [path for path in list_images(DEMO) if path.parent.name == "lobster"][:4]
    withheld = load(withhold=["American lobster", "spiny_lobster", "crayfish"])
    assert withheld.card["withheld"] == ["American lobster", "spiny_lobster", "crayfish"]
    assert "withheld" not in load().card
    plain = [pyramid.words(1) for pyramid in load().encode(lobsters)]
    control = [pyramid.words(1) for pyramid in withheld.encode(lobsters)]
    assert sum(words[0] == "lobster" for words in plain) > sum(words[0] == "lobster" for words in control)
    assert np.array_equal(load().embed(lobsters), withheld.embed(lobsters))


def test_withhold_refuses_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"has no class 'umbrela' to withhold; did you mean 'umbrella'"):
        load(withhold=["umbrela"])
    with pytest.raises(UsageError, match=r"withhold must be a sequence of class names; got 'umbrella'"):
        load(withhold="umbrella")


def test_pickles_as_its_folder_and_options(photo: np.ndarray) -> None:
    first = load(withhold=["umbrella"], batch_size=3)
    words = first.encode(photo)
    data = pickle.dumps(first)
    assert len(data) < 1000
    second = pickle.loads(data)  # noqa: S301  # our own bytes, made two lines above
    assert second.encode(photo) == words
    assert second.batch_size == 3
    assert load().batch_size == 8  # more only takes memory there
    usual = pickle.loads(pickle.dumps(load()))  # noqa: S301  # our own bytes, as above
    assert usual.batch_size == 8 and usual._options["batch_size"] is None
    assert second.card == first.card


def test_one_session_whatever_the_number_of_threads(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    start = OnnxTokenizer._start
    monkeypatch.setattr(OnnxTokenizer, "_start", lambda self, file: made.append(1) or start(self, file))
    tokenizer = load(threads=1)
    assert not made
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: tokenizer.encode(photo), range(16)))
    assert len(made) == 1


def test_runtime_never_imports_torch(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    code = (
        "import sys\nfrom icl_vision.tokenizers import ImageTokenizer\n"
        "t = ImageTokenizer.from_pretrained('words-photo')\n"
        f"w = t.encode([{str(tmp_path / 'a.png')!r}])[0].words(1); t.embed([{str(tmp_path / 'a.png')!r}])\n"
        "heavy = sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'transformers', 'onnx', 'openai'})\n"
        "print(len(w), heavy)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "5 []\n"
    assert done.stderr == ""


# Providers. The driver is pretended to be absent, so that these tests say the same on a machine with a GPU.


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "cuda_devices", lambda: 0)
    monkeypatch.setattr(sessions, "_warned", set())


def test_default_is_the_cpu_without_a_device(no_gpu: None, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = OnnxTokenizer.from_pretrained("words-photo", strict=True)
    assert tokenizer.provider == sessions.CPU
    assert capfd.readouterr() == ("", "")


def test_silent_fallback_is_warned_about_once(no_gpu: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(RuntimeWarning, match="CUDAExecutionProvider was asked for but onnxruntime runs 'words-photo'"):
        assert OnnxTokenizer.from_pretrained("words-photo", providers="cuda").provider == sessions.CPU
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert OnnxTokenizer.from_pretrained("words-photo", providers="cuda").provider == sessions.CPU
    assert capfd.readouterr() == ("", "")


def test_strict_refuses_the_fallback(no_gpu: None, photo: np.ndarray) -> None:
    tokenizer = OnnxTokenizer.from_pretrained("words-photo", providers=["CUDAExecutionProvider"], strict=True)
    with pytest.raises(ProviderError, match=r"no NVIDIA driver or device was found; pass providers='cpu'"):
        tokenizer.encode(photo)


def test_a_device_that_cannot_be_used_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    # a driver with a device, but an onnxruntime that ends up on the CPU all the same
    monkeypatch.setattr(sessions, "cuda_devices", lambda: 1)
    monkeypatch.setattr(sessions, "_warned", set())
    monkeypatch.setattr(sessions, "_usable", lambda wanted: [sessions.CPU])
    monkeypatch.setattr(sessions, "resolve_providers", lambda providers: [sessions.CUDA, sessions.CPU])
    with pytest.raises(ProviderError, match="CUDAExecutionProvider has a device here but onnxruntime runs"):
        _ = OnnxTokenizer.from_pretrained("words-photo", strict=True).provider


def test_bad_providers_and_threads() -> None:
    for bad in ("gpu", ["CUDAExecutionProvider", "nope"], []):
        with pytest.raises(UsageError, match="providers must name execution providers of onnxruntime; got"):
            OnnxTokenizer.from_pretrained("words-photo", providers=bad)
    for threads in (0, True, "2"):
        with pytest.raises(UsageError, match="threads must be a whole number of 1 or more, or None .*; got"):
            load(threads=threads)


def test_card_is_honest() -> None:
    card = json.loads((Path(icl_vision.__file__).parent / "artefacts/tokenizers/words-photo/card.json").read_text())
    assert card["licence"] == "Apache-2.0"
    assert "ImageNet" in card["data"]
    assert card["metrics"]["parity"]["batches"] == [1, 2, 7]
    assert card["metrics"]["parity"]["mismatches"] == 0
    assert "torch" in card["versions"]
    assert "class_temperature" in card["recipe"]


def test_from_pretrained_on_the_base_class() -> None:
    assert isinstance(ImageTokenizer.from_pretrained("words-photo"), OnnxTokenizer)
