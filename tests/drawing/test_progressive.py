"""Drawing with an LLM: what each prompt holds, order and concurrency, resuming, repair, budgets, previews."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

import numpy as np
import pytest
from drawn_pictures import DIGITS, SMALL, WORDS, from_context, oracle, pairs, picture
from test_repair import ESSAY, malformed

from icl_vision.contracts import Completion, Constraint, Profile, Usage
from icl_vision.drawing import (
    Decoding,
    Near,
    Pair,
    ProgressiveDecoder,
    Query,
    Stage,
    par,
    plurality,
    pnar,
    single_pass,
    two_stage,
)
from icl_vision.drawing.drawing import Drawing
from icl_vision.errors import (
    AnswerRefusedError,
    BudgetExceededError,
    CapabilityError,
    LLMUnavailableError,
    PromptTooLongError,
    PyramidError,
    RunMismatchError,
    TemplateError,
    UnknownWordError,
    UsageError,
)
from icl_vision.files.runs import read_usage
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.cost import Budget, Price, PriceTable
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.loop import hop
from icl_vision.pyramid import TokenPyramid

THREE = Query("an image of 3")
PLANS = {
    "par": par(4),
    "pnar": pnar(3),
    "single pass": single_pass(),
    "two stages": two_stage(2, 2, 8),
    "near": (Stage(stride=2, given=Near(2)),),
    "parents": (Stage(stride=(None, 2, 16, 5), given=Near(), allowed="place"),),
}


class Slow(BaseLLM):
    """Answers from the context after a while, in whatever order it likes; counts what is in flight."""

    def __init__(self, seconds: float = 0.0, seed: int = 0, *, prefix_cache: bool = False) -> None:
        self.seconds, self.draw, self.flying, self.most, self.prefixes = seconds, random.Random(seed), 0, 0, []
        self._profile = Profile("fake", api="completions", prefix_cache=prefix_cache)

    @property
    def profile(self) -> Profile:
        return self._profile

    async def _complete(self, prompt, *, max_tokens, stop, temperature, seed, constraint) -> Completion:
        self.flying += 1
        self.most = max(self.most, self.flying)
        self.prefixes.append(prompt.prefix)
        await asyncio.sleep(self.seconds if self.seconds else self.draw.random() / 200)
        self.flying -= 1
        return Completion(from_context(prompt.text), "stop", Usage(1, 10, 0, 2))


# ---- equation 11 ----


@pytest.mark.parametrize("name", PLANS)
def test_an_oracle_draws_its_examples(name):
    examples = pairs()
    queries = [THREE, Query("an image of 0"), Query("an image of 4")]
    if name == "two stages":  # the second stage knows no task, only the layers above
        assert len({pair.target.truncate(2).words()[0] for pair in examples}) > 1
    drawings = ProgressiveDecoder(oracle(), PLANS[name]).decode_sync(examples, queries)
    assert [drawing.pyramid for drawing in drawings] == [picture(3), picture(0), picture(4)]
    assert all(drawing.changes == () and drawing.complete and drawing.error is None for drawing in drawings)


def prompts_of(stages, examples, query=THREE):
    llm = oracle()
    ProgressiveDecoder(llm, stages, concurrency=1).decode_sync(examples, [query])
    return [call.prompt for call in llm.calls]


def lines(pair: Pair, shown, answer, condition: bool = True) -> str:
    words = pair.target.words()
    made = [f"C: {pair.condition}"] if condition else []
    made += ["Q: " + " ".join(words[place] for place in shown)] if shown else []
    return "\n".join([*made, "A:" + "".join(" " + words[place] for place in answer)])


@pytest.mark.parametrize("stages", [par(4), pnar(4)], ids=["par", "pnar"])
def test_prompts_hold_exactly_what_equation_11_says(stages):
    examples = pairs(4)
    prompts = prompts_of(stages, examples)
    starts = [0, 1, *range(5, 37, 4)]
    stops = [1, *range(5, 38, 4)]
    assert len(prompts) == len(starts) == 10
    for prompt, start, stop in zip(prompts, starts, stops, strict=True):
        shown = range(start) if stages[0].given == "all" else ()
        assert prompt.context == "\n".join(lines(pair, shown, range(start, stop)) for pair in examples)
        assert prompt.query == lines(Pair("an image of 3", picture(3)), shown, ())
        words = "1 word" if stop - start == 1 else "4 words"
        assert prompt.instruction == f"Learn a new language and predict the next {words} of each answer."


def test_the_second_stage_is_task_agnostic_and_sees_the_layers_above_alone():
    examples = pairs(3)
    prompts = prompts_of(two_stage(2, 4, 16), examples, Query("an image of 2"))
    assert len(prompts) == 4
    for prompt, start in zip(prompts[2:], (5, 21), strict=True):
        assert prompt.context == "\n".join(
            lines(pair, range(5), range(start, start + 16), condition=False) for pair in examples
        )
        assert prompt.query == lines(Pair("", picture(2)), range(5), (), condition=False)
        assert "refine" in prompt.instruction


def test_conditions_that_are_pictures():
    examples = [Pair(picture(seed + 50), picture(seed)) for seed in range(3)]
    whole = prompts_of(par(4), examples, Query(picture(51)))
    assert whole[1].query.startswith("C: " + " ".join(picture(51).words()) + "\nQ: ")
    same = prompts_of((Stage(stride=4, given="none", condition="same"),), examples, Query(picture(51)))
    assert [prompt.query for prompt in same[:2]] == [
        "C: " + " ".join(picture(51).words()[start:stop]) + "\nA:" for start, stop in ((0, 1), (1, 5))
    ]
    decoder = ProgressiveDecoder(oracle(), (Stage(condition="same"),))
    with pytest.raises(UsageError, match="'an image of 0' is a text: give a TokenPyramid, or use condition='all'"):
        decoder.decode_sync(pairs(), [THREE])
    with pytest.raises(UsageError, match="the condition has 5 words, none at place 5"):
        decoder.decode_sync([Pair(picture(1).truncate(2), picture(1))], [Query(picture(2))])


def test_a_stage_may_have_examples_of_its_own():
    llm = oracle()
    others = [Pair("", picture(seed)) for seed in (3, 8)]
    decoder = ProgressiveDecoder(llm, two_stage(2, None, 16))
    (drawing,) = decoder.decode_sync(pairs(), [THREE], stage_pairs={2: others})
    assert drawing.pyramid == picture(3)
    assert llm.calls[-1].prompt.context == "\n".join(lines(pair, range(5), range(21, 37), False) for pair in others)
    with pytest.raises(UsageError, match="stage_pairs has examples for stage 3; there are stages 1 to 2"):
        decoder.decode_sync(pairs(), [THREE], stage_pairs={3: others})
    with pytest.raises(UsageError, match="the examples of stage 1 have another layout or vocabulary"):
        decoder.decode_sync(pairs(), [THREE], stage_pairs={1: pairs(2, SMALL)})


# ---- order ----


def test_queries_of_a_segment_share_its_fixed_part_byte_for_byte():
    llm = Slow(prefix_cache=True)
    queries = [Query(f"an image of {number}") for number in range(5)]
    ProgressiveDecoder(llm, par(8), concurrency=3).decode_sync(pairs(), queries)
    assert len(set(llm.prefixes)) == 6
    assert [llm.prefixes[at : at + 5] for at in range(0, 30, 5)] == [[llm.prefixes[at]] * 5 for at in range(0, 30, 5)]
    local = Slow(prefix_cache=True)
    ProgressiveDecoder(local, pnar(8), concurrency=1).decode_sync(pairs(), queries)
    assert sum(a != b for a, b in zip(local.prefixes, local.prefixes[1:], strict=False)) == 5  # each is read once


@pytest.mark.parametrize("name", ["pnar", "two stages", "parents"])
def test_neither_order_nor_concurrency_changes_what_is_drawn(name):
    queries = [Query(f"an image of {number}") for number in (4, 0, 2, 3)]
    found = []
    for seed, concurrency, cached in ((0, 1, False), (1, 7, True), (2, 16, False)):
        llm = Slow(seed=seed, prefix_cache=cached)
        decoder = ProgressiveDecoder(llm, PLANS[name], concurrency=concurrency)
        asked = queries if seed < 2 else queries[::-1]
        drawings = {one.query.condition: one for one in decoder.decode_sync(pairs(), asked)}
        found.append([drawings[query.condition].words for query in queries])
        assert llm.most <= concurrency
    assert found[0] == found[1] == found[2]


def test_seeds_depend_on_query_and_segment_alone():
    def seeds(queries, concurrency):
        llm = oracle()
        stages = pnar(4, decoding=Decoding(temperature=0.8, seed=5))
        ProgressiveDecoder(llm, stages, concurrency=concurrency).decode_sync(pairs(), queries)
        return {(c.prompt.text, c.settings["temperature"]): c.settings["seed"] for c in llm.calls}

    a, b = Query("an image of 1", name="a"), Query("an image of 2", name="b")
    both = seeds([a, b], 1)
    assert both == seeds([b, a], 8) == both | seeds([b], 3)
    assert len(set(both.values())) == len(both) == 20
    assert {temperature for _, temperature in both} == {0.8}


async def test_independent_segments_run_side_by_side():
    llm = Slow(0.03)
    await ProgressiveDecoder(llm, pnar(1), concurrency=16).decode(pairs(), [THREE])
    assert llm.most == 16
    waits = Slow(0.001)
    await ProgressiveDecoder(waits, par(1), concurrency=16).decode(pairs(), [THREE])
    assert waits.most == 1


# ---- streaming ----


async def test_every_step_can_be_looked_at():
    examples = pairs()
    decoder = ProgressiveDecoder(oracle(), par(4))
    done = []
    async for step in decoder.stream(examples, [THREE]):
        shown = step.drawing.preview(plurality([pair.target for pair in examples]))
        assert isinstance(shown, TokenPyramid) and shown.layout == DIGITS
        have = [word for word in step.drawing.words if word is not None]
        assert shown.words()[: len(have)] == have == picture(3).words()[: len(have)]
        done.append((step.segment, step.drawing.layers_done(), step.drawing.missing))
    assert done[0] == (1, 1, 36) and done[1] == (2, 2, 32) and done[-1] == (10, 4, 0)
    assert [segment for segment, _, _ in done] == list(range(1, 11))


async def test_a_missing_word_looks_like_the_one_over_it():
    async with contextlib.aclosing(ProgressiveDecoder(oracle(), par(4)).stream(pairs(), [THREE])) as steps:
        step = [await anext(steps) for _ in range(2)][-1]
    shown = step.drawing.preview()
    assert shown is not None
    assert shown.words(3)[:2] == [picture(3).words(2)[0]] * 2
    assert shown.words(4) == shown.words(3)
    with pytest.raises(PyramidError, match=r"no word at 32 of 37 places; preview\(\) fills them"):
        _ = step.drawing.pyramid
    async for step in ProgressiveDecoder(oracle(), pnar((1, 4, 16, 16))).stream(pairs(), [THREE]):
        if step.drawing.words[0] is None:
            assert step.drawing.preview() is None
            assert step.drawing.preview(plurality([picture(1)])) is not None


async def test_leaving_a_stream_ends_its_requests():
    llm = Slow(0.01)
    stream = ProgressiveDecoder(llm, pnar(1), concurrency=4).stream(pairs(), [THREE])
    async for _ in stream:
        break
    await stream.aclose()
    await hop(asyncio.sleep(0))  # the LLM lives on another thread, which has heard of it before this
    asked = len(llm.prefixes)
    await asyncio.sleep(0.05)
    assert len(llm.prefixes) == asked < 37


async def test_the_guard_sees_a_stream_that_is_left(left_generators: list[str]):
    async for _ in ProgressiveDecoder(oracle(), par(4)).stream(pairs(), [THREE]):
        break
    said = "\n".join(left_generators)
    left_generators.clear()
    assert "ProgressiveDecoder.stream was left at" in said and "close it (aclosing)" in said
    async with contextlib.aclosing(ProgressiveDecoder(oracle(), par(4)).stream(pairs(), [THREE])) as steps:
        await anext(steps)
    assert left_generators == []


# ---- run folders ----


@pytest.mark.parametrize("name", ["par", "pnar", "near"])
def test_resuming_in_mid_image(tmp_path, name):
    examples, queries = pairs(), [THREE, Query("an image of 1"), Query("an image of 2")]
    count = 0

    def dies(text: str) -> str:
        nonlocal count
        count += 1
        if count == 11:
            raise LLMUnavailableError("the line is cut")
        return from_context(text)

    decoder = ProgressiveDecoder(FakeLLM(dies), PLANS[name], concurrency=1)
    with pytest.raises(LLMUnavailableError, match="the line is cut"), decoder.open_run(tmp_path, examples) as run:
        decoder.decode_sync(examples, queries, run=run)
    llm = oracle()
    again = ProgressiveDecoder(llm, PLANS[name])
    with again.open_run(tmp_path, examples, resume=True) as run:
        assert len(run.done) == 10
        total = again.plan(examples, queries, run=run).usage.requests
        steps = []
        drawings = again.decode_sync(examples, queries, run=run, on_segment=steps.append)
    assert [drawing.pyramid for drawing in drawings] == [picture(3), picture(1), picture(2)]
    assert len(llm.calls) == total
    assert sum(step.restored for step in steps) == 10
    assert drawings[0].usage.requests == len(drawings[0].answers)
    silent = FakeLLM(dies)
    with again.open_run(tmp_path, examples, resume=True) as run:
        restored = ProgressiveDecoder(silent, PLANS[name]).decode_sync(examples, queries, run=run)
    assert silent.calls == []
    assert [drawing.words for drawing in restored] == [drawing.words for drawing in drawings]


def test_a_run_goes_on_with_the_same_alone(tmp_path):
    decoder = ProgressiveDecoder(oracle(), par(4))
    decoder.open_run(tmp_path, pairs()).close()
    for other, examples in (
        (ProgressiveDecoder(oracle(), par(5)), pairs()),
        (ProgressiveDecoder(oracle(), par(4), fill=True), pairs()),
        (ProgressiveDecoder(oracle(name="other"), par(4)), pairs()),
        (decoder, pairs()[:-1]),
    ):
        with pytest.raises(RunMismatchError, match="was started with another configuration"):
            other.open_run(tmp_path, examples, resume=True)


# ---- valid words only ----


def test_the_llm_is_restricted_to_the_words_allowed():
    examples = pairs(3, SMALL)
    targets = [pair.target.words() for pair in examples]
    held = sorted({word for words in targets for word in words}, key=WORDS.id)
    layer = sorted({word for words in targets for word in words[1:]}, key=WORDS.id)
    place = [tuple(sorted({words[at] for words in targets}, key=WORDS.id)) for at in range(1, 5)]
    wanted = {
        "context": Constraint(tuple(held), 4),
        "layer": Constraint(tuple(layer), 4),
        "place": Constraint.at_places(place),
        "vocabulary": Constraint(WORDS.words, 4),
    }
    for allowed, constraint in wanted.items():
        llm = oracle(constraint="logit_bias")
        (drawing,) = ProgressiveDecoder(llm, par(4, allowed=allowed)).decode_sync(examples, [Query("an image of 1")])
        assert drawing.constrained
        assert llm.calls[1].settings["constraint"] == constraint
        free = ProgressiveDecoder(llm, par(4, allowed=allowed), constrain="never")
        assert not free.decode_sync(examples, [Query("an image of 1")])[0].constrained
        assert llm.calls[-1].settings["constraint"] is None
        assert llm.calls[-1].settings["stop"] == ("\n",)


def test_a_restriction_that_is_refused_is_done_without():
    class Picky(FakeLLM):
        async def _complete(self, prompt, *, constraint, **settings):
            if constraint is not None and len(constraint.allowed) > 5:
                raise CapabilityError("too many words")
            return await super()._complete(prompt, constraint=constraint, **settings)

    llm = Picky(from_context, constraint="grammar")
    (drawing,) = ProgressiveDecoder(llm, par(4)).decode_sync(pairs(), [THREE])
    assert drawing.pyramid == picture(3)
    assert not drawing.constrained
    with pytest.raises(CapabilityError, match="too many words"):
        ProgressiveDecoder(llm, par(4), constrain="always").decode_sync(pairs(), [THREE])
    with pytest.raises(CapabilityError, match="constrain='always' needs an LLM whose output can be restricted"):
        ProgressiveDecoder(FakeLLM(), par(4), constrain="always")


def answered(*answers: str, examples=None, stages=None, query=THREE, **options):
    llm = FakeLLM(list(answers))
    decoder = ProgressiveDecoder(llm, stages or par(4), concurrency=1, errors="return", **options)
    (drawing,) = decoder.decode_sync(examples or pairs(5, SMALL), [query])
    return llm, drawing


def test_what_is_missing_is_asked_for_from_there():
    target = picture(3, SMALL).words()
    llm, drawing = answered(f" {target[0]}", f" {target[1]} {target[2]}", f" {target[3]} {target[4]}")
    assert drawing.pyramid == picture(3, SMALL)
    assert llm.calls[2].prompt.query == llm.calls[1].prompt.query + f" {target[1]} {target[2]}"
    assert llm.calls[2].prompt.prefix == llm.calls[1].prompt.prefix
    assert [call.settings["temperature"] for call in llm.calls] == [0.0, 0.0, 0.7]
    assert drawing.answers[2].usage.requests == 2
    assert len(drawing.answers[2].texts) == 2


def test_what_cannot_be_read_is_refused_with_a_report():
    llm, drawing = answered("zebra", "quartz", "I am sorry")
    assert isinstance(drawing.error, AnswerRefusedError)
    assert "segment 1 of '1' was refused: only 0 of 1 words are among those allowed" in str(drawing.error)
    assert drawing.answers[1].texts == ("zebra", "quartz", "I am sorry")
    assert drawing.answers[1].words is None
    assert len(llm.calls) == 3  # its later segments are not asked for
    assert drawing.to_dict()["error"].startswith("AnswerRefusedError: segment 1")
    with pytest.raises(PyramidError, match="no word at 5 of 5 places: segment 1"):
        _ = drawing.pyramid
    with pytest.raises(AnswerRefusedError, match="was refused"):
        ProgressiveDecoder(FakeLLM("zebra"), par(4)).decode_sync(pairs(), [THREE])


def test_one_picture_that_fails_costs_itself_alone(tmp_path):
    def half(text: str) -> str:
        return "zebra" if text.rstrip("A:\n").endswith("an image of 3") else from_context(text)

    decoder = ProgressiveDecoder(FakeLLM(half), par(4), errors="return")
    with decoder.open_run(tmp_path, pairs()) as run:
        good, bad = decoder.decode_sync(pairs(), [Query("an image of 1"), THREE], run=run)
        assert good.pyramid == picture(1)
        assert isinstance(bad.error, AnswerRefusedError)
    again = ProgressiveDecoder(oracle(), par(4))
    with again.open_run(tmp_path, pairs(), resume=True) as run:  # an error is asked again
        assert again.decode_sync(pairs(), [Query("an image of 1"), THREE], run=run)[1].pyramid == picture(3)


def test_filling_is_named_and_off_by_default():
    examples = pairs(5, SMALL)
    most = plurality([pair.target for pair in examples])
    target = picture(3, SMALL).words()
    _, drawing = answered(target[0], f"{target[1]} zebra", "zebra", "zebra", fill=True)
    assert drawing.words == (target[0], target[1], *most[2:])
    named = [(change.kind, change.place, change.now) for change in drawing.changes]
    assert named[-3:] == [("filled", 2, most[2]), ("filled", 3, most[3]), ("filled", 4, most[4])]


def test_an_llm_that_chats_is_asked_for_the_whole_again():
    target = picture(3, SMALL).words()
    llm = FakeLLM([target[0], f"{target[1]} zebra", " ".join(target[1:])], api="chat")
    (drawing,) = ProgressiveDecoder(llm, par(4)).decode_sync(pairs(5, SMALL), [THREE])
    assert drawing.pyramid == picture(3, SMALL)
    assert llm.calls[2].prompt == llm.calls[1].prompt
    assert llm.calls[1].settings["stop"] == ()


def test_repetition_is_asked_again_and_kept_for_want_of_better():
    examples = pairs(5, SMALL)
    words = [word for pair in examples for word in pair.target.words()]
    again, other = words[0], next(word for word in words if word != words[0])
    stages = (Stage(layers=(2, 2), stride=4, decoding=Decoding(longest_run=2)),)
    query = Query("x", known={0: other})
    llm, drawing = answered(f"{again} {again} {again} {again}", f"{other} {again}", stages=stages, query=query)
    assert drawing.words == (other, again, again, other, again)
    assert [(change.kind, change.was, change.now) for change in drawing.changes] == [("run", again, "")]
    assert llm.calls[1].prompt.query.endswith(f"A: {again} {again}")
    _, stubborn = answered(*[" ".join([again] * 4)] * 3, stages=stages, query=query)
    assert stubborn.words[1:] == (again,) * 4
    assert stubborn.changes[-1].kind == "run" and stubborn.changes[-1].now == again
    stages = (Stage(stride=(1, 1), decoding=Decoding(longest_run=2)),)  # over segments too, where they are shown
    llm, over = answered(again, again, again, other, other, again, stages=stages)
    assert over.words == (again, again, other, other, again)
    limited = FakeLLM([again, again, again, other, again, again], constraint="logit_bias")
    ProgressiveDecoder(limited, stages, constrain="always").decode_sync(examples, [Query("x")])
    third, repeated = (limited.calls[place].settings["constraint"].allowed for place in (2, 3))
    assert set(third) - set(repeated) == {again}  # asked again without it


def test_known_words_are_shown_and_never_changed():
    target = picture(3)
    llm = oracle(constraint="logit_bias")
    query = Query.refining(target, 2, "an image of 3")
    (drawing,) = ProgressiveDecoder(llm, par(4)).decode_sync(pairs(), [query])
    assert drawing.pyramid == target
    assert len(llm.calls) == 8  # nothing is asked for layers 1 and 2
    assert llm.calls[0].prompt.query == lines(Pair("an image of 3", target), range(5), ())
    holes = {place: word for place, word in enumerate(target.words()) if place % 2}
    llm = oracle(constraint="logit_bias")
    (drawing,) = ProgressiveDecoder(llm, par(4)).decode_sync(pairs(), [Query("an image of 3", known=holes)])
    assert drawing.pyramid == target
    assert llm.calls[1].prompt.query.endswith(f"A: {holes[1]}")  # what is given in front is put in front
    assert llm.calls[1].settings["constraint"].places[1] == (holes[3],)
    wrong = dict.fromkeys(range(1, 5), "moss")
    said = picture(3, SMALL).words()
    _, drawing = answered(said[0], " ".join(said[1:]), query=Query("an image of 3", known={2: "moss"}))
    assert drawing.words == (*said[:2], "moss", *said[3:])
    assert [str(change) for change in drawing.changes] == [f"word 2: known: {said[2]!r} -> 'moss'"]
    only = ProgressiveDecoder(oracle(), (Stage(layers=(1, 1)),))
    assert only.decode_sync(pairs(5, SMALL), [Query("an image of 2", known=wrong)])[0].words[1:] == ("moss",) * 4
    with pytest.raises(UsageError, match="no stage draws layer 2 and the query '1' does not give all its words"):
        only.decode_sync(pairs(5, SMALL), [Query("an image of 2")])


def test_a_thousand_malformed_answers_crash_nothing_and_hide_nothing():
    draw = random.Random(11)
    examples = pairs(5, SMALL)
    targets = {word for pair in examples for word in pair.target.words()}
    llm = FakeLLM(lambda text: malformed(draw, draw.randint(1, 6)))
    drawn = refused = 0
    while len(llm.calls) < 1000:
        decoder = ProgressiveDecoder(llm, par(4), errors="return", fill=bool(draw.randrange(2)))
        for drawing in decoder.decode_sync(examples, [Query(f"an image of {n}") for n in range(4)]):
            drawn, refused = drawn + drawing.complete, refused + (not drawing.complete)
            assert drawing.complete == (drawing.error is None)
            assert all(word is None or word in targets for word in drawing.words)
            assert drawing.to_dict()
            for answer in drawing.answers.values():
                said = " ".join(answer.texts)
                named = {change.place for change in answer.changes}
                for place, word in enumerate(answer.words or (), start=1):
                    assert word in said or place in named, (word, answer)
                assert answer.words is not None or answer.problem
    assert drawn > 20 and refused > 20


# ---- best of n ----


def test_the_best_of_several():
    examples = pairs(5, SMALL)
    target = picture(3, SMALL).words()
    stages = (Stage(layers=(2, 2), stride=4, decoding=Decoding(temperature=0.7, best_of=3)),)
    query = Query("an image of 3", known={0: target[0]})
    answers = [" ".join(target[1:][::-1]), " ".join(target[1:]), "zebra", "zebra", "zebra"]
    llm = FakeLLM(answers, score=lambda prompt, text: float(text.split() == target[1:]) - 1.0)
    (drawing,) = ProgressiveDecoder(llm, stages).decode_sync(examples, [query])
    assert drawing.pyramid == picture(3, SMALL)
    answer = drawing.answers[1]
    assert (answer.score, answer.candidates, answer.usage.requests) == (0.0, 3, 7)
    seen = []

    async def longest(candidates):
        seen.extend(candidates)
        return [len("".join(one.words)) for one in candidates]

    silent = FakeLLM(answers, scores_text=False)
    ProgressiveDecoder(silent, stages, score=longest).decode_sync(examples, [query])
    assert {one.inquiry.about.query for one in seen} == {0}
    assert seen[0].inquiry.about.words == (target[0], None, None, None, None)
    with pytest.raises(CapabilityError, match="gives no log-probabilities of given text: give a score= of your own"):
        ProgressiveDecoder(silent, stages)
    (nothing,) = ProgressiveDecoder(FakeLLM("zebra"), stages, errors="return").decode_sync(examples, [query])
    assert nothing.answers[1].usage.requests == 9


# ---- plans and budgets ----


def test_the_plan_is_what_is_asked():
    examples, queries = pairs(), [THREE, Query("an image of 1")]
    for stages in PLANS.values():
        llm = oracle()
        decoder = ProgressiveDecoder(llm, stages, prices=PriceTable({"fake": Price(1, 1)}))
        plan = decoder.plan(examples, queries)
        assert llm.calls == []
        decoder.decode_sync(examples, queries)
        assert plan.usage.requests == len(llm.calls)
        spent = sum(len(call.prompt.text.split()) for call in llm.calls)
        assert spent / 2 < plan.usage.prompt_tokens < 4 * spent
        assert plan.cost.amount == pytest.approx((plan.usage.prompt_tokens + plan.usage.completion_tokens) / 1e6)
        assert plan.seconds(100, 10) > 0
        assert plan.to_dict()["requests"] == plan.usage.requests
        assert "segments" in str(plan) and "about" in str(plan)


def test_a_prefix_cache_is_part_of_the_plan():
    llm = Slow(prefix_cache=True)
    plan = ProgressiveDecoder(llm, par(4)).plan(pairs(), [Query(f"an image of {n}") for n in range(10)])
    assert 0.75 < plan.usage.cached_tokens / plan.usage.prompt_tokens < 0.95


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(requests=9), "drawing needs about 10 requests, the budget is 9"),
        (Budget(tokens=100), r"drawing needs about [\d,]+ tokens, the budget is 100"),
        (Budget(cost=0.1), "drawing costs about unknown .*no price for 'fake' in the table"),
    ],
)
def test_a_budget_stops_before_anything_is_asked(budget, message):
    llm = oracle()
    with pytest.raises(BudgetExceededError, match=message):
        ProgressiveDecoder(llm, par(4), budget=budget).decode_sync(pairs(), [THREE])
    assert llm.calls == []


def test_a_budget_stops_in_the_middle_and_counts_what_came_before(tmp_path):
    examples = pairs(5, SMALL)
    target = picture(3, SMALL).words()
    llm = FakeLLM([target[0], "zebra", "zebra"])
    decoder = ProgressiveDecoder(llm, par(4), budget=Budget(requests=2), errors="return")
    with pytest.raises(BudgetExceededError, match="would be number 3; the budget is 2"):
        with decoder.open_run(tmp_path, examples) as run:
            decoder.decode_sync(examples, [THREE], run=run)
    again = ProgressiveDecoder(oracle(), par(4), budget=Budget(requests=1))
    with pytest.raises(BudgetExceededError, match="needs about 2 requests, the budget is 1"):
        with again.open_run(tmp_path, examples, resume=True) as run:
            again.decode_sync(examples, [THREE], run=run)


def test_what_a_refused_segment_cost_counts_when_the_run_goes_on(tmp_path):
    examples = pairs(5, SMALL)
    target = picture(3, SMALL).words()
    refused = ProgressiveDecoder(FakeLLM([target[0], *["zebra"] * 3]), par(4), errors="return")
    with refused.open_run(tmp_path, examples) as run:
        (drawing,) = refused.decode_sync(examples, [THREE], run=run)
    assert drawing.error is not None and drawing.usage.requests == 4
    assert read_usage(tmp_path) == drawing.usage
    again = ProgressiveDecoder(oracle(), par(4), budget=Budget(requests=5))
    with again.open_run(tmp_path, examples, resume=True) as run:
        again.decode_sync(examples, [THREE], run=run)
    assert again._meter.total()[0].requests == 5


def test_every_run_that_a_budget_is_for_counts_once(tmp_path):
    """Contexts one after the other, each with a folder: what each was given before counts, whatever was asked since."""
    examples = [pairs(5, SMALL), pairs(6, SMALL)]
    for place, shown in enumerate(examples):
        one = ProgressiveDecoder(oracle(), par(4))
        with one.open_run(tmp_path / str(place), shown) as run:
            one.decode_sync(shown, [THREE], run=run)
    spent = [read_usage(tmp_path / str(place)).requests for place in range(2)]
    assert spent == [2, 2]
    decoder = ProgressiveDecoder(oracle(), par(4), budget=Budget(requests=5))
    for _ in range(2):
        for place, shown in enumerate(examples):
            with decoder.open_run(tmp_path / str(place), shown, resume=True) as run:
                decoder.decode_sync(shown, [THREE], run=run)
    assert decoder._meter.total()[0].requests == 4
    with pytest.raises(BudgetExceededError, match="the budget is 5"):
        with decoder.open_run(tmp_path / "third", examples[0]) as run:
            decoder.decode_sync(examples[0], [THREE], run=run)


def test_a_prompt_beyond_the_window_is_refused_before_anything_is_asked():
    llm = oracle(context_window=200)
    with pytest.raises(PromptTooLongError, match=r"use fewer examples, a smaller window \(given=Near\(\)"):
        ProgressiveDecoder(llm, par(4)).decode_sync(pairs(), [THREE])
    assert llm.calls == []


class Odd(FakeLLM):
    """Its tokenizer has each word as a token, and the letters of words with an "m" one by one."""

    async def _count_tokens(self, text: str) -> int:
        return sum(len(word) if "m" in word else 1 for word in text.split())

    def _check_fits(self, text: str) -> int:
        return 0


def test_a_prompt_that_grows_too_long_with_the_words_drawn_is_not_sent():
    # The stand-in's words, those of the first example, are few tokens; those that are answered are many.
    cheap, dear = ("ball", "kite", "rust", "pear", "glow"), ("mossward", "mosssome", "mossish", "mosslet", "mosser")
    words = {"first": cheap, "second": dear}
    examples = [Pair(name, painted(some)) for name, some in words.items()]
    sent: list[str] = []

    def answer(text: str) -> str:
        sent.append(text)
        return " ".join(dear[number % 5] for number in range(8))

    def draw(window: int) -> list[Drawing]:
        sent.clear()
        llm = Odd(answer, context_window=window)
        return ProgressiveDecoder(llm, (Stage(stride=8, allowed="context"),)).decode_sync(examples, [Query("third")])

    count = asyncio.run
    draw(10**6)
    tokens = [count(Odd().count_tokens(text)) for text in sent]
    room = max(len(word) for word in dear) * 8
    assert tokens == sorted(tokens) and len(tokens) > 3
    stand_in = [
        count(
            Odd().count_tokens(
                ProgressiveDecoder(Odd(), (Stage(stride=8, allowed="context"),))
                .prompt(examples, Query("third"), number + 1)
                .text
            )
        )
        for number in range(len(tokens))
    ]
    assert stand_in[-1] + room < tokens[-1]  # a check with stand-ins alone would let it pass
    window = tokens[-1] - 1
    with pytest.raises(PromptTooLongError):
        draw(window)
    assert 0 < len(sent) < len(tokens) and all(count(Odd().count_tokens(text)) <= window for text in sent)
    assert len(draw(tokens[-1] + room)) == 1


def painted(words: Sequence[str]) -> TokenPyramid:
    ids = [WORDS.id(words[number % len(words)]) for number in range(DIGITS.cumulative[-1])]
    cuts = np.split(np.array(ids), DIGITS.cumulative[:-1])
    return TokenPyramid(tuple(c.reshape(g) for c, g in zip(cuts, DIGITS.grids, strict=True)), DIGITS, WORDS)


def first_answer(text: str) -> str:
    return next(line for line in text.split("\n") if line.startswith("A: ")).removeprefix("A:")


def test_of_several_queries_the_one_with_the_most_tokens_counts_not_the_longest():
    queries = [Query("a" * 60, name="long"), Query("m" * 50, name="dear")]
    decoder = ProgressiveDecoder(Odd(), par(4))
    passes = range(1, len(decoder.plan(pairs(), queries[:1]).passes) + 1)
    prompts = [decoder.prompt(pairs(), queries[0], number).text for number in passes]
    window = max(asyncio.run(Odd().count_tokens(text)) for text in prompts) + 40  # room for any answer of four words
    ProgressiveDecoder(Odd(first_answer, context_window=window), par(4)).decode_sync(pairs(), queries[:1])
    llm = Odd(first_answer, context_window=window)
    with pytest.raises(PromptTooLongError):
        ProgressiveDecoder(llm, par(4)).decode_sync(pairs(), queries)
    assert llm.calls == []


# ---- bad input ----


@pytest.mark.parametrize(
    ("examples", "queries", "error", "message"),
    [
        ([], [THREE], UsageError, "needs at least one pair"),
        ([("a", picture(1))], [THREE], UsageError, r"example 1 must be a Pair\(condition, TokenPyramid\); got tuple"),
        ([*pairs(1), *pairs(1, SMALL)], [THREE], UsageError, "example 2 has 1x1 \\+ 2x2, the first"),
        (pairs(), [], UsageError, "there is nothing to draw: give at least one Query"),
        (pairs(), ["three"], UsageError, r"query 1 must be a Query\(condition\); got str"),
        (pairs(), [Query("a", name="x"), Query("b", name="x")], UsageError, "two queries are named 'x'"),
        (pairs(), [Query("a", known={99: "moss"})], UsageError, "place 99 lies outside this pyramid"),
        (pairs(), [Query("a", known={"0": "moss"})], UsageError, "place must be a whole number; got '0'"),
        (pairs(), [Query("a", known={0: "zebra"})], UnknownWordError, "does not hold 'zebra'"),
    ],
)
def test_examples_and_queries_that_do_not_fit(examples, queries, error, message):
    with pytest.raises(error, match=message):
        ProgressiveDecoder(oracle(), par(4)).decode_sync(examples, queries)


def test_character_art_cannot_be_drawn():
    import numpy as np

    from icl_vision.pyramid import PyramidLayout

    art = TokenPyramid((np.array([[35, 46]]),), PyramidLayout.flat(2))
    with pytest.raises(UsageError, match="pictures of characters have no vocabulary"):
        ProgressiveDecoder(oracle(), par(1)).decode_sync([Pair("x", art)], [THREE])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"constrain": "maybe"}, "constrain must be one of 'auto', 'always', 'never'; got 'maybe'"),
        ({"asks": 0}, "asks must be a whole number of 1 or more requests; got 0"),
        ({"errors": "ignore"}, "errors must be one of 'raise', 'return'; got 'ignore'"),
        ({"concurrency": 0}, "concurrency must be a whole number of 1 or more requests, or None"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(UsageError, match=message):
        ProgressiveDecoder(oracle(), par(4), **options)


def test_an_llm_and_a_template_that_cannot_be_used():
    with pytest.raises(UsageError, match=r"needs an LLM object, see connect\(\); got str"):
        ProgressiveDecoder("local", par(4))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TemplateError, match="has no variable 'labels'.*a template of drawing"):
        ProgressiveDecoder(oracle(), par(4, template="classification")).decode_sync(pairs(), [THREE])


def test_an_essay_is_an_essay():
    _, drawing = answered(ESSAY, ESSAY, ESSAY)
    assert isinstance(drawing.error, AnswerRefusedError)
