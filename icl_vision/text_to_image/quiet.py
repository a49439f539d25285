"""transformers and diffusers draw bars and speak on stderr of their own accord; ours stay off where nobody watches.

Knows: those two libraries' switches. Refuses to know: anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars of transformers while the block runs, unless stderr is a terminal; the switch is as before afterwards."""
    from transformers.utils import logging as switches

    logging: Any = switches

    before = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


@contextmanager
def quiet_imports() -> Iterator[None]:
    """What transformers says of image processors that want torchvision, when diffusers is first imported, stays unsaid:
    none is used here. Its level of speaking is as before afterwards."""
    from transformers.utils import logging as switches

    logging: Any = switches

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
