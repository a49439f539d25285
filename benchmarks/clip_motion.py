"""Which way a digit moves (4-way 5-shot): words of a clip, with and without an LLM, beside the middle frame's words.

    python benchmarks/clip_motion.py mnist.npz --tokenizer spae-clips-64 --layers 2 3 4 --out clip_motion.json

Clips run straight, and their middle frame says nothing of the direction, so words of the middle frame are at chance
(25%). Rows: for each layer of the clip tokenizer its words place by place (no LLM), and one layer read by an LLM
(--llm); for an image tokenizer the middle frame's words, place by place. Controls: the queries played backwards, and
with their frames in random order. Digits are MNIST's test digits; no digit of a query stands in its support.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write
from PIL import Image

from icl_vision import FewShotClassifier, ImageTokenizer
from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.evaluation.clips.motion import CONTROLS, OPPOSITE, MotionEpisode, by_places, motion_episode
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.one_layer import OneLayer


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("--tokenizer", default="spae-clips-64", help="of clips")
    parser.add_argument("--layers", type=int, nargs="*", default=[1, 2, 3, 4], help="layers read place by place")
    parser.add_argument("--image", default="spae-photo-128", help="image tokenizer, for the middle frame")
    parser.add_argument("--llm", default=None, help="asked too; default: none")
    parser.add_argument("--llm-layer", type=int, default=3, help="the layer it reads (default 3)")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--each", type=int, default=10, help="queries of each direction and episode (default 10)")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), default=list(CONTROLS), help="default: all")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    row = MovingDigits.from_npz(options.digits, part="test", way="straight")
    episodes = [motion_episode(row, options.shots, options.each, 10_000 * n) for n in range(options.episodes)]
    clips = ImageTokenizer.from_pretrained(options.tokenizer)
    image = ImageTokenizer.from_pretrained(options.image)
    rows: list[dict[str, Any]] = []
    for control in options.controls:
        found: dict[str, list[tuple[str, str]]] = {}
        for episode in episodes:
            queries = [CONTROLS[control](clip, number) for number, (clip, _) in enumerate(episode.queries)]
            for name, said in answers(episode, queries, clips, image, options).items():
                truth = [label for _, label in episode.queries]
                found.setdefault(name, []).extend(zip(said, truth, strict=True))
        for name, pairs in found.items():
            one = summed(name, control, pairs)
            low, high = one["right"]["interval"]
            print(
                f"{name:<52}{control:<24}{one['right']['accuracy']:.1%} [{low:.1%}, {high:.1%}], the opposite "
                f"{one['opposite']['accuracy']:.1%}, n = {one['right']['n']}",
                flush=True,
            )
            rows.append(one)
        # After each: an LLM takes its time, and what was asked is not lost.
        document = {"tokenizer": clips.name, "shots": options.shots, "llm": options.llm, "rows": rows}
        write(options.out, {**header(0), **document})
    return 0


def answers(
    episode: MotionEpisode, queries: list[Any], clips: Any, image: Any, options: argparse.Namespace
) -> dict[str, list[str]]:
    """What each row says of the queries."""
    labels = [label for _, label in episode.support]
    shown = [clip for clip, _ in episode.support]
    said: dict[str, list[str]] = {}
    support, asked = (clips.encode(some) for some in (shown, queries))
    for layer in options.layers:
        known, wanted = ([layer_of(pyramid, layer) for pyramid in some] for some in (support, asked))
        name = f"{clips.name} layer {layer} ({known[0].layout}), place by place"
        said[name] = by_places(known, labels, wanted, clips.codebook)
    middles = [[Image.fromarray(clip[len(clip) // 2]) for clip in some] for some in (shown, queries)]
    k = image.layout.cumulative[:4][-1]  # four layers, or as many as there are
    support, asked = (image.encode(some, k) for some in middles)
    said[f"{image.name} on the middle frame, place by place"] = by_places(support, labels, asked, image.codebook)
    if options.llm is not None:
        layer = OneLayer(clips, options.llm_layer)
        classifier = FewShotClassifier(options.llm, layer, None, errors="raise")
        classifier.fit([np.asarray(clip) for clip in shown], labels)
        said[f"{options.llm} reads layer {options.llm_layer}"] = [str(label) for label in classifier.predict(queries)]
    return said


def layer_of(pyramid: TokenPyramid, layer: int) -> TokenPyramid:
    """One layer of words, as ``OneLayer`` gives it."""
    return TokenPyramid(
        (pyramid.ids[layer - 1],), PyramidLayout((pyramid.layout.grids[layer - 1],)), pyramid.vocabulary
    )


def summed(name: str, control: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Right answers, and answers of the opposite direction."""
    right = Accuracy.of((said == truth for said, truth in pairs), "exact")
    opposite = Accuracy.of((said == OPPOSITE[truth] for said, truth in pairs), "exact")
    return {"row": name, "control": control, "right": right.to_dict(), "opposite": opposite.to_dict()}


if __name__ == "__main__":
    sys.exit(main())
