"""Small sets of questions and captions about pictures of one colour, made here."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

from icl_vision.evaluation.answering.readers import Picture, QASet, Question

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple")


def png(colour: str) -> bytes:
    """A picture of one colour."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(data, "PNG")
    return data.getvalue()


def questions(pictures: int = 8, tuned: int = 3) -> QASet:
    """Two questions about each picture: what colour it is, and how many corners; the first ``tuned`` pictures are for
    tuning and have no captions."""
    asked = []
    for number in range(pictures):
        colour = COLOURS[number % len(COLOURS)]
        split = "tuning" if number < tuned else "test"
        captions = (f"a {colour} square on a wall.", f"one {colour} thing") if split == "test" else ()
        picture = Picture(f"{number}.png", png(colour), captions=captions)
        asked += [
            Question(f"{number}/0", (picture,), f"what colour is the square {number}", (colour,), "colour", split),
            Question(f"{number}/1", (picture,), "how many corners has it", ("four",), "number", split),
        ]
    return QASet("squares", tuple(asked))


def captions(pictures: int = 6, others: int = 4) -> QASet:
    """Pictures with three captions each; the last ``others`` of them are for training."""
    asked = []
    for number in range(pictures + others):
        colour = COLOURS[number % len(COLOURS)]
        texts = (f"a {colour} square.", f"the picture shows a {colour} square", f"a square that is {colour}")
        picture = Picture(f"{number}.png", png(colour), captions=texts)
        split = "test" if number < pictures else "training"
        asked.append(Question(str(number), (picture,), None, texts, "caption", split))
    return QASet("coloured", tuple(asked))


def write(folder: Path) -> Path:
    """The same questions and captions as COCO's files lie."""
    entries = []
    for number, colour in enumerate(COLOURS):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{number}.png").write_bytes(png(colour))
        texts = [f"a {colour} square.", f"the picture shows a {colour} square", f"a square that is {colour}"]
        entries.append({
            "id": number,
            "file": f"images/{number}.png",
            "captions": texts if number > 2 else [],
            "cocoqa": [
                {"question": f"what is the color of square {number}", "answer": colour, "type": "color"},
                {"question": "how many corners are there", "answer": "four", "type": "number"},
            ] if number < 6 else [],
        })  # fmt: skip
    (folder / "index.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder
