"""Two methods on the same questions, compared in pairs: which is better, by how much, and could it be chance.

Knows: how questions of two few-shot runs are matched, McNemar's exact test, Tango's interval of a paired difference,
Holm's correction. Refuses to know: how the answers came to be, and how a comparison is printed.

Two accuracies with overlapping intervals may still differ clearly where the questions are the same: what counts are
the questions that one method got right and the other wrong (discordant pairs). Only those enter the test.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from icl_vision.errors import RunError, RunMismatchError, UsageError
from icl_vision.evaluation.kit.metrics import Z95, Accuracy
from icl_vision.files.runs import read_info, read_results

INTERVAL = "Tango's asymptotic score interval of a paired difference (Statistics in Medicine 17, 1998, 891-908)"
TEST = "McNemar's exact test, two-sided (Psychometrika 12, 1947, 153-157; binomial tail of the discordant pairs)"
CORRECTION = "Holm's step-down (Scandinavian Journal of Statistics 6, 1979, 65-70) over all comparisons named here"
MARGIN = 0.05
"""Default non-inferiority margin, as a share: five points, about the half width of an interval at 400 questions."""


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test: twice the smaller binomial(n, 1/2) tail, at most 1.

    Args:
        only_a: questions that only the first method got right, 0 or more.
        only_b: questions that only the second got right, 0 or more.

    Raises:
        UsageError: a negative count.
    """
    if only_a < 0 or only_b < 0:
        raise UsageError(f"discordant counts must be 0 or more; got {only_a} and {only_b}")
    n = only_a + only_b
    # Whole numbers throughout: a tail of thousands of pairs is smaller than a float can hold term by term.
    term = tail = 1
    for k in range(min(only_a, only_b)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 1 << n)))


def paired_interval(only_a: int, only_b: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Tango's score interval of the difference of two paired shares, first minus second.

    The limits are the differences d at which the score statistic (T. Tango, 1998, eq. 12 to 15)

        (only_a - only_b - n d) / sqrt(n (2 q(d) + d (1 - d)))

    is plus and minus ``z``, where q(d) is the maximum-likelihood share of ``only_b`` pairs at that d. At d = 0 its
    square is McNemar's statistic, so that interval and test belong together. It has a width even where no pair is
    discordant.

    Args:
        only_a: questions that only the first method got right.
        only_b: questions that only the second got right.
        n: all paired questions, at least ``only_a + only_b``; 0 gives (-1, 1), for nothing is known.
        z: normal quantile; the default gives 95%.

    Raises:
        UsageError: impossible counts.
    """
    if only_a < 0 or only_b < 0 or only_a + only_b > n:
        raise UsageError(f"discordant counts must be 0 or more and at most n together; got {only_a}, {only_b}, n={n}")
    if n == 0:
        return (-1.0, 1.0)
    estimate = (only_a - only_b) / n

    def score(difference: float) -> float:
        first = 2 * n
        second = -only_a - only_b + (2 * n - only_a + only_b) * difference
        third = -only_b * difference * (1 - difference)
        share = (math.sqrt(max(0.0, second * second - 4 * first * third)) - second) / (2 * first)
        variance = n * (2 * share + difference * (1 - difference))
        distance = only_a - only_b - n * difference
        if variance <= 0:
            return 0.0 if distance == 0 else math.copysign(math.inf, distance)
        return distance / math.sqrt(variance)

    # The score falls as d grows: above z left of the interval, below -z right of it.
    low = -1.0 if score(-1.0) <= z else _bisect(lambda d: score(d) > z, -1.0, estimate)
    high = 1.0 if score(1.0) >= -z else _bisect(lambda d: score(d) >= -z, estimate, 1.0)
    return (low, high)


def _bisect(before: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``before`` turns from True to False between ``low`` and ``high``, to the last bit that matters."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return (low + high) / 2


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm, 1979), in the order given."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    result, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        result[index] = highest
    return result


@dataclass(frozen=True, slots=True)
class Paired:
    """One comparison: the first method against the second on the same questions of one setting.

    setting: id of the setting. first, second: the rows compared. a, b: their accuracies on the paired questions.
    only_a, only_b: discordant pairs. p: McNemar's exact. p_holm: p after Holm's correction. interval: 95% of the
    difference a - b, as shares. margin: the non-inferiority margin, as a share.
    """

    setting: str
    first: str
    second: str
    a: Accuracy
    b: Accuracy
    only_a: int
    only_b: int
    p: float
    p_holm: float
    interval: tuple[float, float]
    margin: float

    @property
    def n(self) -> int:
        return self.a.n

    @property
    def difference(self) -> float:
        """First minus second, as a share."""
        return (self.only_a - self.only_b) / self.n

    @property
    def verdict(self) -> str:
        """Of the first method: ``better`` or ``worse`` (p below 0.05 after Holm), else ``no difference shown``."""
        if self.p_holm >= 0.05:
            return "no difference shown"
        return "better" if self.only_a > self.only_b else "worse"

    @property
    def non_inferior(self) -> bool:
        """Whether the 95% interval rules out that the first is worse by the margin or more."""
        return self.interval[0] > -self.margin

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "setting": self.setting,
            "rows": [self.first, self.second],
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "n": self.n,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "difference": self.difference,
            "interval": list(self.interval),
            "p": self.p,
            "p_holm": self.p_holm,
            "verdict": self.verdict,
            "non_inferior": self.non_inferior,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every comparison asked for. names: what the two sides are called. unpaired: items only one side has."""

    names: tuple[str, str]
    pairs: tuple[Paired, ...]
    margin: float
    unpaired: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, methods named."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "margin": self.margin,
            "unpaired": self.unpaired,
            "methods": {"test": TEST, "interval": INTERVAL, "correction": CORRECTION},
            "comparisons": [pair.to_dict() for pair in self.pairs],
        }


