"""What a fitted classifier's examples say of the words to expect is learnt once: one image then takes no request."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from icl_vision.contracts import Usage
from icl_vision.errors import LLMUnavailableError
from icl_vision.evaluation.few_shot.config import Setting
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.evaluation.few_shot.items import ItemMaker
from icl_vision.llms import Budget, Meter, MeteredLLM
from icl_vision.llms.word_tables import FILE, LEARNING, word_tables
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.likely import likely_words

sys.path.insert(0, str(Path(__file__).parents[1] / "llms"))
from fake_llama import fake_local

needs_xllamacpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the extra local (xllamacpp)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make(support, tokenizer, monkeypatch):
    """A classifier fitted with a fake llama.cpp, and that server."""

    def fitted(wrap=lambda llm: llm, **options):
        llm, server = fake_local(monkeypatch)
        return FewShotClassifier(wrap(llm), tokenizer, k=3, progress=False, **options).fit(*support), server

    return fitted


@needs_xllamacpp
def test_after_fit_an_image_takes_no_request_and_has_the_same_probabilities(make, queries):
    with word_tables("off"):
        clf, _ = make()
        asked = [clf.classify([image])[0] for image in queries[0]]
        asked = [clf.classify([image])[0] for image in queries[0]]
    clf, server = make()
    examples = len(clf.fitted.asker.shared.prompts)
    distinct = len({prompt.text for prompt in clf.fitted.asker.shared.prompts})
    assert clf.fit_usage_.requests == len(server.requests) == LEARNING * distinct <= LEARNING * examples
    learnt = [clf.classify([image])[0] for image in queries[0]]
    assert len(server.requests) == LEARNING * distinct
    for one, other in zip(asked, learnt, strict=True):
        assert one.usage.requests > 0 and other.usage == Usage()
        assert list(other.probabilities.values()) == pytest.approx(list(one.probabilities.values()), abs=1e-3)
    assert [one.label for one in clf.classify(queries[0])] == [one.label for one in learnt]
    again, server = make()
    assert again.fit_usage_ == Usage() and not server.requests


@needs_xllamacpp
def test_the_words_of_the_vocabulary_are_those_that_are_learnt(make):
    clf, _ = make()
    assert set(clf.fitted.asker.words) == set(clf.tokenizer_.vocabulary)


@needs_xllamacpp
@pytest.mark.parametrize("options", [{"ensemble": None}, {"scoring": "direct"}, {"scoring": "parse"}])
def test_without_an_ensemble_there_is_nothing_to_learn(make, cache, options):
    clf, server = make(**options)
    assert clf.fit_usage_ == Usage() and not server.requests and not (cache / FILE).exists()


@needs_xllamacpp
def test_a_loaded_classifier_learns_when_it_is_asked_again(make, queries, tmp_path, monkeypatch, cache):
    clf, _ = make()
    clf.save(tmp_path / "clf.json")
    for path in cache.glob(f"{FILE}*"):
        path.unlink()
    llm, server = fake_local(monkeypatch)
    loaded = FewShotClassifier.load(tmp_path / "clf.json", llm=llm, tokenizer=clf.tokenizer_)
    assert not server.requests
    image = queries[0][0]
    first, second, third = (loaded.classify([image])[0] for _ in range(3))
    distinct = len({prompt.text for prompt in clf.fitted.asker.shared.prompts})
    assert first.usage.requests > 0
    assert second.usage.requests == LEARNING * distinct  # what learning took is booked where it was spent
    assert third.usage == Usage()
    assert first.usage.requests + second.usage.requests == len(server.requests)


@needs_xllamacpp
def test_many_images_at_once_are_worth_learning_for(make, queries):
    with word_tables("off"):
        clf, server = make()
    images = [queries[0][0]] * 20
    results = clf.classify(images)
    distinct = len({prompt.text for prompt in clf.fitted.asker.shared.prompts})
    assert len(server.requests) == LEARNING * distinct == sum(one.usage.requests for one in results)
    assert len({tuple(one.probabilities.values()) for one in results}) == 1


@needs_xllamacpp
def test_nearest_learns_what_comes_up_again(make, queries):
    clf, server = make(selection="nearest", shots=1)
    assert not server.requests
    for _ in range(2):
        clf.classify([queries[0][0]])
    before = len(server.requests)
    assert clf.classify([queries[0][0]])[0].usage == Usage() and len(server.requests) == before


@needs_xllamacpp
def test_a_budget_that_does_not_allow_learning_is_no_error_at_fit(make):
    meter = Meter(budget=Budget(requests=2))
    clf, server = make(lambda llm: MeteredLLM(llm, meter))
    assert clf.fit_usage_ == Usage() and not server.requests


@needs_xllamacpp
def test_an_llm_that_fails_at_fit_says_so(support, tokenizer, monkeypatch):
    llm, server = fake_local(monkeypatch)
    server.failure = LLMUnavailableError("the server is gone")
    with pytest.raises(LLMUnavailableError, match="the server is gone"):
        FewShotClassifier(llm, tokenizer, k=3, progress=False).fit(*support)


@needs_xllamacpp
def test_a_plan_counts_what_is_known_as_nothing(support, tokenizer, queries, monkeypatch):
    llm, server = fake_local(monkeypatch)

    def planned(images):
        return FewShotClassifier(DryLLM(llm), tokenizer, k=3, progress=False).fit(*support).plan(images)

    unlearnt, many = planned(queries[0][:1]), planned([queries[0][0]] * 20)
    assert unlearnt.usage.requests > 0
    clf = FewShotClassifier(llm, tokenizer, k=3, progress=False)
    with word_tables("off"):
        clf.fit(*support)
    assert not server.requests
    clf.classify([queries[0][0]] * 20)
    assert many.usage.requests == len(server.requests)
    assert planned(queries[0]).usage.requests == 0


@needs_xllamacpp
def test_an_evaluation_asks_as_ever(class_folder, tokenizer, monkeypatch, cache):
    llm, _ = fake_local(monkeypatch)
    folder = ImageFolder(class_folder)
    episodes = [folder.sample(number, ways=2, shots=1, queries=1) for number in range(2)]
    maker = ItemMaker(llm, tokenizer, 3, lambda path: str(folder.path(path)), ("likelihood",), ())
    items = [item for n, episode in enumerate(episodes) for _, item in maker.items(n, episode, [Setting(2, 1)])]
    assert [item["usage"]["requests"] > 0 for item in items] == [True, True]
    assert not (cache / FILE).exists()


# ---- likely words ----


def test_words_to_expect():
    photo = ImageTokenizer.from_pretrained("words-photo")
    five, ten = (likely_words(photo, k, ["zebra zebra nonsense"]) for k in (5, 10))
    assert set(five) < set(ten) and len(five) == len(set(five))
    assert {"zebra", "nonsense"} <= set(five)  # the examples' own words, whatever they are
    assert set(five) - {"zebra", "nonsense"} <= set(photo.vocabulary)
    assert 1000 < len(five) < 2000
    assert likely_words(ImageTokenizer.from_pretrained("ascii"), None, ["@@ ##"]) == []
    digits = ImageTokenizer.from_pretrained("spae-digits-32")
    assert set(digits.vocabulary) == set(likely_words(digits, None, [])) or len(digits.vocabulary) > 2048


def test_another_encoder_of_the_same_name_has_no_list():
    vocabulary = ImageTokenizer.from_pretrained("words-photo").vocabulary
    other = SimpleNamespace(name="words-photo", vocabulary=vocabulary, card={"files": {"encoder.onnx": "0" * 64}})
    assert likely_words(other, 5, ["zebra lion"]) == ["zebra", "lion"]


def test_the_packaged_photographs_have_words_to_expect():
    import icl_vision

    photo = ImageTokenizer.from_pretrained("words-photo")
    known = set(likely_words(photo, 5, []))
    images = sorted((Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12").glob("*/*.jpg"))[::9]
    texts = [photo.to_text(one).split() for one in photo.encode(images, 5)]
    assert sum(any(word not in known for word in words) for words in texts) <= len(texts) // 20
