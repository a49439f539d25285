"""The script that measures the house counts what it says, and the package of another checkout really is what runs."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("house")
    for name in ("house", "trees"):
        sys.modules.pop(name, None)


def room(name: str, source: str, **names: object) -> dict[str, object]:
    """The names of a module of ours that exists only here."""
    module = {"__name__": f"icl_vision.{name}", **names}
    exec(source, module)
    return module


def counted(house: ModuleType, function: object) -> dict[str, object]:
    counting = house.Counting()
    before = sys.getprofile()
    counting.install()
    try:
        counting.on = True
        function()  # type: ignore[operator]  # a name of the module above
        counting.on = False
    finally:
        sys.setprofile(before)
        house.threading.setprofile(before)
    report: dict[str, object] = counting.report()
    return report


def test_calls_count_that_come_from_another_room(house: ModuleType) -> None:
    kitchen = room("kitchen", "def stir(): taste()\ndef taste(): pass")
    hall = room("hall", "def walk():\n    for _ in range(3): list(map(lambda _: stir(), [0]))", stir=kitchen["stir"])
    report = counted(house, hall["walk"])
    # hall from outside once, kitchen three times, however they got there; taste is called from its own room.
    assert report == {
        "modules": 2,
        "crossings": 4,
        "back": 2,
        "rooms": {"icl_vision.hall": 1, "icl_vision.kitchen": 3},
    }


def test_a_coroutine_counts_where_it_begins_not_where_it_goes_on(house: ModuleType) -> None:
    source = "import asyncio\nasync def wait(again):\n    for _ in range(again): await asyncio.sleep(0)"
    kitchen = room("kitchen", source)
    hall = room("hall", "async def walk(again): await wait(again); await wait(again)", wait=kitchen["wait"])
    few, many = (counted(house, lambda again=again: asyncio.run(hall["walk"](again))) for again in (0, 9))  # type: ignore[operator]  # a name of the module above
    assert few == many
    assert few["rooms"] == {"icl_vision.hall": 1, "icl_vision.kitchen": 2}


def test_other_threads_are_watched(house: ModuleType) -> None:
    source = "import threading\ndef walk():\n    t = threading.Thread(target=stir); t.start(); t.join()"
    kitchen = room("kitchen", "def stir(): pass")
    hall = room("hall", source, stir=kitchen["stir"])
    assert counted(house, hall["walk"])["rooms"] == {"icl_vision.hall": 1, "icl_vision.kitchen": 1}


def test_files_and_lines_of_a_folder_are_those_at_its_own_level(house: ModuleType, tmp_path: Path) -> None:
    for name, lines in (("icl_vision/__init__.py", 3), ("icl_vision/a/b.py", 5), ("exporters/c.py", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n" * lines)
    (tmp_path / "icl_vision" / "py.typed").touch()
    assert house.folders(tmp_path) == {
        "icl_vision": {"modules": 1, "lines": 3, "files": 2},
        "icl_vision/a": {"modules": 1, "lines": 5, "files": 1},
        "exporters": {"modules": 1, "lines": 7, "files": 1},
    }


def test_arguments_are_found_wherever_a_name_lives_now(house: ModuleType) -> None:
    assert set(house.arguments()) == {"FewShotClassifier", "ImageGenerator", "ImageDenoiser", "ProgressiveDecoder"}
    assert min(house.arguments().values()) > 3


def test_the_package_of_another_checkout_is_the_one_that_is_imported(house: ModuleType, tmp_path: Path) -> None:
    for name in ("icl_vision", "icl_vision/tasks", "prompts", "exporters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MARK = 'another'")
    code = """if True:
        import icl_vision.tasks, icl_vision.prompts, icl_vision.exporters
        print([module.MARK for module in (icl_vision, icl_vision.tasks, icl_vision.prompts, icl_vision.exporters)])
    """
    with house.environment(tmp_path) as variables:
        command, cwd = [sys.executable, "-c", code], variables["PYTHONPATH"]
        done = subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["another"] * 4)
    # A module that only this checkout has is not lent to it.
    with house.environment(tmp_path) as variables:
        command = [sys.executable, "-c", "import icl_vision.pyramid"]
        done = subprocess.run(
            command, env=variables, cwd=variables["PYTHONPATH"], capture_output=True, text=True, check=False
        )
    assert "No module named 'icl_vision.pyramid'" in done.stderr
    with pytest.raises(SystemExit, match="is no checkout"), house.environment(tmp_path / "tasks"):
        pass


def test_a_trip_is_counted_in_a_process_of_its_own() -> None:
    command = [sys.executable, str(BENCHMARKS / "house.py"), "--inside", "predict"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert report["modules"] == len(report["rooms"]) > 10
    assert report["crossings"] == sum(report["rooms"].values()) == report["back"] + report["modules"]
    assert {"icl_vision.images.opening", "icl_vision.pyramid", "icl_vision.llms.fake"} <= set(report["rooms"])
