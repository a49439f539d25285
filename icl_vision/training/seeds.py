"""Where randomness comes from: every draw is a function of (seed, stream, position), so nothing has to be remembered.

A run that stops after step 3 and goes on draws the same numbers at step 4 as one that never stopped, on any number of
processes and workers, because no generator carries a state from step to step.

Knows: streams and how numbers are derived. Refuses to know: what is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch

SPLIT: Final = 1
"""Stream: which images are held out."""
ORDER: Final = 2
"""Stream: the order of images in an epoch."""
AUGMENT: Final = 3
"""Stream: flips, crops and shifts of a step's batch."""
DEPTH: Final = 4
"""Stream: the decoding depth of a step."""
STEP: Final = 5
"""Stream: the global generators (of torch, numpy and Python) during a step, one a process."""
WEIGHTS: Final = 6
"""Stream: the networks' first weights."""


def derive(seed: int, stream: int, *position: int) -> int:
    """A 63-bit seed of its own for ``position`` in ``stream``; all arguments 0 or more."""
    words = np.random.SeedSequence([seed, stream, *position]).generate_state(1, np.uint64)
    return int(words[0]) >> 1  # torch takes signed 64-bit seeds


def generator(seed: int, stream: int, *position: int) -> torch.Generator:
    """A CPU generator for ``position`` in ``stream``."""
    return torch.Generator().manual_seed(derive(seed, stream, *position))


def seed_globally(seed: int, stream: int, *position: int) -> None:
    """Set the global generators of torch (every device), numpy and Python to ``position`` in ``stream``.

    For what draws from them without asking: dropout, a guide, the targets that a loss samples.
    """
    value = derive(seed, stream, *position)
    torch.manual_seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    random.seed(value)


@contextmanager
def kept_generators() -> Iterator[None]:
    """The caller's global generators are as they were when the block ends."""
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
