"""Words chosen for a question: is the answer among them more often than among as many words that were not chosen?

    python benchmarks/describe_focus.py --coco COCO_FOLDER [--tokenizer NAME|FOLDER] [--out FILE.json]

Knows: the tuning questions (COCO pictures with questions and without captions), what counts as there. Refuses to know:
how words are chosen (tokenizers/describe/focus.py), LLMs.

An answer counts as there if its word, or its plural or singular, is among the words. ``first n`` are the words in the
order in which they would stand in a prompt, parts one after another, names of regions not counted; so both ways are
compared at the same number of words.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

FIRST = (1, 3, 5, 10, 20)
BY_K = (3, 5, 10, 20, 64)
PARTS = ("what", "said", "colours", "where")


def questions(coco: Path) -> list[tuple[str, str, str, str]]:
    """(file, question, answer, type) of the tuning questions."""
    index = json.loads((coco / "index.json").read_text(encoding="utf-8"))
    return [
        (str(coco / row["file"]), asked["question"], asked["answer"], asked["type"])
        for row in index
        if not row["captions"]
        for asked in row["cocoqa"]
    ]


def same(word: str, answer: str) -> bool:
    from icl_vision.tokenizers.describe.focus import forms

    return answer in forms(word) or word in forms(answer)


def place(words: list[str], answer: str) -> int | None:
    """The place of the answer among the words, from 0."""
    return next((number for number, word in enumerate(words) if same(word, answer)), None)


def in_order(words: Any) -> list[str]:
    """Distinct words as they would stand in a prompt, without the regions' names."""
    from icl_vision.tokenizers.describe.places import REGIONS

    return [word for word in dict.fromkeys(words.words()) if word not in REGIONS]


def interleaved(words: Any) -> list[str]:
    """The first word of each part, then the second of each: the fairest order without a question."""
    from icl_vision.tokenizers.describe.places import REGIONS

    parts = [words.words(part) for part in words.names]
    rows = [part[number] for number in range(max(map(len, parts))) for part in parts if number < len(part)]
    return [word for word in dict.fromkeys(rows) if word not in REGIONS]


def shares(places: list[int | None]) -> dict[str, float]:
    return {
        f"first {most}": round(100 * float(np.mean([at is not None and at < most for at in places])), 1)
        for most in FIRST
    } | {"all": round(100 * float(np.mean([at is not None for at in places])), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--tokenizer", default="describe-photo")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    from icl_vision import ImageTokenizer

    tokenizer = ImageTokenizer.from_pretrained(arguments.tokenizer, parts=PARTS)
    asked = questions(arguments.coco)
    files = list(dict.fromkeys(file for file, *_ in asked))
    whole = dict(zip(files, tokenizer.encode(files, tokenizer.focus_from), strict=True))
    plain = dict(zip(files, tokenizer.encode(files, arguments.k), strict=True))
    ways: dict[str, dict[str, list[int | None]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[str, list[int]] = defaultdict(list)
    for file, question, answer, kind in asked:
        chosen = tokenizer.focus(whole[file], question, arguments.k)
        rows = {
            "asked": in_order(chosen),
            "not asked": in_order(plain[file]),
            "not asked, parts in turn": interleaved(plain[file]),
            "all there are": interleaved(whole[file]),
        }
        for way, words in rows.items():
            counts[way].append(len(words))
            for group in ("all", kind):
                ways[group][way].append(place(words, answer))
    document: dict[str, Any] = {**header(), "tokenizer": tokenizer.name, "k": arguments.k, "n": len(asked)}
    document["words"] = {way: round(float(np.mean(row)), 1) for way, row in counts.items()}
    document["answer_among"] = {
        group: {"n": len(rows["asked"]), **{way: shares(places) for way, places in rows.items()}}
        for group, rows in ways.items()
    }
    document["by_k"] = {}
    for k in BY_K:
        found: dict[str, list[tuple[bool, int]]] = {"asked": [], "not asked": []}
        cut = dict(zip(files, tokenizer.encode(files, k), strict=True))
        for file, question, answer, _ in asked:
            for way, chosen in (("asked", tokenizer.focus(whole[file], question, k)), ("not asked", cut[file])):
                words = in_order(chosen)
                found[way].append((place(words, answer) is not None, len(words)))
        document["by_k"][str(k)] = {
            way: {
                "answer_there": round(100 * float(np.mean([there for there, _ in rows])), 1),
                "words": round(float(np.mean([count for _, count in rows])), 1),
            }
            for way, rows in found.items()
        }
    print(json.dumps({key: document[key] for key in ("n", "k", "words", "answer_among", "by_k")}, indent=2))
    if arguments.out:
        write(arguments.out, document)


if __name__ == "__main__":
    main()
