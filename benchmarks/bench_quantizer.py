"""Quantizer: one encode in a large codebook beside the bare matrix product of the same size, and its peak memory.

    python benchmarks/bench_quantizer.py [--out FILE.json] [--words 65536] [--widths 128 1536] [--rounds 15]

Knows: how the ways are timed side by side. Refuses to know: what words are good for.

An encode finds the 597 words of SPAE's pyramid (1x1 + 2x2 + 4x4 + 8x8 + 16x16 + 16x16) for vectors z [B, c, 16, 16]
that are there already. The bare product is ``[597 B, c] @ [c, T]``, all of its scores kept: what an encode cannot do
without. It is timed twice: as anyone writes it, and into memory that is there already ("reused"). In each round every
way runs once, in turning order, so that a noisy neighbour slows all alike; ratios are medians of per-round ratios.

Memory is what a fresh process's resident set grows by during one encode over what it held just before (the codebook
included), after a small encode that loads what any encode needs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import header, write
from bench_words_photo import resident_mib

from icl_vision.models.quantizers.streaming import StreamingAverageQuantizer
from icl_vision.pyramid import PyramidLayout

LAYOUT = PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16)))
SEED = 0
WAYS = ("bare product", "bare product, reused", "torch", "torch.compile", "onnx")
Encode = Callable[[], Any]


def vectors(count: int, *shape: int) -> torch.Tensor:
    """Unit vectors along axis 1, the same every time."""
    generator = torch.Generator().manual_seed(SEED + count)
    return torch.nn.functional.normalize(torch.randn(count, *shape, generator=generator), dim=1)


class Encoder(torch.nn.Module):
    """``encode_ids`` as a graph's forward."""

    def __init__(self, quantizer: StreamingAverageQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.quantizer.encode_ids(z, codebook)


def make(way: str, codebook: torch.Tensor, z: torch.Tensor, threads: int) -> Encode:
    """A function of no arguments that runs one way once."""
    points = z.flatten(2).transpose(1, 2).reshape(-1, z.shape[1])
    points = points.repeat(3, 1)[: LAYOUT.cumulative[-1] * len(z)].contiguous()
    if way == "bare product":
        return lambda: points @ codebook.T
    if way == "bare product, reused":
        room = torch.empty(len(points), len(codebook))
        return lambda: torch.mm(points, codebook.T, out=room)
    quantizer = StreamingAverageQuantizer(codebook, LAYOUT).eval()
    if way == "torch":
        return lambda: quantizer.encode_ids(z)
    if way == "torch.compile":
        compiled = torch.compile(quantizer.encode_ids, dynamic=False)
        return lambda: compiled(z)
    return make_onnx(Encoder(quantizer).eval(), codebook, z, threads)


def make_onnx(module: Encoder, codebook: torch.Tensor, z: torch.Tensor, threads: int) -> Encode:
    import onnxruntime as ort

    artefact = importlib.import_module("icl_vision.exporters.artefact")
    names = [f"ids_{layer}" for layer in range(1, len(LAYOUT) + 1)]
    dynamic = {"z": {0: torch.export.Dim("batch")}, "codebook": {}}
    model = artefact.to_onnx(module, {"z": z[:1].repeat(2, 1, 1, 1), "codebook": codebook}, names, dynamic)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Held by the session, as OnnxTokenizer does it: then what depends on the codebook alone is computed once.
    value = ort.OrtValue.ortvalue_from_numpy(codebook.numpy())
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"z": ort.OrtValue.ortvalue_from_numpy(z.numpy()), "codebook": value}
    return lambda: [torch.from_numpy(value.numpy()) for value in session.run_with_ort_values(names, feeds)]


