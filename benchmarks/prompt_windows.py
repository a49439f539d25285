"""How long the prompts of the papers' 14 settings are, for so many words an image, and which exceed a window.

    python benchmarks/prompt_windows.py [--k 5 64 256] [--ascii 64] [--windows 2048 4096 8192] [--out FILE.json]

Counted by the embedded LLM's own tokenizer, of open-ended prompts as `icl-vision eval few-shot` writes them: words
drawn at random from the packaged vocabulary, where each is one token, and as labels five of mini-ImageNet's classes
with long names; ``--ascii``, packaged photographs as so many lines of as many characters. An answer needs room beside
it, which is counted too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from _common import header, write

import icl_vision
from icl_vision import connect
from icl_vision.codebook import Codebook
from icl_vision.evaluation.few_shot.config import SETTINGS
from icl_vision.tasks.classify.prompts import Example, PromptBuilder
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.ascii import AsciiTokenizer

DEMO = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"
LABELS = ("black-footed ferret", "African hunting dog", "golden retriever", "electric guitar", "theater curtain")
ANSWER = 16
"""Tokens of an answer beyond the longest label."""


Picture = Callable[[], str]
"""Gives the text of one more picture."""


def prompt(ways: int, shots: int, repeats: int, induction: bool, picture: Picture) -> str:
    """The prompt of one question."""
    labels = LABELS[:ways]
    examples = [Example(picture(), label) for _ in range(shots) for label in labels]
    built = PromptBuilder("classification", induction=induction, repeats=repeats)
    return built.prepare(examples, tuple(sorted(labels))).query(words=picture()).text


def of_words(k: int, seed: int = 0) -> Picture:
    """Pictures of k words each."""
    words = list(Codebook.load("portable-minilm-128").vocabulary)
    random = np.random.default_rng([seed, k])
    return lambda: " ".join(words[place] for place in random.integers(len(words), size=k))


def of_characters(side: int, seed: int = 0) -> Picture:
    """Packaged photographs as ``side`` lines of ``side`` characters."""
    tokenizer: ImageTokenizer = AsciiTokenizer(side, side)
    files = sorted(DEMO.rglob("*.jpg"))
    random = np.random.default_rng([seed, side])
    return lambda: tokenizer.to_text(tokenizer.encode(files[random.integers(len(files))])[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--k", type=int, nargs="+", default=[5, 64, 256], help="words an image")
    parser.add_argument("--ascii", type=int, nargs="*", default=[64], help="characters of a side of ASCII art")
    parser.add_argument("--windows", type=int, nargs="+", default=[2048, 4096, 8192], help="tokens of a context window")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    llm = connect("local")
    room = max(llm.count_tokens_sync(" " + label) for label in LABELS) + ANSWER
    columns: dict[str, Callable[[], Picture]] = {str(k): lambda k=k: of_words(k) for k in options.k}
    columns |= {f"ascii {side}x{side}": lambda side=side: of_characters(side) for side in options.ascii}
    rows: list[dict[str, Any]] = []
    print(f"{'setting':12}" + "".join(f"{name:>14}" for name in columns) + "   exceeded windows")
    for setting in SETTINGS:
        tokens = {}
        for name, pictures in columns.items():
            text = prompt(setting.ways, setting.shots, setting.repeats, setting.induction, pictures())
            tokens[name] = llm.count_tokens_sync(text) + 1 + room  # one is the start of the text
        over = {name: [size for size in options.windows if tokens[name] > size] for name in columns}
        rows.append({"setting": setting.id, "tokens": tokens, "exceeds": over})
        said = "; ".join(f"{name}: {', '.join(map(str, sizes))}" for name, sizes in over.items() if sizes)
        print(f"{setting.id:12}" + "".join(f"{tokens[name]:14}" for name in columns) + f"   {said or '-'}")
    if options.out:
        write(options.out, {**header(0), "room_for_the_answer": room, "windows": options.windows, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
