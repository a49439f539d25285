"""Fits the packaged maps of calibrated probabilities, and checks them on classes that no fit saw.

    python benchmarks/probabilities.py fit --tables T... --episodes E... --out icl_vision/artefacts/probabilities/NAME
    python benchmarks/probabilities.py check --tables T... --episodes E... --out benchmarks/results/FILE.json

T: folders of ``probability_tables.py`` (each example alone: the default). E: run folders of ``probability_episodes.py``
(all examples in one prompt). ``fit`` takes training classes only. For the default rule it draws episodes from the
tables, as many from each data set, fits one temperature for each measured (words, ways, shots) to all of them together,
and says (measured.json) what that does to the calibration error of each data set by itself, and what a map would do
that was fitted to the other data set only. For the other rules, whose answers are dear, it is a power of the
shots, fitted to all answers of the rule at once.

``check`` measures the maps as the library finds them, also between and beyond the points that were fitted. ``own`` says
what ``calibrate_probabilities`` would bring with 50 and 100 images of the user's (``--tables``, training classes).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from probability_tables import Table

from icl_vision import PromptBuilder
from icl_vision.files.runs import read_info, read_results
from icl_vision.files.storage import sha256_file, write_json
from icl_vision.llms import connect
from icl_vision.probabilities import brier_score, reliability
from icl_vision.probabilities.fitting import best_temperature
from icl_vision.probabilities.maps import softmax
from icl_vision.probabilities.measuring import Reliability
from icl_vision.probabilities.packaged import Situation, find_map
from icl_vision.tasks.classify.calibrating import prompt_digest
from icl_vision.tasks.classify.scoring import log_bias
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.wrapping import fingerprint

Floats = npt.NDArray[np.float64]

WAYS, SHOTS = (2, 5, 15, 50), (1, 3, 5, 10)
"""Measured points of the default rule; others lie between them or take the nearest."""

CHECKED = ((5, 1), (5, 3), (5, 5), (2, 1), (2, 5), (10, 3), (5, 2), (5, 10))
TOGETHER = ((28, 1), (28, 3), (28, 5))
"""(ways, shots) of a check, in each data set and in all together; 10 and 28 ways and 2 shots were fitted nowhere."""

MANY = 30
"""So many classes must have the images that a number of shots needs."""

QUERIES = 5
NAMES = {"plain": False, "contextual": True}


@dataclass(frozen=True)
class Answers:
    """Answers of one rule at one size: scores [answers, labels], places of the truth, episode of each."""

    scores: Floats
    truth: npt.NDArray[np.int64]
    episode: npt.NDArray[np.int64]

    def fitted(self) -> float:
        """The temperature that fits them best."""
        return round(best_temperature([*self.scores], self.truth.tolist()), 4)

    def measured(self, temperature: float, repeats: int = 1000) -> Reliability:
        """Reliability with this temperature (1: the scores as they are)."""
        shares = softmax(self.scores / temperature)
        return reliability(
            shares.max(axis=1),
            self.scores.argmax(axis=1) == self.truth,
            briers=[brier_score(row, int(place)) for row, place in zip(shares, self.truth, strict=True)],
            groups=self.episode,
            repeats=repeats,
        )


def together(parts: Sequence[Answers]) -> Answers:
    """All of them, their episodes kept apart."""
    starts = np.cumsum([0, *(int(part.episode.max()) + 1 for part in parts)])
    return Answers(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.episode + start for part, start in zip(parts, starts, strict=False)]),
    )


# Each example alone: episodes drawn from a table ---------------------------------------------------------------------


def draw(
    table: Table, data: str | None, ways: int, shots: int, answers: int, seed: int, *, contextual: bool
) -> Answers | None:
    """Episodes of one data set (None: of all) until there are so many answers; None where it has too few classes.

    Of each class the first images in a random order are the examples, the next one is asked about.
    """
    random = np.random.default_rng([seed, ways, shots])
    place_of = {word: place for place, word in enumerate(table.columns)}
    with_free = ~np.isnan(table.free).any(axis=1)
    able: dict[str, list[int]] = {}
    for place, (label, path, _) in enumerate(table.images):
        if data is None or path.startswith(f"{data}/"):
            able.setdefault(label, []).append(place)
    classes = [
        np.asarray(places)
        for places in able.values()
        if len(places) > shots and (not contextual or with_free[places].sum() >= shots)
    ]
    if len(classes) < ways:
        return None
    each = min(QUERIES, ways)
    scores, truths, episodes = [], [], []
    for episode in range(-(-answers // each)):
        chosen = random.choice(len(classes), ways, replace=False)
        support, left = [], []
        for number in chosen:
            order = random.permutation(classes[number])
            examples = [place for place in order if not contextual or with_free[place]][:shots]
            support.append(examples)
            left.append([place for place in order if place not in examples])
        asked_about = random.permutation(ways)[:each]
        words = [[place_of[word] for word in table.images[left[truth][0]][2]] for truth in asked_about]
        flat = [word for row in words for word in row]
        pooled = np.stack([_pooled(table.rows[np.ix_(examples, flat)]) for examples in support])  # [ways, words]
        bias = np.zeros(ways)
        if contextual:
            free = np.asarray([_pooled(table.free[examples]) for examples in support])  # [ways, inputs]
            bias = log_bias(free.T.tolist())
        edges = np.cumsum([0, *map(len, words)])
        for number, truth in enumerate(asked_about):
            row = pooled[:, edges[number] : edges[number + 1]].sum(axis=1)
            scores.append(row - len(words[number]) * bias)
            truths.append(truth)
            episodes.append(episode)
    return Answers(np.stack(scores), np.asarray(truths), np.asarray(episodes))


def _pooled(rows: npt.NDArray[np.float32]) -> Floats:
    """The mixture of a class's examples, word by word."""
    return np.asarray(np.logaddexp.reduce(rows.astype(np.float64), axis=0) - math.log(len(rows)))


