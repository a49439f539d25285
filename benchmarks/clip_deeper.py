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

from _common import header, write
from _prediction import Prediction

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.sets import read_clips
from icl_vision.evaluation.kit.bootstrap import METHOD
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.puzzles import pixels_of_decoded

NEW = "the LLM's words, the condition's deeper ones"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("run", type=Path, help="run folder of eval denoising")
    parser.add_argument("--tokenizer", default="spae-clips-64")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer, measured = ImageTokenizer.from_pretrained(options.tokenizer), Prediction()
    lines = map(json.loads, (options.run / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    written = next(line["result"] for line in lines if line["id"] == "prediction/llm/rows")["pictures"]
    clips = read_clips(options.digits, frames=tokenizer.frames, limit=len(written))
    for clip in clips:
        shown = measured.task.degrade(clip.frames)
        (held,) = tokenizer.encode([shown])
        upper = tokenizer.from_text(" ".join(written[clip.name]["words"]))
        both = TokenPyramid((*upper.ids, *held.ids[upper.layers :]), held.layout, held.vocabulary)
        alone, deeper, kept = (pixels_of_decoded(tokenizer.decode(words)[0]) for words in (upper, both, held))
        rows = {
            "the last known frame repeated": shown,
            "the LLM's words": alone,
            NEW: deeper,
            "all the condition's words": kept,
        }
        measured.add(rows, clip.frames)
    summed, pairs = measured.means(), measured.pairs(NEW, first=True)
    document = {
        "tokenizer": tokenizer.name,
        "n": len(clips),
        "rows": summed,
        "pairs": pairs,
        "methods": {"interval": METHOD},
    }
    write(options.out, {**header(0), **document})
    print(json.dumps(summed, indent=1))
    print(json.dumps([pair for pair in pairs if pair["metric"] == "lpips"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
