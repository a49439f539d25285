"""ImageDenoiser on pictures of grey cells: tasks, protocols, known words, plans, budgets, resuming, bad input."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grey_pictures import LAYOUT, SIDE, GreyTokenizer, pictures

from icl_vision.contracts import Scores, Usage
from icl_vision.drawing import Pair
from icl_vision.errors import (
    AnswerRefusedError,
    ArtefactError,
    BudgetExceededError,
    CapabilityError,
    ImageNotFoundError,
    NotFittedError,
    RunMismatchError,
    StorageError,
    UsageError,
)
from icl_vision.evaluation.denoising.evaluation import ShuffledWords
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tasks.denoise.denoiser import ImageDenoiser
from icl_vision.tasks.denoise.plan import decided_by, denoising_stages
from icl_vision.tasks.denoise.puzzles import number_of
from icl_vision.tasks.denoise.tasks import GREY, TASKS, find_task


def denoiser(llm: Any = None, task: str = "outpainting", **options: Any) -> ImageDenoiser:
    options = {"context": 4, **options}
    return ImageDenoiser(FakeLLM(constraint="logit_bias") if llm is None else llm, GreyTokenizer(), task, **options)


def fitted(llm: Any = None, task: str = "outpainting", **options: Any) -> ImageDenoiser:
    return denoiser(llm, task, **options).fit(pictures(6))


QUERIES = pictures(3, seed=9)


# What a task does to a picture ----------------------------------------------------------------------------------------


def test_the_six_tasks_of_the_paper() -> None:
    assert set(TASKS) == {"outpainting", "inpainting", "deblurring", "translation", "rotation", "reconstruction"}


def test_hiding_is_grey_inside_the_unknown_region_only() -> None:
    for name in ("outpainting", "inpainting"):
        task = find_task(name)
        picture = QUERIES[0]
        made, region = task.degrade(picture), task.pixels(SIDE)
        assert (made[region] == GREY).all()
        outside = np.ones((SIDE, SIDE), bool)
        outside[region] = False
        assert np.array_equal(made[outside], picture[outside])
        assert outside.mean() == {"outpainting": 0.5, "inpainting": 0.75}[name]


def test_shift_turn_and_blur() -> None:
    picture = QUERIES[0]
    moved = find_task("translation").degrade(picture)
    assert np.array_equal(moved[8:, 8:], picture[:24, :24])
    assert (moved[:8] == GREY).all()
    assert np.array_equal(np.rot90(find_task("rotation").degrade(picture)), picture)
    blurred = find_task("deblurring").degrade(picture)
    assert abs(np.diff(blurred.astype(int), axis=0)).max() < abs(np.diff(picture.astype(int), axis=0)).max()
    assert np.array_equal(find_task("reconstruction").degrade(picture), picture)


def test_known_places_stand_for_known_pixels_only() -> None:
    # places: 0 | 1 2 / 3 4 | 5 6 7 8 / 9 10 11 12 / ...
    assert find_task("outpainting").known_places(LAYOUT) == (1, 2, *range(5, 13))
    assert find_task("inpainting").known_places(LAYOUT) == (5, 6, 7, 8, 9, 12, 13, 16, 17, 18, 19, 20)
    assert find_task("rotation").known_places(LAYOUT) == ()


# Contexts -------------------------------------------------------------------------------------------------------------


def differing(a: TokenPyramid, b: TokenPyramid) -> int:
    return sum(x != y for x, y in zip(a.words(), b.words(), strict=True))


def test_leak_free_examples_are_other_pictures_with_falling_corruption_of_the_condition() -> None:
    one = fitted(task="reconstruction", context=4)
    tokenizer = GreyTokenizer()
    assert len(one.pairs_) == 4
    whole = tokenizer.encode(pictures(6))
    assert all(pair.target in whole for pair in one.pairs_)
    counts = [differing(pair.condition, pair.target) for pair in one.pairs_]  # type: ignore[arg-type]  # a pair whose condition is words
    assert counts == [round(rate * 21) for rate in (0.5, 0.4, 0.3, 0.2)]
    assert not one.leaking


def test_the_papers_examples_are_corrupted_copies_of_the_answer_and_it_says_so() -> None:
    one = denoiser(task="inpainting", protocol="paper").fit()
    (puzzle,) = one.puzzles(QUERIES[:1])
    pairs = one.pairs_for(puzzle)
    assert puzzle.target_words is not None
    assert [differing(pair.target, puzzle.target_words) for pair in pairs] == [10, 8, 6, 4]
    assert all(pair.condition == puzzle.condition for pair in pairs)
    plan = one.plan(QUERIES)
    assert plan.facts["leaking"] and "LEAKING" in str(plan)
    alone = [one.plan([query]) for query in QUERIES]  # each picture has a context of its own
    assert plan.queries == 3 and plan.usage == sum((part.usage for part in alone), Usage())
    result = one.denoise(QUERIES[:1])[0]
    assert result.leaking and result.to_dict()["leaking"]


def test_a_query_among_the_context_is_refused_where_nothing_may_leak() -> None:
    one = fitted(context=None)
    with pytest.raises(UsageError, match="image 'b' is also a context image"):
        one.puzzles([QUERIES[0], pictures(6)[2]], ["a", "b"])


def test_the_context_is_drawn_by_the_seed_and_shuffled_words_are_a_control() -> None:
    targets = [pair.target for pair in fitted(seed=1).pairs_]
    assert targets == [pair.target for pair in fitted(seed=1).pairs_]
    assert any(targets != [pair.target for pair in fitted(seed=seed).pairs_] for seed in range(2, 6))
    control = ShuffledWords(FakeLLM(), GreyTokenizer(), "outpainting", context=4, seed=1).fit(pictures(6))
    mixed = [pair.target for pair in control.pairs_]
    assert mixed != targets
    assert [sorted(one.words(3)) for one in mixed] == [sorted(one.words(3)) for one in targets]


# Restoring ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_gives_a_picture_of_allowed_words(task: str) -> None:
    one = fitted(task=task)
    results = one.denoise(QUERIES)
    assert [result.image.size for result in results if result.image] == [(SIDE, SIDE)] * 3
    for result in results:
        assert result.pyramid is not None
        places = [{pair.target.words()[place] for pair in one.pairs_} for place in range(21)]
        own = result.puzzle.condition.words()
        layers = [own[:1], own[1:5], own[5:]]
        for place, word in enumerate(result.pyramid.words()):
            layer = layers[0 if place < 1 else 1 if place < 5 else 2]
            assert word in places[place] or word in layer
        assert result.usage.requests > 0
        assert result.to_dict()["error"] is None


def test_known_words_are_kept_by_default_where_pixels_are_known_and_nowhere_else() -> None:
    (result,) = fitted(task="outpainting").denoise(QUERIES[:1])
    assert result.pyramid is not None
    own, made = result.puzzle.condition.words(), result.pyramid.words()
    for place in (1, 2, *range(5, 13)):
        assert made[place] == own[place]
    assert result.to_dict()["kept_words"] == 10
    assert "layer 3: 8 of 16 words kept from the condition, 8 by the LLM, shown the condition" in result.decided
    assert fitted(task="rotation").puzzles(QUERIES)[0].query.known == {}
    assert fitted(task="outpainting", keep_known=False).puzzles(QUERIES)[0].query.known == {}


def test_merged_keeps_the_shown_pixels() -> None:
    (result,) = fitted(task="inpainting").denoise(QUERIES[:1])
    assert result.merged is not None and result.image is not None
    merged, region = np.asarray(result.merged), find_task("inpainting").pixels(SIDE)
    assert np.array_equal(merged[region], np.asarray(result.image)[region])
    assert np.array_equal(merged[:8], QUERIES[0][:8])


def test_deep_layers_are_refined_without_the_condition() -> None:
    llm = FakeLLM()
    (result,) = fitted(llm, layers=2).denoise(QUERIES[:1])
    texts = [call.prompt.text for call in llm.calls]
    assert any("that refine" in text and "C:" not in text for text in texts)
    assert any(line.startswith("layer 3:") and "task-agnostic" in line for line in result.decided)
    left = fitted(layers=2, refine="none").denoise(QUERIES[:1])[0]
    assert left.pyramid is not None and left.pyramid.k == 5 and left.image is not None
    assert "left out" in left.decided[2]
    told = fitted(layers=2, refine="task").denoise(QUERIES[:1])[0]
    assert told.pyramid is not None and told.pyramid.k == 21


def test_degraded_pictures_are_taken_as_they_are() -> None:
    degraded = find_task("outpainting").degrade(QUERIES[0])
    (result,) = fitted(degrade=False).denoise([degraded])
    assert result.puzzle.target is None
    assert np.array_equal(np.asarray(result.condition), degraded)


def test_the_coroutine_gives_the_same() -> None:
    one = fitted()
    assert asyncio.run(one.adenoise(QUERIES[:1]))[0].pyramid == one.denoise(QUERIES[:1])[0].pyramid


def test_nothing_in_nothing_out() -> None:
    assert fitted().denoise([]) == []


# Plans, budgets, resuming ---------------------------------------------------------------------------------------------


def test_the_plan_counts_what_is_asked() -> None:
    llm = FakeLLM()
    one = fitted(llm)
    plan = one.plan(QUERIES)
    assert not llm.calls
    results = one.denoise(QUERIES)
    assert plan.usage.requests == sum(result.usage.requests for result in results)
    assert plan.inquiries == sum(len(result.drawing.answers) for result in results)
    assert "3 pictures to restore" in str(plan) and plan.to_dict()["decided"]


def test_a_plan_over_the_budget_is_refused_before_anything_is_asked() -> None:
    llm = FakeLLM()
    one = fitted(llm, max_tokens=50)
    with pytest.raises(BudgetExceededError, match=r"outpainting needs about [\d,]+ tokens, the budget is 50"):
        one.denoise(QUERIES)
    assert not llm.calls


@pytest.mark.parametrize("protocol", ["leak-free", "paper"])
def test_a_stopped_run_goes_on_and_asks_nothing_twice(tmp_path: Path, protocol: Any) -> None:
    whole = fitted(protocol=protocol).denoise(QUERIES)
    asked = FakeLLM(constraint="logit_bias")
    stopping = PowerCut(constraint="logit_bias")
    with pytest.raises(RuntimeError, match="power cut"):
        fitted(stopping, protocol=protocol).denoise(QUERIES, out=tmp_path)
    with pytest.raises(RunMismatchError, match="already holds this run"):
        fitted(asked, protocol=protocol).denoise(QUERIES, out=tmp_path)
    results = fitted(asked, protocol=protocol).denoise(QUERIES, out=tmp_path, resume=True)
    assert [one.pyramid for one in results] == [one.pyramid for one in whole]
    assert sum(one.usage.requests for one in results) == len(asked.calls) + 5


def test_a_budget_counts_what_every_picture_used_before(tmp_path: Path) -> None:
    """With protocol "paper" each picture has examples and a folder of its own."""
    whole = fitted(protocol="paper").denoise(QUERIES, out=tmp_path)
    tokens = [one.usage.prompt_tokens + one.usage.completion_tokens for one in whole]
    kept = sorted(tmp_path.glob("words-*"))
    assert len(kept) == 3
    # The last picture's answers are lost: asking for them again passes the budget, with all that was used counted.
    last = next(one for one in kept if one.name.endswith(f"{number_of(whole[-1].puzzle.name):08x}"))
    (last / "journal.jsonl").unlink()
    tight = fitted(protocol="paper", max_tokens=sum(tokens[:2]) + tokens[2] // 2)
    with pytest.raises(BudgetExceededError):
        tight.denoise(QUERIES, out=tmp_path, resume=True)
    # Neither does a picture that is not asked for now come for nothing.
    with pytest.raises(BudgetExceededError):
        tight.denoise(QUERIES[2:], [whole[-1].puzzle.name], out=tmp_path, resume=True)
    roomy = fitted(protocol="paper", max_tokens=4 * sum(tokens))
    assert [one.pyramid for one in roomy.denoise(QUERIES, out=tmp_path, resume=True)] == [one.pyramid for one in whole]


class PowerCut(FakeLLM):
    """Answers five questions and no more."""

    async def _complete(self, prompt: Any, **settings: Any) -> Any:
        if len(self.calls) == 5:
            raise RuntimeError("power cut")
        return await super()._complete(prompt, **settings)


def test_an_answer_that_cannot_be_read_is_raised_or_returned() -> None:
    with pytest.raises(AnswerRefusedError, match="was refused"):
        fitted(FakeLLM("no idea at all")).denoise(QUERIES[:1])
    (result,) = fitted(FakeLLM("no idea at all"), errors="return").denoise(QUERIES[:1])
    assert result.image is None and result.merged is None and isinstance(result.error, AnswerRefusedError)
    assert "AnswerRefusedError" in result.to_dict()["error"]


def test_the_condition_counts_for_more_where_it_says_much_of_the_answer() -> None:
    assert fitted(task="deblurring").parts_.stages[0].decoding.guidance == 3
    assert fitted(task="rotation").parts_.stages[0].decoding.guidance == 1
    assert fitted(task="deblurring", guidance=1.5).parts_.stages[0].decoding.guidance == 1.5
    blind = FakeLLM(scores_text=False, constraint="logit_bias")
    assert fitted(blind, task="deblurring").parts_.stages[0].decoding.guidance == 1
    with pytest.raises(CapabilityError, match="guidance=2"):
        fitted(blind, guidance=2.0).denoise(QUERIES[:1])


# A large vocabulary ---------------------------------------------------------------------------------------------------


def large(task: str, llm: FakeLLM | None = None, **options: Any) -> ImageDenoiser:
    llm = llm or FakeLLM(constraint="logit_bias")
    tokenizer = GreyTokenizer(large=True)
    return ImageDenoiser(llm, tokenizer, task, **{"context": 4, **options}).fit(pictures(6))


def test_a_large_vocabulary_has_defaults_of_its_own() -> None:
    for task, allowed, refine in (("inpainting", "own", "agnostic"), ("deblurring", "shown", "task")):
        first, second = large(task, layers=2).parts_.stages
        assert (first.allowed, first.decoding.most_uses, first.decoding.guidance) == (allowed, 1, 1.0)
        assert second.condition == ("none" if refine == "agnostic" else "same")
    assert large("outpainting", keep_known=False).parts_.stages[0].allowed == "own"
    assert large("deblurring", window="all", layers=2).parts_.refine == "agnostic"
    for other in (large("deblurring", own=False), large("deblurring", protocol="paper"), fitted(task="deblurring")):
        assert other.parts_.stages[0].allowed == "place" and other.parts_.stages[0].decoding.most_uses is None
    assert large("deblurring", allowed="layer", most_uses=2).parts_.stages[0].decoding.most_uses == 2


def test_known_words_are_the_only_ones_and_each_is_used_once() -> None:
    denoiser = large("outpainting")
    (puzzle,) = denoiser.puzzles(QUERIES[:1])
    result = denoiser.denoise(QUERIES[:1])[0]
    assert result.pyramid is not None
    words = result.pyramid.words(3)
    known = puzzle.condition.words(3)[:8]
    assert words[:8] == known and set(words[8:]) <= set(known)
    # A row and the one before it are seen: no word twice among them.
    assert len(set(words[8:])) == 8


def test_a_row_has_the_words_that_its_condition_shows() -> None:
    denoiser = large("rotation")
    (puzzle,) = denoiser.puzzles(QUERIES[:1])
    result = denoiser.denoise(QUERIES[:1])[0]
    shown = puzzle.query.condition
    assert isinstance(shown, TokenPyramid) and result.pyramid is not None
    for row in range(4):
        at = slice(4 * row, 4 * row + 4)
        assert sorted(result.pyramid.words(3)[at]) == sorted(shown.words(3)[at])
    assert "the condition's is the only one allowed" in result.decided[0]


@pytest.mark.parametrize("task", ["outpainting", "deblurring", "rotation"])
@pytest.mark.parametrize("options", [{}, {"layers": 2}, {"guidance": 2.0}])
def test_a_plan_of_words_chosen_one_by_one_is_what_is_asked(task: str, options: dict[str, Any]) -> None:
    class Bags(FakeLLM):
        """Two requests for a distribution, as the embedded LLM has."""

        async def _score(self, pairs: Any, *, terminator: str) -> Scores:
            found = await super()._score(pairs, terminator=terminator)
            return replace(found, usage=replace(found.usage, requests=2))

    denoiser = large(task, Bags(scores_bags=True), **options)
    plan = denoiser.plan(QUERIES)
    asked = sum(one.usage.requests for one in denoiser.denoise(QUERIES))
    # Words that are used up are not asked about, which no plan can know.
    assert 0.6 * plan.usage.requests <= asked <= plan.usage.requests
    open_ended = large(task, Bags(scores_bags=True), **(options | {"constrain": "never", "guidance": 1.0}))
    assert open_ended.plan(QUERIES).usage.requests <= 7 * len(QUERIES)  # a request a segment


# Stages ---------------------------------------------------------------------------------------------------------------

PHOTO = PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16)))


def test_a_photographs_upper_layers_are_the_first_85_words() -> None:
    parts = denoising_stages(PHOTO)
    assert parts.layers == 4 and not parts.whole and parts.layout == PHOTO
    assert [stage.condition for stage in parts.stages] == ["same", "none"]
    assert parts.stages[1].template == "refinement"
    from icl_vision.drawing import Query

    told = decided_by(parts, Query(), 6)
    assert told[3].endswith("64 by the LLM, shown the condition") and "refinement" in told[5]


def test_a_digits_layers_are_all_decided_with_the_condition() -> None:
    parts = denoising_stages(PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4))))
    assert len(parts.stages) == 1 and not parts.whole and parts.layers == 4
    assert denoising_stages(PHOTO, layers=2, window="all").stages[0].condition == "all"


def test_a_segment_is_a_row_or_so_many_words_or_a_whole_layer() -> None:
    def strides(**settings: Any) -> list[Any]:
        return [stage.to_dict()["stride"] for stage in denoising_stages(PHOTO, **settings).stages]

    assert strides() == [[1, 2, 4, 8], [16, 16]]
    assert strides(stride=2, refine="none") == [[2, 2, 2, 2]]
    assert strides(stride=None, layers=2) == [[None, None], [4, 8, 16, 16]]
    assert strides(single_pass=True, refine="task") == [None, [16, 16]]


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sharpening"}, "task must be one of outpainting, .*; got 'sharpening'"),
        ({"protocol": "leaky"}, "protocol must be one of 'leak-free', 'paper'; got 'leaky'"),
        ({"layers": 4}, "layers must be a whole number from 1 to 3 layers that the LLM decides first"),
        ({"layers": 0}, "layers must be a whole number from 1 to 3"),
        (
            {"stride": 0},
            r"stride must be a whole number of 1 or more words, or 'rows', or None \(the whole layer\); got 0",
        ),
        ({"stride": "all"}, "stride must be a whole number of 1 or more words, or 'rows'"),
        ({"window": "far"}, "window must be one of 'near', 'all'; got 'far'"),
        ({"refine": "twice"}, "refine must be one of 'agnostic', 'task', 'none'; got 'twice'"),
        ({"constrain": "maybe"}, "constrain must be one of 'auto', 'always', 'never'; got 'maybe'"),
        ({"layers": 2, "refine": "task", "window": "all"}, "refine='task' needs window='near'"),
        ({"context": 0}, "context must be a whole number of 1 or more"),
        ({"context": 7}, "context=7 examples were asked for and 6 images given; give more, or set context=6"),
        ({"corruption": 0.5}, "corruption must be two rates"),
        ({"keep_known": "yes"}, "keep_known must be True or False or None; got 'yes'"),
        ({"allowed": "any"}, "allowed must be one of 'shown', 'own', 'place', .*; got 'any'"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of 1 or more"),
        ({"errors": "ignore"}, "errors must be one of 'raise', 'return'"),
        ({"seed": -1}, "seed must be a whole number of 0 or more; got -1"),
        ({"protocol": "paper", "degrade": False}, "protocol='paper' shows corrupted copies of the answer"),
        ({"task": "reconstruction", "degrade": False}, "task='reconstruction' adds noise to words"),
        ({"temperature": -1.0}, "temperature must be a number of 0 or more"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        denoiser(**options).fit(pictures(6))


def test_other_bad_input() -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        denoiser().denoise(QUERIES)
    with pytest.raises(UsageError, match=r"leak-free denoising needs context images; fit\(\) got none"):
        denoiser().fit()
    with pytest.raises(ImageNotFoundError, match=r"images\[1\]: .*no-such"):
        fitted().denoise([QUERIES[0], "no-such.png"])
    with pytest.raises(UsageError, match="a name of its own"):
        fitted().denoise(QUERIES, ["a", "a", "b"])
    with pytest.raises(UsageError, match="there is nothing to restore"):
        fitted().plan([])
    with pytest.raises(UsageError, match="the tokenizer 'ascii' cannot decode words into pictures"):
        ImageDenoiser(FakeLLM(), "ascii").fit(pictures(6))
    with pytest.raises(UsageError, match="tokenizer must be a name, a folder or an ImageTokenizer; got float"):
        ImageDenoiser(FakeLLM(), 3.5).fit(pictures(6))  # type: ignore[arg-type]  # wrong on purpose


def test_the_constructor_only_stores() -> None:
    one = ImageDenoiser("no-such-llm", "no-such-tokenizer", "no-such-task", context=-3)
    assert one.get_params()["task"] == "no-such-task"
    assert "no-such-llm" in repr(one)


def test_examples_are_pairs() -> None:
    assert all(isinstance(pair, Pair) for pair in fitted().pairs_)


# Keeping it -----------------------------------------------------------------------------------------------------------

SAVED: list[dict[str, Any]] = [
    {},
    {"task": "rotation", "context": None},
    {"task": "reconstruction", "window": "all", "layers": 2, "corruption": [0.4, 0.1]},
    {"task": "translation", "align": False, "refine": "task", "layers": 2, "stride": np.int64(2)},
    {"task": "inpainting", "protocol": "paper", "context": 3},
    {"task": "deblurring", "degrade": False, "keep_known": False, "guidance": 2.0},
]


@pytest.mark.parametrize("options", SAVED)
def test_saved_and_loaded_it_restores_the_same_pictures(options: dict[str, Any], tmp_path: Path) -> None:
    one = denoiser(**options).fit([] if options.get("protocol") == "paper" else pictures(6))
    one.save(tmp_path / "denoiser.json")
    again = ImageDenoiser.load(
        tmp_path / "denoiser.json", llm=FakeLLM(constraint="logit_bias"), tokenizer=GreyTokenizer()
    )
    for before, after in zip(one.denoise(QUERIES), again.denoise(QUERIES), strict=True):
        assert after.to_dict() == before.to_dict()
        assert before.image is not None and after.image is not None
        assert np.array_equal(np.asarray(before.image), np.asarray(after.image))
    assert [call.prompt for call in again.llm_.calls] == [call.prompt for call in one.llm_.calls]  # type: ignore[attr-defined]  # the fake's
    assert (again.pairs_, again.alignment_, again.parts_) == (one.pairs_, one.alignment_, one.parts_)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "denoiser.json").read_text()
    assert again.corruption == tuple(one.corruption)  # and not as JSON has it: its repr names what was changed only


def test_a_run_goes_on_with_the_loaded_one(tmp_path: Path) -> None:
    one = fitted()
    one.save(tmp_path / "denoiser.json")
    before = one.denoise(QUERIES, out=tmp_path / "run")
    again = ImageDenoiser.load(
        tmp_path / "denoiser.json", llm=FakeLLM(constraint="logit_bias"), tokenizer=GreyTokenizer()
    )
    after = again.denoise(QUERIES, out=tmp_path / "run", resume=True)
    assert [result.pyramid for result in after] == [result.pyramid for result in before]
    assert not again.llm_.calls  # type: ignore[attr-defined]  # the fake's


def test_a_loaded_one_knows_its_context_pictures_though_it_has_none(tmp_path: Path) -> None:
    one = fitted(context=None)
    one.save(tmp_path / "denoiser.json")
    assert (tmp_path / "denoiser.json").stat().st_size < 20_000
    again = ImageDenoiser.load(tmp_path / "denoiser.json", llm=FakeLLM(), tokenizer=GreyTokenizer())
    with pytest.raises(UsageError, match="image 'b' is also a context image"):
        again.puzzles([QUERIES[0], pictures(6)[2]], ["a", "b"])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda d: d.update(format="x"), StorageError, "'format' is not"),
        (lambda d: d.pop("examples"), StorageError, "'examples' is missing or is no list"),
        (lambda d: d.pop("pictures"), StorageError, "'pictures' is missing or is no list"),
        (lambda d: d.update(alignment=[]), StorageError, "'alignment' is missing or is no object"),
        (lambda d: d["alignment"].update(turns=4), StorageError, "no alignment"),
        (lambda d: d["alignment"].update(down=True), StorageError, "no alignment"),
        (lambda d: d["alignment"].update(up=1), StorageError, "TypeError"),
        (lambda d: d.update(pictures=d["pictures"][1:]), StorageError, "as many digests"),
        (lambda d: d["params"].update(task="sharpening"), StorageError, "task must be one of"),
        (lambda d: d["params"].update(seed="x"), StorageError, "seed must be a whole number"),
        (lambda d: d["params"].update(errors="hide"), StorageError, "errors must be one of"),
        (lambda d: d["params"].update(single_pass=True), StorageError, "no parameter 'single_pass'"),
        (lambda d: d["examples"][0].pop("condition"), StorageError, "KeyError: 'condition'"),
        (lambda d: d["examples"].append("word"), StorageError, "TypeError"),
        (lambda d: d["examples"][0]["words"].update(ids=[[[99]]]), StorageError, "PyramidError"),
        (lambda d: (d["examples"].clear(), d["pictures"].clear()), UsageError, "needs context images; there are none"),
        (lambda d: d["params"].update(layers=1, refine="none"), UsageError, "are not those that these options ask for"),
        (lambda d: d["tokenizer"].update(hash="0" * 64), ArtefactError, "its words would restore something else"),
    ],
)
def test_files_that_cannot_be_loaded(change: Any, kind: Any, message: str, tmp_path: Path) -> None:
    document = json.loads(json.dumps(fitted().to_document()))
    change(document)
    (tmp_path / "denoiser.json").write_text(json.dumps(document))
    with pytest.raises(kind, match=message):
        ImageDenoiser.load(tmp_path / "denoiser.json", llm=FakeLLM(), tokenizer=GreyTokenizer())
