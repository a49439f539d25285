"""Pictures of digits changed through words: seen, changed by an LLM, drawn by words (SPAE) and by diffusion.

    python benchmarks/edit_loop.py --llm local --parts DIR --n 30 --out FILE.json

Pictures come from the packaged digits; the first five of each digit are examples, the others are changed. What is seen
comes from SPAE's words of a picture, which the LLM classifies; the LLM changes that ("make it five", "add one", "the
same again"); its words are drawn by the LLM through SPAE's words, and by the diffusion model (--parts; left out
without).
What survives is measured after each step, by the truth of the step before it and by that of the picture; where the
picture should stay, also how like it the new one is (SSIM), beside another picture of the same digit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision import FewShotClassifier, ImageGenerator
from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.evaluation.kit.image_metrics import ssim
from icl_vision.evaluation.kit.metrics import Accuracy, RunningMean
from icl_vision.images import load_image
from icl_vision.llms import connect
from icl_vision.tasks.draw.examples import DIGITS, TEXT, read_examples
from icl_vision.tasks.editing import PictureLoop

WORDS = "zero one two three four five six seven eight nine".split()
EXAMPLES = 5
TOKENIZER = "spae-digits-32"


def changes(digit: int, number: int) -> list[tuple[str, int]]:
    """What is to change of a picture, with the digit that it then shows."""
    other = (digit + 1 + number % 9) % 10
    wanted = [(f"make it {WORDS[other]}", other), ("the same again", digit)]
    return [*wanted, ("add one", digit + 1)] if digit < 9 else wanted


def pixels(image: Image.Image) -> Any:
    """uint8 [32, 32, 1]: a 28 x 28 digit is framed as drawings are."""
    grey = np.asarray(image.convert("L"))
    margin = (32 - grey.shape[0]) // 2
    return np.pad(grey, margin)[..., None] if margin > 0 else grey[..., None]


def digit_of(text: str | None) -> int | None:
    """The digit that a text names, by a numeral or a word."""
    words = (text or "").lower().replace(".", " ").split()
    named = [int(word) if word.isdigit() else WORDS.index(word) for word in words if word.isdigit() or word in WORDS]
    return named[-1] if named and named[-1] < 10 else None


def likeness(images: Sequence[Image.Image | None], sources: Sequence[Image.Image]) -> dict[str, Any] | None:
    """Mean SSIM of pictures to what they came from."""
    mean = RunningMean()
    for image, source in zip(images, sources, strict=True):
        if image is not None:
            mean.add(float(ssim(pixels(source)[None], pixels(image)[None])[0]))
    return mean.to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="local", help="the LLM that sees, changes and draws through words")
    parser.add_argument("--parts", help="trained parts of text to image; without, nothing is drawn by diffusion")
    parser.add_argument("--n", type=int, default=30, help="pictures, at most 50")
    parser.add_argument("--no-words", action="store_true", help="leave out drawing through words, which takes longest")
    parser.add_argument("--sheet", help="a .png file for the pictures, side by side")
    parser.add_argument("--out", required=True, help="where the figures go")
    options = parser.parse_args()
    began = time.monotonic()
    llm, reader = connect(options.llm), DigitReader(threads=1)
    examples = read_examples(DIGITS)
    by_digit = {digit: [one for one in examples if one.text == TEXT.replace("{}", str(digit))] for digit in range(10)}
    support = [(load_image(one.path), one.text) for own in by_digit.values() for one in own[:EXAMPLES]]
    rest = [(digit, load_image(one.path)) for place in range(EXAMPLES, 10) for digit, own in by_digit.items()
            for one in own[place : place + 1]][: options.n]  # fmt: skip
    classifier = FewShotClassifier(llm, TOKENIZER).fit([image for image, _ in support], [text for _, text in support])
    drawers: dict[str, Any] = {}
    if not options.no_words:
        generator = ImageGenerator(llm, TOKENIZER, errors="return").fit(
            [image for image, _ in support], [text for _, text in support]
        )
        kept: dict[str, Image.Image | None] = {}

        def by_words(texts: Sequence[str]) -> list[Image.Image | None]:
            missing = [text for text in texts if text not in kept]
            for text, drawn in zip(missing, generator.generate(missing) if missing else [], strict=True):
                kept[text] = drawn.image if drawn.error is None else None
            return [kept[text] for text in texts]

        drawers["words"] = by_words
    if options.parts:
        from icl_vision.text_to_image import LLMTextToImage

        drawers["diffusion"] = LLMTextToImage.from_pretrained(options.parts).draw
    if not drawers:
        parser.error("nothing draws: give --parts, or leave out --no-words")
    labels = classifier.predict([image for _, image in rest])
    seen = {id(image): str(label or "an image") for (_, image), label in zip(rest, labels, strict=True)}
    loop = PictureLoop(llm, lambda pictures: [seen[id(picture)] for picture in pictures], drawers)

    trips = [(digit, image, change, after) for number, (digit, image) in enumerate(rest)
             for change, after in changes(digit, number)]  # fmt: skip
    edited = loop.edit([image for _, image, _, _ in trips], [change for _, _, change, _ in trips])
    results: dict[str, Any] = {
        "seen": Accuracy.of((digit_of(seen[id(image)]) == digit for digit, image in rest), "classified").to_dict(),
        "changes": {},
    }
    lines: list[list[Image.Image | None]] = []
    for kind in ("make it", "the same again", "add one"):
        own = [(trip, one) for trip, one in zip(trips, edited, strict=True) if trip[2].startswith(kind)]
        saw = [digit_of(one.seen) == trip[0] for trip, one in own]
        row: dict[str, Any] = {
            "n": len(own),
            "said": Accuracy.of((digit_of(one.said) == trip[3] for trip, one in own), "the picture's truth").to_dict(),
            "said_where_seen_right": Accuracy.of(
                (digit_of(one.said) == trip[3] for (trip, one), right in zip(own, saw, strict=True) if right),
                "the picture's truth",
            ).to_dict(),
            "drawn": {},
        }
        for name in drawers:
            pictures = [one.pictures[name] for _, one in own]
            read = iter(reader.read([picture for picture in pictures if picture is not None]))
            told = [None if picture is None else int(next(read)) for picture in pictures]
            said = [digit_of(one.said) for _, one in own]
            row["drawn"][name] = {
                "as_wanted": Accuracy.of(
                    (got == trip[3] for got, (trip, _) in zip(told, own, strict=True)), reader.name
                ).to_dict(),
                "as_said": Accuracy.of(
                    (got == word for got, word in zip(told, said, strict=True) if word is not None), reader.name
                ).to_dict(),
                "missing": sum(picture is None for picture in pictures),
            }
            if kind == "the same again":
                row["drawn"][name]["ssim_to_source"] = likeness(pictures, [trip[1] for trip, _ in own])
        if kind == "the same again":
            others = [load_image(by_digit[trip[0]][0].path) for trip, _ in own]
            row["ssim_of_another_picture_of_the_digit"] = likeness(others, [trip[1] for trip, _ in own])
        results["changes"][kind] = row
        lines += [[trip[1], *(one.pictures[name] for name in drawers)] for trip, one in own[:10]]
    document = {
        **header(),
        "llm": options.llm,
        "parts": None if options.parts is None else Path(options.parts).name,
        "pictures": len(rest),
        **results,
        "seconds": time.monotonic() - began,
    }
    write(options.out, document)
    print(json.dumps(results, indent=1))
    if options.sheet:
        sheet = Image.new("L", (34 * len(lines), 34 * (1 + len(drawers))))
        for column, line in enumerate(lines):
            for place, picture in enumerate(line):
                if picture is not None:
                    sheet.paste(Image.fromarray(pixels(picture)[..., 0]), (34 * column + 1, 34 * place + 1))
        sheet.save(options.sheet)


if __name__ == "__main__":
    main()