def time_ways(ways: list[str], words: int, width: int, batch: int, rounds: int, threads: int) -> dict[str, Any]:
    codebook, z = vectors(words, width), vectors(batch, width, 16, 16)
    runs: dict[str, Encode] = {}
    skipped: dict[str, str] = {}
    for way in ways:
        try:
            runs[way] = make(way, codebook, z, threads)
            runs[way]()
        except Exception as error:  # no compiler, no onnxscript: said in the table, the others go on
            runs.pop(way, None)
            skipped[way] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    order = list(runs)
    for number in range(rounds):
        for way in order[number % len(order) :] + order[: number % len(order)]:
            start = time.perf_counter()
            runs[way]()
            seconds[way].append(time.perf_counter() - start)
    rows: dict[str, Any] = {}
    for way, values in seconds.items():
        quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        rows[way] = {"ms": 1e3 * statistics.median(values), "quartiles": [1e3 * quartiles[0], 1e3 * quartiles[2]]}
        for bare in WAYS[:2]:
            if bare in seconds:
                ratios = [a / b for a, b in zip(values, seconds[bare], strict=True)]
                rows[way][f"ratio_to_{bare.replace(', ', '_').replace(' ', '_')}"] = statistics.median(ratios)
    parity = {}
    if "torch" in runs:
        reference = torch.cat([layer.flatten(1) for layer in runs["torch"]()], dim=1)
        for way in runs.keys() - {"torch", *WAYS[:2]}:
            ids = torch.cat([layer.flatten(1) for layer in runs[way]()], dim=1)
            parity[way] = {"ids": ids.numel(), "equal": int((ids == reference).sum())}
    return {"words": words, "width": width, "batch": batch, "ways": rows, "skipped": skipped, "parity": parity}


def memory(way: str, words: int, width: int, batch: int, threads: int) -> dict[str, Any]:
    """What one encode adds to the resident set, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", way, "--words", str(words), "--widths", str(width)]
    done = subprocess.run(
        [*command, "--batches", str(batch), "--threads", str(threads)], capture_output=True, text=True
    )
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["failed"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory_of(way: str, words: int, width: int, batch: int, threads: int) -> None:
    """The body of that process."""
    z = vectors(batch, width, 16, 16)
    make(way, vectors(8192, width), z[:1], threads)()
    run = make(way, vectors(words, width), z, threads)
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    run()
    peak = resident_mib("VmHWM")
    print(json.dumps({"before_mib": before, "grown_mib": None if before is None or peak is None else peak - before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quantizer.json")
    parser.add_argument("--words", type=int, default=65_536, help="words in the codebook (SPAE: 65,000)")
    parser.add_argument("--widths", nargs="+", type=int, default=[128, 1536], help="128: packaged; 1536: the paper's")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="images at a time")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds of each case")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what is timed")
    parser.add_argument("--threads", type=int, default=None, help="default: the cores this process may use")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    head = header(SEED)
    threads = options.threads or head["machine"]["cores"]
    torch.set_num_threads(threads)
    with torch.inference_mode():
        if options.memory_of:
            memory_of(options.memory_of, options.words, options.widths[0], options.batches[0], threads)
            return
        cases = [
            time_ways(options.ways, options.words, width, batch, options.rounds, threads)
            for width in options.widths
            for batch in (options.batches if width <= 256 else options.batches[:1])
        ]
    sizes = (16_384, 65_536, 262_144)
    grown = {
        way: {str(words): memory(way, words, 128, 1, threads) for words in sizes}
        for way in options.ways
        if way in ("bare product", "torch", "onnx")
    }
    write(options.out, {**head, "rounds": options.rounds, "threads": threads, "cases": cases, "memory": grown})
    print(f"{'width':>5} {'batch':>5}  {'way':21} {'ms':>8} {'quartiles':>17} {'x bare':>7} {'x reused':>8}")
    for case in cases:
        for way, row in case["ways"].items():
            low, high = row["quartiles"]
            ratios = [row.get(f"ratio_to_bare_product{end}") for end in ("", "_reused")]
            shown = [f"{ratio:.2f}" if ratio is not None else "-" for ratio in ratios]
            print(
                f"{case['width']:>5} {case['batch']:>5}  {way:21} {row['ms']:8.1f} {low:8.1f} {high:8.1f} "
                f"{shown[0]:>7} {shown[1]:>8}"
            )
        for way, why in case["skipped"].items():
            print(f"skipped {way}: {why}")
        for way, counts in case["parity"].items():
            print(f"parity with torch, {way}: {counts['equal']} of {counts['ids']} ids equal")
    for way, entries in grown.items():
        for words, entry in entries.items():
            text = f"{entry['grown_mib']:.0f} MiB more" if entry.get("grown_mib") is not None else str(entry)
            print(f"memory of one encode, {way}, {words} words of width 128: {text}")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
