"""Ways to read a label out of an LLM's log-probabilities of words, compared on the same questions, on training classes.

    python benchmarks/scoring_rules.py --data DIR_or_TAR --episodes 50 --seed 1 --out FILE.json

5-way by default, one question about an image of each class of an episode, and 1, 3 and 5 shots that begin with the same
images. Every rule sees the same words; the words prototype (no LLM) is the row that each is compared with, by the
questions that only one of the two answers rightly (McNemar). What the rules are: ``RULES``; what came of them:
docs/few-shot-scoring.md. Finished episodes are journalled in FILE.run/, so a stopped run goes on, also with more
--episodes.

A prompt ends in "label:", and every word of an image is scored as the next one (a bag), but for "one_prompt_in_order".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from few_shot import images_of

from icl_vision import Example, PromptBuilder
from icl_vision.contracts import Prompt, TextLLM, Usage
from icl_vision.evaluation.few_shot.baselines import words_prototype
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.files.runs import Run
from icl_vision.llms import connect
from icl_vision.tasks.classify.ensemble import pool
from icl_vision.tasks.classify.scoring import make_inquiry
from icl_vision.tokenizers import ImageTokenizer

Scores = npt.NDArray[np.float64]
NEUTRAL = "photo"
"""Stands for every label where a rule withholds the labels' names."""


@dataclass(frozen=True)
class Words:
    """An episode at some number of shots as the LLM reads it: examples (label, words), labels, the query's words."""

    examples: tuple[tuple[str, tuple[str, ...]], ...]
    labels: tuple[str, ...]
    query: tuple[str, ...]


class Model:
    """Log-probabilities of words after a prompt, each asked once."""

    def __init__(self, llm: TextLLM) -> None:
        self.llm = llm
        self.bag: dict[str, dict[str, float]] = {}
        self.usage = Usage()

    def read(self, prompts: Sequence[str], words: Sequence[str]) -> None:
        """Ask for every word after every prompt that is new."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.bag]
        if not new:
            return
        pairs = [(Prompt.of(prompt), f" {word}") for prompt in new for word in words]
        found = self.llm.score_sync(pairs, terminator="")
        self.usage += found.usage
        table = np.reshape(found.logprobs, (len(new), len(words)))
        self.bag |= {
            prompt: dict(zip(words, row.tolist(), strict=True)) for prompt, row in zip(new, table, strict=True)
        }

    def of(self, prompt: str, words: Sequence[str]) -> Scores:
        """[words], of a prompt that was read."""
        return np.asarray([self.bag[prompt][word] for word in words])


def line(label: str, words: Sequence[str]) -> str:
    """An example as the channel template writes it."""
    return f"{label}: {' '.join(words)}\n"


def alone(label: str, words: Sequence[str]) -> str:
    """The prompt of one example."""
    return f"{line(label, words)}{label}:"


def block(task: Words, label: str) -> str:
    """The prompt of one class with all its examples."""
    return "".join(line(name, words) for name, words in task.examples if name == label) + f"{label}:"


def whole(task: Words, label: str) -> str:
    """The prompt of all examples, ordered as the library orders them."""
    examples = [Example(" ".join(words), name) for name, words in task.examples]
    return PromptBuilder("classification_channel").prepare(examples, task.labels).query(label=label).text


def _tables(model: Model, task: Words, neutral: bool) -> tuple[Scores, tuple[str, ...]]:
    """Log-probabilities of the query's words after each example, [examples, words], and the examples' labels."""
    rows = [model.of(alone(NEUTRAL if neutral else name, words), task.query) for name, words in task.examples]
    return np.stack(rows), tuple(name for name, _ in task.examples)


def by_class(rows: Scores, shown: Sequence[str], task: Words, how: Callable[[Scores], Any]) -> Scores:
    """One number for each label, of its examples' rows."""
    of = np.asarray(shown)
    return np.asarray([float(how(rows[of == label])) for label in task.labels])


def mixture(model: Model, task: Words, neutral: bool = False) -> Scores:
    """The library's ``ensemble="examples"``."""
    table, shown = _tables(model, task, neutral)
    return np.asarray(pool(table.ravel().tolist(), shown, task.labels))


