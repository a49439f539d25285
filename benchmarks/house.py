"""How the house is built: files and lines a folder, rooms that a call walks through, arguments, repeated lines.

    python benchmarks/house.py                                         (this checkout)
    python benchmarks/house.py --tree ../before --out FILE.json        (another one, then this one, by the same rule)
    python benchmarks/house.py --rooms predict                         (one trip, room by room, as docs/architecture.md)

- folders: Python files and their lines at a folder's own level, and files of any kind there.
- trips: predict, generate, denoise and ``eval few-shot``, each with an LLM that is none and small inputs, and two steps
  of training; made once to have everything loaded and once more with other inputs to be counted. ``sys.setprofile`` in
  every thread: ``modules`` of ours that are entered, and ``crossings``, calls from one module of ours into another
  (through whatever foreign code lies between); ``back`` are the crossings into a module that was entered before. A
  coroutine or generator counts where it begins, not where it goes on. Each trip is a process of its own.
- arguments: of what a user makes most.
- repeated: runs of six lines or more that stand in several places, as pylint's duplicate-code counts them (comments,
  docstrings, imports and signatures left out). pylint is no dependency: install it anywhere and say where it is
  (``--pylint SOMEWHERE/bin/pylint``); without it the row says "not measured".

Knows: how to count. Refuses to know: how many is few.
"""

from __future__ import annotations

import argparse
import dis
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from trees import HERE, commit, environment

SUITES = ("icl_vision", "exporters")
PACKAGE = "icl_vision"
HOMES = {  # where a name that users make may live, newest first
    "FewShotClassifier": ("icl_vision",),
    "ImageGenerator": ("icl_vision",),
    "ImageDenoiser": ("icl_vision",),
    "ProgressiveDecoder": ("icl_vision.drawing", "icl_vision.decoding"),
}
SIX = 6

Trip = Callable[[int], object]
"""A call with other inputs for each number, 0 to load everything and 1 to be counted."""


# Folders --------------------------------------------------------------------------------------------------------------


def folders(tree: Path) -> dict[str, dict[str, int]]:
    """Each folder with Python files: their number, their lines, and the files of any kind at its own level."""
    found: dict[str, dict[str, int]] = {}
    for suite in SUITES:
        for folder in sorted({path.parent for path in (tree / suite).rglob("*.py")}):
            modules = sorted(folder.glob("*.py"))
            found[folder.relative_to(tree).as_posix()] = {
                "modules": len(modules),
                "lines": sum(len(module.read_text(encoding="utf-8").splitlines()) for module in modules),
                "files": sum(entry.is_file() for entry in folder.iterdir()),
            }
    return found


# Trips ----------------------------------------------------------------------------------------------------------------


class Counting:
    """Calls between modules of ours, in every thread, while ``on``."""

    def __init__(self) -> None:
        self.on = False
        self.crossings: Counter[tuple[str, str]] = Counter()
        self.order: dict[str, None] = {}
        self._begins: dict[CodeType, int] = {}

    def install(self) -> None:
        """Watch this thread and every one that is started from now on."""
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if not self.on or event != "call":
            return
        module = _ours(frame)
        if module is None or frame.f_lasti > self._beginning(frame.f_code):
            return
        caller = frame.f_back
        while caller is not None and _ours(caller) is None:
            caller = caller.f_back
        came_from = "" if caller is None else str(_ours(caller))
        if came_from != module:
            self.crossings[came_from, module] += 1
            self.order.setdefault(module)

    def _beginning(self, code: CodeType) -> int:
        """The last instruction at which a frame of this code begins; one that goes on is beyond it."""
        if code not in self._begins:
            resumes = (step.offset for step in dis.get_instructions(code) if step.opname == "RESUME")
            self._begins[code] = next(resumes, 0)
        return self._begins[code]

    def report(self) -> dict[str, Any]:
        """What was counted. rooms: each module in the order of its first entry, with its entries."""
        entries: Counter[str] = Counter()
        for (_, module), count in self.crossings.items():
            entries[module] += count
        return {
            "modules": len(self.order),
            "crossings": entries.total(),
            "back": entries.total() - len(self.order),
            "rooms": {module: entries[module] for module in self.order},
        }


def _ours(frame: FrameType) -> str | None:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) and (name == PACKAGE or name.startswith(f"{PACKAGE}.")) else None


