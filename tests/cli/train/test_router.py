"""`icl-vision train router`: one run on lines of one's own, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.text_to_image import Router


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", "router", *arguments])


def lines(folder: Path) -> Path:
    path = folder / "lines.jsonl"
    starts = {"draw": ("draw", "paint", "sketch"), "text": ("who is", "explain", "why is")}
    rows = [
        {"route": route, "text": f"{start} the {thing}"}
        for route, some in starts.items()
        for start in some
        for thing in ("cat", "dog", "house", "tree", "boat", "star", "bird", "fish")
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_router_is_trained_said_and_used(tmp_path: Path) -> None:
    out = tmp_path / "router.json"
    done = run("--lines", str(lines(tmp_path)), "--alone", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "of 48 instructions (24 draw, 24 text)" in done.stdout and "on instructions left out: " in done.stdout
    router = Router.load(out)
    assert router.route("paint the moon").name == "draw" and router.facts["templates"] == 48


def test_with_json_the_figures_are_one_document(tmp_path: Path) -> None:
    done = run("--lines", str(lines(tmp_path)), "--alone", "--out", str(tmp_path / "r.json"), "--json", "--quiet")
    document = json.loads(done.stdout)
    assert document["routes"] == {"draw": 24, "text": 24} and 0 <= document["text_below"] <= document["draw_from"] <= 1
    assert document["held_out"]["reliability"]["n"] == 48


def test_mistakes_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"route": "paint", "text": "x"}')
    done = run("--lines", str(bad), "--out", str(tmp_path / "r.json"))
    assert done.exit_code == 1 and "line 1: route must be one of 'draw', 'text'; got 'paint'" in done.stderr
    assert not (tmp_path / "r.json").exists()
    assert run("--out", str(tmp_path / "r.json")).exit_code == 2
