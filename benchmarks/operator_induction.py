"""Two digits and a hidden operator: what an LLM induces from perfect text, and what of that digit words keep.

    python benchmarks/operator_induction.py --digits mnist.npz --episodes 100 --out operator_induction.json

The same episodes (``evaluation/answering/readers/operators.py``) in every cell, with 2, 4 and 8 examples, fewer being
the first of more, also where only fewer are asked for; a line a pair, ``3 ? 4 = 7`` (template ``answer_operator``),
greedy, exact match. Cells:

- ``text``: the digits themselves, the ceiling; ``text, operator shown``: ``3 + 4 = 7``, so that nothing is to be
  induced and only arithmetic is left;
- ``words``: the 5 words of ``spae-digits-32`` (layer 1, which names the digit, and the 4 of layer 2);
- ``words without layer 1``: the 4 of layer 2; ``layer 1``: that one word;
- ``blind``: results without operands; and, without an LLM, the most frequent result among the examples.

Answers are journalled in FILE.run/CELL, so a stopped run goes on, also with more --episodes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision import ImageTokenizer, TokenPyramid
from icl_vision.evaluation.answering.benches import question_bench
from icl_vision.evaluation.answering.config import AnsweringConfig
from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation
from icl_vision.evaluation.answering.readers import (
    OPERATORS,
    Digits,
    OperatorEpisode,
    QASet,
    digit_set,
    operator_episodes,
    operator_questions,
)
from icl_vision.evaluation.kit.compare import holm, mcnemar_exact, paired_interval
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.files.runs import read_results
from icl_vision.llms import connect

TOKENIZER, WORDS = "spae-digits-32", 5
SHOTS = (2, 4, 8)
CELLS = ("text", "text, operator shown", "words", "words without layer 1", "layer 1", "blind")
OPTIONS = {"template": "answer_operator", "induction": False, "max_tokens": 4}


def describing(cell: str, digits: Digits, words: dict[int, TokenPyramid]) -> Callable[[int], str]:
    """What stands for a digit in a cell."""
    layers = {"words": None, "words without layer 1": 2, "layer 1": 1}
    if cell in layers:
        return lambda place: " ".join(words[place].words(layers[cell]))
    return digits.labels.__getitem__


def question_set(cell: str, digits: Digits, episodes: list[OperatorEpisode], words: dict[int, TokenPyramid]) -> QASet:
    """A cell's questions."""
    describe = describing(cell, digits, words)
    return operator_questions(episodes, digits, describe, hidden="shown" not in cell, name=cell)


def figures(right: dict[str, bool]) -> dict[str, Any]:
    """An accuracy, JSON-ready."""
    return Accuracy.of(right.values(), "exact").to_dict()


def paired(first: dict[str, bool], second: dict[str, bool]) -> dict[str, Any]:
    """First minus second on the same episodes."""
    both = sorted(first.keys() & second.keys())
    only = [sum(a[key] and not b[key] for key in both) for a, b in ((first, second), (second, first))]
    return {
        "difference": (only[0] - only[1]) / len(both),
        "interval": list(paired_interval(*only, len(both))),
        "p": mcnemar_exact(*only),
        "n": len(both),
    }


def by_operator(data: QASet, right: dict[str, bool]) -> dict[str, Any]:
    """Accuracies of each hidden operator."""
    kinds = {question.id: question.type for question in data}
    return {kind: figures({key: value for key, value in right.items() if kinds[key] == kind}) for kind in OPERATORS}


def what_was_said(
    episodes: list[OperatorEpisode], digits: Digits, answers: dict[str, str], shots: int
) -> dict[str, Any]:
    """How often an answer is the result of any of the operators for the digits asked about, how often of the hidden one
    among these (more than a third without any induction: results of one operator are of a size, which the examples
    show), and how often it is a result of the examples, copied or not."""

    def results(pair: tuple[int, int]) -> dict[str, str]:
        left, right = (int(digits.labels[place]) for place in pair)
        return {name: str(rule(left, right)) for name, rule in OPERATORS.items()}

    computed = {}
    copied = {}
    for episode in episodes:
        answer = answers[str(episode.number)].strip()
        computed[str(episode.number)] = next(
            (name for name, result in results(episode.query).items() if result == answer), ""
        )
        copied[str(episode.number)] = answer in {results(pair)[episode.operator] for pair in episode.examples[:shots]}
    hidden = {str(episode.number): episode.operator for episode in episodes}
    return {
        "a_result_of_an_operator": figures({key: bool(name) for key, name in computed.items()}),
        "of_the_hidden_one_among_these": figures({key: name == hidden[key] for key, name in computed.items() if name}),
        "a_result_of_the_examples": figures(copied),
    }


