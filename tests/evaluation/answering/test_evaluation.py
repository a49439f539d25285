"""A run of answers or captions: what is asked, journalled, gone on with, summed up and shown."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from icl_vision.contracts import Prompt, Tokenizer
from icl_vision.errors import (
    BudgetExceededError,
    LLMUnavailableError,
    RunMismatchError,
    UsageError,
)
from icl_vision.evaluation.answering.benches import caption_bench, question_bench
from icl_vision.evaluation.answering.config import AnsweringConfig, Judge
from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation, sentence
from icl_vision.evaluation.answering.items import Bench
from icl_vision.evaluation.answering.page import answering_page
from icl_vision.evaluation.answering.readers import Picture, Question
from icl_vision.evaluation.answering.summary import render
from icl_vision.llms import Budget, Meter, connect
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache
from icl_vision.tokenizers import ImageTokenizer

sys.path.insert(0, str(Path(__file__).parent))
from sets import captions, questions

BENCH = question_bench(questions(), "test", shots=3)


def loaded(name: str) -> Tokenizer:
    """words-photo in the place of describe-photo, whose own tests are elsewhere."""
    options = {} if name == "ascii" else {"threads": 1}
    return ImageTokenizer.from_pretrained("words-photo" if name == "describe-photo" else name, **options)


def reads(prompt: str) -> str:
    """An LLM that answers with the colour in the last line of words, if there is one, and "four" to every number."""
    *_, last = re.split(r"^A: .*$", prompt, flags=re.MULTILINE)
    if "how many" in last:
        return " four\n"
    said = re.search(r"^C: .*?\b(red|green|blue|yellow|white|black|orange|purple)\b", last, flags=re.MULTILINE)
    return f" {said[1]}\n" if said else " brown\n"


def evaluation(
    llm: Any = None,
    rows: tuple[str, ...] = ("blind:greedy", "prior", "caption:greedy"),
    bench: Bench = BENCH,
    **told: Any,
) -> AnsweringEvaluation:
    config = AnsweringConfig(rows=rows, **told)
    return AnsweringEvaluation(bench, "exact", llm=llm or FakeLLM(reads), config=config, load=loaded)


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results["rows"]}


def test_rows_differ_in_the_words_alone(tmp_path: Path) -> None:
    llm = FakeLLM(reads)
    finished = evaluation(llm, ("blind:greedy", "prior", "copied", "caption:greedy", "caption-shuffled:greedy")).run(
        tmp_path
    )
    assert (finished.asked, finished.kept, finished.failed) == (50, 0, 0)
    rows = rows_of(finished.results)
    assert rows["caption:greedy"]["figure"]["accuracy"] == rows["caption-shuffled:greedy"]["figure"]["accuracy"] == 1.0
    assert rows["blind:greedy"]["by_type"]["colour"]["accuracy"] == 0.0
    assert (
        rows["blind:greedy"]["by_type"]["number"]["accuracy"] == rows["prior"]["by_type"]["number"]["accuracy"] == 1.0
    )
    assert rows["copied"]["by_type"]["number"]["accuracy"] == 1.0  # any other question about corners
    assert rows["copied"]["by_type"]["colour"]["accuracy"] == 0.0  # no other picture has its colour
    assert rows["prior"]["requests"] == 0 and rows["blind:greedy"]["requests"] == 1
    assert rows["blind:greedy"]["tokens_an_image"] == 0 and rows["caption:greedy"]["tokens_an_image"] > 3
    # Every prompt of an item has the same examples: the same questions in the same order.
    asked = [re.findall(r"^Q: (.*)$", call.prompt.text, flags=re.MULTILINE) for call in llm.calls]
    by_question: dict[str, set[tuple[str, ...]]] = {}
    for lines in asked:
        if "square" in lines[-1]:  # those about corners are all alike
            by_question.setdefault(lines[-1], set()).add(tuple(lines[:-1]))
    assert len(by_question) == 5 and all(len(shown) == 1 for shown in by_question.values())
    assert finished.results == json.loads((tmp_path / "results.json").read_text())
    items = json.loads((tmp_path / "items.json").read_text())["items"]
    assert len(items) == 10
    for item in items:
        assert not set(item["pictures"]) & {f"{example.split('/')[0]}.png" for example in item["examples"]}


def test_rows_are_compared_on_the_same_questions(tmp_path: Path) -> None:
    finished = evaluation(rows=("describe:greedy", "blind:greedy", "prior", "caption:greedy")).run(tmp_path)
    pairs = {(*pair["rows"], pair["type"]): pair for pair in finished.results["comparisons"]}
    assert {("describe:greedy", "blind:greedy", ""), ("describe:greedy", "prior", "colour"),
            ("caption:greedy", "blind:greedy", "")} <= set(pairs)  # fmt: skip
    better = pairs["caption:greedy", "blind:greedy", ""]
    assert (better["only_a"], better["only_b"], better["n"]) == (5, 0, 10) and better["p"] == 0.0625
    assert better["p_holm"] > better["p"] and better["difference"] == 0.5
    (gap,) = finished.results["gaps"]
    assert gap["rows"] == ["describe:greedy", "blind:greedy", "caption:greedy"] and gap["n"] == 10
    assert gap["share"] == pytest.approx(
        (rows_of(finished.results)["describe:greedy"]["figure"]["accuracy"] - 0.5) / 0.5
    )
    text = render(finished.results)
    assert "caption:greedy shows no difference to blind:greedy: +50.0 points" in text and "of the way from" in text


def test_fused_rows_ask_the_llm_once_for_all(tmp_path: Path) -> None:
    """They share the prompt, so the response cache answers for all but the first, as far as candidates are the same."""
    llm = FakeLLM(reads)
    cached = CachedLLM(llm, ResponseCache(tmp_path / "cache.sqlite"))
    first = evaluation(cached, ("blind:fused",), n=4).run(tmp_path / "blind")
    before = len(llm.calls)
    assert before > 4 and first.failed == 0
    evaluation(cached, ("caption:fused",), n=4).run(tmp_path / "caption")
    asked_before = {(call.kind, call.prompt.text, call.settings.get("continuation")) for call in llm.calls[:before]}
    again = [call for call in llm.calls[before:] if call.kind == "complete"]
    assert not again
    new = {(call.kind, call.prompt.text, call.settings.get("continuation")) for call in llm.calls[before:]}
    assert not new & asked_before and {prompt for _, prompt, _ in new} <= {prompt for _, prompt, _ in asked_before}


def test_one_row_may_choose_its_examples_by_pictures_too(tmp_path: Path) -> None:
    made = evaluation(rows=("describe:fused", "describe-near:fused"), n=6)
    by_question, near = made.rows
    assert by_question.words.tokenizer == near.words.tokenizer
    for item in made.items:
        shown = made.examples(near, item)
        assert len(shown) == 3 and not any(one.pictures[0].name == item.pictures[0].name for one in shown)
    # Asked about corners, all questions are alike: the words of the pictures decide.
    corners = [item for item in made.bench.asked if item.type == "number"]
    assert any(made.examples(near, item) != made.examples(by_question, item) for item in corners)
    closeness = made._closeness(near)
    item = corners[0]
    nearness = closeness.of(made.words.of(near.words, item), item.question)
    best = max(nearness[made.bench.pool.index(one)] for one in made.bench.others(item))
    assert nearness[made.bench.pool.index(made.examples(near, item)[-1])] == best
    assert made.run(tmp_path).failed == 0


def test_vision_without_an_llm_takes_the_types_prior_in_its_place(tmp_path: Path) -> None:
    finished = evaluation(rows=("vision", "prior")).run(tmp_path)
    rows = rows_of(finished.results)
    assert rows["vision"]["by_type"]["number"]["accuracy"] == 1.0 and rows["vision"]["requests"] == 0
    assert finished.results["usage"]["requests"] == 0


def test_a_prior_that_leaves_the_question_out_may_be_worse_than_a_constant(tmp_path: Path) -> None:
    """With as many of the one as of the other, leaving a question out makes the other answer the more frequent."""
    data = tuple(
        Question(str(n), (Picture(f"p{n}", text="x"),), "how many", ("two" if n % 2 else "three",), "number")
        for n in range(8)
    )
    finished = evaluation(rows=("prior", "constant"), bench=Bench("halves", data, data)).run(tmp_path)
    rows = rows_of(finished.results)
    assert rows["prior"]["figure"]["accuracy"] == 0.0 and rows["constant"]["figure"]["accuracy"] == 0.5


def test_captions_are_judged_by_those_of_others(tmp_path: Path) -> None:
    photo = loaded("words-photo")
    bench = caption_bench(captions(), "test", tokenizer=photo, shots=2)
    config = AnsweringConfig("captions", ("blind", "copied", "template", "human", "caption", "describe"))
    llm = FakeLLM(lambda prompt: " a square that is " + re.findall(r"^Q: a (\w+)", prompt, re.M)[-1] + "\n"
                  if re.findall(r"^Q: a (\w+) square", prompt, re.M) else " a thing\n")  # fmt: skip
    finished = AnsweringEvaluation(bench, "cider", llm=llm, config=config, load=loaded).run(tmp_path)
    rows = rows_of(finished.results)
    assert rows["caption:greedy"]["figure"]["mean"] > rows["human"]["figure"]["mean"] > 0
    assert rows["caption:greedy"]["bleu_4"]["mean"] > rows["blind:greedy"]["bleu_4"]["mean"]
    assert {"bleu_4", "rouge_l"} <= set(rows["copied"])
    # What stands for an example's picture is not what is shown as its caption.
    shown = [call.prompt.text for call in llm.calls if "Q: a " in call.prompt.text]
    assert shown and not any(re.search(r"Q: (.*)\nA: \1\n", text) for text in shown)
    pairs = {tuple(pair["rows"]): pair for pair in finished.results["comparisons"]}
    assert ("describe:greedy", "copied") in pairs and ("describe:greedy", "template") in pairs
    with pytest.raises(UsageError, match="two or more"):
        Judge("cider", [Question("1", (), None, ("one",))])


def test_what_vqa_accuracy_cannot_judge_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UsageError, match=r"4 people or more to each question; 'b' has 3: judge by exact"):
        Judge("vqa", [Question("a", (), "what?", ("x",) * 4), Question("b", (), "what?", ("x",) * 3)])


def test_a_sentence_around_words() -> None:
    assert sentence(["dog", "man", "ball", "beach"]) == "a dog with a man, a ball and a beach"
    assert sentence(["dog", "man", "ball"]) == "a dog with a man and a ball"
    assert sentence(["dog", "man"]) == "a dog with a man" and sentence(["dog"]) == "a dog"
    assert sentence([]) == ""


def test_an_empty_answer_is_wrong_and_is_not_asked_again(tmp_path: Path) -> None:
    finished = evaluation(FakeLLM(lambda prompt: "\n"), ("blind:greedy",)).run(tmp_path)
    row = rows_of(finished.results)["blind:greedy"]
    assert finished.failed == 0 and row["empty"] == 10 and row["figure"]["accuracy"] == 0.0
    again = FakeLLM(reads)
    assert evaluation(again, ("blind:greedy",)).run(tmp_path, resume=True).kept == 10 and not again.calls


def test_a_row_that_cannot_be_had_is_a_note(tmp_path: Path) -> None:
    small = FakeLLM(reads, context_window=60)
    finished = evaluation(small, ("blind:greedy", "ascii:greedy")).run(tmp_path)
    row = rows_of(finished.results)["ascii:greedy"]
    assert row["figure"] is None and row["note"] == "exceeds window" and row["not_asked"] == 10
    assert "exceeds window (10)" in render(finished.results)
    no_scores = evaluation(FakeLLM(reads, scores_text=False), ("blind:fused",)).run(tmp_path / "fused")
    assert "not available" in rows_of(no_scores.results)["blind:fused"]["note"]


class PowerCut(FakeLLM):
    """Answers so often, then no more."""

    def __init__(self, left: int) -> None:
        super().__init__(reads)
        self.left = left

    async def _complete(self, prompt: Prompt, **settings: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise LLMUnavailableError("the power is out")
        return await super()._complete(prompt, **settings)


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    def figures(results: dict[str, Any]) -> Any:
        return [(row["name"], row["figure"], row["by_type"]) for row in results["rows"]], results["comparisons"]

    whole = evaluation().run(tmp_path / "whole")
    cut = evaluation(PowerCut(5)).run(tmp_path / "cut")
    assert cut.failed and "the power is out" in cut.problem
    llm = FakeLLM(reads)
    again = evaluation(llm).run(tmp_path / "cut", resume=True)
    assert again.kept == cut.asked and len(llm.calls) == 20 - 5 and figures(again.results) == figures(whole.results)
    # More rows and more items, with what was there before kept.
    some = evaluation(rows=("prior",), n=4).run(tmp_path / "grown")
    grown = evaluation().run(tmp_path / "grown", resume=True)
    assert grown.kept == 4 and some.asked == 4 and figures(grown.results) == figures(whole.results)
    fewer = evaluation(rows=("prior",), n=4).run(tmp_path / "grown", resume=True)
    assert figures(fewer.results) == figures(some.results) and fewer.asked == 0


def test_another_configuration_or_other_words_are_another_run(tmp_path: Path) -> None:
    evaluation(rows=("words-photo:greedy",), n=2).run(tmp_path)
    with pytest.raises(RunMismatchError, match="seed differ"):
        evaluation(rows=("words-photo:greedy",), n=2, seed=3).run(tmp_path, resume=True)
    with pytest.raises(RunMismatchError, match="options differ"):
        evaluation(rows=("words-photo:greedy",), n=2, options={"max_tokens": 3}).run(tmp_path, resume=True)
    config = AnsweringConfig(rows=("words-photo:greedy",), n=2)
    other = AnsweringEvaluation(
        BENCH, "exact", llm=FakeLLM(reads), config=config, load=lambda name: ImageTokenizer.from_pretrained("ascii")
    )
    with pytest.raises(RunMismatchError, match="made with another tokenizer of the name 'words-photo'"):
        other.run(tmp_path, resume=True)


def test_a_budget_stops_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    meter = Meter(budget=Budget(requests=7))
    llm = connect(FakeLLM(reads), meter=meter)
    with pytest.raises(BudgetExceededError):
        evaluation(llm).run(tmp_path)
    more = FakeLLM(reads)
    assert evaluation(more).run(tmp_path, resume=True).failed == 0 and len(more.calls) == 20 - 7


def test_a_plan_asks_nothing(tmp_path: Path) -> None:
    llm = FakeLLM(reads)
    planned = evaluation(llm, ("blind:greedy", "prior", "caption:fused", "given:greedy")).plan()
    assert [(row.name, isinstance(plan, str), items) for row, plan, items in planned] == [
        ("blind:greedy", False, 10), ("caption:fused", False, 10), ("given:greedy", True, 10),
    ]  # fmt: skip
    assert not llm.calls
    blind, fused, _ = (plan for _, plan, _ in planned)
    assert not isinstance(blind, str) and blind.queries == 3 and blind.usage.requests == 3
    assert not isinstance(fused, str) and fused.usage.requests > blind.usage.requests
    evaluation(rows=("blind:greedy",), n=4).run(tmp_path)
    assert [items for _, _, items in evaluation(llm, ("blind:greedy",)).plan(out=tmp_path)] == [6]


def test_text_twins_are_asked_with_their_own_words_and_examples(tmp_path: Path) -> None:
    def pair(first: int) -> tuple[Picture, ...]:
        return Picture(f"a{first}", text=str(first)), Picture(f"b{first}", text=str(first + 1))

    examples = tuple(Question(f"e{n}", pair(n), "what is it", (str(2 * n + 1),)) for n in range(3))
    item = Question("q", (Picture("x", text="4"), Picture("y", text="5")), "what is it", ("9",), examples=examples)
    llm = FakeLLM(" 9\n")
    bench = Bench("twins", (item,), (), shots=2)
    finished = evaluation(llm, ("given:greedy", "blind:greedy", "copied", "prior"), bench).run(tmp_path)
    rows = rows_of(finished.results)
    assert rows["given:greedy"]["figure"]["accuracy"] == 1.0
    assert rows["copied"]["note"].startswith("not available: the set's own examples")
    text = llm.calls[0].prompt.text
    assert "C1: 0\nC2: 1\nQ: what is it\nA: 1\n" in text and "C1: 4\nC2: 5\n" in text and "C1: 2\n" not in text


def test_vqa_accuracy_is_a_mean_with_a_bootstrap_interval(tmp_path: Path) -> None:
    people = ("four",) * 2 + ("three",) * 8
    data = tuple(Question(str(n), (Picture(f"p{n}", text="x"),), "how many", people) for n in range(6))
    bench = Bench("people", data, data, shots=1)
    config = AnsweringConfig(rows=("given:greedy", "copied"))
    finished = AnsweringEvaluation(bench, "vqa", llm=FakeLLM(" four\n"), config=config, load=loaded).run(tmp_path)
    rows = rows_of(finished.results)
    assert rows["given:greedy"]["figure"]["mean"] == pytest.approx(0.6)
    assert rows["copied"]["figure"]["mean"] == 1.0  # what most people said of another picture


def test_the_page_has_words_examples_and_truth_and_pictures_only_where_asked(tmp_path: Path) -> None:
    made = evaluation(rows=("words-photo:greedy", "blind:greedy", "prior", "caption:greedy"), n=6)
    finished = made.run(tmp_path)
    page = answering_page(made, tmp_path, finished.results)
    assert "<img" not in page and "--pictures puts small copies" in page
    assert "what colour is the square" in page and "3 examples shown before it" in page and "caption:greedy" in page
    assert page.count("What the other rows say") == 6
    seen = answering_page(made, tmp_path, finished.results, pictures=True, shown=2)
    assert seen.count("data:image/webp") == 2 * (1 + 3)


def test_the_page_says_what_the_words_of_a_fused_answer_did(tmp_path: Path) -> None:
    made = evaluation(rows=("caption:fused",))
    finished = made.run(tmp_path / "fused")
    page = answering_page(made, tmp_path / "fused", finished.results)
    assert "weighed as answers; the LLM was shown none of them" in page and "were given to the LLM" not in page
    assert page.count('class="hue"') == 5  # the colour of each square that was asked about
    example = re.compile(r'<div class="example"><div><p class="soft">')
    assert page.count('<p class="said">') == 30 and not example.search(page)  # their words were in no prompt either
    words = evaluation(rows=("caption:fused",), options={"show_words": True})
    finished = words.run(tmp_path / "shown")
    page = answering_page(words, tmp_path / "shown", finished.results)
    assert "weighed as answers" not in page and len(example.findall(page)) == 30


def test_options_that_an_evaluation_sets_itself_are_refused() -> None:
    with pytest.raises(UsageError, match="'shots' is no option of VisualQA that an evaluation leaves open"):
        AnsweringConfig(options={"shots": 3})
    with pytest.raises(UsageError, match="'vision_weight' is no option of Captioner"):
        AnsweringConfig("captions", options={"vision_weight": 1})
    assert AnsweringConfig(options={"vision_weight": 2.0}).every_option["vision_weight"] == 2.0
    with pytest.raises(UsageError, match="n must be"):
        AnsweringConfig(n=0)
