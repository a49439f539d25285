"""What several tests of text_to_image start from; they need the extra t2i."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_t2i import tiny_llm

from icl_vision.text_to_image.states import FrozenLLM


@pytest.fixture
def llm() -> FrozenLLM:
    return tiny_llm()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ICL_VISION_CACHE", str(folder))
    return folder


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """An npz of 1,400 labelled pictures of noise, sorted by class as MNIST's often are."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 140)
    pixels = rng.integers(0, 255, (len(labels), 28, 28), dtype=np.uint8)
    path = tmp_path / "digits.npz"
    np.savez(path, x_train=pixels, y_train=labels)
    return path
