"""Another checkout and this one, measured in turns by their own benchmarks: has anything become slower?

    python benchmarks/side_by_side.py --against ../before --out benchmarks/results/side_by_side.json
    python benchmarks/side_by_side.py --against ../before --only startup progressive --rounds 9

In each round both checkouts run the same benchmark, each its own script in processes of their own, the one that begins
changing from round to round: what else the machine does slows both alike. A ratio is this one's figure by the other's
in the same round; ratios are told as median, least and most. Nothing here needs an LLM or a network.

Knows: which scripts, with which arguments, and where their results hold the figures. Refuses to know: what they do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from trees import HERE, commit, environment

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Bench:
    """A script, the arguments of a short run, and its figures: less is better, or ``more`` is."""

    script: str
    arguments: tuple[str, ...]
    figures: Callable[[Any], Figures]
    more: bool = False


def _startup(result: Any) -> Figures:
    rows = (row for row in result["rows"] if "comparison" not in row["row"])
    return {f"{row['row']}: CPU s": row["cpu_seconds"] for row in rows}


def _overhead(result: Any) -> Figures:
    found = {}
    for name in ("ours", "ours_from_users_loop"):
        found[f"{name}: CPU ms a request"] = result["warm"][name]["cpu_ms_per_request"]
        found[f"{name}: time by the bare client's"] = result["warm"][name]["over_bare"]
    return found


def _encode(result: Any) -> Figures:
    ways = {"onnx": "graph", "encode files": "files"}
    return {
        f"{what}, batch {batch}, {ways[way]}: images/s": row["images_per_s"]
        for batch, tasks in result["batches"].items()
        for what, rows in tasks.items()
        for way, row in rows.items()
        if way in ways
    }


def _progressive(result: Any) -> Figures:
    return {
        "a segment of one query: CPU ms": result["overhead"]["ms_a_segment_of_one_query"]["median"],
        "each further query: CPU ms": result["overhead"]["ms_for_each_further_query"]["median"],
        "a request over loopback: CPU ms": result["latency"]["cpu_ms_a_request"]["decoder"],
        "all requests over loopback: s": result["latency"]["seconds"]["median"],
    }


BENCHES = {
    "startup": Bench("bench_startup.py", ("--repeats", "3"), _startup),
    "overhead": Bench("bench_llm_overhead.py", ("--requests", "500", "--rounds", "1"), _overhead),
    "encode": Bench(
        "bench_encode.py",
        ("--no-vqgan", "--batches", "1", "8", "--rounds", "3", "--seconds", "0.5"),
        _encode,
        more=True,
    ),
    "progressive": Bench("bench_progressive.py", ("--only", "latency", "overhead", "--rounds", "2"), _progressive),
}


def run(bench: Bench, tree: Path, variables: dict[str, str]) -> Figures:
    """The figures of one run of a checkout's own script."""
    with tempfile.TemporaryDirectory(prefix="icl-vision-side-") as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, str(tree / "benchmarks" / bench.script), *bench.arguments, "--out", str(out)]
        done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{bench.script} of {tree} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        return bench.figures(json.loads(out.read_text(encoding="utf-8")))


def compare(bench: Bench, trees: Mapping[str, Path], rounds: int) -> list[dict[str, Any]]:
    """One row for each figure that both checkouts give."""
    found: dict[str, list[Figures]] = {name: [] for name in trees}
    with environment(trees["before"]) as before, environment(trees["after"]) as after:
        variables = {"before": before, "after": after}
        for number in range(rounds):
            for name in sorted(trees, reverse=bool(number % 2)):
                found[name].append(run(bench, trees[name], variables[name]))
            print(f"{bench.script}: round {number + 1} of {rounds}", file=sys.stderr)
    rows = []
    for figure in found["after"][0]:
        if figure not in found["before"][0]:
            continue
        values = {name: [figures[figure] for figures in found[name]] for name in trees}
        ratios = [new / old for new, old in zip(values["after"], values["before"], strict=True)]
        rows.append({
            "figure": figure,
            "better": "more" if bench.more else "less",
            **{name: statistics.median(values[name]) for name in trees},
            "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="the other checkout, called before")
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), default=sorted(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="JSON file; default: only the table is printed")
    options = parser.parse_args()
    trees = {"before": options.against.resolve(), "after": HERE}
    results = {name: compare(BENCHES[name], trees, options.rounds) for name in options.only}
    print(f"{'':50}{'before':>10}{'after':>10}   after/before")
    for name, rows in results.items():
        print(name)
        for row in rows:
            ratio = row["ratio"]
            spread = f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
            print(
                f"  {row['figure']:48}{row['before']:>10.3f}{row['after']:>10.3f}   {spread}, {row['better']} is better"
            )
    if options.out:
        commits = {name: commit(tree) for name, tree in trees.items()}
        write(options.out, header() | {"commits": commits, "rounds": options.rounds, "benchmarks": results})


if __name__ == "__main__":
    main()
