"""The words of describe-photo beside what people wrote: how many are right, how true their probabilities are.

    python benchmarks/described_words.py --captions FLICKR.tar --captions COCO.tar --coco COCO.tar
        [--describe NAME|FOLDER] [--also NAME=HEADS] [--part test] [--out FILE.json]

Knows: captions by part of their set, the rows, what is counted. Refuses to know: training.

Rows: *said* of describe-photo; *said* of other heads (of other captions, by --also); words-photo; always the
most frequent words of the training captions; and a plain ridge regression on the trunk's pooled features (unit length,
centred; the penalty is their mean square length, which nobody tuned), which learns the same words from the same
captions.

Always: of the questions without captions (tuning), the share whose answer is among the words. With --part test, on the
pictures of --coco that have captions and questions: nobody trains, chooses or tunes on these, and they are run once.
--part training tries the script out on pictures that were trained on; its figures say nothing.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

FIRST = (5, 10)
COVERED = 30
SEED = 0


def training(sources: Sequence[Path]) -> list[tuple[Any, Any]]:
    """Pictures and tokens of their captions, without those of a part "test"."""
    from icl_vision.evaluation.answering.readers.reading import read_captions
    from icl_vision.training.said.words import tokens

    return [
        (entry.pictures[0].source, tokens(entry.answers))
        for source in sources
        for entry in read_captions(source)
        if entry.split != "test"
    ]


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)


def ridge(known: np.ndarray, said: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Scores of words [M, S] by ridge regression. known: [N, F]. said: [N, S]. asked: [M, F]."""
    centre, often = known.mean(0), said.mean(0)
    x, y = known - centre, said - often
    gram = x @ x.T
    weights = np.linalg.solve(gram + np.mean(np.diag(gram)) * np.eye(len(gram)), y)
    return often + (asked - centre) @ x.T @ weights


def by_part(tokenizer: Any, pictures: Sequence[Any], k: int) -> list[dict[str, list[tuple[str, float]]]]:
    """Words and probabilities of each picture by part."""
    rows = []
    for seen in tokenizer.encode(list(pictures), k):
        chances, row = list(seen.probabilities), {}
        for name, count in seen.parts:
            row[name] = list(zip(seen.words(name), chances[:count], strict=True))
            chances = chances[count:]
        rows.append(row)
    return rows


def shares(words: Sequence[Sequence[str]], captions: Sequence[Any], first: int) -> list[float]:
    """The share of each picture's first words that its captions hold."""
    return [sum(word in said.all for word in row[:first]) / first for row, said in zip(words, captions, strict=True)]


def by_heads(folder: Path, pictures: Sequence[Any], first: int) -> list[list[str]]:
    """What the heads of a build say, from its weights in torch."""
    import torch
    from safetensors.torch import load_file

    from icl_vision.codebook import Codebook
    from icl_vision.models.nets.efficientnet import load_published
    from icl_vision.models.words.describe import DescribeHeads
    from icl_vision.training.said.build import SAID_FILE, WEIGHTS_FILE
    from icl_vision.training.said.measures import ranked
    from icl_vision.training.said.seen import look_at

    heads = DescribeHeads.from_weights(load_file(folder / WEIGHTS_FILE))
    seen = look_at(pictures, load_published().fold())
    shares = seen.shares(heads, torch.from_numpy(np.array(Codebook.load().vectors)))
    with torch.inference_mode():
        scores = heads.said(seen.features, seen.logits, shares)
    return ranked(scores.numpy(), (folder / SAID_FILE).read_text(encoding="utf-8").split(), first)


def coverage(tokenizer: Any, coco: Path) -> dict[str, Any]:
    """Of the tuning questions: how many answers are among the first words of each part, and of several."""
    from icl_vision.evaluation.answering.readers.reading import read_questions
    from icl_vision.evaluation.kit.metrics import Accuracy

    asked = [entry for entry in read_questions(coco) if entry.split == "tuning"]
    pictures = {entry.pictures[0].name: entry.pictures[0].source for entry in asked}
    words = dict(zip(pictures, by_part(tokenizer, list(pictures.values()), COVERED), strict=True))
    result: dict[str, Any] = {"questions": len(asked), "pictures": len(pictures), "words a part": COVERED}
    for parts in (("what",), ("said",), ("what", "said"), ("what", "said", "colours")):
        right = [
            any(
                entry.answers[0] == word
                for part in parts
                for word, _ in words[entry.pictures[0].name].get(part, [])[:COVERED]
            )
            for entry in asked
        ]
        result[" + ".join(parts)] = Accuracy.of(right, "the answer is among the words, letter for letter").to_dict()
    return result


