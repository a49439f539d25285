"""Few-shot accuracy of the scoring methods beside their baselines, on training classes.

    python benchmarks/few_shot.py --data DIR_or_TAR --episodes 100 --ways 2 5 --shots 1 3 5 --out FILE.json

Rows: channel, direct, direct with contextual calibration, open-ended (free generation, judged by the exact, prefix and
substring scorers), blind, prior, words prototype, image prototype, and label name where the codebook holds the names.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.contracts import Completion, Profile, Prompt, Scores, TextLLM, Usage
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder
from icl_vision.evaluation.few_shot.evaluation import BASELINES, SCORER_OF_BASELINE, FewShotEvaluation
from icl_vision.evaluation.kit.metrics import SCORERS, Accuracy
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.files.runs import Run
from icl_vision.llms import connect
from icl_vision.tokenizers import ImageTokenizer

METHODS: dict[str, dict[str, Any]] = {
    "channel": {"scoring": "channel", "ensemble": None},
    "direct": {"scoring": "direct"},
    "direct_calibrated": {"scoring": "direct", "calibration": "contextual"},
    "open_ended": {"scoring": "parse"},
}


class RememberingLLM:
    """A TextLLM that scores each (prompt, continuation) once: calibrated, plain and blind rows ask the same things."""

    def __init__(self, inner: TextLLM) -> None:
        self.inner = inner
        self._known: dict[tuple[str, str, str], float] = {}

    @property
    def profile(self) -> Profile:
        return self.inner.profile

    def _new(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> list[tuple[Prompt, str]]:
        keyed = {(prompt.text, continuation, terminator): (prompt, continuation) for prompt, continuation in pairs}
        return [pair for key, pair in keyed.items() if key not in self._known]

    def _scores(
        self,
        pairs: Sequence[tuple[Prompt, str]],
        terminator: str,
        new: Sequence[tuple[Prompt, str]],
        found: Scores | None,
    ) -> Scores:
        if found is not None:
            for (prompt, continuation), value in zip(new, found.logprobs, strict=True):
                self._known[prompt.text, continuation, terminator] = value
        values = tuple(self._known[prompt.text, continuation, terminator] for prompt, continuation in pairs)
        return Scores(values, found.usage if found else Usage(), found.method if found else "remembered")

    async def score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores:
        new = self._new(pairs, terminator)
        found = await self.inner.score(new, terminator=terminator) if new else None
        return self._scores(pairs, terminator, new, found)

    def score_sync(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores:
        new = self._new(pairs, terminator)
        found = self.inner.score_sync(new, terminator=terminator) if new else None
        return self._scores(pairs, terminator, new, found)

    def forget(self) -> None:
        """Drop what was remembered (the next episode asks other things)."""
        self._known.clear()

    async def complete(self, prompt: Prompt | str, **options: Any) -> Completion:
        return await self.inner.complete(prompt, **options)

    def complete_sync(self, prompt: Prompt | str, **options: Any) -> Completion:
        return self.inner.complete_sync(prompt, **options)

    async def count_tokens(self, text: str) -> int:
        return await self.inner.count_tokens(text)

    def count_tokens_sync(self, text: str) -> int:
        return self.inner.count_tokens_sync(text)


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


class Cells:
    """Runs one episode in every method and number of shots."""

    def __init__(self, folder: ImageFolder, llm: RememberingLLM, tokenizer: RememberingTokenizer, k: int) -> None:
        self.llm = llm
        methods = METHODS if llm.profile.scores_text else {"open_ended": METHODS["open_ended"]}
        self.evaluations = {
            name: FewShotEvaluation(
                folder, llm=llm, tokenizer=tokenizer, k=k, baselines=(), progress=False, concurrency=1, **options
            )
            for name, options in methods.items()
        }
        self.baselines = FewShotEvaluation(
            folder, llm=llm, tokenizer=tokenizer, k=k, baselines=BASELINES, progress=False, **METHODS["open_ended"]
        )

    def run(self, episode: Episode, shots: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Shots (as text) -> {truth, answers: {row: label or None}, text: the open-ended answer}.

        Shots inside, methods outside: the examples of fewer shots are a prefix of those of more shots, which an LLM's
        prefix cache then reads once.
        """
        smaller = {count: episode.with_shots(count) for count in sorted(shots)}
        found: dict[str, dict[str, Any]] = {
            str(count): {"truth": episode.queries[0].label, "answers": {}} for count in smaller
        }
        for name, evaluation in self.evaluations.items():
            for count, one in smaller.items():
                asked = self.baselines if name == "open_ended" else evaluation
                (query,) = asked.run_episode(one).queries
                row = found[str(count)]
                if name == "open_ended":
                    row["text"] = query.classification.text
                    row["answers"].update(query.baselines)
                else:
                    row["answers"][name] = query.classification.label
        self.llm.forget()
        return found


def accuracies(rows: Sequence[dict[str, Any]]) -> dict[str, Accuracy]:
    """Row name -> accuracy over one cell's episodes; a row that lacks some episodes says so by its n."""
    result: dict[str, Accuracy] = {}
    names = [*METHODS, *BASELINES]
    for name in names:
        if name == "open_ended":
            for scorer, judge in SCORERS.items():
                right = [judge(row["text"], row["truth"]) for row in rows]
                result[name if scorer == "exact" else f"{name}_{scorer}"] = Accuracy.of(right, scorer)
            continue
        asked = [row for row in rows if name in row["answers"]]
        if asked:
            scorer = SCORER_OF_BASELINE.get(name, "likelihood")
            result[name] = Accuracy.compare(
                [row["answers"][name] for row in asked], [row["truth"] for row in asked], scorer
            )
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
        llm = RememberingLLM(connect(arguments.llm))
        cells = Cells(folder, llm, tokenizer, arguments.k)
        for number in range(arguments.episodes):
            for ways in arguments.ways:
                item = f"{ways}-way/{number}"
                if item in run.done:
                    continue
                episode = folder.sample(number, ways=ways, shots=max(shots), queries=1, seed=arguments.seed)
                run.record(item, cells.run(episode, shots))
                asked += 1
            print(f"episode {number + 1} of {arguments.episodes}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        results = dict(run.results())

    summary = []
    for ways in arguments.ways:
        finished = [results[f"{ways}-way/{number}"] for number in range(arguments.episodes)]
        for count in shots:
            rows = accuracies([episode[str(count)] for episode in finished])
            summary.append(
                {
                    "ways": ways,
                    "shots": count,
                    "episodes": len(finished),
                    "rows": {name: accuracy.to_dict() for name, accuracy in rows.items()},
                }
            )
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
