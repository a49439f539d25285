"""What makes two objects of somebody else behave differently is told apart; what is secret is left out."""

import dataclasses
import datetime
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from icl_vision.llms.remote.langchain.object_identity import Description


class Plain:
    def __init__(self, value: Any, **more: Any) -> None:
        self.value = value
        self.__dict__ |= more

    def go(self) -> Any:
        return self.value


class Slots:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclasses.dataclass
class Data:
    value: Any


def deep(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = {"k": value}
    return value


def closed(value: Any) -> Callable[[], Any]:
    return lambda: value


def of(value: Any) -> str:
    return json.dumps(Description().of(value), sort_keys=True)


MAKERS: dict[str, Callable[[int], Any]] = {
    "a plain object": Plain,
    "slots": Slots,
    "a dataclass": Data,
    "levels": lambda n: deep(n, 9),
    "objects in objects": lambda n: Data([Plain(Slots({"x": n}))]),
    "a closure": closed,
    "a partial": lambda n: functools.partial(max, n),
    "a method": lambda n: Plain(n).go,
    "a date": lambda n: datetime.date(2026, 1, n),
    "a decimal": Decimal,
    "a complex number": lambda n: complex(0, n),
    "a pattern": lambda n: re.compile(str(n)),
    "an array": lambda n: np.array([n]),
    "a set": lambda n: {n},
    "a query": lambda n: f"http://host/?version={n}",
    "a text with an address": lambda n: f"See http://host/?version={n} for more",
}


@pytest.mark.parametrize("kind", MAKERS)
def test_two_that_differ_are_told_apart(kind: str) -> None:
    make = MAKERS[kind]
    assert of(make(1)) != of(make(2))
    assert of(make(1)) == of(make(1))


def test_functions_are_told_apart_by_what_they_do() -> None:
    def default(n: int = 1) -> int:
        return n

    first = of(default)
    default.__defaults__ = (2,)
    assert of(default) != first
    assert of(lambda: 1) != of(lambda: 2)
    assert of(lambda: np.sin) != of(lambda: np.cos)


@pytest.mark.parametrize(
    "name", ["api_key", "openai_api_key", "authToken", "auth_token", "password", "default_headers", "a_client", "key"]
)
def test_secrets_are_left_out(name: str) -> None:
    assert "canary" not in of(Plain(1, **{name: "canary"})) + of({name: "canary"})
    assert of(Plain(1, **{name: "canary"})) == of(Plain(1, **{name: "another"}))


@pytest.mark.parametrize("name", ["key_points", "token_style", "headers_text", "client_name", "max_tokens"])
def test_what_only_sounds_secret_counts(name: str) -> None:
    assert of(Plain(1, **{name: "a"})) != of(Plain(1, **{name: "b"}))


@pytest.mark.parametrize("url", ["http://user:canary@host/v1", "http://host/?api_key=canary", "a http://u:canary@host"])
def test_secrets_of_addresses_are_left_out(url: str) -> None:
    assert "canary" not in of(url)


def test_an_object_within_itself_ends() -> None:
    loop = Plain(1)
    loop.value = [loop, loop]
    assert "Plain" in of(loop)


def test_the_same_in_every_process() -> None:
    code = (
        "import json; from icl_vision.llms.remote.langchain.object_identity import Description\n"
        "f = lambda x: x in {'a', 'b', 'c', 'd'}\n"
        "print(json.dumps(Description().of([f, object(), {'a', 'b', 'c'}])))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


class Private:
    def __init__(self, value: Any) -> None:
        self._value = value


class PrivateSlots:
    __slots__ = ("_value",)


class Empty:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Private(1),
        PrivateSlots(),
        iter([1]),
        (one for one in [1]),
        [].append,
        threading.Lock(),
        [{"a": Private(1)}],
        functools.partial(max, default=Private(1)),
        deep(1, 40),
        [[one] for one in range(30_000)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_shows_nothing_of_itself_is_told(value: Any) -> None:
    described = Description()
    described.of(value)
    assert described.opaque


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "a",
        [1],
        {"a": {1, 2}},
        Plain(1),
        Slots(1),
        Data(1),
        Empty(),
        object(),
        Empty,
        len,
        closed(1),
        datetime.date.max,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_shows_all_of_itself_is_not(value: Any) -> None:
    described = Description()
    described.of(value)
    assert not described.opaque
