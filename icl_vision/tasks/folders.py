"""Folders as a user hands them in: one sub-folder a class, or a folder of images to ask about.

Knows: folder names are labels. Refuses to know: what is done with the images.
"""

from __future__ import annotations

import os
from pathlib import Path

from icl_vision.errors import UsageError
from icl_vision.images import list_images
from icl_vision.images.folders import loose
from icl_vision.spelling import by_name


def is_folder(value: object) -> bool:
    """Whether a value names a folder that is there."""
    return isinstance(value, str | os.PathLike) and "\0" not in os.fsdecode(value) and os.path.isdir(value)


def read_classes(folder: str | os.PathLike[str], name: str = "the folder") -> tuple[list[Path], list[str]]:
    """The images below each class folder (sub-folders that are not hidden, sorted), and the folder's name for each.

    name: what the message calls the folder.

    Raises:
        UsageError: no class folders, a single one, or one without images.
        ImageNotFoundError: a class folder that cannot be read.
    """
    root = Path(folder)
    shown = f"{name} {str(root)!r}"
    try:
        classes = sorted(
            (path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")), key=by_name
        )
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from error
    if not classes:
        raise UsageError(f"{shown} has no sub-folders; make one for each class, with its images")
    if len(classes) == 1:
        raise UsageError(f"{shown} has a single class, {classes[0].name!r}; classification needs two or more")
    loose(root).tell()
    found = {path: list_images(path) for path in classes}
    empty = [path.name for path, images in found.items() if not images]
    if empty:
        raise UsageError(f"{shown} has no images for {', '.join(map(repr, empty))}; add some, or remove the folder")
    pairs = [(image, path.name) for path, images in found.items() for image in images]
    return [image for image, _ in pairs], [label for _, label in pairs]


def read_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images of a folder and its sub-folders, sorted by path.

    Raises:
        UsageError: there are none.
        ImageNotFoundError: it cannot be read.
    """
    found = list_images(folder)
    if not found:
        raise UsageError(f"the folder {os.fspath(folder)!r} holds no images")
    return found
