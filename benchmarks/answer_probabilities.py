"""Fits the packaged map of probabilities of answers, and says what it does on questions that it was not fitted to.

    python benchmarks/answer_probabilities.py --data coco-captions-vqa.tar --out answer_probabilities.json
    python benchmarks/answer_probabilities.py --data coco-captions-vqa.tar --out FILE.json --package FOLDER
    python benchmarks/answer_probabilities.py --data coco-captions-vqa.tar --out FILE.json --unseen

Every tuning question of COCO-QA (no picture of the test, none with captions) is asked as ``VisualQA`` asks by default,
eight examples chosen among the questions about all other tuning pictures; answers are kept in the user's cache, so that
a stopped run goes on. What is fitted is how often the best candidate is right (``fit_outcomes``).

Held out: the pictures are dealt into two halves, and each half is measured with the temperature of the other, so that
no question is measured by a map that saw it or another about its picture; over ``DEALS`` deals. Intervals are
bootstraps over pictures.

``--unseen`` measures the packaged map, frozen, on the answers of the test's one run (the row ``describe-near:fused`` of
``icl-vision eval answers``), which are read from the user's cache: where that run was made, nothing is asked again.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision import ImageTokenizer, VisualQA
from icl_vision.contracts import Answer, TextLLM
from icl_vision.evaluation.answering.benches import TEST, question_bench
from icl_vision.evaluation.answering.config import AnsweringConfig
from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation
from icl_vision.evaluation.answering.metrics import exact_answer
from icl_vision.evaluation.answering.readers import Question, read_questions
from icl_vision.evaluation.answering.rows import DESCRIBE_NEAR, WORDS
from icl_vision.evaluation.answering.words import PicturesInWords
from icl_vision.files.storage import sha256_file, write_json
from icl_vision.llms import connect
from icl_vision.probabilities import fit_outcomes, reliability
from icl_vision.probabilities.maps import softmax
from icl_vision.tasks import packaged_examples
from icl_vision.tasks.answer.calibrating import UNDERFLOWED, situation_of
from icl_vision.tokenizers.describe import reading
from icl_vision.tokenizers.wrapping import fingerprint

TOKENIZER, SPLIT, SEED, DEALS = "describe-photo", "tuning", 0, 20


@dataclass(frozen=True)
class Told:
    """One answer. scores: of its candidates. right: whether it was. picture: the number of its picture."""

    scores: npt.NDArray[np.float64]
    right: bool
    picture: int
    type: str


def asked(data: Path, llm: TextLLM) -> tuple[list[Told], VisualQA]:
    """Every tuning question, asked; and the task as it was last fitted."""
    bench = question_bench(read_questions(data), SPLIT)
    words = PicturesInWords(bench.pool, ImageTokenizer.from_pretrained)
    row = WORDS[DESCRIBE_NEAR]
    numbers: dict[str, int] = {}
    told = []
    task = VisualQA(llm, words.tokenizer(row), probabilities="raw", progress=False)
    task._tells_all = True
    for item in bench.first(None):
        others = bench.others(item)
        task.fit(
            [words.of(row, other) for other in others],
            [other.question for other in others],
            [other.answers for other in others],
        )
        (answer,) = task.answers([words.of(row, item)], [item.question])
        if len(answer.probabilities or ()) < 2:
            continue  # one candidate alone is certain whatever the temperature
        told.append(_told(answer, item, numbers))
        print(f"{len(told)} {answer.text!r} {answer.probability:.2f}", flush=True)
    return told, task


def logged(data: Path, llm: TextLLM) -> list[Told]:
    """Every question of the test, as the evaluation asks it."""
    config = AnsweringConfig(rows=(f"{DESCRIBE_NEAR}:fused",))
    evaluation = AnsweringEvaluation(question_bench(read_questions(data), TEST), "exact", llm=llm, config=config)
    (row,) = evaluation.rows
    numbers: dict[str, int] = {}
    told = []
    for item in evaluation.items:
        task, pictures = evaluation._task(row, item, llm)
        assert isinstance(task, VisualQA)  # questions are asked
        task._tells_all = True
        (answer,) = task.answers([pictures], [item.question])
        if len(answer.probabilities or ()) > 1:
            told.append(_told(answer, item, numbers))
    return told


def _told(answer: Answer, item: Question, numbers: dict[str, int]) -> Told:
    scores = np.log(np.maximum(list((answer.probabilities or {}).values()), UNDERFLOWED))
    picture = numbers.setdefault(item.pictures[0].name, len(numbers))
    return Told(scores, exact_answer(answer.text, item.answers), picture, item.type)


def temperature_of(told: Sequence[Told]) -> float:
    """The temperature that fits best."""
    return fit_outcomes([one.scores.tolist() for one in told], [one.right for one in told]).temperature


def shares_with(told: Sequence[Told], temperatures: Sequence[float]) -> npt.NDArray[np.float64]:
    """The probability of each answer, each with a temperature of its own."""
    return np.asarray([softmax(one.scores / t).max() for one, t in zip(told, temperatures, strict=True)])


def measured(told: Sequence[Told], temperatures: Sequence[float], repeats: int = 1000) -> dict[str, Any]:
    """Calibration error, log-loss and Brier score of "this answer is right"."""
    shares, right = shares_with(told, temperatures), np.asarray([one.right for one in told])
    document = reliability(shares, right, groups=[one.picture for one in told], seed=SEED, repeats=repeats).to_dict()
    del document["brier"]  # of all candidates; the right one need not be among them
    return document | {
        "log_loss": float(losses_of(told, temperatures).mean()),
        "brier_of_being_right": float(((shares - right) ** 2).mean()),
    }


def losses_of(told: Sequence[Told], temperatures: Sequence[float]) -> npt.NDArray[np.float64]:
    """-log of the probability of what happened, for each answer."""
    shares = shares_with(told, temperatures)
    said = np.where([one.right for one in told], shares, 1 - shares)
    return np.asarray(-np.log(np.clip(said, 1e-6, 1.0)), dtype=np.float64)


def gain(told: Sequence[Told], temperatures: Sequence[float], repeats: int = 4000) -> dict[str, Any]:
    """How much less log-loss than the scores as they are, with a paired bootstrap over pictures."""
    less = losses_of(told, [1.0] * len(told)) - losses_of(told, temperatures)
    pictures = np.asarray([one.picture for one in told])
    count = int(pictures.max()) + 1
    sums, sizes = np.bincount(pictures, less, count), np.bincount(pictures, minlength=count)
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), repeats)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [0.025, 0.975])
    return {"difference": float(less.mean()), "interval": [float(low), float(high)]}


def held_out(told: Sequence[Told], deal: int) -> list[float]:
    """For each answer the temperature fitted to the half of the pictures that its own is not in."""
    pictures = max(one.picture for one in told) + 1
    half = set(np.random.default_rng([SEED, deal]).permutation(pictures)[: pictures // 2].tolist())
    first, second = (
        temperature_of([one for one in told if (one.picture in half) is inside]) for inside in (True, False)
    )
    return [second if one.picture in half else first for one in told]


def main() -> None:
    """Ask, fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="COCO-QA with captions, a folder or tar")
    parser.add_argument("--out", type=Path, required=True, help="the figures, as JSON")
    parser.add_argument("--package", type=Path, help="write the map as a folder of maps")
    parser.add_argument("--unseen", action="store_true", help="measure the packaged map on the test's logged answers")
    parser.add_argument("--threads", type=int, help="of the LLM")
    options = parser.parse_args()

    llm = connect("local", slots=4, threads=options.threads, cache=True)
    if options.unseen:
        write(options.out, header(SEED) | unseen(options.data, llm))
        return
    told, task = asked(options.data, llm)
    temperature = temperature_of(told)
    deals = [held_out(told, deal) for deal in range(DEALS)]
    errors = [measured(told, temperatures, repeats=50)["ece"] for temperatures in deals]
    losses = [measured(told, temperatures, repeats=50)["log_loss"] for temperatures in deals]
    document = header(SEED) | {
        "llm": llm.profile.name,
        "data": options.data.name,
        "questions": len(told),
        "pictures": len({one.picture for one in told}),
        "temperature": temperature,
        "raw": measured(told, [1.0] * len(told)),
        "held_out": measured(told, deals[0]),
        "in_sample": measured(told, [temperature] * len(told)),
        "less_log_loss_held_out": gain(told, deals[0]),
        "always_the_mean": _constant(told),
        "over_deals": {
            "deals": DEALS,
            "ece": _spread(errors),
            "log_loss": _spread(losses),
            "temperature": _spread([t for temperatures in deals for t in sorted(set(temperatures))]),
        },
    }
    write(options.out, document)
    for name in ("raw", "held_out", "in_sample"):
        print(name, {key: document[name][key] for key in ("accuracy", "confidence", "ece", "interval", "log_loss")})
    print(
        temperature, *(document[key] for key in ("less_log_loss_held_out", "always_the_mean", "over_deals")), sep="\n"
    )
    if options.package is not None:
        package(options.package, options.data, task, told, document)


