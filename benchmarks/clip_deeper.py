"""Prediction of clips once more, from words an LLM wrote already: its upper layers with the condition's deeper ones.

    python benchmarks/clip_deeper.py mnist.npz RUN --out clip_deeper.json

RUN is a finished row of `icl-vision eval denoising --tasks prediction --refine none` on the same digits. Its upper
words are decoded with the words of the condition's deeper layers: those of the last known frame, held. Nothing is asked
of an LLM, and nothing was chosen by these figures: it is one try, told whatever it gives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.sets import read_clips
from icl_vision.evaluation.kit.bootstrap import METHOD
from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.kit.metrics import RunningMean
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.models.losses.instruments import perceptual
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.clip_tasks import task_for
from icl_vision.tasks.denoise.puzzles import pixels_of_decoded

HIGHER = {"psnr": True, "ssim": True, "lpips": False}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("run", type=Path, help="run folder of eval denoising")
    parser.add_argument("--tokenizer", default="spae-clips-64")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer, task, lpips = (
        ImageTokenizer.from_pretrained(options.tokenizer),
        task_for("prediction", clips=True),
        perceptual(),
    )
    lines = map(json.loads, (options.run / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    written = next(line["result"] for line in lines if line["id"] == "prediction/llm/rows")["pictures"]
    clips = read_clips(options.digits, frames=tokenizer.frames, limit=len(written))
    found: dict[str, dict[str, list[float]]] = {}
    for clip in clips:
        shown = task.degrade(clip.frames)
        (held,) = tokenizer.encode([shown])
        upper = tokenizer.from_text(" ".join(written[clip.name]["words"]))
        both = TokenPyramid((*upper.ids, *held.ids[upper.layers :]), held.layout, held.vocabulary)
        alone, deeper, kept = (pixels_of_decoded(tokenizer.decode(words)[0]) for words in (upper, both, held))
        rows = {
            "the last known frame repeated": shown,
            "the LLM's words": alone,
            "the LLM's words, the condition's deeper ones": deeper,
            "all the condition's words": kept,
        }
        region = task.region(shown.shape)
        truth = clip.frames[region]
        for name, frames in rows.items():
            part = frames[region]
            flat = (1, -1, *truth.shape[2:])
            values = {
                "psnr": float(psnr(truth.reshape(flat), part.reshape(flat))[0]),
                "ssim": float(ssim(truth, part).mean()),
                "lpips": float(np.mean(lpips(truth, part))),
            }
            for metric, value in values.items():
                found.setdefault(name, {}).setdefault(metric, []).append(value)
    means: dict[str, dict[str, object]] = {}
    pairs = []
    new = "the LLM's words, the condition's deeper ones"
    for name, metrics in found.items():
        means[name] = {}
        for metric, values in metrics.items():
            mean = RunningMean()
            for value in values:
                mean.add(value)
            means[name][metric] = mean.to_dict()
            if name != new:
                pair = paired_mean(found[new][metric], values, higher_is_better=HIGHER[metric])
                pairs.append({"metric": metric, "first": new, "second": name, **pair.to_dict()})
    document = {
        "tokenizer": tokenizer.name,
        "n": len(clips),
        "rows": means,
        "pairs": pairs,
        "methods": {"interval": METHOD},
    }
    write(options.out, {**header(0), **document})
    print(json.dumps(means, indent=1))
    print(json.dumps([pair for pair in pairs if pair["metric"] == "lpips"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
