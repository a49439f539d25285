"""How answers and captions read: rows for ``--json``, lines for people, the page to look at.

Knows: what a row, a line and a tile hold. Refuses to know: how an answer was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.files.storage import readable
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tasks.answer.answered import AnsweredExample
    from icl_vision.tasks.answer.files import Entry
    from icl_vision.viz.answering_page import AnswerTile, Parts, ShownExample

Row = dict[str, Any]

MOST_TILES = 200
"""Questions on a page; what failed or went wrong comes first where there are more."""
MOST_WITH_EXAMPLES = 40
"""Pages of more questions leave the examples' pictures out: each would be on it many times."""
MOST_WORDS = 100
"""Characters of words in a line for people."""
FUSED = "fused: the LLM read the question and the examples, the words weighed what could be answered"


def row_of(entry: Entry, document: Mapping[str, Any], named: str) -> Row:
    """One result as ``--json`` prints it.

    document: as ``Answer.to_dict`` has it. named: where the examples come from.
    """
    images = [readable(path) for path in entry.images]
    row: Row = {"image": images[0] if len(images) == 1 else images}
    if entry.question is not None:
        row["question"] = entry.question
    row["caption" if entry.question is None else "answer"] = document["text"] or None
    if document.get("parts"):
        row["parts"] = document["parts"]
    row |= {key: document[key] for key in ("words", "method", "probability", "calibrated")}
    row |= {"support": named, "examples": document["examples"]}
    if document.get("note"):
        row["note"] = document["note"]
    if entry.truths:
        row["truth"] = list(entry.truths)
        if entry.question is not None:
            from icl_vision.evaluation.answering.metrics import exact_answer

            row["right"] = exact_answer(document["text"], entry.truths)
    if document.get("error"):
        row["error"] = document["error"]
    return row


def said_of(row: Row) -> str | None:
    """What came back, whichever of the two it is."""
    text: str | None = row["answer"] if "answer" in row else row["caption"]
    return text


def lines_of(rows: Sequence[Row]) -> str:
    """For people, a line each: the picture, the question, what came back."""
    cells = [[shown_name(row), row.get("question", ""), _marked(row)] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(2)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False) if width), line[2]])
        for line in cells
    )


def _marked(row: Row) -> str:
    text = said_of(row) or "failed"
    return f"{text} (right: {' / '.join(row['truth'])})" if row.get("right") is False else text


def shown_name(row: Row) -> str:
    """The picture's name, or those of several."""
    return row["image"] if isinstance(row["image"], str) else " ".join(row["image"])


def how_found(row: Row) -> str:
    """A remark about a single result: how it was found, how sure that is, and what was seen."""
    names = row.get("parts") or [""] * len(row["words"])
    words = "; ".join(f"{name}: {' '.join(part)}".lstrip(": ") for name, part in zip(names, row["words"], strict=True)
                      if part)  # fmt: skip
    words = words if len(words) <= MOST_WORDS else words[: MOST_WORDS - 3] + "..."
    sure = ""
    if row["probability"] is not None:
        sure = f", {'' if row['calibrated'] else '~'}{100 * row['probability']:.0f}%"
    shown = counted(len(row["examples"]), "example")
    return f"words: {words}\nfound by: {row['method']}{sure}, after {shown}"


def summary(rows: Sequence[Row]) -> Mapping[str, Any] | None:
    """The share of right answers with its interval; None where no truth is known. A failed question is a wrong one."""
    from icl_vision.evaluation.kit.metrics import Accuracy

    judged = [bool(row["right"]) for row in rows if "right" in row]
    return Accuracy.of(judged, "exact after normalisation").to_dict() if judged else None


