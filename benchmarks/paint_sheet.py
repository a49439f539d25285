"""A sheet of digits that a diffusion model drew, the failures among them framed, with what the judge reads.

    python benchmarks/paint_sheet.py --out FILE.png

Ten words of each language in templates that training does not have, from seeds that nobody chose (0, 1, 2 ...); the
packaged parts, or --parts. A column a digit; what the packaged reader reads wrongly is framed, and says what was read.
"""

from __future__ import annotations

import argparse
import sys

import torch
from PIL import Image, ImageDraw

from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.text_to_image.captions import UNSEEN, WORDS
from icl_vision.text_to_image.pipeline import LLMTextToImage

CELL, LEFT, HEAD = 72, 64, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help="trained parts; default: those that `paint` takes")
    parser.add_argument("--language", action="append", help="of the number words; default: en and id")
    parser.add_argument("--rows", type=int, default=3, help="drawings of each word")
    parser.add_argument("--onnx", action="store_true", help="compute the denoiser with onnxruntime")
    parser.add_argument("--out", required=True, help="a .png file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    system = LLMTextToImage.from_pretrained(options.parts, denoiser="onnx" if options.onnx else "torch")
    reader = DigitReader(threads=1)
    languages = options.language or ["en", "id"]
    sheet = Image.new("RGB", (LEFT + 10 * CELL, HEAD + CELL * options.rows * len(languages)), "white")
    pen = ImageDraw.Draw(sheet)
    for digit in range(10):
        pen.text((LEFT + digit * CELL + CELL // 2 - 3, 2), str(digit), fill=0)
    for place, language in enumerate(languages):
        texts = [
            UNSEEN[(row * 10 + digit) % len(UNSEEN)].format(word)
            for row in range(options.rows)
            for digit, word in enumerate(WORDS[language])
        ]
        images = system.draw(texts, seed=0)
        read = [int(one) for one in reader.read(images)]
        wrong = [number for number, said in enumerate(read) if said != number % 10]
        print(f"{language}: {len(texts) - len(wrong)} of {len(texts)} read right; wrong:", file=sys.stderr)
        for number in wrong:
            print(f"  {texts[number]!r} seed {number}: read {read[number]}", file=sys.stderr)
        for number, image in enumerate(images):
            across = LEFT + number % 10 * CELL
            down = HEAD + (place * options.rows + number // 10) * CELL
            big = image.resize((CELL - 8, CELL - 8), resample=Image.Resampling.NEAREST)
            if number in wrong:
                pen.rectangle((across, down, across + CELL - 1, down + CELL - 1), fill=(220, 60, 40))
            sheet.paste(big, (across + 4, down + 4))
            if number in wrong:
                pen.text((across + 7, down + 5), f"read {read[number]}", fill=(255, 170, 150))
        pen.text((4, HEAD + place * options.rows * CELL + CELL * options.rows // 2 - 6), language, fill=0)
    sheet.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
