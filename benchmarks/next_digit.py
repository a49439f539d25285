"""Which digit an LLM itself says after a caption: what it knows before any mapper is trained on its states.

    python benchmarks/next_digit.py --llm local --llm local:FILE.gguf --set id --set sums --set facts --out FILE.json

The captions are those of `icl-vision eval text-to-image`, in the prompt of `gemma-digits`; of the ten digits the
likeliest after it is what the LLM says. "even": the mean score of each digit over a set is taken off before, for an LLM
that likes some digits whatever it reads. Nothing is trained and nothing is drawn: where the text encoder draws "seven"
without a mistake, this is how often a drawing of what the LLM says would be right.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.llms import connect
from icl_vision.llms.base import TextLLM
from icl_vision.text_to_image.measured import SETS, wanted

PROMPT = "a drawing of two = 2\n{} ="
TOGETHER = 20


def scores_of(llm: TextLLM, texts: list[str], prompt: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Log-probability of each of the ten digits after each text, [texts, 10]."""
    rows: list[list[float]] = []
    for start in range(0, len(texts), TOGETHER):
        some = texts[start : start + TOGETHER]
        pairs = [(prompt.replace("{}", text), f" {digit}") for text in some for digit in range(10)]
        found = llm.score_sync(pairs, terminator="").logprobs
        rows += [list(found[place * 10 : place * 10 + 10]) for place in range(len(some))]
        print(f"{len(rows)} of {len(texts)}", file=sys.stderr)
    return np.asarray(rows, np.float64)


def measure(scores: np.ndarray[Any, np.dtype[np.float64]], digits: list[int]) -> dict[str, Any]:
    """How often the likeliest digit is the one that is meant."""
    found = {}
    for name, own in (("said", scores), ("even", scores - scores.mean(0))):
        right = [int(best) == digit for best, digit in zip(own.argmax(1), digits, strict=True)]
        by_digit = {
            str(digit): [
                sum(hit for hit, own in zip(right, digits, strict=True) if own == digit),
                digits.count(digit),
            ]
            for digit in sorted(set(digits))
        }
        found[name] = {**Accuracy.of(right, "the likeliest of ten digits").to_dict(), "by_digit": by_digit}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", action="append", required=True, help="an LLM that scores text; may be repeated")
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, required=True)
    parser.add_argument("-n", type=int, default=300, help="captions of each set at most")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    document: dict[str, Any] = {**header(0), "prompt": options.prompt, "n": options.n, "llms": []}
    for spec in options.llm:
        with connect(spec) as llm:
            began = time.monotonic()
            entry: dict[str, Any] = {"llm": llm.profile.name, "sets": {}}
            for name in options.sets:
                captions = wanted(name, options.n)
                scores = scores_of(llm, [one.text for one in captions], options.prompt)
                entry["sets"][name] = measure(scores, [int(one.digit) for one in captions])
                for kind, one in entry["sets"][name].items():
                    low, high = one["interval"]
                    line = f"{llm.profile.name}, {name}, {kind}: {one['accuracy']:.1%} [{low:.1%}, {high:.1%}]"
                    print(f"{line}, n = {one['n']}")
            entry["seconds"] = time.monotonic() - began
        document["llms"].append(entry)
        write(options.out, document)


if __name__ == "__main__":
    main()
