"""Networks that exist as TorchScript alone, from a user's file.

Knows: how such a file is read, and what is said of one that cannot be. Refuses to know: which networks there are, and
how they are called.

TorchScript files hold programs: take one only from where you would take code.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError


def load_torchscript(
    path: str | os.PathLike[str], *, what: str, without: str, device: torch.device | str = "cpu"
) -> Any:
    """The network in a file, for inference.

    Args:
        path: the file. what: the network's name, and without: the figure that there is without it, for messages.
        device: where it runs.

    Raises:
        ArtefactNotFoundError: no such file. ArtefactDamagedError: not a TorchScript file.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtefactNotFoundError(f"no {what} network at {str(file)!r}; leave it out for the {without} figure")
    try:
        with warnings.catch_warnings():
            # torch would rather have torch.export files; published networks of these metrics exist as TorchScript only.
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.load", category=DeprecationWarning)
            return torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]  # torch does not type it
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ArtefactDamagedError(f"{str(file)!r} is not a TorchScript file ({first}); fetch it again") from error
