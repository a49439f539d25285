"""How long the prompts of the papers' 14 settings are, for so many words an image, and which exceed a window.

    python benchmarks/prompt_windows.py [--k 5 64 256] [--windows 2048 4096 8192] [--out FILE.json]

Counted by the embedded LLM's own tokenizer, of open-ended prompts as `icl-vision eval few-shot` writes them: words
drawn at random from the packaged vocabulary, where each is one token, and as labels five of mini-ImageNet's classes
with long names. An answer needs room beside it, which is counted too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from _common import header, write

from icl_vision import connect
from icl_vision.codebook import Codebook
from icl_vision.evaluation.few_shot.config import SETTINGS
from icl_vision.tasks.classify.prompts import Example, PromptBuilder

LABELS = ("black-footed ferret", "African hunting dog", "golden retriever", "electric guitar", "theater curtain")
ANSWER = 16
"""Tokens of an answer beyond the longest label."""


def prompt(ways: int, shots: int, repeats: int, induction: bool, k: int, seed: int = 0) -> str:
    """The prompt of one question."""
    words = list(Codebook.load("portable-minilm-128").vocabulary)
    random = np.random.default_rng([seed, k])
    labels = LABELS[:ways]
    examples = [Example(_line(words, k, random), label) for _ in range(shots) for label in labels]
    built = PromptBuilder("classification", induction=induction, repeats=repeats)
    return built.prepare(examples, tuple(sorted(labels))).query(words=_line(words, k, random)).text


def _line(words: list[str], k: int, random: np.random.Generator) -> str:
    return " ".join(words[place] for place in random.integers(len(words), size=k))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--k", type=int, nargs="+", default=[5, 64, 256], help="words an image")
    parser.add_argument("--windows", type=int, nargs="+", default=[2048, 4096, 8192], help="tokens of a context window")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    llm = connect("local")
    room = max(llm.count_tokens_sync(" " + label) for label in LABELS) + ANSWER
    rows: list[dict[str, Any]] = []
    print(f"{'setting':12}" + "".join(f"{f'{k} words':>12}" for k in options.k) + "   exceeded windows")
    for setting in SETTINGS:
        tokens = {}
        for k in options.k:
            text = prompt(setting.ways, setting.shots, setting.repeats, setting.induction, k)
            tokens[k] = llm.count_tokens_sync(text) + 1 + room  # one is the start of the text
        over = {str(k): [size for size in options.windows if tokens[k] > size] for k in options.k}
        rows.append({"setting": setting.id, "tokens": {str(k): tokens[k] for k in options.k}, "exceeds": over})
        said = "; ".join(f"{k} words: {', '.join(map(str, sizes))}" for k, sizes in over.items() if sizes)
        print(f"{setting.id:12}" + "".join(f"{tokens[k]:12}" for k in options.k) + f"   {said or '-'}")
    if options.out:
        write(options.out, {**header(0), "room_for_the_answer": room, "windows": options.windows, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