def centred(model: Model, task: Words) -> Scores:
    """The mixture, less half of what each example's prompt gives to the words of other classes' examples."""
    generosity = np.asarray(
        [
            np.mean([model.of(alone(name, words), other).sum() for label, other in task.examples if label != name])
            for name, words in task.examples
        ]
    )
    return mixture(model, task) - 0.5 * by_class(generosity, [name for name, _ in task.examples], task, np.mean)


def reverse(model: Model, task: Words) -> Scores:
    """How much likelier the examples' words are after the query's words than after other classes' examples."""
    asked = alone(NEUTRAL, task.query)
    gains = []
    for name, words in task.examples:
        others = [model.of(alone(NEUTRAL, other), words).sum() for label, other in task.examples if label != name]
        gains.append(model.of(asked, words).sum() - np.mean(others))
    return by_class(np.asarray(gains), [name for name, _ in task.examples], task, np.mean)


def _pooled(model: Model, task: Words, how: Callable[[Scores], Any]) -> Scores:
    table, shown = _tables(model, task, False)
    return by_class(table.sum(axis=1), shown, task, how)


RULES: Mapping[str, tuple[str, Callable[[Model, Words], Scores]]] = {
    "examples_mixture": ("each example alone; a class mixes its examples word by word (the default)", mixture),
    "examples_mean": ("the same, mean of the examples' log-scores", lambda m, t: _pooled(m, t, np.mean)),
    "examples_likeliest": ("the same, log-sum-exp of whole bags", lambda m, t: _pooled(m, t, np.logaddexp.reduce)),
    "examples_centred": ("the mixture, half-calibrated on the other classes' examples", centred),
    "examples_no_name": (f"the mixture with {NEUTRAL!r} for every label", lambda m, t: mixture(m, t, True)),
    "reverse": ("the examples' words given the query's, no label names", reverse),
    "mixture_and_reverse": ("the mixture plus half of reverse", lambda m, t: mixture(m, t) + 0.5 * reverse(m, t)),
    "class_block": (
        "all examples of one class in a prompt",
        lambda m, t: np.asarray([m.of(block(t, label), t.query).sum() for label in t.labels]),
    ),
    "one_prompt": (
        "all examples of all classes in one prompt",
        lambda m, t: np.asarray([m.of(whole(t, label), t.query).sum() for label in t.labels]),
    ),
    "name_only": (
        "no examples, only the label's name",
        lambda m, t: np.asarray([m.of(f"{label}:", t.query).sum() for label in t.labels]),
    ),
}
"""Name -> what it is, and the score of each label."""

NEEDS: Mapping[str, Callable[[Words], list[str]]] = {
    "alone": lambda task: [alone(name, words) for name, words in task.examples],
    "neutral": lambda task: [alone(NEUTRAL, words) for _, words in task.examples] + [alone(NEUTRAL, task.query)],
    "block": lambda task: [block(task, label) for label in task.labels],
    "whole": lambda task: [whole(task, label) for label in task.labels],
    "name": lambda task: [f"{label}:" for label in task.labels],
}
PROMPTS_OF = {
    "examples_mixture": ("alone",),
    "examples_mean": ("alone",),
    "examples_likeliest": ("alone",),
    "examples_centred": ("alone",),
    "examples_no_name": ("neutral",),
    "reverse": ("neutral",),
    "mixture_and_reverse": ("alone", "neutral"),
    "class_block": ("block",),
    "one_prompt": ("whole",),
    "name_only": ("name",),
}
IN_ORDER = "one_prompt_in_order"
"""All examples in one prompt, the words scored one after the other: the library's ``ensemble=None``."""


def in_order(llm: TextLLM, task: Words) -> Scores:
    """The channel as one prompt, asked of the LLM directly."""
    examples = [Example(" ".join(words), name) for name, words in task.examples]
    prepared = PromptBuilder("classification_channel").prepare(examples, task.labels)
    inquiry = make_inquiry("channel", prepared, task.labels, " ".join(task.query))
    return np.asarray(llm.score_sync(inquiry.pairs, terminator=inquiry.terminator).logprobs)


