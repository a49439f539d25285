"""Changes inside a JSON text leave the rest of it as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.proxy.spans import Extend, Replace, Suffix, edited

ODD = (
    ' {\n"a" : [ 1.00 , {"b":"\\u0041\\"]}" , "c" : [ ] } , "x\\\\" , null,true ],"a2":{"b":1e5,"b":2}, "\\u0062":"q"}'
)


def test_only_what_is_named_changes():
    changed = edited(
        ODD, [Replace(("a", 1, "b"), 'n"w'), Extend(("a", 1, "c"), 1), Suffix(("a", 2), '\n"'), Extend(("a",), "end")]
    )
    assert changed == ODD.replace('"\\u0041\\"]}"', '"n\\"w"').replace("[ ]", "[ 1]").replace(
        '"x\\\\"', '"x\\\\\\n\\""'
    ).replace("null,true ]", 'null,true ,"end"]')
    assert edited(ODD, []) == ODD
    assert json.loads(edited(ODD, [Replace(("b",), 1)]))["b"] == 1  # a key by what it means, not by its letters
    assert edited(' "a" ', [Suffix((), "b")]) == ' "ab" '


def test_a_key_said_twice_on_the_way():
    with pytest.raises(RequestRefusedError, match="twice"):
        edited('{"a": [1], "a": [2]}', [Replace(("a", 0), 3)])
    with pytest.raises(RequestRefusedError, match="twice"):
        edited('{"a": {"b": 1, "\\u0062": 2}}', [Replace(("a", "b"), 3)])
    assert edited('{"x": 1, "x": 2, "a": [1]}', [Replace(("a", 0), 3)]) == '{"x": 1, "x": 2, "a": [3]}'


@pytest.mark.parametrize("path", [("z",), ("a", 9), ("a", "b"), ("a", 0, "b")])
def test_a_path_that_leads_nowhere(path: Any):
    with pytest.raises(KeyError, match="1 of 1 paths lead nowhere"):
        edited(ODD, [Replace(path, 1)])


def test_a_text_of_nothing_but_escapes_takes_no_memory():
    import tracemalloc

    breaks, letters = "\\n" * 1_000_000, "\\u0041" * 300_000
    text = f'{{"a": "{breaks}", "b": ["{letters}"], "c": 1}}'
    tracemalloc.start()
    try:
        changed = edited(text, [Replace(("c",), 2)])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert changed == text[:-2] + "2}" and most < 4 * len(text)


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, inner in inside for one in paths(inner, (*path, key)))]


@settings(max_examples=150, deadline=None)
@given(value=VALUES, data=some.data(), ascii=some.booleans(), indent=some.sampled_from([None, 0, 3]))
def test_any_document(value: Any, data: Any, ascii: bool, indent: int | None):
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    path = data.draw(some.sampled_from(paths(value)))
    mark = {"new": ["\u2028]}", '"']}
    changed = json.loads(edited(text, [Replace(path, mark)]))
    expected: Any = json.loads(text)
    if not path:
        expected = mark
    else:
        holder = expected
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = mark
    assert changed == expected