def photographs(classes: int, each: int, first: int = 0) -> tuple[list[Path], list[str]]:
    """Packaged photographs and their labels."""
    import icl_vision

    every = sorted((Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12").iterdir())
    paths = [path for folder in every[:classes] for path in sorted(folder.glob("*.jpg"))[first : first + each]]
    return paths, [path.parent.name for path in paths]


def predict() -> Trip:
    """Two photographs among three classes of two examples."""
    from icl_vision import FewShotClassifier, connect

    classifier = FewShotClassifier(connect("fake"), "words-photo", 5).fit(*photographs(3, 2))
    return lambda number: classifier.predict(photographs(2, 1, first=2 + number)[0])


def generate() -> Trip:
    """Two pictures of 32 pixels from two texts, four examples."""
    from icl_vision import ImageGenerator, connect

    texts = ["an image of 0", "an image of 1"]
    generator = ImageGenerator(connect("fake", constraint="logit_bias"), guidance=1.0)
    generator.fit(photographs(2, 2)[0], [text for text in texts for _ in range(2)])
    return lambda number: generator.generate(texts[:: 1 - 2 * number])


def denoise() -> Trip:
    """One photograph turned by 90 degrees, four context pictures."""
    from icl_vision import ImageDenoiser, connect

    llm = connect("fake", constraint="logit_bias")
    denoiser = ImageDenoiser(llm, "spae-digits-32", "rotation", context=4).fit(photographs(2, 2)[0])
    return lambda number: denoiser.denoise(photographs(1, 1, first=2 + number)[0])


def eval_few_shot() -> Trip:
    """The command: two episodes of two ways in one setting, every scorer and baseline."""
    from icl_vision.cli import main

    data = str(photographs(1, 1)[0][0].parents[1])

    def trip(number: int) -> None:
        with tempfile.TemporaryDirectory(prefix="icl-vision-house-") as folder:
            where = ["--data", data, "--out", f"{folder}/run", "--llm", "fake", "--quiet"]
            asked = ["--ways", "2", "--settings", "1s-0r-i", "--episodes", "2", "--seed", str(number)]
            main(["eval", "few-shot", *where, *asked], standalone_mode=False)

    return trip


def train() -> Trip:
    """Two steps of a small net on eight photographs of two classes, whose names guide it."""
    from icl_vision.training import load_config, train

    small = ["steps=2", "batch=2", "data.validation=2", "data.load_size=34", "log.every=1", "log.images=2"]
    small += ["model.side=32", "model.filters=8", "model.multipliers=[1,2]", "model.grids=[1,2,4,16]"]
    small += ["guide={kind: labels, names: [camera, chair]}", "devices.accelerator=cpu"]

    def trip(number: int) -> None:
        with tempfile.TemporaryDirectory(prefix="icl-vision-house-") as folder:
            for photograph in photographs(3, 4)[0][4:]:
                (Path(folder) / "data" / photograph.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(photograph, Path(folder) / "data" / photograph.parent.name)
            config = load_config("spae-scratch-64", [*small, f"seed={number}"], data=Path(folder) / "data")
            train(config, Path(folder) / "run", progress=False)

    return trip


TRIPS: dict[str, Callable[[], Trip]] = {
    "predict": predict,
    "generate": generate,
    "denoise": denoise,
    "eval few-shot": eval_few_shot,
    "train": train,
}


def count_trip(name: str) -> dict[str, Any]:
    """One trip of the package that this interpreter imports."""
    counting = Counting()
    counting.install()
    trip = TRIPS[name]()
    trip(0)
    counting.on = True
    trip(1)
    counting.on = False
    return counting.report()


def rooms(name: str) -> str:
    """One trip as a list in Markdown: a line a module in the order of their first entry, what each says it is, and the
    leaves (modules that lie in no folder) in one line at the end. The trips in docs/architecture.md are made of it."""
    lines, leaves = [], []
    for module in count_trip(name)["rooms"]:
        path = Path(str(importlib.import_module(module).__file__))
        where = (
            f"{module.removeprefix(PACKAGE).lstrip('.').replace('.', '/')}{'/__init__' * (path.stem == '__init__')}.py"
        )
        about = (importlib.import_module(module).__doc__ or "").partition("\n")[0]
        if "/" in where:
            lines.append(f"{len(lines) + 1}. `{where}`: {about[:1].lower()}{about[1:].rstrip('.')}")
        else:
            leaves.append(f"`{where}`")
    return "\n".join([*lines, f"\nand the leaves {', '.join(sorted(leaves))}."])


# Arguments and repetitions --------------------------------------------------------------------------------------------


def arguments() -> dict[str, int]:
    """How many arguments each of the classes takes."""
    found = {}
    for name, homes in HOMES.items():
        kind = next((getattr(module, name) for module in map(_module, homes) if hasattr(module, name)), None)
        if kind is None:
            raise SystemExit(f"{name} lives in none of {', '.join(homes)}: say where in HOMES")
        found[name] = len(inspect.signature(kind).parameters)
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def repeated(tree: Path, pylint: str | None) -> dict[str, Any] | str:
    """Runs of six repeated lines: how many, their lines (one of each), and where they stand."""
    if pylint is None:
        return "not measured"
    command = [pylint, "--disable=all", "--enable=duplicate-code", f"--min-similarity-lines={SIX}", "--score=n"]
    done = subprocess.run(
        [*command, "--output-format=json2", *SUITES], cwd=tree, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 8):  # 8: it found something to refactor
        raise SystemExit(f"pylint ended with exit code {done.returncode}: {done.stderr[-500:]}")
    runs = []
    for message in json.loads(done.stdout)["messages"]:
        places = re.findall(r"^==(\S+):\[(\d+):(\d+)\]$", message["message"], flags=re.MULTILINE)
        runs.append({
            "lines": max(int(stop) - int(start) for _, start, stop in places),
            "modules": [module for module, _, _ in places],
        })  # fmt: skip
    return {"runs": len(runs), "lines": sum(run["lines"] for run in runs), "where": runs}


# All of it ------------------------------------------------------------------------------------------------------------


def measure(tree: Path, pylint: str | None) -> dict[str, Any]:
    """Everything about one checkout."""
    with environment(tree) as variables:

        def asked(what: str) -> Any:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), "--inside", what],
                env={**variables, "ICL_VISION_CACHE": f"{variables['PYTHONPATH']}/cache"},
                cwd=variables["PYTHONPATH"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return json.loads(done.stdout.splitlines()[-1])

        return {
            "commit": commit(tree),
            "folders": folders(tree),
            "trips": {name: asked(name) for name in TRIPS},
            "arguments": asked("arguments"),
            "repeated": repeated(tree, pylint),
        }


def table(trees: list[dict[str, Any]]) -> str:
    """A column for each checkout."""
    lines = [f"{'':42}" + "".join(f"{(tree['commit'] or '?')[:7]:>22}" for tree in trees)]

    def row(name: str, cell: Callable[[dict[str, Any]], object]) -> None:
        lines.append(f"{name:42}" + "".join(f"{cell(tree)!s:>22}" for tree in trees))

    for folder in sorted({folder for tree in trees for folder in tree["folders"]}):
        row(folder, lambda tree, at=folder: _folder(tree["folders"].get(at)))
    row("all: modules, lines", lambda tree: _folder(_sum(tree)))
    row("most files in a folder", lambda tree: max(folder["files"] for folder in tree["folders"].values()))
    for name in TRIPS:
        row(f"{name}: modules", lambda tree, at=name: tree["trips"][at]["modules"])
        row(f"{name}: crossings (back)", lambda tree, at=name: _crossings(tree["trips"][at]))
    for name in HOMES:
        row(f"{name}: arguments", lambda tree, at=name: tree["arguments"][at])
    row("repeated runs of six lines", lambda tree: _runs(tree["repeated"]))
    return "\n".join(lines)


def _sum(tree: dict[str, Any]) -> dict[str, int]:
    return {key: sum(folder[key] for folder in tree["folders"].values()) for key in ("modules", "lines", "files")}


def _folder(counts: dict[str, int] | None) -> str:
    return "-" if counts is None else f"{counts['modules']} {counts['lines']:>7,}"


def _crossings(trip: dict[str, Any]) -> str:
    return f"{trip['crossings']:,} ({trip['back']:,})"


def _runs(repeated: dict[str, Any] | str) -> str:
    return repeated if isinstance(repeated, str) else f"{repeated['runs']} ({repeated['lines']} lines)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tree", type=Path, action="append", default=[], help="another checkout, measured first")
    parser.add_argument("--pylint", default=shutil.which("pylint"), help="the program (default: the one on PATH)")
    parser.add_argument("--out", help="JSON file; default: only the table is printed")
    parser.add_argument("--rooms", choices=sorted(TRIPS), help="print one trip of this checkout as a list, and no more")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rooms:
        print(rooms(options.rooms))
        return
    if options.inside:
        found = arguments() if options.inside == "arguments" else count_trip(options.inside)
        print(json.dumps(found))
        return
    trees = [measure(tree.resolve(), options.pylint) for tree in (*options.tree, HERE)]
    print(table(trees))
    if options.out:
        from _common import header, write

        write(options.out, header() | {"trees": trees})


if __name__ == "__main__":
    main()
