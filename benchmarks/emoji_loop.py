"""Emoji changed through words: seen, changed by an LLM, drawn by diffusion and by words; what survives the trip.

    python benchmarks/emoji_loop.py --data emoji-clips-64.tar --parts RUN/parts --out FILE.json --sheet FILE.png \\
        [--words spae-photo-128]

Names are drawn (by --seed) from those that the parts were trained on, in groups of five. What is seen: of each name one
frame is an example, another one the picture, and the LLM says by a tokenizer's words which of the five names it is. The
LLM changes that: "the same again", "the same as a sticker" (the thing stays), "make it NAME" (another one of the five).
The diffusion model draws what it says, and, with --words, so does the LLM through a tokenizer's words (SPAE): it is
shown three frames of each of the five names, that which the diffusion model was trained on and two that the judge was
not. So it has five names before it, and the diffusion model all that it was trained on. Judge: as in ``emoji_rows.py``.
Where the thing should stay, LPIPS at 64 x 64 to the picture, beside another frame of the same emoji and the picture of
another name. Beside the loop: the picture as it is, the instruction alone, drawn by diffusion, and the picture as its
own words bring it back, which drawing by words cannot be better than.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from edit_loop import measure_of
from emoji_rows import far, learned, sheet_of

from icl_vision import FewShotClassifier, ImageGenerator, ImageTokenizer
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.llms import connect
from icl_vision.tasks.editing import Change, Edited, PictureLoop
from icl_vision.text_to_image.emoji import open_frames, open_named, shrunk
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.tokenizers.wrapping import WrappedTokenizer

if TYPE_CHECKING:
    from icl_vision.pyramid import PyramidLayout, TokenPyramid

GROUP = 5
EXAMPLE, PICTURE = 8, 3
"""Frames: the example of a name, and the picture that is changed. The denoiser was trained on frame 0."""
SHOWN = (0, 7, 11)
"""Frames that drawing by words is shown: the judge was trained on none of them."""
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


class Shortened(WrappedTokenizer):
    """A tokenizer that stops after a layer, so that an LLM has fewer words to say. k: words of an image."""

    def __init__(self, inner: ImageTokenizer, k: int) -> None:
        super().__init__(inner)
        self.k = k

    @property
    def layout(self) -> PyramidLayout:
        return self.inner.layout.truncate(self.inner.layout.layers_for(self.k))

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        return super()._encode_words(images, self.k if k is None else k)


def enlarged(pixels: Any) -> Image.Image:
    """A picture for a tokenizer of photographs."""
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def by_words(llm: Any, tokenizer: Any, frames: Mapping[str, Any]) -> Any:
    """What draws texts through a tokenizer's words, shown frames of some names."""
    shown = [(text, enlarged(own[place])) for text, own in frames.items() for place in SHOWN if place < len(own)]
    generator = ImageGenerator(llm, tokenizer, shots=None, errors="return")
    generator.fit([image for _, image in shown], [text for text, _ in shown])
    return lambda texts: [None if one.error is not None else one.image for one in generator.generate(list(texts))]


