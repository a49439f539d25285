"""Pictures to measure on, from a folder or an array file.

Knows: folders of images (with or without class folders) and ``.npz`` files in the layout of MNIST.
Refuses to know: tokenizers, metrics, training.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import Draw, display_label
from icl_vision.files.reading import read_arrays
from icl_vision.files.storage import readable
from icl_vision.images import ImageSource, list_images

ARRAYS = (("x_test", "y_test"), ("images", "labels"))
"""Names of pictures and labels looked for in an .npz file, in this order; the second is optional."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture. name: its path inside the folder, or ``x_test[17]``. image: what ``images.load_image`` takes.
    label: the class folder's name or the label's number as text; None where nothing says."""

    name: str
    image: ImageSource
    label: str | None = None


def list_pictures(source: str | Path, *, limit: int | None = None, seed: int = 0) -> list[Picture]:
    """The pictures of a folder (searched with its subfolders) or of an ``.npz`` file.

    Args:
        source: the folder or file. A file holds uint8 ``x_test`` [N, H, W] or [N, H, W, 3] and perhaps ``y_test`` [N]
            (or ``images`` and ``labels``); nothing pickled is ever read.
        limit: at most so many, drawn by ``seed``, in their own order; None for all.
        seed: names the draw.

    Raises:
        UsageError: nothing there, no picture in it, or arrays of another kind.
    """
    path = Path(source)
    limit = checks.count("limit", limit, of="pictures", none="all")
    if os.path.isdir(path):
        pictures = [_from_file(file, path) for file in list_images(path)]
    elif path.suffix.lower() == ".npz" and os.path.isfile(path):
        pictures = _from_arrays(path)
    else:
        raise UsageError(f"{str(path)!r} is neither a folder of images nor an .npz file")
    if not pictures:
        raise UsageError(f"{str(path)!r} holds no picture")
    if limit is not None and limit < len(pictures):
        chosen = sorted(Draw("pictures", seed).shuffled(range(len(pictures)))[:limit])
        pictures = [pictures[index] for index in chosen]
    return pictures


def _from_file(file: Path, root: Path) -> Picture:
    inside = file.relative_to(root)
    return Picture(readable(inside.as_posix()), file, display_label(inside.parts[0]) if len(inside.parts) > 1 else None)


def _from_arrays(path: Path) -> list[Picture]:
    try:
        _, inside = read_arrays(path)
        names = next((pair for pair in ARRAYS if pair[0] in inside), None)
        if names is None:
            raise UsageError(f"{str(path)!r} holds {', '.join(inside) or 'nothing'}; expected x_test or images")
        arrays, _ = read_arrays(path, *names)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{str(path)!r} cannot be read as an .npz file: {error}") from error
    images: Any = arrays[names[0]]
    labels: Any = arrays.get(names[1])
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise UsageError(
            f"{names[0]} in {str(path)!r} must be uint8 [N, H, W] or [N, H, W, 3]; got {images.dtype} "
            f"{list(images.shape)}"
        )
    if labels is not None and labels.shape != images.shape[:1]:
        raise UsageError(f"{names[1]} in {str(path)!r} must hold one label a picture; got shape {list(labels.shape)}")
    return [
        Picture(f"{names[0]}[{index}]", image, None if labels is None else str(labels[index]))
        for index, image in enumerate(images)
    ]
