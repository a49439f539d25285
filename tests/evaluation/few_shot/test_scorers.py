"""Scorers: what counts as right by each rule, what a row costs, and rows that an LLM cannot give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icl_vision.asking.inquiries import Inquiry
from icl_vision.contracts import Prompt
from icl_vision.errors import CapabilityError, PromptTooLongError, TemplateError
from icl_vision.evaluation.few_shot import scorers
from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.config import Setting
from icl_vision.evaluation.few_shot.scorers import CLASSIFIED, LLM_ROWS, OPEN_ENDED, SharedAnswers, Task, UnaskedLLM
from icl_vision.evaluation.kit.metrics import normalised_match, strict_match
from icl_vision.llms.fake import FakeLLM
from icl_vision.tokenizers import ImageTokenizer


@pytest.fixture(scope="module")
def ascii_art() -> ImageTokenizer:
    return ImageTokenizer.from_pretrained("ascii")


@pytest.fixture
def task(class_folder: Path, ascii_art: ImageTokenizer) -> Any:
    def make(llm: FakeLLM, **changes: Any) -> Task:
        setting = changes.pop("setting", Setting(2, 1))
        queries = changes.pop("queries", ["blue/003.png"])
        names = [f"{colour}/00{shot}.png" for shot in range(setting.shots) for colour in ("red", "blue")]
        return Task(
            setting,
            tuple(str(class_folder / name) for name in names),
            tuple(name.partition("/")[0] for name in names),
            tuple(str(class_folder / name) for name in queries),
            tuple(name.partition("/")[0] for name in queries),
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
    judged, sent = scorers.open_ended(task(llm), OPEN_ENDED)
    results = {row: result for row, (result,) in judged.items()}
    assert {row for row, result in results.items() if result.right} == right
    assert all(result.label == named for result in results.values() if result.right or not right)
    assert all(result.raw == answer and result.calls == 1 for result in results.values())
    assert all(result.probabilities is None for result in results.values())
    (call,) = llm.calls
    assert [call.prompt.text] == sent and call.settings["stop"] == ("\n",) and call.settings["temperature"] == 0
    assert call.settings["max_tokens"] >= 16  # a short cap would cut a right answer


def test_classified_rows_give_probabilities_and_cost_what_they_say(task: Any) -> None:
    llm = FakeLLM(constraint="choice")
    asked = task(llm, ensemble=None)
    results = {name: ask(asked)[0][name][0] for name, ask in CLASSIFIED.items()}
    assert {name: result.calls for name, result in results.items()} == {
        "direct": 2, "calibrated": 8, "constrained": 1, "likelihood": 2, "parsed": 1
    }  # fmt: skip
    for name in ("direct", "calibrated", "likelihood"):
        assert sum(results[name].probabilities.values()) == pytest.approx(1) and results[name].raw is None
        assert results[name].label == max(results[name].probabilities, key=results[name].probabilities.get)
    assert results["constrained"].raw.strip() == results["constrained"].label
    # Asked once for all: direct 2, its content-free inputs 6, constrained 1, channel 2, parsed 1.
    assert asked.llm.asked == len(llm.calls) == 12 and asked.llm.calls == 14
    assert asked.llm.usage.requests == 12


def test_several_queries_of_an_episode_share_what_it_costs(task: Any) -> None:
    llm = FakeLLM(" red", constraint="choice")
    asked = task(llm, ensemble=None, queries=["blue/003.png", "red/003.png", "red/002.png"])
    for name, ask in CLASSIFIED.items():
        judged, sent = ask(asked)
        alone = [ask(task(llm, ensemble=None, queries=[f"{query}"])) for query in ("blue/003.png", "red/003.png")]
        assert [result.label for result in judged[name]][:2] == [results[name][0].label for results, _ in alone]
        assert sent[:2] == [prompt for _, (prompt,) in alone]
        assert len(sent) == len(judged[name]) == 3
    free, sent = scorers.open_ended(asked, ["prefix"])
    assert [result.right for result in free["prefix"]] == [False, True, True] and len(sent) == 3
    # The content-free inputs (6 calls) are asked once for all three: what they cost is dealt to them.
    calls = [result.calls for result in scorers.calibrated(asked)[0]["calibrated"]]
    assert calls == [4, 4, 4]


def test_the_likelihood_row_takes_every_option_and_the_others_only_the_prompts(task: Any) -> None:
    options = {"scoring": "direct", "calibration": "contextual", "order_seed": 3, "template": "classification_palm"}
    asked = task(FakeLLM(), **options)
    assert scorers.likelihood(asked)[0]["likelihood"][0].calls == 8
    assert scorers.direct(asked)[0]["direct"][0].calls == 2
    assert "This is a" in scorers.open_ended(asked, ["exact"])[1][0]


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
        return scorers.open_ended(task(FakeLLM("red"), setting=setting), ["exact"])[1][0]

    assert sent(Setting(2, 1)).count("Output: red") == 1
    assert sent(Setting(2, 1, 3)).count("Output: red") == 4
    assert sent(Setting(2, 3)).count("Output: red") == 3
    assert "output is one of" in sent(Setting(2, 1)) and "output is one of" not in sent(Setting(2, 1, 0, False))


def test_an_inquiry_is_shown_with_its_shared_part_once() -> None:
    channel = [(Prompt("", "a: x", f"{label}:"), " y") for label in "ab"]
    assert scorers.as_sent(Inquiry(tuple(channel))) == "a: x\na: y\nb: y"
    direct = [(Prompt("i", "c", "q"), f" {label}") for label in "ab"]
    assert scorers.as_sent(Inquiry(tuple(direct))) == "i\nc\nq\n a\n b"
    assert scorers.as_sent(Inquiry(((Prompt("i", "c", "q"), ""),))) == "i\nc\nq"
    apart = [(Prompt("", f"{label}: x", f"{label}:"), word) for label in "ab" for word in (" y", " z")]
    assert scorers.as_sent(Inquiry(tuple(apart), "")) == "a: x\na: y | z\nb: x\nb: y | z"


def test_an_llm_that_is_not_asked_counts_what_it_would_be(task: Any) -> None:
    inner = FakeLLM()
    llm = UnaskedLLM(inner)
    shared = SharedAnswers(llm)
    asked = Task(**{**vars(task(inner)), "llm": shared, "options": {"ensemble": None}})
    for ask in CLASSIFIED.values():
        if ask is not scorers.constrained:
            ask(asked)
    scorers.open_ended(asked, ["exact"])
    assert inner.calls == [] and shared.asked == 11 == shared.usage.requests
    assert 0 < llm.fixed_tokens < shared.usage.prompt_tokens
    llm.forget()
    assert shared.usage.completion_tokens > 0


def test_rows_have_names_of_their_own_and_say_what_they_saw() -> None:
    assert not set(LLM_ROWS) & set(ROWS)
    assert {name for name, row in LLM_ROWS.items() if not row.constrained} == set(OPEN_ENDED)
    assert not any(row.transductive for row in (*LLM_ROWS.values(), *ROWS.values()))
