"""Should words count by their probability when a label is read? And describe-photo's words against words-photo's.

    python benchmarks/word_evidence.py ask --data DIR_or_TAR --classes 32 --shots 3 --queries 6 --work FOLDER
        [--forms what both said]
    python benchmarks/word_evidence.py read --work FOLDER ... --out FILE.json

On training classes. The likelihood path shows each example alone and scores every word of the image as the next one, so
a table log P(word | example), asked once, holds the scores of every episode of its pool and of every way to weight the
words: ``ask`` fills it (rounds of examples, so that a stopped run is of use and the same command goes on), ``read``
draws episodes from it and asks nothing. Examples are shown in three forms: ``what`` (five words, those of words-photo),
``both`` (the text of describe-photo, "what: ...; said: ...") and ``said`` (describe-photo's *said* alone). Rows "apart"
score the words of *what* after the form ``what`` and those of *said* after ``said``, and count the latter less.

Knows: tables, weights, paired differences. Refuses to know: how the classifier is built.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from few_shot import images_of

from icl_vision import Example, PromptBuilder
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.files.storage import atomic_path, write_json
from icl_vision.llms import connect
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.wrapping import fingerprint

Array = npt.NDArray[np.float64]
FORMS = ("what", "both", "said")
APART = "apart"
SHARES = (0.1, 0.25, 0.5, 1.0)
"""What *said* counts in the rows "apart"."""


def draw(data: Path, classes: int, shots: int, queries: int, k: int, seed: int) -> dict[str, Any]:
    """The pool: of each class ``shots`` examples, then ``queries`` images that are only asked about."""
    plain = ImageTokenizer.from_pretrained("words-photo")
    describing = ImageTokenizer.from_pretrained("describe-photo", parts=("what", "said"))
    rows = []
    with images_of(data) as folder:
        for label in Draw("pool", seed).shuffled(sorted(folder.classes))[:classes]:
            chosen = Draw("pool", seed, label).shuffled(folder.classes[label])[: shots + queries]
            paths = [str(folder.path(path)) for path in chosen]
            texts = [plain.to_text(pyramid) for pyramid in plain.encode(paths, k)]
            for path, text, words in zip(chosen, texts, describing.encode(paths, k), strict=True):
                parts = {name: [words.words(name), list(words.chances(name))] for name in ("what", "said")}
                rows.append({"label": label, "path": path, "plain": text, "both": describing.to_text(words), **parts})
    return {
        "data": data.stem,
        "k": k,
        "shots": shots,
        "seed": seed,
        "tokenizer_hashes": [fingerprint(plain), fingerprint(describing)],
        "images": rows,
        "columns": sorted({w for row in rows for w in [*row["plain"].split(), *row["what"][0], *row["said"][0]]}),
    }


def forms_of(info: Mapping[str, Any]) -> list[str]:
    """The forms in which a pool's examples are shown; those of early pools are not written down."""
    forms: list[str] = info.get("forms", ["what", "both"])
    return forms


def columns_of(info: Mapping[str, Any], form: str) -> list[str]:
    """The words that are scored after examples of a form, in the order of its tables."""
    if form == "said":
        return sorted({word for row in info["images"] for word in row["said"][0]})
    if form == "what" and "both" not in forms_of(info):
        return sorted({word for row in info["images"] for word in row["plain"].split()})
    columns: list[str] = info["columns"]
    return columns


