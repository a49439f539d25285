"""Batches for the loop: the right images of every step, whatever happened before.

Which images step n sees, and what is done to them, follows from the seed and n alone (see ``seeds``): a resumed run,
and one on several processes, sees the very same. An image that cannot be read is named once, counted, and
replaced by the next good one; it never ends a run.

Small sets (all npz files; folders and shards up to ``data.cache_mb``) are decoded once into one uint8 tensor; larger
ones are decoded by worker processes, ahead of the loop.

Knows: splits, order, batches, workers. Refuses to know: file formats (``sources``), what is learned.

Letters in shapes: N images, B batch of this process, C channels, L side as loaded, S side of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from icl_vision.checks import count
from icl_vision.cores import usable_cores
from icl_vision.errors import ImageError, StorageError, UsageError
from icl_vision.files.typed import check_fields
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.training.data.augment import Augmenter
from icl_vision.training.data.sources import ImageArray, ImageFiles, open_source
from icl_vision.training.seeds import ORDER, SPLIT, generator

logger = logging.getLogger(__name__)

_REPLACEMENTS = 100
"""Neighbours that are tried in place of an image that cannot be read."""


@dataclass(frozen=True)
class DataConfig:
    """Which images are learned from, and what is done to them.

    path: a folder of images (with or without class folders), a folder of .tar shards, a .tar, or an .npz with x_train
    (y_train). Usually left null and given on the command line.
    validation: images held out for PSNR and grids (drawn by the seed; at most a fifth of all). limit: train on so many
    images only (drawn by the seed), null for all.
    load_size: short side as loaded, centre-cropped to a square, of which a random part of model.side pixels is used.
    null: model.side, no random crop. flip: mirror every second image. shift: move by up to so many pixels.
    workers: processes that decode ahead (threads, while a small set is loaded), no more than the cores there are.
    cache_mb: keep the decoded set in memory if it is not larger than this; 0 never.
    """

    path: str | None = None
    validation: int = 256
    limit: int | None = None
    load_size: int | None = None
    flip: bool = False
    shift: int = 0
    workers: int = 2
    cache_mb: int = 1024

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("validation", "shift", "workers", "cache_mb"):
            count(f"data.{name}", getattr(self, name), least=0)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"data.limit must be 1 or more, or null for all images; got {self.limit}")

    def augments(self, side: int) -> bool:
        """Whether an image looks different from epoch to epoch, for a model of ``side`` pixels."""
        return self.flip or self.shift > 0 or self.load_size not in (None, side)


@dataclass(frozen=True)
class Batch:
    """The images of one step, for this process. images: uint8 [B, C, S, S]. labels: int64 [B], or None. index: int64
    [B], which images of a set that is kept in memory and never augmented these are; else None."""

    images: Tensor
    labels: Tensor | None
    index: Tensor | None = None


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's. batch: images of a step, all processes together."""

    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def part(self) -> slice:
        """Every ``world``-th image of the step's batch."""
        return slice(self.rank, None, self.world)


@dataclass
class Pixels:
    """A decoded set. values: uint8 [N, C, L, L]. labels: int64 [N], or None."""

    values: Tensor
    labels: Tensor | None


@dataclass
class Data:
    """What ``open_data`` gives. train: indices into the source. held_out: uint8 [V, C, S, S], with their labels."""

    source: ImageFiles | ImageArray
    train: Tensor
    held_out: Batch
    augmenter: Augmenter
    channels: int
    config: DataConfig
    pixels: Pixels | None
    fingerprint: str
    by_size: str
    classes: Sequence[str]
    skipped: dict[str, str] = field(default_factory=dict)

    def batches(self, first: int, last: int, share: Share) -> Iterator[Batch]:
        """The batches of the steps ``first`` to ``last - 1``."""
        order = Order(len(self.train), share)
        stored = self._stored(order, first, last) if self.pixels is not None else self._decoded(order, first, last)
        for step, batch in enumerate(stored, start=first):
            if self.augmenter.idle:
                yield batch
                continue
            draws = self.augmenter.draw(step, share.batch)[share.part]
            yield Batch(self.augmenter.apply(batch.images, draws), batch.labels)

    def _stored(self, order: Order, first: int, last: int) -> Iterator[Batch]:
        assert self.pixels is not None
        for step in range(first, last):
            indices = self.train[order.at(step)]
            labels = None if self.pixels.labels is None else self.pixels.labels[indices]
            yield Batch(self.pixels.values[indices], labels, indices)

    def _decoded(self, order: Order, first: int, last: int) -> Iterator[Batch]:
        assert not isinstance(self.source, ImageArray)
        dataset = _Files(self.source, self.train.tolist(), self.channels, self.augmenter.load)
        # More than the cores there are would only wait for one another; what a step sees does not depend on them.
        workers = min(self.config.workers, usable_cores())
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=_Steps(order, first, last),
            num_workers=workers,
            collate_fn=_collate,
            # Forked children of a process with threads may hang; these start clean.
            multiprocessing_context="forkserver" if workers and torch.multiprocessing.get_all_start_methods() else None,
            prefetch_factor=4 if workers else None,
        )
        batches = iter(loader)
        while True:
            try:
                values, labels, bad = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise StorageError(
                    "a process that reads images died (no memory left, or killed); go on with --resume, with fewer "
                    f"data.workers or 0 ({str(error).splitlines()[0]})"
                ) from error
            self.note(bad)
            yield Batch(values, labels)

    def note(self, bad: dict[str, str]) -> None:
        """Name images that cannot be read, each once."""
        for name, why in bad.items():
            if name not in self.skipped:
                self.skipped[name] = why
                logger.warning("skipped %s: %s", name, why)


