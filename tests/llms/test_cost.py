"""Money: unknown is never zero, and a budget stops before it is passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from icl_vision.contracts import Usage
from icl_vision.errors import BudgetExceededError, UsageError
from icl_vision.llms.cost import Budget, Cost, Meter, Price, PriceTable

TABLE = PriceTable({"big": Price(2.0, 10.0, cache_read=0.2), "small": Price(1, 1)})


def test_cost_of_each_kind_of_token() -> None:
    usage = Usage(requests=1, prompt_tokens=1_000_000, cached_tokens=250_000, completion_tokens=100_000)
    assert TABLE.cost("big", usage) == Cost(0.75 * 2 + 0.25 * 0.2 + 0.1 * 10)
    assert TABLE.cost("openai:big", usage) == TABLE.cost("big", usage)


def test_unknown_is_not_zero() -> None:
    unknown = TABLE.cost("other", Usage(1, 10))
    assert unknown.amount is None
    assert "no price for 'other'" in str(unknown)
    cached = TABLE.cost("small", Usage(1, 10, cached_tokens=5))
    assert cached.amount is None
    assert "no cache_read price" in cached.reason
    assert (Cost(1.0) + unknown).amount is None
    assert (unknown + Cost(1.0)).amount is None
    assert TABLE.cost("small", Usage()) == Cost(0.0)


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("gpt:\n  input: 1.25\n  output: 10\n  cache_read: 0.125\n")
    assert PriceTable.load(path).prices == {"gpt": Price(1.25, 10, 0.125)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must be a mapping of model names"),
        ("gpt: 3", "the price of 'gpt' must be a mapping"),
        ("gpt: {input: 1}", "needs input and output"),
        ("gpt: {input: 1, output: 2, batch: 3}", "needs input and output"),
        ("gpt: {input: -1, output: 2}", "input must be 0 or more"),
        ("gpt: {input: many, output: 2}", "input must be 0 or more"),
        ("gpt: [", "cannot be read"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        PriceTable.load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        PriceTable.load(tmp_path / "missing.yaml")


def test_budgets_stop_before_the_limit_counting_what_is_in_flight() -> None:
    meter = Meter(TABLE, Budget(requests=2))
    one = Usage(requests=1, prompt_tokens=10)
    meter.reserve("small", one)
    meter.reserve("small", one)
    with pytest.raises(BudgetExceededError, match="would be number 3; the budget is 2"):
        meter.reserve("small", one)
    meter.settle("small", one, Usage())  # failed, nothing spent
    meter.reserve("small", one)
    meter.settle("small", one, Usage(requests=1, prompt_tokens=12))
    assert meter.spent["small"] == Usage(requests=1, prompt_tokens=12)

    with pytest.raises(BudgetExceededError, match="would make 11 tokens; the budget is 10"):
        Meter(TABLE, Budget(tokens=10)).reserve("small", Usage(1, 10, 0, 1))
    with pytest.raises(BudgetExceededError, match=r"bring the cost to 2\.0000; the budget is 1\.5"):
        Meter(TABLE, Budget(cost=1.5)).reserve("big", Usage(1, 1_000_000))
    with pytest.raises(BudgetExceededError, match="add the price to the table"):
        Meter(TABLE, Budget(cost=1.5)).reserve("other", Usage(1, 1))


def test_totals_over_models() -> None:
    meter = Meter(TABLE)
    meter.settle("big", Usage(), Usage(1, 1_000_000))
    meter.settle("small", Usage(), Usage(1, 1_000_000))
    assert meter.total() == (Usage(2, 2_000_000), Cost(3.0))
    meter.settle("other", Usage(), Usage(1, 1))
    assert meter.total()[1].amount is None
