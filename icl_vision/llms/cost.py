"""What LLM calls cost: a price table the user supplies, sums per model, budgets that stop in time.

No price is built in: prices change and a wrong one is worse than none. Unknown is a value of its
own (``Cost(None, reason)``), never 0.

Knows: prices, sums, limits. Refuses to know: how tokens are counted or spent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_vision.contracts import Usage
from icl_vision.errors import BudgetExceededError, UsageError
from icl_vision.files.reading import read_yaml
from icl_vision.forks import ForkLock

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Money per million tokens. ``cache_read`` and ``cache_write`` are needed only where a provider's cache is used."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cache_read", "cache_write"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise UsageError(f"a price's {name} must be 0 or more per million tokens; got {value!r}")


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount of money, or None with the reason why it is unknown. Sums with ``+``: unknown stays unknown."""

    amount: float | None
    reason: str = ""

    def __add__(self, other: Cost) -> Cost:
        if self.amount is None:
            return self
        if other.amount is None:
            return other
        return Cost(self.amount + other.amount)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {amount}, and the reason where it is null."""
        return {"amount": self.amount} if self.amount is not None else {"amount": None, "reason": self.reason}

    def __str__(self) -> str:
        return f"unknown ({self.reason})" if self.amount is None else f"{self.amount:.4f}"


class PriceTable:
    """Prices by model name, as ``connect`` names it (``openai:gpt-5.1`` or just ``gpt-5.1``)."""

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self.prices = dict(prices or {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PriceTable:
        """Read a YAML (or JSON) file: ``MODEL: {input: 1.25, output: 10, cache_read: 0.125, cache_write: 1.25}``.

        Raises UsageError where the file cannot be read or an entry is not of that form.
        """
        try:
            document = read_yaml(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"the price table {str(path)!r} cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise UsageError(f"the price table {str(path)!r} must be a mapping of model names to prices")
        return cls({str(model): cls._entry(str(model), entry) for model, entry in document.items()})

    @staticmethod
    def _entry(model: str, entry: Any) -> Price:
        if not isinstance(entry, dict):
            raise UsageError(f"the price of {model!r} must be a mapping with input and output; got {entry!r}")
        unknown = sorted(set(entry) - {"input", "output", "cache_read", "cache_write"})
        if unknown or not {"input", "output"} <= set(entry):
            raise UsageError(
                f"the price of {model!r} needs input and output and may have cache_read and cache_write, all per "
                f"million tokens; got {sorted(entry)}"
            )
        return Price(**entry)

    def cost(self, model: str, usage: Usage) -> Cost:
        """What ``usage`` of ``model`` costs, or why that is unknown."""
        price = self.prices.get(model) or self.prices.get(model.partition(":")[2])
        if price is None:
            return Cost(None, f"no price for {model!r} in the table")
        plain = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
        parts: list[tuple[int, float | None, str]] = [
            (plain, price.input, "input"),
            (usage.completion_tokens, price.output, "output"),
            (usage.cached_tokens, price.cache_read, "cache_read"),
            (usage.cache_write_tokens, price.cache_write, "cache_write"),
        ]
        amount = 0.0
        for tokens, rate, name in parts:
            if not tokens:
                continue
            if rate is None:
                return Cost(None, f"{model!r} used its cache and the table has no {name} price for it")
            amount += tokens * rate / MILLION
        return Cost(amount)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits in requests, tokens (prompt and completion together) and money; None for no limit."""

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None


class Meter:
    """Sums usage per model and says no before a budget is passed. Thread-safe.

    What is in flight counts with its estimate until its real usage is known, so that many concurrent requests cannot
    pass a limit together.
    """

    def __init__(self, prices: PriceTable | None = None, budget: Budget | None = None) -> None:
        self.prices = prices or PriceTable()
        self.budget = budget or Budget()
        self._spent: dict[str, Usage] = {}
        self._reserved: dict[str, Usage] = {}
        self._lock = ForkLock()

    @property
    def spent(self) -> dict[str, Usage]:
        """Usage so far, by model."""
        with self._lock:
            return dict(self._spent)

    def reserve(self, model: str, estimate: Usage) -> None:
        """Before a request. Raises BudgetExceededError naming the limit where the request would pass it."""
        with self._lock:
            planned: dict[str, Usage] = {}
            for part in (self._spent, self._reserved, {model: estimate}):
                for name, usage in part.items():
                    planned[name] = planned.get(name, Usage()) + usage
            self._check(planned)
            self._reserved[model] = self._reserved.get(model, Usage()) + estimate

    def settle(self, model: str, estimate: Usage, actual: Usage) -> None:
        """After a request, answered or failed (then ``actual`` is what was spent all the same)."""
        with self._lock:
            self._reserved[model] = self._reserved.get(model, Usage()) + _negative(estimate)
            self._spent[model] = self._spent.get(model, Usage()) + actual

    def total(self) -> tuple[Usage, Cost]:
        """Everything spent so far, over all models."""
        with self._lock:
            usage, cost = Usage(), Cost(0.0)
            for model, part in self._spent.items():
                usage, cost = usage + part, cost + self.prices.cost(model, part)
            return usage, cost

    def _check(self, planned: Mapping[str, Usage]) -> None:
        usage, cost = Usage(), Cost(0.0)
        for model, part in planned.items():
            usage, cost = usage + part, cost + self.prices.cost(model, part)
        tokens = usage.prompt_tokens + usage.completion_tokens
        if self.budget.requests is not None and usage.requests > self.budget.requests:
            raise BudgetExceededError(
                f"the next request would be number {usage.requests}; the budget is {self.budget.requests}"
            )
        if self.budget.tokens is not None and tokens > self.budget.tokens:
            raise BudgetExceededError(
                f"the next request would make {tokens} tokens; the budget is {self.budget.tokens}"
            )
        if self.budget.cost is not None:
            if cost.amount is None:
                raise BudgetExceededError(
                    f"there is a budget of {self.budget.cost} but the cost is {cost}; add the price to the table"
                )
            if cost.amount > self.budget.cost:
                raise BudgetExceededError(
                    f"the next request would bring the cost to {cost.amount:.4f}; the budget is {self.budget.cost}"
                )


def _negative(usage: Usage) -> Usage:
    return Usage(**{name: -value for name, value in usage.to_dict().items()})
