"""A run folder of `icl-vision eval few-shot` made up out of nothing, for tests and timings of what reads run folders.

Knows: the form of a run folder, its items and its results. Refuses to know: LLMs and tokenizers; every answer is drawn
from a seed, so the figures in such a run mean nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icl_vision.evaluation.few_shot.config import SETTINGS, Setting
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.files.runs import Run
from icl_vision.files.storage import write_json

OPEN_ENDED = ("exact", "exact_normalised", "prefix", "substring")
ROWS: tuple[tuple[str, str, bool, bool, float | None, float], ...] = (
    # name, kind, constrained, transductive, LLM calls a query, skill (0 chance, 1 always right)
    ("exact", "llm", False, False, 1, 0.45),
    ("exact_normalised", "llm", False, False, 1, 0.5),
    ("prefix", "llm", False, False, 1, 0.52),
    ("substring", "llm", False, False, 1, 0.55),
    ("likelihood", "llm", True, False, 5, 0.8),
    ("calibrated", "llm", True, True, 6, 0.72),
    ("constrained", "llm", True, False, 1, 0.6),
    ("blind", "baseline", True, False, 1, 0.0),
    ("prior", "baseline", True, False, 0, 0.0),
    ("words_prototype", "baseline", True, False, 0, 0.74),
    ("image_prototype", "baseline", True, False, 0, 0.92),
    ("control:shuffled_labels", "control", True, False, 5, 0.0),
)
WORDS = (
    "stripe beak wing fur paw tail shell leaf petal wheel brass string valve lens button shutter wave fin splash trunk "
    "tusk ear rotor blade cockpit claw tentacle sauce cheese crust reed bell yellow seed stem rain handle spoke cushion"
).split()


def make_images(
    folder: Path, labels: Sequence[str], each: int, *, side: int = 32, photographs: Path | None = None
) -> None:
    """``each`` different images for every label.

    photographs: a folder of class folders; every image is then a crop of one of its photographs, else plain noise.
    """
    noise = np.random.default_rng(0)
    draw = random.Random(0)
    sources = sorted(photographs.rglob("*.jpg")) if photographs is not None else []
    for place, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        tint = np.array([(place * 67) % 200, (place * 131) % 200, (place * 29) % 200])
        for number in range(each):
            if sources:
                with Image.open(sources[(place * each + number) % len(sources)]) as opened:
                    source = opened.convert("RGB")
                size = int(min(source.size) * draw.uniform(0.55, 0.95))
                left, top = draw.randrange(source.width - size), draw.randrange(source.height - size)
                picture = source.crop((left, top, left + size, top + size)).resize((side, side))
            else:
                picture = Image.fromarray((tint + noise.integers(0, 56, (side, side, 3))).astype(np.uint8))
            picture.save(folder / label / f"{number:03d}.jpg", quality=85)


def item_of(
    number: int, setting: Setting, files: Mapping[str, Sequence[str]], seed: int, skill: float
) -> dict[str, Any]:
    """One item as the benchmark journals it. ``files``: label -> its images' paths."""
    draw = random.Random(f"{seed}/{number}/{setting.ways}")
    labels = draw.sample(sorted(files), setting.ways)
    chosen = {label: draw.sample(list(files[label]), min(6, len(files[label]))) for label in labels}
    truth = draw.choice(labels)
    support = [
        {"image": chosen[label][shot], "label": label, "words": words_of(chosen[label][shot])}
        for shot in range(setting.shots)
        for label in labels
    ]
    query = {"image": chosen[truth][-1], "label": truth, "words": words_of(chosen[truth][-1])}
    lines = [f"Answer with one of: {', '.join(labels)}."] if setting.induction else []
    for _ in range(setting.repeats + 1):
        lines += [f"Input: {' '.join(tile['words'])}\nOutput: {tile['label']}." for tile in support]
    prompt = "\n".join([*lines, f"Input: {' '.join(query['words'])}\nOutput:"])
    luck = random.Random(f"{seed}/{number}/{setting.id}/answers")
    once = luck.random()  # one completion, judged by four rules: right by a strict one is right by a generous one
    answers: dict[str, Any] = {}
    for name, kind, _, _, calls, strength in ROWS:
        if kind == "control" and number >= 100:
            continue
        gain = strength * (skill if kind == "llm" else 1.0) * min(1.0, 0.85 + 0.04 * setting.shots)
        gain *= 0.1 if not setting.induction and name in OPEN_ENDED else 1.0
        right = (once if name in OPEN_ENDED else luck.random()) < gain + (1 - gain) / setting.ways
        wrong = [choice for choice in labels if choice != truth]
        label: str | None = truth if right else wrong[int(once * 97) % len(wrong)]
        probabilities = None
        if name in OPEN_ENDED:
            label = label if right or once < 0.9 else None
        elif kind == "llm":
            weights = {choice: luck.random() ** 3 for choice in labels}
            weights[label or ""] = max(weights.values()) + luck.random()
            probabilities = {choice: weight / sum(weights.values()) for choice, weight in weights.items()}
        said = _completion(truth, wrong, once, answers) if name == OPEN_ENDED[-1] else None
        answers[name] = {"label": label, "right": right, "raw": said, "probabilities": probabilities, "calls": calls}
        if said is not None:
            for row in OPEN_ENDED:
                answers[row]["raw"] = said
    tokens = len(prompt) // 4
    return {
        "id": f"e{number:05d}/{setting.id}",
        "episode": number,
        "setting": setting.id,
        "labels": labels,
        "support": support,
        "query": query,
        "prompts": {"open": prompt, "channel": "\n".join([*lines, f"{labels[0]}: {' '.join(query['words'])}"])},
        "answers": answers,
        "usage": {"requests": 7, "prompt_tokens": 3 * tokens, "cached_tokens": 2 * tokens, "completion_tokens": 9},
    }


