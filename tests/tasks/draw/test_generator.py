"""Pictures from texts, with an LLM that follows its examples."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision import ImageGenerator, ImageTokenizer
from icl_vision.errors import (
    ArtefactError,
    BudgetExceededError,
    CapabilityError,
    LLMUnavailableError,
    NotFittedError,
    StorageError,
    UsageError,
)
from icl_vision.llms import Budget
from icl_vision.llms.fake import FakeLLM
from icl_vision.tokenizers.wrapping import WrappedTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawing_llm import drawing_llm, share

TEXTS = ["an image of a bar", "an image of a ring"]


def examples() -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    """Three bars and three rings, 28x28."""
    images, texts = [], []
    for shift in range(3):
        bar = np.zeros((28, 28), np.uint8)
        bar[4:24, 12 + shift : 15 + shift] = 255
        ring = np.zeros((28, 28), np.uint8)
        ring[6:22, 6 + shift : 22 + shift] = 255
        ring[9:19, 9 + shift : 19 + shift] = 0
        images += [bar, ring]
        texts += TEXTS
    return images, texts


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    return ImageTokenizer.from_pretrained("spae-digits-32", threads=1)


@pytest.fixture
def make(tokenizer: ImageTokenizer) -> Any:
    def fitted(llm: Any = None, **options: Any) -> ImageGenerator:
        return ImageGenerator(llm or drawing_llm(), tokenizer, **options).fit(*examples())

    return fitted


def test_a_text_gives_a_picture_of_its_kind(make: Any, tokenizer: ImageTokenizer) -> None:
    generator = make()
    bar, ring = generator.generate(TEXTS)
    assert bar.image.size == ring.image.size == (32, 32)
    pairs = {text: [p.target.words() for p in generator.pairs_ if p.condition == text] for text in TEXTS}
    for drawn in (bar, ring):
        own = pairs[drawn.text]
        assert all(word in {one[place] for one in own} for place, word in enumerate(drawn.pyramid.words()))
        assert drawn.changes == () and drawn.error is None and drawn.drawing.constrained
    assert bar.usage.requests > 0
    assert json.loads(json.dumps(bar.to_dict()))["words"][0] == bar.pyramid.words(1)
    assert np.array_equal(np.asarray(bar.image), np.asarray(tokenizer.decode([bar.pyramid])[0]))


def test_a_picture_depends_on_no_other_query_and_on_no_order(make: Any) -> None:
    both = make(temperature=0.7).generate(TEXTS)
    (alone,) = make(temperature=0.7).generate(TEXTS[1])
    assert alone.pyramid.words() == both[1].pyramid.words()


def test_several_pictures_of_one_text_are_sampled(make: Any) -> None:
    generator = make(temperature=2.0)
    two = generator.generate(TEXTS[0], n=3)
    assert [(one.text, one.number) for one in two] == [(TEXTS[0], 1), (TEXTS[0], 2), (TEXTS[0], 3)]
    assert len({tuple(one.pyramid.words()) for one in two}) > 1
    assert [one.pyramid.words() for one in generator.generate(TEXTS[0], n=3)] == [one.pyramid.words() for one in two]


def test_guidance_turns_away_from_what_is_frequent_anyway(make: Any, tokenizer: ImageTokenizer) -> None:
    # Seven rings, one bar: an LLM that cares little answers with ring words whatever is asked.
    images, _ = examples()
    some, texts = [images[0], *[images[1]] * 7], [TEXTS[0], *[TEXTS[1]] * 7]
    llm = drawing_llm(score=lambda prompt, continuation: share(prompt, continuation, care=0.2))
    (bar,) = tokenizer.encode([images[0]])
    equal = {}
    for weight in (1.0, 3.0):
        generator = ImageGenerator(llm, tokenizer, shots=None, guidance=weight).fit(some, texts)
        (drawn,) = generator.generate(TEXTS[0])
        equal[weight] = sum(a == b for a, b in zip(drawn.pyramid.words(), bar.words(), strict=True))
    assert equal[3.0] == 37 > equal[1.0]


@pytest.mark.parametrize("passes", ["par", "near", "pnar", "two-stage", "single"])
@pytest.mark.parametrize("stride", [1, 4, None])
def test_every_way_to_draw_gives_a_whole_picture(make: Any, passes: Any, stride: Any) -> None:
    (drawn,) = make(passes=passes, stride=stride).generate(TEXTS[0])
    assert drawn.pyramid.k == 37


def test_the_prompt_has_the_condition_before_the_arrow(make: Any) -> None:
    generator = make()
    lines = generator.prompt_for(TEXTS[0], 2).split("\n")
    assert len(lines) == 7 and lines[-1] == "an image of a bar ->"
    assert all(line.startswith("an image of a ") and len(line.split(" -> ")[1].split()) == 1 for line in lines[:-1])
    assert generator.prompt_for("an image of 1+2").endswith("\nan image of 1+2 ->")
    chatting = FakeLLM(api="chat", scores_text=False)
    assert make(chatting).prompt_for(TEXTS[0]).startswith("Learn a new language and predict the next 1 word of")
    near = make(passes="near").prompt_for(TEXTS[0], 2)
    assert near.count("\n") == 6 and not near.startswith("an image")
    with pytest.raises(UsageError, match="segments 1 to 37; got 38"):
        generator.prompt_for(TEXTS[0], 38)


def test_previews_come_after_every_segment(make: Any) -> None:
    seen = []
    make().generate(TEXTS, watch=seen.append)
    assert len(seen) == 74 and sum(one.done for one in seen) == 2
    assert all(one.image.size == (32, 32) for one in seen)
    assert [one.text for one in make().stream(TEXTS[0])] == [TEXTS[0]] * 37
    with closing(make().stream(TEXTS)) as steps:
        assert not next(iter(steps)).done


def test_coroutines_give_the_same(make: Any) -> None:
    async def both() -> tuple[Any, list[Any]]:
        return await make().agenerate(TEXTS), [one async for one in make().astream(TEXTS)]

    drawn, previews = asyncio.run(both())
    assert [one.pyramid.words() for one in drawn] == [one.pyramid.words() for one in make().generate(TEXTS)]
    assert len(previews) == 74


class PowerCut(FakeLLM):
    """Answers some requests, then no more."""

    def __init__(self, left: int, **options: Any) -> None:
        super().__init__(**options)
        self.left = left

    async def _score(self, pairs: Any, **settings: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise LLMUnavailableError("the power is out")
        return await super()._score(pairs, **settings)


def test_a_stopped_run_goes_on_in_mid_picture(make: Any, tmp_path: Path) -> None:
    whole = make().generate(TEXTS)
    with pytest.raises(LLMUnavailableError):
        make(PowerCut(20, score=share, constraint="logit_bias")).generate(TEXTS, out=tmp_path / "run")
    llm = drawing_llm()
    again = make(llm).generate(TEXTS, out=tmp_path / "run", resume=True)
    assert [one.pyramid.words() for one in again] == [one.pyramid.words() for one in whole]
    fresh = drawing_llm()
    make(fresh).generate(TEXTS)
    assert 0 < len(llm.calls) < len(fresh.calls)
    untouched = drawing_llm()
    make(untouched).generate(TEXTS, out=tmp_path / "run", resume=True)
    assert not untouched.calls


def test_the_plan_and_the_budget(make: Any) -> None:
    plan = make(guidance=1.0).plan(TEXTS)
    assert plan.usage.requests == 74 and len(plan.passes) == 37
    # With guidance two requests a distribution: two texts and none.
    bags = drawing_llm(scores_bags=True)
    assert make(bags).plan(TEXTS).usage.requests == 37 * 3 * 2
    with pytest.raises(BudgetExceededError, match="the budget is 10"):
        make(budget=Budget(requests=10)).generate(TEXTS)


def test_an_llm_without_scores_is_asked_in_the_open(make: Any) -> None:
    llm = FakeLLM(lambda text: " " + text.rpartition(" -> ")[2].split("\n")[0], scores_text=False)
    (drawn,) = make(llm).generate(TEXTS[0])
    assert drawn.pyramid.k == 37 and not drawn.drawing.constrained
    with pytest.raises(CapabilityError, match="guidance=2 chooses among the allowed words"):
        make(llm, guidance=2.0)


def test_an_unreadable_answer_is_raised_or_returned(make: Any) -> None:
    llm = FakeLLM("no such thing at all", scores_text=False)
    (drawn,) = make(llm, errors="return").generate(TEXTS[0])
    assert drawn.image is None and "was refused" in str(drawn.error)
    assert drawn.to_dict()["words"] is None


def test_words_may_be_given_in_place_of_pictures(make: Any, tokenizer: ImageTokenizer) -> None:
    images, texts = examples()
    words = tokenizer.encode(images)
    generator = ImageGenerator(drawing_llm(), tokenizer).fit(words, texts)
    assert generator.generate(TEXTS[0])[0].pyramid.words() == make().generate(TEXTS[0])[0].pyramid.words()


def test_saved_and_loaded(make: Any, tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    generator = make(shots=2, stride=2)
    file = tmp_path / "drawer.json"
    generator.save(file)
    again = ImageGenerator.load(file, llm=drawing_llm(), tokenizer=tokenizer)
    assert again.shots == 2 and again.texts_ == TEXTS
    assert again.generate(TEXTS[1])[0].pyramid.words() == generator.generate(TEXTS[1])[0].pyramid.words()
    other = WrappedTokenizer(tokenizer)
    other.name = "another"
    with pytest.raises(ArtefactError, match="is not the one that made the words"):
        ImageGenerator.load(file, llm=drawing_llm(), tokenizer=other)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda d: d["llm"].update(spec="no-such-llm"), UsageError, "the llm was saved from an object, by its name"),
        (lambda d: d.update(format="x"), StorageError, "'format' is not"),
        (lambda d: d.update(format_version=9), StorageError, "has format_version 9; this icl_vision reads 1"),
        (lambda d: d.pop("examples"), StorageError, "'examples' is missing or is no list"),
        (lambda d: d.update(examples=[]), StorageError, "no examples"),
        (lambda d: d["params"].update(shots=0), StorageError, "shots must be a whole number"),
        (lambda d: d["params"].update(speed=1), StorageError, "no parameter 'speed'"),
        (lambda d: d["llm"].pop("object"), StorageError, "'llm' holds no 'spec' or 'object'"),
        (lambda d: d["examples"][0].pop("words"), StorageError, "KeyError: 'words'"),
    ],
)
def test_files_that_cannot_be_loaded(make: Any, tmp_path: Path, change: Any, kind: Any, said: str) -> None:
    file = tmp_path / "drawer.json"
    make().save(file)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(kind, match=said):
        ImageGenerator.load(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no file"):
        ImageGenerator.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StorageError, match="not JSON"):
        ImageGenerator.load(tmp_path / "bad.json")


def test_the_constructor_only_stores() -> None:
    generator = ImageGenerator("no such llm", "no such tokenizer", shots=-1, passes="up")  # type: ignore[arg-type]  # wrong on purpose
    assert generator.get_params()["shots"] == -1
    assert repr(generator) == (
        "ImageGenerator(llm='no such llm', tokenizer='no such tokenizer', shots=-1, passes='up')"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shots": 0}, "shots must be a whole number of 1 or more, or None"),
        ({"passes": "up"}, "passes must be one of 'par', 'near', 'pnar', 'two-stage', 'single'; got 'up'"),
        ({"stride": 0}, "the stride of layer 1 must be a whole number of 1 or more words"),
        ({"upper": 4, "passes": "two-stage"}, "stage 2 decodes layers 5 to 4"),
        ({"allowed": "some"}, "allowed must be one of"),
        ({"guidance": "much"}, "guidance must be 'auto' or a number"),
        ({"guidance": -1.0}, "guidance must be a number of 0 or more"),
        ({"best_of": 2}, "best_of=2 with temperature=0"),
        ({"seed": -1}, "seed must be a whole number of 0 or more"),
        ({"tokenizer": "words-photo"}, "cannot decode words into pictures"),
        ({"tokenizer": 3}, "tokenizer must be a name, a folder"),
    ],
)
def test_arguments_that_cannot_work(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ImageGenerator(**{"llm": drawing_llm(), "shots": 2, **options}).fit(*examples())


def test_examples_and_queries_that_cannot_be_used(make: Any, tokenizer: ImageTokenizer) -> None:
    images, texts = examples()
    generator = ImageGenerator(drawing_llm())
    with pytest.raises(NotFittedError, match="fit"):
        generator.generate("a")
    with pytest.raises(UsageError, match="got 6 images and 5 texts"):
        generator.fit(images, texts[1:])
    with pytest.raises(UsageError, match=r"texts\[0\] is 3"):
        generator.fit(images, [3, *texts[1:]])  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(UsageError, match=r"may have 300 characters; texts\[0\] has 301: 'xxx"):
        generator.fit(images, ["x" * 301, *texts[1:]])
    fitted = make()
    with pytest.raises(UsageError, match="need a temperature above 0"):
        fitted.generate("a", n=2)
    with pytest.raises(UsageError, match="'a' is given twice"):
        fitted.generate(["a", "a"])
    with pytest.raises(UsageError, match="nothing to draw"):
        fitted.generate([])
    mixed = [tokenizer.encode(images[:1])[0], *images[1:]]
    with pytest.raises(UsageError, match="all pictures or all words"):
        generator.fit(mixed, texts)


def test_a_call_gives_images(make: Any) -> None:
    generator = make()
    assert isinstance(generator(TEXTS[0]), Image.Image)
    assert [type(one) for one in generator(TEXTS)] == [Image.Image, Image.Image]
