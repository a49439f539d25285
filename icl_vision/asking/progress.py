"""A progress bar on stderr, for a person at a terminal.

Knows: when a bar is wanted. Refuses to know: what is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, what: str, wanted: bool | None) -> Iterator[Callable[[int], None]]:
    """A function that counts finished items while the block runs.

    wanted: True shows a bar, False none, None one only if stderr is a terminal.
    """
    if not total or not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, file=sys.stderr, leave=False) as bar:
        yield lambda count: bar.update(count) and None
