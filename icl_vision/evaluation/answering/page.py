"""The page of a run of answers or captions: the table, the comparisons, and the first items with what every row says.

Knows: what of a run goes on a page. Refuses to know: HTML (``viz.answering_page``). Pictures are on it only where they
are asked for: a page may be passed on, and pictures of a data set may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.errors import CapabilityError, ImageError
from icl_vision.evaluation.answering.config import METRICS, MOST, references
from icl_vision.evaluation.answering.summary import aimed, figure_text, gap_texts, remark, types_of, verdict
from icl_vision.files.runs import read_results
from icl_vision.image_words import ImageWords
from icl_vision.tasks.answer.candidates import MOST_WORDS, candidates
from icl_vision.tasks.answer.pictures import Described
from icl_vision.tasks.answer.scoring import MOST_WITHOUT_BAGS
from icl_vision.viz.answering_page import (
    GIVEN,
    WEIGHED,
    AnsweringPage,
    AnswerTile,
    Measured,
    Parts,
    RowTable,
    Said,
    ShownExample,
    render_page,
)

if TYPE_CHECKING:
    from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation
    from icl_vision.evaluation.answering.readers import Question
    from icl_vision.evaluation.answering.rows import Row
    from icl_vision.images import ImageSource
    from icl_vision.tasks.answer.pictures import Seen

SHOWN = 40
"""Items on the page, the first that were asked: none are chosen."""

WITHOUT = "Pictures are left off this page; --pictures puts small copies of them on it."


def answering_page(
    evaluation: AnsweringEvaluation,
    folder: Path,
    results: Mapping[str, Any],
    *,
    pictures: bool = False,
    shown: int = SHOWN,
) -> str:
    """The whole page as HTML that loads nothing.

    Args:
        folder: of the run.
        results: as ``results.json`` has them.
        pictures: put small copies of the pictures on it.
        shown: items at most.
    """
    said: dict[str, dict[str, Mapping[str, Any]]] = {}
    for _, line in read_results(folder):
        said.setdefault(line["item"], {})[line["row"]] = line
    present = {row.name: row for row in evaluation.rows}
    main = aimed(present) or next(iter(present))
    tiles = [
        _tile(evaluation, present[main], item, said[item.id], pictures)
        for item in evaluation.items[:shown]
        if main in said.get(item.id, {})
    ]
    what = "Questions answered" if results["kind"] == "answers" else "Captions written"
    return render_page(
        AnsweringPage(
            f"{what} by {results['llm']}",
            tiles,
            f"{evaluation.bench.name}; the words are of the row {main}; the first {len(tiles)} items, none chosen.",
            _table(results),
            {
                "set": evaluation.bench.name,
                "examples": f"{evaluation.config.shots}, of other pictures",
                "seed": evaluation.config.seed,
                "judged by": METRICS[results["metric"]],
                "intervals": results["methods"]["interval"],
            },
            "" if pictures else WITHOUT,
        )
    )


def _table(results: Mapping[str, Any]) -> RowTable:
    metric = results["metric"]
    graded = metric == "cider"
    columns = ("BLEU-4", "ROUGE-L") if graded else tuple(types_of(results))
    rows = []
    for row in results["rows"]:
        figure = row["figure"]
        value = None if figure is None else figure["accuracy"] if "accuracy" in figure else figure["mean"]
        interval = (0.0, 0.0) if figure is None else (figure["interval"][0], figure["interval"][1])
        if graded:
            cells = [f"{row[name]['mean']:.3f}" if name in row else "" for name in ("bleu_4", "rouge_l")]
        else:
            cells = [figure_text(row["by_type"][kind]) if kind in row["by_type"] else "" for kind in columns]
        cells.append(f"{row['tokens_an_image']:.0f}" if row["asks"] else "")
        n = 0 if figure is None else figure["n"]
        rows.append(Measured(row["name"], row["meaning"], value, interval, n, cells, remark(row)))
    best = max((row.interval[1] for row in rows), default=0.0)
    verdicts = [verdict(pair, results) for pair in results["comparisons"]]
    return RowTable(
        metric,
        rows,
        min(MOST[metric], best) if graded else MOST[metric],
        (*columns, "tokens an image"),
        [*gap_texts(results), *verdicts],
        [f"Judged: {METRICS[metric]}.", f"Intervals: {results['methods']['interval']}. Drawn: "
         f"{results['methods']['drawn']}."],
    )  # fmt: skip


def _tile(
    evaluation: AnsweringEvaluation, main: Row, item: Question, said: Mapping[str, Mapping[str, Any]], pictures: bool
) -> AnswerTile:
    captions = evaluation.config.task == "captions"
    graded = evaluation.judge.metric == "cider"
    line = said[main.name]
    parts, used = _words(evaluation, main, item)
    shown = _shows_words(evaluation, line)
    if not shown:  # also where the row's task is one that can be focused: it had no words in its prompt
        used = _weighed(evaluation, main, item, parts)
    return AnswerTile(
        answer=line["answer"],
        question=item.question,
        truth=references(item) if captions else item.answers,
        right=None if graded or line["score"] is None else line["score"] >= 0.5,
        image=_image(item, pictures),
        parts=parts,
        used=used,
        legend=GIVEN if shown else WEIGHED,
        examples=[
            ShownExample(_line(evaluation, main, example) if shown else "", example.answers[0], example.question,
                         _image(example, pictures))
            for example in evaluation.examples(main, item)
        ],
        probability=line.get("probability"),
        method=line.get("method") or "",
        note=line["note"],
        others=[
            Said(
                row.name,
                said[row.name]["answer"],
                None if graded or said[row.name]["score"] is None else said[row.name]["score"] >= 0.5,
                f"{said[row.name]['score']:.2f}" if graded and said[row.name]["score"] is not None else "",
            )
            for row in evaluation.rows
            if row.name != main.name and row.name in said
        ],
    )  # fmt: skip


def _words(evaluation: AnsweringEvaluation, row: Row, item: Question) -> tuple[Parts, Parts | None]:
    """All words of an item's pictures by part, and those that the row uses for its question (None: all)."""
    try:
        seen = evaluation.words.of(row.words, item)
    except (CapabilityError, ImageError):
        return (), None
    every = [part for one in seen for part in _parts(one)]
    if not row.words.focus or item.question is None:
        return every, None
    reader = evaluation.words.reader(row.words)
    if not reader.focuses:
        return every, None
    used: list[tuple[str, list[str]]] = []
    for one in seen:
        shown = reader.shown(one, item.question)
        focused = reader.tokenizer.focus(one, item.question, reader.k) if isinstance(one, ImageWords) else None  # type: ignore[attr-defined]  # it can focus
        used += _parts(focused) if isinstance(focused, ImageWords) else [("", list(words)) for words in shown.words]
    return every, used


