"""One decoding set-up, several tokenizers (SPAE, Fig. 9): photographs denoised by an LLM from each one's words.

    python benchmarks/fig9_tokenizers.py --data PHOTOS --out RUNS --tokenizers spae-photo-128 lqae-photo-128 VQ \\
        --json FILE.json --sheet FILE.jpg [--tasks outpainting deblurring] [--pictures 4] [--llm local]

The same photographs (cut to squares first, so that every tokenizer sees the same), the same ten examples with the same
corruption, rows of words, the LLM's answers restricted to words of the picture's tokenizer; no refinement, so that each
is drawn from its first 85 words or all it has. Both protocols. What is there already is not done again.

Restricted answers cannot leave a vocabulary, so how many words would is counted apart: every segment is asked once,
unrestricted, for any word of the vocabulary, and the answer's words are looked up in it, exactly or but for letter
case and marks around them. An answer that cannot be read counts as it stands, and the vote takes its place in the
segments after it, so that one bad answer does not end the picture.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from icl_vision import ImageDenoiser, ImageTokenizer
from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.drawing.passes import passes_of
from icl_vision.drawing.repair import EDGES, WordSet
from icl_vision.evaluation.denoising.evaluation import METRICS, DenoisingEvaluation, Perceptual
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.kit.metrics import RunningMean, mean_text
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.evaluation.kit.pictures import Picture, list_pictures
from icl_vision.files.runs import Run
from icl_vision.images import load_image
from icl_vision.llms import connect
from icl_vision.llms.loop import run_sync
from icl_vision.models.losses.instruments import perceptual
from icl_vision.tasks.denoise.denoiser import PROTOCOLS
from icl_vision.tasks.denoise.puzzles import Puzzle
from icl_vision.tokenizers.wrapping import fingerprint

EXAMPLES, SEED, LLM, CUT = 10, 2026, "llm/rows", "words decoded here"
GAP, TITLE = 6, 18


@dataclass(frozen=True)
class Column:
    """What one tokenizer made of the pictures of a task. results: a run's journal."""

    task: str
    protocol: str
    denoiser: ImageDenoiser
    puzzles: Sequence[Puzzle]
    results: dict[str, Any]

    def words(self, row: str, name: str) -> list[str] | None:
        """What a row made of a picture."""
        words: list[str] | None = self.results[f"{self.task}/{row}"]["pictures"][name]["words"]
        return words


@dataclass(frozen=True)
class SetUp:
    """What is the same for every tokenizer. shown, restored: square pictures."""

    llm: TextLLM
    tasks: tuple[str, ...]
    shown: list[Picture]
    restored: list[Picture]

    def settings(self, tokenizer: Tokenizer, protocol: str) -> dict[str, Any]:
        """Arguments of ``ImageDenoiser``."""
        return {"llm": self.llm, "tokenizer": tokenizer, "protocol": protocol, "context": EXAMPLES, "refine": "none",
                "guidance": 1.0, "seed": SEED}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of photographs; examples are drawn from it too"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, gone on with where they are")
    parser.add_argument(
        "--tokenizers", nargs="+", required=True, help="names or artefact folders, the first is compared"
    )
    parser.add_argument("--tasks", nargs="+", default=["outpainting", "deblurring"], help="tasks of `eval denoising`")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="default: both")
    parser.add_argument("--pictures", type=int, default=4, help="photographs to restore (default 4)")
    parser.add_argument("--first", type=int, help="restore the first so many of these alone (default all)")
    parser.add_argument("--llm", default="local", help="as for icl_vision.connect (default local)")
    parser.add_argument("--no-lpips", action="store_true", help="PSNR and SSIM alone")
    parser.add_argument("--json", type=Path, required=True, help="result file")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    options = parser.parse_args()
    shown, restored = drawn(options.data, options.pictures)
    restored = restored[: options.first]
    set_up = SetUp(connect(options.llm), tuple(options.tasks), shown, restored)
    distance = None if options.no_lpips else perceptual()
    found: dict[str, dict[str, Any]] = {}
    columns: list[Column] = []
    for protocol in options.protocols:
        for named in options.tokenizers:
            tokenizer = ImageTokenizer.from_pretrained(named)
            settings = set_up.settings(tokenizer, protocol)
            folder = options.out / f"{tokenizer.name}-{protocol}"
            evaluation = DenoisingEvaluation(
                settings, set_up.tasks, shown, restored, controls=(), perceptual=distance
            )  # fmt: skip
            results = measured(evaluation, folder, set_up, tokenizer, protocol)
            for task in set_up.tasks:
                # In a vocabulary that is allowed whole, the condition's own words are no exception.
                free = ImageDenoiser(task=task, constrain="never", allowed="vocabulary", own=False, **settings)
                free.fit([] if protocol == "paper" else [picture.image for picture in shown])
                puzzles = evaluation.puzzles(task)
                found.setdefault(f"{task}, {protocol}", {})[tokenizer.name] = {
                    **of_task(results, task, free, puzzles, distance),
                    "unrestricted": outside(free, puzzles, folder / f"unrestricted-{task}"),
                }
                columns.append(Column(task, protocol, free, puzzles, results))
            print(f"{protocol}, {tokenizer.name}: done", flush=True)
    for cell, by_tokenizer in found.items():
        show(cell, by_tokenizer)
    document = _common.header(SEED) | {
        "n": len(restored), "examples": EXAMPLES, "restored": [picture.name for picture in restored],
        "shown": [picture.name for picture in shown], "found": found, "pairs": list(pairs(columns)),
    }  # fmt: skip
    _common.write(options.json, document)
    if options.sheet is not None:
        sheet(columns).save(options.sheet, quality=88)
    return 0


