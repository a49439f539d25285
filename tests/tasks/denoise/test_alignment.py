"""Where a degraded picture's words belong: alignments found from examples, and undone on grids of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grey_pictures import GreyTokenizer, pictures

from icl_vision import ImageDenoiser
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.tasks import GREY, TASKS, Alignment


def fitted(**options: Any) -> ImageDenoiser:
    llm = FakeLLM(constraint="logit_bias")
    return ImageDenoiser(llm, GreyTokenizer(), "rotation", context=4, **options).fit(pictures(6))


EXPECTED = {"translation": Alignment(down=2, right=2), "rotation": Alignment(turns=1)}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [4, 10])
def test_what_each_task_moves_is_found_from_its_examples(task: str, count: int) -> None:
    for seed in range(5):
        targets = pictures(count, seed)
        conditions = [TASKS[task].degrade(one) for one in targets]
        assert Alignment.of(conditions, targets) == EXPECTED.get(task, Alignment())


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -4)])
def test_every_turn_mirroring_and_shift_is_found_and_undone(mirrored: bool, turns: int, down: int, right: int) -> None:
    made = Alignment(mirrored, turns, down, right)
    targets = pictures(6)
    conditions = []
    for one in targets:
        turned = np.rot90(one[:, ::-1] if mirrored else one, -turns)
        moved = np.full_like(turned, GREY)
        by, to = down * 4, right * 4  # eighths of 32 pixels
        moved[max(0, by) : 32 + min(0, by), max(0, to) : 32 + min(0, to)] = turned[
            max(0, -by) : 32 + min(0, -by), max(0, -to) : 32 + min(0, -to)
        ]
        conditions.append(moved)
    assert Alignment.of(conditions, targets) == made
    tokenizer = GreyTokenizer()
    for condition, target in zip(conditions, targets, strict=True):
        (words,), (wanted,) = tokenizer.encode([condition]), tokenizer.encode([target])
        back = made.undo(words)
        same = (back.ids[-1] == wanted.ids[-1]).mean()
        assert same >= (1 - abs(down) / 8) * (1 - abs(right) / 8)
        if not (down or right):
            assert back.ids[-1].tolist() == wanted.ids[-1].tolist()


def test_places_that_left_the_picture_take_the_nearest_word() -> None:
    (words,) = GreyTokenizer().encode(pictures(1))
    back = Alignment(down=4).undo(words)
    assert isinstance(back, TokenPyramid) and back.layout == words.layout
    assert back.ids[-1][2].tolist() == back.ids[-1][3].tolist() == words.ids[-1][3].tolist()
    assert back.ids[-1][0].tolist() == words.ids[-1][2].tolist()


def test_without_examples_and_without_contrast_nothing_was_done() -> None:
    assert Alignment.of([], []) == Alignment()
    flat = [np.full((32, 32, 3), 80, np.uint8)]
    assert Alignment.of(flat, flat) == Alignment()


def test_prompts_show_a_conditions_words_where_they_belong() -> None:
    for align in (True, False):
        one = fitted(align=align)
        (puzzle,) = one.puzzles(pictures(1, seed=9))
        shown = puzzle.query.condition
        assert isinstance(shown, TokenPyramid) and puzzle.target_words is not None
        assert one.alignment_ == (Alignment(turns=1) if align else Alignment())
        assert (shown.words() == puzzle.target_words.words()) is align
        assert (shown.words() == puzzle.condition.words()) is not align


def test_known_words_are_never_moved() -> None:
    assert fitted(keep_known=True).alignment_ == Alignment()
    assert fitted(protocol="paper").alignment_ == Alignment()
