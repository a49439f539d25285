"""What a user hands to a task, what is said of it where it cannot work, and the words of the images.

A folder holds one sub-folder a class, or images to ask about. Images become words a batch at a time, so that one bad
image is named and costs only itself. (Whole numbers and choices: ``icl_vision.checks``.)

Knows: folder names are labels; the forms that arguments may have; batches. Refuses to know: how an image becomes words,
what is done with them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Tokenizer
from icl_vision.errors import ImageError, UsageError
from icl_vision.images import ImageSource
from icl_vision.images.folders import loose
from icl_vision.spelling import by_name, composed
from icl_vision.tokenizers.taking import IMAGES, Taking, taken_by
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid

logger = logging.getLogger(__name__)

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


def as_sources(images: object, *, single: bool, takes: Taking = IMAGES) -> list[Any]:
    """The images as a list, not opened yet.

    Args:
        single: whether one image stands for a list of one, and a folder for the images in it.
        takes: what the tokenizer takes: images, or clips.

    Raises:
        UsageError: not an image and not a sequence of images, a folder without any, or one where several are needed.
        ImageNotFoundError: a folder that cannot be read.
    """
    if single and is_folder(images):
        return [*read_images(images, takes)]  # type: ignore[arg-type]  # is_folder saw to it
    one, several = takes.one, takes.several
    if takes.is_source(images):
        if single:
            return [images]
        raise UsageError(f"{several} must be a sequence of {several}, one per label; got one {one} ({_named(images)})")
    if isinstance(images, Mapping | set | frozenset) or not isinstance(images, Iterable):
        raise UsageError(f"{several} must be a sequence of {several}; got {_named(images)}")
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


def is_folder(value: object) -> bool:
    """Whether a value names a folder that is there."""
    return isinstance(value, str | os.PathLike) and "\0" not in os.fsdecode(value) and os.path.isdir(value)


def read_classes(
    folder: str | os.PathLike[str], name: str = "the folder", takes: Taking = IMAGES
) -> tuple[list[Path], list[str]]:
    """The images below each class folder (sub-folders that are not hidden, sorted), and the folder's name for each.

    Args:
        name: what the message calls the folder.
        takes: what the tokenizer takes: images, or clips.

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
        raise UsageError(f"{shown} has no sub-folders; make one for each class, with its {takes.several}")
    if len(classes) == 1:
        raise UsageError(f"{shown} has a single class, {classes[0].name!r}; classification needs two or more")
    if takes is IMAGES:
        loose(root).tell()
    images_of = {path: takes.listed(path) for path in classes}
    empty = [path.name for path, images in images_of.items() if not images]
    if empty:
        raise UsageError(
            f"{shown} has no {takes.several} for {', '.join(map(repr, empty))}; add some, or remove the folder"
        )
    pairs = [(image, path.name) for path, images in images_of.items() for image in images]
    return [image for image, _ in pairs], [label for _, label in pairs]


def read_images(folder: str | os.PathLike[str], takes: Taking = IMAGES) -> list[Path]:
    """The images of a folder and its sub-folders, sorted by path.

    Raises:
        UsageError: there are none.
        ImageNotFoundError: it cannot be read.
    """
    images = takes.listed(folder)
    if not images:
        raise UsageError(f"the folder {os.fspath(folder)!r} holds no {takes.several}")
    return images


def encode(
    tokenizer: Tokenizer,
    sources: Sequence[ImageSource],
    k: int | None,
    *,
    batch_size: int,
    keep_errors: bool,
    done: Callable[[int], None],
) -> list[TokenPyramid | Exception]:
    """The words of each image.

    Args:
        keep_errors: put an image's exception in its place; otherwise the first one is raised, with the image's index.
        done: told how many images were finished.
    """
    words: list[TokenPyramid | Exception] = []
    for start in range(0, len(sources), batch_size):
        batch = [rereadable(source) for source in sources[start : start + batch_size]]
        try:
            words.extend(tokenizer.encode(batch, k))
        except Exception as error:
            if not (keep_errors or isinstance(error, ImageError)):
                raise
            logger.debug("images %d to %d failed together (%s); one by one", start, start + len(batch) - 1, error)
            words.extend(_one_by_one(tokenizer, batch, k, start, keep_errors))
        done(len(batch))
    return words


def _one_by_one(
    tokenizer: Tokenizer, batch: Sequence[ImageSource], k: int | None, start: int, keep_errors: bool
) -> list[TokenPyramid | Exception]:
    words: list[TokenPyramid | Exception] = []
    takes = taken_by(tokenizer)
    for index, source in enumerate(batch, start):
        try:
            # Loaded here, so that a message has no index of its own ("images[0]") that counts within this batch of one.
            words.extend(tokenizer.encode([takes.load(source)], k))
        except Exception as error:
            if keep_errors:
                words.append(error)
            elif isinstance(error, ImageError):
                raise type(error)(f"{takes.several}[{index}]: {error}") from error
            else:
                raise
    return words


def rereadable(source: ImageSource) -> ImageSource:
    """A stream that can be read only once is read now: a failed batch is read again, image by image."""
    read, seekable = getattr(source, "read", None), getattr(source, "seekable", None)
    if not callable(read) or (callable(seekable) and seekable()):
        return source
    try:
        return bytes(read())
    except Exception as error:
        logger.debug("a stream cannot be read: %s", error)
        return source  # reading it again, as an image, gives the proper message
