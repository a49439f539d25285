"""The tasks of denoising for clips: frames to be foreseen or filled in, and the pictures' tasks done to every frame.

Knows: frames in, frames out; which of them are unknown. Refuses to know: LLMs, prompts, tokenizers.

Source: SPAE (arXiv 2306.17842, section 4.3 and appendix) conditions videos so. Where whole frames are unknown the
condition holds the nearest known frame in their place instead of grey: a clip tokenizer looks over time, and a sudden
grey would change the words of the known frames beside it too. So the condition as it is *is* the baseline that
prediction must beat, the last known frame repeated.

Turned and moved clips are left out: where their words belong is found for pictures only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from icl_vision.errors import UsageError
from icl_vision.tasks.denoise.tasks import TASKS, DenoisingTask, Pixels, find_task

PER_FRAME: Final = ("outpainting", "inpainting", "deblurring", "reconstruction")
"""Tasks of pictures that are done to every frame."""


def _held(first: float, last: float) -> Callable[[Pixels], Pixels]:
    """Frames of some time give way to the nearest known frame, of two as near the earlier."""

    def hold(clip: Pixels) -> Pixels:
        start, stop = round(first * len(clip)), round(last * len(clip))
        known = [frame for frame in range(len(clip)) if not start <= frame < stop]
        nearest = [min((abs(at - frame), at) for at in known)[1] for frame in range(len(clip))]
        return np.ascontiguousarray(clip[nearest])

    return hold


def _each_frame(task: DenoisingTask) -> DenoisingTask:
    def degrade(clip: Pixels) -> Pixels:
        return np.stack([task.degrade(frame) for frame in clip])

    return replace(task, degrade=degrade, what=task.what.replace("the picture", "every frame"))


CLIP_TASKS: Final[dict[str, DenoisingTask]] = {
    "prediction": DenoisingTask(
        "prediction", "the second half of its frames is missing", _held(0.5, 1.0), keep_known=True, when=(0.5, 1.0)
    ),
    "filling": DenoisingTask(
        "filling", "the middle half of its frames is missing", _held(0.25, 0.75), keep_known=True, when=(0.25, 0.75)
    ),
    **{name: _each_frame(TASKS[name]) for name in PER_FRAME},
}


def task_for(name: object, *, clips: bool) -> DenoisingTask:
    """The task of that name, for pictures or for clips.

    Raises:
        UsageError: there is none; the message lists them.
    """
    if not clips:
        if isinstance(name, str) and name in CLIP_TASKS and name not in TASKS:
            raise UsageError(f"task={name!r} is for clips; this tokenizer takes pictures, so give one that takes clips")
        return find_task(name)
    if not isinstance(name, str) or name not in CLIP_TASKS:
        raise UsageError(f"task of a clip must be one of {', '.join(CLIP_TASKS)}; got {name!r}")
    return CLIP_TASKS[name]


def any_task(name: object) -> DenoisingTask:
    """The task of that name, while it is not known whether it is done to pictures or clips. Raises as ``find_task``."""
    return CLIP_TASKS[name] if isinstance(name, str) and name in CLIP_TASKS and name not in TASKS else find_task(name)
