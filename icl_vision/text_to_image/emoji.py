"""Pictures with names, such as emoji: what is trained on, what is held out, and the captions of a name.

    named = open_named(Path("emoji-clips-64.tar"))
    named.names, named.train, named.test        # {"zebra face" ...}: places of the ones trained on and held out

A set is a folder or .tar with a list (``icl_vision.clips.lists``) that names every picture and has the parts "train"
and "test". Of an animation the first frame is the picture. A name of the training split whose family is that of a
held-out name is left out of both: "woman fire engine" is no test of anything where "man fire engine" was trained on.

Knows: files, names, families, wordings. Refuses to know: nets, and what is done with a picture.

Letters in shapes: N pictures, S their side.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.clips.lists import LIST, MOST_LIST, TRAIN, member_of, read_list
from icl_vision.errors import UsageError
from icl_vision.files.reading import read_bytes
from icl_vision.images import load_image
from icl_vision.text_to_image.denoisers.unet import SIDE
from icl_vision.training.data.sources import Folder, Shards, open_source

MOST_NAME: Final = 120
_PEOPLE: Final = frozenset(
    "man men woman women adult adults person people boy girl child baby older male female sign mother father".split()
)
"""Words that tell twins of a family apart."""
_FORMS: Final = frozenset("face symbol the a and with of".split())

TEMPLATES: Final = ("{}", "draw {}", "a picture of {}", "{} please", "{} emoji", "show me {} on a card")
"""Captions of a name that a mapper is trained on."""
UNSEEN: Final = ("could you sketch {} for me", "a tiny image showing {}", "make {}", "the {} symbol on my phone")
"""Captions that figures are measured on."""


def family(name: str) -> str:
    """What names of twins have in common: "man X", "woman X" and "X female sign" are of one family."""
    words = name.casefold().replace("-", " ").split()
    core = [word for word in words if word not in _PEOPLE and word not in _FORMS]
    return " ".join(sorted(core)) if core else "people"


@dataclass(frozen=True)
class Named:
    """Pictures with names. names: of each. pixels: uint8 [N, S, S, 3]. train, test: int64, places in them; what is in
    neither is a twin of what is held out. fingerprint: of names and files."""

    names: tuple[str, ...]
    pixels: npt.NDArray[np.uint8]
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    fingerprint: str


def open_named(path: str | os.PathLike[str], side: int = SIDE) -> Named:
    """A folder or .tar of pictures with a ``clips.jsonl``.

    Raises UsageError where there is no such list, a line of it cannot be used, or a file that it names is missing;
    ImageError for a picture that cannot be read.
    """
    source = open_source(Path(path))
    if not isinstance(source, Folder | Shards):
        raise UsageError(f"{os.fspath(path)!r} holds arrays without names; give a folder or .tar with a {LIST}")
    lines = _lines(Path(path))
    # A tar's members are called SHARD/NAME.
    places = {_own(name, source): place for place, name in enumerate(source.names)}
    missing = [line["file"] for line in lines if line["file"] not in places]
    if missing:
        raise UsageError(f"{LIST} of {os.fspath(path)!r} names {missing[0]!r}, which is not there")
    names = tuple(line["name"] for line in lines)
    pixels = np.stack([shrunk(source.load(places[line["file"]]), side) for line in lines])
    held = {family(line["name"]) for line in lines if line["split"] == "test"}
    train = [place for place, line in enumerate(lines) if line["split"] == "train" and family(line["name"]) not in held]
    test = [place for place, line in enumerate(lines) if line["split"] == "test"]
    if not train:
        raise UsageError(f"{LIST} of {os.fspath(path)!r} leaves nothing to train on")
    return Named(names, pixels, np.array(train, np.int64), np.array(test, np.int64), source.fingerprint)


def shrunk(image: Image.Image, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """uint8 [S, S, 3]: the whole picture, over white where it is transparent."""
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX), dtype=np.uint8)


def open_frames(path: str | os.PathLike[str], side: int = SIDE) -> list[npt.NDArray[np.uint8]]:
    """All frames of each picture of the list, uint8 [F, S, S, 3], in its order: what a judge learns from."""
    source = open_source(Path(path))
    if not isinstance(source, Shards):
        raise UsageError(f"frames are read from a .tar; got {os.fspath(path)!r}")
    places = {_own(name, source): place for place, name in enumerate(source.names)}
    found = []
    for line in _lines(Path(path)):
        shard, offset, length = source.places[places[line["file"]]]
        with source.shards[shard].open("rb") as handle:
            handle.seek(offset)
            data = handle.read(length)
        load_image(data)  # the one way from untrusted bytes: refuses what is no picture, or too large
        with Image.open(io.BytesIO(data)) as animation:
            frames = []
            for number in range(min(64, getattr(animation, "n_frames", 1))):
                animation.seek(number)
                frames.append(shrunk(animation, side))
        found.append(np.stack(frames))
    return found


def captions(names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> list[tuple[str, int]]:
    """(text, place of the name), every name in every template once."""
    return [(text.format(name), place) for place, name in enumerate(names) for text in dict.fromkeys(templates)]


def _own(name: str, source: Folder | Shards) -> str:
    return PurePosixPath(name.partition("/")[2]).as_posix() if isinstance(source, Shards) else name


def _lines(path: Path) -> list[dict[str, str]]:
    where = repr(str(path))
    lines = []
    for entry in read_list(_list_of_tar(path) if path.is_file() else _list_of_folder(path), where):
        name = entry.name or ""
        if not (0 < len(name) <= MOST_NAME and name.isprintable()) or entry.split not in (TRAIN, "test"):
            raise UsageError(
                f"line {entry.line} of {LIST} in {where} must have a name of 1 to {MOST_NAME} printable characters and "
                f"a split, train or test; got {entry.name!r:.200} and {entry.split!r:.200}"
            )
        lines.append({"file": entry.file, "name": name, "split": entry.split})
    return lines


def _list_of_folder(path: Path) -> bytes:
    file = path / LIST
    if not file.is_file():
        raise UsageError(f"{str(path)!r} has no {LIST}, which says what its pictures are called")
    return read_bytes(file, most=MOST_LIST)


def _list_of_tar(path: Path) -> bytes:
    with tarfile.open(path, "r:") as tar:  # open_source has read it: it is one
        member = member_of(tar, LIST)
        handle = None if member is None or member.size > MOST_LIST else tar.extractfile(member)
        if handle is None:
            raise UsageError(f"{str(path)!r} has no {LIST}, which says what its pictures are called")
        return handle.read()
