"""A codebook, a model and data small enough that a training step takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from icl_vision.codebook import Codebook
from icl_vision.training import TrainConfig
from icl_vision.vocabulary import Vocabulary

WORDS = ("one", "two", "cat", "dog", "sun", "sea", "red", "ink", "ice", "oak", "map", "jar", "fox", "bee", "elk", "owl")


@pytest.fixture(scope="session")
def codebook_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen words of eight dimensions."""
    folder = tmp_path_factory.mktemp("books") / "tiny"
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 8)).astype(np.float32)
    Codebook(Vocabulary(WORDS), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), name="tiny").save(folder)
    return folder


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty 14x14 'digits' of ten classes in MNIST's layout."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 4)
    patterns = random.integers(0, 2, (10, 14, 14)) * 200
    pixels = np.clip(patterns[labels] + random.integers(0, 40, (40, 14, 14)), 0, 255).astype(np.uint8)
    np.savez(path, x_train=pixels, y_train=labels.astype(np.uint8), x_test=pixels[:5], y_test=labels[:5])
    return path


@pytest.fixture
def tiny(codebook_folder: Path, digits_file: Path) -> Callable[..., TrainConfig]:
    """A configuration of six steps; keyword arguments are laid over it, mapping by mapping."""

    def make(**changes: Any) -> TrainConfig:
        document: dict[str, Any] = {
            "model": {
                "net": "patches",
                "side": 16,
                "channels": 1,
                "grids": [1, 2, 4],
                "dim": 8,
                "width": 16,
                "blocks": 1,
                "word_noise": 0.1,
            },
            "loss": {"gan": 0, "lecam": 0, "perceptual": 0, "semantic": 0.5},
            "codebook": str(codebook_folder),
            "guide": {"kind": "labels", "names": list(WORDS[:10])},
            "data": {"path": str(digits_file), "validation": 8, "shift": 1, "flip": True},
            "optimiser": {"rate": 1e-3, "weight_decay": 0.01},
            "log": {"every": 2, "validate": 3, "grid": 6, "checkpoint": 3, "tensorboard": False, "images": 4},
            "steps": 6,
            "batch": 8,
            "devices": {"accelerator": "cpu"},
        }
        for key, value in changes.items():
            document[key] = {**document[key], **value} if isinstance(value, dict) and key in document else value
        return TrainConfig.from_dict(document)

    return make
