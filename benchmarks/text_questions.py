"""Questions about text in pictures: signs drawn onto packaged photographs, and the answers to what they say.

    python benchmarks/text_questions.py [--seed 0] [--llm local] [--out FILE.json] [--sheet FILE.jpg]

Every picture is a photograph of Caltech 101 (packaged, CC BY 4.0) with one or two signs of one of three kinds:

- one: a sign of one line, which is asked for
- two: a sign of two lines, of which all is asked for
- beside: two signs far apart, of which one is asked for by what it stands on

Rows, all by exact match after normalisation: ``read`` is the default (where a question asks for text, what was read);
``not offered`` the default on the same words with the text taken out, which is how it answered before; ``greedy`` what
the LLM writes with the quoted text in its prompt; ``all``, ``first`` and ``longest`` ask no LLM and answer with what
was read: every string, the first, the longest.

Knows: signs, questions, rows. Refuses to know: how text is read, how an answer is found.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import header, write
from PIL import Image, ImageDraw, ImageFont

import icl_vision
from icl_vision import VisualQA
from icl_vision.evaluation.answering.metrics import exact_answer
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.image_words import ImageWords
from icl_vision.tasks import packaged_examples
from icl_vision.tokenizers import ImageTokenizer

PHOTOS = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"
SIDE = 480
"""Longest side of a picture in pixels."""

ONE = (
    "OPEN", "BAKERY", "NO SMOKING", "EXIT", "TAXI", "FRESH FISH", "MUSEUM", "ROOM 214", "PULL", "LIBRARY", "FOR SALE",
    "DANGER", "POST OFFICE", "GATE 7", "COFFEE", "WET PAINT", "BUS STOP", "HOTEL ASTORIA", "POLICE", "KEEP OUT",
)  # fmt: skip
TWO = (
    ("GREEN", "GARDENS"), ("MIND THE", "STEP"), ("BOOKS AND", "MAPS"), ("RIVER", "CRUISES"),
    ("PLEASE RING", "THE BELL"), ("HARBOUR", "STREET"), ("TICKETS", "HERE"), ("NO DOGS", "ALLOWED"),
    ("CITY", "THEATRE"), ("BEWARE OF", "BICYCLES"), ("HOME MADE", "JAM"), ("QUEEN'S", "ROAD"),
)  # fmt: skip
BESIDE = (
    ("street sign", "MAPLE STREET", "PIZZERIA"), ("licence plate", "KXR 4821", "FLOWERS"),
    ("shop sign", "SHOES", "NO ENTRY"), ("price tag", "9.99", "ORGANIC"), ("bus", "42 CENTRAL", "PHARMACY"),
    ("clock", "10:45", "PLATFORM 3"), ("street sign", "OAK AVENUE", "SALE"), ("licence plate", "MB 77 12", "BANK"),
    ("shop sign", "BUTCHER", "TO LET"), ("price tag", "3.50", "APPLES"), ("bus", "18 AIRPORT", "CINEMA"),
    ("clock", "7:30", "TICKETS"),
)  # fmt: skip
"""(what the sign that is asked for stands on, what it says, what another sign says)."""

LINES = ("What does the sign say?", "What is written on the sign?", "What does it say?")


@dataclass(frozen=True)
class Case:
    """One picture with its question. kind: one, two or beside."""

    kind: str
    picture: Image.Image
    question: str
    answer: str


def _sign(picture: Image.Image, lines: Sequence[str], upper: bool, rng: random.Random) -> None:
    """Draw a sign of these lines into the upper or the lower half."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(rng.randint(26, 40))
    boxes = [draw.textbbox((0, 0), line, font=font) for line in lines]
    high = max(box[3] for box in boxes) + 4
    wide, tall = max(int(box[2]) for box in boxes) + 24, int(high * len(lines)) + 16
    left = rng.randint(4, max(4, picture.width - wide - 4))
    top = rng.randint(4, max(4, picture.height // 2 - tall - 4)) + (0 if upper else picture.height // 2)
    ground, ink = rng.choice((("white", "black"), ("navy", "white"), ("darkgreen", "white"), ("gold", "black")))
    draw.rectangle((left, top, left + wide, top + tall), fill=ground)
    for number, line in enumerate(lines):
        draw.text((left + 12, top + 6 + number * high), line, fill=ink, font=font)


def cases(seed: int) -> list[Case]:
    """The pictures of a seed: 10 of kind one, 6 of each other kind. Seeds 0 and 1 have no text in common."""
    rng = random.Random(f"text in pictures {seed}")
    halves = [
        random.Random(0).sample(texts, len(texts))[seed % 2 :: 2] for texts in (list(ONE), list(TWO), list(BESIDE))
    ]
    files = rng.sample(sorted(PHOTOS.glob("*/*.jpg")), sum(map(len, halves)))
    found = []
    for kind, texts in zip(("one", "two", "beside"), halves, strict=True):
        for text in texts:
            photo = Image.open(files.pop()).convert("RGB")
            scale = SIDE / max(photo.size)
            photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
            upper = rng.random() < 0.5
            if kind == "beside":
                _sign(photo, [text[1]], upper, rng)
                _sign(photo, [text[2]], not upper, rng)
                question, answer = f"What does the {text[0]} say?", text[1]
            else:
                _sign(photo, [text] if kind == "one" else text, upper, rng)
                question, answer = rng.choice(LINES), text if kind == "one" else " ".join(text)
            found.append(Case(kind, photo, question, answer))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="which pictures (default: 0)")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path, help="a page of the pictures")
    options = parser.parse_args()
    drawn = cases(options.seed)
    if options.sheet is not None:
        sheet = Image.new("RGB", (6 * 250, -(-len(drawn) // 6) * 250), "white")
        for place, case in enumerate(drawn):
            small = case.picture.copy()
            small.thumbnail((244, 244))
            sheet.paste(small, (place % 6 * 250, place // 6 * 250))
        sheet.save(options.sheet)
    began = time.monotonic()
    tokenizer = ImageTokenizer.from_pretrained("describe-photo")
    default = VisualQA(options.llm, tokenizer, progress=False).fit(*packaged_examples())
    greedy = VisualQA(default.llm_, tokenizer, scoring="greedy", progress=False).fit(*packaged_examples())
    words = [found for found in tokenizer.encode([case.picture for case in drawn], 60) if isinstance(found, ImageWords)]
    bare = [one.only({name: range(count) for name, count in one.parts}, text=()) for one in words]
    questions = [case.question for case in drawn]
    read = default.answers(words, questions)
    rows: dict[str, list[str]] = {
        "read": [answer.text for answer in read],
        "not offered": [answer.text for answer in default.answers(bare, questions)],
        "greedy": [answer.text for answer in greedy.answers(words, questions)],
    }
    plain: dict[str, Callable[[tuple[str, ...]], str]] = {
        "all": " ".join,
        "first": lambda strings: strings[0],
        "longest": lambda strings: max(strings, key=len),
    }
    for name, choose in plain.items():
        rows[name] = [choose(one.text) if one.text else "" for one in words]
    result: dict[str, Any] = {
        **header(options.seed),
        "llm": str(getattr(default.llm_, "identity", options.llm)),
        "seconds": round(time.monotonic() - began, 1),
        "pictures": [
            {"kind": case.kind, "question": case.question, "answer": case.answer, "strings": list(one.text)}
            | {"method": found.method, "probability": found.probability}
            | {name: texts[place] for name, texts in rows.items()}
            for place, (case, one, found) in enumerate(zip(drawn, words, read, strict=True))
        ],
        "rows": {},
    }
    for name, texts in rows.items():
        right = [exact_answer(text, [case.answer]) for text, case in zip(texts, drawn, strict=True)]
        kinds = {case.kind for case in drawn}
        result["rows"][name] = {
            **Accuracy.of(right, "exact after normalisation").to_dict(),
            "by_kind": {
                kind: sum(hit for hit, case in zip(right, drawn, strict=True) if case.kind == kind)
                for kind in sorted(kinds)
            },
        }
        print(f"{name:<12}", result["rows"][name])
    if options.out is not None:
        write(options.out, result)


if __name__ == "__main__":
    main()