def unseen(data: Path, llm: TextLLM) -> dict[str, Any]:
    """The packaged map on the test."""
    task = VisualQA(llm, TOKENIZER, progress=False).fit(*packaged_examples())
    found = task.probability_map_
    assert found is not None and found.source == "packaged"
    told = logged(data, llm)
    document: dict[str, Any] = {
        "llm": llm.profile.name,
        "data": data.name,
        "part": TEST,
        "questions": len(told),
        "pictures": len({one.picture for one in told}),
        "temperature": found.temperature,
        "raw": measured(told, [1.0] * len(told)),
        "calibrated": measured(told, [found.temperature] * len(told)),
        "less_log_loss": gain(told, [found.temperature] * len(told)),
        "always_the_mean": _constant(told),
        "by_type": {
            kind: {name: measured(own, [t] * len(own)) for name, t in (("raw", 1.0), ("calibrated", found.temperature))}
            for kind in sorted({one.type for one in told})
            if (own := [one for one in told if one.type == kind])
        },
    }
    for name in ("raw", "calibrated"):
        print(name, {key: document[name][key] for key in ("accuracy", "confidence", "ece", "interval", "perfect")})
    print(document["less_log_loss"])
    return document


def package(folder: Path, data: Path, task: VisualQA, told: Sequence[Told], document: dict[str, Any]) -> None:
    """The folder of maps: a card, the map, and what was measured."""
    situation = situation_of(task.fitted)
    assert situation is not None  # the default way
    folder.mkdir(parents=True, exist_ok=True)
    rule = {
        "tokenizer": TOKENIZER,
        "tokenizer_hash": situation.tokenizer,
        "template": "answer",
        "prompt": situation.prompt,
        "method": situation.method,
        "ensemble": situation.ensemble,
        "contextual": situation.contextual,
        "axes": {"words": [situation.words], "ways": [situation.ways], "shots": [situation.shots]},
        "temperatures": [[[document["temperature"]]]],
        "n": len(told),
    }
    # Where nobody can read text the tokenizer is another one by its fingerprint. Text enters no candidate of these
    # questions: fitted without it, all figures are the same to the last digit.
    with mock.patch.object(reading, "can_read", lambda: False):
        unread = rule | {"tokenizer_hash": fingerprint(ImageTokenizer.from_pretrained(TOKENIZER))}
    rules = [rule] if unread == rule else [rule, unread]
    write_json(folder / "maps.json", {"rules": rules})
    kept = (
        "questions",
        "pictures",
        "raw",
        "held_out",
        "in_sample",
        "less_log_loss_held_out",
        "always_the_mean",
        "over_deals",
    )
    write_json(folder / "measured.json", {key: document[key] for key in kept})
    write_json(
        folder / "card.json",
        {
            "format_version": 1,
            "name": folder.name,
            "kind": "probability maps",
            "llm": situation.llm,
            "description": "The temperature that makes probabilities of the embedded LLM's scores of answers, fused "
            "with describe-photo's words, eight nearest examples. Fitted to tuning questions; it changes no answer.",
            "licence": "MIT",
            "data": {data.name: {"sha256": sha256_file(data), "part": SPLIT, "questions": len(told)}},
            **{key: document[key] for key in ("date", "command", "commit", "seed", "machine", "versions")},
            "files": {name: sha256_file(folder / name) for name in ("maps.json", "measured.json")},
        },
    )


def _constant(told: Sequence[Told]) -> dict[str, Any]:
    """What saying the same of every answer would give: the share right, which nobody knows before."""
    share = sum(one.right for one in told) / len(told)
    return {"probability": share, "log_loss": -(share * math.log(share) + (1 - share) * math.log(1 - share))}


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {"5%": float(low), "median": float(middle), "95%": float(high)}


if __name__ == "__main__":
    main()
