"""What a user may pass to a task beyond whole numbers and choices (``icl_vision.checks``), and what is said otherwise.

Knows: arguments. Refuses to know: what they are used for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from icl_vision.errors import UsageError
from icl_vision.images import ImageSource, is_image_source
from icl_vision.spelling import composed
from icl_vision.tasks.folders import is_folder, read_images
from icl_vision.wording import counted

Label = str | int
"""A class label as the user gives it and gets it back."""


def check_folder(name: str, value: object) -> None:
    """Refuse anything but a path, or None. Whether it is there is found out by who opens it."""
    if value is None or (isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)):
        return
    raise UsageError(f"{name} must be the path of a folder, or None (the packaged ones only); got {value!r}")


def check_name(name: str, value: object, what: str) -> None:
    """Refuse anything but a string that is not empty; ``what`` says of what it is the name."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} must be the name of {what}; got {value!r}")


def check_kind(name: str, value: object, kind: type, example: str) -> None:
    """Refuse anything but an object of a class, or None; ``example`` shows how one is made."""
    if value is not None and not isinstance(value, kind):
        raise UsageError(f"{name} must be a {kind.__name__}, as {example}, or None; got {value!r}")


def as_sources(images: object, *, single: bool) -> list[ImageSource]:
    """The images as a list, not opened yet.

    single: whether one image stands for a list of one, and a folder for the images in it.

    Raises:
        UsageError: not an image and not a sequence of images, a folder without any, or one where several are needed.
        ImageNotFoundError: a folder that cannot be read.
    """
    if single and is_folder(images):
        return [*read_images(images)]  # type: ignore[arg-type]  # is_folder saw to it
    if is_image_source(images):
        if single:
            return [images]  # type: ignore[list-item]
        raise UsageError(f"images must be a sequence of images, one per label; got one image ({_named(images)})")
    if isinstance(images, Mapping | set | frozenset) or not isinstance(images, Iterable):
        raise UsageError(f"images must be a sequence of images; got {_named(images)}")
    return list(images)


def as_labels(labels: object) -> list[Label]:
    """The labels as a list of plain str or int.

    Raises:
        UsageError: not a sequence, or a label that is neither str nor int, or both kinds together.
    """
    if isinstance(labels, str | bytes | Mapping | set | frozenset) or not isinstance(labels, Iterable):
        raise UsageError(f"labels must be a sequence of labels, one per image; got {_named(labels)}")
    plain: list[Label] = []
    for index, label in enumerate(labels):
        # numpy's own scalars are given back as the str and int they stand for.
        value = label.item() if hasattr(label, "dtype") and hasattr(label, "item") else label
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UsageError(f"a label must be a str or an int; labels[{index}] is {value!r} ({type(label).__name__})")
        plain.append(value)
    if len({type(label) is int for label in plain}) > 1:
        raise UsageError("labels must be all str or all int; got both")
    return plain


def check_support(images: Sequence[Any], labels: Sequence[Label]) -> None:
    """Refuse an empty support set, unequal lengths and a single class."""
    if len(images) != len(labels):
        raise UsageError(
            f"images and labels must be of equal length; got {counted(len(images), 'image')} and "
            f"{counted(len(labels), 'label')}"
        )
    if not images:
        raise UsageError("the support set is empty; give at least one labelled image of each of two classes")
    if len(set(labels)) == 1:
        raise UsageError(
            f"{labels[0]!r} is the only label of {counted(len(labels), 'image')}; "
            "classification needs two classes or more"
        )


def sorted_classes(labels: Sequence[Label]) -> list[Label]:
    """The distinct labels, sorted: texts by letters, numbers by size."""
    return sorted(
        dict.fromkeys(labels), key=lambda label: (label, "") if isinstance(label, int) else (0, composed(label))
    )


def _named(value: object) -> str:
    text = repr(value) if isinstance(value, str) else ""
    return text if 0 < len(text) <= 80 else f"a value of type {type(value).__name__}"
