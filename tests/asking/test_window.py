"""What does not fit an LLM's window is found out before it is sent, and nothing is counted without need."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from icl_vision.asking.inquiries import Excess, Window
from icl_vision.errors import CapabilityError
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.loop import run_sync


class Runs(FakeLLM):
    """Counts runs of one character, up to 16, as LLMs' tokenizers do: texts of equal size differ much."""

    def __init__(self, window: int | None) -> None:
        super().__init__(context_window=window)
        self.counted: list[str] = []

    async def _count_tokens(self, text: str) -> int:
        self.counted.append(text)
        return tokens_of(text)


class Mute(FakeLLM):
    async def _count_tokens(self, text: str) -> int:
        raise CapabilityError("cannot count")


def tokens_of(text: str) -> int:
    return len(re.findall(r"(.)\1{0,15}|\n", text))


texts = st.lists(st.text(alphabet="#. \u732b", min_size=1, max_size=60), min_size=1, max_size=6)


@given(texts, texts, st.integers(1, 120))
def test_it_fits_exactly_where_the_longest_and_the_longest_answer_do(prompts: list[str], answers: list[str], size: int):
    most, room = max(map(tokens_of, prompts)), max(map(tokens_of, answers))
    excess = run_sync(Window(Runs(size)).excess(prompts, answers=answers))
    assert excess == (None if most + room <= size else Excess(most, room, size))
    excess = run_sync(Window(Runs(size)).excess(prompts, room=7))
    assert excess == (None if most + 7 <= size else Excess(most, 7, size))


async def test_what_fits_by_its_bytes_is_not_counted_and_answers_are_counted_once() -> None:
    llm = Runs(100)
    window = Window(llm)
    assert await window.excess(["x" * 90], room=8) is None and not llm.counted
    for _ in range(3):
        assert await window.excess(["x" * 99], answers=["y" * 20]) is None
    assert llm.counted.count("y" * 20) == 1 and llm.counted.count("x" * 99) == 3


async def test_where_nothing_is_known_nothing_is_refused() -> None:
    assert await Window(Runs(None)).excess(["x" * 1000]) is None
    assert await Window(Mute(context_window=5)).excess(["x" * 1000], room=3) is None
    assert await Window(Mute(context_window=5)).most_counted(["x"]) is None