def compare_runs(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    rows: Sequence[str] = ("likelihood",),
    settings: Sequence[str] = (),
    margin: float = MARGIN,
) -> Comparison:
    """Every named row of one run against the same row of another, setting by setting.

    Args:
        first, second: run folders of ``icl-vision eval few-shot``, finished or not.
        rows: which rows; each is compared with itself in the other run.
        settings: ids of settings; empty = all that both have.
        margin: non-inferiority margin as a share, 0 to 1.

    Raises:
        RunError: not a few-shot run, or nothing finished.
        RunMismatchError: the runs asked different questions (the first difference is named).
        UsageError: a row or a setting that is not there, or an impossible margin.
    """
    a, b = _read(first), _read(second)
    _same_items(a, b, str(first), str(second))
    pairs = [(row, row) for row in dict.fromkeys(rows)]
    return _compare((str(first), str(second)), a, b, pairs, settings, margin)


def compare_rows(
    run: str | os.PathLike[str],
    first: str,
    second: str,
    *,
    settings: Sequence[str] = (),
    margin: float = MARGIN,
) -> Comparison:
    """Two rows of one run, for instance the LLM's likelihood against the words prototype.

    Args, raises: as ``compare_runs``.
    """
    if first == second:
        raise UsageError(f"a row compared with itself says nothing; got {first!r} twice")
    items = _read(run)
    return _compare((first, second), items, items, [(first, second)], settings, margin)


@dataclass(frozen=True, slots=True)
class _Item:
    """setting, a digest of what was asked (not of its wording), and which rows got it right."""

    setting: str
    digest: bytes
    right: Mapping[str, bool]


def _read(folder: str | os.PathLike[str]) -> dict[str, _Item]:
    path = Path(folder)
    info = read_info(path)
    items: dict[str, _Item] = {}
    for name, result in read_results(path):
        try:
            answers = result["answers"]
            # Every journal line brings its own copies of the same few names: one of each is kept.
            right = {sys.intern(str(row)): bool(answer["right"]) for row, answer in answers.items()}
            items[name] = _Item(sys.intern(str(result["setting"])), _item_digest(result), right)
        except (AttributeError, KeyError, TypeError) as error:
            raise RunError(
                f"item {name!r} of {str(path)!r} is no few-shot result ({type(error).__name__}: {error}); this is a "
                f"run of {info.get('command')!r}: compare runs of `icl-vision eval few-shot`"
            ) from error
    if not items:
        raise RunError(f"{str(path)!r} holds no finished item; there is nothing to compare")
    return items


