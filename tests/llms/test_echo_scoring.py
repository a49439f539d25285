"""Which tokens of an echoed prompt count, with start tokens, merged boundaries, odd offsets and missing values."""

from __future__ import annotations

import pytest

from icl_vision.llms.echo_scoring import echoed_logprob

WHOLE = "a b: c d\n"


def echo(tokens, values, offsets=None):
    return {"tokens": tokens, "token_logprobs": values, "text_offset": offsets, "top_logprobs": None}


def test_counts_continuation_and_terminator_only():
    logprobs = echo(["a", " b", ":", " c", " d", "\n", "X"], [None, -9, -9, -1, -2, -4, -9], [0, 1, 3, 4, 6, 8, 9])
    assert echoed_logprob(logprobs, 4, WHOLE) == -7


def test_a_start_token_shifts_nothing():
    logprobs = echo(["<bos>", "a", " b", ":", " c", " d", "\n", "X"], [None, -9, -9, -9, -1, -2, -4, -9])
    assert echoed_logprob(logprobs, 4, WHOLE) == -7


def test_a_token_over_the_boundary_counts():
    assert echoed_logprob(echo(["a", " b", ": c", " d", "\n"], [None, -9, -1, -2, -4]), 4, WHOLE) == -7


def test_pieces_of_characters_fall_back_to_the_offsets():
    tokens = ["a", " b", ":", " c", "bytes:\\xc3", "bytes:\\xa4", "\n", "X"]
    values, offsets = [None, -9, -9, -1, -2, -8, -4, -9], [0, 1, 3, 4, 6, 7, 7, 8]
    assert echoed_logprob(echo(tokens, values, offsets), 4, "a b: cä\n") == -15


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": []}, echo(["X"], [-1.0], [0]), echo(["a"], [])])
def test_no_echo(logprobs):
    assert echoed_logprob(logprobs, 4, WHOLE) is None


def test_gaps_are_errors():
    with pytest.raises(ValueError, match="no log-probability for the token at character 4"):
        echoed_logprob(echo(["a b:", " c", " d\n"], [None, None, -1]), 4, WHOLE)
