"""What an LLM reads of the word of motion: which way a digit moves (4-way 5-shot), from one word a clip.

    python benchmarks/clip_motion_read.py mnist.npz --llm local --out benchmarks/results/clip_motion_read.json

The examples and queries are those of clip_motion.py; the word is that of layer 2 of spae-clips-64, found by the rule
itself (icl_vision.models.quantizers.motion_words), which is all that the layer is. Labels are the directions' names;
two of the words are spelled otherwise ("upward", "downward"), and with --labels they are letters, which say nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import header, write

from icl_vision import FewShotClassifier, ImageTokenizer
from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.evaluation.clips.motion import CONTROLS, OPPOSITE, motion_episode
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.models.quantizers.motion_words import MOTIONS, MotionWords
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.one_layer import OneLayer

LETTERS = {"right": "A", "left": "B", "up": "C", "down": "D"}


class WordOfMotion(OneLayer):
    """One word a clip, of arrays at the tokenizer's own size."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, 1)
        self.namer = MotionWords(64)
        self.namer.say(inner.vocabulary.ids(MOTIONS).tolist())

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        clips = torch.from_numpy(np.stack([np.asarray(clip) for clip in images])).movedim(-1, -3).float() / 255
        layout = PyramidLayout(((1, 1, 1),))
        return [TokenPyramid((ids.numpy().astype(np.int32),), layout, self.vocabulary) for ids in self.namer(clips)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--labels", action="store_true", help="letters for labels")
    parser.add_argument("--each", type=int, default=10, help="queries of each direction and episode (default 10)")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), default=["as they are", "played backwards"])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    row = MovingDigits.from_npz(options.digits, part="test", way="straight")
    words = WordOfMotion(ImageTokenizer.from_pretrained("spae-clips-64"))
    label = LETTERS if options.labels else {name: name for name in LETTERS}
    rows: list[dict[str, Any]] = []
    for control in options.controls:
        right: list[bool] = []
        opposite: list[bool] = []
        for number in range(options.episodes):
            episode = motion_episode(row, 5, options.each, 10_000 * number)
            classifier = FewShotClassifier(options.llm, words, None, errors="raise")
            classifier.fit([clip for clip, _ in episode.support], [label[way] for _, way in episode.support])
            queries = [CONTROLS[control](clip, at) for at, (clip, _) in enumerate(episode.queries)]
            for said, (_, way) in zip(classifier.predict(queries), episode.queries, strict=True):
                right.append(str(said) == label[way])
                opposite.append(str(said) == label[OPPOSITE[way]])
        found = {"right": Accuracy.of(right, "exact").to_dict(), "opposite": Accuracy.of(opposite, "exact").to_dict()}
        rows.append({"control": control, **found})
        print(control, found, flush=True)
        write(options.out, {**header(0), "llm": options.llm, "letters": options.labels, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