def drawn(data: Path, count: int) -> tuple[list[Picture], list[Picture]]:
    """Examples and pictures to restore, as squares from their middle."""
    pictures = list_pictures(data, limit=count + EXAMPLES, seed=SEED)
    order = Draw("denoising", SEED).shuffled(range(len(pictures)))
    parts = order[:EXAMPLES], order[EXAMPLES:]
    shown, restored = ([pictures[index] for index in sorted(part)] for part in parts)
    return [squared(picture) for picture in shown], [squared(picture) for picture in restored]


def squared(picture: Picture) -> Picture:
    image = load_image(picture.image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return Picture(picture.name, image.crop((left, top, left + side, top + side)), picture.label)


def measured(
    evaluation: DenoisingEvaluation, folder: Path, set_up: SetUp, tokenizer: Tokenizer, protocol: str
) -> dict[str, Any]:
    """Every row of ``eval denoising``, as its journal has it."""
    same = {
        key: value for key, value in set_up.settings(tokenizer, protocol).items() if key not in ("llm", "tokenizer")
    }
    config = {
        **same,
        "tokenizer": fingerprint(tokenizer),
        "llm": set_up.llm.profile.name,
        "shown": [picture.name for picture in set_up.shown],
        "restored": [picture.name for picture in set_up.restored],
        "tasks": list(set_up.tasks),
        "lpips": evaluation.perceptual is not None,
    }
    with Run.open(folder, "fig9", config, seed=SEED, resume=folder.is_dir()) as run:
        evaluation.measure(run)
        return dict(run.results())


def of_task(
    results: dict[str, Any], task: str, free: ImageDenoiser, puzzles: Sequence[Puzzle], distance: Perceptual | None
) -> dict[str, Any]:
    """Means of each row with their intervals; beside the ceiling of all words that of the words that are decoded."""
    rows = {
        item.removeprefix(f"{task}/"): means(list(result["pictures"].values()))
        for item, result in results.items()
        if item.startswith(f"{task}/")
    }
    rows[CUT] = means([ceiling(free, puzzle, distance) for puzzle in puzzles])
    asked = results[f"{task}/{LLM}"]
    return {
        "words": free.parts_.layout.cumulative[-1],
        "kept": len(puzzles[0].query.known),
        "rows": rows,
        "usage": asked["usage"],
        "failed": [name for name, picture in asked["pictures"].items() if "error" in picture],
    }


def ceiling(free: ImageDenoiser, puzzle: Puzzle, distance: Perceptual | None) -> dict[str, float]:
    """The intact picture through as many words as the LLM's have, measured as every row is."""
    assert puzzle.target is not None and puzzle.target_words is not None  # degraded here
    words = puzzle.target_words.truncate(len(free.parts_.layout))
    image = np.asarray(free.tokenizer_.decode([words])[0])
    region = free.task_.pixels(image.shape[0])
    truth, part = puzzle.target[region][None], image[region][None]
    values = {"psnr": float(psnr(truth, part)[0]), "ssim": float(ssim(truth, part)[0])}
    return values if distance is None else values | {"lpips": float(distance(truth, part)[0])}


def means(pictures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for metric in METRICS:
        mean = RunningMean()
        for picture in pictures:
            if metric in picture:
                mean.add(picture[metric])
        found[metric] = mean.to_dict()
    return found


def outside(free: ImageDenoiser, puzzles: Sequence[Puzzle], folder: Path) -> dict[str, Any]:
    """How many words of unrestricted answers are none of the tokenizer's, of those that stand at a place."""
    decoder = free.fitted.decoder(max_tokens=None, asks=1, fill=True, errors="return")
    images = run_sync(free.fitted.restore(decoder, puzzles, folder, True, None))
    vocabulary = free.tokenizer_.vocabulary
    assert vocabulary is not None  # what is drawn has words
    words = WordSet(vocabulary.words)
    segments = {pass_.number: pass_.segment for pass_ in passes_of(free.parts_.stages, free.parts_.layout)}
    written, strange, missing, shares = 0, 0, 0, RunningMean()
    examples: list[str] = []
    for image in images:
        pieces: list[str] = []
        absent = 0
        for number, answer in image.drawing.answers.items():
            asked = sum(place not in image.puzzle.query.known for place in segments[number].places)
            if answer.texts and asked:
                said = (answer.texts[0].strip().splitlines() or [""])[0].split()[:asked]
                pieces += said
                absent += asked - len(said)
        none = [piece for piece in pieces if words.find(piece, near=False) is None]
        written, strange, missing = written + len(pieces), strange + len(none), missing + absent
        examples += none
        if pieces:
            shares.add(len(none) / len(pieces))
    return {
        "written": written,
        "outside": strange,
        "missing": missing,
        "share_by_picture": shares.to_dict(),
        "failed": [image.puzzle.name for image in images if image.error is not None],
        "most_frequent_outside": Counter(piece.strip(EDGES) or piece for piece in examples).most_common(8),
    }


def pairs(columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """The first tokenizer's LLM row against each other's, on the same pictures."""
    first: dict[tuple[str, str], Column] = {}
    for column in columns:
        other = first.setdefault((column.task, column.protocol), column)
        if other is column:
            continue
        of_first, of_second = (each.results[f"{each.task}/{LLM}"]["pictures"] for each in (other, column))
        for metric, higher in METRICS.items():
            both = [name for name in of_first if metric in of_first[name] and metric in of_second[name]]
            if both:
                values = ([pictures[name][metric] for name in both] for pictures in (of_first, of_second))
                yield {
                    "task": column.task, "protocol": column.protocol, "metric": metric,
                    "first": other.denoiser.tokenizer_.name, "second": column.denoiser.tokenizer_.name,
                    **paired_mean(*values, higher_is_better=higher).to_dict(),
                }  # fmt: skip


def show(cell: str, by_tokenizer: dict[str, Any]) -> None:
    """The table of one task and protocol."""
    print(f"\n{cell}")
    for name, found in by_tokenizer.items():
        free = found["unrestricted"]
        said = f"{free['outside']} of {free['written']} unrestricted words outside, {free['missing']} not written"
        print(f"  {name}: {found['words']} words, {found['kept']} kept; {said}")
        for row, values in found["rows"].items():
            print(f"    {row:20} {mean_text(values['psnr'], 2):>22} {mean_text(values['lpips'], 3):>22}")


def sheet(columns: Sequence[Column]) -> Image.Image:
    """A block for each task and protocol, a line for each picture: the intact picture, then for each tokenizer what it
    makes of the condition's words, the LLM's, and those of the intact picture (as many as the LLM's)."""
    blocks: dict[str, list[Column]] = {}
    for column in columns:
        blocks.setdefault(f"{column.task}, {column.protocol}", []).append(column)
    lines: list[tuple[str, list[tuple[str, Any]]]] = []
    for name, block in blocks.items():
        for index, puzzle in enumerate(block[0].puzzles):
            cells: list[tuple[str, Any]] = [("intact", puzzle.target), ("shown", puzzle.shown)]
            for column in block:
                own = column.puzzles[index]
                assert own.target_words is not None
                cut = own.target_words.truncate(len(column.denoiser.parts_.layout)).words()
                short = column.denoiser.tokenizer_.name.split("-")[0]
                for title, words in (
                    (f"{short}: vote", column.words("plurality", own.name)),
                    (f"{short}: LLM", column.words(LLM, own.name)),
                    (f"{short}: all right", cut),
                ):
                    cells.append((title, None if words is None else picture_of(column, own, words)))
            lines.append((name, cells))
    side = columns[0].puzzles[0].shown.shape[0]
    width = max(len(cells) for _, cells in lines)
    page = Image.new("RGB", (width * (side + GAP) + GAP, len(lines) * (side + GAP) + len(blocks) * TITLE), "white")
    draw, font, top, before = ImageDraw.Draw(page), ImageFont.load_default(12), 0, ""
    for name, cells in lines:
        if name != before:
            for place, (title, _) in enumerate(cells):
                draw.text((place * (side + GAP) + GAP, top + 2), title if place else name, fill="black", font=font)
            top, before = top + TITLE, name
        for place, (_, pixels) in enumerate(cells):
            if pixels is not None:  # else nothing was made
                page.paste(Image.fromarray(pixels), (place * (side + GAP) + GAP, top))
        top += side + GAP
    return page


def picture_of(column: Column, puzzle: Puzzle, words: Sequence[str]) -> Any:
    """What words make of a picture; what was known of it stays."""
    tokenizer = column.denoiser.tokenizer_
    made = np.asarray(tokenizer.decode([tokenizer.from_text(" ".join(words))])[0])
    merged, region = puzzle.shown.copy(), column.denoiser.task_.pixels(made.shape[0])
    merged[region] = made[region]
    return merged


if __name__ == "__main__":
    sys.exit(main())
