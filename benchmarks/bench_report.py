r"""The report of a few-shot run: how large, how long to write and to open, and how much memory for it.

    python benchmarks/bench_report.py --items 5000 5000 70000 --images 2400 12000 2400 \
        --out benchmarks/results/report.json

Runs are made up (``synthetic_run``): so many questions in the papers' 14 settings, over so many different photographs
(crops of the packaged ones). For each: size of the journal and of report.html, seconds and peak memory of
``write_report`` in a process of its own (Linux), and, where a browser is installed, seconds from opening the file to a
page that answers, then to the next question, and the size of its JavaScript heap.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import browser
from _common import header, write
from synthetic_run import make_images, make_run

from icl_vision.evaluation.few_shot.config import SETTINGS

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "icl_vision" / "demo_data" / "caltech101-demo12"
READY = "document.documentElement.dataset.ready === 'yes'"
WRITE = """
import json, sys, time
from pathlib import Path
from icl_vision.viz.benchmark.page import write_report
def peak():  # of this process alone; getrusage would count the one that started it
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
start = time.perf_counter()
write_report(Path(sys.argv[1]))
seconds = time.perf_counter() - start
found = {"seconds": round(seconds, 2), "peak_mib": round(peak() / 1024, 1), "before_mib": round(before / 1024, 1)}
print(json.dumps(found))
"""
LABELS = [f"class {number:02d}" for number in range(20)]
OPENINGS = 5


def opened(page: Path, width: int, height: int) -> dict[str, Any]:
    """Median seconds of several openings, and of the step to the next question; the heap afterwards."""
    loads, steps, heap = [], [], 0
    for _ in range(OPENINGS):
        with browser.Browser(width=width, height=height) as tab:
            loads.append(tab.open(page, ready=READY))
            steps.append(
                tab.run(
                    "(async () => { const start = performance.now(), node = document.querySelector('#detail h3');"
                    " location.hash = document.querySelector('#items li:nth-child(3) a').hash;"
                    " while (document.querySelector('#detail h3') === node)"
                    " await new Promise((go) => requestAnimationFrame(go));"
                    " return performance.now() - start; })()"
                )
            )
            heap = tab.call("Runtime.getHeapUsage")["usedSize"]
            if tab.messages:
                raise SystemExit(f"the page complains: {tab.messages}")
    return {
        "open_s": round(statistics.median(loads), 3),
        "next_question_ms": round(statistics.median(steps), 1),
        "heap_mib": round(heap / 2**20, 1),
    }


def measure(folder: Path, items: int, images: Path) -> dict[str, Any]:
    """One run of about so many items, written and opened."""
    run = make_run(folder / f"run-{items}", episodes=-(-items // len(SETTINGS)), images=images)
    done = subprocess.run([sys.executable, "-c", WRITE, str(run)], check=True, capture_output=True, text=True)
    page = run / "report.html"
    found = {
        "items": sum(1 for _ in (run / "journal.jsonl").open()),
        "images_in_folder": sum(1 for _ in images.rglob("*.jpg")),
        "journal_mib": round((run / "journal.jsonl").stat().st_size / 2**20, 2),
        "report_mib": round(page.stat().st_size / 2**20, 2),
        "write": json.loads(done.stdout),
    }
    if browser.find() is not None:
        found["desktop"] = opened(page, 1280, 900)
        found["phone_size"] = opened(page, 390, 844)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[5000], help="questions of each run (default: 5000)")
    parser.add_argument("--images", type=int, nargs="+", default=[2400], help="photographs of each (default: 2400)")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    if len(arguments.images) not in (1, len(arguments.items)):
        parser.error("--images takes one number, or as many as --items")
    found = []
    for place, items in enumerate(arguments.items):
        with tempfile.TemporaryDirectory() as folder:
            images, count = Path(folder) / "images", arguments.images[place % len(arguments.images)]
            make_images(images, LABELS, count // len(LABELS), side=128, photographs=PHOTOGRAPHS)
            found.append(measure(Path(folder), items, images))
        print(json.dumps(found[-1]), flush=True)
    if arguments.out is not None:
        write(arguments.out, {**header(0), "runs": found})


if __name__ == "__main__":
    main()
