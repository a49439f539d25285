"""Speed of the embedded LLM when its answer is restricted to a set of words: logit bias against a GBNF grammar.

    python benchmarks/bench_local_constraints.py [--words 16 64 255] [--tokens 4] [--repeats 3] [--out FILE.json]

The same words each way, interleaved; a grammar is forced by adding one string of several tokens to the set. Tokens per
second of wall time, medians, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision import connect
from icl_vision.codebook import DEFAULT_CODEBOOK, Codebook
from icl_vision.contracts import Constraint, Prompt

PROMPT = Prompt("", "guitar: music string\nboat: sea sail\ndog: puppy fur", "piano:")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, nargs="+", default=[16, 64, 255])
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    llm = connect("local")
    vocabulary = Codebook.load(DEFAULT_CODEBOOK).vocabulary.words
    rows: list[dict[str, Any]] = []
    print("words   logit bias tokens/s   grammar tokens/s   ratio")
    for count in options.words:
        words = vocabulary[:: len(vocabulary) // count][:count]
        sets = {"logit_bias": words, "grammar": (*words, "no such words")}
        rates: dict[str, list[float]] = {name: [] for name in sets}
        for round_ in range(options.repeats + 1):
            for name, allowed in sets.items():
                began = time.perf_counter()
                llm.complete_sync(PROMPT, max_tokens=4 * options.tokens, constraint=Constraint(allowed, options.tokens))
                if round_:  # the first round tokenises the words and fills the prefix cache
                    rates[name].append(options.tokens / (time.perf_counter() - began))
        bias, grammar = (statistics.median(rates[name]) for name in sets)
        rows.append({"words": count, "logit_bias": bias, "grammar": grammar, "ratio": bias / grammar})
        print(f"{count:5d} {bias:21.1f} {grammar:18.2f} {bias / grammar:7.1f}")
    if options.out:
        write(options.out, {**header(), "tokens": options.tokens, "repeats": options.repeats, "rows": rows})


if __name__ == "__main__":
    main()
