"""Accuracy against the number of words an image is said in (the paper's Fig. 3), from finished few-shot runs.

    python benchmarks/layers_plot.py RUN... --page accuracy_layers.html --out benchmarks/results/layers.json

Each RUN is a folder of `icl-vision eval few-shot --out RUN` with one tokenizer and one -k. A line is a tokenizer with a
row (the LLM's likelihood, or the words prototype, which asks no LLM) in one setting; x is the number of layers that the
pyramid tokenizer has at that k. Points carry 95% Wilson intervals. The runs should be of the same episodes (the same
seed and data); where their numbers of episodes or of shots differ, one's are the first of the other's, and the script
names such groups of runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.viz.plots import STYLE, Point, Series, legend, line_chart

ROWS = {"likelihood": "LLM", "words_prototype": "words prototype"}
CSS = ":root{--line:#8884;--soft:#555;--card:#fff}body{font:14px system-ui,sans-serif}"


def read(run: Path) -> dict[str, Any]:
    """What a run says, as far as it matters here."""
    document = json.loads((run / "results.json").read_text(encoding="utf-8"))
    config = document["config"]
    cells = {
        (cell["row"], cell["setting"]): cell["accuracy"]
        for cell in document["cells"]
        if cell["row"] in ROWS and cell["accuracy"] is not None
    }
    return {"run": run.name, "tokenizer": config["tokenizer"], "k": config["k"], "config": config, "cells": cells}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--pyramid", default="spae-photo-128", help="tokenizer whose layers are the x axis")
    parser.add_argument("--setting", default="5w-1s-0r-i")
    parser.add_argument("--page", "--svg", type=Path, default=None, help="an HTML page with the chart")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    cumulative = ImageTokenizer.from_pretrained(options.pyramid).layout.cumulative
    found = [read(run) for run in options.runs]
    lines: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in found:
        if run["k"] not in cumulative:
            parser.error(
                f"{run['run']} has k={run['k']}, which fills no whole layers of {options.pyramid}: {cumulative}"
            )
        for (row, setting), accuracy in run["cells"].items():
            if setting == options.setting:
                layers = cumulative.index(run["k"]) + 1
                lines[run["tokenizer"], row].append({"layers": layers, "k": run["k"], "accuracy": accuracy})
    groups: dict[str, list[str]] = defaultdict(list)
    for run in found:
        groups[json.dumps(run["config"]["questions"])].append(run["run"])
    if len(groups) > 1:
        apart = "; ".join(", ".join(names) for names in groups.values())
        print(f"these runs are not of one set of episodes: {apart}", file=sys.stderr)
    rows = []
    print(f"{options.setting}, {found[0]['config']['data']}, {found[0]['config']['llm']}")
    for (tokenizer, row), points in sorted(lines.items()):
        points.sort(key=lambda point: int(point["layers"]))
        rows.append({"tokenizer": tokenizer, "row": row, "points": points})
        for point in points:
            accuracy = point["accuracy"]
            low, high = (100 * share for share in accuracy["interval"])
            print(
                f"{tokenizer:18} {ROWS[row]:16} {point['layers']} layers, {point['k']:3} words: "
                f"{100 * accuracy['accuracy']:.1f}% [{low:.1f}, {high:.1f}], n = {accuracy['n']}"
            )
    if options.page is not None:
        series = [
            Series(
                f"{line['tokenizer']}, {ROWS[line['row']]}",
                [
                    Point(p["layers"], p["accuracy"]["accuracy"], tuple(p["accuracy"]["interval"]), p["accuracy"]["n"])
                    for p in line["points"]
                ],
            )
            for line in rows
        ]
        title = f"Accuracy against layers, {options.setting}"
        used = sorted({point["k"] for line in rows for point in line["points"]})
        axis = f"layers of the pyramid ({', '.join(map(str, used))} words)"
        chart = line_chart(series, title=title, axis=axis, level=0.2)
        page = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{CSS}{STYLE}</style>"
        body = f"<h3>{title}</h3>{chart}{legend([line.name for line in series])}"
        options.page.write_text(f"{page}<div style='max-width:640px'>{body}</div>\n", encoding="utf-8")
    if options.out is not None:
        episodes = {run["run"]: run["config"]["questions"] for run in found}
        write(options.out, {**header(0), "setting": options.setting, "rows": rows, "questions": episodes})


if __name__ == "__main__":
    main()
