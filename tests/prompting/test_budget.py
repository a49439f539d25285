"""Token budgets: what fits, what does not, and the advice."""

from __future__ import annotations

import pytest

from icl_vision.contracts import Prompt
from icl_vision.errors import PromptTooLongError, UsageError
from icl_vision.prompting import PromptSize, check_fits, check_tokens


def count_words(text: str) -> int:
    return len(text.split())


def test_what_fits_is_counted_whole() -> None:
    prompt = Prompt("one two", "three four", "five")
    assert check_fits(prompt, count_words, 10, reserve=5) == 5
    assert check_fits("one two", count_words, 2, reserve=0) == 2
    assert check_fits(prompt, count_words, None) == 5


def test_what_does_not_fit_names_tokens_window_and_options() -> None:
    size = PromptSize(shots=5, k=21, repeats=3, selection="all", examples=100)
    with pytest.raises(PromptTooLongError) as caught:
        check_tokens(4000, 2048, reserve=16, size=size)
    assert str(caught.value) == (
        "the prompt has 4000 tokens but the LLM's window holds 2048: 16 of the window are kept for the answer; use "
        'repeats=0 (now 3), fewer shots= (now 5), a smaller k= (now 21), selection="nearest" with shots=, which keeps '
        "the examples most like the query, or an LLM with a larger window (about 50 of the 100 examples shown would "
        "fit)"
    )
    assert (caught.value.tokens, caught.value.window) == (4000, 2048)
    with pytest.raises(PromptTooLongError, match="holds 100: use fewer shots="):
        check_tokens(101, 100, reserve=0)


def test_advice_leaves_out_what_would_change_nothing() -> None:
    advice = PromptSize(shots=1, k=1, repeats=0, selection="nearest").advice(10, 5)
    assert advice == "use an LLM with a larger window"
    assert "fewer shots=, a smaller k=" in PromptSize().advice(10, 5)
    assert "nearest" not in PromptSize(selection="nearest").advice(10, 5)


@pytest.mark.parametrize("arguments", [(-1, 5, 0), (1, 0, 0), (1, 5, -1)])
def test_negative_numbers_are_refused(arguments: tuple[int, int, int]) -> None:
    tokens, window, reserve = arguments
    with pytest.raises(UsageError, match=r"must not be negative; got"):
        check_tokens(tokens, window, reserve=reserve)
