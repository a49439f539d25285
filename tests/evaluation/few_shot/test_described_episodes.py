"""benchmarks/described_episodes.py: its tables decide as the classifier does, of episodes that are the benchmark's."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import loaded

import icl_vision
from icl_vision import FewShotClassifier, ImageTokenizer
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.llms import FakeLLM

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PHOTOS = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"


def score(prompt: Any, continuation: str) -> float:
    """Any number, the same for the same text; a float32 holds it."""
    digest = hashlib.sha256(f"{prompt.text}|{continuation}".encode()).digest()
    return -1.0 - int.from_bytes(digest[:2], "big") / 8192


@pytest.fixture
def episodes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    script = loaded(BENCHMARKS / "described_episodes.py")
    monkeypatch.setattr(script, "connect", lambda spec: FakeLLM("x", score=score))
    return script


def test_labels_are_those_of_the_classifier(episodes: ModuleType, tmp_path: Path) -> None:
    options = argparse.Namespace(
        data=PHOTOS, episodes=1, ways=5, more=1, k=5, seed=0, minutes=9, work=tmp_path / "work"
    )
    episodes.ask(options)
    folder = ImageFolder(PHOTOS)
    episode, asked = episodes.drawn(folder, 0, 5, 1, 0)
    assert episode == folder.sample(0, ways=5, shots=5, seed=0), "the committed run's own"
    assert asked[:5] == list(episode.queries) and len({item.path for item in (*episode.support, *asked)}) == 35
    rules = {
        "words-photo": ({episodes.PLAIN: 1.0}, ImageTokenizer.from_pretrained("words-photo")),
        "describe-photo": (
            {"what": 1.0, "said": episodes.OTHER_PARTS},
            ImageTokenizer.from_pretrained("describe-photo", parts=("what", "said")),
        ),
    }
    for weights, tokenizer in rules.values():
        found = episodes.hits(tmp_path / "work", 0, weights)
        for shots in (1, 3, 5):
            shown = episode.with_shots(shots).support
            clf = FewShotClassifier(FakeLLM("x", score=score), tokenizer, k=5, ensemble="examples", progress=False)
            clf.fit([folder.path(item) for item in shown], [item.label for item in shown])
            labels = clf.predict([folder.path(item) for item in asked])
            assert [label == item.label for label, item in zip(labels, asked, strict=True)] == found[shots].tolist()
    episodes.ask(options)  # what is there is not asked again
    _, cells = episodes.cells(tmp_path / "work", {name: weights for name, (weights, _) in rules.items()}, 0)
    assert [cell["difference"] for cell in cells[:3]] == [0.0, 0.0, 0.0] and cells[3]["questions"] == 10
