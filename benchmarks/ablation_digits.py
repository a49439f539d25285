"""Table 4 of the SPAE paper at the scale of digits: train every ablation-* configuration alike, measure all alike.

    python benchmarks/ablation_digits.py --data mnist.npz --out FILE.json [--steps 1000] [--only vq-frozen ...]

Same data, seed, steps and batch; about a minute a configuration on one core. For each number of layers: PSNR, how
many digits a reader names rightly, and 5-way 1-shot accuracy of the words prototype on the words of these layers (no
LLM: what the words say of the digit); for each layer: how well its words name the digit (guidance, min-max normalised
similarity of the digit's name) and how many words are used. Trainings lie beside FILE and are not repeated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import _common
import numpy as np
import torch
from PIL import Image

from icl_vision.codebook import Codebook
from icl_vision.evaluation.few_shot.baselines import nearest_prototype
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.evaluation.kit.image_metrics import psnr
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.models.losses.guides import LabelGuide
from icl_vision.models.spae import SPAE
from icl_vision.training import load_config, load_model, train

PREFIX = "ablation-"
ROWS = ("vq-learned", "vq-frozen", "vq-semantic", "rq-2", "saq-2", "pyramid", "no-thresholds", "no-dynamic-weight",
        "perceptual")  # fmt: skip
PICTURES, EPISODES, MARGIN = 2000, 400, 2


def trained(row: str, options: argparse.Namespace) -> Path:
    """The run of a configuration, trained now unless it is there."""
    folder = options.out.with_suffix("") / row
    if not (folder / "results.json").is_file():
        config = load_config(PREFIX + row, [f"steps={options.steps}", f"seed={options.seed}"], data=options.data)
        train(config, folder, resume=folder.exists())
    return folder


def measure(model: SPAE, codebook: Codebook, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Everything that is said of one model. images: uint8 [N,32,32]; labels: [N]."""
    grey = torch.from_numpy(images)[:, None].float() / 255
    with torch.inference_mode():
        ids = [
            torch.cat(layer) for layer in zip(*(model.encode_ids(part) for part in torch.split(grey, 250)), strict=True)
        ]
    vectors = model.quantizer.codebook.detach().numpy()
    guide = LabelGuide.load(codebook)
    scores = guide.similarity(grey, labels=torch.from_numpy(labels.astype(np.int64))).numpy()
    scores = (scores - scores.min(1, keepdims=True)) / np.ptp(scores, axis=1, keepdims=True)
    reader, depths, layers = DigitReader(), [], []
    for number, layer in enumerate(ids, start=1):
        flat = layer.flatten(1).numpy()
        layers.append(
            {
                "layer": number,
                "guidance": float(np.take_along_axis(scores, flat, 1).mean()),
                "distinct_words": len(np.unique(flat)),
            }
        )
        with torch.inference_mode():
            parts = zip(*(torch.split(layer, 250) for layer in ids[:number]), strict=True)
            made = torch.cat([model.decode_ids(part) for part in parts])[:, 0].numpy()
        pixels = (made * 255).round().astype(np.uint8)
        read = reader.read([Image.fromarray(picture).convert("RGB") for picture in pixels])
        words = vectors[np.concatenate([layer.flatten(1).numpy() for layer in ids[:number]], 1)].mean(1)
        depths.append(
            {
                "words": int(sum(layer[0].numel() for layer in ids[:number])),
                "psnr": float(psnr(images[..., None], pixels[..., None]).mean()),
                "read": Accuracy.of((a == str(b) for a, b in zip(read, labels, strict=True)), reader.name).to_dict(),
                "words_prototype": prototype(words, labels),
            }
        )
    return {"depths": depths, "layers": layers}


def prototype(vectors: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """5-way 1-shot accuracy on seeded episodes of one query."""
    right = []
    for episode in range(EPISODES):
        draw = Draw("ablation", episode)
        ways = draw.shuffled(range(10))[:5]
        places = {way: draw.shuffled(np.flatnonzero(labels == way).tolist()) for way in ways}
        support = np.stack([vectors[places[way][0]] for way in ways])
        query = vectors[[places[ways[0]][1]]]
        right.append(nearest_prototype(support, [str(way) for way in ways], query)[0] == str(ways[0]))
    return Accuracy.of(right, "nearest prototype").to_dict()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="MNIST as .npz")
    parser.add_argument("--out", type=Path, required=True, help="result file; trainings go into a folder beside it")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each training (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all trainings (default 0)")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="some configurations (default all)")
    options = parser.parse_args()
    with np.load(options.data, allow_pickle=False) as file:
        images, labels = file["x_test"], file["y_test"]
    chosen = np.sort(Draw("ablation pictures", options.seed).shuffled(range(len(images)))[:PICTURES])
    images = np.pad(images[chosen], ((0, 0), (MARGIN,) * 2, (MARGIN,) * 2))
    labels = labels[chosen]
    rows: dict[str, Any] = {}
    print(f"{'row':18} {'words':>5} {'PSNR':>6} {'read':>6} {'5-way 1-shot':>12}  guidance by layer")
    for row in options.only:
        folder = trained(row, options)
        config = load_config(PREFIX + row)
        assert config.codebook is not None  # every row starts from words
        rows[row] = measure(load_model(folder), Codebook.load(config.codebook), images, labels)
        guidance = " ".join(f"{layer['guidance']:.3f}" for layer in rows[row]["layers"])
        for depth in rows[row]["depths"]:
            print(
                f"{row:18} {depth['words']:>5} {depth['psnr']:>6.2f} {depth['read']['accuracy']:>6.1%} "
                f"{depth['words_prototype']['accuracy']:>12.1%}  {guidance}",
                flush=True,
            )
            guidance = ""
        document = _common.header(options.seed) | {
            "steps": options.steps, "pictures": PICTURES, "episodes": EPISODES, "rows": rows,
        }  # fmt: skip
        _common.write(options.out, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
