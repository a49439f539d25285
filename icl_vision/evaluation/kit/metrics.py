"""Accuracy with its interval, and the rules by which an open-ended answer counts as right.

Knows: counting, Wilson's interval, means with theirs, and the exact / prefix / substring scorers.
Refuses to know: where answers come from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_vision.errors import UsageError
from icl_vision.spelling import composed

Z95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution: a two-sided 95% interval."""


def wilson_interval(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (E. B. Wilson, JASA 22, 1927, eq. of section 3).

    It stays inside [0, 1] and is honest at 0% and 100%, where the usual normal interval has no width.

    Args:
        correct: successes, 0 <= correct <= n.
        n: trials; 0 gives (0, 1), for nothing is known.
        z: normal quantile; the default gives 95%.
    """
    if n < 0 or not 0 <= correct <= n:
        raise UsageError(f"correct must lie between 0 and n; got correct={correct}, n={n}")
    if n == 0:
        return (0.0, 1.0)
    share = correct / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return (low, high)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers that cannot be printed without its n, interval and scorer.

    accuracy: correct / n, None when n is 0. interval: 95% Wilson. scorer: how an answer was judged
    ("likelihood", "exact", "prefix", "substring", "nearest prototype" ...).
    """

    accuracy: float | None
    n: int
    interval: tuple[float, float]
    scorer: str

    @classmethod
    def count(cls, correct: int, n: int, scorer: str) -> Accuracy:
        """From a number of right answers out of ``n``."""
        return cls(correct / n if n else None, n, wilson_interval(correct, n), scorer)

    @classmethod
    def of(cls, right: Iterable[bool], scorer: str) -> Accuracy:
        """From one verdict per answer."""
        verdicts = [bool(verdict) for verdict in right]
        return cls.count(sum(verdicts), len(verdicts), scorer)

    @classmethod
    def compare(cls, predicted: Sequence[str | None], truth: Sequence[str], scorer: str) -> Accuracy:
        """From predicted and true labels; None (abstained) counts as wrong."""
        if len(predicted) != len(truth):
            raise UsageError(f"{len(predicted)} predictions cannot be compared with {len(truth)} true labels")
        return cls.of((guess == label for guess, label in zip(predicted, truth, strict=True)), scorer)

    @property
    def correct(self) -> int:
        return 0 if self.accuracy is None else round(self.accuracy * self.n)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {accuracy, n, interval: [lo, hi], scorer}."""
        return {"accuracy": self.accuracy, "n": self.n, "interval": list(self.interval), "scorer": self.scorer}

    def __str__(self) -> str:
        if self.accuracy is None:
            return f"no answers (n = 0, {self.scorer})"
        low, high = self.interval
        return f"{self.accuracy:.1%} (n = {self.n}, 95% {low:.1%} to {high:.1%}, {self.scorer})"


@dataclass(slots=True)
class RunningMean:
    """The mean of a measure with its interval, from running sums: memory does not grow with the number of values."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Count one more value."""
        self.n += 1
        self.total += value
        self.squares += value * value

    def to_dict(self) -> dict[str, Any] | None:
        """{mean, n, interval: 95%, normal}; None where nothing was measured."""
        if not self.n:
            return None
        mean = self.total / self.n
        spread = max(0.0, self.squares / self.n - mean * mean)
        half = Z95 * math.sqrt(spread / self.n)
        return {"mean": mean, "n": self.n, "interval": [mean - half, mean + half]}


def mean_text(mean: Mapping[str, Any] | None, digits: int) -> str:
    """A mean as ``RunningMean.to_dict`` gives it, for a table of people: "21.30 [20.91, 21.69]"; "-" for None."""
    if mean is None:
        return "-"
    low, high = mean["interval"]
    return f"{mean['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _first_line(answer: str) -> str:
    stripped = composed(answer).strip()
    return stripped.splitlines()[0].strip() if stripped else ""


def strict_match(answer: str, label: str, *, ended: bool = True) -> bool:
    """The name and nothing else up to the end of the line, letter for letter (Frozen, arXiv 2106.13884, section 4).

    Args:
        answer: the continuation as the LLM wrote it; the one space before a continuation's first word is not counted.
        label: the right answer.
        ended: the LLM ended its answer by itself. A line cut off by a token limit has not ended.
    """
    line, newline, _ = composed(answer).partition("\n")
    return (ended or bool(newline)) and line.removeprefix(" ") == composed(label)


def normalised_match(answer: str, label: str) -> bool:
    """Strip, first line, lower case, then equal (as VL-ICL Bench judges open-ended miniImageNet)."""
    return _first_line(answer).lower() == composed(label).strip().lower()


def exact_match(answer: str, label: str) -> bool:
    """The answer's first line is the label and then ends: at most closing punctuation follows. Case does not count."""
    return _first_line(answer).rstrip(" .,;:!\"'").casefold() == composed(label).casefold()


def prefix_match(answer: str, label: str) -> bool:
    """The answer's first line begins with the label, which ends there at a word boundary."""
    return re.match(re.escape(composed(label).casefold()) + r"(?!\w)", _first_line(answer).casefold()) is not None


def substring_match(answer: str, label: str) -> bool:
    """The label stands somewhere in the whole answer, as whole words. The most generous of the three."""
    return (
        re.search(r"(?<!\w)" + re.escape(composed(label).casefold()) + r"(?!\w)", composed(answer).casefold())
        is not None
    )


SCORERS = {"exact": exact_match, "prefix": prefix_match, "substring": substring_match}
"""Scorers of open-ended answers by name, strictest first."""
