"""Frame prediction without an LLM: what runs on in a straight line from the known half of a clip.

    python benchmarks/clip_extrapolation.py mnist.npz --pretrained TAEF2 --n 24 --out clip_extrapolation.json

Rows, on the unknown half: the last known frame repeated (its own pixels); linear extrapolation of TAEF2's latents of
the last two known frames; all words of a clip tokenizer, those of the unknown half where the words' vectors of the last
two known times come in a straight line, on layers that have two; and all words of the condition. TAEF2 is the folder of
its two weight files. Nothing was chosen by these clips.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from _common import header, write
from _prediction import Frames, Prediction
from clip_key_frames import pixels_of, tensor_of

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.sets import read_clips
from icl_vision.evaluation.denoising.baselines import run_on
from icl_vision.evaluation.kit.bootstrap import METHOD
from icl_vision.models.nets.taef2 import load_taef2
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.puzzles import pixels_of_decoded

FIRST = "the last known frame repeated"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("--pretrained", type=Path, required=True, help="the folder of TAEF2's weight files")
    parser.add_argument("--tokenizer", default="spae-clips-64")
    parser.add_argument("--n", type=int, default=24, help="test clips (default 24)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer, measured = ImageTokenizer.from_pretrained(options.tokenizer), Prediction()
    encoder, decoder = (net.eval() for net in load_taef2(options.pretrained))
    for clip in read_clips(options.digits, frames=tokenizer.frames, limit=options.n):
        shown = measured.task.degrade(clip.frames)
        known = len(shown) // 2
        (held,) = tokenizer.encode([shown])
        rows = {
            FIRST: shown,
            "TAEF2's latents, run on": latents_run_on(shown, known, encoder, decoder),
            "all words, their vectors run on": pixels_of_decoded(tokenizer.decode(words_run_on(held, tokenizer))[0]),
            "all the condition's words": pixels_of_decoded(tokenizer.decode(held)[0]),
        }
        measured.add(rows, clip.frames)
    summed, pairs = measured.means(), measured.pairs(FIRST, first=False)
    document = {
        "tokenizer": tokenizer.name,
        "n": options.n,
        "rows": summed,
        "pairs": pairs,
        "methods": {"interval": METHOD},
    }
    write(options.out, {**header(0), **document})
    for name, values_by in summed.items():
        print(name, {metric: round(value["mean"], 3) for metric, value in values_by.items()})
    return 0


def latents_run_on(shown: Frames, known: int, encoder: torch.nn.Module, decoder: torch.nn.Module) -> Frames:
    """The known frames, then those whose latents lie on the line through the last two known frames'."""
    with torch.inference_mode():
        before, now = encoder(tensor_of(shown[known - 2 : known]))
        ahead = torch.arange(1, len(shown) - known + 1).view(-1, 1, 1, 1)
        made = decoder(now + ahead * (now - before)).clamp(0, 1)
    return np.concatenate([shown[:known], pixels_of(made)])


def words_run_on(held: TokenPyramid, tokenizer: ImageTokenizer) -> TokenPyramid:
    """The condition's words; in the second half of a layer's times the words nearest to where the vectors of the last
    two known times come in a straight line. A layer with fewer known times stays as it is."""
    codebook = tokenizer.codebook
    assert codebook is not None  # of the packaged one
    table = codebook / np.maximum(np.linalg.norm(codebook, axis=1, keepdims=True), 1e-12)
    known = [len(ids) // 2 for ids in held.ids]
    layers = tuple(run_on(ids, some, table) if some >= 2 else ids for ids, some in zip(held.ids, known, strict=True))
    return TokenPyramid(layers, held.layout, held.vocabulary)


if __name__ == "__main__":
    sys.exit(main())