def ask(options: argparse.Namespace) -> None:
    """Fill the table, example by example: FOLDER/FORM-PLACE.npy."""
    began = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / "pool.json"
    if not file.exists():
        drawn = draw(options.data, options.classes, options.shots, options.queries, options.k, options.seed)
        write_json(file, {**drawn, "forms": options.forms})
    info = json.loads(file.read_text(encoding="utf-8"))
    size = len(info["images"]) // len({row["label"] for row in info["images"]})
    labels = sorted({row["label"] for row in info["images"]})
    llm = connect("local")
    for shot in range(info["shots"]):
        for place in range(shot, len(info["images"]), size):
            row = info["images"][place]
            for form, text in (("what", row["plain"]), ("both", row["both"]), ("said", " ".join(row["said"][0]))):
                if form not in forms_of(info):
                    continue
                target = options.work / f"{form}-{place:04d}.npy"
                if target.exists():
                    continue
                if time.monotonic() - began > 60 * options.minutes:
                    raise SystemExit(3)
                prompt = Ensemble.of(
                    PromptBuilder("classification").channel(), [Example(text, row["label"])], labels
                ).prompts[0]
                found = llm.score_sync(
                    [(prompt, " " + word) for word in columns_of(info, form)], terminator=""
                ).logprobs
                with atomic_path(target) as temporary, temporary.open("wb") as out:
                    np.save(out, np.asarray(found, dtype=np.float32), allow_pickle=False)
        print(f"round {shot + 1} of {info['shots']}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def same_words(row: Mapping[str, Any]) -> bool:
    """Whether words-photo and describe-photo's *what* say the same of an image."""
    return bool(row["plain"].split() == row["what"][0])


def bags(row: Mapping[str, Any]) -> dict[str, tuple[list[str], Array]]:
    """Name of a rule -> the words it scores and what each counts."""
    what, p_what = row["what"][0], np.asarray(row["what"][1])
    said, p_said = row["said"][0], np.asarray(row["said"][1])
    plain = row["plain"].split()
    rules = {"alike": (plain, np.ones(len(plain)))}
    rules |= {f"what^{power}": (what, p_what**power) for power in (0.25, 0.5, 1.0)}
    rules["what + said"] = (what + said, np.ones(len(what + said)))
    for share in (0.25, 0.5):
        rules[f"what + {share} said"] = (what + said, np.r_[np.ones(len(what)), np.full(len(said), share)])
    for power in (0.25, 0.5, 1.0):
        rules[f"(what + said)^{power}"] = (what + said, np.r_[p_what, p_said] ** power)
    return rules


ROWS = [
    *(("what", rule) for rule in ("alike", "what^0.25", "what^0.5", "what^1.0", "what + said", "what + 0.25 said")),
    *((APART, f"what + {share} said") for share in SHARES),
    *(
        ("both", rule)
        for rule in (
            *("alike", "what + said", "what + 0.25 said", "what + 0.5 said"),
            *("(what + said)^0.25", "(what + said)^0.5", "(what + said)^1.0"),
        )
    ),
]
"""(form of the examples, rule). The first is words-photo as it is. ("both", "what + said") is describe-photo with its
line of text in the examples and a bag of its words; (APART, "what + 0.25 said") is how the classifier reads it."""


def scored(form: str, rule: str, row: Mapping[str, Any]) -> list[tuple[str, list[str], Array]]:
    """What a row of the table asks of an image: (form of the examples, words, what each counts)."""
    if form != APART:
        return [(form, *bags(row)[rule])]
    said, share = row["said"][0], float(rule.split()[2])
    return [("what", *bags(row)["alike"]), ("said", said, np.full(len(said), share))]


def interval(values: Array, seed: int) -> list[float]:
    """95% percentile bootstrap of a mean, in points."""
    generator = np.random.default_rng(seed)
    means = values[generator.integers(0, len(values), (4000, len(values)))].mean(axis=1)
    return [round(100 * float(bound), 2) for bound in np.quantile(means, (0.025, 0.975))]


def paired(difference: Array, classes: npt.NDArray[np.int64], seed: int) -> dict[str, Any]:
    """difference: [episodes, ways] of right answers; classes: the class each question is about."""
    by_class = [difference[classes == number].mean() for number in np.unique(classes)]
    return {
        "difference": round(100 * float(difference.mean()), 2),
        "interval": interval(difference.mean(axis=1), seed),
        # Episodes of one pool share its images; classes are what was drawn apart.
        "interval_over_classes": interval(np.asarray(by_class), seed),
    }


def read_pool(work: Path, episodes: int, seed: int) -> list[dict[str, Any]]:
    """One cell for each row and number of shots the table is filled for."""
    info = json.loads((work / "pool.json").read_text(encoding="utf-8"))
    images = info["images"]
    column = {form: {word: place for place, word in enumerate(columns_of(info, form))} for form in FORMS}
    labels = sorted({row["label"] for row in images})
    forms = forms_of(info)
    size = len(images) // len(labels)
    starts = {images[start]["label"]: start for start in range(0, len(images), size)}
    tables = {
        (form, int(file.stem.split("-")[1])): np.load(file, allow_pickle=False).astype(np.float64)
        for form in FORMS
        for file in work.glob(f"{form}-*.npy")
    }
    # words-photo may say colours among its words, describe-photo's *what* says others there; then the probabilities are
    # not those of words-photo's words, and no question is about such an image.
    asked_of = {
        name: [p for p in range(start + info["shots"], start + size) if same_words(images[p])]
        for name, start in starts.items()
    }
    cells = []
    for shots in range(1, info["shots"] + 1):
        places = [starts[label] + shot for label in labels for shot in range(shots)]
        if any((form, place) not in tables for form in forms for place in places):
            break
        # (*said* after examples of the form "what" was asked only where "both" was asked too.)
        whole = "both" in forms
        rows = [
            (form, rule)
            for form, rule in ROWS
            if ({"what", "said"} <= set(forms) if form == APART else form in forms and (whole or "said" not in rule))
        ]
        generator = np.random.default_rng([seed, shots])
        asked, of_episodes = [], []
        for _ in range(episodes):
            names = [labels[number] for number in generator.permutation(len(labels))[:5]]
            of_episodes.append([int(generator.choice(asked_of[name])) for name in names])
            asked.append([labels.index(name) for name in names])
        mixed = {
            (form, label): np.logaddexp.reduce([tables[form, starts[label] + s] for s in range(shots)]) - np.log(shots)
            for form in forms
            for label in labels
        }
        right: dict[tuple[str, str], Array] = {}
        for form, rule in rows:
            totals = np.full((len(images), len(labels)), np.nan)
            for place in sorted({place for places in of_episodes for place in places}):
                totals[place] = 0.0
                for shown, words, weights in scored(form, rule, images[place]):
                    at = [column[shown][word] for word in words]
                    totals[place] += [(mixed[shown, label][at] * weights).sum() for label in labels]
            own = np.asarray(asked)
            chosen = [
                [own[number, int(np.argmax(totals[place, own[number]]))] for place in places]
                for number, places in enumerate(of_episodes)
            ]
            right[form, rule] = (np.asarray(chosen) == own).astype(np.float64)
        classes = np.asarray(asked)
        for form, rule in rows:
            own = right[form, rule]
            cell = {
                "data": info["data"],
                "shots": shots,
                "examples": form,
                "rule": rule,
                "episodes": episodes,
                "questions": int(own.size),
                "accuracy": round(float(own.mean()), 4),
                "over_words_photo": paired(own - right["what", "alike"], classes, seed),
            }
            if ("both", "what + said") in right:
                cell["over_describe_photo"] = paired(own - right["both", "what + said"], classes, seed)
            cells.append(cell)
            print(json.dumps(cell), flush=True)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("--data", type=Path, required=True, help="folder of class folders, or a tar of one")
    asking.add_argument("--classes", type=int, default=32)
    asking.add_argument("--shots", type=int, default=3, help="examples of each class")
    asking.add_argument("--queries", type=int, default=6, help="images of each class that are asked about")
    asking.add_argument("-k", type=int, default=5, help="words of each part (default: 5)")
    asking.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="in which examples are shown")
    asking.add_argument("--seed", type=int, default=0)
    asking.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next call goes on")
    asking.add_argument("--work", type=Path, required=True)
    reading = commands.add_parser("read")
    reading.add_argument("--work", type=Path, nargs="+", required=True)
    reading.add_argument("--episodes", type=int, default=400)
    reading.add_argument("--seed", type=int, default=0)
    reading.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "ask":
        ask(options)
        return
    pools = [json.loads((work / "pool.json").read_text(encoding="utf-8")) for work in options.work]
    cells = [cell for work in options.work for cell in read_pool(work, options.episodes, options.seed)]
    about = [
        {
            **{name: pool[name] for name in ("data", "k", "seed", "tokenizer_hashes")},
            "classes": len({row["label"] for row in pool["images"]}),
            "images": len(pool["images"]),
            "same_words": sum(same_words(row) for row in pool["images"]),
        }
        for pool in pools
    ]
    write(options.out, {**header(options.seed), "pools": about, "cells": cells})


if __name__ == "__main__":
    main()
