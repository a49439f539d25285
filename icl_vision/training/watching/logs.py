"""What a run says while it goes on: a progress bar, its journal, TensorBoard.

The journal is the run folder's own (``runs``): one line a log interval, ``step-00000400`` with numbers by name, on disk
before the loop goes on. Steps that are done again after a resume are journalled again; readers take the newest.

Knows: where numbers go. Refuses to know: what they mean.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_vision.checks import count
from icl_vision.files.runs import Run
from icl_vision.files.typed import check_fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogConfig:
    """How often a run speaks. All in steps; the last step always does everything.

    every: losses, rates and codebook usage. validate: PSNR for every number of layers on the held-out images. grid: a
    picture of reconstructions. checkpoint: a checkpoint; keep: how many of the newest stay. images: columns of the
    picture. tensorboard: write event files too, where TensorBoard is installed.
    """

    every: int = 50
    validate: int = 1000
    grid: int = 1000
    checkpoint: int = 1000
    keep: int = 2
    images: int = 10
    tensorboard: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("every", "validate", "grid", "checkpoint", "keep", "images"):
            count(f"log.{name}", getattr(self, name))


class RunLog:
    """Numbers and progress of one run; made in the first process only.

    total, start: steps of the run, and those finished before. bar: whether a person watches.
    """

    def __init__(self, run: Run, *, total: int, start: int, bar: bool, tensorboard: bool) -> None:
        self._run = run
        self._writer = _writer(run) if tensorboard else None
        self._bar: Any = None
        if bar:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, unit="step", file=sys.stderr, dynamic_ncols=True)

    def advance(self) -> None:
        """One step more is done."""
        if self._bar is not None:
            self._bar.update()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of an interval that ended after ``step`` steps."""
        self._run.record(f"step-{step:08d}", {"step": step, **values})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        if self._bar is not None:
            shown = [name for name in ("loss/pixel", "loss/total", "psnr") if name in values][:1]
            self._bar.set_postfix({name: f"{values[name]:.4g}" for name in shown})

    def picture(self, step: int, image: Any) -> None:
        """Show a grid (a PIL image) in TensorBoard."""
        if self._writer is not None:
            import numpy as np

            self._writer.add_image("reconstructions", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is pending."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()


def _writer(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed, so no event files are written; the journal holds the same numbers")
        return None
    return SummaryWriter(str(run.folder / "tensorboard"))
