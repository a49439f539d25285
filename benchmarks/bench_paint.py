"""How long drawing takes with the denoiser through onnxruntime, beside torch, and whether the pictures are the same.

    python benchmarks/bench_paint.py --out FILE.json

The packaged parts (or --parts) draw the same digits from the same seeds with both, in turns, so that whatever else the
machine does falls on both alike; times are of the denoiser and sampler alone (the LLM has read the texts before), and
the ratio is the median of the ratios of the turns. Pictures are compared pixel by pixel, and read by the packaged digit
reader.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.text_to_image.onnx_denoiser import OnnxDenoiser, onnx_graph
from icl_vision.text_to_image.pipeline import LLMTextToImage

WORDS = "zero one two three four five six seven eight nine".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help="trained parts; default: those that `paint` takes")
    parser.add_argument("--turns", type=int, default=7, help="times that each draws each batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", required=True, help="where the figures go")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    system = LLMTextToImage.from_pretrained(options.parts)
    began = time.perf_counter()
    path = onnx_graph(system.parts)
    made = time.perf_counter() - began
    nets = {
        "torch": system.pipeline.unet,
        "onnx": OnnxDenoiser(path, system.pipeline.unet.config, threads=options.threads),
    }
    texts = [f"a drawing of {word}" for word in WORDS]
    states = system.states(texts)
    rows: list[dict[str, Any]] = []
    for size in (1, 10):
        seconds: dict[str, list[float]] = {name: [] for name in nets}
        for turn in range(options.turns + 1):
            for name in sorted(nets, reverse=bool(turn % 2)):
                system.pipeline.unet = nets[name]
                began = time.perf_counter()
                system.draw_states(states[:size], system.mapper.null, seed=turn)
                if turn:  # the first warms up
                    seconds[name].append(time.perf_counter() - began)
        ratios = [a / b for a, b in zip(seconds["torch"], seconds["onnx"], strict=True)]
        rows.append(
            {
                "pictures": size,
                "steps": system.steps,
                "guidance": system.guidance,
                **{f"{name}_seconds": median(values) for name, values in seconds.items()},
                "torch_over_onnx": median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
        )
        print(rows[-1], flush=True)
    drawn = {}
    for name, net in nets.items():
        system.pipeline.unet = net
        drawn[name] = [
            image for seed in range(3) for image in system.draw_states(states, system.mapper.null, seed=seed)
        ]
    differences = np.array(
        [
            np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max()
            for a, b in zip(*drawn.values(), strict=True)
        ]
    )
    reader = DigitReader(threads=1)
    read = {name: [int(digit) for digit in reader.read(images)] for name, images in drawn.items()}
    shown = [number % 10 for number in range(len(read["torch"]))]
    document = {
        **header(0),
        "parts": system.parts.card["name"],
        "threads": options.threads,
        "turns": options.turns,
        "graph": {"bytes": path.stat().st_size, "seconds_to_make_or_find": made},
        "rows": rows,
        "pictures": {
            "n": len(differences),
            "largest_difference_of_a_pixel": int(differences.max()),
            "identical": int((differences == 0).sum()),
            **{
                f"read_right_{name}": Accuracy.of(
                    (a == b for a, b in zip(found, shown, strict=True)), reader.name
                ).to_dict()
                for name, found in read.items()
            },
        },
    }
    print(document["graph"], document["pictures"])
    write(options.out, document)


if __name__ == "__main__":
    main()