def told(lines: Sequence[str]) -> Any:
    """What "sees" what was seen before."""
    return lambda _: lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="local", help="sees and changes: a name that connect takes")
    parser.add_argument("--tokenizer", default="words-photo", help="what turns pictures into words")
    parser.add_argument("--data", required=True, help="the .tar with its clips.jsonl")
    parser.add_argument("--parts", required=True, help="RUN/parts of `icl-vision train text-to-image --config emoji`")
    parser.add_argument("--words", help="a tokenizer whose words the LLM draws by too; without, diffusion alone")
    parser.add_argument("-k", type=int, default=85, help="words of a drawing (default 85)")
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
    speller = Shortened(ImageTokenizer.from_pretrained(options.words), options.k) if options.words else None
    drawers = ["diffusion"] if speller is None else ["words", "diffusion"]
    trips: list[tuple[int, str, int]] = []
    edited: list[Edited] = []
    for group in groups:
        draw: dict[str, Any] = {"diffusion": lambda texts: system.draw(list(texts), seed=options.seed)}
        if speller is not None:
            draw["words"] = by_words(llm, speller, {name[place]: frames[place] for place in group})
        own_trips: list[tuple[int, str, int]] = []
        for number, place in enumerate(group):
            other = group[(number + 1) % GROUP]
            own_trips += [(place, change, place) for change in KEPT] + [(place, f"make it {name[other]}", other)]
        loop = PictureLoop(llm, told([seen[place] for place, _, _ in own_trips]), draw, examples=CHANGES)
        sources = [Image.fromarray(picture[place]) for place, _, _ in own_trips]
        edited += loop.edit(sources, [change for _, change, _ in own_trips])
        trips += own_trips
        print(f"{len(trips)} trips, {time.monotonic() - began:.0f} s", flush=True)
    place_of = {text.casefold(): place for place, text in name.items()}
    grey = np.full((32, 32, 3), 128, np.uint8)
    results: dict[str, Any] = {
        "seen": Accuracy.of((seen[place] == name[place] for place in chosen), "the picture's name").to_dict(),
        "changes": {},
    }
    lines: list[tuple[str, list[Any]]] = []
    for kind in (*KEPT, "make it"):
        rows = [(trip, one) for trip, one in zip(trips, edited, strict=True) if trip[1].startswith(kind)]
        wanted = [trip[2] for trip, _ in rows]
        drawn = {drawer: [grey if one.pictures[drawer] is None else shrunk(one.pictures[drawer]) for _, one in rows]
                 for drawer in drawers}  # fmt: skip
        said = [place_of.get((one.said or "").casefold()) for _, one in rows]
        alone = [np.asarray(image) for image in system.draw([trip[1] for trip, _ in rows], seed=options.seed)]
        sources = [picture[trip[0]] for trip, _ in rows]

        def judged(images: Sequence[Any], wanted: Sequence[int] = wanted) -> dict[str, Any]:
            return Accuracy.of(judge.hits(np.stack(images), wanted, 5), "frame judge, first 5").to_dict()

        def some(images: Sequence[Any], shown: Sequence[int | None], which: Sequence[bool]) -> dict[str, Any]:
            hits = judge.hits(np.stack(images), [-1 if place is None else place for place in shown], 5)
            return Accuracy.of(
                (hit for hit, counts in zip(hits, which, strict=True) if counts), "frame judge, first 5"
            ).to_dict()

        right = [one.seen == name[trip[0]] for trip, one in rows]
        entry: dict[str, Any] = {
            "n": len(rows),
            "said": Accuracy.of(
                ((one.said or "").casefold() == name[trip[2]].casefold() for trip, one in rows), "the wanted name"
            ).to_dict(),
            "drawn": {
                drawer: {
                    "as_wanted": judged(images),
                    "where_seen_right": some(images, wanted, right),
                    "as_said": some(images, said, [place is not None for place in said]),
                    "missing": sum(one.pictures[drawer] is None for _, one in rows),
                }
                for drawer, images in drawn.items()
            },
            "source_unchanged": judged(sources),
            "instruction_alone": judged(alone),
        }
        if kind in KEPT:
            others = [picture[wanted[(number + 1) % len(wanted)]] for number in range(len(wanted))]
            entry["lpips_to_source"] = {
                **{drawer: far(images, sources, perceptual) for drawer, images in drawn.items()},
                **{
                    f"{drawer}, where seen right": far(
                        [image for image, saw_it in zip(images, right, strict=True) if saw_it],
                        [image for image, saw_it in zip(sources, right, strict=True) if saw_it],
                        perceptual,
                    )
                    for drawer, images in drawn.items()
                },
                "first frame of the same emoji": far([named.pixels[place] for place in wanted], sources, perceptual),
                "picture of another name": far(others, sources, perceptual),
            }
        if speller is not None and kind in KEPT[:1]:
            back = [shrunk(image) for image in speller.decode(speller.encode([enlarged(one) for one in sources]))]
            results["source_by_its_own_words"] = judged(back)
            entry["lpips_to_source"]["the same, from its own words"] = far(back, sources, perceptual)
            lines.append(("its own words", back))
        results["changes"][kind] = entry
        print(kind, json.dumps(entry), flush=True)
        lines += [(f"{kind}: source", sources), *((f"by {drawer}", images) for drawer, images in drawn.items())]
    document = {
        **header(options.seed),
        "llm": options.llm,
        "tokenizer": options.tokenizer,
        "words": None if speller is None else {"tokenizer": options.words, "k": options.k},
        "steps": system.steps,
        "guidance": system.guidance,
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