def _item_digest(item: Mapping[str, Any]) -> bytes:
    """Digest of what is asked: setting, query image, and which support images share a class.

    Names of labels, the order of the examples and their words are left out: they are what two runs may differ in.
    """
    support = sorted((str(tile["image"]), str(tile["label"])) for tile in item["support"])
    classes = {label: number for number, label in reversed(list(enumerate(label for _, label in support)))}
    truth = classes.get(str(item["query"]["label"]), -1)
    parts = [str(item["setting"]), str(item["query"]["image"]), str(truth)]
    parts += [f"{image}\x1e{classes[label]}" for image, label in support]
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]


def _same_items(a: Mapping[str, _Item], b: Mapping[str, _Item], first: str, second: str) -> None:
    common = a.keys() & b.keys()
    if not common:
        raise RunMismatchError(
            f"{first!r} and {second!r} have no item in common (for instance {min(a)!r} and {min(b)!r}); a paired "
            "comparison needs the same episodes and settings in both"
        )
    different = sorted(name for name in common if a[name].digest != b[name].digest)
    if different:
        raise RunMismatchError(
            f"{first!r} and {second!r} asked different questions under the same name: {len(different)} of "
            f"{len(common)}, first {different[0]!r}; run both on the same saved episodes or the same data and seed"
        )


def _compare(
    names: tuple[str, str],
    a: Mapping[str, _Item],
    b: Mapping[str, _Item],
    rows: Sequence[tuple[str, str]],
    settings: Sequence[str],
    margin: float,
) -> Comparison:
    if not 0 <= margin < 1:
        raise UsageError(f"the margin must be a share from 0 to below 1; got {margin!r}")
    common = [name for name in a if name in b]
    present = list(dict.fromkeys(a[name].setting for name in common))
    for setting in settings:
        if setting not in present:
            raise UsageError(f"no setting {setting!r} in both; there are {', '.join(present)}")
    for first, second in rows:
        _check_row(first, a)
        _check_row(second, b)
    pairs: list[Paired] = []
    counts = _count(common, a, b, rows)
    for setting in settings or present:
        for first, second in rows:
            both, only_a, only_b, neither = counts.get((setting, first, second), (0, 0, 0, 0))
            n = both + only_a + only_b + neither
            if n == 0:
                continue
            pairs.append(
                Paired(
                    setting=setting,
                    first=first,
                    second=second,
                    a=Accuracy.count(both + only_a, n, first),
                    b=Accuracy.count(both + only_b, n, second),
                    only_a=only_a,
                    only_b=only_b,
                    p=mcnemar_exact(only_a, only_b),
                    p_holm=1.0,
                    interval=paired_interval(only_a, only_b, n),
                    margin=margin,
                )
            )
    if not pairs:
        named = ", ".join(f"{first} and {second}" if first != second else first for first, second in rows)
        raise RunMismatchError(f"no question was answered on both sides by {named}; nothing can be paired")
    corrected = tuple(replace(pair, p_holm=p) for pair, p in zip(pairs, holm([pair.p for pair in pairs]), strict=True))
    return Comparison(names, corrected, margin, len(a) + len(b) - 2 * len(common))


def _check_row(row: str, items: Mapping[str, _Item]) -> None:
    there = list(dict.fromkeys(name for item in items.values() for name in item.right))
    if row not in there:
        raise UsageError(f"no row {row!r} in the run; there are {', '.join(there)}")


def _count(
    common: Iterable[str], a: Mapping[str, _Item], b: Mapping[str, _Item], rows: Sequence[tuple[str, str]]
) -> dict[tuple[str, str, str], tuple[int, int, int, int]]:
    """(both, only first, only second, neither) right, per (setting, first row, second row)."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for name in common:
        for first, second in rows:
            if first in a[name].right and second in b[name].right:
                which = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[
                    a[name].right[first], b[name].right[second]
                ]
                counts.setdefault((a[name].setting, first, second), [0, 0, 0, 0])[which] += 1
    return {key: (row[0], row[1], row[2], row[3]) for key, row in counts.items()}
