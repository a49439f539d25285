"""describe-photo's what + said against words-photo, on the episodes of a committed few-shot run.

    python benchmarks/described_episodes.py ask --data DIR_or_TAR --episodes 60 --work FOLDER [--minutes 9]
    python benchmarks/described_episodes.py read --work FOLDER --out FILE.json

Episodes, support sets and the first question a class are those of ``icl-vision eval few-shot`` with the same data, ways
and seed (`benchmarks/configs/few_shot_headline.yaml`); ``--more`` further images of each class are asked about, none of
them an example of that episode. Every log P(word | example) that the classifier would ask for is asked once an episode
and kept (`ask`; a stopped run goes on), and `read` decides the labels of every number of shots as the classifier does:
one label for each question from words-photo's words, one from the parts of describe-photo. ``read`` asks nothing.

Knows: episodes, tables, paired differences. Refuses to know: which part counts how much (``tasks.classify.ensemble``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from few_shot import images_of
from word_evidence import interval

from icl_vision import Example, PromptBuilder
from icl_vision.evaluation.few_shot.episodes.drawing import Draw, Episode, ImageFolder, Item
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.files.storage import atomic_path, write_json
from icl_vision.image_words import ImageWords
from icl_vision.llms import connect
from icl_vision.tasks.classify.ensemble import OTHER_PARTS, Ensemble, pool
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.wrapping import fingerprint

SHOTS = (1, 3, 5)
PLAIN = "plain"
"""words-photo's words, beside the parts of describe-photo."""


def drawn(folder: ImageFolder, number: int, ways: int, more: int, seed: int) -> tuple[Episode, list[Item]]:
    """An episode of the committed run, and what is asked in it: its own queries, then the others."""
    episode = folder.sample(number, ways=ways, shots=max(SHOTS), seed=seed)
    used = {item.path for item in (*episode.support, *episode.queries)}
    others = []
    for label in episode.labels:
        shuffled = Draw("more", seed, number, label).shuffled(folder.classes[label])
        others += [Item(path, label) for path in [path for path in shuffled if path not in used][:more]]
    return episode, [*episode.queries, *others]


def ask(options: argparse.Namespace) -> None:
    """Fill FOLDER/NUMBER.json and FOLDER/NUMBER-PART.npy: float32 [examples, words]."""
    began = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    plain = RememberingTokenizer(ImageTokenizer.from_pretrained("words-photo"))
    described = RememberingTokenizer(ImageTokenizer.from_pretrained("describe-photo", parts=("what", "said")))
    llm = connect("local")
    about = {
        "data": options.data.stem,
        "ways": options.ways,
        "more": options.more,
        "k": options.k,
        "seed": options.seed,
        "llm": str(getattr(llm, "identity", "")),
        "tokenizer_hashes": [fingerprint(plain), fingerprint(described)],
    }
    file = options.work / "about.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != about:
        raise SystemExit(f"{file} was made with other options or tokenizers: {file.read_text(encoding='utf-8')}")
    write_json(file, about)
    builder = PromptBuilder("classification").channel()
    with images_of(options.data) as folder:
        for number in range(options.episodes):
            target = options.work / f"{number:04d}.json"
            if target.exists():
                continue
            if time.monotonic() - began > 60 * options.minutes:
                raise SystemExit(3)
            episode, asked = drawn(folder, number, options.ways, options.more, options.seed)
            paths = [str(folder.path(item.path)) for item in (*episode.support, *asked)]
            texts: dict[str, list[str]] = {
                PLAIN: [plain.to_text(pyramid) for pyramid in plain.encode(paths, options.k)]
            }
            words = [one for one in described.encode(paths, options.k) if isinstance(one, ImageWords)]
            for part in ("what", "said"):
                texts[part] = [" ".join(one.words(part)) for one in words]
            count = len(episode.support)
            # (Nearly all images have the same words from both: asked once.)
            named = sorted({word for part in (PLAIN, "what") for row in texts[part][count:] for word in row.split()})
            said = sorted({word for row in texts["said"][count:] for word in row.split()})
            columns = {PLAIN: named, "what": named, "said": said}
            known: dict[tuple[str, str], tuple[float, ...]] = {}
            for part, rows in texts.items():
                examples = [Example(row, item.label) for row, item in zip(rows, episode.support, strict=False)]
                table = []
                for prompt in Ensemble.of(builder, examples, episode.labels).prompts:
                    key = ("said" if part == "said" else PLAIN, prompt.text)
                    if key not in known:
                        pairs = [(prompt, " " + word) for word in columns[part]]
                        known[key] = llm.score_sync(pairs, terminator="").logprobs
                    table.append(known[key])
                with atomic_path(options.work / f"{number:04d}-{part}.npy") as temporary, temporary.open("wb") as out:
                    np.save(out, np.asarray(table, dtype=np.float32), allow_pickle=False)
            write_json(
                target,
                {
                    "labels": list(episode.labels),
                    "support": [item.label for item in episode.support],
                    "truths": [item.label for item in asked],
                    "columns": columns,
                    "words": {part: [row.split() for row in rows[count:]] for part, rows in texts.items()},
                },
            )
            print(f"episode {number + 1} of {options.episodes}, {time.monotonic() - began:.0f} s", file=sys.stderr)


