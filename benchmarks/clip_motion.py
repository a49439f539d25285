"""What kind of clip it is (few-shot): words of a clip, with and without an LLM, beside the middle frame's words.

    python benchmarks/clip_motion.py mnist.npz --kind speed --layers 2 3 4 --out clip_speed.json
    python benchmarks/clip_motion.py emoji-clips-64.tar --kind family --out clip_family.json

Kinds: "direction" (4-way), "speed" (3-way; --along right: of clips of one direction), "bounce" (2-way) of moving
digits, and "family" (4-way) of emoji that no tokenizer was trained on. Of the first three the digit's place in the
middle frame says nothing of the answer, by construction; a family is told from any frame. Rows: for each layer of the
clip tokenizer its words place by place and, of layers with several times, how much they change (no LLM); for an image
tokenizer the middle frame's words, place by place; with --llm what an LLM reads from one layer (--llm-layer) or from
the first words of either tokenizer (--llm-words). Controls: the queries played backwards, and with their frames in
random order. Digits are MNIST's test digits; no digit of a query stands in its support.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write
from emoji_families import FAMILIES, family_episodes
from PIL import Image

from icl_vision import FewShotClassifier, ImageTokenizer
from icl_vision.clips.moving_digits import DIRECTIONS, MovingDigits
from icl_vision.evaluation.clips.motion import (
    CONTROLS,
    KINDS,
    OPPOSITE,
    MotionEpisode,
    by_change,
    by_places,
    motion_episode,
    row_of,
)
from icl_vision.evaluation.clips.sets import read_clips
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.one_layer import OneLayer

FAMILY = "family"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="mnist.npz; for families emoji-clips-64.tar")
    parser.add_argument(
        "--kind", choices=[*KINDS, FAMILY], default="direction", help="what is asked (default direction)"
    )
    parser.add_argument("--along", choices=list(DIRECTIONS), default=None, help="speed: clips of this direction only")
    parser.add_argument("--tokenizer", default="spae-clips-64", help="of clips")
    parser.add_argument("--layers", type=int, nargs="*", default=[1, 2, 3, 4, 5], help="layers read place by place")
    parser.add_argument("--image", default="spae-photo-128", help="image tokenizer, for the middle frame")
    parser.add_argument("--llm", default=None, help="asked too; default: none")
    parser.add_argument("--llm-layer", type=int, default=2, help="the layer it reads (default 2, the word of motion)")
    parser.add_argument("--llm-words", type=int, default=None, help="or the first words of clip and of middle frame")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--each", type=int, default=10, help="queries of each answer and episode (default 10)")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), default=list(CONTROLS), help="default: all")
    parser.add_argument("--control-each", type=int, default=None, help="fewer queries of each answer for the controls")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    clips = ImageTokenizer.from_pretrained(options.tokenizer)
    image = ImageTokenizer.from_pretrained(options.image)
    names = tuple(FAMILIES) if options.kind == FAMILY else KINDS[options.kind]
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for episode in episodes_of(options, clips.frames):
        reader = Reader(episode, clips, image, options)
        for control in options.controls:
            # In turn, so that each answer has as many: a row of queries holds one of each.
            few = options.control_each if control != "as they are" else None
            asked = episode.queries[: len(names) * min(few or options.each, options.each)]
            queries = [CONTROLS[control](clip, number) for number, (clip, _) in enumerate(asked)]
            truth = [label for _, label in asked]
            for name, said in reader.answers(queries).items():
                found.setdefault((control, name), []).extend(zip(said, truth, strict=True))
        # After each: an LLM takes its time, and what was asked is not lost.
        rows = [summed(name, control, pairs, options.kind) for (control, name), pairs in found.items()]
        card = {"tokenizer": clips.name, "encoder": clips.card.get("files"), "kind": options.kind, "answers": names}
        document = {**card, "along": options.along, "shots": options.shots, "llm": options.llm, "rows": rows}
        write(options.out, {**header(0), **document})
    for row in sorted(rows, key=lambda row: options.controls.index(row["control"])):
        low, high = row["right"]["interval"]
        print(f"{row['control']:<24}{row['row']:<64}{row['right']['accuracy']:.1%} [{low:.1%}, {high:.1%}]", end="")
        print(f", the opposite {row['opposite']['accuracy']:.1%}" if "opposite" in row else "", end="")
        print(f", n = {row['right']['n']}", flush=True)
    return 0


def episodes_of(options: argparse.Namespace, frames: int) -> list[MotionEpisode]:
    """The episodes that were asked for, the same every time."""
    if options.kind == FAMILY:
        named = {clip.says: clip.frames for clip in read_clips(options.data, frames=frames) if clip.says is not None}
        return family_episodes(named, options.shots, options.each, options.episodes)
    still = MovingDigits.from_npz(options.data, part="test")
    row = row_of(still.images, still.labels, options.kind)
    return [
        motion_episode(row, options.shots, options.each, 20_000 * n, kind=options.kind, along=options.along)
        if options.kind != "direction"
        else motion_episode(row, options.shots, options.each, 10_000 * n)
        for n in range(options.episodes)
    ]


class Reader:
    """What each row says of the queries of one episode, whose support is turned into words once."""

    def __init__(self, episode: MotionEpisode, clips: Any, image: Any, options: argparse.Namespace) -> None:
        self.clips, self.image, self.options = clips, image, options
        self.labels = [label for _, label in episode.support]
        shown = [clip for clip, _ in episode.support]
        self.k = image.layout.cumulative[:4][-1]  # four layers, or as many as there are
        self.known = encoded(clips, shown, None)
        self.known_middles = encoded(image, middles(shown), self.k)
        self.readers: dict[str, tuple[FewShotClassifier, bool]] = {}
        if options.llm is None:
            return
        if options.llm_words is None:
            layer = OneLayer(clips, options.llm_layer)
            some = {f"{options.llm} reads layer {options.llm_layer}": (layer, None, False)}
        else:
            k = options.llm_words
            some = {
                f"{options.llm} reads the first {k} words": (clips, k, False),
                f"{options.llm} reads {k} words of the middle frame, {image.name}": (image, k, True),
            }
        for name, (tokenizer, k, middle) in some.items():
            classifier = FewShotClassifier(options.llm, tokenizer, k, errors="raise")
            classifier.fit(middles(shown) if middle else [np.asarray(clip) for clip in shown], self.labels)
            self.readers[name] = classifier, middle

    def answers(self, queries: list[Any]) -> dict[str, list[str]]:
        """What each row says."""
        said: dict[str, list[str]] = {}
        asked = encoded(self.clips, queries, None)
        for layer in self.options.layers:
            known, wanted = ([layer_of(pyramid, layer) for pyramid in some] for some in (self.known, asked))
            name = f"{self.clips.name} layer {layer} ({known[0].layout})"
            said[f"{name}, place by place"] = by_places(known, self.labels, wanted, self.clips.codebook)
            if known[0].layout.finest[0] > 1:
                said[f"{name}, how much changes"] = by_change(known, self.labels, wanted, self.clips.codebook)
        still = encoded(self.image, middles(queries), self.k)
        name = f"{self.image.name} on the middle frame, place by place"
        said[name] = by_places(self.known_middles, self.labels, still, self.image.codebook)
        for name, (classifier, middle) in self.readers.items():
            said[name] = [str(label) for label in classifier.predict(middles(queries) if middle else queries)]
        return said


WORDS: dict[str, TokenPyramid] = {}
"""By tokenizer and pixels: emoji come again in other episodes."""


def encoded(tokenizer: Any, images: list[Any], k: int | None) -> list[TokenPyramid]:
    """The words of each, made once."""
    keys = [f"{tokenizer.name}/{hashlib.sha256(np.asarray(image).tobytes()).hexdigest()}" for image in images]
    fresh = {key: image for key, image in zip(keys, images, strict=True) if key not in WORDS}
    WORDS.update(zip(fresh, tokenizer.encode(list(fresh.values()), k), strict=True))
    return [WORDS[key] for key in keys]


def middles(clips: list[Any]) -> list[Image.Image]:
    """The middle frame of each clip."""
    return [Image.fromarray(clip[len(clip) // 2]) for clip in clips]


def layer_of(pyramid: TokenPyramid, layer: int) -> TokenPyramid:
    """One layer of words, as ``OneLayer`` gives it."""
    return TokenPyramid(
        (pyramid.ids[layer - 1],), PyramidLayout((pyramid.layout.grids[layer - 1],)), pyramid.vocabulary
    )


def summed(name: str, control: str, pairs: list[tuple[str, str]], kind: str) -> dict[str, Any]:
    """Right answers, of each answer too, and, of directions, answers of the opposite one."""
    right = Accuracy.of((said == truth for said, truth in pairs), "exact")
    row: dict[str, Any] = {"row": name, "control": control, "right": right.to_dict()}
    if kind == "direction":
        row["opposite"] = Accuracy.of((said == OPPOSITE[truth] for said, truth in pairs), "exact").to_dict()
    counts: dict[str, dict[str, int]] = {}
    for said, truth in pairs:
        counts.setdefault(truth, {}).setdefault(said, 0)
        counts[truth][said] += 1
    return {**row, "said": counts}


if __name__ == "__main__":
    sys.exit(main())
