"""Questions about pictures and captions of pictures, as files of JSON lines: the packaged examples, or one's own.

A line is an object; keys that are not named here are passed over:

    {"image": "kitchen.jpg", "question": "What is on the table?", "answer": "pizza"}
    {"image": "kitchen.jpg", "caption": "A pizza lies on the table."}

``image`` is a path relative to the file, or a list of such paths where the question is about several pictures together.
``answer`` and ``caption`` may be a list of texts that are all right (references). In a file of examples they must be
there; in a file of things to ask they may be, and nobody is shown them: they are the truth that answers are held
against.

Files are often somebody else's: their size is capped, a path that leads out of the file's folder is followed only with
``trust``, and whatever is wrong is found before anything is asked, each bad line by its number.

Knows: lines, paths, the packaged examples. Refuses to know: words, prompts, and which questions an LLM is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from icl_vision.errors import IclVisionError, UsageError
from icl_vision.files.reading import loads, read_text
from icl_vision.files.trust import Reader
from icl_vision.prompting.labels import check_line, forbidden_character
from icl_vision.tasks.answer.answered import MOST_ANSWER, MOST_CAPTION, MOST_QUESTION

Kind = Literal["question", "caption"]

MOST_BYTES = 16 * 2**20
"""Of such a file: a hundred thousand questions and more."""
MOST_IMAGES = 16
"""Pictures of one question."""
MOST_TRUTH = 2000
"""Characters of an answer or caption that is not shown to an LLM."""
NAMED = 5
"""Bad lines that a message quotes; it counts all of them."""

PACKAGED = Path(__file__).parents[2] / "demo_data"
ATTRIBUTION = (
    "Photographs: Caltech 101 (Li, Andreeto, Ranzato, Perona), CC BY 4.0; questions, answers and captions: ours."
)

_FILES: Mapping[Kind, str] = {"question": "questions.jsonl", "caption": "captions.jsonl"}
_TRUTHS: Mapping[Kind, str] = {"question": "answer", "caption": "caption"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. line: its number, from 1. images: one or more. question: None for a caption. truths: the answers or
    captions that are right, none where the line says none."""

    line: int
    images: tuple[Path, ...]
    question: str | None
    truths: tuple[str, ...]


def packaged(kind: Kind) -> list[Entry]:
    """The packaged examples, as they stand in their file."""
    return read_entries(PACKAGED / _FILES[kind], kind, truths=True, trust=True)


def packaged_examples() -> tuple[list[Path], list[str], list[str]]:
    """Sixteen photographs with a question about each and its answer, written by us: the arguments of ``VisualQA.fit``.

    The photographs are Caltech 101's, CC BY 4.0; see ``demo_data/ATTRIBUTION.md``.

    >>> images, questions, answers = packaged_examples()
    >>> len(images), questions[0], answers[0]
    (16, 'What is in the box?', 'pizza')
    """
    entries = packaged("question")
    return (
        [entry.images[0] for entry in entries],
        [entry.question or "" for entry in entries],
        [entry.truths[0] for entry in entries],
    )


def packaged_captions() -> tuple[list[Path], list[str]]:
    """The same photographs with a caption of each, written by us: the arguments of ``Captioner.fit``."""
    entries = packaged("caption")
    return [entry.images[0] for entry in entries], [entry.truths[0] for entry in entries]


