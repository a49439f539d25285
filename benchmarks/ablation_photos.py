"""Rows of Table 4 of the SPAE paper on small photographs: who draws better, with and without the perceptual loss.

    python benchmarks/ablation_photos.py --data PHOTOS --test OTHER-PHOTOS --out FILE.json [--steps 300]

32 x 32 pixels, the packaged 14,210 words, grids 1, 2, 4, 8, 8 (or 8, 8; or 8), same data, seed, steps and batch; a
minute or two a row on one core. Without guide: what words mean on photographs takes a network over every picture of
every step. On pictures that were not trained on: PSNR, LPIPS and a FID-like distance (EfficientNet-Lite0 features).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import _common
import numpy as np
import torch

from icl_vision.evaluation.kit.image_metrics import psnr
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.images import load_image
from icl_vision.models.losses.instruments import SetDistance, perceptual
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.training import load_config, load_model, train

SIDE, BATCH, PICTURES = 32, 32, 256
COMMON = ("model.channels=3", "model.names=0", "model.word_noise=0", "codebook=portable-minilm-128", "guide.kind=none",
          "loss.semantic=0", "depth.weights=null", "depth.mode=full", f"batch={BATCH}", "data.flip=true")  # fmt: skip
ROWS: dict[str, tuple[str, ...]] = {
    "vq-learned": ("model.quantizer=vq", "model.grids=[8]", "model.learned=true"),
    "vq-frozen": ("model.quantizer=vq", "model.grids=[8]"),
    "rq-2": ("model.quantizer=rq", "model.grids=[8, 8]"),
    "saq-2": ("model.quantizer=saq", "model.grids=[8, 8]"),
    "pyramid": ("model.grids=[1, 2, 4, 8, 8]",),
    "pyramid-perceptual": ("model.grids=[1, 2, 4, 8, 8]", "loss.perceptual=0.1"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="photographs to train on: a folder or a .tar")
    parser.add_argument("--test", type=Path, required=True, help="a folder of other photographs to measure on")
    parser.add_argument("--out", type=Path, required=True, help="result file; trainings go into a folder beside it")
    parser.add_argument("--steps", type=int, default=300, help="steps of each training (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all trainings (default 0)")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=tuple(ROWS), help="some rows (default all)")
    options = parser.parse_args()
    square = Preprocessing(SIDE, "crop", "bilinear", short=SIDE)
    pictures = list_pictures(options.test, limit=PICTURES, seed=options.seed)
    truth = square.batch([load_image(picture.image) for picture in pictures])
    images = torch.from_numpy(truth).permute(0, 3, 1, 2).float() / 255
    distance, lpips = SetDistance(), perceptual()
    real = distance.gather([truth])
    rows: dict[str, Any] = {}
    print(f"{'row':20} {'words':>5} {'PSNR':>6} {'LPIPS':>6}  {distance.name}")
    for row in options.only:
        folder = options.out.with_suffix("") / row
        changes = [*COMMON, *ROWS[row], f"steps={options.steps}", f"seed={options.seed}"]
        if not (folder / "results.json").is_file():
            train(load_config("spae-digits-32", changes, data=options.data), folder, resume=folder.exists())
        model = load_model(folder)
        with torch.inference_mode():
            made = torch.cat([model.decode_ids(model.encode_ids(part)) for part in torch.split(images, 32)])
        pixels = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        rows[row] = {
            "words": model.layout.cumulative[-1],
            "psnr": float(psnr(truth, pixels).mean()),
            "lpips": float(np.mean(lpips(truth, pixels))),
            "frechet": distance.distance(real, distance.gather([pixels])),
        }
        found = rows[row]
        print(f"{row:20} {found['words']:>5} {found['psnr']:>6.2f} {found['lpips']:>6.3f}  {found['frechet']:.1f}",
              flush=True)  # fmt: skip
        document = _common.header(options.seed) | {
            "steps": options.steps, "pictures": len(truth), "frechet": distance.name, "rows": rows,
        }  # fmt: skip
        _common.write(options.out, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
