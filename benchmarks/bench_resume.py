"""Killed at random moments and resumed each time, a command ends with the results of a run that nothing happened to.

    python benchmarks/bench_resume.py --kills 200 --out benchmarks/results/resume.json
    python benchmarks/bench_resume.py --case tokenize --kills 20 --seed 1 --add --out benchmarks/results/resume.json

Five commands that take long: classify, eval few-shot and generate, which ask a server on loopback, tokenize, and
train. Each is started with ``--resume`` and sent SIGKILL at a seeded moment: during its start, while it takes up what
earlier attempts left, between two answers, while a line of the journal is being written, while it writes its results.
Then it is started again, and killed again. What ends before it is killed is compared with the undisturbed run, and
another run begins, until there were as many kills as wanted. Without the response cache, so that only the run folder
remembers. Counted:

- ``equal``: runs whose results are those of the undisturbed one (of train: the weights, byte for byte);
- ``lost``, ``duplicated``: items without a result at the end, and items that got a second one;
- ``asked_again``: requests beyond the undisturbed run's. Each kill may cost what was in flight, and no more;
- of train, ``steps_again``: each kill may cost the steps since the last checkpoint.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from loopback_server import Loopback

from icl_vision.files.runs import source_commit

CONCURRENCY = 8
DELAY = 0.05
MAIN = "from icl_vision.cli import main; main()"
SHARES = {"classify": 0.25, "eval few-shot": 0.25, "generate": 0.2, "tokenize": 0.2, "train": 0.1}
"""Of the kills; a training takes seconds to start."""


@dataclass(frozen=True)
class Case:
    """A command under test.

    arguments: of a run in a folder, against a server's URL. run: the folder with its journal. outcome: what two runs
    must have in common. start: seconds that it takes to start. asks: whether it needs the server.
    """

    arguments: Callable[[Path, str, Path], list[str]]
    run: Callable[[Path], Path]
    outcome: Callable[[Path], Any]
    start: float
    asks: bool = True


# ---- what they work on ----


def make_inputs(folder: Path, size: int) -> None:
    """Pictures and a training configuration; ``size`` is the number of images to classify."""
    noise = np.random.default_rng(0)

    def save(name: str, pixels: Any) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(folder / name)

    for label in ("dark", "light", "loud"):
        for number in range(4):
            save(f"support/{label}/{number}.png", noise.integers(0, 256, (16, 16, 3)))
    for number in range(size):
        save(f"queries/{number:05d}.png", noise.integers(0, 256, (16, 16, 3)))
    for number in range(16 * size):
        save(f"many/{number:05d}.bmp", noise.integers(0, 256, (8, 8)))
    for kind in range(3):
        for number in range(2):
            pixels = np.zeros((28, 28))
            pixels[4 + number : 24, 5 + 5 * kind : 10 + 5 * kind + number] = 255
            save(f"shapes/{'abc'[kind]}/{number}.png", pixels)
    np.savez(folder / "digits.npz", x_train=noise.integers(0, 256, (24, 14, 14), dtype=np.uint8))
    (folder / "tiny.yaml").write_text(
        "base: spae-digits-32-guide-free\nmodel: {grids: [1, 2], width: 8, blocks: 1, side: 16}\n"
        "loss: {perceptual: 0}\ndata: {validation: 2}\ndevices: {accelerator: cpu}\n"
        "log: {tensorboard: false, every: 1, checkpoint: 4, validate: 8, grid: 1000}\n"
        f"steps: {size}\nbatch: 2\ndepth: {{weights: null}}\n",
        encoding="utf-8",
    )


def cases(size: int) -> dict[str, Case]:
    """The commands, each with about ``size`` items."""

    def llm(url: str) -> list[str]:
        return ["--llm", f"openai-compatible:loopback@{url}"]

    def classify(folder: Path, url: str, out: Path) -> list[str]:
        options = [
            "--tokenizer",
            "ascii",
            *llm(url),
            "--concurrency",
            str(CONCURRENCY),
            "--out",
            str(out),
            "--no-cache",
        ]
        return ["classify", "--support", str(folder / "support"), str(folder / "queries"), *options]

    def few_shot(folder: Path, url: str, out: Path) -> list[str]:
        options = ["--ways", "2", "--settings", "1s-0r-i", "--settings", "2s-0r-i", "--episodes", str(size // 2)]
        options += ["--scorers", "exact", "--baselines", "none", "--tokenizer", "ascii", "-k", "16"]
        options += ["--concurrency", str(CONCURRENCY), "--out", str(out), "--no-cache"]
        return ["eval", "few-shot", "--data", str(folder / "support"), *options, *llm(url)]

    def generate(folder: Path, url: str, out: Path) -> list[str]:
        # 19 segments of each drawing.
        queries = [
            argument for number in range(max(1, size // 19)) for argument in ("--query", f"an image of {number}")
        ]
        return [
            "generate",
            "--examples",
            str(folder / "shapes"),
            *queries,
            "--stride",
            "2",
            *llm(url),
            "--out",
            str(out),
        ]

    def tokenize(folder: Path, url: str, out: Path) -> list[str]:
        return ["tokenize", str(folder / "many"), "--tokenizer", "ascii", "--out", str(out / "words.jsonl")]

    def train(folder: Path, url: str, out: Path) -> list[str]:
        files = ["--config", str(folder / "tiny.yaml"), "--data", str(folder / "digits.npz")]
        return ["train", "spae", *files, "--out", str(out)]

    return {
        "classify": Case(classify, lambda out: out, lambda out: (out / "results.json").read_bytes(), 1.5),
        "eval few-shot": Case(few_shot, lambda out: out, _measured, 2.0),
        "generate": Case(generate, lambda out: out, _drawn, 2.0),
        "tokenize": Case(
            tokenize, lambda out: out / "words.jsonl.part", lambda out: (out / "words.jsonl").read_bytes(), 1.0, False
        ),
        "train": Case(train, lambda out: out, _trained, 6.0, False),
    }  # fmt: skip


def _measured(out: Path) -> Any:
    """What does not depend on the server's address or on time."""
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return [document[key] for key in ("settings", "rows", "cells", "means", "items", "missing", "usage", "prompts")]