def write_page(
    target: Path,
    rows: Sequence[Row],
    entries: Sequence[Entry],
    shown: Sequence[Entry],
    examples: Sequence[AnsweredExample],
    lines: Sequence[Sequence[str]],
    tokenizer: Tokenizer,
    llm: str,
    *,
    sources: Callable[[Path], Sequence[Any]],
) -> None:
    """The page of these results.

    entries: what was asked, in the order of ``rows``. shown: the lines of a file that the examples come from. examples:
    the same as the LLM is shown them, and lines: the words of their pictures as a prompt has them. sources: what stood
    for a file.
    """
    from icl_vision.viz.answering_page import AnsweringPage
    from icl_vision.viz.answering_page import write_page as write

    order = sorted(range(len(rows)), key=lambda place: ("error" not in rows[place], bool(rows[place].get("right", 1))))
    kept = sorted(order[:MOST_TILES]) if len(rows) > MOST_TILES else range(len(rows))
    wide = _all_words(tokenizer, [path for place in kept for path in entries[place].images], sources)
    seen = [
        _example(entry, example, words, with_picture=len(rows) <= MOST_WITH_EXAMPLES)
        for entry, example, words in zip(shown, examples, lines, strict=True)
    ]
    captions = bool(entries) and entries[0].question is None
    tiles = [_tile(rows[place], entries[place], seen, wide) for place in kept]
    lead = f"{counted(len(rows), 'caption' if captions else 'question')} put to {llm}, which saw no picture."
    if len(rows) > len(tiles):
        lead += f" The page shows {len(tiles)} of them, failures and wrong answers first."
    told = summary(rows)
    facts: dict[str, object] = {"LLM": llm, "tokenizer": tokenizer.name, "examples": _named(rows)}
    if told is not None:
        low, high = told["interval"]
        right = round(told["accuracy"] * told["n"])
        facts["right"] = f"{right} of {told['n']} [{100 * low:.0f}%, {100 * high:.0f}%], {told['scorer']}"
    title = "Captions by a text-only LLM" if captions else "Questions to a text-only LLM"
    write(target, AnsweringPage(title, tiles, lead, facts=facts, attribution=_attribution(rows)))


def _named(rows: Sequence[Row]) -> str:
    return str(rows[0]["support"]) if rows else "none"


def _attribution(rows: Sequence[Row]) -> str:
    from icl_vision.tasks.answer.files import ATTRIBUTION

    return f"Packaged examples: {ATTRIBUTION}" if _named(rows) == "packaged" else ""


def _all_words(
    tokenizer: Tokenizer, images: Sequence[Path], sources: Callable[[Path], Sequence[Any]]
) -> dict[Path, list[TokenPyramid]]:
    """All words of each picture that can be read, of several of its frames one after the other."""
    from icl_vision.errors import ImageError

    found: dict[Path, list[TokenPyramid]] = {}
    for path in dict.fromkeys(images):
        try:
            found[path] = tokenizer.encode([*sources(path)])
        except ImageError:
            continue  # its row says why
    return found


def _parts(words: TokenPyramid) -> Parts:
    from icl_vision.image_words import ImageWords

    if isinstance(words, ImageWords):
        return [*((name, words.words(name)) for name in words.names), *((("text", words.text),) if words.text else ())]
    if words.layers == 1:
        return [("", words.words())]
    return [(f"layer {layer}", words.words(layer)) for layer in range(1, words.layers + 1)]


def _tile(
    row: Row, entry: Entry, shown: Sequence[ShownExample], wide: Mapping[Path, Sequence[TokenPyramid]]
) -> AnswerTile:
    from icl_vision.viz.answering_page import AnswerTile

    seen = [words for path in entry.images for words in wide.get(path, ())]
    parts = [part for words in seen for part in _parts(words)]
    names, fused = row.get("parts"), row["method"] == "fused"
    # (Of fused answers all words weigh, and none of them stood in the prompt.)
    used = None if names is None or fused else list(zip(names, row["words"], strict=True))
    if used is not None and [(name, [*words]) for name, words in used] == [(name, [*words]) for name, words in parts]:
        used = None  # all of them: none stands out
    raw = "" if row["calibrated"] or row["probability"] is None else "not calibrated"
    notes = [raw, row.get("error", ""), row.get("note", ""), "" if "error" in row else shown_name(row)]
    return AnswerTile(
        said_of(row),
        entry.question,
        entry.truths,
        row.get("right"),
        entry.images[0] if entry.images[0] in wide else None,
        parts,
        used,
        [replace(shown[index], words="") if fused else shown[index] for index in row["examples"]],
        row["probability"],
        FUSED if fused else row["method"] or "",
        "; ".join(filter(None, notes)),
    )


def _example(entry: Entry, example: AnsweredExample, words: Sequence[str], *, with_picture: bool) -> ShownExample:
    from icl_vision.viz.answering_page import ShownExample

    picture = entry.images[0] if with_picture else None
    return ShownExample(" / ".join(words), example.answer, example.question, picture)
