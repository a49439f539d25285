"""benchmarks/word_evidence.py: accuracies and paired differences come out of a table as they must."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
LABELS = ["bee", "cat", "dog", "fox", "hen"]


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "word_evidence", raising=False)
    import word_evidence

    return word_evidence


def a_pool(folder: Path) -> Path:
    """Each image has its class's own word, sure, and the next class's, hardly likely; examples make both as likely."""
    images = []
    for place, label in enumerate(LABELS):
        other = LABELS[(place + 1) % 5]
        words = [f"{label}s", f"{other}s"]
        for number in range(2):
            images.append(
                {
                    "label": label,
                    "path": f"{label}/{number}.jpg",
                    "plain": " ".join(words),
                    "both": f"what: {' '.join(words)}; said: thing",
                    "what": [words, [0.9, 0.01]],
                    "said": [["thing"], [0.5]],
                }
            )
    columns = sorted({f"{label}s" for label in LABELS} | {"thing"})
    info = {"data": "made-up", "k": 2, "shots": 1, "seed": 0, "images": images, "columns": columns}
    (folder / "pool.json").write_text(json.dumps(info), encoding="utf-8")
    for place in range(0, len(images), 2):
        row = np.full(len(columns), -9.0, dtype=np.float32)
        row[columns.index(f"{images[place]['label']}s")] = -5.0
        for form in ("what", "both"):
            np.save(folder / f"{form}-{place:04d}.npy", row)
    return folder


def test_alike_ties_are_broken_by_probabilities(evidence: ModuleType, tmp_path: Path) -> None:
    cells = evidence.read_pool(a_pool(tmp_path), 30, 0)
    by_row = {(cell["examples"], cell["rule"]): cell for cell in cells}
    # Own word and neighbour's word gain the same where all count alike: a tie, which the first label drawn wins.
    assert by_row["what", "alike"]["accuracy"] < 0.8
    assert by_row["what", "alike"]["over_words_photo"]["interval"] == [0.0, 0.0]
    weighted = by_row["what", "what^1.0"]
    assert weighted["accuracy"] == 1.0
    low, high = weighted["over_words_photo"]["interval"]
    assert 0 < low <= weighted["over_words_photo"]["difference"] <= high


def test_a_round_that_is_not_finished_is_no_cell(evidence: ModuleType, tmp_path: Path) -> None:
    (a_pool(tmp_path) / "both-0004.npy").unlink()
    assert evidence.read_pool(tmp_path, 5, 0) == []


def test_images_whose_words_differ_are_not_asked_about(evidence: ModuleType, tmp_path: Path) -> None:
    info = json.loads((a_pool(tmp_path) / "pool.json").read_text(encoding="utf-8"))
    info["images"][1]["plain"] = "cats bees"  # the only question about bees
    (tmp_path / "pool.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(ValueError, match="empty"):
        evidence.read_pool(tmp_path, 5, 0)


def test_apart_what_is_said_is_scored_after_what_is_said(evidence: ModuleType, tmp_path: Path) -> None:
    """The plain words tie two classes; only the words said, after examples of words said, tell them apart."""
    info = json.loads((a_pool(tmp_path) / "pool.json").read_text(encoding="utf-8"))
    for row in info["images"]:
        row["said"] = [[f"{row['label']} like".replace(" ", "-")], [0.5]]
    (tmp_path / "pool.json").write_text(json.dumps(info | {"forms": ["what", "said"]}), encoding="utf-8")
    said = evidence.columns_of(info, "said")
    for place in range(0, len(info["images"]), 2):
        row = np.full(len(said), -9.0, dtype=np.float32)
        row[said.index(info["images"][place]["said"][0][0])] = -8.0
        np.save(tmp_path / f"said-{place:04d}.npy", row)
        named = evidence.columns_of(info | {"forms": ["what", "said"]}, "what")
        row = np.full(len(named), -9.0, dtype=np.float32)
        row[named.index(f"{info['images'][place]['label']}s")] = -5.0
        np.save(tmp_path / f"what-{place:04d}.npy", row)
    cells = {(cell["examples"], cell["rule"]): cell for cell in evidence.read_pool(tmp_path, 30, 0)}
    assert cells["what", "alike"]["accuracy"] < 0.8 and cells["apart", "what + 0.1 said"]["accuracy"] == 1.0
    assert ("what", "what + said") not in cells and not any(form == "both" for form, _ in cells)