# One prompt: answers that were asked for one by one ------------------------------------------------------------------


def asked(folder: Path) -> dict[tuple[str, str, int, int], Answers]:
    """(rule, plain or contextual, ways, shots) -> the answers in a run folder."""
    found: dict[tuple[str, str, int, int], list[Answers]] = {}
    for _, item in read_results(folder):
        truth = np.asarray(item["truth"])
        for rule in ("direct", "channel"):
            for name, scores in item.get(rule, {}).items():
                answers = Answers(np.asarray(scores), truth, np.zeros(len(truth), dtype=np.int64))
                found.setdefault((rule, name, item["ways"], item["shots"]), []).append(answers)
    return {key: together(parts) for key, parts in found.items()}


def power_of_shots(parts: Mapping[int, Sequence[Answers]]) -> tuple[float, float]:
    """(a, b) of temperature = a * shots ** b, by log-loss over all answers."""

    def fitted(power: float) -> tuple[float, float]:
        rows = [row / shots**power for shots, every in parts.items() for answers in every for row in answers.scores]
        places = [int(place) for every in parts.values() for answers in every for place in answers.truth]
        scale = best_temperature(rows, places)
        shares = [float(softmax(row / scale)[place]) for row, place in zip(rows, places, strict=True)]
        return float(-np.log(np.maximum(shares, 1e-300)).mean()), scale

    best = min(np.linspace(-1.0, 0.5, 16), key=lambda power: fitted(float(power))[0])
    return fitted(float(best))[1], float(best)


# What is written -----------------------------------------------------------------------------------------------------


def short(found: Reliability) -> dict[str, Any]:
    """The figures of a cell, without its bins."""
    return {
        "n": found.n,
        "accuracy": round(found.accuracy, 4),
        "confidence": round(found.confidence, 4),
        "ece": round(found.ece, 4),
        "interval": [round(end, 4) for end in found.interval],
        "perfect": [round(end, 4) for end in found.perfect],
        "brier": round(found.brier or 0.0, 4),
    }


