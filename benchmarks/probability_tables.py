"""What the embedded LLM says of every word of a pool of images after every example of it: log P(word | example).

    python benchmarks/probability_tables.py --data DIR_or_TAR ... --tokenizer words-photo -k 5 --images 20 --out FOLDER

With one example a prompt (the classifier's ``ensemble``) this table holds the scores of every episode that can be drawn
from the pool, so that thousands of questions with any ways and shots cost no request more.
``benchmarks/probabilities.py`` draws them, fits the maps of calibrated probabilities, and checks them.

FOLDER/pool.json says images, words and classes; FOLDER/rows-*.npy hold the table, some prompts each, written whole, so
a stopped run goes on (``--minutes`` stops it by itself). Its last columns are the inputs without content, for
contextual calibration. Nothing of a picture is kept but its name in the data.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from few_shot import images_of

from icl_vision import Example, PromptBuilder
from icl_vision.contracts import Tokenizer
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.files.storage import atomic_path, sha256_file, write_json
from icl_vision.llms import connect
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tasks.classify.scoring import CONTENT_FREE
from icl_vision.tasks.inputs import encode
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.wrapping import fingerprint

CHUNK = 16
"""Prompts of one file: half a minute of work at most."""


@dataclass(frozen=True)
class Table:
    """images: (label, path, words). columns: the words. rows: float32 [images, words].
    free: [images, inputs], NaN where they were not asked about."""

    info: dict[str, Any]
    images: tuple[tuple[str, str, tuple[str, ...]], ...]
    columns: tuple[str, ...]
    rows: npt.NDArray[np.float32]
    free: npt.NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path) -> Table:
        info = json.loads((folder / "pool.json").read_text(encoding="utf-8"))
        images = tuple((label, path, tuple(words)) for label, path, words in info["images"])
        files = [folder / f"rows-{start:05d}.npy" for start in range(0, len(images), CHUNK)]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise SystemExit(f"{folder} is not finished: {len(missing)} files are missing, {missing[0]} first")
        rows = np.concatenate([np.load(file, allow_pickle=False) for file in files])
        columns = tuple(info["columns"])
        return cls(info, images, columns, rows[:, : len(columns)], rows[:, len(columns) :])


def inputs() -> tuple[str, ...]:
    """What contextual calibration asks of a channel prompt."""
    return tuple(text for text in CONTENT_FREE if text)


def with_inputs(labels: list[str], count: int) -> set[int]:
    """Places of the first ``count`` images of each class."""
    seen: Counter[str] = Counter()
    places = set()
    for place, label in enumerate(labels):
        if seen[label] < count:
            places.add(place)
        seen[label] += 1
    return places


def pool(
    sources: list[Path], tokenizer_name: str, k: int, images: int, seed: int, without: list[str]
) -> dict[str, Any]:
    """The images of a pool, drawn class by class, and their words. An image's path begins with the name of its data."""
    tokenizer = ImageTokenizer.from_pretrained(tokenizer_name)
    rows = [row for data in sources for row in words_of(data, tokenizer, k, images, seed, without)]
    return {
        "data": {data.name: sha256_file(data) if data.is_file() else None for data in sources},
        "tokenizer": tokenizer_name,
        "tokenizer_hash": fingerprint(tokenizer),
        "k": k,
        "seed": seed,
        "without": without,
        "images": rows,
        "columns": sorted({word for _, _, words in rows for word in words}),
    }


def words_of(
    data: Path, tokenizer: Tokenizer, k: int, images: int, seed: int, without: list[str]
) -> list[tuple[str, str, list[str]]]:
    """(label, path, words) of one data set's images."""
    with images_of(data) as folder:
        chosen = [
            (label, path)
            for label, paths in folder.classes.items()
            if label not in without
            for path in Draw("pool", seed, label).shuffled(paths)[:images]
        ]
        paths = [str(folder.path(path)) for _, path in chosen]
        found = encode(tokenizer, paths, k, batch_size=32, keep_errors=False, done=lambda count: None)
        words = [tokenizer.to_text(pyramid).split() for pyramid in found if not isinstance(pyramid, Exception)]
    return [(label, f"{data.stem}/{path}", row) for (label, path), row in zip(chosen, words, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of class folders, or tars of such")
    parser.add_argument("--tokenizer", default="words-photo")
    parser.add_argument("-k", type=int, default=5, help="words per image (default: 5)")
    parser.add_argument("--images", type=int, default=20, help="images of each class (default: 20)")
    parser.add_argument("--without", nargs="*", default=[], help="labels that are left out")
    parser.add_argument(
        "--free", type=int, default=8, help="so many images of each class are asked about inputs without content too"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next call goes on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "pool.json"
    if not file.exists():
        chosen = pool(options.data, options.tokenizer, options.k, options.images, options.seed, options.without)
        write_json(file, chosen)
    info = json.loads(file.read_text(encoding="utf-8"))
    llm = connect("local")
    labels = sorted({label for label, _, _ in info["images"]})
    origins = {(label, path.split("/")[0]) for label, path, _ in info["images"]}
    if len(origins) != len(labels):
        raise SystemExit("two data sets share a label: leave it out of one with --without")
    examples = [Example(" ".join(words), label) for label, _, words in info["images"]]
    alone = Ensemble.of(PromptBuilder("classification").channel(), examples, labels)
    prompts = [member.query(label=label) for member, label in zip(alone.members, alone.shown, strict=True)]
    calibrated = with_inputs([label for label, _, _ in info["images"]], options.free)
    for start in range(0, len(prompts), CHUNK):
        target = options.out / f"rows-{start:05d}.npy"
        if target.exists():
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print("time is up; the same command goes on", file=sys.stderr)
            raise SystemExit(3)
        rows = []
        for place, prompt in enumerate(prompts[start : start + CHUNK], start):
            row = llm.score_sync([(prompt, " " + word) for word in info["columns"]], terminator="").logprobs
            free: tuple[float, ...] = (math.nan,) * len(inputs())
            if place in calibrated:  # several tokens each, so five times as dear as all the words together
                free = llm.score_sync([(prompt, " " + text) for text in inputs()], terminator="").logprobs
            rows.append([*row, *free])
        with atomic_path(target) as temporary, temporary.open("wb") as out:
            np.save(out, np.asarray(rows, dtype=np.float32), allow_pickle=False)
        print(f"{start + CHUNK} of {len(prompts)}, {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
