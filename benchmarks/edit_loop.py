"""Pictures of digits changed through words: seen, changed by an LLM, drawn by words (SPAE) and by diffusion.

    python benchmarks/edit_loop.py --llm local --parts DIR --n 50 --out FILE.json --sheet FILE.png

Pictures come from the packaged digits; the first five of each digit are examples, the others are changed. What is seen
comes from SPAE's words of a picture, which the LLM classifies; the LLM changes that ("make it five", "add one", "the
same again"); its words are drawn by the LLM through SPAE's words, and by the diffusion model (--parts; left out
without).
What survives is measured after each step, by the truth of the step before it and by that of the picture; where the
picture should stay, also how like it the new one is (LPIPS at 64 x 64, and SSIM), beside another picture of the same
digit. Beside the loop: the source as it is, and the instruction alone (the diffusion model draws "make it five", no
picture is seen and no LLM asked). Equal words are drawn once: a drawer's n pictures are about ten different ones.
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
from PIL import Image, ImageDraw

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
from icl_vision.wording import counted

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


def framed(image: Image.Image) -> Image.Image:
    """The same as the reader takes it: 32 x 32, RGB."""
    return Image.fromarray(pixels(image)[..., 0]).convert("RGB")


def digit_of(text: str | None) -> int | None:
    """The digit that a text names, by a numeral or a word."""
    words = (text or "").lower().replace(".", " ").split()
    named = [int(word) if word.isdigit() else WORDS.index(word) for word in words if word.isdigit() or word in WORDS]
    return named[-1] if named and named[-1] < 10 else None


def likeness(images: Sequence[Image.Image | None], sources: Sequence[Image.Image], perceptual: Any) -> dict[str, Any]:
    """Mean LPIPS and SSIM of pictures to what they came from."""
    pairs = [
        (pixels(image), pixels(source)) for image, source in zip(images, sources, strict=True) if image is not None
    ]
    lpips, alike = RunningMean(), RunningMean()
    for image, source in pairs:
        alike.add(float(ssim(source[None], image[None])[0]))
        if perceptual is not None:
            # AlexNet sees little in 32 pixels; two by two for one says nothing new, and is seen.
            big = [np.repeat(np.repeat(one, 2, 0), 2, 1)[None].repeat(3, -1) for one in (source, image)]
            lpips.add(float(perceptual(*big)[0]))
    return {"ssim": alike.to_dict(), "lpips": None if perceptual is None else lpips.to_dict()}


def measure_of(perceptual_wanted: bool) -> Any:
    """LPIPS, or None where its weights are not installed."""
    if not perceptual_wanted:
        return None
    from icl_vision.errors import IclVisionError

    try:
        from icl_vision.models.losses.instruments import perceptual

        return perceptual()
    except (IclVisionError, ModuleNotFoundError) as error:
        print(f"LPIPS is left out: {error}", file=sys.stderr)
        return None


def sheet_of(columns: Sequence[tuple[str, Sequence[Image.Image | None]]], names: Sequence[str]) -> Image.Image:
    """Pictures one below another, what was to change above them; a gap where there is none."""
    cell, head, left = 64, 14, 74
    sheet = Image.new("L", (left + (cell + 6) * len(columns), head + (cell + 4) * len(names)), 255)
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        pen.text((2, head + row * (cell + 4) + cell // 2 - 6), name, fill=0)
    for column, (text, pictures) in enumerate(columns):
        across = left + column * (cell + 6)
        pen.text((across, 1), text, fill=0)
        for row, picture in enumerate(pictures):
            if picture is not None:
                grey = Image.fromarray(pixels(picture)[..., 0]).resize((cell, cell), resample=Image.Resampling.NEAREST)
                sheet.paste(grey, (across, head + row * (cell + 4)))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--llm", default="local", help="sees, changes and draws through words: a name that connect takes, or smollm2"
    )
    parser.add_argument("--parts", help="trained parts of text to image, or packaged; without, no diffusion")
    parser.add_argument("--n", type=int, default=30, help="pictures, at most 50")
    parser.add_argument("--no-lpips", action="store_true", help="leave LPIPS out (extra train)")
    parser.add_argument("--no-words", action="store_true", help="leave out drawing through words, which takes longest")
    parser.add_argument("--sheet", help="a .png file for the pictures, side by side")
    parser.add_argument("--out", required=True, help="where the figures go")
    options = parser.parse_args()
    began = time.monotonic()
    llm, reader = connect(_spec(options.llm)), DigitReader(threads=1)
    perceptual = measure_of(not options.no_lpips)
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

        system = LLMTextToImage.from_pretrained(None if options.parts == "packaged" else options.parts)

        def by_diffusion(texts: Sequence[str]) -> list[Image.Image]:
            return system.draw(list(texts), seed=1)

        drawers["diffusion"] = by_diffusion
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
    lines: list[tuple[str, list[Image.Image | None]]] = []
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
            read = iter(reader.read([framed(picture) for picture in pictures if picture is not None]))
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
                row["drawn"][name]["to_source"] = likeness(pictures, [trip[1] for trip, _ in own], perceptual)
        if kind == "the same again":
            others = [load_image(by_digit[trip[0]][0].path) for trip, _ in own]
            row["another_picture_of_the_digit"] = likeness(others, [trip[1] for trip, _ in own], perceptual)
        read_sources = reader.read([framed(trip[1]) for trip, _ in own])
        row["source_unchanged"] = Accuracy.of(
            (int(got) == trip[3] for got, (trip, _) in zip(read_sources, own, strict=True)), reader.name
        ).to_dict()
        if "diffusion" in drawers:
            wordings = list(dict.fromkeys(trip[2] for trip, _ in own))
            by_wording = dict(zip(wordings, drawers["diffusion"](wordings), strict=True))
            alone = [by_wording[trip[2]] for trip, _ in own]
            row["instruction_alone"] = Accuracy.of(
                (
                    int(got) == trip[3]
                    for got, (trip, _) in zip(reader.read([framed(one) for one in alone]), own, strict=True)
                ),
                reader.name,
            ).to_dict()
        results["changes"][kind] = row
        lines += [(trip[2], [trip[1], *(one.pictures[name] for name in drawers)]) for trip, one in own[:5]]
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
        sheet_of(lines, ["source", *drawers]).save(options.sheet)
    print(f"{counted(len(trips), 'trip')} in {time.monotonic() - began:.0f} s")


def _spec(name: str) -> str:
    """smollm2 is an installed package's GGUF file."""
    if name != "smollm2":
        return name
    from icl_vision.text_to_image.llm_folders import smollm2_file

    return f"local:{smollm2_file()}"


if __name__ == "__main__":
    main()
