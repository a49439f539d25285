"""What importing and starting cost: user and system CPU seconds, in fresh processes.

    python benchmarks/bench_startup.py [--repeats 7] [--out FILE.json]

Every row is a process of its own, interleaved with the others and with a bare interpreter; CPU time, not wall time, so
that other work on the machine matters less. Medians, and the ratio to the bare interpreter.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

COMMAND = ["-c", "from icl_vision.cli import main; main(prog_name='icl-vision')"]
ROWS: dict[str, list[str]] = {
    "bare interpreter": ["-c", "pass"],
    "import icl_vision": ["-c", "import icl_vision"],
    "from icl_vision import FewShotClassifier": ["-c", "from icl_vision import FewShotClassifier"],
    "from icl_vision import ImageTokenizer": ["-c", "from icl_vision import ImageTokenizer"],
    "import openai (for comparison)": ["-c", "import openai"],
    "import anthropic (for comparison)": ["-c", "import anthropic"],
    "icl-vision --version": [*COMMAND, "--version"],
    "icl-vision --help": [*COMMAND, "--help"],
    "icl-vision classify --help": [*COMMAND, "classify", "--help"],
    "icl-vision prompts list": [*COMMAND, "prompts", "list"],
    "icl-vision models list": [*COMMAND, "models", "list"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one fresh interpreter, its children included."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    for round_ in range(options.repeats + 1):
        for name, arguments in ROWS.items():
            seconds = cpu_seconds(arguments)
            if round_:  # the first round fills the file cache
                times[name].append(seconds)
    bare = statistics.median(times["bare interpreter"])
    rows: list[dict[str, Any]] = []
    print(f"{'':42s}   median     worst   to bare")
    for name, values in times.items():
        median = statistics.median(values)
        rows.append({"row": name, "cpu_seconds": median, "worst": max(values), "ratio_to_bare": median / bare})
        print(f"{name:42s} {median:8.3f}  {max(values):8.3f}  {median / bare:8.1f}")
    if options.out:
        write(options.out, {**header(), "repeats": options.repeats, "rows": rows})


if __name__ == "__main__":
    main()