def rule_of(tokenizer: str, method: str, *, ensemble: bool, contextual: bool) -> dict[str, Any]:
    """What a rule is known by in the maps' file."""
    builder = PromptBuilder("classification")
    return {
        "tokenizer": tokenizer,
        "tokenizer_hash": fingerprint(ImageTokenizer.from_pretrained(tokenizer)),
        "template": "classification",
        "prompt": prompt_digest(builder.channel() if method == "channel" else builder),
        "method": method,
        "ensemble": ensemble,
        "contextual": contextual,
    }


def fit_tables(tables: Sequence[Table], answers: int, seed: int, *, contextual: bool) -> dict[str, Any]:
    """One rule of the default: each (ways, shots) by itself."""
    info = tables[0].info
    data = [(table, Path(name).stem) for table in tables for name in table.info["data"]]
    # Points for which every data set has images, of many classes.
    shots_axis = [
        shots for shots in SHOTS if all(draw(t, d, MANY, shots, 5, 0, contextual=contextual) for t, d in data)
    ]
    temperatures, cells, n = [], [], 0
    for ways in WAYS:
        row = []
        for shots in shots_axis:
            drawn = {name: draw(t, name, ways, shots, answers, seed, contextual=contextual) for t, name in data}
            parts = {name: part for name, part in drawn.items() if part is not None}
            alone = {name: part.fitted() for name, part in parts.items()}
            temperature = together([*parts.values()]).fitted()
            row.append(temperature)
            n += sum(len(part.truth) for part in parts.values())
            for name, part in parts.items():
                cell = {"data": name, "words": info["k"], "ways": ways, "shots": shots, "temperature": temperature}
                for kind, used in (("raw", 1.0), ("calibrated", temperature)):
                    cell[kind] = short(part.measured(used, 200))
                for other, own in alone.items():
                    if other != name:
                        cell["fitted_to_the_other_alone"] = {"temperature": own, **short(part.measured(own, 200))}
                cells.append(cell)
                print(name, ways, shots, cell["raw"]["ece"], cell["calibrated"]["ece"], temperature, file=sys.stderr)
        temperatures.append(row)
    return {
        **rule_of(info["tokenizer"], "channel", ensemble=True, contextual=contextual),
        "axes": {"words": [info["k"]], "ways": [*WAYS], "shots": shots_axis},
        "temperatures": [temperatures],
        "n": n,
        "measured": cells,
    }


