"""Milliseconds an image for reading the text in it (extra ``ocr``), and what the first use costs.

    python benchmarks/bench_reading.py --out benchmarks/results/reading.json

Knows: packaged photographs at several sizes, with and without a sign drawn into them. Refuses to know: how well text is
read.

Photographs have no text in nearly all cases, so the rows "photograph" are what reading costs a user; "with a sign" adds
a rectangle with three words, which are recognised too. One image at a time, as the engine reads them; medians over
images and rounds, of wall time and of CPU time (all threads together), which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _common import header, write

SIZES = (224, 640, 1280)
SIDES = (480, 640, 960)


def photographs(count: int) -> list[Any]:
    """Packaged photographs, spread over their classes."""
    import icl_vision
    from icl_vision.images import list_images, load_image

    paths = list_images(Path(icl_vision.__file__).parent / "demo_data")
    return [load_image(paths[place * len(paths) // count]) for place in range(count)]


def scaled(image: Any, side: int) -> Any:
    """With ``side`` pixels on its longer side."""
    ratio = side / max(image.size)
    return image.resize((round(image.width * ratio), round(image.height * ratio)))


def with_sign(image: Any) -> Any:
    """The image with a sign of three words in its upper left."""
    from PIL import ImageDraw, ImageFont

    image = image.copy()
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(image.width / 14)
    box = draw.textbbox((image.width * 0.1, image.height * 0.1), "FRESH BREAD DAILY", font=font)
    draw.rectangle((box[0] - 6, box[1] - 6, box[2] + 6, box[3] + 6), fill=(245, 245, 240))
    draw.text((image.width * 0.1, image.height * 0.1), "FRESH BREAD DAILY", fill=(140, 20, 20), font=font)
    return image


def first_use() -> dict[str, float]:
    """Seconds of ``import rapidocr``'s main class, and of the first image after that, each in a new process."""
    code = (
        "import time, numpy, onnxruntime, PIL.Image\nfrom icl_vision.tokenizers.describe.reading import RapidReader\n"
        "start = time.perf_counter()\nfrom rapidocr import RapidOCR\nimported = time.perf_counter()\n"
        "RapidReader().read([PIL.Image.new('RGB', (640, 480))])\n"
        "print(imported - start, time.perf_counter() - imported)"
    )
    runs = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append([float(number) for number in done.stdout.split()])
    imports, firsts = zip(*runs, strict=True)
    return {
        "import_seconds": round(statistics.median(imports), 2),
        "first_image_seconds": round(statistics.median(firsts), 2),
    }


def measure(reader: Any, images: list[Any], rounds: int) -> dict[str, Any]:
    reader.read(images[:1])
    times, busy, strings = [], [], 0
    for _ in range(rounds):
        for image in images:
            start, start_busy = time.perf_counter(), time.process_time()
            (found,) = reader.read([image])
            times.append(1000 * (time.perf_counter() - start))
            busy.append(1000 * (time.process_time() - start_busy))
            strings += len(found)
    return {
        "images": len(images),
        "milliseconds": round(statistics.median(times), 1),
        "cpu_milliseconds": round(statistics.median(busy), 1),
        "least": round(min(times), 1),
        "most": round(max(times), 1),
        "strings_an_image": round(strings / len(times), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()

    from icl_vision.tokenizers.describe.reading import RapidReader, can_read

    if not can_read():
        print("needs the extra ocr: pip install 'icl-vision[ocr]'")
        return
    document: dict[str, Any] = {**header(), **first_use(), "rows": []}
    print(f"import {document['import_seconds']:.2f} s, first image {document['first_image_seconds']:.2f} s")
    photos = photographs(options.images)
    for side in SIDES:
        for size in SIZES:
            for kind in ("photograph", "with a sign"):
                images = [scaled(photo, size) for photo in photos]
                if kind != "photograph":
                    images = [with_sign(image) for image in images]
                row = measure(RapidReader(side=side), images, options.rounds)
                document["rows"].append({"side": side, "longest_side_of_image": size, "kind": kind, **row})
                print(f"side {side}, {kind} of {size} px: {row['milliseconds']} ms, CPU {row['cpu_milliseconds']} ms")
    if options.out is not None:
        write(options.out, document)


if __name__ == "__main__":
    main()
