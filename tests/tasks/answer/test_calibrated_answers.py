"""Which packaged map makes probabilities of answers: for whom it is taken, for what it is not, what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import SceneTokenizer, picture, prefers

from icl_vision import Described, VisualQA
from icl_vision.llms import FakeLLM, connect
from icl_vision.probabilities import ProbabilityMap, packaged
from icl_vision.probabilities.packaged import Grid, MapFolder, Situation
from icl_vision.tasks.answer import calibrating
from icl_vision.tokenizers.describe import reading

IMAGES = [picture(0), picture(1), picture(2)]
QUESTIONS = ["what animal is this?", "what animal is this?", "what is this?"]
ANSWERS = ["dog", "cat", "bus"]


class KnownLLM(FakeLLM):
    """A fake that says who it is, as the embedded LLM does, and scores many words at once."""

    identity = "local:known|completions"

    def __init__(self, **options: Any) -> None:
        options = {"scores_bags": True, **options}
        super().__init__(" dog", score=prefers({"dog": -0.2, "cat": -1.0, "bus": -3.0}), **options)


def fitted(llm: FakeLLM | None = None, **options: Any) -> VisualQA:
    return VisualQA(llm or KnownLLM(), SceneTokenizer(), progress=False, **options).fit(IMAGES, QUESTIONS, ANSWERS)


def situation(**options: Any) -> Situation | None:
    return calibrating.situation_of(fitted(**options).fitted)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the library came with a map for the way these tests ask."""
    monkeypatch.setattr(calibrating, "knows_llm", lambda identity: identity == KnownLLM.identity)
    own = situation()
    assert own is not None and (own.shots, own.ways, own.method) == (3, 1, "fused")
    grid = Grid(((own.words,), (1.0,), (3.0, 8.0)), {(own.words, 1.0, 3.0): 4.0, (own.words, 1.0, 8.0): 6.0}, 123)
    key = (own.tokenizer, own.prompt, own.method, own.ensemble, own.contextual)
    monkeypatch.setattr(packaged, "packaged_maps", lambda: (MapFolder(KnownLLM.identity, {key: grid}, {}),))


def test_without_a_map_they_stay_raw() -> None:
    task = fitted(FakeLLM(" dog", score=prefers({"dog": -0.2}), scores_bags=True))
    assert task.probability_map_ is None
    assert not task.answers(picture(0), "what animal is this?")[0].calibrated


@pytest.mark.usefixtures("known")
def test_the_packaged_map_changes_how_sure_an_answer_is_and_nothing_else() -> None:
    task = fitted()
    assert task.probability_map_ == ProbabilityMap(4.0, "packaged", 123)
    (sure,) = task.answers(picture(0), "what animal is this?")
    (raw,) = task.set_params(probabilities="raw").answers(picture(0), "what animal is this?")
    assert sure.calibrated and not raw.calibrated
    assert sure.probability is not None and raw.probability is not None and sure.probability < raw.probability
    assert replace(sure, probability=None, probabilities=None, calibrated=False) == replace(
        raw, probability=None, probabilities=None, calibrated=False
    )
    assert list(sure.probabilities or ()) == list(raw.probabilities or ()), "their order too"


@pytest.mark.usefixtures("known")
def test_between_and_beyond_the_measured_numbers_of_examples() -> None:
    found = fitted(shots=2).probability_map_
    assert found is not None and found.temperature == 4.0
    assert found.note == "2 shots taken as 3, the nearest measured"


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "options",
    [
        {"selection": "random"},
        {"prompts": 2, "shots": 1},
        {"ways": 2, "shots": 1},
        {"scoring": "greedy"},
        {"choices": ["dog", "cat"]},
        {"vision_weight": 0.5},
        {"template": "answer_pica"},
        {"induction": False},
        {"repeats": 1},
        {"show_words": True},
        {"llm": KnownLLM(scores_bags=False)},
    ],
)
def test_another_way_of_asking_has_no_map(options: dict[str, Any]) -> None:
    assert fitted(**options).probability_map_ is None


@pytest.mark.usefixtures("known")
def test_choices_of_a_call_have_none_either() -> None:
    task = fitted()
    (among,) = task.answers(picture(0), "what animal is this?", choices=["dog", "cat"])
    (open_,) = task.answers(picture(0), "what animal is this?")
    assert not among.calibrated and open_.calibrated


@pytest.mark.usefixtures("known")
def test_without_examples_there_is_none() -> None:
    assert VisualQA(KnownLLM(), SceneTokenizer(), progress=False).fit().probability_map_ is None


@pytest.mark.usefixtures("known")
def test_ones_own_map_comes_first_and_holds_for_choices_too(tmp_path: Path) -> None:
    task = fitted()
    pictures = [picture(number % 2) for number in range(60)]
    task.calibrate_probabilities(pictures, "what animal is this?", [ANSWERS[number % 2] for number in range(60)])
    own = task.probability_map_
    assert own is not None and own.source == "own" and own.n == 60
    assert task.answers(picture(0), "what animal is this?", choices=["dog", "cat"])[0].calibrated
    task.save(tmp_path / "qa.json")
    assert VisualQA.load(tmp_path / "qa.json", llm=KnownLLM(), tokenizer=SceneTokenizer()).probability_map_ == own


@pytest.mark.usefixtures("known")
def test_a_saved_task_finds_the_packaged_map_again(tmp_path: Path) -> None:
    task = fitted()
    task.save(tmp_path / "qa.json")
    again = VisualQA.load(tmp_path / "qa.json", llm=KnownLLM(), tokenizer=SceneTokenizer())
    assert again.probability_map_ == task.probability_map_
    assert again.run_config() == task.run_config() and again.run_config()["probabilities"] == "temperature 4"


@pytest.mark.parametrize("reads_text", [None, False])
def test_the_library_comes_with_a_map_for_its_default(monkeypatch: pytest.MonkeyPatch, reads_text: bool | None) -> None:
    """Should an identity, a template or a fingerprint change, the map would be lost without a word; so it would be
    where no text is read in pictures, which makes the tokenizer another one."""
    pytest.importorskip("xllamacpp")
    if reads_text is False:
        monkeypatch.setattr(reading, "can_read", lambda: False)

    class Embedded(KnownLLM):
        identity = connect("local").identity

    examples = [Described(f"a picture of number {number}") for number in range(8)]
    task = VisualQA(Embedded(), progress=False).fit(examples, "what is this?", [str(number) for number in range(8)])
    found = task.probability_map_
    assert found is not None and found.source == "packaged" and found.note == "" and found.n == 123
    assert found.temperature > 1  # the scores are too sure as they are