def _shows_words(evaluation: AnsweringEvaluation, line: Mapping[str, Any]) -> bool:
    """Whether the prompt behind an answer held words of pictures; a fused one's does not, unless that is asked for."""
    told = evaluation.config.options.get("show_words")
    return line.get("method") != "fused" if told is None else bool(told)


def _weighed(evaluation: AnsweringEvaluation, row: Row, item: Question, parts: Parts) -> Parts:
    """The words that could be the answer to an item, by part: those that were held against what the LLM says."""
    try:
        chances = evaluation.words.chances(row.words, item)
    except (CapabilityError, ImageError):
        return ()
    most = MOST_WORDS if evaluation.llm.profile.scores_bags else MOST_WITHOUT_BAGS
    offered = {*candidates(item.question, chances, (), "", most)}
    return [
        (name, [word for word in words if word.strip(".,;:!?\"'()").casefold() in offered]) for name, words in parts
    ]


def _parts(seen: Seen) -> list[tuple[str, list[str]]]:
    if isinstance(seen, Described):
        return [("", seen.text.split())]
    if isinstance(seen, ImageWords):
        read = [("text", list(seen.text))] if seen.text else []
        return [*((name, seen.words(name)) for name in seen.names), *read]
    return [("", seen.words())]


def _line(evaluation: AnsweringEvaluation, row: Row, item: Question) -> str:
    try:
        reader, seen = evaluation.words.reader(row.words), evaluation.words.of(row.words, item)
    except (CapabilityError, ImageError):
        return ""
    return " ".join(reader.shown(one, item.question).line for one in seen)


def _image(item: Question, pictures: bool) -> ImageSource | None:
    return item.pictures[0].source if pictures and item.pictures else None
