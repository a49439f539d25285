"""Two methods on the same questions, compared in pairs: which is better, by how much, and could it be chance.

Knows: how the questions of two runs are matched, McNemar's exact test, Tango's interval of a paired difference, Holm's
correction; a bootstrap where answers are more than right or wrong. Refuses to know: journals (``compared_runs``), how
the answers came to be, and how a comparison is printed.

Two accuracies with overlapping intervals may still differ clearly where the questions are the same: what counts are
the questions that one method got right and the other wrong (discordant pairs). Only those enter the test.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from icl_vision.errors import RunMismatchError, UsageError
from icl_vision.evaluation.kit.bootstrap import METHOD
from icl_vision.evaluation.kit.compared_runs import DEFAULT_ROWS, ComparedItem, ComparedRun, read_compared
from icl_vision.evaluation.kit.metrics import Z95, Accuracy
from icl_vision.evaluation.kit.paired_means import PairedMean, paired_mean

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
class PairedScores:
    """One comparison of scores that are more than right or wrong. a, b: their means; difference: of the paired scores;
    margin: the non-inferiority margin, in the unit of the scores."""

    setting: str
    first: str
    second: str
    a: float
    b: float
    difference: PairedMean
    margin: float

    @property
    def n(self) -> int:
        return self.difference.n

    @property
    def verdict(self) -> str:
        """Of the first: ``better`` or ``worse`` where the interval leaves out 0, else ``no difference shown``."""
        better = self.difference.better
        return "no difference shown" if better is None else "better" if better else "worse"

    @property
    def non_inferior(self) -> bool:
        """Whether the 95% interval rules out that the first is worse by the margin or more."""
        return self.difference.interval[0] > -self.margin

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "setting": self.setting,
            "rows": [self.first, self.second],
            "a": self.a,
            "b": self.b,
            **self.difference.to_dict(),
            "verdict": self.verdict,
            "non_inferior": self.non_inferior,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every comparison asked for. names: what the two sides are called. unpaired: items only one side has."""

    names: tuple[str, str]
    pairs: tuple[Paired | PairedScores, ...]
    margin: float
    unpaired: int

    @property
    def methods(self) -> dict[str, str]:
        """How it was computed."""
        if any(isinstance(pair, PairedScores) for pair in self.pairs):
            return {"interval": METHOD}
        return {"test": TEST, "interval": INTERVAL, "correction": CORRECTION}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, methods named."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "margin": self.margin,
            "unpaired": self.unpaired,
            "methods": self.methods,
            "comparisons": [pair.to_dict() for pair in self.pairs],
        }


def compare_runs(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    rows: Sequence[str] = (),
    settings: Sequence[str] = (),
    margin: float = MARGIN,
) -> Comparison:
    """Every named row of one run against the same row of another, setting by setting.

    Args:
        first, second: run folders of ``icl-vision eval few-shot``, ``eval answers`` or ``eval captions``, finished or
            not, both of one kind.
        rows: which rows; each is compared with itself in the other run. Empty: likelihood of few-shot runs, of others
            all rows that both have.
        settings: ids of settings (of answers: "all", and types of questions); empty = all that both have.
        margin: non-inferiority margin as a share, 0 to 1 (of CIDEr-D: in its unit).

    Raises:
        RunError: no such run, or nothing finished.
        RunMismatchError: the runs asked different questions (the first difference is named).
        UsageError: a row or a setting that is not there, or an impossible margin.
    """
    a, b = read_compared(first), read_compared(second)
    if a.kind != b.kind:
        raise RunMismatchError(
            f"{str(first)!r} is a run of {a.kind}, {str(second)!r} one of {b.kind}: compare two alike"
        )
    _same_items(a.items, b.items, str(first), str(second))
    chosen = rows or DEFAULT_ROWS.get(a.kind) or [row for row in a.rows if row in b.rows]
    pairs = [(row, row) for row in dict.fromkeys(chosen)]
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
    items = read_compared(run)
    return _compare((first, second), items, items, [(first, second)], settings, margin)


def _same_items(a: Mapping[str, ComparedItem], b: Mapping[str, ComparedItem], first: str, second: str) -> None:
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
    one: ComparedRun,
    other: ComparedRun,
    rows: Sequence[tuple[str, str]],
    settings: Sequence[str],
    margin: float,
) -> Comparison:
    a, b = one.items, other.items
    if not 0 <= margin < 1:
        raise UsageError(f"the margin must be a share from 0 to below 1; got {margin!r}")
    common = [name for name in a if name in b]
    present = list(dict.fromkeys(setting for name in common for setting in a[name].settings))
    for setting in settings:
        if setting not in present:
            raise UsageError(f"no setting {setting!r} in both; there are {', '.join(present)}")
    for first, second in rows:
        _check_row(first, one)
        _check_row(second, other)
    if one.graded:
        scored = tuple(_scored(common, a, b, settings or present, rows, margin))
        if not scored:
            raise _nothing_paired(rows)
        return Comparison(names, scored, margin, len(a) + len(b) - 2 * len(common))
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
        raise _nothing_paired(rows)
    corrected = tuple(replace(pair, p_holm=p) for pair, p in zip(pairs, holm([pair.p for pair in pairs]), strict=True))
    return Comparison(names, corrected, margin, len(a) + len(b) - 2 * len(common))


def _scored(
    common: Sequence[str],
    a: Mapping[str, ComparedItem],
    b: Mapping[str, ComparedItem],
    settings: Sequence[str],
    rows: Sequence[tuple[str, str]],
    margin: float,
) -> Iterator[PairedScores]:
    for setting in settings:
        for first, second in rows:
            both = [
                (a[name].scores[first], b[name].scores[second])
                for name in common
                if setting in a[name].settings and first in a[name].scores and second in b[name].scores
            ]
            if both:
                ones, others = zip(*both, strict=True)
                difference = paired_mean(ones, others, higher_is_better=True)
                means = sum(ones) / len(both), sum(others) / len(both)
                yield PairedScores(setting, first, second, *means, difference, margin)


def _nothing_paired(rows: Sequence[tuple[str, str]]) -> RunMismatchError:
    named = ", ".join(f"{first} and {second}" if first != second else first for first, second in rows)
    return RunMismatchError(f"no question was answered on both sides by {named}; nothing can be paired")


def _check_row(row: str, run: ComparedRun) -> None:
    if row not in run.rows:
        raise UsageError(f"no row {row!r} in the run; there are {', '.join(run.rows)}")


def _count(
    common: Iterable[str], a: Mapping[str, ComparedItem], b: Mapping[str, ComparedItem], rows: Sequence[tuple[str, str]]
) -> dict[tuple[str, str, str], tuple[int, int, int, int]]:
    """(both, only first, only second, neither) right, per (setting, first row, second row)."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for name in common:
        for first, second in rows:
            if first in a[name].scores and second in b[name].scores:
                which = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[
                    a[name].scores[first] == 1.0, b[name].scores[second] == 1.0
                ]
                for setting in a[name].settings:
                    counts.setdefault((setting, first, second), [0, 0, 0, 0])[which] += 1
    return {key: (row[0], row[1], row[2], row[3]) for key, row in counts.items()}
