"""Plain values as typed dataclasses: the same checks in Python as out of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields, from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["slow", "fast"] = "slow"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    sizes: tuple[int, ...] = (1, 2)
    most: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


WHOLE: dict[str, Any] = {
    "name": "a",
    "inner": {"rate": 2.0, "kind": "fast"},
    "sizes": [3],
    "most": 7,
    "options": {"any": [1, None]},
    "shares": {"left": 0.25},
}


def test_a_document_is_read_and_written_again() -> None:
    config = from_plain(Outer, WHOLE)
    assert config == Outer("a", Inner(2.0, "fast"), (3,), 7, {"any": [1, None]}, {"left": 0.25})
    assert to_plain(config) == WHOLE
    assert from_plain(Outer, {"name": "a", "inner": {"rate": "1e-3"}}).inner.rate == 0.001  # YAML reads it as text


def test_what_is_made_in_python_becomes_what_a_file_would_give() -> None:
    config = Outer("a", sizes=[np.int64(3), 4], most=np.int64(7), shares={"left": 1})  # type: ignore[arg-type]  # what is made into the right types
    assert config == from_plain(Outer, {"name": "a", "sizes": [3, 4], "most": 7, "shares": {"left": 1.0}})
    assert type(config.sizes[0]) is int and type(config.shares["left"]) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": 1}, r"unknown key 'nam' \(did you mean 'name'\?\); allowed are name, inner, sizes"),
        ({"inner": {"rat": 1}}, r"unknown key 'inner.rat' \(did you mean 'rate'\?\)"),
        ({"inner": {"rate": "much"}}, "inner.rate must be a number; got 'much'"),
        ({"inner": {"kind": "fats"}}, r"inner.kind must be one of slow, fast; got 'fats' \(did you mean 'fast'\?\)"),
        ({"inner": {"kind": ["fast"]}}, r"inner.kind must be one of slow, fast; got \['fast'\]"),
        ({"inner": 5}, "inner must be a mapping of keys to values; got 5"),
        ({"sizes": [1, 2.5]}, r"sizes\[1\] must be a whole number; got 2.5"),
        ({"most": True}, "most must be a whole number; got True"),
        ({"options": [1]}, r"options must be a mapping of keys to values; got \[1\]"),
        ({"shares": {"left": "half"}}, "shares.left must be a number; got 'half'"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_plain(Outer, {**WHOLE, **change})


def test_nothing_is_read_out_of_texts_in_python() -> None:
    with pytest.raises(UsageError, match="rate must be a number; got '0.5'"):
        Inner(rate="0.5")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match="kind must be one of slow, fast; got None"):
        Inner(kind=None)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match="the configuration lacks name"):
        from_plain(Outer, {})
