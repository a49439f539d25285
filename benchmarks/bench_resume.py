"""Killed at random moments and resumed each time, a run ends with the results of one that nothing happened to.

    python benchmarks/bench_resume.py --images 400 --kills 20 --out benchmarks/results/resume.json

`icl-vision classify --out RUN --resume` asks a server on loopback about image files. It is sent SIGKILL at seeded
moments: during its start, between two answers, while a line of the journal is being written. Without the response
cache, so that only the journal remembers. Counted afterwards:

- ``equal``: results.json is byte for byte that of an undisturbed run;
- ``asked_again``: requests that the server got beyond one for each image. Each kill may cost what was in flight;
- ``duplicated``: images with more than one result in the journal.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from loopback_server import Loopback

CONCURRENCY = 8
DELAY = 0.05


def make_images(folder: Path, count: int) -> None:
    """``folder``/support with two classes, ``folder``/queries with ``count`` images, all different."""
    noise = np.random.default_rng(0)
    names = [f"support/{label}/{number}.png" for label in ("dark", "light") for number in range(2)]
    for name in [*names, *(f"queries/{number:05d}.png" for number in range(count))]:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(target)


def command(folder: Path, run: Path, url: str) -> list[str]:
    options = ["--tokenizer", "ascii", "--llm", f"openai-compatible:loopback@{url}", "--concurrency", str(CONCURRENCY)]
    options += ["--out", str(run), "--resume", "--no-cache", "--quiet", "--json"]
    return [
        *(sys.executable, "-c", "from icl_vision.cli import main; main()", "classify"),
        *("--support", str(folder / "support"), str(folder / "queries"), *options),
    ]


def finished_lines(run: Path) -> int:
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def killed_at(process: subprocess.Popen[bytes], run: Path, moment: float, lines: int) -> bool:
    """Kill the process ``moment`` seconds after it wrote ``lines`` more lines; False where it ended before."""
    wanted = finished_lines(run) + lines
    while process.poll() is None and finished_lines(run) < wanted:
        time.sleep(0.002)
    end = time.monotonic() + moment
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.0005)
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


def measure(folder: Path, *, images: int, kills: int, seed: int) -> dict[str, Any]:
    """An undisturbed run, and one that is killed ``kills`` times; see the module's docstring."""
    make_images(folder, images)
    environment = {**os.environ, "OPENAI_COMPATIBLE_API_KEY": "none"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": environment}
    draw = random.Random(seed)
    with Loopback(delay=DELAY) as calm, Loopback(delay=DELAY) as server:
        # The URL of a server is part of the run's configuration: each run has its own.
        undisturbed = subprocess.Popen(command(folder, folder / "calm", calm.url), **quiet)
        run = folder / "run"
        moments = []
        while len(moments) < kills:
            early = draw.random() < 0.15
            lines = 0 if early else draw.randint(1, max(1, int(1.5 * images / (kills + 2))))
            moment = draw.uniform(0, 1.5) if early else draw.uniform(0, 2 * DELAY)
            process = subprocess.Popen(command(folder, run, server.url), **quiet)
            if not killed_at(process, run, moment, lines):
                break
            raw = (run / "journal.jsonl").read_bytes() if (run / "journal.jsonl").exists() else b""
            asked = server.stats()["requests"]
            moments.append(
                {"lines": raw.count(b"\n"), "half_line": bool(raw) and not raw.endswith(b"\n"), "asked_so_far": asked}
            )
        last = subprocess.run(command(folder, run, server.url), check=False, **quiet)
        arrived = collections.Counter(server.stats()["arrived"])
        calmly = undisturbed.wait()
        baseline = calm.stats()["requests"]
    journal = [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    results = collections.Counter(line["id"] for line in journal if "result" in line)
    return {
        "images": images,
        "kills": len(moments),
        "concurrency": CONCURRENCY,
        "exit_codes": [calmly, last.returncode],
        "equal": (run / "results.json").read_bytes() == (folder / "calm" / "results.json").read_bytes(),
        "errors": sum("error" in line for line in journal),
        "lost": images - len(results),
        "duplicated": sum(count > 1 for count in results.values()),
        "requests_undisturbed": baseline,
        "requests": sum(arrived.values()),
        "asked_again": sum(arrived.values()) - len(arrived),
        "in_flight_at_most": CONCURRENCY * len(moments),
        "half_lines_cut": sum(moment["half_line"] for moment in moments),
        "moments": moments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=400, help="images to classify (default: 400)")
    parser.add_argument("--kills", type=int, default=20, help="kills (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), images=arguments.images, kills=arguments.kills, seed=arguments.seed)
    print(json.dumps({key: value for key, value in found.items() if key != "moments"}))
    if arguments.out is not None:
        write(arguments.out, {**header(arguments.seed), **found})
    if not found["equal"] or found["lost"] or found["duplicated"] or found["asked_again"] > found["in_flight_at_most"]:
        raise SystemExit("a killed run did not come back as it should")


if __name__ == "__main__":
    main()
