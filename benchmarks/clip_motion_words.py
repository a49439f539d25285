"""Whether the words of motion of spae-clips-64 are true: on digits whose motion is known, and how often which is said.

    python benchmarks/clip_motion_words.py mnist.npz --clips emoji-clips-64.tar --out clip_motion_words.json

The rule itself is asked (icl_vision.models.quantizers.motion_words), no LLM and no tokenizer. Digits are MNIST's test
digits. "straight": one of four directions; its word must be that one, played backwards the opposite one, of one frame
repeated "still". "shaking", "jumping": the first half of such a clip forwards and then backwards, so that it comes back
to where it began: sideways or up and down. Of animations the words are counted, of those of the training part.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import header, write

from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.evaluation.clips.motion import OPPOSITE
from icl_vision.evaluation.clips.sets import read_clips
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.models.quantizers.motion_words import MOTIONS, MotionWords

SAID = {"right": "right", "left": "left", "up": "upward", "down": "downward"}
BACK = {"right": "shaking", "left": "shaking", "up": "jumping", "down": "jumping"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("--clips", type=Path, default=None, help="animations whose words are counted")
    parser.add_argument("--n", type=int, default=200, help="clips of digits (default 200)")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    row = MovingDigits.from_npz(options.digits, part="test", way="straight")
    made = [row.clip(number) for number in range(options.n)]
    directions = [clip.motions[0].direction for clip in made]
    frames = [clip.frames for clip in made]
    asked: dict[str, tuple[list[Any], list[str]]] = {
        "straight": (frames, [SAID[way] for way in directions]),
        "straight, played backwards": ([clip[::-1] for clip in frames], [SAID[OPPOSITE[way]] for way in directions]),
        "one frame repeated": ([np.repeat(clip[:1], len(clip), 0) for clip in frames], ["still"] * len(frames)),
        "there and back": (
            [np.concatenate([clip[:8], clip[7::-1]]) for clip in frames],
            [BACK[way] for way in directions],
        ),
    }
    rows = []
    for name, (clips, truth) in asked.items():
        found = words(clips)
        right = Accuracy.of((one == wanted for one, wanted in zip(found, truth, strict=True)), "exact")
        rows.append({"row": name, "right": right.to_dict(), "words": dict(Counter(found).most_common())})
        print(name, rows[-1], flush=True)
    said: dict[str, Any] = {}
    if options.clips is not None:
        animations = read_clips(options.clips, frames=16, part="train")
        found = words([clip.frames for clip in animations])
        said = {
            word: {
                "clips": count,
                "some": [clip.says or clip.name for clip, one in zip(animations, found, strict=True) if one == word][
                    :8
                ],
            }
            for word, count in Counter(found).most_common()
        }
        print(said)
    write(options.out, {**header(0), "words": list(MOTIONS), "rows": rows, "animations": said})
    return 0


def words(clips: Sequence[Any]) -> list[str]:
    """The word of each clip, uint8 [16, 64, 64, 3]."""
    namer, found = MotionWords(64), []
    for start in range(0, len(clips), 32):
        batch = torch.from_numpy(np.stack(clips[start : start + 32])).movedim(-1, -3).float() / 255
        found += [MOTIONS[number] for number in namer.scores(batch).argmax(1).tolist()]
    return found


if __name__ == "__main__":
    sys.exit(main())
