"""A small codebook out of a large one."""

from pathlib import Path

import numpy as np
import pytest

from icl_vision.codebook import Codebook, normalise
from icl_vision.errors import UnknownWordError, UsageError
from icl_vision.exporters.small_codebook import Choice, build_small_codebook, main, small_codebook
from icl_vision.vocabulary import Vocabulary

NAMES = ("zero", "one")


class ByLength:
    """Calls shorter words more common."""

    name = "by length"

    def encode(self, text: str) -> list[int]:
        return [len(text)]

    def decode(self, ids: object) -> str:
        raise AssertionError("not needed")

    def pieces(self) -> list[str]:
        raise AssertionError("not needed")


@pytest.fixture
def large() -> Codebook:
    """Two names in one corner of the space, 60 words in six clusters elsewhere, 5 beside the names."""
    generator = np.random.default_rng(0)
    axes = np.eye(8, dtype=np.float32)
    clusters = np.repeat(axes[1:7], 10, axis=0) + 0.05 * generator.standard_normal((60, 8)).astype(np.float32)
    beside = axes[:1] + 0.05 * generator.standard_normal((7, 8)).astype(np.float32)
    words = ["zero", "one", *(f"number{i}" for i in range(5))]
    words += [f"word{'x' * (i % 10)}{'abcdef'[i // 10]}" for i in range(60)]
    return Codebook(Vocabulary(words), normalise(np.concatenate([beside, clusters])), name="large")


def test_names_come_first_then_one_common_word_a_cluster(large: Codebook) -> None:
    small = small_codebook(large, Choice(NAMES, 6), ByLength(), name="small")
    assert small.vocabulary.words[:2] == NAMES
    # Every cluster gives its shortest word among the central ones, whatever the order of clusters.
    assert {word[-1] for word in small.vocabulary.words[2:]} == set("abcdef")
    lengths = [len(word) for word in small.vocabulary.words[2:]]
    assert lengths == sorted(lengths)
    assert np.median(lengths) <= 6
    for word, vector in zip(small.vocabulary.words, small.vectors, strict=True):
        assert np.array_equal(vector, large.vectors[large.vocabulary.id(word)])


def test_no_pattern_lies_beside_a_name(large: Codebook) -> None:
    small = small_codebook(large, Choice(NAMES, 20), ByLength(), name="small")
    assert len(set(small.vocabulary.words)) == 22
    assert not any(word.startswith("number") for word in small.vocabulary.words)


def test_the_same_seed_gives_the_same_words(large: Codebook) -> None:
    one, two = (small_codebook(large, Choice(NAMES, 12), ByLength(), name="small") for _ in range(2))
    assert one.vocabulary.words == two.vocabulary.words


def test_a_folder_says_how_it_was_made(large: Codebook, tmp_path: Path) -> None:
    large.save(tmp_path / "large", card={"licence": "Apache-2.0"})
    small = build_small_codebook(
        tmp_path / "small", choice=Choice(NAMES, 6), source=str(tmp_path / "large"), commonness=ByLength()
    )
    assert small.card["licence"] == "Apache-2.0"
    assert small.card["choice"]["names"] == list(NAMES)
    assert small.card["provenance"]["codebook_hash"] == Codebook.load(tmp_path / "large").hash
    assert Codebook.load(tmp_path / "small").vocabulary == small.vocabulary


def test_bad_choices(large: Codebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="patterns, the number of pattern words, must be 1 or more; got 0"):
        Choice(patterns=0)
    with pytest.raises(UsageError, match="apart must be a cosine, above -1 and at most 1; got 2"):
        Choice(apart=2)
    with pytest.raises(UsageError, match="60 words lie at a cosine of at most 0.45 from every name, fewer than the 61"):
        small_codebook(large, Choice(NAMES, 61), ByLength(), name="small")
    with pytest.raises(UnknownWordError, match="eleven"):
        small_codebook(large, Choice(("eleven",), 3), ByLength(), name="small")
    assert main(["--out", str(tmp_path / "out"), "--patterns", "0"]) == 1
    assert "error: patterns" in capsys.readouterr().err