class Order:
    """Which training images a step sees: a shuffle an epoch, batches running on across epochs."""

    def __init__(self, images: int, share: Share) -> None:
        self._images = images
        self._share = share
        self._epochs: dict[int, Tensor] = {}

    def at(self, step: int) -> Tensor:
        """Positions in the training set, int64 [B], of this process's part of a step."""
        start = step * self._share.batch
        positions = torch.arange(start, start + self._share.batch)[self._share.part]
        epochs = positions // self._images
        indices = torch.empty_like(positions)
        for epoch in sorted(set(epochs.tolist())):
            indices[epochs == epoch] = self._epoch(epoch)[positions[epochs == epoch] % self._images]
        return indices

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            self._epochs = {number: order for number, order in self._epochs.items() if number == epoch - 1}
            self._epochs[epoch] = torch.randperm(self._images, generator=generator(self._share.seed, ORDER, epoch))
        return self._epochs[epoch]


def open_data(config: DataConfig, *, size: int, channels: int, seed: int, progress: bool | None = False) -> Data:
    """List the images, hold some out, and load the set into memory if it is small.

    size, channels: of the model (1 channel: images become grey). progress: a bar on stderr while loading; None
    shows it to a terminal.

    Raises UsageError where the data cannot be used; the message says why and what to do.
    """
    if config.path is None:
        raise UsageError("there is no training data: give a folder, .tar or .npz (--data, or data.path in the config)")
    load = config.load_size or size
    if load < size:
        raise UsageError(f"data.load_size {load} is smaller than the model's images ({size} pixels)")
    source = open_source(Path(config.path))
    pixels: Pixels | None
    if isinstance(source, ImageArray):
        pixels = Pixels(_fit(source.pixels, load, channels), _labels(source.labels))
        count = len(source.pixels)
    else:
        pixels = None
        count = len(source.names)
    split = torch.randperm(count, generator=generator(seed, SPLIT))
    held = min(config.validation, count // 5)
    train = split[held:][: config.limit]
    data = Data(
        source=source,
        train=train,
        held_out=Batch(torch.empty(0, channels, size, size, dtype=torch.uint8), None),
        augmenter=Augmenter(size=size, load=load, flip=config.flip, shift=config.shift, seed=seed),
        channels=channels,
        config=config,
        pixels=pixels,
        fingerprint=source.fingerprint,
        by_size=source.by_size,
        classes=source.classes,
    )
    if not isinstance(source, ImageArray):
        fits = len(train) * channels * load * load <= config.cache_mb * 2**20
        wanted = torch.cat([split[:held], train]) if fits else split[:held]
        loaded, good = _load(data, source, wanted, progress)
        held = int(good[:held].sum())
        if fits:
            data.pixels = loaded
            data.train = torch.arange(held, len(loaded.values))
    if not len(data.train):
        reason = next(iter(data.skipped.items()), ("", "every image is held out"))
        raise UsageError(f"no image of {config.path!r} can be trained on; {reason[0]} {reason[1]}".strip())
    first = loaded if not isinstance(source, ImageArray) else Pixels(*_take(pixels, split[:held]))
    data.held_out = Batch(
        data.augmenter.centre(first.values[:held]).clone(),
        None if first.labels is None else first.labels[:held].clone(),
    )
    return data


def _take(pixels: Pixels | None, indices: Tensor) -> tuple[Tensor, Tensor | None]:
    assert pixels is not None
    return pixels.values[indices], None if pixels.labels is None else pixels.labels[indices]


def _load(data: Data, source: ImageFiles, wanted: Tensor, progress: bool | None) -> tuple[Pixels, Tensor]:
    """Decode images into one tensor with threads (Pillow lets go of the interpreter while it decodes).

    Gives the images that can be read, in the order of ``wanted``, and which of ``wanted`` those are (bool).
    """
    from icl_vision.asking.jobs import progress_bar  # here: its package brings templates and LLMs along

    load = data.augmenter.load
    values = torch.empty(len(wanted), data.channels, load, load, dtype=torch.uint8)
    good = torch.ones(len(wanted), dtype=torch.bool)

    def decode(position: int) -> tuple[int, str | None]:
        try:
            values[position] = _decode(source, int(wanted[position]), data.channels, load)
        except ImageError as error:
            return position, str(error)
        return position, None

    bar = progress_bar(len(wanted), "loading images", progress)
    with bar as advance, ThreadPoolExecutor(max(1, min(data.config.workers, usable_cores()))) as pool:
        for position, why in pool.map(decode, range(len(wanted))):
            if why is not None:
                good[position] = False
                data.note({source.names[int(wanted[position])]: why})
            advance(1)
    labels = None if source.labels is None else torch.tensor(source.labels)[wanted[good]]
    return Pixels(values if bool(good.all()) else values[good], labels), good


def _decode(source: ImageFiles, index: int, channels: int, load: int) -> Tensor:
    """uint8 [C, L, L]; raises ImageError."""
    image = Preprocessing(load, "crop", short=load).apply(source.load(index))
    array = np.asarray(image.convert("L") if channels == 1 else image, dtype=np.uint8)
    return torch.from_numpy(array.reshape(load, load, channels).copy()).permute(2, 0, 1)


def _fit(array: np.ndarray[Any, np.dtype[np.uint8]], load: int, channels: int) -> Tensor:
    """Images of an npz file as uint8 [N, C, L, L]: smaller ones get a black border (28 x 28 digits become 32 x 32)."""
    pixels = torch.from_numpy(np.ascontiguousarray(array.reshape(*array.shape[:3], -1))).permute(0, 3, 1, 2)
    side, own = pixels.shape[-1], pixels.shape[1]
    if side > load:
        raise UsageError(f"the npz file's images have {side} pixels a side, the model takes {load}; resize them first")
    if own == 3 and channels == 1:
        raise UsageError("the npz file's images have 3 channels, the model takes 1; convert them to grey first")
    before = (load - side) // 2
    border = (before, load - side - before)
    return torch.nn.functional.pad(pixels, (*border, *border)).expand(-1, channels, -1, -1).contiguous()


def _labels(labels: np.ndarray[Any, np.dtype[np.int64]] | None) -> Tensor | None:
    return None if labels is None else torch.from_numpy(labels)


class _Files(Dataset[Any]):
    """Decoded when asked for, in a worker process."""

    def __init__(self, source: ImageFiles, train: list[int], channels: int, load: int) -> None:
        self.source = source
        self.train = train
        self.channels = channels
        self.load = load

    def __getitem__(self, position: int) -> tuple[Tensor, int | None, dict[str, str]]:
        """The image at ``position``, or the next one that can be read, with the reasons for those passed over."""
        bad: dict[str, str] = {}
        for offset in range(min(_REPLACEMENTS, len(self.train))):
            index = self.train[(position + offset) % len(self.train)]
            try:
                values = _decode(self.source, index, self.channels, self.load)
            except ImageError as error:
                bad[self.source.names[index]] = str(error)
                continue
            return values, None if self.source.labels is None else self.source.labels[index], bad
        name, why = next(iter(bad.items()))
        raise UsageError(f"{len(bad)} images in a row cannot be read; the first, {name}: {why}")


class _Steps(Sampler[list[int]]):
    def __init__(self, order: Order, first: int, last: int) -> None:
        self.order = order
        self.first = first
        self.last = last

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield self.order.at(step).tolist()

    def __len__(self) -> int:
        return self.last - self.first


def _collate(items: list[tuple[Tensor, int | None, dict[str, str]]]) -> tuple[Tensor, Tensor | None, dict[str, str]]:
    labels = [label for _, label, _ in items if label is not None]
    bad = {name: why for _, _, skipped in items for name, why in skipped.items()}
    return torch.stack([values for values, _, _ in items]), torch.tensor(labels) if labels else None, bad