def most_frequent(data: QASet, shots: int) -> dict[str, bool]:
    """Without an LLM: the most frequent result among the examples shown, the last of equals."""
    right = {}
    for question in data:
        results = [example.answers[0] for example in question.examples[:shots]]
        best = max(range(len(results)), key=lambda place: (results.count(results[place]), place))
        right[question.id] = results[best] in question.answers
    return right


def main() -> None:
    """Ask, sum up, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", help="an .npz file in MNIST's layout; without it the packaged digits")
    parser.add_argument("--llm", default="local", help="a connect() string")
    parser.add_argument("--api", help="how an LLM on this machine is spoken to; completions for instruct models")
    parser.add_argument("--threads", type=int, help="of an LLM on this machine")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument(
        "--drawn-for", type=int, default=max(SHOTS), help="examples that episodes are drawn with, shown or not"
    )
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()

    digits = digit_set(options.digits)
    most = max(*options.shots, options.drawn_for)
    episodes = operator_episodes(digits, options.episodes, shots=most, seed=options.seed)
    used = sorted({place for one in episodes for pair in (*one.examples, one.query) for place in pair})
    tokenizer = ImageTokenizer.from_pretrained(TOKENIZER)
    encoded = tokenizer.encode([digits.images[place] for place in used], k=WORDS)
    words = dict(zip(used, encoded, strict=True))
    named = [words[place].words(1)[0] for place in used]
    wanted = {"api": options.api, "threads": options.threads}
    llm = connect(options.llm, **{name: value for name, value in wanted.items() if value is not None})
    rights: dict[str, dict[int, dict[str, bool]]] = {}
    said: dict[str, dict[int, dict[str, str]]] = {}
    tokens: dict[str, dict[int, float]] = {}
    for shots in options.shots:
        for cell in options.cells:
            data = question_set(cell, digits, episodes, words)
            row = "blind:greedy" if cell == "blind" else "given:greedy"
            config = AnsweringConfig(rows=(row,), shots=shots, seed=options.seed, options=OPTIONS)
            folder = options.out.with_suffix(".run") / f"{cell.replace(', ', '-').replace(' ', '-')}-{shots}"
            evaluation = AnsweringEvaluation(
                question_bench(data, shots=shots, seed=options.seed), "exact", llm=llm, config=config
            )
            evaluation.run(folder, resume=(folder / "run.json").exists(), progress=False)
            lines = [line for _, line in read_results(folder) if line["row"] == row]
            rights.setdefault(cell, {})[shots] = {line["item"]: bool(line["score"]) for line in lines}
            said.setdefault(cell, {})[shots] = {line["item"]: str(line["answer"]) for line in lines}
            tokens.setdefault(cell, {})[shots] = sum(line["usage"]["prompt_tokens"] for line in lines) / len(lines)
            print(cell, shots, Accuracy.of(rights[cell][shots].values(), "exact"), flush=True)

    reference = question_set("text", digits, episodes, words)
    pairs = [
        (first, second, shots)
        for shots in options.shots
        for first, second in (
            ("words", "blind"),
            ("words", "text"),
            ("words without layer 1", "blind"),
            ("text", "blind"),
        )
        if first in rights and second in rights
    ]
    compared = [paired(rights[first][shots], rights[second][shots]) for first, second, shots in pairs]
    document = header(options.seed) | {
        "llm": llm.profile.name,
        "digits": digits.name,
        "episodes": len(episodes),
        "scorer": "exact",
        "options": OPTIONS,
        "layer_1": {
            "names_the_digit": figures(
                {str(place): _names(word, digits.labels[place]) for place, word in zip(used, named, strict=True)}
            ),
            "words": {
                label: sorted({word for place, word in zip(used, named, strict=True) if digits.labels[place] == label})
                for label in "0123456789"
            },
        },
        "cells": [
            {
                "cell": cell,
                "shots": shots,
                "prompt_tokens": round(tokens[cell][shots], 1),
                **figures(right),
                "by_operator": by_operator(reference, right),
                **what_was_said(episodes, digits, said[cell][shots], shots),
            }
            for cell, found in rights.items()
            for shots, right in found.items()
        ],
        "without_llm": [
            {"row": "most frequent result of the examples", "shots": shots, **figures(most_frequent(reference, shots))}
            for shots in options.shots
        ],
        "comparisons": [
            {"rows": [first, second], "shots": shots, **result, "p_holm": p}
            for (first, second, shots), result, p in zip(
                pairs, compared, holm([one["p"] for one in compared]), strict=True
            )
        ],
    }
    write(options.out, document)


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _names(word: str, label: str) -> bool:
    """Whether a word is the digit's name."""
    return word in (label, NAMES[int(label)])


if __name__ == "__main__":
    main()
