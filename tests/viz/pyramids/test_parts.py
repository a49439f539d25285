"""Words by part on pages, in notebooks and in pictures: `icl-vision show` with --about."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
import tiny_describe
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision import ImageTokenizer, ImageWords, Vocabulary
from icl_vision.cli import main
from icl_vision.tokenizers.describe import reading
from icl_vision.viz.pyramids.look import look
from icl_vision.viz.pyramids.parts import part_rows, parts_html, with_used
from icl_vision.viz.pyramids.picture import draw_pyramid

WORDS = Vocabulary("dog puppy man ball green white top bottom".split(), name="eight")
WHERE = "top white ball bottom green dog".split()
PICTURE = ImageWords.of(
    {"what": ["dog", "puppy"], "said": ["man", "ball"], "colours": [], "where": WHERE},
    WORDS,
    probabilities={"what": [0.9, 0.2], "said": [0.5, 0.4], "colours": [], "where": [0, 0.3, 0.2, 0, 0.6, 0.9]},
    text=["<b>STOP</b>"],
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_describe.make(tmp_path_factory.mktemp("show") / "tiny-describe")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reading, "can_read", lambda: False)
    Image.new("RGB", (90, 60), (200, 20, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


def test_rows_with_chances_and_marks() -> None:
    used = PICTURE.only({"said": [1], "where": [3, 4, 5]})
    what, said, where = part_rows(PICTURE, used)  # an empty part is no row
    assert [(word.word, word.chance, word.used) for word in what.lines[0].words] == [
        ("dog", 0.9, False),
        ("puppy", 0.2, False),
    ]
    assert [word.used for word in said.lines[0].words] == [False, True]
    assert [(line.region, [word.used for word in line.words]) for line in where.lines] == [
        ("top", [False, False]),
        ("bottom", [True, True]),
    ]


def test_words_chosen_beyond_those_shown_are_shown_too() -> None:
    shown, used = PICTURE.at_most(1), PICTURE.only({"said": [1]})
    assert with_used(PICTURE, PICTURE.only({"what": [0], "said": [0]}), used).words("said") == ["man", "ball"]
    assert with_used(PICTURE, shown, used).words("what") == ["dog"]


def test_html_is_escaped_and_says_what_the_numbers_are() -> None:
    html = parts_html(PICTURE, PICTURE.only({"what": [0]}), "<script>?")
    assert "<b>STOP" not in html and "&lt;b&gt;STOP&lt;/b&gt;" in html and "<script>" not in html
    assert "90%" in html and "how probable it is" in html
    assert re.findall(r'<li class="used"[^>]*>(\w+)', html) == ["dog"]
    bare = ImageWords.of({"what": ["dog"]}, WORDS)
    assert "%" not in parts_html(bare) and "probable" not in parts_html(bare)


def test_notebooks_show_parts(folder: Path, photo: Path) -> None:
    html = PICTURE._repr_html_()
    assert 'class="icl-parts"' in html and "puppy" in html and "<script>" not in html
    tokenizer = ImageTokenizer.from_pretrained(str(folder))
    (words,) = tokenizer.encode(photo)
    with_photo = words.show(image=photo, tokenizer=tokenizer).html
    assert "data:image/webp" in with_photo and 'class="icl-parts"' in with_photo


def test_a_page_marks_what_was_chosen(folder: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run(photo, "--tokenizer", folder, "-k", 4, "--about", "Who is <it>?", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    (shown,) = json.loads(done.stdout)["images"]
    assert shown["parts"] == ["what", "said", "colours", "where"] and set(shown["used"]) <= {"said", "what"}
    html = out.read_text(encoding="utf-8")
    marked = set(re.findall(r'<li class="used"[^>]*>(\w+)', html))
    assert marked == {word for words in shown["used"].values() for word in words}
    assert len(shown["words"][1]) > 4  # persons that were chosen beyond the first four words
    assert "Who is &lt;it&gt;?" in html and "--about 'Who is <it>?'" in unescape(html)
    plain = run(photo, "--tokenizer", folder, "--parts", "what", "--out", tmp_path / "plain.html")
    assert plain.exit_code == 0, plain.output
    html = (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert 'class="used"' not in html and "--parts what --out plain.html" in html


def test_a_picture_of_parts(folder: Path, photo: Path, tmp_path: Path) -> None:
    tokenizer = ImageTokenizer.from_pretrained(str(folder), reader=tiny_describe.Reader("STOP", "x" * 80))
    asked = draw_pyramid(look(photo, tokenizer, about="What colour is it?"))
    plain = draw_pyramid(look(photo, tokenizer))
    assert asked.width == plain.width == 1400 and asked.tobytes() != plain.tobytes()
    out = tmp_path / "picture.png"
    assert run(photo, "--tokenizer", folder, "--about", "What colour is it?", "--out", out).exit_code == 0
    with Image.open(out) as made:
        assert made.format == "PNG"


def test_a_question_where_there_is_none(photo: Path, tmp_path: Path) -> None:
    done = run(photo, "--tokenizer", "ascii", "--about", "Who?", "--out", tmp_path / "page.html")
    assert done.exit_code == 1 and "can_focus=False" in done.stderr and not (tmp_path / "page.html").exists()
