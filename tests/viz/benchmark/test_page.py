"""The report of a few-shot run: complete, honest, safe, small; and in a real browser a mistake is two clicks away."""

from __future__ import annotations

import base64
import json
import logging
import re
import shutil
import zlib
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from icl_vision.errors import RunError, UsageError
from icl_vision.evaluation.few_shot.config import SETTINGS, Setting
from icl_vision.viz.benchmark.page import write_report
from icl_vision.viz.benchmark.table import bare

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
READY = "document.documentElement.dataset.ready === 'yes'"
SOME = (Setting(2, 1), Setting(5, 1), Setting(5, 3), Setting(5, 1, 1))
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def images(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("images")
    synthetic.make_images(folder, ["cat", "dog", "cow", "hen", "owl", "pig"], 8)
    return folder


@pytest.fixture(scope="module")
def run(synthetic: ModuleType, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    synthetic.make_run(folder, episodes=20, images=images)
    write_report(folder, trust=True)
    return folder


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def elements(html: str, kind: str) -> list[str]:
    return re.findall(rf'<script type="text/plain" class="{kind}">(.*?)</script>', html, re.DOTALL)


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def blocks(html: str) -> list[dict[str, Any]]:
    return [json.loads(unpacked(text)) for text in elements(html, "block")]


def edited(run: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run with every item changed."""
    shutil.copytree(run, target)
    lines = []
    for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        change(row["result"])
        lines.append(json.dumps(row) + "\n")
    (target / "journal.jsonl").write_text("".join(lines), encoding="utf-8")
    return target


class Structure(HTMLParser):
    """Every tag that is opened is closed, in order; collects tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


# Without a browser ----------------------------------------------------------------------------------------------------


def test_the_table_holds_every_cell_with_interval_and_n(run: Path, html: str) -> None:
    results = json.loads((run / "results.json").read_text())
    measured = [cell for cell in results["cells"] if cell["accuracy"] and cell["note"] != "quoted"]
    assert len(measured) == 12 * 14
    for cell in measured:
        accuracy = cell["accuracy"]
        low, high = accuracy["interval"]
        href = f'href="#s={cell["setting"]}&amp;r={cell["row"].replace(":", "%3A")}"'
        inner = f"<b>{100 * accuracy['accuracy']:.1f}</b><small>{100 * low:.1f}\N{EN DASH}{100 * high:.1f}</small>"
        pattern = re.escape(href) + r'><span class="level" style="width:[\d.]+%"></span>' + re.escape(inner)
        assert re.search(pattern + r"<small>n 20</small>", html), cell
    for mean in results["means"]:
        assert mean["mean"] is None or f"<b>{100 * mean['mean']:.2f}</b>" in html
    assert html.count('<td colspan="7"><small class="note">exceeds window</small></td>') == 2
    assert "2-way" in html and "chance 50" in html and "5-way" in html and "chance 20" in html


def test_labels_are_honest(html: str) -> None:
    assert "constrained output, transductive, 6 LLM calls" in html  # calibrated
    assert "open-ended, 1 LLM call<" in html
    assert "Quoted from publications, not measured here" in html
    assert "Quoted from SPAE, arXiv 2306.17842, table 1" in html
    assert '<tr class="quoted">' in html
    quoted = html[html.index('<tr class="quoted">') :]
    assert "href" not in quoted[: quoted.index("</tr>")] and ">n " not in quoted[: quoted.index("</tr>")]


def test_headline_plots_cost_and_facts(html: str) -> None:
    assert "<b>likelihood</b>, 5-way, 1 inner shot<br>" in html
    assert html.count('<svg class="plot"') == 4
    assert "likelihood at 3 inner shots: " in html and "95% interval" in html and "n = 20" in html
    assert "<dt>prompt tokens</dt>" in html and "unknown (no price given)" in html
    assert "<dt>k</dt><dd>5</dd>" in html


def test_a_run_that_is_priced_or_has_failures_says_so(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    results = json.loads((copy / "results.json").read_text())
    for cost, said in (
        ({"amount": 1.25}, "<dd>1.2500</dd>"),
        ({"amount": None, "reason": "no price for it"}, "unknown (no price for it)"),
        (0.5, "<dd>0.5000</dd>"),
    ):
        (copy / "results.json").write_text(json.dumps({**results, "cost": cost, "missing": 3}))
        text = write_report(copy).read_text(encoding="utf-8")
        assert said in text and "3 questions failed and not counted" in text


def test_every_item_is_in_the_page(run: Path, html: str) -> None:
    header, numbers = elements(html, "index")[0].split("\n")
    index = json.loads(unpacked(header))
    assert index["items"] == 20 * 14 and index["settings"] == [setting.id for setting in SETTINGS]
    assert len(unpacked(numbers)) == 4 * index["items"] * len(index["columns"])
    found = {item["id"]: item for block in blocks(html) for item in block["items"]}
    journal = [json.loads(line)["result"] for line in (run / "journal.jsonl").read_text().splitlines()]
    assert found.keys() == {item["id"] for item in journal}
    for item in journal:
        packed = found[item["id"]]
        assert packed["prompts"] == item["prompts"]
        answers = {index["rows"][row]: (label, right, raw) for row, label, right, raw, _, _ in packed["answers"]}
        for row, answer in item["answers"].items():
            label, right, raw = answers[row]
            assert (None if label < 0 else index["labels"][label]) == answer["label"]
            assert bool(right) == answer["right"] and raw == answer["raw"]


def test_each_image_is_there_once_and_small(images: Path, html: str) -> None:
    pictures = [one for chunk in elements(html, "thumbs") for one in chunk.split(" ")]
    assert 20 < len(pictures) <= 48 and len(set(pictures)) == len(pictures)
    assert all(base64.b64decode(one)[8:12] == b"WEBP" for one in pictures)


def test_the_page_is_whole_loads_nothing_and_runs_one_script_only(html: str) -> None:
    structure = Structure()
    structure.feed(html)
    assert structure.open == []
    assert "http" not in html.replace("http-equiv", "")
    policy = next(a["content"] for _, a in structure.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert (
        policy is not None and "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/=]{44}'$", policy)
    )
    assert [attributes.get("type") for tag, attributes in structure.tags if tag == "script"].count(None) == 1
    assert not any(name.startswith("on") for _, attributes in structure.tags for name in attributes)
    assert "innerHTML" not in html and "eval(" not in html


def test_the_same_run_gives_the_same_bytes(run: Path, images: Path, html: str) -> None:
    assert write_report(run, images=images).read_text(encoding="utf-8") == html
    assert not [path for path in run.iterdir() if path.name.startswith(".tmp-")]


def test_images_where_only_the_run_says_they_are_are_not_copied(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    without = write_report(copy).read_text(encoding="utf-8")
    assert "UklGR" not in without and "--trust" in caplog.text  # no WebP
    assert "UklGR" in write_report(copy, trust=True).read_text(encoding="utf-8")


def test_nothing_hostile_becomes_markup(synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.make_run(
        tmp_path / "run", episodes=4, images=None, labels=[HOSTILE, "b", "c", "d", "e"], settings=SOME
    )
    results = json.loads((run / "results.json").read_text())
    for row in results["rows"]:
        row.update(meaning=HOSTILE, source=HOSTILE)
    results["config"][HOSTILE] = HOSTILE
    results["cells"][0].update(accuracy=None, note=HOSTILE)
    (run / "results.json").write_text(json.dumps(results))
    html = write_report(run, title=HOSTILE).read_text(encoding="utf-8")
    assert "alert(1)</script>" not in html and "<img src=x" not in html
    assert "&lt;/script&gt;" in html


def test_paths_of_the_machine_stay_out(synthetic: ModuleType, images: Path, tmp_path: Path) -> None:
    run = synthetic.make_run(tmp_path / "run", episodes=2, images=images, settings=SOME)
    html = write_report(run).read_text(encoding="utf-8")
    assert str(images.parent) not in html and f"<dd>{images.name}</dd>" in html
    assert bare("local:/home/somebody/model.gguf") == "local:model.gguf"
    assert bare("C:\\Users\\somebody\\photos") == "photos"
    for text in ("openai:gpt-5", "openai-compatible:m@http://h:1/v1", "5w-1s-0r-i", "local"):
        assert bare(text) == text


def test_moved_images_leave_the_words(synthetic: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = synthetic.make_run(tmp_path / "run", episodes=2, images=None, settings=SOME)
    with caplog.at_level(logging.WARNING, logger="icl_vision"):
        html = write_report(run).read_text(encoding="utf-8")
    assert "images were not found or cannot be read; the page shows their words" in caplog.text
    assert set("".join(elements(html, "thumbs"))) <= {" "}
    assert blocks(html)[0]["words"]


def test_a_path_out_of_the_image_folder_is_not_followed(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(next(images.rglob("*.jpg")).read_bytes())
    (tmp_path / "inside").mkdir()

    def point(item: dict[str, Any]) -> None:
        item["query"]["image"] = "../secret.jpg"
        item["support"][0]["image"] = str(tmp_path / "secret.jpg")

    html = write_report(edited(run, tmp_path / "run", point), images=tmp_path / "inside").read_text(encoding="utf-8")
    assert set("".join(elements(html, "thumbs"))) <= {" "}


def noted(run: Path, copy: Path) -> Path:
    """The run with a sentence in an answered cell, and with a row that was never answered."""
    shutil.copytree(run, copy)
    results = json.loads((copy / "results.json").read_text())
    for cell in results["cells"]:
        if cell["row"] == "words_prototype" and cell["accuracy"]:
            cell["note"] = SENTENCE
        if cell["row"] == "image_prototype":
            cell.update(accuracy=None, note="not available: no vectors")
    (copy / "results.json").write_text(json.dumps(results))
    write_report(copy)
    return copy


SENTENCE = "not available: a label's words are not in the codebook in 2 of 3 episodes"


def test_notes_break_into_lines_and_only_measured_rows_are_drawn(run: Path, tmp_path: Path) -> None:
    html = (noted(run, tmp_path / "noted") / "report.html").read_text(encoding="utf-8")
    assert html.count(f'<small class="note">{escape(SENTENCE)}</small></a>') == 14
    plots = html[html.index('<section id="plots">') :]
    assert "image prototype" not in plots[: plots.index("</section>")] and "words prototype" in plots


def test_runs_with_other_numbers_of_words_make_a_plot(synthetic: ModuleType, tmp_path: Path) -> None:
    one, two = (synthetic.make_run(tmp_path / str(k), episodes=3, images=None, settings=SOME, k=k) for k in (5, 21))
    assert "5-way 1 shot, accuracy against words" in write_report(one, others=[two]).read_text(encoding="utf-8")
    assert "accuracy against words" not in write_report(one).read_text(encoding="utf-8")


def test_folders_that_are_no_finished_run_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no results.json: no run, or one that is not finished"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="nowhere' is no folder"):
        write_report(run, images=tmp_path / "nowhere")
    target = tmp_path / "results.json"
    for text, message in (
        ("{", "cannot be read"),
        ("[]", "holds None, not results of `icl-vision eval few-shot`"),
        ('{"kind": "few-shot", "format_version": 2}', r"holds \('few-shot', 2\), not results"),
        ('{"kind": "few-shot", "format_version": 1}', "lacks what a page needs: KeyError: 'config'"),
    ):
        target.write_text(text)
        with pytest.raises(RunError, match=message):
            write_report(tmp_path)
    with pytest.raises(RunError, match="item 'e00000/2w-1s-0r-n' is no few-shot result: KeyError: 'answers'"):
        write_report(edited(run, tmp_path / "odd", lambda item: item.pop("answers")))
    assert not (tmp_path / "report.html").exists()


# In a browser ---------------------------------------------------------------------------------------------------------


def test_a_wrong_answer_is_two_clicks_away(browser: Start, run: Path) -> None:
    page = browser(width=1280, height=900)
    page.open(run / "report.html", ready=READY)
    page.click("table.matrix td.miss a")
    page.wait("document.querySelector('#t').value !== ''")
    listed = page.run("document.querySelector('#items li:last-child a > span').childNodes[2].textContent")
    truth, answer = listed.split(" \N{RIGHTWARDS ARROW} ")
    page.click("#items li:last-child a")
    page.wait("document.querySelector('#items li:last-child a[aria-current]')")
    page.wait("document.querySelector('#detail').innerText.includes('wrong: it is')")
    detail = page.run("document.querySelector('#detail').innerText")
    assert answer in detail and f"wrong: it is {truth}" in detail
    assert "Prompt as sent: open" in detail and "Written by the LLM" in detail and "Probabilities (" in detail
    assert page.run("document.querySelectorAll('#detail .support .class').length") in (2, 5)
    page.wait(
        "[...document.querySelectorAll('#detail img')].every((image) => image.complete && image.naturalWidth > 0)"
    )
    assert page.messages == []


def test_a_cell_of_the_table_opens_its_questions(browser: Start, run: Path) -> None:
    page = browser(width=1280, height=900)
    page.open(run / "report.html", ready=READY)
    page.click('a[href="#s=5w-3s-0r-i&r=words_prototype"]')
    page.wait("document.querySelector('#count').textContent === '1 to 20 of 20 questions'")
    assert page.run("[document.querySelector('#s').value, document.querySelector('#r').value]") == [
        "5w-3s-0r-i",
        "words_prototype",
    ]
    page.wait("document.querySelector('.filters.second').getBoundingClientRect().top < 300")
    page.run("document.querySelector('#v').value = 'wrong'")
    page.run("document.querySelector('#v').dispatchEvent(new Event('change'))")
    page.wait("document.querySelectorAll('#items .good').length === 0")
    wrong = page.run("document.querySelectorAll('#items .bad').length")
    page.run("history.back()")
    page.wait("document.querySelectorAll('#items li').length === 20")
    results = json.loads((run / "results.json").read_text())
    cell = next(c for c in results["cells"] if (c["row"], c["setting"]) == ("words_prototype", "5w-3s-0r-i"))
    assert wrong == 20 - round(20 * cell["accuracy"]["accuracy"])
    assert page.messages == []


def test_a_note_in_a_cell_leaves_the_columns_narrow(browser: Start, run: Path, tmp_path: Path) -> None:
    page = browser(width=1280, height=900)
    page.open(noted(run, tmp_path / "noted") / "report.html", ready=READY)
    widths = "[...document.querySelectorAll('.grid')].map((one) => one.scrollWidth - one.parentElement.clientWidth)"
    assert max(page.run(widths)) <= 0


def test_a_link_into_the_page_shows_what_it_says_and_pages_turn(browser: Start, run: Path) -> None:
    page = browser(width=1280, height=900)
    page.open(run / "report.html", "#r=exact&v=wrong", READY)
    right, total = page.run(
        "[document.querySelectorAll('#items .good').length, document.querySelector('#count').textContent]"
    )
    assert right == 0 and total.startswith("1 to 40 of ")
    page.click("#after")
    page.wait("document.querySelector('#count').textContent.startsWith('41 to ')")
    page.open(run / "report.html", "#s=nothing&r=nobody&i=99999", READY)
    assert page.run("document.querySelector('#r').value") == "likelihood"
    assert page.messages == []


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_runs_over_the_edge(browser: Start, run: Path, dark: bool) -> None:
    page = browser(width=390, height=844, dark=dark)
    page.open(run / "report.html", "#v=wrong", READY)
    assert page.run("document.documentElement.scrollWidth") == 390
    assert page.run("document.querySelector('.scroll').scrollWidth > document.querySelector('.scroll').clientWidth")
    page.click("#items li:nth-child(2) a")
    page.wait("document.querySelector('#items li:nth-child(2) a[aria-current]')")
    page.wait("document.querySelector('#detail').getBoundingClientRect().top < 600")
    assert page.run("document.documentElement.scrollWidth") == 390
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 26)" if dark else "rgb(250, 250, 247)")
    assert page.messages == []


def test_the_keyboard_reaches_cells_and_questions(browser: Start, run: Path) -> None:
    page = browser(width=1280, height=900)
    page.open(run / "report.html", ready=READY)
    page.run("document.querySelector('#items li:nth-child(2) a').focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
        page.call("Input.dispatchKeyEvent", key)
    page.wait("document.querySelector('#items li:nth-child(2) a[aria-current]')")
    unreachable = (
        "[...document.querySelectorAll('#tool a, table a')].filter((one) => !one.href || one.tabIndex < 0).length"
    )
    assert page.run(unreachable) == 0
    assert page.run("[...document.querySelectorAll('img, svg.plot')].every((one) => one.alt || one.ariaLabel)")


def test_hostile_labels_words_and_answers_stay_text(browser: Start, synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.make_run(
        tmp_path / "run", episodes=3, images=None, labels=[HOSTILE, "b", "c", "d", "e"], settings=SOME
    )

    def spoil(item: dict[str, Any]) -> None:
        item["query"]["words"] = [HOSTILE, "\x07bell", *item["query"]["words"]]
        item["prompts"][HOSTILE] = HOSTILE
        item["notes"] = {"control:ascii": HOSTILE}
        for answer in item["answers"].values():
            answer["raw"] = HOSTILE

    page = browser(width=1280, height=900)
    page.open(write_report(edited(run, tmp_path / "spoilt", spoil)), ready=READY)
    page.wait("document.querySelector('#detail').innerText.includes('alert(2)')")
    assert page.run("document.querySelectorAll('script:not([type])').length") == 1  # the page's own
    assert page.run("document.querySelectorAll('[onerror], #tool script').length") == 0
    assert page.run("document.querySelector('#detail').innerText.includes('\N{REPLACEMENT CHARACTER}bell')")
    assert page.messages == []


def test_without_scripts_the_page_says_so(browser: Start, run: Path) -> None:
    page = browser(width=1280, height=900)
    page.call("Emulation.setScriptExecutionDisabled", {"value": True})
    page.open(run / "report.html")
    assert page.run("!document.querySelector('#state').hidden && document.querySelector('#tool').hidden")
    assert page.run("document.querySelectorAll('table.grid').length") == 2


def test_drawings_and_images_that_are_gone(browser: Start, synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.make_run(tmp_path / "run", episodes=2, images=None, settings=SOME)

    def draw(item: dict[str, Any]) -> None:
        item["query"]["words"] = ["@@ ", " ##"]

    page = browser(width=1280, height=900)
    page.open(write_report(edited(run, tmp_path / "drawn", draw)), ready=READY)
    assert page.run("document.querySelector('#detail .asking pre.rows').textContent") == "@@ \n ##"
    assert page.run("document.querySelectorAll('#detail .hole').length") > 2
    assert page.messages == []
