"""Scorers: what counts as right by each rule, what a row costs, and rows that an LLM cannot give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icl_vision.contracts import Prompt
from icl_vision.errors import CapabilityError, PromptTooLongError, TemplateError
from icl_vision.evaluation.few_shot import scorers
from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.scorers import CLASSIFIED, LLM_ROWS, OPEN_ENDED, Task
from icl_vision.evaluation.few_shot.settings import Setting
from icl_vision.evaluation.few_shot.shared_answers import SharedAnswers, UnaskedLLM
from icl_vision.evaluation.kit.metrics import normalised_match, strict_match
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks.classify.scoring import Question
from icl_vision.tokenizers import ImageTokenizer


@pytest.fixture(scope="module")
def ascii_art() -> ImageTokenizer:
    return ImageTokenizer.from_pretrained("ascii")


@pytest.fixture
def task(class_folder: Path, ascii_art: ImageTokenizer) -> Any:
    def make(llm: FakeLLM, **changes: Any) -> Task:
        setting = changes.pop("setting", Setting(2, 1))
        names = [f"{colour}/00{shot}.png" for shot in range(setting.shots) for colour in ("red", "blue")]
        return Task(
            setting,
            tuple(str(class_folder / name) for name in names),
            tuple(name.partition("/")[0] for name in names),
            str(class_folder / "blue/003.png"),
            "blue",
            ascii_art,
            None,
            SharedAnswers(llm),
            changes,
        )

    return make


@pytest.mark.parametrize(
    ("answer", "strict", "normalised"),
    [
        (" lion", True, True),
        ("lion", True, True),
        (" lion\n###", True, True),
        ("  lion", False, True),
        (" lion ", False, True),
        (" Lion", False, True),
        (" lion.", False, False),
        (" lioness", False, False),
        (" lion cub", False, False),
        ("\n lion", False, True),
        ("", False, False),
    ],
)
def test_exact_and_exact_after_normalisation(answer: str, strict: bool, normalised: bool) -> None:
    assert strict_match(answer, "lion") is strict
    assert normalised_match(answer, "lion") is normalised


def test_an_answer_cut_off_by_its_limit_has_not_ended() -> None:
    assert not strict_match(" lion", "lion", ended=False)
    assert strict_match(" lion\n", "lion", ended=False)


@pytest.mark.parametrize(
    ("answer", "right", "named"),
    [
        (" blue", {"exact", "exact_normalised", "prefix", "substring"}, "blue"),
        (" Blue", {"exact_normalised", "prefix", "substring"}, "blue"),
        (" blue, I think", {"prefix", "substring"}, "blue"),
        (" it is not red but blue", {"substring"}, "blue"),
        (" red", set(), "red"),
        (" green", set(), None),
    ],
)
def test_one_answer_is_judged_by_four_rules(task: Any, answer: str, right: set[str], named: str | None) -> None:
    llm = FakeLLM(answer)
    found, sent = scorers.open_ended(task(llm), OPEN_ENDED)
    assert {row for row, one in found.items() if one.right} == right
    assert all(one.label == named for one in found.values() if one.right or not right)
    assert all(one.raw == answer and one.calls == 1 and one.probabilities is None for one in found.values())
    (call,) = llm.calls
    assert call.prompt.text == sent and call.settings["stop"] == ("\n",) and call.settings["temperature"] == 0
    assert call.settings["max_tokens"] >= 16  # a short cap would cut a right answer


def test_classified_rows_give_probabilities_and_cost_what_they_say(task: Any) -> None:
    llm = FakeLLM(constraint="choice")
    one = task(llm, ensemble=None)
    found = {name: ask(one)[0][name] for name, ask in CLASSIFIED.items()}
    assert [found[name].calls for name in ("direct", "calibrated", "constrained", "likelihood")] == [2, 8, 1, 2]
    for name in ("direct", "calibrated", "likelihood"):
        assert sum(found[name].probabilities.values()) == pytest.approx(1) and found[name].raw is None
        assert found[name].label == max(found[name].probabilities, key=found[name].probabilities.get)
    assert found["constrained"].raw.strip() == found["constrained"].label
    # Asked once for all: direct 2, its content-free inputs 6, constrained 1, channel 2.
    assert one.llm.asked == len(llm.calls) == 11 and one.llm.calls == 13
    assert one.llm.usage.requests == 11


def test_the_likelihood_row_takes_every_option_and_the_others_only_the_prompts(task: Any) -> None:
    one = task(FakeLLM(), scoring="direct", calibration="contextual", order_seed=3, template="classification_palm")
    assert scorers.likelihood(one)[0]["likelihood"].calls == 8
    assert scorers.direct(one)[0]["direct"].calls == 2
    assert "This is a" in scorers.open_ended(one, ["exact"])[1]


def test_rows_that_an_llm_cannot_give_raise_what_a_note_says(task: Any) -> None:
    plain = task(FakeLLM("red", scores_text=False))
    for name in ("direct", "calibrated", "likelihood"):
        with pytest.raises(CapabilityError, match="'fake' gives no log-probabilities of given text"):
            CLASSIFIED[name](plain)
    with pytest.raises(CapabilityError, match="scoring='constrained' needs an LLM whose output can be restricted"):
        scorers.constrained(plain)
    with pytest.raises(PromptTooLongError):
        scorers.open_ended(task(FakeLLM("red", context_window=50)), ["exact"])
    with pytest.raises(TemplateError, match="noisy-channel scoring only"):
        scorers.open_ended(task(FakeLLM("red"), template="classification_channel"), ["exact"])


def test_repeats_and_induction_reach_the_prompt(task: Any) -> None:
    def sent(setting: Setting) -> str:
        return scorers.open_ended(task(FakeLLM("red"), setting=setting), ["exact"])[1]

    assert sent(Setting(2, 1)).count("Output: red") == 1
    assert sent(Setting(2, 1, 3)).count("Output: red") == 4
    assert sent(Setting(2, 3)).count("Output: red") == 3
    assert "output is one of" in sent(Setting(2, 1)) and "output is one of" not in sent(Setting(2, 1, 0, False))


def test_a_question_is_shown_with_its_shared_part_once() -> None:
    channel = [(Prompt("", "a: x", f"{label}:"), " y") for label in "ab"]
    assert scorers.as_sent(Question("channel", ("a", "b"), tuple(channel))) == "a: x\na: y\nb: y"
    direct = [(Prompt("i", "c", "q"), f" {label}") for label in "ab"]
    assert scorers.as_sent(Question("direct", ("a", "b"), tuple(direct))) == "i\nc\nq\n a\n b"
    assert scorers.as_sent(Question("parse", ("a", "b"), ((Prompt("i", "c", "q"), ""),))) == "i\nc\nq"
    apart = [(Prompt("", f"{label}: x", f"{label}:"), word) for label in "ab" for word in (" y", " z")]
    assert scorers.as_sent(Question("channel", ("a", "b"), tuple(apart))) == "a: x\na: y | z\nb: x\nb: y | z"


def test_an_llm_that_is_not_asked_counts_what_it_would_be(task: Any) -> None:
    inner = FakeLLM()
    llm = UnaskedLLM(inner)
    shared = SharedAnswers(llm)
    one = Task(**{**vars(task(inner)), "llm": shared, "options": {"ensemble": None}})
    for ask in CLASSIFIED.values():
        if ask is not scorers.constrained:
            ask(one)
    scorers.open_ended(one, ["exact"])
    assert inner.calls == [] and shared.asked == 11 == shared.usage.requests
    assert 0 < llm.fixed_tokens < shared.usage.prompt_tokens
    llm.forget()
    assert shared.usage.completion_tokens > 0


def test_rows_have_names_of_their_own_and_say_what_they_saw() -> None:
    assert not set(LLM_ROWS) & set(ROWS)
    assert {name for name, row in LLM_ROWS.items() if not row.constrained} == set(OPEN_ENDED)
    assert not any(row.transductive for row in (*LLM_ROWS.values(), *ROWS.values()))