def fit_episodes(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The rules of one prompt: a power of the shots for each."""
    config = read_info(folders[0])["config"]
    found = {Path(read_info(folder)["config"]["data"]).stem: asked(folder) for folder in folders}
    rules = []
    for method in ("direct", "channel"):
        for name, contextual in NAMES.items():
            parts: dict[int, list[Answers]] = {}
            for of in found.values():
                for (rule, kind, _, shots), answers in of.items():
                    if (rule, kind) == (method, name):
                        parts.setdefault(shots, []).append(answers)
            scale, power = power_of_shots(parts)
            shots_axis = sorted(parts)
            cells = []
            for data, of in found.items():
                for (rule, kind, ways, shots), answers in sorted(of.items()):
                    if (rule, kind) == (method, name):
                        temperature = scale * shots**power
                        cell = {"data": data, "words": config["k"], "ways": ways, "shots": shots}
                        cells.append({**cell, "temperature": round(temperature, 4)})
                        cells[-1] |= {
                            "raw": short(answers.measured(1.0)),
                            "calibrated": short(answers.measured(temperature)),
                        }
                        print(method, name, data, ways, shots, cells[-1]["raw"]["ece"], cells[-1]["calibrated"]["ece"],
                              round(temperature, 2), file=sys.stderr)  # fmt: skip
            rules.append(
                {
                    **rule_of(config["tokenizer"], method, ensemble=False, contextual=contextual),
                    # One temperature for all ways: so few answers tell no change with them.
                    "axes": {"words": [config["k"]], "ways": [2, 10], "shots": shots_axis},
                    "temperatures": [[[round(scale * shots**power, 4) for shots in shots_axis]] * 2],
                    "n": sum(len(answers.truth) for every in parts.values() for answers in every),
                    "measured": cells,
                }
            )
    return rules


def fit(options: argparse.Namespace) -> None:
    by_words: dict[tuple[str, int], list[Table]] = {}
    sources: dict[str, Any] = {}
    for folder in options.tables:
        table = Table.read(folder)
        by_words.setdefault((table.info["tokenizer"], table.info["k"]), []).append(table)
        for name, digest in table.info["data"].items():
            labels = sorted({label for label, path, _ in table.images if path.startswith(f"{Path(name).stem}/")})
            sources[name] = {"sha256": digest, "classes": labels, "left_out": table.info["without"]}
    rules = [
        fit_tables(tables, options.answers, options.seed, contextual=contextual)
        for tables in by_words.values()
        for contextual in (False, True)
    ]
    if options.episodes:
        rules += fit_episodes(options.episodes)
    options.out.mkdir(parents=True, exist_ok=True)
    measured = [
        {**{key: rule[key] for key in ("tokenizer", "method", "ensemble", "contextual")}, "cells": rule.pop("measured")}
        for rule in rules
    ]
    files = {"maps.json": {"rules": rules}, "measured.json": {"rules": measured}}
    for name, document in files.items():
        write_json(options.out / name, document)
    about = header(options.seed)
    card = {
        "format_version": 1,
        "name": options.out.name,
        "kind": "probability maps",
        "llm": connect("local").identity,
        "description": "Temperatures that make probabilities of the embedded LLM's scores of labels, by tokenizer, "
        "rule, words, ways and shots. Fitted to training classes; a temperature changes no label.",
        "licence": "MIT",
        "data": sources,
        "data_terms": "mini-ImageNet: ImageNet terms, non-commercial research; Caltech 101 (Li, Andreeto, Ranzato, "
        "Perona): CC BY 4.0. No picture, word or label of an image is kept, only temperatures and error figures.",
        "not_seen": "The test classes of mini-ImageNet and the Caltech demo classes; 'ant', which both Caltech 101 and "
        "those test classes hold, and 'windsor chair', for its likeness to a demo class, were left out.",
        "n": sum(rule["n"] for rule in rules),
        "date": about["date"],
        "recipe": {"command": about["command"], "seed": options.seed, "answers_a_cell_and_data_set": options.answers},
        "versions": about["versions"],
        "files": {name: sha256_file(options.out / name) for name in files},
    }
    write_json(options.out / "card.json", card)


def check(options: argparse.Namespace) -> None:
    identity = connect("local").identity
    cells: list[dict[str, Any]] = []

    def add(rule: Mapping[str, Any], data: str, words: int, ways: int, shots: int, answers: Answers) -> None:
        found = find_map(
            Situation(
                identity, rule["prompt"], rule["tokenizer_hash"], rule["method"], rule["ensemble"], rule["contextual"],
                words, ways, shots,
            )
        )  # fmt: skip
        raw = answers.measured(1.0)
        cell = {
            **{key: rule[key] for key in ("tokenizer", "method", "ensemble", "contextual")},
            "data": data,
            "words": words,
            "ways": ways,
            "shots": shots,
            "raw": short(raw) | {"bins": [bin.to_dict() for bin in raw.bins]},
        }
        if found is not None:
            after = answers.measured(found.temperature)
            cell |= {"temperature": found.temperature, "note": found.note}
            cell["calibrated"] = short(after) | {"bins": [bin.to_dict() for bin in after.bins]}
        cells.append(cell)
        print(
            rule["tokenizer"], rule["method"], rule["ensemble"], rule["contextual"], data, ways, shots, raw.n,
            round(raw.accuracy, 3), round(raw.ece, 3), "->", cell.get("calibrated", {}).get("ece"), file=sys.stderr,
        )  # fmt: skip

    for folder in options.tables:
        table = Table.read(folder)
        names: list[str | None] = [Path(name).stem for name in table.info["data"]]
        for contextual in (False, True):
            rule = rule_of(table.info["tokenizer"], "channel", ensemble=True, contextual=contextual)
            for name in [*names, None] if len(names) > 1 else names:
                for ways, shots in TOGETHER if name is None else CHECKED:
                    drawn = draw(table, name, ways, shots, options.answers, options.seed, contextual=contextual)
                    if drawn is not None:
                        add(rule, name or " + ".join(map(str, names)), table.info["k"], ways, shots, drawn)
    for folder in options.episodes:
        config = read_info(folder)["config"]
        for (method, name, ways, shots), answers in sorted(asked(folder).items()):
            rule = rule_of(config["tokenizer"], method, ensemble=False, contextual=NAMES[name])
            add(rule, Path(config["data"]).stem, config["k"], ways, shots, answers)
    write(options.out, {**header(options.seed), "answers_a_cell": options.answers, "cells": cells})


def own(options: argparse.Namespace) -> None:
    """What ``calibrate_probabilities`` brings with so many images: a map for each episode, measured on other images."""
    ways, shots, left = 10, 5, 15
    cells = []
    for folder in options.tables:
        table = Table.read(folder)
        place_of = {word: place for place, word in enumerate(table.columns)}
        by_label: dict[str, list[int]] = {}
        for place, (label, _, _) in enumerate(table.images):
            by_label.setdefault(label, []).append(place)
        classes = [np.asarray(places) for places in by_label.values() if len(places) >= shots + left]
        for images in (0, 50, 100):
            random = np.random.default_rng(options.seed)
            parts, temperatures = [], []
            for _ in range(options.answers // 50):
                chosen = [
                    random.permutation(classes[which]) for which in random.choice(len(classes), ways, replace=False)
                ]
                asked_about = [(place, truth) for truth, order in enumerate(chosen) for place in order[shots:][:left]]
                asked_about = [asked_about[place] for place in random.permutation(len(asked_about))]
                words = [[place_of[word] for word in table.images[place][2]] for place, _ in asked_about]
                scores = np.stack(
                    [[_pooled(table.rows[np.ix_(order[:shots], row)]).sum() for order in chosen] for row in words]
                )
                truth = np.asarray([label for _, label in asked_about])
                first, rest = slice(0, images), slice(100, None)
                fitted = best_temperature([*scores[first]], truth[first].tolist()) if images else 1.0
                temperatures.append(fitted)
                parts.append(Answers(scores[rest] / fitted, truth[rest], np.zeros(len(truth[rest]), dtype=np.int64)))
            cell = {"data": ", ".join(table.info["data"]), "ways": ways, "shots": shots, "images": images}
            cell["temperatures"] = {str(q): round(float(np.quantile(temperatures, q)), 2) for q in (0.05, 0.5, 0.95)}
            cells.append({**cell, **short(together(parts).measured(1.0))})
            print(cells[-1], file=sys.stderr)
    write(options.out, {**header(options.seed), "cells": cells})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "check", "own"])
    parser.add_argument("--tables", type=Path, nargs="*", default=[], help="folders of probability_tables.py")
    parser.add_argument("--episodes", type=Path, nargs="*", default=[], help="run folders of probability_episodes.py")
    parser.add_argument("--answers", type=int, default=5000, help="of each drawn cell (default: 5000)")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    {"fit": fit, "check": check, "own": own}[options.what](options)


if __name__ == "__main__":
    main()
