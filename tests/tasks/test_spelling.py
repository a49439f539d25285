"""The same text in either spelling of its accents: the same answers, runs and files, and the spelling given back."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing_llm import drawing_llm
from grey_pictures import GreyTokenizer, pictures
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.config import Setting
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.evaluation.few_shot.scorers import Task as Row
from icl_vision.evaluation.kit.metrics import normalised_match, prefix_match, strict_match, substring_match
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks import FewShotClassifier, classify_many
from icl_vision.tasks.denoise.puzzles import number_of
from icl_vision.tasks.draw.examples import read_examples
from icl_vision.tasks.draw.generator import ImageGenerator
from icl_vision.tasks.inputs import read_classes
from icl_vision.vocabulary import Vocabulary

CAPTIONS = ["un caf\u00e9", "une \u00eele", "zoo"]


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


class Accented(GreyTokenizer):
    """Its words have accents, in one spelling or the other."""

    def __init__(self, form: Any = nfc) -> None:
        super().__init__()
        self._words = Vocabulary([form(f"gr\u00e9{letter}") for letter in "abcdefghijklmnop"], name="accents")

    @property
    def vocabulary(self) -> Vocabulary:
        return self._words


def generator(form: Any, llm: FakeLLM, words: Any = nfc, **options: Any) -> ImageGenerator:
    made = ImageGenerator(llm, Accented(words), shots=2, **options)
    return made.fit(pictures(9), [form(text) for text in CAPTIONS * 3])


LLMS = [{"score": None}, {"scores_text": False, "constraint": "grammar"}, {"scores_text": False, "constraint": None}]


def llm_of(**options: Any) -> FakeLLM:
    if options.get("score", 1) is None:
        return drawing_llm()
    return (
        FakeLLM(lambda text: " ".join(text.split()[-2:]), **options)
        if not options["constraint"]
        else FakeLLM(**options)
    )


@pytest.mark.parametrize("options", LLMS)
@pytest.mark.parametrize("more", [{}, {"temperature": 0.8, "seed": 4}])
def test_a_caption_draws_the_same_in_either_spelling(options: dict[str, Any], more: dict[str, Any]) -> None:
    sent, drawn = [], []
    for form in (nfc, nfd):
        for words in (nfc, nfd):
            llm = llm_of(**options)
            made = generator(form, llm, words, fill=True, **more)
            assert made.texts_ == [form(text) for text in CAPTIONS]
            assert {pair.condition for pair in made.pairs_} == {form(text) for text in CAPTIONS}
            found = made.generate([form(CAPTIONS[0]), nfd(CAPTIONS[1])])
            assert [one.text for one in found] == [form(CAPTIONS[0]), nfd(CAPTIONS[1])]
            assert all(word == words(word) for one in found for word in one.pyramid.words())
            drawn.append([one.pyramid.ids for one in found])
            sent.append(
                [(call.prompt, call.settings.get("continuation"), call.settings.get("seed")) for call in llm.calls]
            )
    assert all(nfc(prompt.text) == prompt.text for some in sent for prompt, *_ in some)
    assert all(some == sent[0] for some in sent[1:])
    for some in drawn[1:]:
        for one, other in zip(some, drawn[0], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_examples_of_one_text_count_together_whatever_their_spelling() -> None:
    mixed = [*CAPTIONS, *map(nfd, CAPTIONS)] * 2
    made = ImageGenerator(drawing_llm(), GreyTokenizer(), shots=2).fit(pictures(12), mixed)
    assert len(made.pairs_) == 6 and [nfc(text) for text in made.texts_] == CAPTIONS
    with pytest.raises(UsageError, match="is given twice; use n=2"):
        made.generate([CAPTIONS[0], nfd(CAPTIONS[0])])


def test_a_drawing_goes_on_in_the_other_spelling(tmp_path: Path) -> None:
    (first,) = generator(nfc, drawing_llm()).generate(CAPTIONS[0], out=tmp_path / "run")
    llm = drawing_llm()
    (again,) = generator(nfd, llm).generate(nfd(CAPTIONS[0]), out=tmp_path / "run", resume=True)
    assert llm.calls == [] and again.text == nfd(CAPTIONS[0]) and again.pyramid.words() == first.pyramid.words()


def test_a_saved_generator_keeps_the_spelling(tmp_path: Path) -> None:
    made = generator(nfd, drawing_llm())
    made.save(tmp_path / "made.json")
    back = ImageGenerator.load(tmp_path / "made.json", llm=drawing_llm(), tokenizer=Accented())
    assert back.texts_ == made.texts_ == [nfd(text) for text in CAPTIONS]
    assert back.prompt_for(nfc(CAPTIONS[0]), 3) == made.prompt_for(nfd(CAPTIONS[0]), 3)


def test_pictures_have_the_same_noise_by_either_name() -> None:
    assert number_of(nfd("caf\u00e9.png")) == number_of("caf\u00e9.png") != number_of("cafe.png")


CLASSES = ["caf\u00e9", "\u00e5l", "zoo"]


def bag(prompt: Any, continuation: str) -> float:
    return -math.log(2 + sum(map(ord, prompt.text + continuation)) % 97)


@pytest.mark.parametrize("ensemble", ["auto", "examples", None])
@pytest.mark.parametrize("scoring", ["channel", "direct"])
def test_words_of_a_tokenizer_are_asked_alike(ensemble: Any, scoring: Any) -> None:
    if ensemble == "examples" and scoring != "channel":
        return
    found = []
    for form in (nfc, nfd):
        for words in (nfc, nfd):
            llm = FakeLLM(score=bag)
            clf = FewShotClassifier(
                llm, Accented(words), 5, ensemble=ensemble, scoring=scoring, calibration="contextual"
            )
            clf.fit(pictures(6), [form(label) for label in CLASSES] * 2)
            found.append(clf.predict_proba(pictures(3, seed=1)).tolist())
            assert all(nfc(call.prompt.text) == call.prompt.text for call in llm.calls)
            shown = clf.classify(pictures(1, seed=1))[0]
            assert shown.words[0][0] == words(shown.words[0][0]) and shown.label in clf.classes_
            other = nfd if form is nfc else nfc
            truth = [other(str(label)) for label in clf.predict(pictures(3, seed=1))]
            assert clf.score(pictures(3, seed=1), truth) == 1.0
    assert all(one == found[0] for one in found[1:])


def test_a_run_of_many_images_goes_on_in_the_other_spelling(tmp_path: Path) -> None:
    shown = pictures(4, seed=2)
    for form in (nfc, nfd):
        llm = FakeLLM(score=bag)
        clf = FewShotClassifier(llm, GreyTokenizer(), 5).fit(pictures(6), [form(label) for label in CLASSES] * 2)
        asked = len(llm.calls)
        done = classify_many(clf, shown, tmp_path / "run", resume=form is nfd, progress=False)
        assert {row["label"] for row in done.rows} <= set(clf.classes_)
        assert all(list(row["probabilities"]) == clf.classes_ for row in done.rows)
    assert len(llm.calls) == asked


def test_a_saved_classifier_keeps_the_spelling(tmp_path: Path) -> None:
    clf = FewShotClassifier(FakeLLM(score=bag), GreyTokenizer(), 5).fit(pictures(6), [nfd(one) for one in CLASSES] * 2)
    clf.save(tmp_path / "clf.json")
    back = FewShotClassifier.load(tmp_path / "clf.json", llm=FakeLLM(score=bag), tokenizer=GreyTokenizer())
    assert back.classes_ == clf.classes_ == [nfd(one) for one in sorted(CLASSES)]
    assert back.classify(pictures(2)) == clf.classify(pictures(2))


def tree(root: Path, form: Any) -> Path:
    for name in ("ete\u0301", "etude", "\u00e5l", "zoo"):
        (root / form(name)).mkdir(parents=True)
        for number, stem in enumerate(("\u00e9", "f", "e")):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(root / form(name) / form(f"{stem}.png"))
    return root


def test_folders_are_read_in_one_order(tmp_path: Path) -> None:
    one, other = tree(tmp_path / "one", nfc), tree(tmp_path / "other", nfd)
    assert [nfc(label) for label in read_classes(other)[1]] == read_classes(one)[1]
    assert [nfc(path.name) for path in read_classes(other)[0]] == [path.name for path in read_classes(one)[0]]
    assert {label == nfd(label) for label in read_classes(other)[1]} == {True}
    assert [nfc(found.text) for found in read_examples(str(other))] == [found.text for found in read_examples(str(one))]
    folders = ImageFolder(one), ImageFolder(other)
    assert folders[1].labels == tuple(map(nfd, folders[0].labels))
    for number in range(6):
        drawn = [folder.sample(number, ways=3, shots=1) for folder in folders]
        assert [nfc(path) for item in (*drawn[1].support, *drawn[1].queries) for path in item] == [
            path for item in (*drawn[0].support, *drawn[0].queries) for path in item
        ]
    (one / nfd("\u00e5l")).mkdir()
    Image.new("RGB", (8, 8)).save(one / nfd("\u00e5l") / "x.png")
    with pytest.raises(UsageError, match="both stand for the label"):
        ImageFolder(one)


def test_rows_of_an_evaluation_name_labels_in_one_order_and_judge_either_spelling(tmp_path: Path) -> None:
    rows = []
    for form in (nfc, nfd):
        labels = tuple(form(label) for label in ("zoo", "\u00e9t\u00e9", "etude", "f"))
        rows.append(
            Row(Setting(4, 1, 0, True), (), labels, "", labels[0], GreyTokenizer(), 5, None)  # type: ignore[arg-type]  # a setting of None
        )
    assert rows[1].labels == tuple(map(nfd, rows[0].labels))
    for judge in (strict_match, normalised_match, prefix_match, substring_match):
        assert judge(nfd("\u00e9t\u00e9"), "\u00e9t\u00e9") and judge("\u00e9t\u00e9", nfd("\u00e9t\u00e9"))
        assert not judge("ete", "\u00e9t\u00e9")


def test_a_vocabulary_reads_its_words_in_either_spelling() -> None:
    for form in (nfc, nfd):
        own = Vocabulary([form("caf\u00e9"), "plain"])
        for word in ("caf\u00e9", nfd("caf\u00e9")):
            assert own.id(word) == 0 and word in own and own.from_text(f"plain {word}").tolist() == [1, 0]
        assert "cafe" not in own
