"""What a user may pass to a task, and the messages where it cannot work: for all tasks, and the classifier's own.

Knows: arguments. Refuses to know: what they are used for.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from icl_vision.contracts import ScoringMethod
from icl_vision.errors import UsageError
from icl_vision.images import ImageSource, is_image_source
from icl_vision.spelling import composed
from icl_vision.tasks.folders import is_folder, read_images
from icl_vision.wording import counted

SCORINGS = ("auto", *get_args(ScoringMethod))

Label = str | int
"""A class label as the user gives it and gets it back."""


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value outside ``choices``; the message lists them."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        listed = ", ".join(map(repr, choices))
        raise UsageError(f"{name} must be one of {listed}; got {value!r}")


def check_count(name: str, value: object, *, least: int, none: str | None = None) -> None:
    """Refuse anything but a whole number of at least ``least``; ``none`` says what None means, where it is allowed."""
    if value is None and none is not None:
        return
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        extra = f", or None ({none})" if none is not None else ""
        raise UsageError(f"{name} must be a whole number of {least} or more{extra}; got {value!r}")


def check_flag(name: str, value: object, *, none: bool = False) -> None:
    """Refuse anything but True, False and, where allowed, None."""
    if not (isinstance(value, bool) or (none and value is None)):
        raise UsageError(f"{name} must be True or False{' or None' if none else ''}; got {value!r}")


def check_number(name: str, value: object, *, none: str | None = None, auto: bool = False) -> None:
    """Refuse anything but a number; ``none`` and ``auto`` as their words are allowed. Its range is for who uses it."""
    if (value is None and none is not None) or (auto and isinstance(value, str) and value == "auto"):
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        extra = f", or None ({none})" if none is not None else ""
        automatic = "'auto' or " if auto else ""
        raise UsageError(f"{name} must be {automatic}a number of 0 or more{extra}; got {value!r}")


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


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values of a few-shot classifier's options that cannot work; the rest is found out by who uses them."""
    check_count("k", options["k"], least=1, none="the tokenizer's default")
    check_count("shots", options["shots"], least=1, none="all examples")
    check_count("repeats", options["repeats"], least=0)
    check_flag("induction", options["induction"])
    check_choice("selection", options["selection"], ("all", "random", "nearest"))
    check_choice("scoring", options["scoring"], SCORINGS)
    check_choice("ensemble", options["ensemble"], (None, "auto", "examples"))
    check_choice("calibration", options["calibration"], (None, "contextual"))
    check_choice("probabilities", options["probabilities"], ("calibrated", "raw"))
    check_count("order_seed", options["order_seed"], least=0, none="the order given")
    check_choice("on_unknown", options["on_unknown"], ("abstain", "raise"))
    check_choice("errors", options["errors"], ("raise", "return"))
    check_count("batch_size", options["batch_size"], least=1)
    check_count("concurrency", options["concurrency"], least=1)
    check_flag("progress", options["progress"], none=True)
    check_name("template", options["template"], "a prompt template")
    check_folder("templates", options["templates"])
    if options["selection"] == "nearest" and options["shots"] is None:
        raise UsageError("selection='nearest' needs `shots`, the number of examples of each class; got None")


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
    for place, label in enumerate(labels):
        # numpy's own scalars are given back as the str and int they stand for.
        value = label.item() if hasattr(label, "dtype") and hasattr(label, "item") else label
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UsageError(f"a label must be a str or an int; labels[{place}] is {value!r} ({type(label).__name__})")
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
