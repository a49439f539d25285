"""Options as they come in: what is taken, what is refused, and what a refusal says."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision import checks
from icl_vision.errors import ArtefactDamagedError, UsageError


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_of_any_kind_are_taken_as_ints(value: object) -> None:
    taken = checks.count("shots", value)
    assert taken == 3 and type(taken) is int


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, float("nan"), [3], 0, -1, np.array([3])])
def test_what_is_no_whole_number_of_one_or_more_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"^shots must be a whole number of 1 or more; got "):
        checks.count("shots", value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least": 0}, "k must be a whole number of 0 or more; got -1"),
        ({"most": 20}, "k must be a whole number from 1 to 20; got -1"),
        ({"least": 0, "most": 3}, "k must be a whole number from 0 to 3; got -1"),
        ({"of": "words"}, "k must be a whole number of 1 or more words; got -1"),
        ({"none": "every word"}, "k must be a whole number of 1 or more, or None (every word); got -1"),
    ],
)
def test_a_refusal_says_what_would_do(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        checks.count("k", -1, **options)  # type: ignore[call-overload]  # each row has its own options
    assert str(caught.value) == message


def test_without_a_range_any_whole_number_will_do() -> None:
    assert checks.count("order_seed", -7, least=None) == -7
    with pytest.raises(UsageError, match="^order_seed must be a whole number; got 1.5"):
        checks.count("order_seed", 1.5, least=None)


def test_both_ends_of_a_range_belong_to_it() -> None:
    assert [checks.count("k", k, least=2, most=4) for k in (2, 4)] == [2, 4]
    for k in (1, 5):
        with pytest.raises(UsageError, match=f"from 2 to 4; got {k}"):
            checks.count("k", k, least=2, most=4)


def test_none_is_taken_only_where_it_means_something() -> None:
    assert checks.count("k", None, none="every word") is None
    assert checks.number("rate", None, none="no limit") is None
    with pytest.raises(UsageError, match="got None"):
        checks.number("rate", None)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
def test_numbers_of_any_kind_are_taken_as_floats(value: object) -> None:
    taken = checks.number("rate", value, least=0, most=1)
    assert taken == 0.5 and type(taken) is float


@pytest.mark.parametrize(
    "value", [True, np.False_, "0.5", b"1", float("nan"), float("inf"), 1.5, -0.1, None, [0.5], 10**400]
)
def test_what_is_no_rate_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"^rate must be a number from 0 to 1; got "):
        checks.number("rate", value, least=0, most=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "rate must be a number; got nan"),
        ({"least": 0}, "rate must be a number of 0 or more; got nan"),
        ({"above": 0}, "rate must be a number above 0; got nan"),
        ({"above": 0, "most": 2.5}, "rate must be a number above 0 and at most 2.5; got nan"),
        ({"most": 1}, "rate must be a number of at most 1; got nan"),
    ],
)
def test_a_refused_number_is_told_its_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        checks.number("rate", float("nan"), **options)  # type: ignore[call-overload]  # each row has its own options
    assert str(caught.value) == message


def test_above_leaves_its_own_value_out() -> None:
    assert checks.number("seconds", 0.001, above=0) == 0.001
    with pytest.raises(UsageError, match="above 0; got 0"):
        checks.number("seconds", 0, above=0)


def test_a_choice_is_the_very_object_or_the_same_text() -> None:
    assert checks.choice("errors", "raise", ("raise", "return")) == "raise"
    assert checks.choice("induction", None, (True, False, None)) is None
    for value in ("Raise", 1, None, ["raise"]):
        with pytest.raises(UsageError, match="errors must be one of 'raise', 'return'; got "):
            checks.choice("errors", value, ("raise", "return"))
    with pytest.raises(UsageError, match="one of True, False; got 1"):  # 1 == True, and is no choice
        checks.choice("induction", 1, (True, False))


def test_a_flag_is_nothing_that_only_counts_as_one() -> None:
    checks.flag("progress", False)
    checks.flag("progress", None, none=True)
    for value in (0, 1, "yes", None):
        with pytest.raises(UsageError, match="progress must be True or False; got "):
            checks.flag("progress", value)


def test_another_error_where_another_is_due() -> None:
    with pytest.raises(ArtefactDamagedError, match="its card's k must be a whole number of 1 or more; got 'five'"):
        checks.count("its card's k", "five", error=ArtefactDamagedError)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UsageError) as caught:
        checks.count("k", "x" * 10_000)
    assert len(str(caught.value)) < 300 and str(caught.value).endswith("...")
