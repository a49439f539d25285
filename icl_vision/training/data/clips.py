"""Where training clips come from: animations in a folder or a tar, and moving digits made as they are needed.

Knows: which files are learned from, that a set of clips is decoded once, held-out clips, copies in
a mirror. Refuses to know: how a file becomes frames (``icl_vision.clips``), how digits move (``moving_digits``), order
and batches (``batches``), what is learned.

A clip whose split in the set's list (``icl_vision.clips.lists``) is not "train" is never learned from. One that is not
in it, or any where there is none, may be.

Letters in shapes: N clips, T frames, C channels, S side.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.clips.lists import LIST, TRAIN, read_list
from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.clips.opening import read_clip
from icl_vision.cores import usable_cores
from icl_vision.errors import IclVisionError, ImageError, UsageError
from icl_vision.files.reading import opened
from icl_vision.images import MAX_BYTES
from icl_vision.spelling import composed
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.training.data.augment import Augmenter
from icl_vision.training.data.batches import Batch, Data, DataConfig, Pixels
from icl_vision.training.data.sources import ImageArray
from icl_vision.training.seeds import SPLIT, generator

logger = logging.getLogger(__name__)

SUFFIXES = (".webp", ".gif", ".png", ".apng")
ANIMATION, DIGITS = 1, 0
"""Labels of a batch's clips. An animation may be begun anywhere; digits on their way may not."""


@dataclass(frozen=True)
class ClipDataConfig(DataConfig):
    """Which clips are learned from, and what is done to them.

    path: a folder of animations (GIF, WebP, PNG) or a .tar of them, perhaps with a clips.jsonl that says which split a
    file belongs to. validation: animations held out for PSNR and pictures (drawn by the seed; at most a fifth of all).
    limit: learn from so many animations only. flip: learn from the mirror image of each, too. workers: threads that
    decode.
    roll: begin an animation, which goes round, at a frame drawn for every step. reverse: play every second clip
    backwards.
    digits: clips of moving digits learned from as well (Moving MNIST); digits_path: the .npz of the still ones.
    cache_mb: the decoded clips may be so large; they always lie in memory.
    """

    validation: int = 16
    roll: bool = False
    reverse: bool = False
    digits: int = 0
    digits_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count("data.digits", self.digits, least=0)
        if self.shift or self.load_size is not None:
            raise UsageError("clips are neither cropped nor shifted: set data.shift to 0 and data.load_size to null")

    def augments(self, side: int) -> bool:
        return False  # mirror images are clips of their own, and turns in time leave the frames as they are