def run_episode(
    episode: Episode,
    shots: Sequence[int],
    rules: Sequence[str],
    llm: TextLLM,
    tokenizer: RememberingTokenizer,
    k: int,
    folder: ImageFolder,
) -> dict[str, Any]:
    """Shots (as text) -> {rule: right or wrong for each query}, what it cost, and the words prototype's answers."""

    def words_of(path: str) -> tuple[str, ...]:
        return tuple(tokenizer.to_text(tokenizer.encode([folder.path(path)], k)[0]).split())

    labels = tuple(sorted(episode.labels))
    images = [item.path for item in (*episode.support, *episode.queries)]
    every = sorted({word for path in images for word in words_of(path)})
    model = Model(llm)
    found: dict[str, Any] = {}
    for count in sorted(shots, reverse=True):
        few = episode.with_shots(count)
        examples = tuple((item.label, words_of(item.path)) for item in few.support)
        tasks = [Words(examples, labels, words_of(item.path)) for item in few.queries]
        bags = [rule for rule in rules if rule in RULES]
        needs = sorted({need for rule in bags for need in PROMPTS_OF[rule]})
        model.read([prompt for need in needs for task in tasks for prompt in NEEDS[need](task)], every)
        row: dict[str, list[bool]] = {}
        for rule in rules:
            scores = [in_order(llm, task) if rule == IN_ORDER else RULES[rule][1](model, task) for task in tasks]
            row[rule] = [
                labels[int(np.argmax(score))] == item.label for score, item in zip(scores, few.queries, strict=True)
            ]
        encode = [tokenizer.encode([folder.path(item.path)], k)[0] for item in (*few.support, *few.queries)]
        named = words_prototype(
            encode[: len(few.support)],
            [item.label for item in few.support],
            encode[len(few.support) :],
            tokenizer.codebook,
        )
        row["words_prototype"] = [got == item.label for got, item in zip(named, few.queries, strict=True)]
        found[str(count)] = row
    return {"right": found, "usage": model.usage.to_dict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders, or a tar of one")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--rules", nargs="+", default=[*RULES], choices=[*RULES, IN_ORDER], help="default: all bags")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--tokenizer", default="words-photo")
    parser.add_argument("-k", type=int, default=5, help="words per image (default: 5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    config = {
        "data": options.data.name,
        "ways": options.ways,
        "shots": options.shots,
        "rules": options.rules,
        "llm": options.llm,
        "tokenizer": options.tokenizer,
        "k": options.k,
    }
    tokenizer = RememberingTokenizer(ImageTokenizer.from_pretrained(options.tokenizer))
    llm = connect(options.llm)
    began = time.monotonic()
    with (
        images_of(options.data) as folder,
        Run.open(
            options.out.with_suffix(".run"), "benchmarks/scoring_rules", config, seed=options.seed, resume=True
        ) as run,
    ):
        for number in range(options.episodes):
            if str(number) in run.done:
                continue
            episode = folder.sample(
                number, ways=options.ways, shots=max(options.shots), queries=options.ways, seed=options.seed
            )
            run.record(
                str(number), run_episode(episode, options.shots, options.rules, llm, tokenizer, options.k, folder)
            )
            print(f"episode {number + 1} of {options.episodes}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        results = dict(run.results())
    episodes = [results[str(number)] for number in range(options.episodes)]
    cells = []
    for rule in [*options.rules, "words_prototype"]:
        for shots in sorted(options.shots):
            right = [hit for episode in episodes for hit in episode["right"][str(shots)][rule]]
            other = [hit for episode in episodes for hit in episode["right"][str(shots)]["words_prototype"]]
            cells.append(
                {
                    "rule": rule,
                    "shots": shots,
                    "n": len(right),
                    "accuracy": round(float(np.mean(right)), 4),
                    "only_this_right": sum(a and not b for a, b in zip(right, other, strict=True)),
                    "only_words_prototype_right": sum(b and not a for a, b in zip(right, other, strict=True)),
                }
            )
            print(json.dumps(cells[-1]))
    write(
        options.out,
        {
            **header(options.seed),
            "config": config,
            "episodes": options.episodes,
            "queries_an_episode": options.ways,
            "meaning": {rule: RULES[rule][0] for rule in options.rules if rule in RULES},
            "requests_an_episode": round(float(np.mean([episode["usage"]["requests"] for episode in episodes])), 1),
            "cells": cells,
        },
    )


if __name__ == "__main__":
    main()
