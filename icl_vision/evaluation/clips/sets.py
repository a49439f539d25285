"""Clips to measure on, and which of them are easy: those that hardly move, and those with a near-twin among others.

Knows: a .tar or folder with a list (``icl_vision.clips.lists``), a folder of clips, an .npz of digits.
Refuses to know: tokenizers, means.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.clips import load_clip
from icl_vision.clips.lists import LIST, MOST_LIST, member_of, read_list
from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.errors import ImageError, UsageError
from icl_vision.evaluation.clips.measures import likeness, motion_of
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.files.reading import read_bytes
from icl_vision.spelling import composed

MOST_CLIP: Final = 64 * 2**20
"""Bytes of a clip's file inside a tar."""
TWIN: Final = 20.0
"""dB: a clip whose first frame is nearer than this to the first frame of a training clip has a near-twin there."""
MOVING_SEED: Final = 16

Frames = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3]."""


@dataclass(frozen=True, eq=False, slots=True)
class NamedClip:
    """A clip. name: its file, or ``moving[17]``. frames: uint8 [T, H, W, 3]. says: its name for people, or None."""

    name: str
    frames: Frames
    says: str | None = None


def read_clips(
    source: str | Path,
    *,
    frames: int,
    part: str = "test",
    limit: int | None = None,
    seed: int = 0,
    keep: int | None = None,
) -> list[NamedClip]:
    """The clips of one part of a set, each at ``frames`` frames.

    Args:
        source: a .tar or folder with ``clips.jsonl`` (a line a clip: file, name, split; without a split it is of the
            training part), a folder of clips without one (all of them are taken, whatever the part), or an .npz of
            digits, of which moving ones are made, two in a clip: ``limit`` clips, 100 for None.
        frames: of every clip; longer ones are sampled evenly.
        part: the split that is read.
        limit: at most so many, drawn by ``seed``, in their own order; None for all.
        keep: only so many of each clip's frames are given, its first ones; None for all.

    Raises:
        UsageError: nothing there, or no clip of that part.
        ImageError: a clip that cannot be used; the message names it.
    """
    path = Path(source)
    limit = checks.count("limit", limit, of="clips", none="all")
    if path.suffix.lower() == ".npz" and os.path.isfile(path):
        # A seed for each part: by one for both, clip 7 of the training part would move as clip 7 of the test part does.
        own = MOVING_SEED + (part == "train")
        row = MovingDigits.from_npz(path, part=part, digits=2, frames=frames, seed=own)
        return [NamedClip(f"moving[{number}]", row.clip(number).frames[:keep]) for number in range(limit or 100)]
    if os.path.isdir(path) and not os.path.isfile(path / LIST):
        return _loaded(
            _drawn([(str(file.relative_to(path)), None, file) for file in _files(path)], limit, seed), frames, keep
        )
    if os.path.isdir(path):
        listed = _listed(read_bytes(path / LIST, most=MOST_LIST), part, path)
        return _loaded([(name, says, path / name) for name, says in _drawn(listed, limit, seed)], frames, keep)
    if path.suffix.lower() == ".tar" and os.path.isfile(path):
        return _of_tar(path, part, frames, limit, seed, keep)
    raise UsageError(f"{str(path)!r} is neither a .tar or folder of clips nor an .npz file of digits")


def near_twins(clips: Sequence[NamedClip], training: Iterable[NamedClip]) -> set[str]:
    """Names of the clips whose first frame is nearer than ``TWIN`` to the first frame of a training clip."""
    firsts = np.stack([clip.frames[0] for clip in training])
    return {clip.name for clip in clips if likeness(clip.frames[0], firsts) > TWIN}


def most_moving(clips: Sequence[NamedClip], share: float = 0.5) -> set[str]:
    """Names of the clips that move most, by ``motion_of``: so large a share of them."""
    ranked = sorted(clips, key=lambda clip: (-motion_of(clip.frames), clip.name))
    return {clip.name for clip in ranked[: max(1, round(len(ranked) * share))]}


def _of_tar(path: Path, part: str, frames: int, limit: int | None, seed: int, keep: int | None) -> list[NamedClip]:
    try:
        with tarfile.open(path, "r:") as archive:
            index = _member(archive, LIST, MOST_LIST)
            if index is None:
                raise UsageError(f"{str(path)!r} holds no {LIST}, which says what its clips are")
            sources = []
            for name, says in _drawn(_listed(index, part, path), limit, seed):
                data = _member(archive, name, MOST_CLIP)
                if data is None:
                    raise UsageError(f"{str(path)!r} holds no {name!r}, which its {LIST} names")
                sources.append((name, says, data))
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as a .tar: {error}") from error
    return _loaded(sources, frames, keep)


def _member(archive: tarfile.TarFile, name: str, most: int) -> bytes | None:
    """A regular member's bytes; nothing is ever unpacked to disk."""
    member = member_of(archive, name)
    handle = None if member is None or member.size > most else archive.extractfile(member)
    if handle is None:
        return None
    with handle:
        return handle.read()


def _listed(data: bytes, part: str, path: Path) -> list[tuple[str, str | None]]:
    """(file, name) of the clips of a part."""
    listed = [(entry.file, entry.name) for entry in read_list(data, repr(str(path))) if entry.split == part]
    if not listed:
        raise UsageError(f"{str(path)!r} has no clip of the part {part!r}")
    return listed


def _files(folder: Path) -> list[Path]:
    from icl_vision.clips import list_clips

    files = list_clips(folder)
    if not files:
        raise UsageError(f"{str(folder)!r} holds no clip")
    return files


def _drawn(items: list[Any], limit: int | None, seed: int) -> list[Any]:
    if limit is None or limit >= len(items):
        return items
    return [items[index] for index in sorted(Draw("clips", seed).shuffled(range(len(items)))[:limit])]


def _loaded(sources: Sequence[tuple[str, str | None, Any]], frames: int, keep: int | None) -> list[NamedClip]:
    clips = []
    for name, says, source in sources:
        try:
            clips.append(NamedClip(composed(name), load_clip(source, frames=frames)[:keep].copy(), says))
        except ImageError as error:
            raise type(error)(f"{name}: {error}") from error
    return clips


def squared(clips: Sequence[NamedClip], take: Callable[[list[Any]], Frames]) -> list[NamedClip]:
    """The clips as a tokenizer takes them. take: PIL images -> uint8 [N, S, S, 3], its ``preprocessing.batch``."""
    from PIL import Image

    return [NamedClip(clip.name, take([Image.fromarray(frame) for frame in clip.frames]), clip.says) for clip in clips]
