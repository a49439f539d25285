"""Which of a tokenizer's own classes are tested, so that they can be withheld.

Knows: how labels and class names are alike in spelling. Refuses to know: what either means.

A label matches a class when, ignoring case, underscores, hyphens, what stands in brackets and a plural s,

    1. it is one of the class's names ("electric guitar", "Leopards" and "leopard"); else
    2. it stands inside one of them as whole words ("lobster" in "American lobster"), or one of them inside it ("cougar"
       in "cougar face"): every such class is withheld, too many rather than too few.

Spelling is not meaning: ``OTHER_NAMES`` adds what spelling cannot see for the labels of the data sets this project
reports on (that a tusker is an elephant). For other labels such classes are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from icl_vision.contracts import Tokenizer
from icl_vision.errors import UsageError
from icl_vision.prompting.labels import fold
from icl_vision.tokenizers.artefact import CLASSES_FILE, read_file
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.wrapping import unwrapped

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "african hunting dog": ("african wild dog",),
    "airplane": ("airliner", "military aircraft", "airplane wing"),
    "elephant": ("tusker", "asian elephant", "african bush elephant"),
    "motorbike": ("moped", "motor scooter"),
    "stop sign": ("traffic or street sign",),
}
"""Labels, and the classes of ImageNet that show the same thing under another name."""

_BRACKETS = re.compile(r"\([^)]*\)")


def class_lines(tokenizer: Tokenizer) -> list[str]:
    """The tokenizer's classes as its ``classes.txt`` lists them (names separated by "; "), [] where it has none."""
    inner = unwrapped(tokenizer)
    if not isinstance(inner, OnnxTokenizer):
        return []
    if CLASSES_FILE not in inner.card["files"]:  # a file that the card does not list is not looked at
        return []
    return read_file(inner.folder, inner.card, CLASSES_FILE).decode("utf-8").splitlines()


def match_classes(labels: Iterable[str], lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The classes that each label may be.

    Args:
        labels: labels or class folders' names.
        lines: one class each, its names separated by "; ".

    Returns:
        For each label the first names of its classes, in the order of ``lines``; () where it is none of them.
    """
    names = [[_words(name) for name in line.split("; ")] for line in lines]
    others = {_words(label): [_words(name) for name in also] for label, also in OTHER_NAMES.items()}
    found: dict[str, tuple[str, ...]] = {}
    for label in labels:
        words = _words(label)
        wanted = [words, *others.get(words, ())]
        same = [line for line, forms in zip(lines, names, strict=True) if any(form in forms for form in wanted)]
        within = [
            line
            for line, forms in zip(lines, names, strict=True)
            if any(_inside(words, form) or _inside(form, words) for form in forms)
        ]
        found[label] = tuple(line.split("; ")[0] for line in same or within)
    return found


def withholding(tokenizer: Tokenizer, names: Sequence[str]) -> OnnxTokenizer:
    """The same tokenizer with these classes withheld, and any that it withholds already.

    Raises:
        UsageError: a tokenizer without classes, or a name that is none of them.
    """
    inner = unwrapped(tokenizer)
    if not isinstance(inner, OnnxTokenizer):
        raise UsageError(f"the tokenizer {tokenizer.name!r} recognises no fixed classes, so none can be withheld")
    # What it pickles as is its folder and its options.
    state = inner.__getstate__()
    options = {**state["options"], "withhold": (*state["options"]["withhold"], *names)}
    return OnnxTokenizer(state["folder"], **options)


def _words(name: str) -> tuple[str, ...]:
    words = fold(_BRACKETS.sub(" ", name).replace("-", " ")).split()
    return tuple(word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
                 for word in words)  # fmt: skip


def _inside(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    width = len(part)
    return 0 < width < len(whole) and any(
        whole[start : start + width] == part for start in range(len(whole) - width + 1)
    )
