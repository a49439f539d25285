"""`icl-vision show`: one page for images, one picture for an image, one JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path / "one.png"


DIGITS = ("--tokenizer", "spae-digits-32")


def test_a_page_and_its_json(digit: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "page.html"
    result = run(digit, *DIGITS, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    (shown,) = answer["images"]
    assert answer["out"] == str(out) and shown["image"] == str(digit) and shown["k"] == 37
    assert [len(layer) for layer in shown["words"]] == [len(layer) for layer in shown["similarity"]] == [1, 4, 16, 16]
    assert shown["similarity_to"] == "the image's own vector"
    assert all(-1 <= value <= 1 for layer in shown["similarity"] for value in layer)
    assert len(shown["psnr"]) == 4 and all(5 < value < 60 for value in shown["psnr"])
    html = out.read_text(encoding="utf-8")
    assert f"{shown['psnr'][3]:.1f}\N{NO-BREAK SPACE}dB PSNR" in html
    assert "one.png in words" in html and "icl-vision show one.png --tokenizer spae-digits-32 --out page.html" in html
    assert str(tmp_path) not in html
    first = html.encode()
    assert run(digit, *DIGITS, "--out", out).exit_code == 1 and out.read_bytes() == first
    assert run(digit, *DIGITS, "--out", out, "--force").exit_code == 0 and out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    rough = json.loads(run(digit, *DIGITS, "-k", "5", "--out", out, "--json", "--force").stdout)
    assert rough["images"][0]["words"] == shown["words"][:2]
    assert "-k 5 --out page.html" in out.read_text(encoding="utf-8")


def test_a_picture(digit: Path, tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    result = run(digit, *DIGITS, "--out", out)
    assert result.exit_code == 0 and "one.png shown in" in result.stderr and result.stdout == ""
    with Image.open(out) as made:
        assert made.format == "PNG" and made.width == 1400
    assert run(digit, *DIGITS, "--out", out, "--quiet", "--force").stderr == ""


def test_several_images_on_one_page_and_names_told_apart(digit: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    other = tmp_path / "a" / "one.png"
    other.write_bytes(digit.read_bytes())
    out = tmp_path / "page.html"
    assert run(digit, other, "--tokenizer", "ascii", "--out", out).exit_code == 0
    html = out.read_text(encoding="utf-8")
    assert "2 images in characters" in html and "a/one.png" in html and html.count("<article id=") == 2


def test_a_bad_file_is_named_and_the_others_are_shown(digit: Path, tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.png", tmp_path / "page.html"
    bad.write_text("no image")
    result = run(digit, bad, tmp_path / "none.png", "--tokenizer", "ascii", "--out", out, "--json")
    assert result.exit_code == 1
    assert "ImageFormatError" in result.stderr and "ImageNotFoundError" in result.stderr
    images = json.loads(result.stdout)["images"]
    assert [sorted(image) for image in images[1:]] == [["error", "image"]] * 2
    assert images[0]["similarity"] is None and images[0]["similarity_to"] is None and images[0]["k"] == 16
    assert images[0]["psnr"] is None
    assert out.read_text(encoding="utf-8").count("<article id=") == 1
    out.unlink()
    result = run(bad, "--tokenizer", "ascii", "--out", out, "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["out"] is None and not out.exists()


def test_what_show_refuses(digit: Path, tmp_path: Path) -> None:
    assert "must end in .html or .png" in run(digit, "--out", tmp_path / "a.jpg").output
    assert run(digit, "--out", tmp_path / "a.jpg").exit_code == 2
    two = run(digit, digit, "--out", tmp_path / "a.png")
    assert two.exit_code == 2 and "a .png shows one image, 2 were given" in two.output
    assert run("--out", tmp_path / "a.html").exit_code == 2
    assert run(digit).exit_code == 2
    wrong = run(digit, *DIGITS, "-k", "6", "--out", tmp_path / "a.html")
    assert wrong.exit_code == 1 and "k must be one of 1, 5, 21, 37" in wrong.output
    unknown = run(digit, "--tokenizer", "nothing", "--out", tmp_path / "a.html")
    assert unknown.exit_code == 1 and "no tokenizer 'nothing': available are ascii, " in unknown.output
    near = run(digit, "--tokenizer", "spae-digit-32", "--out", tmp_path / "a.html")
    assert near.exit_code == 1 and "did you mean 'spae-digits-32'?" in near.output and "Traceback" not in near.output
    (tmp_path / "folder.html").mkdir()
    assert run(digit, "--out", tmp_path / "folder.html").exit_code == 2
    blocked = run(digit, *DIGITS, "--out", digit / "a.html")
    assert blocked.exit_code == 1 and "cannot be" in blocked.output
    assert not list(tmp_path.glob("a.*"))
