"""words-photo: images per second through ONNX, torch eager and torch.compile, in one interleaved run.

    python benchmarks/bench_words_photo.py [--out FILE.json] [--rounds 15] [--threads N]

Knows: how the three are timed side by side. Refuses to know: accuracy.

The three compute the same thing from the same uint8 pixels with the same fp16-rounded weights and as many threads. In
each round every way runs once, in turning order, so that a noisy neighbour slows all alike; the figure is the median
over rounds, ratios are medians of per-round ratios. Peak memory is the resident set of a fresh process that encodes
with one way only, less what the process held before it loaded anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

BATCHES = (1, 8, 32)
SEED = 0
WAYS = ("onnx", "torch", "torch.compile")


def pixels(count: int) -> np.ndarray:
    """Packaged photographs at the graph's size, uint8 [count, 224, 224, 3], repeated where there are too few."""
    import icl_vision
    from icl_vision.images import list_images, load_image
    from icl_vision.tokenizers.pixels import Preprocessing

    paths = list_images(Path(icl_vision.__file__).parent / "demo_data")
    step = max(1, len(paths) // count)
    chosen = [paths[(place * step) % len(paths)] for place in range(count)]
    return Preprocessing(224).batch([load_image(path) for path in chosen])


def make_onnx(threads: int) -> Callable[[np.ndarray], np.ndarray]:
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    graph = OnnxTokenizer.from_pretrained("words-photo", providers="cpu", threads=threads)._graph("encoder.onnx")
    return lambda batch: graph.run({"pixels": batch}, ["ids"])[0]


def make_torch(threads: int, compiled: bool) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from icl_vision.codebook import Codebook
    from icl_vision.models import rounding
    from icl_vision.models.nets import efficientnet
    from icl_vision.models.words import photo as words
    from icl_vision.models.words.text_embedding import SentenceEmbedder

    torch.set_num_threads(threads)
    book = Codebook.load()
    vectors = words.class_vectors(words.imagenet_names(), SentenceEmbedder(), book)
    module = words.WordsPhoto(efficientnet.load_published().fold(), vectors).eval()
    rounding.round_to_fp16(module)
    run: Any = torch.compile(module, dynamic=False) if compiled else module
    constants = torch.from_numpy(np.array(book.vectors)), torch.zeros(1000)

    def encode(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return run(torch.from_numpy(batch), *constants)[0].numpy()

    return encode


def make(way: str, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    return make_onnx(threads) if way == "onnx" else make_torch(threads, compiled=way == "torch.compile")


def resident_mib(field: str) -> float | None:
    """VmRSS or VmHWM (the peak) of this process; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), None)


def memory(way: str, batch: int, threads: int) -> dict[str, Any]:
    """Peak memory of one way in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", way, "--batch", str(batch), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["failed"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory_of(way: str, batch: int, threads: int) -> None:
    """The body of that process."""
    data = pixels(batch)
    before = resident_mib("VmRSS")
    encode = make(way, threads)
    for _ in range(3):
        encode(data)
    peak = resident_mib("VmHWM")
    print(json.dumps({"before_mib": before, "peak_mib": peak}))


def parity(encode: Callable[[np.ndarray], np.ndarray], reference: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Ids of one way against torch eager, all 64 ranks; where they differ and both chose the same set, it is a tie."""
    data = pixels(32)
    ours, theirs = encode(data), reference(data)
    differs = ours != theirs
    swapped = sum(int(row.sum()) for row, a, b in zip(differs, ours, theirs, strict=True) if set(a) == set(b))
    total = int(differs.sum())
    return {"ids": int(ours.size), "equal": int(ours.size) - total, "swapped": swapped, "other": total - swapped}


def measure(ways: list[str], batches: list[int], rounds: int, threads: int, seconds: float) -> dict[str, Any]:
    encoders: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    skipped: dict[str, str] = {}
    for way in ways:
        try:
            encoders[way] = make(way, threads)
            encoders[way](pixels(1))
        except Exception as error:  # no compiler, no torch: said in the table, the others go on
            encoders.pop(way, None)
            skipped[way] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    results: dict[str, Any] = {"skipped": skipped, "batches": {}}
    for batch in batches:
        data = pixels(batch)
        repeats = {}
        for way, encode in encoders.items():
            encode(data)  # compiles for this shape
            start = time.perf_counter()
            encode(data)
            repeats[way] = max(1, round(seconds / (time.perf_counter() - start)))
        rates: dict[str, list[float]] = {way: [] for way in encoders}
        order = list(encoders)
        for number in range(rounds):
            for way in order[number % len(order) :] + order[: number % len(order)]:
                start = time.perf_counter()
                for _ in range(repeats[way]):
                    encoders[way](data)
                rates[way].append(batch * repeats[way] / (time.perf_counter() - start))
        rows = {}
        for way, values in rates.items():
            quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
            rows[way] = {"images_per_s": statistics.median(values), "quartiles": [quartiles[0], quartiles[2]]}
            if "torch" in rates:
                ratios = [a / b for a, b in zip(values, rates["torch"], strict=True)]
                rows[way]["ratio_to_torch_eager"] = statistics.median(ratios)
        results["batches"][str(batch)] = rows
    if "torch" in encoders:
        results["parity_with_torch_eager"] = {
            way: parity(encode, encoders["torch"]) for way, encode in encoders.items() if way != "torch"
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench_words_photo.json")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds per batch size")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long one way runs in one round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what is timed")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="batch sizes")
    parser.add_argument("--threads", type=int, default=None, help="default: the cores this process may use")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    head = header(SEED)
    threads = options.threads or head["machine"]["cores"]
    if options.memory_of:
        memory_of(options.memory_of, options.batch, threads)
        return
    found = measure(options.ways, options.batches, options.rounds, threads, options.seconds)
    usable = [way for way in options.ways if way not in found["skipped"]]
    sizes = sorted({min(options.batches), max(options.batches)})
    found["memory"] = {way: {str(batch): memory(way, batch, threads) for batch in sizes} for way in usable}
    document = {**head, "rounds": options.rounds, "threads": threads, **found}
    write(options.out, document)
    print(f"{'batch':>5}  {'way':14} {'images/s':>9} {'quartiles':>15} {'x eager':>8}")
    for batch, rows in found["batches"].items():
        for way, row in rows.items():
            low, high = row["quartiles"]
            ratio = f"{row['ratio_to_torch_eager']:.2f}" if "ratio_to_torch_eager" in row else "-"
            print(f"{batch:>5}  {way:14} {row['images_per_s']:9.1f} {low:7.1f} {high:7.1f} {ratio:>8}")
    for way, why in found["skipped"].items():
        print(f"skipped {way}: {why}")
    for way, entries in found["memory"].items():
        for batch, entry in entries.items():
            peak = entry.get("peak_mib")
            text = f"{peak:.0f} MiB, {peak - entry['before_mib']:.0f} of it for the model" if peak else str(entry)
            print(f"peak memory, {way}, batch {batch}: {text}")
    for way, counts in found.get("parity_with_torch_eager", {}).items():
        same = f"{counts['equal']} of {counts['ids']} ids equal"
        print(f"parity, {way}: {same}, {counts['swapped']} swapped, {counts['other']} other")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
