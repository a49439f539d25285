"""report.html of a few-shot run: one file that shows the table and lets anybody look into every single question.

Knows: how the parts of the page are put together and written. Refuses to know: networks, and how the run was made; it
reads the run folder and the images, nothing else.

The fixed part (headline, table, plots, cost) is plain HTML. The browser of questions is a script over packed data
(see ``benchmark.data``); it needs a browser of 2023 or later and says so in an older one. Nothing is loaded from
anywhere, and the page's policy forbids it; only the script whose hash the policy names can run.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from icl_vision.errors import RunMismatchError, UntrustedNameError, UsageError
from icl_vision.files.runs import read_results
from icl_vision.files.storage import atomic_path
from icl_vision.files.trust import Reader
from icl_vision.viz import plots, reliability
from icl_vision.viz.benchmark import table as benchmark_table
from icl_vision.viz.benchmark.data import Packed, Results, pack_items
from icl_vision.viz.few_shot_page import STYLE as FEW_SHOT_STYLE
from icl_vision.viz.page import document, escape, size_for, thumbnails

logger = logging.getLogger(__name__)

_DATA = "<!--data-->"
_CHUNK = 100  # thumbnails in one element


def write_report(
    folder: Path,
    *,
    title: str | None = None,
    images: Path | None = None,
    others: Sequence[Path] = (),
    trust: bool = False,
) -> Path:
    """Write ``report.html`` into the folder of a finished few-shot run and give its path.

    Args:
        folder: run folder of ``icl-vision eval few-shot``.
        title: of the page; None = from the run's LLM and tokenizer.
        images: the folder that the run's image paths are in; None = where the run had it, if ``trust`` allows
            that: a run folder may come from others, and its images are copied into the page. Images that are not there
            are left out, and the page shows their words alone.
        others: finished runs with other numbers of words (``k``), drawn into a plot of accuracy against words. They
            must have put the same questions to the same LLM in the same way.
        trust: take the images from the folder that the run names.

    The file is written whole or not at all, and the same run gives the same bytes. Memory holds an index of the items
    and one block of them.

    Raises:
        RunError: not a finished few-shot run, or an item of another form.
        RunMismatchError: one of ``others`` differs in more than its words.
        UsageError: ``images`` is no folder.
    """
    folder = Path(folder)
    results = Results.read(folder)
    other = [_like(results, Path(run)) for run in others]
    if images is not None and not os.path.isdir(images):
        raise UsageError(f"images must be the folder that the run's image paths are in; {str(images)!r} is no folder")
    root = Path(images) if images is not None else _images_of(results, folder, trust)
    target = folder / "report.html"
    with tempfile.TemporaryFile("w+", encoding="ascii", newline="\n") as blocks:
        packed = pack_items(read_results(folder), results, blocks)
        blocks.seek(0)
        head, tail = _frame(results, other, packed, title or _title(results)).split(_DATA)
        with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as page:
            page.write(head)
            page.write(_element("index", packed.index()))
            for block in blocks:
                page.write(_element("block", block.rstrip("\n")))
            for chunk in _chunks(thumbnails(root, packed.images.texts)):
                page.write(_element("thumbs", chunk))
            page.write(tail)
    return target


def _like(results: Results, folder: Path) -> Results:
    """Another run, if all that may tell it from this one is its words."""
    other = Results.read(folder)
    names = ("llm", "labels", "questions", "options", "prompt")
    different = [name for name in names if other.config.get(name) != results.config.get(name)]
    if different:
        raise RunMismatchError(
            f"the run in {str(folder)!r} differs in {', '.join(different)}, so a plot of accuracy against words would "
            "mix two things; repeat this run with another -k on its own episodes.json"
        )
    return other


def _frame(results: Results, others: Sequence[Results], packed: Packed, title: str) -> str:
    """The page around its data."""
    side, _ = size_for(len(packed.images))
    body = (
        f'<h1>{escape(title)}</h1><nav class="small"><a href="#table">table</a> <a href="#plots">plots</a> '
        f'<a href="#look">questions</a> <a href="#v=wrong">wrong answers</a> <a href="#cost">cost</a></nav>'
        + benchmark_table.headline(results)
        + benchmark_table.table(results)
        + benchmark_table.plots(results, others)
        + benchmark_table.probabilities(results)
        + _look(packed.items, side)
        + benchmark_table.cost(results, packed.usage)
        + benchmark_table.facts(results)
        + _DATA
    )
    own = files("icl_vision.viz.benchmark")
    style = FEW_SHOT_STYLE + plots.STYLE + reliability.STYLE
    style += own.joinpath("page.css").read_text(encoding="utf-8")
    return document(title, body, style, own.joinpath("page.js").read_text(encoding="utf-8"))


def _look(items: int, side: int) -> str:
    """The places that the script fills."""

    def selects(*names: tuple[str, str]) -> str:
        return "".join(f'<label>{name}<select id="{key}"></select></label>' for key, name in names)

    return (
        f'<section id="look" data-side="{side}"><h2>Look inside</h2>'
        f'<p class="small soft">All questions of the run: {items:,}. Choose, or click a number in the table or the '
        "confusion matrix; then click a question.</p>"
        '<p id="state" class="card">The questions need a script, and this page may not run it here (no scripts, or a '
        "browser from before 2023). Table, plots and cost are all there without it.</p>"
        f'<div id="tool" hidden><div class="filters card">{selects(("r", "row"), ("s", "setting"))}</div>'
        '<div class="matrices"><div class="card"><h3 id="matrix-title"></h3>'
        '<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix" id="matrix"></div></div>'
        '<div class="card"><h3>Most frequent mistakes</h3><ol id="mistakes"></ol></div></div>'
        f'<div class="filters second card">{selects(("v", "answers"), ("t", "it is"), ("a", "answered"))}'
        '<a class="reset small" href="#v=">show all</a></div>'
        '<div class="browser"><div class="list card"><div class="pager"><button type="button" id="before">earlier'
        '</button><span id="count" aria-live="polite"></span><button type="button" id="after">later</button></div>'
        '<ul id="items"></ul></div><article class="detail card" id="detail" tabindex="-1" aria-label="question">'
        "</article></div></div></section>"
    )


def _element(kind: str, data: str) -> str:
    # Base64 alone: nothing in it can end the element.
    return f'<script type="text/plain" class="{kind}">{data}</script>\n'


def _chunks(pictures: Iterator[str]) -> Iterator[str]:
    chunk: list[str] = []
    for picture in pictures:
        chunk.append(picture)
        if len(chunk) == _CHUNK:
            yield " ".join(chunk)
            chunk = []
    if chunk:
        yield " ".join(chunk)


def _title(results: Results) -> str:
    llm, tokenizer = (results.config.get(name) for name in ("llm", "tokenizer"))
    if not (isinstance(llm, str) and isinstance(tokenizer, str)):
        return "Few-shot benchmark"
    return f"Few-shot benchmark: {benchmark_table.spoken(llm)} reads {benchmark_table.spoken(tokenizer)}"


def _images_of(results: Results, folder: Path, trust: bool) -> Path | None:
    data = results.config.get("data")
    if not isinstance(data, str) or not data:
        return None
    try:
        root = Path(Reader(str(folder), trust).place("folder of images", data, "images="))
    except UntrustedNameError:
        logger.warning(
            "the run says that its images lie in %r; the page shows their words alone. Say where they are with images= "
            "(--images DIR), or give trust=True (--trust) for a run of your own",
            data,
        )
        return None
    return root if os.path.isdir(root) else None
