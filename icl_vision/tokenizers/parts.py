"""Weights that several artefacts share: each kept once, in a part of its own, and put where a graph leaves them out.

A part is a folder with ``graph.onnx``, a graph that runs by itself (a trunk), and a card. Another artefact's card names
it under "parts", with the sha256 of its graph; it is looked for inside the artefact's folder, beside it, and among the
packaged ones. The artefact's own graph is stored with a short text in place of each tensor that the part has:

    shared PART TENSOR FORM

FORM says how the tensor follows from the part's: "same" bytes; or the whole "levels" or fp16 "scales" of its rounding
to int8, a scale for each row (``models/rounding.py``); "levels turned" are those of the transposed matrix.

Once every text has given way to its tensor, the graph must have the sha256 that the card names under "whole". So the
runtime, and whoever keeps words by what made them, sees the very graph that would otherwise have been stored.

Knows: where parts lie, how such a graph becomes whole. Refuses to know: sessions, what a graph computes, how weights
are taken out of it (``exporters/parts.py``).
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icl_vision.errors import ArtefactDamagedError
from icl_vision.files.reading import MOST_WEIGHTS, member, read_bytes
from icl_vision.files.storage import sha256_file
from icl_vision.tokenizers.artefact import read_file
from icl_vision.tokenizers.graphs import fields
from icl_vision.vocabulary import CARD_FILE

PART_FILE: Final = "graph.onnx"
MARK: Final = b"shared "
SAME, LEVELS, SCALES, TURNED = "same", "levels", "scales", "levels turned"
FORMS: Final = (SAME, LEVELS, SCALES, TURNED)
_GRAPH, _INITIALIZER = 7, 5  # field numbers of onnx.proto, which never change
_DIMS, _TYPE, _NAME, _RAW, _TEXT = 1, 2, 8, 9, 12
_FP16 = 10
_LEVELS = np.float32(127)
_PACKAGED = Path(__file__).parent.parent / "artefacts" / "parts"

Pieces = list[bytes | memoryview]
"""Bytes that are joined once, at the end: a trunk is not copied at every level of a message."""


@dataclass(frozen=True)
class SharedTensor:
    """A tensor of a part. raw: its bytes, little-endian. kind: its type, a number of onnx.proto. shape: its sides."""

    raw: memoryview
    kind: int
    shape: tuple[int, ...]

    def in_form(self, form: str) -> bytes | memoryview:
        """The bytes of the tensor that follows from this one.

        Raises:
            ValueError: an unknown form, or one that a tensor of this kind does not have.
        """
        if form == SAME:
            return self.raw
        if form not in FORMS or self.kind != _FP16 or len(self.shape) < 2 or (form == TURNED and len(self.shape) != 2):
            raise ValueError(f"a tensor {list(self.shape)} has no form {form!r}")
        levels, scales = self._rounded
        if form == SCALES:
            return scales.tobytes()
        return np.ascontiguousarray(levels.T if form == TURNED else levels).tobytes()

    @functools.cached_property
    def _rounded(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
        return rounded_to_int8(np.frombuffer(self.raw, dtype="<f2").reshape(self.shape))


def packaged_parts() -> list[str]:
    """The names of the parts inside the package, sorted."""
    return sorted(entry.parent.name for entry in _PACKAGED.glob(f"*/{CARD_FILE}"))


def packaged_part(name: str) -> Path:
    """The folder of a packaged part."""
    return _PACKAGED / name


def find_parts(folder: Path, card: Mapping[str, Any]) -> dict[str, Path]:
    """The folder of each part that a card names, by the part's name; the sha256 of its graph decides.

    Raises:
        ArtefactDamagedError: none of that name, or only ones with another sha256; or the card's "parts" or "whole" are
            not what they should be.
    """
    named, whole = card.get("parts", {}), card.get("whole", {})
    if not isinstance(named, Mapping) or not isinstance(whole, Mapping):
        raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} must hold objects as its 'parts' and 'whole'")
    strange = [name for name in whole if name not in card.get("files", {})]
    if strange:
        raise ArtefactDamagedError(
            f"{CARD_FILE} in {str(folder)!r} names {strange[0]!r} under 'whole', but not under 'files'"
        )
    found = {}
    for entry in named.values():
        name, wanted = (entry.get("name"), entry.get("hash")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(name, str) or not name or Path(name).name != name or not isinstance(wanted, str):
            raise ArtefactDamagedError(
                f"{CARD_FILE} in {str(folder)!r} must name each of its parts and the part's hash; got {entry!r}"
            )
        found[name] = _find(folder, name, wanted)
    return found


def whole_graph(folder: Path, card: Mapping[str, Any], file: str, parts: Mapping[str, Path] | None = None) -> bytes:
    """The bytes of a graph that a card lists, with every tensor in its place.

    parts: as ``find_parts`` gives them; None looks for them now.

    Raises:
        ArtefactDamagedError: the file or a part cannot be read, is another one, or they do not make the graph that the
            card describes.
    """
    data = read_file(folder, card, file)
    wanted = card.get("whole", {}).get(file)
    if wanted is None:
        return data
    places = find_parts(folder, card) if parts is None else parts
    graphs = {name: _read(place) for name, place in places.items()}
    try:
        data = filled(data, {name: dict(tensors_of(graph)) for name, graph in graphs.items()})
    except ValueError as error:
        raise ArtefactDamagedError(f"{file} in {str(folder)!r} cannot be made whole: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != wanted:
        raise ArtefactDamagedError(
            f"{file} in {str(folder)!r} and its parts do not make the graph its card describes: its sha256 is "
            f"{digest[:12]}..., the card says {str(wanted)[:12]}...; fetch or build the folder again"
        )
    return data


def filled(model: bytes, parts: Mapping[str, Mapping[str, SharedTensor]]) -> bytes:
    """A graph's bytes with each text of the form above replaced by the tensor that it stands for.

    parts: tensors by part and name.

    Raises:
        ValueError: no ONNX model, a text that names no tensor of the parts, or more of them than a graph may hold.
    """
    size = len(model)

    def tensor(message: memoryview) -> Pieces | None:
        nonlocal size
        pieces = _filled_tensor(message, parts)
        size += sum(map(len, pieces or ()))
        if size > MOST_WEIGHTS:  # each text is short, and what it stands for is not
            raise ValueError(f"it would have more than {MOST_WEIGHTS:,} bytes")
        return pieces

    def graph(message: memoryview) -> Pieces:
        return _rewritten(message, _INITIALIZER, tensor)

    return b"".join(_rewritten(memoryview(model), _GRAPH, graph))


def tensors_of(model: bytes) -> Iterator[tuple[str, SharedTensor]]:
    """The initializers of a part's graph that are stored as raw bytes, by name.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    for number, graph, _, _ in fields(memoryview(model)):
        if number != _GRAPH or not isinstance(graph, memoryview):
            continue
        for inner, tensor, _, _ in fields(graph):
            if inner == _INITIALIZER and isinstance(tensor, memoryview):
                yield from _tensor(tensor)


