"""The ablations of the LQAE paper at one small scale: what each piece brings, and whether its findings come back here.

    python benchmarks/lqae_ablations.py --data PHOTOS --test CLASS-FOLDERS --pretrained TAEF2 --bert BERT-TINY \\
        --out FILE.json [--steps 110] [--limit 384] [--episodes 200] [--seeds 0 1 2] [--only ROW ...]

One row is one change of the same model (64 words of 4,096 on 8 x 8, TAEF2 latents, a two-layer masked LM with its head,
half of the words hidden, the first 50 steps past the text encoder), with the same pictures, seeds, steps and batch. The
result file holds what every run measured, picture by picture and episode by episode, and is written anew after each: a
row and seed that stand in it are not run again, and other rows and seeds are added. Rows of an earlier version of this
script, which kept means alone, stand as they are until they are run at the same seeds.

Measured on the pictures of ``--test``, which nothing is trained on: their PSNR through words; how many of the 4,096
words they use, and the perplexity; and, in place of the paper's LLM, how often the nearest word prototype (mean of the
words' vectors) names the class of one picture, in 2-way and 5-way 5-shot episodes, the same for every row. Differences
to the base row are paired (by picture, by episode) and averaged over the seeds, with 95% bootstrap intervals over
pictures and episodes; seeds are not resampled, three are too few.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _common
import numpy as np
import numpy.typing as npt
import torch

from icl_vision.codebook import Codebook
from icl_vision.evaluation.few_shot.baselines import nearest_prototype, unit
from icl_vision.evaluation.kit.image_metrics import psnr
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.evaluation.kit.pictures import Picture, list_pictures
from icl_vision.images import load_image
from icl_vision.models.lqae import LQAE
from icl_vision.models.nets.taef2 import ENCODER_FILE, Taef2Encoder
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.training import load_config, load_model, train
from icl_vision.training.loop import MEMORY_FILE

SIDE, BATCH, EPISODES, WAYS, SHOTS, PSNR_PICTURES, TESTED = 128, 16, 200, (2, 5), 5, 48, 192
WORDS = "lqae-bert-128"
Images = npt.NDArray[np.uint8]
Runs = dict[str, dict[str, dict[str, Any]]]
"""What was measured, by row and seed."""
Episode = tuple[list[int], list[str], int, str]
"""Places of the support, their labels, place and label of the query."""


class Pictures(NamedTuple):
    """What is measured on. truth: uint8 [N, S, S, 3]. features: what TAEF2's encoder says of them. every: PSNR is taken
    of every so many. episodes: by ways."""

    truth: Images
    features: torch.Tensor
    every: int
    episodes: dict[int, list[Episode]]


BASE: tuple[str, ...] = (
    "model.grid=8", "model.dim=128", "model.width=64", "model.blocks=2", "model.decoder_blocks=2",
    "model.mask=[0.5, 0.5]", "loss.mlm=0.001", "loss.even=0", "past_text=50", "remember=true", "data.workers=0",
    "data.validation=64", "data.flip=false", f"batch={BATCH}", "optimiser.rate=2.0e-3", "ema.decay=0",
    "log.validate=100000", "log.grid=100000", "log.checkpoint=100000", "log.tensorboard=false",
)  # fmt: skip
_TABLE = ("model.directions=0",)
_NO_TEXT = ("model.text=null", "text_encoder=null", "loss.mlm=0", "past_text=0")
ROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    # the lookup
    "not normalised": ("model.normalise=false",),
    "plain table": _TABLE,
    "plain table, not normalised": (*_TABLE, "model.normalise=false"),
    "plain table, no BatchNorm (the paper's)": (*_TABLE, "model.batch_norm=false"),
    "plain table, no BatchNorm, not normalised": (*_TABLE, "model.batch_norm=false", "model.normalise=false"),
    "learned codebook, ids mapped to words": (
        "model.learned=true", "model.words=4096", "model.directions=0", *_NO_TEXT, "codebook=null"
    ),
    # the mask
    "mask 0": ("model.mask=[0, 0]",),
    "mask 15%": ("model.mask=[0.15, 0.15]",),
    "mask 30%": ("model.mask=[0.3, 0.3]",),
    "mask 75%": ("model.mask=[0.75, 0.75]",),
    "mask drawn between 0 and 60%": ("model.mask=[0, 0.6]",),
    # the text encoder
    "from a cold start": ("past_text=0",),
    "no text encoder": _NO_TEXT,
    "no text encoder, no mask": (*_NO_TEXT, "model.mask=[0, 0]"),
    "text encoder of 1 layer": ("model.text.layers=1", "model.text.head=false", "loss.mlm=0"),
    "text encoder with random weights": ("text_encoder=null",),
    # the losses
    "MLM 0": ("loss.mlm=0",),
    "MLM 1": ("loss.mlm=1",),
    "entropy .5": ("loss.entropy=0.5",),
    "straight-through at the decoder": ("model.straight_through=decoder",),
    # the words
    "256 words": ("model.grid=16",),
    # what the words tell of a picture as a whole (ours)
    "latents count alike": ("loss.even=10",),
    "latents count half alike": ("loss.even=1",),
    "32 directions": ("model.directions=32",),
    "32 directions, latents count alike": ("model.directions=32", "loss.even=10"),
    "6 directions, by distance": ("model.directions=6", "model.normalise=false"),
    "entropy .005": ("loss.entropy=0.005",),
}  # fmt: skip
KEEP = (0.25, 0.5, 0.75)
"""Shares of the base row's words that are kept, the first ones in reading order; nothing is trained for these rows."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="about 1,000 photographs to train on: a folder or a .tar"
    )
    parser.add_argument(
        "--test", type=Path, required=True, help="other photographs, one folder a class, 10 or more each"
    )
    parser.add_argument("--pretrained", type=Path, required=True, help="the folder of TAEF2's two weight files")
    parser.add_argument("--bert", type=Path, required=True, help="folder of a small masked LM with its head")
    parser.add_argument("--out", type=Path, required=True, help="result file; trainings go into a folder beside it")
    parser.add_argument("--steps", type=int, default=110, help="steps of each training (default 110)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of every row (default 0 1 2)")
    parser.add_argument("--limit", type=int, default=384, help="photographs of each training (default 384)")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="of each number of ways (default 200)")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=tuple(ROWS), help="some rows (default all)")
    options = parser.parse_args()
    work = options.out.with_suffix("")
    work.mkdir(parents=True, exist_ok=True)
    pictures = list_pictures(options.test, limit=TESTED)
    truth = Preprocessing(SIDE, "crop", "bilinear", short=SIDE).batch([load_image(each.image) for each in pictures])
    measured = Pictures(
        truth,
        frozen_of(truth, options.pretrained),
        max(1, len(truth) // PSNR_PICTURES),
        {ways: draw_episodes(pictures, ways, options.episodes) for ways in WAYS},
    )
    settings = [
        *BASE, f"data.limit={options.limit}", f"steps={options.steps}", f"text_encoder={options.bert}",
        f"pretrained={options.pretrained}",
    ]  # fmt: skip
    facts = {
        "steps": options.steps, "batch": BATCH, "photographs": options.limit, "pictures": len(pictures),
        "psnr_pictures": len(truth[:: measured.every]), "episodes": options.episodes, "shots": SHOTS,
    }  # fmt: skip
    runs, rows = earlier(options.out, facts)
    # Seeds outside, so that a run that is cut has all rows at the seeds it has.
    for seed in options.seeds:
        for row in options.only:
            if str(seed) in runs.get(row, {}):
                continue
            changes = [*settings, f"seed={seed}", *ROWS[row]]
            found = one_run(run_folder(work, row, seed), changes, options.data, work / f"memory-{seed}", measured)
            runs.setdefault(row, {})[str(seed)] = found
            write(options.out, facts, runs, rows)
    return 0


def earlier(file: Path, facts: dict[str, Any]) -> tuple[Runs, dict[str, Any]]:
    """The runs of a result file that is there already, if it is one of the same pictures, steps and episodes, and its
    rows."""
    if not file.is_file():
        return {}, {}
    document = json.loads(file.read_text(encoding="utf-8"))
    others = {key: document.get(key) for key, value in facts.items() if document.get(key) != value}
    if others:
        raise SystemExit(f"{file} holds runs of other facts ({others}): name another --out")
    return document.get("runs", {}), document["rows"]


def draw_episodes(pictures: Sequence[Picture], ways: int, episodes: int = EPISODES) -> list[Episode]:
    """Episodes: places of the support pictures (shots of each class), their labels, and the place of one query; drawn
    once for all rows and seeds. The query's class is drawn too: words that tell nothing must not be right by order."""
    random = np.random.default_rng(ways)
    of_class: dict[str, list[int]] = {}
    for place, picture in enumerate(pictures):
        of_class.setdefault(picture.label or "", []).append(place)
    drawn = []
    for _ in range(episodes):
        classes = [str(name) for name in random.choice(sorted(of_class), ways, replace=False)]
        chosen = {name: random.choice(of_class[name], SHOTS + 1, replace=False).tolist() for name in classes}
        support = [(place, name) for name in classes for place in chosen[name][:SHOTS]]
        asked = classes[int(random.integers(ways))]
        drawn.append(([place for place, _ in support], [name for _, name in support], chosen[asked][SHOTS], asked))
    return drawn


def frozen_of(truth: Images, pretrained: Path) -> torch.Tensor:
    """What TAEF2's encoder says of the pictures, which no row changes."""
    net = Taef2Encoder.load(pretrained / ENCODER_FILE)
    images = torch.from_numpy(truth).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return torch.cat([net(part) for part in torch.split(images, 16)])


def one_run(folder: Path, settings: list[str], data: Path, memory: Path, pictures: Pictures) -> dict[str, Any]:
    """Train one row at one seed and measure it; what frozen nets say of the pictures is shared among a seed's rows."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if memory.is_file():
        shutil.copyfile(memory, folder / MEMORY_FILE)
    train(load_config("lqae-photo-128", settings, data=data), folder, resume=True, progress=False)
    if not memory.is_file():
        shutil.copyfile(folder / MEMORY_FILE, memory)
    found = measure(folder, pictures)
    shutil.rmtree(folder)
    return found


def measure(folder: Path, pictures: Pictures) -> dict[str, Any]:
    """The figures of one run, picture by picture and episode by episode."""
    model = load_model(folder)
    assert isinstance(model, LQAE)
    images = torch.from_numpy(pictures.truth).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        ids = torch.cat(
            [
                model.lookup(model.encode(part, (known,)))
                for part, known in zip(torch.split(images, 32), torch.split(pictures.features, 32), strict=True)
            ]
        )
        made = torch.cat([model.decode_ids((part,)) for part in torch.split(ids[:: pictures.every], 16)])
    pixels = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    flat = ids.flatten(1).numpy()
    shares = np.bincount(flat.ravel(), minlength=model.words) / flat.size
    # What a reader of the words has: of learned ids, the words they are mapped to, in order.
    vectors = Codebook.load(WORDS).vectors
    found: dict[str, Any] = {
        "words": int(flat.shape[1]),
        "psnr": psnr(pictures.truth[:: pictures.every], pixels).tolist(),
        "used": float((shares > 0).mean()),
        "perplexity": float(np.exp(-np.sum(shares * np.log(np.where(shares > 0, shares, 1))))),
    }
    for keep in (1.0, *KEEP):
        first = flat[:, : round(keep * flat.shape[1])]
        of_picture = np.stack([unit(vectors[words]).mean(axis=0) for words in first])
        for ways, drawn in pictures.episodes.items():
            # A digit an episode, 1 where it was right.
            found[f"{ways}-way" if keep == 1 else f"{ways}-way, first {keep:.0%}"] = "".join(
                str(int(nearest_prototype(of_picture[support], labels, of_picture[[query]])[0] == truth))
                for support, labels, query, truth in drawn
            )
    return found


def write(file: Path, facts: dict[str, Any], runs: Runs, before: dict[str, Any]) -> None:
    """The table of what is measured by now, printed and written, and what each run measured."""
    rows = {row: runs[row] for row in ROWS if row in runs}
    base = runs.get("base", {})
    for share in KEEP:
        rows[f"first {share:.0%} of the words"] = {
            seed: {**run, **{f"{ways}-way": run[f"{ways}-way, first {share:.0%}"] for ways in WAYS}, "psnr": None}
            for seed, run in base.items()
        }
    print(f"\n{'seeds, row':50} {'words':>4} {'PSNR':>22} {'used':>6} {'perpl.':>7} {'2-way':>22} {'5-way':>22}")
    table = dict(before)
    for row, found in rows.items():
        if found and set(map(str, seeds_of(before.get(row)))) <= set(found):
            table[row] = of_row(row, found, base)
    for row, line in table.items():
        print(shown(row, line), flush=True)
    _common.write(file, _common.header() | facts | {"rows": table, "runs": runs})


def of_row(row: str, runs: dict[str, dict[str, Any]], base: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of a row, and its paired differences to the base row at the seeds that both have."""
    seeds = sorted(runs, key=int)
    both = [seed for seed in seeds if seed in base]
    result: dict[str, Any] = {
        "seeds": [int(seed) for seed in seeds], "words": runs[seeds[0]]["words"], "settings": list(ROWS.get(row, ())),
    }  # fmt: skip
    for key in ("used", "perplexity"):
        result[key] = [runs[seed][key] for seed in seeds]
    for key in ("psnr", *(f"{ways}-way" for ways in WAYS)):
        if runs[seeds[0]][key] is None:
            continue
        by_seed = [float(values(runs[seed], key).mean()) for seed in seeds]
        result[key] = {"mean": float(np.mean(by_seed)), "by_seed": by_seed}
        if runs is not base and both:
            # One number a picture or an episode: its mean over the seeds.
            ours, theirs = (np.mean([values(each[seed], key) for seed in both], axis=0) for each in (runs, base))
            paired = paired_mean(ours.tolist(), theirs.tolist(), higher_is_better=True)
            result[key]["to_base"] = paired.to_dict() | {"seeds": [int(seed) for seed in both]}
    return result


def values(run: dict[str, Any], key: str) -> npt.NDArray[np.float64]:
    """One number a picture, or an episode."""
    return np.array([float(each) for each in run[key]])


def shown(row: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    cells = []
    for key, times in (("psnr", 1), *((f"{ways}-way", 100) for ways in WAYS)):
        if key not in found:
            cells.append(f"{'-':>22}")
            continue
        cell = f"{times * found[key]['mean']:.2f}"
        if "to_base" in found[key]:
            low, high = found[key]["to_base"]["interval"]
            cell += f" [{times * low:+.2f}, {times * high:+.2f}]"
        cells.append(f"{cell:>22}")
    words = f"{np.mean(found['used']):>6.1%} {np.mean(found['perplexity']):>7.0f}"
    return f"{len(seeds_of(found))} {row:48} {found['words']:>4} {cells[0]} {words} {cells[1]} {cells[2]}"


def seeds_of(row: dict[str, Any] | None) -> list[int]:
    """The seeds that a row's means are of; an earlier version of this script wrote their number alone, from 0 on."""
    if row is None:
        return []
    return list(row["seeds"]) if isinstance(row["seeds"], list) else list(range(row["seeds"]))


def run_folder(work: Path, row: str, seed: int) -> Path:
    """Where a row's run at a seed is."""
    return work / f"{re.sub('[^a-z0-9]+', '-', row.lower()).strip('-')}-{seed}"


if __name__ == "__main__":
    sys.exit(main())