def open_clips(
    config: ClipDataConfig, *, frames: int, size: int, channels: int, seed: int, progress: bool | None = False
) -> Data:
    """Read all clips into memory and hold some out.

    frames, size, channels: of the model. progress: a bar on stderr while loading; None shows it to a terminal.

    Raises UsageError where the data cannot be used; the message says why and what to do.
    """
    if config.path is None and not config.digits:
        raise UsageError(
            "there are no clips to learn from: give a folder of animations or a .tar of them (--data, or data.path in "
            "the config), or data.digits with data.digits_path"
        )
    named: dict[str, npt.NDArray[np.uint8]] = {}
    skipped: dict[str, str] = {}
    if config.path is not None:
        _load(Path(config.path), frames, size, config.workers, progress, named, skipped)
    order = torch.randperm(len(named), generator=generator(seed, SPLIT)).tolist()
    held = min(config.validation, len(named) // 5)
    clips = [named[sorted(named)[number]] for number in order]
    kept, learned = clips[:held], clips[held:][: config.limit]
    if config.flip:
        learned = learned + [clip[:, :, ::-1] for clip in learned]
    kinds = [ANIMATION] * len(learned)
    if config.digits:
        learned += _digits(config, frames, size, seed)
        kinds += [DIGITS] * config.digits
    total = len(learned) * frames * channels * size * size
    if total > config.cache_mb * 2**20:
        raise UsageError(
            f"{len(learned)} clips take {total / 2**20:.0f} MB of memory and data.cache_mb allows {config.cache_mb}: "
            "raise it, or set data.limit"
        )
    values = _tensor(learned, frames, size, channels)
    digest = hashlib.sha256(values.numpy().data)
    for clip in kept:
        digest.update(np.ascontiguousarray(clip).data)
    pixels = Pixels(values, torch.tensor(kinds))
    return Data(
        source=ImageArray(values.numpy(), None, (), digest.hexdigest()),
        train=torch.arange(len(values)),
        held_out=Batch(_tensor(kept, frames, size, channels), None),
        augmenter=Augmenter(size=size, load=size, flip=False, shift=0, seed=seed),
        channels=channels,
        config=config,
        pixels=pixels,
        fingerprint=digest.hexdigest(),
        by_size="",
        classes=(),
        skipped=skipped,
    )


def turned(kinds: Tensor | None, config: ClipDataConfig, *clips: Tensor) -> tuple[Tensor, ...]:
    """Clips [B, T, ...] begun at another frame and played backwards, as ``config`` says; the global generator draws.

    kinds: int64 [B], ``ANIMATION`` or ``DIGITS``; None for animations alone. clips: the same ones in several forms,
    which are all turned alike.
    """
    batch, frames = clips[0].shape[:2]
    at = torch.arange(frames).expand(batch, frames)
    if config.roll:
        start = torch.randint(frames, (batch, 1))
        if kinds is not None:
            start = start * (kinds.cpu() == ANIMATION)[:, None]
        at = (at + start) % frames
    if config.reverse:
        at = torch.where(torch.rand(batch, 1) < 0.5, at.flip(1), at)
    if not (config.roll or config.reverse):
        return clips
    rows = torch.arange(batch)[:, None]
    return tuple(each[rows, at.to(each.device)] for each in clips)


def listed(path: Path) -> dict[str, bytes]:
    """The animations of a folder or an uncompressed tar that may be learned from, by name: their bytes.

    Raises UsageError where there is none.
    """
    files = dict(_tar(path) if path.is_file() else _folder(path))
    # By composed characters: a folder may spell a name in others than its list does.
    entries = read_list(files.pop(LIST, b""), repr(str(path)))
    split = {composed(entry.file): entry.split for entry in entries}
    found = {name: data for name, data in files.items() if split.get(composed(name), TRAIN) == TRAIN}
    if not found:
        raise UsageError(
            f"{str(path)!r} holds no animation to learn from ({', '.join(SUFFIXES)}; {LIST} may keep some back); "
            f"files seen: {len(files)}"
        )
    return found


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_dir():
        raise UsageError(f"there are no clips at {str(path)!r}; give a folder of animations or an uncompressed .tar")
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if (file.suffix.lower() in SUFFIXES or name == LIST) and file.is_file() and not file.name.startswith("."):
            with opened(file, most=MAX_BYTES) as handle:
                yield name, handle.read()


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                wanted = Path(name).suffix.lower() in SUFFIXES or name == LIST
                if wanted and member.isreg() and not member.issparse() and member.size <= MAX_BYTES:
                    handle = tar.extractfile(member)
                    assert handle is not None  # a regular member
                    yield name, handle.read()
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as an uncompressed tar of animations: {error}") from error


def _load(
    path: Path,
    frames: int,
    size: int,
    workers: int,
    progress: bool | None,
    named: dict[str, npt.NDArray[np.uint8]],
    skipped: dict[str, str],
) -> None:
    from icl_vision.asking.jobs import progress_bar  # here: its package brings templates and LLMs along

    files = listed(path)
    preprocessing = Preprocessing(size, "crop", short=size)

    def decode(name: str) -> tuple[str, npt.NDArray[np.uint8] | None, str]:
        try:
            return name, read_clip(files[name], frames=frames, shrink=preprocessing.apply), ""
        except ImageError as error:
            return name, None, str(error)

    with (
        progress_bar(len(files), "loading clips", progress) as advance,
        ThreadPoolExecutor(max(1, min(workers, usable_cores()))) as pool,
    ):
        for name, clip, why in pool.map(decode, files):
            if clip is None:
                skipped[name] = why
                logger.warning("skipped %s: %s", name, why)
            else:
                named[name] = clip
            advance(1)
    if not named:
        name, why = next(iter(skipped.items()))
        raise UsageError(f"no clip of {str(path)!r} can be learned from; {name}: {why}")


def _digits(config: ClipDataConfig, frames: int, size: int, seed: int) -> list[Any]:
    """Moving digits: one in every second clip, two in the others, as the field has them."""
    if config.digits_path is None:
        raise UsageError("data.digits needs still digits: name an .npz with x_train and y_train with data.digits_path")
    try:
        rows = [
            MovingDigits.from_npz(config.digits_path, digits=digits, frames=frames, size=size, seed=seed)
            for digits in (1, 2)
        ]
    except IclVisionError as error:
        raise UsageError(f"data.digits_path: {error}") from error
    return [rows[number % 2].clip(number).frames for number in range(config.digits)]


def _tensor(clips: list[Any], frames: int, size: int, channels: int) -> Tensor:
    """uint8 [N, T, C, S, S] of clips uint8 [T, S, S, 3]."""
    values = torch.empty(len(clips), frames, channels, size, size, dtype=torch.uint8)
    for number, clip in enumerate(clips):
        rgb = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
        values[number] = rgb if channels == 3 else rgb.float().mean(1, keepdim=True).round().to(torch.uint8)
    return values