def read_entries(
    source: str | os.PathLike[str], kind: Kind, *, truths: bool, trust: bool = False, how: str = "trust=True"
) -> list[Entry]:
    """The lines of a file; of a folder, those of its one ``.jsonl`` file.

    Args:
        source: the file, or the folder it lies in.
        kind: "question" or "caption": which keys a line has.
        truths: whether every line must have its answer or caption, as examples do.
        trust: follow paths that lead out of the file's folder.
        how: how that is said, for the message.

    Raises:
        UsageError: no such file, more than one, too large, no lines, or lines that cannot be used: all of them are
            counted, the first ``NAMED`` quoted with their numbers and what is wrong.
    """
    file = _file_of(Path(source))
    try:
        text = read_text(file, most=MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is no UTF-8 text ({error})"
        raise UsageError(f"{str(file)!r} cannot be read: {why}") from error
    reader = Reader(str(file), trust, how)
    entries: list[Entry] = []
    wrong: list[str] = []
    total = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        total += 1
        try:
            entries.append(_entry(number, loads(line), kind, truths, file.parent, reader))
        except (ValueError, IclVisionError) as error:
            what = str(error) if isinstance(error, IclVisionError) else f"it is no JSON object ({error})"
            wrong.append(f"line {number}: {what}")
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UsageError(
            f"{len(wrong)} of {total} lines of {str(file)!r} cannot be used: {'; '.join(wrong[:NAMED])}{more}"
        )
    if not entries:
        raise UsageError(f"{str(file)!r} holds no lines; write one for each, such as {_form(kind, truths)}")
    return entries


def _file_of(source: Path) -> Path:
    """The file itself, or the one of a folder."""
    if not os.path.isdir(source):
        return source
    try:
        found = sorted(path for path in source.iterdir() if path.suffix.lower() == ".jsonl" and path.is_file())
    except OSError as error:
        raise UsageError(f"the folder {str(source)!r} cannot be read: {error.strerror}") from error
    if len(found) != 1:
        has = f"has {len(found)}: {', '.join(path.name for path in found[:NAMED])}; name the file" if found else (
            "has none; write one, a line for each picture"
        )  # fmt: skip
        raise UsageError(f"the folder {str(source)!r} must hold one .jsonl file, and {has}")
    return found[0]


def _form(kind: Kind, truths: bool) -> str:
    if kind == "caption":
        return '{"image": "photo.jpg", "caption": "..."}' if truths else '{"image": "photo.jpg"}'
    return '{"image": "photo.jpg", "question": "..."' + (', "answer": "..."}' if truths else "}")


def _entry(number: int, document: Any, kind: Kind, truths: bool, folder: Path, reader: Reader) -> Entry:
    if not isinstance(document, dict):
        raise UsageError(f"it must be {_form(kind, truths)}")
    images = _listed(document, "image")
    if not images:
        raise UsageError("it has no 'image'")
    for name in images:
        character = forbidden_character(name, breaks="")
        if character:
            raise UsageError(f"its 'image' holds {character}; name a file without it")
    if len(images) > MOST_IMAGES:
        raise UsageError(f"a question may have {MOST_IMAGES} pictures; it names {len(images)}")
    paths = tuple(folder / _followed(name, folder, reader) for name in images)
    question = None
    if kind == "question":
        question = document.get("question")
        if not isinstance(question, str) or not question.strip():
            raise UsageError("its 'question' must be a text that is not empty")
        question = check_line(question.strip(), "a question", MOST_QUESTION)
    truth = _TRUTHS[kind]
    right = [text.strip() for text in _listed(document, truth)]
    if truths and not right:
        raise UsageError(f"an example needs its {truth!r}")
    most = (MOST_ANSWER if kind == "question" else MOST_CAPTION) if truths else MOST_TRUTH
    return Entry(number, paths, question, tuple(check_line(text, f"its {truth}", most) for text in right))


def _listed(document: Mapping[str, Any], key: str) -> list[str]:
    """The texts under a key: one, a list of them, or none."""
    value = document.get(key)
    texts = [] if value is None else value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"its {key!r} must be a text that is not empty, or a list of such; got {value!r:.80}")
    return texts


def _followed(name: str, folder: Path, reader: Reader) -> str:
    """A path of the file, where it may be followed: nowhere else than into the folder, links of that folder too."""
    reader.inside("image", name, "a file that lies beside its pictures")
    if reader.trust:
        return name
    try:
        real = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, or links that go round
        raise UsageError(f"{name[:80]!r} cannot be a file's name") from error
    if not real.is_relative_to(folder.resolve()):
        reader.place("image", name, "a file that lies beside its pictures")
    return name
