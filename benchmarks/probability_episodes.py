"""Scores of the rules that ask about each question by itself (one prompt of all examples), for their calibration.

    python benchmarks/probability_episodes.py --data DIR_or_TAR --rules direct channel --episodes 80 --out FOLDER

Each episode is asked by ``FewShotClassifier`` with raw probabilities, plainly and with contextual calibration, which
share their answers. FOLDER is a run folder: an episode that is finished is not asked again, ``--minutes`` stops the
script by itself, and more ``--episodes`` go on. ``benchmarks/probabilities.py`` fits and checks with what it kept.

What each example alone says (the classifier's ``ensemble``) is collected by ``benchmarks/probability_tables.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from few_shot import images_of

from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder
from icl_vision.evaluation.few_shot.scorers import SharedAnswers
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.files.runs import Run
from icl_vision.files.storage import sha256_file
from icl_vision.llms import connect
from icl_vision.tasks import FewShotClassifier
from icl_vision.tokenizers import ImageTokenizer

SETTINGS = ((5, 1), (5, 3), (5, 5), (2, 3), (5, 1), (5, 3), (5, 5), (10, 1))
"""(ways, shots) of the episodes in turn: the three that are reported most often, others for the change with ways."""

QUERIES = 5
RULES: dict[str, dict[str, Any]] = {
    "direct": {"scoring": "direct", "ensemble": None},
    "channel": {"scoring": "channel", "ensemble": None},
}
LEAST = 1e-300
"""A probability that underflowed is taken for this."""


def ask(
    episode: Episode,
    rules: Sequence[str],
    llm: Any,
    tokenizer: RememberingTokenizer,
    k: int | None,
    folder: ImageFolder,
) -> dict[str, Any]:
    """{rule: {plain, contextual: log-probabilities [queries, labels]}, and the truth as places of labels."""
    labels = sorted(episode.labels)
    found: dict[str, Any] = {
        "ways": episode.ways,
        "shots": episode.shots,
        "labels": labels,
        "images": [item.path for item in (*episode.support, *episode.queries)],
        "truth": [labels.index(item.label) for item in episode.queries],
    }
    for rule in rules:
        shared = SharedAnswers(llm)
        for name, calibration in (("plain", None), ("contextual", "contextual")):
            classifier = FewShotClassifier(shared, tokenizer, k, calibration=calibration, progress=False, **RULES[rule])
            if "probabilities" in classifier.get_params():
                classifier.set_params(probabilities="raw")
            classifier.fit([folder.path(i) for i in episode.support], [i.label for i in episode.support])
            shares = classifier.predict_proba([folder.path(item) for item in episode.queries])
            found.setdefault(rule, {})[name] = np.log(np.maximum(shares, LEAST)).round(6).tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders, or a tar of one")
    parser.add_argument("--rules", nargs="+", choices=[*RULES], default=[*RULES])
    parser.add_argument("--episodes", type=int, default=80)
    parser.add_argument("--tokenizer", default="words-photo")
    parser.add_argument("-k", type=int, default=5, help="words per image (default: 5)")
    parser.add_argument("--without", nargs="*", default=[], help="labels that are left out")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next call goes on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    began = time.monotonic()
    config = {
        "data": options.data.name,
        "data_sha256": sha256_file(options.data) if options.data.is_file() else None,
        "rules": sorted(options.rules),
        "tokenizer": options.tokenizer,
        "k": options.k,
        "without": options.without,
    }
    tokenizer = RememberingTokenizer(ImageTokenizer.from_pretrained(options.tokenizer))
    llm = connect("local")
    with (
        images_of(options.data) as folder,
        Run.open(options.out, "benchmarks/probability_episodes", config, seed=options.seed, resume=True) as run,
    ):
        folder.classes = {label: paths for label, paths in folder.classes.items() if label not in options.without}
        for number in range(options.episodes):
            if str(number) in run.done:
                continue
            if time.monotonic() - began > 60 * options.minutes:
                print("time is up; the same command goes on", file=sys.stderr)
                raise SystemExit(3)
            ways, shots = SETTINGS[number % len(SETTINGS)]
            episode = folder.sample(number, ways=ways, shots=shots, queries=QUERIES, seed=options.seed)
            run.record(str(number), ask(episode, options.rules, llm, tokenizer, options.k, folder))
            print(f"episode {number + 1} of {options.episodes}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        run.finish({"episodes": options.episodes})


if __name__ == "__main__":
    main()
