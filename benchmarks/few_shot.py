"""Few-shot accuracy of the scoring methods beside their baselines, on training classes.

    python benchmarks/few_shot.py --data DIR_or_TAR --episodes 100 --ways 2 5 --shots 1 3 5 --out FILE.json

Rows of the few-shot benchmark, beside each other for any numbers of shots: channel, direct, direct with contextual
calibration, open-ended (free generation, judged as exact after normalisation, prefix and substring), blind, prior,
words prototype, image prototype, and label name where the codebook holds the names. `icl-vision eval few-shot` measures
the papers' settings on episodes drawn once; here more can be asked for later.

One query an episode; the episodes of every row are the same, and the support set of fewer shots is the beginning of
that of more shots, so rows and columns are paired. No output is constrained, nothing looks at other queries.

Each image is encoded once and each continuation scored once for all rows. Every finished episode is journalled in
FILE.run/, so that a run that was stopped goes on where it was, and --episodes can be raised later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.config import Setting
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.evaluation.few_shot.items import ItemMaker
from icl_vision.evaluation.few_shot.scorers import LLM_ROWS
from icl_vision.evaluation.few_shot.tally import RowInfo, Tally
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.files.runs import Run
from icl_vision.llms import connect
from icl_vision.tokenizers import ImageTokenizer

OPTIONS = {"scoring": "channel", "ensemble": None}
"""Of the likelihood row: the noisy channel over all examples in one prompt."""

ROWS_OF = {
    "channel": "likelihood",
    "direct": "direct",
    "direct_calibrated": "calibrated",
    "open_ended": "exact_normalised",
    "open_ended_prefix": "prefix",
    "open_ended_substring": "substring",
    **{name: name for name in ("blind", "prior", "words_prototype", "image_prototype", "label_name")},
}
"""Row of a result file -> row of the few-shot benchmark."""


@contextmanager
def images_of(data: Path) -> Iterator[ImageFolder]:
    """The class folders of a folder, or of a tar unpacked into a temporary one (no member may leave it)."""
    if data.is_dir():
        yield ImageFolder(data)
        return
    with tempfile.TemporaryDirectory(prefix="few-shot-") as temporary, tarfile.open(data) as archive:
        archive.extractall(temporary, filter="data")
        root = Path(temporary)
        inside = [path for path in root.iterdir() if path.is_dir()]
        # An archive may hold its class folders inside one outer folder.
        if len(inside) == 1 and any(path.is_dir() for path in inside[0].iterdir()):
            root = inside[0]
        yield ImageFolder(root)


def accuracies(tally: Tally, setting: Setting) -> dict[str, Mapping[str, Any]]:
    """Row of a result file -> its accuracy object; one that lacks some episodes says so by its n."""
    result = {}
    for name, row in ROWS_OF.items():
        accuracy = tally.accuracy(RowInfo.of(LLM_ROWS.get(row) or ROWS[row], "measured"), setting)
        if accuracy is not None:
            result[name] = accuracy.to_dict()
    return result


def print_table(cells: Sequence[dict[str, Any]]) -> None:
    """Rows by cells; per cents with the 95% interval, and n at the foot."""
    names = list(dict.fromkeys(name for cell in cells for name in cell["rows"]))
    heads = [f"{cell['ways']}-way {cell['shots']}-shot" for cell in cells]
    print(f"{'':<22}" + "".join(f"{head:>18}" for head in heads))
    for name in names:
        values = []
        for cell in cells:
            row = cell["rows"].get(name)
            if row is None or row["accuracy"] is None:
                values.append("-")
                continue
            low, high = row["interval"]
            mark = "" if row["n"] == cell["episodes"] else f" n={row['n']}"
            values.append(f"{row['accuracy']:.0%} [{low:.0%}-{high:.0%}]{mark}")
        print(f"{name:<22}" + "".join(f"{value:>18}" for value in values))
    print(f"{'episodes':<22}" + "".join(f"{cell['episodes']:>18}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders, or a tar of one")
    parser.add_argument("--episodes", type=int, default=100, help="episodes per number of ways (default: 100)")
    parser.add_argument("--ways", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--out", type=Path, required=True, help="result file; FILE.run/ beside it holds the journal")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--tokenizer", default="words-photo")
    parser.add_argument("-k", type=int, default=5, help="words per image (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    shots = sorted(set(arguments.shots))
    tokenizer = RememberingTokenizer(ImageTokenizer.from_pretrained(arguments.tokenizer))
    card = json.dumps(dict(tokenizer.card), sort_keys=True, default=str)
    config = {
        "items": 2,  # the form of the journal's
        "data": arguments.data.name,
        "shots": shots,
        "llm": arguments.llm,
        "tokenizer": arguments.tokenizer,
        # A journal must not mix the words of two tokenizers of the same name.
        "tokenizer_card": hashlib.sha256(card.encode()).hexdigest()[:16],
        "k": arguments.k,
    }
    journal = arguments.out.with_suffix(".run")
    began = time.monotonic()
    asked = 0
    with (
        images_of(arguments.data) as folder,
        # The number of ways and episodes is no part of the configuration: both can be extended later.
        Run.open(journal, "benchmarks/few_shot", config, seed=arguments.seed, resume=True) as run,
    ):
        if run.info["seed"] != arguments.seed:
            parser.error(f"{journal} was started with --seed {run.info['seed']}; use it, or another --out")
        maker = ItemMaker(
            llm=connect(arguments.llm),
            tokenizer=tokenizer,
            k=arguments.k,
            image=lambda path: str(folder.path(path)),
            scorers=tuple(row for row in ROWS_OF.values() if row in LLM_ROWS),
            baselines=tuple(row for row in ROWS_OF.values() if row in ROWS),
            options=OPTIONS,
        )
        for number in range(arguments.episodes):
            for ways in arguments.ways:
                name = f"{ways}-way/{number}"
                if name in run.done:
                    continue
                episode = folder.sample(number, ways=ways, shots=max(shots), queries=1, seed=arguments.seed)
                settings = [Setting(ways, count) for count in shots]
                run.record(name, [item for _, item in maker.answered(number, episode, settings)])
                asked += 1
            print(f"episode {number + 1} of {arguments.episodes}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        wanted = {f"{ways}-way/{number}" for ways in arguments.ways for number in range(arguments.episodes)}
        tally = Tally()
        for name, items in run.results():
            if name in wanted:
                for item in items:
                    tally.add(item)

    summary = [
        {"ways": ways, "shots": count, "episodes": arguments.episodes, "rows": accuracies(tally, Setting(ways, count))}
        for ways in arguments.ways
        for count in shots
    ]
    write(
        arguments.out,
        {
            **header(arguments.seed),
            "config": config,
            "classes": len(folder.labels),
            "constrained": False,
            "transductive": False,
            "seconds_of_this_run": round(time.monotonic() - began, 1),
            "episodes_of_this_run": asked,
            "cells": summary,
        },
    )
    print_table(summary)


if __name__ == "__main__":
    main()