def rounded_to_int8(weight: npt.NDArray[np.float16]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """A kernel or matrix as whole levels and a scale for each row, as ``models.rounding.round_to_int8`` rounds it.

    Args:
        weight: [rows, ...], two or more axes.

    Returns:
        levels of the same shape, -127 to 127, and scales [rows]; a row too small for a scale has levels of zero.
    """
    rows = weight.astype(np.float32).reshape(len(weight), -1)
    most = np.abs(rows).max(1, keepdims=True)
    scale = (most / _LEVELS).astype(np.float16).astype(np.float32)
    # A scale rounded down would need a level of 128; one fp16 step more and it does not.
    scale = np.where(most > _LEVELS * scale, scale * np.float32(1 + 2**-10), scale)
    scale = scale.astype(np.float16).astype(np.float32)
    levels = np.clip(np.rint(rows / np.maximum(scale, np.float32(1e-12))), -_LEVELS, _LEVELS)
    largest = np.abs(rows).argmax(1)[:, None]
    np.put_along_axis(levels, largest, np.sign(np.take_along_axis(rows, largest, 1)) * _LEVELS, 1)
    levels *= scale > 0
    return levels.astype(np.int8).reshape(weight.shape), scale[:, 0].astype(np.float16)


def _find(folder: Path, name: str, wanted: str) -> Path:
    places = [path for path in (folder / name, folder.parent / name, _PACKAGED / name) if os.path.isdir(path)]
    others = []
    for place in places:
        try:
            digest = sha256_file(member(place, PART_FILE), most=MOST_WEIGHTS)
        except OSError as error:
            others.append(
                f"{PART_FILE} in {str(place)!r} cannot be read ({error.strerror})"
            )  # it may be no part at all
            continue
        if digest == wanted:
            return place
        others.append(f"{str(place)!r} has {digest[:12]}...")
    nowhere = f"no such folder inside or beside it, nor in the package {packaged_parts()}"
    raise ArtefactDamagedError(
        f"{str(folder)!r} needs the part {name!r} with sha256 {wanted[:12]}...: {', '.join(others) or nowhere}"
    )


def _read(place: Path) -> bytes:
    """The bytes of a part's graph. One that was changed since it was found does not make the whole that is wanted."""
    try:
        return read_bytes(member(place, PART_FILE), most=MOST_WEIGHTS)
    except OSError as error:
        raise ArtefactDamagedError(f"{PART_FILE} in {str(place)!r} cannot be read ({error.strerror})") from error


def _tensor(message: memoryview) -> Iterator[tuple[str, SharedTensor]]:
    shape: list[int] = []
    name, raw, kind = "", None, 0
    for number, value, _, _ in fields(message):
        if number == _DIMS and isinstance(value, int):
            shape.append(value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8")
        elif number == _RAW and isinstance(value, memoryview):
            raw = value
    if raw is not None:
        yield name, SharedTensor(raw, kind, tuple(shape))


def _filled_tensor(message: memoryview, parts: Mapping[str, Mapping[str, SharedTensor]]) -> Pieces | None:
    """A tensor's message with its text replaced; None where it has no such text."""
    for number, value, begin, end in fields(message):
        if number == _TEXT and isinstance(value, memoryview) and bytes(value[: len(MARK)]) == MARK:
            words = bytes(value).decode("utf-8").split(" ", 3)
            part, name, form = words[1:] if len(words) == 4 else ("", "", "")
            tensor = parts.get(part, {}).get(name)
            if tensor is None:
                raise ValueError(f"it wants the tensor {name!r} of the part {part!r}, and there is none")
            return [message[:begin], *_field(_RAW, [tensor.in_form(form)]), message[end:]]
    return None


def _rewritten(message: memoryview, number: int, change: Callable[[memoryview], Pieces | None]) -> Pieces:
    """A message with its length-delimited fields of that number changed, where ``change`` does not give None."""
    pieces: Pieces = []
    kept = 0
    for its_number, value, begin, end in fields(message):
        changed = change(value) if its_number == number and isinstance(value, memoryview) else None
        if changed is not None:
            pieces += [message[kept:begin], *_field(number, changed)]
            kept = end
    return [*pieces, message[kept:]]


def _field(number: int, pieces: Pieces) -> Pieces:
    """A length-delimited field of protobuf around these bytes."""
    length = sum(len(piece) for piece in pieces)
    return [_varint(number << 3 | 2), _varint(length), *pieces]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
