"""How often drawings of emoji are recognised, of names that were trained on and of names that were not.

    python benchmarks/emoji_rows.py --data emoji-clips-64.tar --parts RUN/parts --out FILE.json --sheet FILE.png

The judge is learned from frames of the animations that no drawer was trained on (drawers know first frames alone); its
own accuracy, on other frames again, is printed. It chooses among all names of the list; a drawing is right where its
name is among the judge's first five. Rows: the text encoder's states of the plain name; the mapped LLM, of the name in
a wording that training does not have; the draft that least squares make of either (no diffusion), as it is and with the
guidance that is drawn with, against which drawings are held in pairs (McNemar's exact test); shuffled prompts;
and, of held-out names, a copy of the picture of the training name that the text encoder holds nearest. Of trained names
also LPIPS (at 64 x 64) to the picture that was learned; and, as a check of the denoiser alone, how far its estimate of
a noised picture lies from the picture (mean square, of -1 black to 1 white), by the time that it was noised to.

Of several --steps or --guidance each pair is tried on other trained names first, by the mapped LLM's drawings; the pair
with the most among the judge's first five (of several, by its first name) is used by all rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from edit_loop import measure_of

from icl_vision.evaluation.kit.compare import mcnemar_exact
from icl_vision.evaluation.kit.metrics import Accuracy, RunningMean
from icl_vision.evaluation.text_to_image.frame_judge import FrameJudge
from icl_vision.text_to_image.denoisers.draft import DraftedDenoiser
from icl_vision.text_to_image.denoisers.unet import SIDE, to_latents, to_pixels
from icl_vision.text_to_image.emoji import UNSEEN, Named, open_frames, open_named
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.text_to_image.text_encoder import SentenceStates

TRIED = (3, 7, 11)
"""Frames that the judge is tried on."""
NOISED = (250, 500, 750, 999)
"""Times of 1,000 that pictures are noised to."""
FIELDS = ("mean", "project", "classes")
"""What a judge is made of."""


def nearest(encoder: SentenceStates, named: Named, places: Sequence[int]) -> list[int]:
    """Of each place the training name whose mean state has the smallest angle."""

    def directions(chosen: Sequence[int]) -> torch.Tensor:
        states = encoder.encode([named.names[place] for place in chosen])
        there = states.abs().sum(-1, keepdim=True) > 0
        return torch.nn.functional.normalize((states * there).sum(1) / there.sum(1), dim=-1)

    train = [int(place) for place in named.train]
    return [train[int(best)] for best in (directions(places) @ directions(train).T).argmax(1)]


def learned(data: str, kept: str | None) -> tuple[FrameJudge, dict[str, Any]]:
    """The judge, and its accuracy on frames that it was not given. kept: a .npz that it is taken from where it is there
    already (of the same pictures), and left in where it is not."""
    file = None if kept is None else Path(kept)
    if file is not None and file.is_file():
        with np.load(file) as arrays:
            return FrameJudge(**{name: arrays[name] for name in FIELDS}), json.loads(str(arrays["own"]))
    frames = open_frames(data)
    judge = FrameJudge.fit(frames, skip=(0, *TRIED))
    tried = np.stack([own[place] for own in frames for place in TRIED if place < len(own)])
    shown = [place for place, own in enumerate(frames) for frame in TRIED if frame < len(own)]
    own = {f"first {most}": Accuracy.of(judge.hits(tried, shown, most), "frames").to_dict() for most in (1, 5)}
    facts = {"classes": len(frames), **own}
    if file is not None:
        np.savez(file, own=json.dumps(facts), **{name: getattr(judge, name) for name in FIELDS})
    return judge, facts


def far(left: Sequence[Any], right: Sequence[Any], perceptual: Any) -> dict[str, Any] | None:
    """Mean LPIPS between pictures uint8 [32, 32, 3], each pixel twice."""
    if perceptual is None:
        return None
    mean = RunningMean()
    for pair in zip(left, right, strict=True):
        mean.add(float(perceptual(*(np.repeat(np.repeat(np.asarray(one), 2, 0), 2, 1)[None] for one in pair))[0]))
    return mean.to_dict()


def chosen(
    system: LLMTextToImage,
    judge: FrameJudge,
    named: Named,
    places: Sequence[int],
    pairs: Sequence[tuple[int, float]],
    seed: int,
) -> tuple[tuple[int, float], list[dict[str, Any]]]:
    """The pair of steps and guidance by which most of some names are recognised, and how many by each."""
    if len(pairs) == 1:
        return pairs[0], []
    states = system.states([UNSEEN[0].format(named.names[place]) for place in places])
    tried: list[dict[str, Any]] = []
    for steps, guidance in pairs:
        images = system.draw_states(states, system.mapper.null, seed=seed, guidance=guidance, steps=steps)
        drawn = np.stack([np.asarray(image) for image in images])
        found = {f"first {most}": Accuracy.of(judge.hits(drawn, places, most), "frame judge") for most in (5, 1)}
        tried.append({"steps": steps, "guidance": guidance} | {name: one.to_dict() for name, one in found.items()})
        print("tried", steps, guidance, found["first 5"], found["first 1"].accuracy, flush=True)
    best = max(tried, key=lambda one: (one["first 5"]["accuracy"], one["first 1"]["accuracy"]))
    return (best["steps"], best["guidance"]), tried


@torch.no_grad()
def guided(system: LLMTextToImage, states: torch.Tensor, guidance: float) -> Any:
    """Drafts uint8 [B, S, S, 3], away from the draft of no text."""
    draft = system.parts.denoiser.drafts  # of parts with a DraftedDenoiser
    away = draft(system.mapper.null[None])
    return to_pixels(away + guidance * (draft(states) - away)).permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def denoised(denoiser: DraftedDenoiser, pixels: Any, states: torch.Tensor, seed: int) -> dict[str, float]:
    """The mean square error of the draft, and of what the denoiser makes of pictures noised to some times."""
    latents = to_latents(torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2), SIDE // denoiser.shape[-1])
    errors = {"the draft": float((denoiser.drafts(states) - latents).square().mean())}
    random = torch.Generator().manual_seed(seed)
    for time_ in NOISED:
        signal, noise = denoiser.signal[time_], denoiser.noise[time_]
        noised = signal * latents + noise * torch.randn(latents.shape, generator=random)
        (velocity,) = denoiser(noised, torch.tensor(time_), states)
        errors[str(time_)] = float((signal * noised - noise * velocity - latents).square().mean())
    return errors


def sheet_of(
    rows: Sequence[tuple[str, Sequence[Any]]], columns: int = 20, cell: int = 44, left: int = 120
) -> Image.Image:
    """Rows of pictures uint8 [S, S, 3], cut after ``columns``, named on the left."""
    sheet = Image.new("RGB", (left + columns * cell, len(rows) * cell), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, pictures) in enumerate(rows):
        pen.text((2, number * cell + cell // 2 - 6), name, fill=0)
        for column, picture in enumerate(pictures[:columns]):
            image = Image.fromarray(np.asarray(picture, dtype=np.uint8)).resize((cell - 4, cell - 4), resample=0)
            sheet.paste(image, (left + column * cell + 2, number * cell + 2))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the .tar with its clips.jsonl")
    parser.add_argument("--parts", required=True, help="RUN/parts of `icl-vision train text-to-image --config emoji`")
    parser.add_argument("--n", type=int, default=250, help="training names")
    parser.add_argument("--judge", help="a .npz to keep the judge in, or to take it from")
    parser.add_argument("--steps", type=int, nargs="+", help="one, or several to choose from; default: the parts'")
    parser.add_argument("--guidance", type=float, nargs="+", help="the same")
    parser.add_argument("--tried", type=int, default=100, help="other trained names that are chosen by")
    parser.add_argument("--no-lpips", action="store_true", help="leave LPIPS out (extra train)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="where the figures go")
    parser.add_argument("--sheet", help="a .png file for drawings, whether they are right or not")
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    named = open_named(options.data)
    judge, own = learned(options.data, options.judge)
    print("judge", own, flush=True)
    system = LLMTextToImage.from_pretrained(options.parts)
    known = set(system.parts.card["names"])  # data.limit may have left some out
    named = replace(named, train=np.array([place for place in named.train if named.names[place] in known]))
    encoder = SentenceStates(length=system.mapper.length)
    perceptual = measure_of(not options.no_lpips)
    rng = np.random.default_rng(options.seed)
    order = [int(place) for place in rng.permutation(named.train)]
    pairs = [
        (steps, guidance)
        for steps in options.steps or [system.steps]
        for guidance in options.guidance or [system.guidance]
    ]
    (steps, guidance), tried = chosen(
        system, judge, named, order[options.n : options.n + options.tried], pairs, options.seed
    )
    sets = {
        "trained": order[: options.n],
        "held out": [int(place) for place in named.test],
    }
    results: dict[str, Any] = {}
    checked: dict[str, float] = {}
    lines: list[tuple[str, Sequence[Any]]] = []
    for kind, places in sets.items():
        names = [named.names[place] for place in places]
        keys: dict[str, Any] = {"seed": options.seed, "guidance": guidance, "steps": steps}
        states = {
            "text encoder": encoder.encode(names),
            "mapped LLM": system.states([UNSEEN[0].format(name) for name in names]),
        }
        rows: dict[str, Any] = {}
        for name, own_states in states.items():
            images = system.draw_states(own_states, system.mapper.null, **keys)
            rows[name] = np.stack([np.asarray(image) for image in images])
        if isinstance(system.parts.denoiser, DraftedDenoiser):
            for name, own_states in states.items():
                drafts = to_pixels(system.parts.denoiser.drafts(own_states)).permute(0, 2, 3, 1)
                rows[f"{name}, the draft"] = drafts.numpy()
                rows[f"{name}, the draft, guided"] = guided(system, own_states, guidance)
            if kind == "trained":
                checked = denoised(system.parts.denoiser, named.pixels[places], states["text encoder"], options.seed)
                print("denoised", checked, flush=True)
        rows["shuffled prompts"] = np.roll(rows["mapped LLM"], 1, axis=0)
        if kind == "held out":
            rows["nearest name's picture"] = named.pixels[nearest(encoder, named, places)]
        results[kind] = {
            name: {
                f"first {most}": Accuracy.of(judge.hits(images, places, most), "frame judge").to_dict()
                for most in (1, 5)
            }
            for name, images in rows.items()
        }
        for name in states:
            beside = f"{name}, the draft, guided"
            if beside in rows:
                hits = [judge.hits(rows[one], places, 5) for one in (name, beside)]
                drawn, draft = (sum(own and not other for own, other in zip(*pair, strict=True))
                                for pair in (hits, hits[::-1]))  # fmt: skip
                results[kind][name]["beside the draft, guided"] = {
                    "only this": drawn,
                    "only the draft": draft,
                    "p": mcnemar_exact(drawn, draft),
                }
        if kind == "trained":
            for name, images in rows.items():
                results[kind][name]["lpips"] = far(images, named.pixels[places], perceptual)
        for name, row in results[kind].items():
            print(kind, name, row["first 5"], "first:", row["first 1"]["accuracy"], row.get("lpips"), flush=True)
            print(row.get("beside the draft, guided", ""), flush=True)
        rows.pop("shuffled prompts")
        for name in ("text encoder, the draft", "mapped LLM, the draft", "mapped LLM, the draft, guided"):
            rows.pop(name, None)
        lines += [(kind, named.pixels[places]), *rows.items()]
    document = {
        **header(options.seed),
        "parts": system.parts.card["name"],
        "names": {
            "trained": len(named.train),
            "held out": len(named.test),
            "in the list": len(named.names),
        },
        "guidance": guidance,
        "steps": steps,
        "tried": tried,
        "denoised": checked,
        "fit": system.parts.card["fit"],
        "judge": own,
        "rows": results,
        "seconds": time.monotonic() - began,
    }
    write(options.out, document)
    if options.sheet:
        sheet_of(lines, left=190).save(options.sheet)


if __name__ == "__main__":
    main()
