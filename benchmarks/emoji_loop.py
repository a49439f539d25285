"""Emoji changed through words: seen, changed by an LLM, drawn by diffusion; what survives the trip.

    python benchmarks/emoji_loop.py --data emoji-clips-64.tar --parts RUN/parts --out FILE.json --sheet FILE.png

Names are drawn (by --seed) from those that the parts were trained on, in groups of five. What is seen: of each name one
frame is an example, another one the picture, and the LLM says by a tokenizer's words which of the five names it is. The
LLM changes that: "the same again", "the same as a sticker" (the thing stays), "make it NAME" (another one of the five).
The diffusion model draws what it says. Judge: as in ``emoji_rows.py``. Where the thing should stay, LPIPS at 64 x 64 to
the picture, beside another frame of the same emoji and the picture of another name. Beside the loop: the picture as it
is, and the instruction alone, drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from edit_loop import measure_of
from emoji_rows import learned, sheet_of

from icl_vision import FewShotClassifier
from icl_vision.evaluation.kit.metrics import Accuracy, RunningMean
from icl_vision.llms import connect
from icl_vision.tasks.editing import Change, PictureLoop
from icl_vision.text_to_image.emoji import open_frames, open_named
from icl_vision.text_to_image.pipeline import LLMTextToImage

GROUP = 5
EXAMPLE, PICTURE = 8, 3
"""Frames: the example of a name, and the picture that is changed. The denoiser was trained on frame 0."""
KEPT = ("the same again", "the same as a sticker")
CHANGES = (
    Change("red apple", "make it green salad", "green salad"),
    Change("locomotive", "the same again", "locomotive"),
    Change("tulip", "the same as a sticker", "tulip"),
    Change("teapot", "make it hot dog", "hot dog"),
    Change("guitar", "the same as a sticker", "guitar"),
    Change("sailboat", "the same again", "sailboat"),
)
"""Examples for the LLM."""
SIDE = 128
"""Pictures are enlarged to it before a tokenizer sees them."""


def enlarged(pixels: Any) -> Image.Image:
    """A picture for a tokenizer of photographs."""
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def far(left: Sequence[Any], right: Sequence[Any], perceptual: Any) -> dict[str, Any] | None:
    """Mean LPIPS between pictures uint8 [32, 32, 3], each pixel twice."""
    if perceptual is None:
        return None
    mean = RunningMean()
    for pair in zip(left, right, strict=True):
        mean.add(float(perceptual(*(np.repeat(np.repeat(np.asarray(one), 2, 0), 2, 1)[None] for one in pair))[0]))
    return mean.to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="local", help="sees and changes: a name that connect takes")
    parser.add_argument("--tokenizer", default="words-photo", help="what turns pictures into words")
    parser.add_argument("--data", required=True, help="the .tar with its clips.jsonl")
    parser.add_argument("--parts", required=True, help="RUN/parts of `icl-vision train text-to-image --config emoji`")
    parser.add_argument("--judge", help="a .npz to keep the judge in, or to take it from")
    parser.add_argument("--n", type=int, default=40, help="pictures, rounded down to groups of five")
    parser.add_argument("--no-lpips", action="store_true", help="leave LPIPS out (extra train)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", help="a .png file for the pictures, side by side")
    parser.add_argument("--out", required=True, help="where the figures go")
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    named, frames = open_named(options.data), open_frames(options.data)
    judge, own = learned(options.data, options.judge)
    perceptual = measure_of(not options.no_lpips)
    llm = connect(options.llm)
    system = LLMTextToImage.from_pretrained(options.parts)
    known = set(system.parts.card["names"])
    pool = [int(place) for place in named.train if named.names[place] in known]
    chosen = [int(place) for place in np.random.default_rng(options.seed).permutation(pool)]
    chosen = chosen[: options.n // GROUP * GROUP]
    groups = [chosen[start : start + GROUP] for start in range(0, len(chosen), GROUP)]
    name = {place: named.names[place] for place in chosen}
    picture = {place: frames[place][min(PICTURE, len(frames[place]) - 1)] for place in chosen}
    seen: dict[int, str] = {}
    for group in groups:
        examples = [enlarged(frames[place][min(EXAMPLE, len(frames[place]) - 1)]) for place in group]
        classifier = FewShotClassifier(llm, options.tokenizer).fit(examples, [name[place] for place in group])
        labels = classifier.predict([enlarged(picture[place]) for place in group])
        seen |= {place: str(label or "a picture") for place, label in zip(group, labels, strict=True)}
        print("seen", [(name[place], seen[place]) for place in group], flush=True)
    trips: list[tuple[int, str, int]] = []
    for group in groups:
        for number, place in enumerate(group):
            other = group[(number + 1) % GROUP]
            trips += [(place, change, place) for change in KEPT] + [(place, f"make it {name[other]}", other)]
    order = iter([place for place, _, _ in trips])
    loop = PictureLoop(
        llm,
        lambda pictures: [seen[next(order)] for _ in pictures],
        {"diffusion": lambda texts: system.draw(list(texts), seed=options.seed)},
        examples=CHANGES,
    )
    edited = loop.edit([Image.fromarray(picture[place]) for place, _, _ in trips], [change for _, change, _ in trips])
    grey = np.full((32, 32, 3), 128, np.uint8)
    results: dict[str, Any] = {
        "seen": Accuracy.of((seen[place] == name[place] for place in chosen), "the picture's name").to_dict(),
        "changes": {},
    }
    lines: list[tuple[str, list[Any]]] = []
    for kind in (*KEPT, "make it"):
        rows = [(trip, one) for trip, one in zip(trips, edited, strict=True) if trip[1].startswith(kind)]
        wanted = [trip[2] for trip, _ in rows]
        drawn = [
            grey if one.pictures["diffusion"] is None else np.asarray(one.pictures["diffusion"]) for _, one in rows
        ]
        alone = [np.asarray(image) for image in system.draw([trip[1] for trip, _ in rows], seed=options.seed)]
        sources = [picture[trip[0]] for trip, _ in rows]

        def judged(images: Sequence[Any], wanted: Sequence[int] = wanted) -> dict[str, Any]:
            return Accuracy.of(judge.hits(np.stack(images), wanted, 5), "frame judge, first 5").to_dict()

        right = [one.seen == name[trip[0]] for trip, one in rows]
        entry: dict[str, Any] = {
            "n": len(rows),
            "said": Accuracy.of(
                ((one.said or "").casefold() == name[trip[2]].casefold() for trip, one in rows), "the wanted name"
            ).to_dict(),
            "drawn": judged(drawn),
            "drawn_where_seen_right": Accuracy.of(
                (hit for hit, saw in zip(judge.hits(np.stack(drawn), wanted, 5), right, strict=True) if saw),
                "frame judge, first 5",
            ).to_dict(),
            "source_unchanged": judged(sources),
            "instruction_alone": judged(alone),
        }
        if kind in KEPT:
            others = [picture[wanted[(number + 1) % len(wanted)]] for number in range(len(wanted))]
            entry["lpips_to_source"] = {
                "drawn": far(drawn, sources, perceptual),
                "drawn_where_seen_right": far(
                    [image for image, saw in zip(drawn, right, strict=True) if saw],
                    [image for image, saw in zip(sources, right, strict=True) if saw],
                    perceptual,
                ),
                "first frame of the same emoji": far([named.pixels[place] for place in wanted], sources, perceptual),
                "picture of another name": far(others, sources, perceptual),
            }
        results["changes"][kind] = entry
        print(kind, json.dumps(entry), flush=True)
        lines += [(f"{kind}: source", sources), ("drawn", drawn)]
    document = {
        **header(options.seed),
        "llm": options.llm,
        "tokenizer": options.tokenizer,
        "parts": system.parts.card["name"],
        "pictures": len(chosen),
        "judge": own,
        **results,
        "trips": [
            {"name": name[place], "seen": one.seen, "change": change, "said": one.said}
            for (place, change, _), one in zip(trips, edited, strict=True)
        ],
        "seconds": time.monotonic() - began,
    }
    write(options.out, document)
    if options.sheet:
        sheet_of(lines, left=170).save(options.sheet)


if __name__ == "__main__":
    main()