def _completion(truth: str, wrong: Sequence[str], once: float, answers: Mapping[str, Any]) -> str:
    """A text that the strict rules judge as they are said to have."""
    if answers["exact"]["right"]:
        return f" {truth}.\nInput: fur paw"
    if answers["exact_normalised"]["right"]:
        return f"\n {truth.upper()} "
    if answers["prefix"]["right"]:
        return f" {truth} or something like it"
    return f" I think {wrong[int(once * 97) % len(wrong)]}" if once < 0.9 else " the the the"


def words_of(image: str) -> list[str]:
    """Five words, always the same for an image."""
    return random.Random(image).sample(WORDS, 5)


def make_run(
    folder: Path,
    *,
    episodes: int,
    images: Path | None,
    labels: Sequence[str] | None = None,
    settings: Sequence[Setting] = SETTINGS,
    seed: int = 0,
    skill: float = 1.0,
    k: int = 5,
) -> Path:
    """A finished run folder; gives ``folder``.

    Args:
        episodes: how many; each is asked in every setting.
        images: folder of class folders that the items name; None = ``labels`` with images that are nowhere.
        skill: factor on what the LLM's rows get right, to tell two runs apart.
        k: the number of words that the run says it used.
    """
    if images is not None:
        files = {
            folder.name: [f"{folder.name}/{path.name}" for path in sorted(folder.iterdir())]
            for folder in sorted(images.iterdir())
            if folder.is_dir()
        }
    else:
        files = {
            label: [f"{label}/{number:03d}.jpg" for number in range(8)] for label in labels or ("a", "b", "c", "d", "e")
        }
    config = {
        "data": str(images or "gone"),
        "k": k,
        "episodes": episodes,
        "llm": "synthetic",
        "tokenizer": "words-photo",
    }
    config |= {"seed": seed, "skill": skill}
    Run.open(folder, "eval few-shot", config, seed=seed).close()
    right: dict[tuple[str, str], list[int]] = {}
    usage = {"requests": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
    with (folder / "journal.jsonl").open("w", encoding="utf-8") as journal:
        for number in range(episodes):
            for setting in settings:
                item = item_of(number, setting, files, seed, skill)
                journal.write(json.dumps({"id": item["id"], "result": item}, ensure_ascii=False) + "\n")
                for name, answer in item["answers"].items():
                    count = right.setdefault((name, setting.id), [0, 0])
                    count[0] += answer["right"]
                    count[1] += 1
                usage = {name: value + item["usage"][name] for name, value in usage.items()}
    write_json(folder / "results.json", _results(config, settings, right, usage))
    return folder


def _results(
    config: Mapping[str, Any],
    settings: Sequence[Setting],
    right: Mapping[tuple[str, str], Sequence[int]],
    usage: Mapping[str, int],
) -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "kind": kind,
            "meaning": f"what {name.replace('_', ' ')} stands for, in a sentence",
            "constrained": constrained,
            "transductive": transductive,
            "llm_calls": calls,
            "source": "",
        }
        for name, kind, constrained, transductive, calls, _ in ROWS
    ]
    rows.append(_unmeasured("control:ascii", "control", "16x16 characters instead of words", 1, ""))
    rows.append(_unmeasured("SPAE-GPT", "quoted", "5 tokens an image", None, "SPAE, arXiv 2306.17842, table 1"))
    cells: list[dict[str, Any]] = []
    for row in rows:
        for setting in settings:
            count = right.get((row["name"], setting.id))
            accuracy = None if count is None else Accuracy.count(count[0], count[1], row["name"]).to_dict()
            note = "" if count else "exceeds window"
            if row["kind"] == "quoted":
                accuracy, note = {"accuracy": 0.772, "n": None, "interval": None, "scorer": "exact"}, "quoted"
            cells.append({"row": row["name"], "setting": setting.id, "accuracy": accuracy, "note": note})
    means = []
    for row in rows:
        for ways in dict.fromkeys(setting.ways for setting in settings):
            shares = [
                cell["accuracy"]["accuracy"]
                for cell, setting in zip([cell for cell in cells if cell["row"] == row["name"]], settings, strict=True)
                if setting.ways == ways and cell["accuracy"]
            ]
            means.append({"row": row["name"], "ways": ways, "mean": sum(shares) / 7 if len(shares) == 7 else None})
    return {
        "format_version": 1,
        "kind": "few-shot",
        "config": dict(config),
        "settings": [setting.to_dict() for setting in settings],
        "rows": rows,
        "cells": cells,
        "means": means,
        "usage": dict(usage),
        "requests": usage["requests"],
        "seconds": 123.4,
        "machine": {"processor": "made up", "cores": 2},
        "versions": {"icl-vision": "0"},
    }


def _unmeasured(name: str, kind: str, meaning: str, calls: float | None, source: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "meaning": meaning,
        "constrained": False,
        "transductive": False,
        "llm_calls": calls,
        "source": source,
    }
