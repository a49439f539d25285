"""describe-photo beside words-photo: a batch through the graph, and the whole way from pictures to words.

    python benchmarks/bench_describe.py [--describe NAME|FOLDER] [--out FILE.json] [--rounds 15] [--batch 8]

Knows: how they are timed side by side. Refuses to know: how good the words are.

Both see the same photographs, opened beforehand. In each round every way runs once, in turning order, so that a noisy
neighbour slows all alike; the figure is the median over rounds, a ratio the median of the ratios within a round. Text
is left out (its reader is another model); --text adds it, in milliseconds an image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import header, write

PARTS = ("what", "said", "colours", "where")
TARGET = 1.2


def photographs(count: int) -> list[Any]:
    """Packaged photographs, opened, repeated where there are too few."""
    import icl_vision
    from icl_vision.images import list_images, load_image

    paths = list_images(Path(icl_vision.__file__).parent / "demo_data")
    step = max(1, len(paths) // count)
    return [load_image(paths[(place * step) % len(paths)]) for place in range(count)]


def ways(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    from icl_vision.tokenizers import ImageTokenizer

    pictures = photographs(options.batch)
    common = {"providers": options.provider, "threads": options.threads, "batch_size": options.batch}
    made: dict[str, Callable[[], object]] = {}
    for name, source, further in (
        ("words-photo", "words-photo", {}),
        ("describe-photo", options.describe, {"parts": PARTS}),
        *([("describe-photo with text", options.describe, {"parts": (*PARTS, "text")})] if options.text else []),
    ):
        tokenizer: Any = ImageTokenizer.from_pretrained(source, **common, **further)
        made[f"{name}, pictures to words"] = lambda tokenizer=tokenizer: tokenizer.encode(pictures)
        if "with text" in name:
            continue
        pixels = tokenizer.preprocessing.batch(pictures)
        graph = tokenizer._graph("encoder.onnx")
        outputs = ["ids"] if name == "words-photo" else list(tokenizer._outputs())
        made[f"{name}, graph"] = lambda graph=graph, outputs=outputs, pixels=pixels: graph.run(
            {"pixels": pixels}, outputs
        )
    return made


def measure(made: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    for way in made.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in made}
    names = list(made)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            made[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> dict[str, Any]:
    values = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    low, _, high = statistics.quantiles(values, n=4)
    return {"ratio": statistics.median(values), "quartiles": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--describe", default="describe-photo", help="the tokenizer, or its folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--text", action="store_true", help="also with text, where the extra 'ocr' is installed")
    options = parser.parse_args()
    seconds = measure(ways(options), options.rounds)
    rows = {
        name: {"ms_per_image": 1000 * statistics.median(values) / options.batch} for name, values in seconds.items()
    }
    ratios = {
        what: ratio(seconds, f"describe-photo, {what}", f"words-photo, {what}")
        for what in ("graph", "pictures to words")
    }
    for name, row in rows.items():
        print(f"{name:45} {row['ms_per_image']:8.1f} ms an image")
    for what, row in ratios.items():
        low, high = row["quartiles"]
        print(f"describe-photo / words-photo, {what}: {row['ratio']:.3f} (quartiles {low:.3f} to {high:.3f})")
    print(f"target, without text: {TARGET} at most")
    if options.out is not None:
        facts = {"batch": options.batch, "rounds": options.rounds, "threads": options.threads, "parts": list(PARTS)}
        write(options.out, {**header(), **facts, "target": TARGET, "rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
