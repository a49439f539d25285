"""Pictures with their texts to draw from: the packaged digits, or a folder of one's own; which are shown, and which
texts may be asked for.

Knows: folders, captions, balance over the texts given. Refuses to know: words, prompts, LLMs, what is asked for: the
examples of a prompt are chosen before any query is known.

A folder is read in the first of these ways that fits:

- ``captions.jsonl``: a line {"file": "some.png", "text": "a ring"} for each picture;
- sub-folders: the text of a picture is made from its sub-folder's name;
- pictures alone: the text is made from the file's name, without its ending and a number at its end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icl_vision.errors import UsageError
from icl_vision.files.reading import loads, read_text
from icl_vision.images import list_images
from icl_vision.images.folders import EMPTY, loose, survey
from icl_vision.spelling import by_name, composed
from icl_vision.tokenizers.taking import IMAGES, Taking

DIGITS = "digits"
CAPTIONS = "captions.jsonl"
MOST_BYTES = 16 * 1024 * 1024
"""Of captions.jsonl: a hundred thousand pictures and more."""
TEXT = "an image of {}"
"""The papers' preamble."""
TEXT_OF_CLIPS = "an animation of {}"

TEXT_CHARACTERS = 300
"""A longer text is refused: long enough for a sentence, and every example shows its text once for each segment."""

_PACKAGED = Path(__file__).parents[2] / "artefacts" / "examples"
_NUMBER = re.compile(r"[\s_-]*\d*$")


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture's file and its text."""

    path: Path
    text: str


def read_examples(source: str | os.PathLike[str], text: str = TEXT, takes: Taking = IMAGES) -> list[Captioned]:
    """The pictures of "digits" (100 packaged ones, ten of each) or of a folder, with their texts.

    Args:
        source: "digits", or a folder; a folder named digits is meant by "./digits".
        text: how a name becomes a text, with ``{}`` for the name; captions are taken as they are.
        takes: what the tokenizer takes: images, or clips (files that move, folders of frames).

    Raises:
        UsageError: no such folder, no pictures, captions that cannot be read or name no picture there.
    """
    if "{}" not in text or text.count("{") != 1 or "\n" in text:
        raise UsageError(f"the text of an example must be one line that holds {{}} for its name; got {text!r}")
    folder = _PACKAGED / DIGITS if source == DIGITS else Path(source)
    if not os.path.isdir(folder):
        raise UsageError(f"examples must be 'digits' or a folder of pictures; there is no folder {str(folder)!r}")
    if takes is not IMAGES and source == DIGITS:
        raise UsageError("the packaged digits stand still; pass a folder of clips")
    if (folder / CAPTIONS).is_file():
        return _captioned(folder, takes)
    folders = sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=by_name
    )
    if takes is not IMAGES:
        pictures = _clips(folder, text, takes)
    elif folders:
        left = loose(folder)
        for named in folders:
            if not survey(named).images:
                left.leave_out(EMPTY, named.name)
        left.tell()
        pictures = [
            Captioned(image, text.replace("{}", _name(named.name))) for named in folders for image in list_images(named)
        ]
    else:
        pictures = [
            Captioned(image, text.replace("{}", _name(_NUMBER.sub("", image.stem) or image.stem)))
            for image in list_images(folder)
        ]
    if not pictures:
        raise UsageError(f"the folder {str(folder)!r} holds no pictures to draw from")
    return pictures


def _clips(folder: Path, text: str, takes: Taking) -> list[Captioned]:
    """The clips of a folder, named by the sub-folder of their kind; by themselves where they lie in none or are one."""
    pictures = []
    for clip in takes.listed(folder):
        inside = clip.relative_to(folder).parts
        name = inside[0] if len(inside) > 1 else _NUMBER.sub("", clip.stem) or clip.stem
        pictures.append(Captioned(clip, text.replace("{}", _name(name))))
    return pictures


def _name(name: str) -> str:
    """A file's or folder's name as people would say it."""
    return " ".join(name.replace("_", " ").split())


def _captioned(folder: Path, takes: Taking) -> list[Captioned]:
    """The pictures that ``captions.jsonl`` names; none outside the folder."""
    file = folder / CAPTIONS
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(f"{str(file)!r} has {size:,} bytes, the cap is {MOST_BYTES:,}: give fewer pictures")
        lines = read_text(file, most=MOST_BYTES).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error}") from error
    root = folder.resolve()
    captioned: list[Captioned] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{str(file)!r}, line {number}"
        try:
            entry = loads(line)
            name, text = entry["file"], entry["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f'{where} must be {{"file": ..., "text": ...}}; got {line[:80]!r}') from error
        if not isinstance(name, str) or not isinstance(text, str) or not text.strip():
            raise UsageError(f"{where}: file and text must be strings, and the text not empty; got {line[:80]!r}")
        path = folder / name
        try:
            inside, there = (
                path.resolve().is_relative_to(root),
                path.is_file() or (takes is not IMAGES and path.is_dir()),
            )
        except (OSError, ValueError) as error:  # too long, or a NUL in it
            raise UsageError(f"{where} names {name[:80]!r}, which cannot be a file's name") from error
        if not inside:
            raise UsageError(f"{where} names {name!r}, which lies outside the folder")
        if not there:
            raise UsageError(f"{where} names {name!r}, which is not there")
        captioned.append(Captioned(path, text.strip()))
    if not captioned:
        raise UsageError(f"{str(file)!r} names no pictures")
    return captioned


def as_texts(texts: object) -> list[str]:
    """The texts as a list, stripped.

    Raises:
        UsageError: not a sequence, none, or something else than one line of at most ``TEXT_CHARACTERS`` among them.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise UsageError(f"texts must be a sequence of strings; got a value of type {type(texts).__name__}")
    given = list(texts)
    for index, text in enumerate(given):
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"a text must be a string that is not empty; texts[{index}] is {text!r}")
        if len(text.strip().splitlines()) > 1:
            # A second line would read as an example.
            raise UsageError(f"a text must be one line; texts[{index}] is {text[:80]!r}")
        characters = len(composed(text.strip()))
        if characters > TEXT_CHARACTERS:
            raise UsageError(
                f"a text may have {TEXT_CHARACTERS} characters; texts[{index}] has {characters}: {text[:80]!r}"
            )
    if not given:
        raise UsageError("there is nothing to draw: give at least one text")
    return [text.strip() for text in given]


def choose(texts: Sequence[str], shots: int | None, seed: int) -> list[int]:
    """Which examples are shown, and in which order: indices among those given.

    ``shots`` of each text, drawn by ``seed`` (None: all of them, in rounds too), one of each text after the other; the
    texts of each round stand in a random order. Nothing that is asked for later takes part.
    """
    generator = np.random.default_rng([seed, 7])
    indices: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        indices.setdefault(composed(text), []).append(index)
    drawn = {
        text: [some[at] for at in generator.permutation(len(some))[: shots or len(some)].tolist()]
        for text, some in indices.items()
    }
    order: list[int] = []
    for turn in range(max((len(some) for some in drawn.values()), default=0)):
        present = [some[turn] for some in drawn.values() if turn < len(some)]
        order += [present[at] for at in generator.permutation(len(present)).tolist()]
    return order
