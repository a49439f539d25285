"""Two digits and a hidden operator: what an episode promises, and that it is kept and found again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers import (
    OPERATORS,
    Digits,
    digit_set,
    load_operator_episodes,
    operator_episodes,
    operator_questions,
    read_questions,
    save_operator_episodes,
)
from icl_vision.images import load_image
from icl_vision.tasks.answer.prompts import ANSWERING, AnswerPromptBuilder, ShownExample


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digit_set()


def test_the_packaged_digits(digits: Digits) -> None:
    assert len(digits.names) == 100 and all(digits.labels.count(str(digit)) == 10 for digit in range(10))
    assert digits.name == "packaged" and load_image(digits.png(0)).size == load_image(digits.images[0]).size


def test_what_an_episode_promises(digits: Digits) -> None:
    def pair(places: tuple[int, int]) -> tuple[int, int]:
        return int(digits.labels[places[0]]), int(digits.labels[places[1]])

    episodes = operator_episodes(digits, 150, shots=8, seed=1)
    for episode in episodes:
        rule = OPERATORS[episode.operator]
        shown, asked = [pair(places) for places in episode.examples], pair(episode.query)
        assert len(shown) == 8 and len(set(shown)) == 8 and asked not in shown
        assert all(left >= right for left, right in (*shown, asked))
        first_two = [name for name, other in OPERATORS.items() if all(other(*two) == rule(*two) for two in shown[:2])]
        assert first_two == [episode.operator]
        assert len({other(*asked) for other in OPERATORS.values()}) == 3
        places = [place for places in (*episode.examples, episode.query) for place in places]
        assert len(set(places)) == len(places) == 18
    operators = [episode.operator for episode in episodes]
    assert all(sorted(operators[start : start + 3]) == ["+", "-", "x"] for start in range(0, 150, 3))
    assert len({tuple(operators[start : start + 3]) for start in range(0, 150, 3)}) > 3


def test_a_series_is_named_by_its_seed_and_fewer_are_the_first_of_more(digits: Digits) -> None:
    long = operator_episodes(digits, 12, shots=8, seed=5)
    assert operator_episodes(digits, 6, shots=8, seed=5) == long[:6]
    assert operator_episodes(digits, 12, shots=8, seed=6) != long
    for few, many in zip(operator_episodes(digits, 12, shots=3, seed=5), long, strict=True):
        assert (few.operator, few.query, few.examples) == (many.operator, many.query, many.examples[:3])


def test_questions_of_perfect_text_of_words_and_of_pictures(digits: Digits) -> None:
    episodes = operator_episodes(digits, 3, shots=2)
    text = operator_questions(episodes, digits, digits.labels.__getitem__)
    pixels = operator_questions(episodes, digits)
    words = operator_questions(episodes, digits, lambda place: f"word{place}")
    for asked, seen, told, episode in zip(text, pixels, words, episodes, strict=True):
        assert asked.answers == seen.answers == told.answers and asked.type == episode.operator
        left, right = (int(picture.text) for picture in asked.pictures)
        assert asked.answers == (str(OPERATORS[episode.operator](left, right)),)
        assert [len(one.pictures) for one in asked.examples] == [2, 2]
        source = seen.pictures[0].source
        assert source == digits.png(episode.query[0])
        assert told.pictures[1].text == f"word{episode.query[1]}"
    assert text.digest() != pixels.digest() and {asked.question for asked in text} == {"?"}
    shown = operator_questions(episodes, digits, digits.labels.__getitem__, hidden=False)
    assert all(asked.question == asked.type == asked.examples[0].question for asked in shown)


def test_the_template_writes_a_line_for_each(digits: Digits) -> None:
    builder = AnswerPromptBuilder(ANSWERING, "answer_operator", induction=False)
    shown = [ShownExample(("3", "4"), "?", "7"), ShownExample(("5", "2"), "?", "7")]
    prompt = builder.prepare(shown).query(("6", "1"), "?")
    assert prompt.text == "3 ? 4 = 7\n5 ? 2 = 7\n6 ? 1 ="
    blind = [ShownExample((), "?", "7"), ShownExample((), "?", "8")]
    assert builder.prepare(blind).query((), "?").text == "? = 7\n? = 8\n? ="
    told = AnswerPromptBuilder(ANSWERING, "answer_operator").prepare(shown).query(("6", "1"), "+").text
    assert told.startswith("Each line is two things, an operation (+, - or x)") and told.endswith("6 + 1 =")


def test_episodes_are_kept_and_found_again(digits: Digits, tmp_path: Path) -> None:
    episodes = operator_episodes(digits, 7, shots=4)
    save_operator_episodes(tmp_path / "episodes.json", episodes, digits)
    assert load_operator_episodes(tmp_path / "episodes.json", digits) == episodes
    document = json.loads((tmp_path / "episodes.json").read_text())
    assert document["kind"] == "operator-induction" and len(document["episodes"]) == 7
    turned = Digits("turned", digits.names, digits.labels[::-1], digits.images)
    with pytest.raises(UsageError, match="was drawn from other digits .*'packaged'"):
        load_operator_episodes(tmp_path / "episodes.json", turned)
    document["episodes"][2]["examples"].pop()
    document["episodes"][2]["examples"] = document["episodes"][2]["examples"][:1]
    (tmp_path / "episodes.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="cannot be used: an operator, two examples or more"):
        load_operator_episodes(tmp_path / "episodes.json", digits)
    document["episodes"][2] = {"number": 1}
    (tmp_path / "episodes.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="cannot be used"):
        load_operator_episodes(tmp_path / "episodes.json", digits)
    for content in ("{}", "[]", "{"):
        (tmp_path / "episodes.json").write_text(content)
        with pytest.raises(UsageError, match=r"is no file of operator-induction episodes|cannot be read"):
            load_operator_episodes(tmp_path / "episodes.json", digits)


def test_digits_of_ones_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", x_test=pixels, y_test=np.arange(40) % 10)
    digits = digit_set(tmp_path / "mine.npz")
    assert digits.name == "mine.npz" and digits.labels[:11] == (*"0123456789", "0") and digits.names[3] == "x_test[3]"
    assert len(operator_episodes(digits, 3, shots=2)) == 3
    with pytest.raises(UsageError, match="an episode of 20 shots needs more pictures of each digit"):
        operator_episodes(digits, 3, shots=20)
    np.savez(tmp_path / "few.npz", x_test=pixels[:12], y_test=np.arange(12) % 10)
    with pytest.raises(UsageError, match=r"two pictures or more of each digit; there are too few of \['2', "):
        digit_set(tmp_path / "few.npz")


def test_what_cannot_be_drawn_is_refused(digits: Digits) -> None:
    with pytest.raises(UsageError, match="shots must be a whole number from 2 to 20 examples; got 1"):
        operator_episodes(digits, 3, shots=1)
    with pytest.raises(UsageError, match="n must be a whole number of 1 or more episodes; got 0"):
        operator_episodes(digits, 0)


def test_both_forms_are_read_by_name() -> None:
    text = read_questions("operator-induction-text", shots=3)
    assert (
        len(text) == 300
        and dict(text.types) == {"+": 100, "-": 100, "x": 100}
        and text.name == "operator-induction-text"
    )
    pixels = read_questions("operator-induction", shots=3)
    assert [q.answers for q in pixels] == [q.answers for q in text]
    assert pixels.questions[0].pictures[0].source is not None and text.questions[0].pictures[0].source is None
    assert read_questions("operator-induction-text", shots=3, seed=1).digest() != text.digest()