def hits(work: Path, number: int, weights: dict[str, float]) -> dict[int, npt.NDArray[np.bool_]]:
    """Shots -> whether each question of an episode is answered rightly by these parts, each with what it counts."""
    document: dict[str, Any] = json.loads((work / f"{number:04d}.json").read_text(encoding="utf-8"))
    labels, truths, support = document["labels"], document["truths"], document["support"]
    right: dict[int, npt.NDArray[np.bool_]] = {}
    for shots in SHOTS:
        shown = support[: shots * len(labels)]
        totals = np.zeros((len(truths), len(labels)))
        for part, weight in weights.items():
            table = np.load(work / f"{number:04d}-{part}.npy", allow_pickle=False).astype(np.float64)
            place = {word: column for column, word in enumerate(document["columns"][part])}
            for question, words in enumerate(document["words"][part]):
                bag = words if part == PLAIN else list(dict.fromkeys(words))
                scores = table[: len(shown)][:, [place[word] for word in bag]]
                totals[question] += weight * np.asarray(pool(scores.ravel().tolist(), shown, labels))
        right[shots] = np.asarray([labels[best] for best in totals.argmax(axis=1)]) == np.asarray(truths)
    return right


def cells(work: Path, rules: dict[str, dict[str, float]], seed: int) -> tuple[list[int], list[dict[str, Any]]]:
    """The episodes there are, and a cell for each rule and number of shots."""
    numbers = sorted(int(file.stem) for file in work.glob("[0-9][0-9][0-9][0-9].json"))
    base = [hits(work, number, {PLAIN: 1.0}) for number in numbers]
    truths = [json.loads((work / f"{number:04d}.json").read_text(encoding="utf-8"))["truths"] for number in numbers]
    classes = np.asarray(truths)
    found = []
    for name, weights in rules.items():
        own = [hits(work, number, weights) for number in numbers]
        for shots in SHOTS:
            ours = np.asarray([row[shots] for row in own], dtype=np.float64)
            theirs = np.asarray([row[shots] for row in base], dtype=np.float64)
            found.append(
                {
                    "rule": name,
                    "weights": weights,
                    "shots": shots,
                    "questions": int(ours.size),
                    "accuracy": round(100 * float(ours.mean()), 2),
                    "words_photo": round(100 * float(theirs.mean()), 2),
                    "only_ours": int((ours > theirs).sum()),
                    "only_theirs": int((ours < theirs).sum()),
                    "difference": round(100 * float((ours - theirs).mean()), 2),
                    # Questions of one episode share their examples, those of one class their word.
                    "interval_over_episodes": interval((ours - theirs).mean(axis=1), seed),
                    "interval_over_classes": interval(
                        np.asarray([(ours - theirs)[classes == label].mean() for label in np.unique(classes)]), seed
                    ),
                    "by_episode": [round(100 * float(value), 2) for value in (ours - theirs).mean(axis=1)],
                }
            )
            print(json.dumps(found[-1]), flush=True)
    return numbers, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("--data", type=Path, required=True, help="folder of class folders, or a tar of one")
    asking.add_argument("--episodes", type=int, default=100)
    asking.add_argument("--ways", type=int, default=5)
    asking.add_argument("--more", type=int, default=4, help="further images of each class that are asked about")
    asking.add_argument("-k", type=int, default=5, help="words of each part (default: 5)")
    asking.add_argument("--seed", type=int, default=0)
    asking.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next call goes on")
    asking.add_argument("--work", type=Path, required=True)
    reading = commands.add_parser("read")
    reading.add_argument("--work", type=Path, required=True)
    reading.add_argument("--seed", type=int, default=0)
    reading.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "ask":
        ask(options)
        return
    rules = {"describe-photo": {"what": 1.0, "said": OTHER_PARTS}, "what alone": {"what": 1.0}}
    numbers, found = cells(options.work, rules, options.seed)
    about = json.loads((options.work / "about.json").read_text(encoding="utf-8"))
    write(options.out, {**header(options.seed), **about, "episodes": len(numbers), "cells": found})


if __name__ == "__main__":
    main()