def beside_captions(options: argparse.Namespace) -> dict[str, Any]:
    """Precision of first words on the pictures of one part, and reliability of their probabilities."""
    from icl_vision import ImageTokenizer
    from icl_vision.evaluation.answering.readers.reading import read_captions
    from icl_vision.evaluation.kit.paired_means import paired_mean
    from icl_vision.training.said.measures import precision, ranked, reliability
    from icl_vision.training.said.words import holds, said_words, targets, tokens

    entries = [entry for entry in read_captions(options.coco) if entry.split == options.part]
    pictures, captions = [entry.pictures[0].source for entry in entries], [tokens(entry.answers) for entry in entries]
    known = training(options.captions)
    tokenizer = ImageTokenizer.from_pretrained(options.describe, parts=("what", "said"))
    seen = by_part(tokenizer, pictures, COVERED)
    vocabulary = frozenset(tokenizer.vocabulary.words)
    listed = said_words([tokens for _, tokens in known], vocabulary)
    said = targets([tokens for _, tokens in known], listed).astype(np.float32)
    often = sorted(listed, key=lambda word: (-said[:, list(listed).index(word)].mean(), word))
    features = unit(np.asarray(tokenizer.embed([picture for picture, _ in known])))
    scores = ridge(features, said, unit(np.asarray(tokenizer.embed(pictures))))
    rows: dict[str, list[list[str]]] = {
        "describe-photo, said": [[word for word, _ in row["said"]] for row in seen],
        **{
            f"{name}, said": by_heads(Path(folder), pictures, max(FIRST))
            for name, _, folder in (entry.partition("=") for entry in options.also)
        },
        "ridge": ranked(scores, list(listed), max(FIRST)),
        "words-photo": [
            list(pyramid.words())
            for pyramid in ImageTokenizer.from_pretrained("words-photo").encode(pictures, max(FIRST))
        ],
        "most frequent": [often[: max(FIRST)]] * len(pictures),
    }
    result: dict[str, Any] = {
        "pictures": len(pictures),
        "captions a picture": dict(Counter(len(entry.answers) for entry in entries)),
        "training pictures": len(known),
        "words of ridge": len(listed),
        "precision": {
            name: {f"first {first}": precision(words, captions, first) for first in FIRST}
            for name, words in rows.items()
        },
    }
    result["paired"] = {
        f"describe-photo, said, over {name}": {
            f"first {first}": paired_mean(
                shares(rows["describe-photo, said"], captions, first),
                shares(rows[name], captions, first),
                higher_is_better=True,
                seed=SEED,
            ).to_dict()
            for first in FIRST
        }
        for name in ("ridge", "words-photo", "most frequent")
    }
    result["reliability"] = {}
    for part in ("said", "what"):
        for first in (10, COVERED):
            pairs = [
                (chance, holds(picture, word) if part == "what" else bool(listed.get(word, {word}) & picture.all))
                for row, picture in zip(seen, captions, strict=True)
                for word, chance in row[part][:first]
            ]
            result["reliability"][f"{part}, first {first}"] = reliability(*zip(*pairs, strict=True))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=Path, action="append", required=True, help="a training set; repeatable")
    parser.add_argument("--coco", type=Path, required=True, help="COCO pictures with captions and questions")
    parser.add_argument("--describe", default="describe-photo", help="the tokenizer (default: the packaged one)")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=HEADS", help="the folder DIR-heads of a build; repeatable"
    )
    parser.add_argument("--part", choices=["test", "training"], help="which captioned pictures of --coco to run on")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    from icl_vision import ImageTokenizer

    document = header(SEED) | {"describe": Path(options.describe).name}
    tokenizer = ImageTokenizer.from_pretrained(options.describe, parts=("what", "said", "colours"))
    document["card"] = {key: tokenizer.card.get(key) for key in ("recipe", "captions")}
    document["coverage of tuning questions"] = coverage(tokenizer, options.coco)
    if options.part:
        document[options.part] = beside_captions(options)
    print_summary(document)
    if options.out:
        write(options.out, document)


def print_summary(document: dict[str, Any]) -> None:
    for name, row in document["coverage of tuning questions"].items():
        print(name, row if not isinstance(row, dict) else f"{row['accuracy']:.3f} {row['interval']}")
    found = document.get("test") or document.get("training") or {}
    for name, rows in found.get("precision", {}).items():
        for first, row in rows.items():
            low, high = row["interval"]
            print(f"{name}, {first}: {row['mean']:.3f} [{low:.3f}, {high:.3f}]")
    for name, rows in found.get("paired", {}).items():
        for first, row in rows.items():
            print(f"{name}, {first}: {row['difference']:+.3f} [{row['interval'][0]:+.3f}, {row['interval'][1]:+.3f}]")
    for name, row in found.get("reliability", {}).items():
        print(f"{name}: expected calibration error {row['error']:.4f}")


if __name__ == "__main__":
    main()