def _drawn(out: Path) -> Any:
    images = json.loads((out / "results.json").read_text(encoding="utf-8"))["images"]
    return [
        (Path(image["file"]).name, (out / Path(image["file"]).name).read_bytes(), image["error"]) for image in images
    ]


def _trained(out: Path) -> Any:
    newest = sorted((out / "checkpoints").iterdir())[-1]
    metrics = json.loads((out / "results.json").read_text(encoding="utf-8"))["metrics"]
    return newest.name, metrics, {part.name: part.read_bytes() for part in newest.glob("*.safetensors")}


# ---- kills ----


def started(case: Case, folder: Path, url: str, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OPENAI_COMPATIBLE_API_KEY": "none", "ICL_VISION_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", MAIN, *case.arguments(folder, url, out), "--resume", "--quiet", "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def journal(run: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return (run / "journal.jsonl").read_bytes()
    return b""


def ended_or_killed(process: subprocess.Popen[bytes], run: Path, lines: int, moment: float) -> bool:
    """Kill the process ``moment`` seconds after it wrote ``lines`` more lines; False where it ended before."""
    wanted = journal(run).count(b"\n") + lines
    while process.poll() is None and journal(run).count(b"\n") < wanted:
        if lines and not run.exists() and wanted > lines:
            break  # a file of words is complete, and its run folder goes
        time.sleep(0.002)
    end = time.monotonic() + moment
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.0005)
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


def finished(raw: bytes) -> collections.Counter[str]:
    """How often each item has a result, in the whole lines of a journal."""
    whole = raw[: raw.rfind(b"\n") + 1].splitlines()
    return collections.Counter(line["id"] for line in map(json.loads, whole) if "result" in line)


def measure(name: str, folder: Path, *, size: int, kills: int, seed: int) -> dict[str, Any]:
    """An undisturbed run of a case, and runs that are killed until there were so many kills; see the module."""
    make_inputs(folder, size)
    case = cases(size)[name]
    draw = random.Random(f"{seed}/{name}")
    moments: list[dict[str, Any]] = []
    runs = {"runs": 0, "equal": 0, "lost": 0, "duplicated": 0, "failed": 0, "errors": 0}
    again = steps_again = half = early = 0
    with Loopback(delay=DELAY) as server:
        calm = folder / "calm"
        calm.mkdir()
        assert started(case, folder, server.url, calm).wait() == 0
        wanted, undisturbed = case.outcome(calm), server.stats()["requests"]
        # (A file of words leaves no journal: a line for every 32 files.)
        items = -(-16 * size // 32) if name == "tokenize" else len(finished(journal(case.run(calm))))
        while len(moments) < kills:
            runs["runs"] += 1
            out = folder / f"run-{runs['runs']}"
            out.mkdir()
            run, asked, before = case.run(out), server.stats()["requests"], collections.Counter[str]()
            while True:
                at_start = draw.random() < 0.25
                # So that some runs are killed to the end, and some end before.
                lines = 0 if at_start else draw.randint(1, max(1, items // 6))
                moment = draw.uniform(0, case.start) if at_start else draw.uniform(0, 2 * DELAY)
                process = started(case, folder, server.url, out)
                if len(moments) >= kills or not ended_or_killed(process, run, lines, moment):
                    break
                raw = journal(run)
                half += bool(raw) and not raw.endswith(b"\n")
                early += at_start
                before |= finished(raw)
                moments.append({"run": runs["runs"], "lines": raw.count(b"\n"), "at_start": at_start})
            code = process.wait()
            raw = journal(run)
            before |= finished(raw)
            if name == "tokenize":
                # Its journal is gone; what it held before the last attempt is known.
                rows = (out / "words.jsonl").read_bytes().count(b"\n") if code == 0 else 0
                runs["lost"] += 16 * size - rows
            else:
                runs["lost"] += items - len(before)
            if name == "train":
                steps_again += sum(count - 1 for count in before.values())
            else:
                runs["duplicated"] += sum(count > 1 for count in before.values())
            runs["failed"] += code != 0
            runs["errors"] += raw.count(b'"error": {"type"')
            runs["equal"] += code == 0 and case.outcome(out) == wanted
            again += server.stats()["requests"] - asked - undisturbed
        flight = server.stats()["most_in_flight"]
    found = {
        "items": items,
        "kills": len(moments),
        "kills_at_start": early,
        **runs,
        "half_lines_cut": half,
    }
    if case.asks:
        found |= {
            "requests_undisturbed": undisturbed,
            "asked_again": again,
            "in_flight_at_most": flight * len(moments),
        }
    if name == "train":
        found |= {"steps_again": steps_again, "steps_between_checkpoints": 4}
    return {**found, "moments": moments}


def faults(name: str, found: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    wrong = [key for key in ("lost", "duplicated", "failed", "errors") if found[key]]
    if found["equal"] != found["runs"]:
        wrong.append("equal")
    if found.get("asked_again", 0) > found.get("in_flight_at_most", 0):
        wrong.append("asked_again")
    if found.get("steps_again", 0) > found["kills"] * found.get("steps_between_checkpoints", 0):
        wrong.append("steps_again")
    return [f"{name}: {key}" for key in wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=120, help="items of each command, about (default: 120)")
    parser.add_argument("--kills", type=int, default=200, help="kills, over all cases (default: 200)")
    parser.add_argument("--case", action="append", choices=list(SHARES), help="only these (may be repeated)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--add", action="store_true", help="keep what the file has, as other parts of one measurement")
    arguments = parser.parse_args()
    chosen = arguments.case or list(SHARES)
    total = sum(SHARES[name] for name in chosen)
    parts: list[dict[str, Any]] = []
    for name in chosen:
        kills = round(arguments.kills * SHARES[name] / total)
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder), size=arguments.size, kills=kills, seed=arguments.seed)
        parts.append({"case": name, "seed": arguments.seed, "commit": source_commit(), **found})
        print(name, json.dumps({key: value for key, value in found.items() if key != "moments"}), flush=True)
    if arguments.out is not None:
        if arguments.add and arguments.out.exists():
            parts = json.loads(arguments.out.read_text(encoding="utf-8"))["parts"] + parts
        write(arguments.out, {**header(arguments.seed), **summed(parts), "parts": parts})
    wrong = summed(parts)["faults"]
    if wrong:
        raise SystemExit(f"a killed run did not come back as it should: {', '.join(wrong)}")


def summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All parts of a measurement together, by command."""
    cases: dict[str, dict[str, int]] = {}
    for part in parts:
        case = cases.setdefault(part["case"], {})
        for key, value in part.items():
            if isinstance(value, int) and key not in ("seed", "items", "steps_between_checkpoints"):
                case[key] = case.get(key, 0) + value
    return {
        "kills": sum(part["kills"] for part in parts),
        "faults": [fault for part in parts for fault in faults(part["case"], part)],
        "cases": cases,
    }


if __name__ == "__main__":
    main()
