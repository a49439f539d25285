"""Training: from a configuration to a run folder with a model in it.

    RUN/run.json, journal.jsonl, lock, results.json     see ``runs``: configuration, numbers, outcome
    RUN/checkpoints/step-.../                           see ``checkpoint``
    RUN/grids/step-....png                              originals and reconstructions from 1, 2, ... layers
    RUN/tensorboard/                                    event files, where TensorBoard is installed

Knows: processes, and how an error in one of them reaches the caller. Refuses to know: steps (``loop``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from icl_vision.cores import usable_cores
from icl_vision.errors import IclVisionError, MissingExtraError, RunError, TrainingError
from icl_vision.files.runs import Run, read_info
from icl_vision.training.checkpoint import latest_checkpoint
from icl_vision.training.config import TrainConfig
from icl_vision.training.data.batches import Data
from icl_vision.training.families import family_named
from icl_vision.training.loop import AgreedError, Loop, TrainResult
from icl_vision.training.seeds import kept_generators

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_FABRIC = "lightning_fabric"
# No buffers are sent around at every step: they never change, except LeCAM's averages, which are averaged where they
# move. torch 2.13 has a new name for this.
_NEW = "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters
_STILL_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW else "broadcast_buffers": False}


def train(
    config: TrainConfig, out: str | os.PathLike[str], *, resume: bool = False, progress: bool | None = None
) -> TrainResult:
    """Train, and leave everything in the run folder ``out``.

    resume: go on from the newest whole checkpoint in ``out``. progress: a bar on stderr; None shows it to a terminal.

    Raises:
        MissingExtraError: lightning-fabric is not installed.
        UsageError, ArtefactError: data, codebook or another part cannot be used.
        RunMismatchError, RunLockedError: ``out`` holds another run, or is in use.
        TrainingError: numbers that are none, or a collapsed codebook; the last checkpoint is from before.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingExtraError("training (lightning-fabric)", "train") from error
    folder = Path(out)
    devices = config.devices
    strategy = DDPStrategy(start_method="spawn", **_STILL_BUFFERS) if devices.count > 1 else "auto"
    with _quiet_fabric():
        fabric = Fabric(
            accelerator=devices.accelerator, devices=devices.count, strategy=strategy, precision=config.precision
        )
        if devices.count == 1:
            with kept_generators():
                return _run(fabric, config, folder, resume, progress)
        try:
            answer = fabric.launch(_Process(config, folder, resume, progress))
        except torch.multiprocessing.ProcessRaisedException as error:  # type: ignore[attr-defined]  # torch does not export it, and raises it
            raise TrainingError(f"a process of the run ended with an error: {error}") from error
    if "trouble" in answer:
        raise TrainingError(answer["trouble"])
    return TrainResult(**answer)


class _Process:
    """What each of several processes does. Its answer is a plain dict: exceptions and frozen dataclasses do not come
    through Fabric's launcher. An error in all processes is such an answer too; one in a single process ends them all.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        # In the new process, before Fabric has said anything there.
        logging.getLogger(_FABRIC).setLevel(logging.WARNING)
        self.__dict__.update(state)

    def __call__(self, fabric: Fabric) -> dict[str, Any]:
        try:
            result = _run(fabric, *self.arguments)
            answer = {field.name: getattr(result, field.name) for field in fields(result)}
        except AgreedError as error:
            answer = {"trouble": str(error)}
        # All processes come here. Threads of the group that are left to the interpreter's end now and then abort it.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return answer


def _run(fabric: Fabric, config: TrainConfig, folder: Path, resume: bool, progress: bool | None) -> TrainResult:
    first = fabric.global_rank == 0
    run: Run | None = None
    loop: Loop | None = None
    trouble: IclVisionError | None = None
    # PyTorch heeds affinity, not the share of CPU time that a container grants.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    try:
        data = family_named(config.family).open_data(config, progress if first else False)
        loop = Loop(fabric, config, folder, data)
        if first:  # opened when all parts are there, so that a mistake leaves no folder behind
            deciding = config.deciding() | {"images": _images(data, folder, resume)}
            run = Run.open(folder, config.command, deciding, seed=config.seed, resume=resume)
        loop.start(run, latest_checkpoint(folder) if resume else None, progress)
    except IclVisionError as error:
        trouble = error
    try:
        _agree(fabric, trouble)
        assert loop is not None
        return loop.go()
    finally:
        if loop is not None:
            loop.close()
        if run is not None:
            run.close()


def _images(data: Data, folder: Path, resume: bool) -> str:
    """The fingerprint of the images; the one by names and sizes for a run that version 0.1.0 began with them."""
    try:
        begun = read_info(folder)["config"].get("images") if resume else None
    except RunError:  # told when the run is opened
        begun = None
    return data.by_size if data.by_size and begun == data.by_size else data.fingerprint


def _agree(fabric: Fabric, trouble: IclVisionError | None) -> None:
    """Raise in every process where one has trouble, so that none waits for it for ever."""
    if fabric.world_size == 1:
        if trouble is not None:
            raise trouble
        return
    messages: list[str | None] = [None] * fabric.world_size
    own = None if trouble is None else f"{type(trouble).__name__}: {trouble}"
    torch.distributed.all_gather_object(messages, own)
    for message in messages:
        if message is not None:
            raise AgreedError(message)


@contextmanager
def _quiet_fabric() -> Iterator[None]:
    """Fabric's remarks about ranks and precision are not for our users; warnings still are."""
    chatty = logging.getLogger(_FABRIC)
    before = chatty.level
    chatty.setLevel(logging.WARNING)
    try:
        yield
    finally:
        chatty.setLevel(before)
