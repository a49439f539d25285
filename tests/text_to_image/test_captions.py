"""Captions of digits: what is held out is held out."""

from __future__ import annotations

import re

import pytest

from icl_vision.errors import UsageError
from icl_vision.text_to_image import captions
from icl_vision.text_to_image.captions import (
    ALONE,
    CHECKED,
    COGNATES,
    HELD_OUT,
    TRAINED,
    UNSEEN,
    VALIDATION,
    WORDS,
    fold,
)


def test_every_language_has_ten_words_and_no_form_names_two_digits():
    forms: dict[str, int] = {}
    for language, words in WORDS.items():
        assert len(words) == 10, language
        for digit, word in enumerate(words):
            assert forms.setdefault(fold(word), digit) == digit, (language, word)


def test_training_is_several_thousand_captions_the_same_for_a_seed():
    made = captions.training_captions()
    assert len(made) >= 4000 and made == captions.training_captions()
    assert made != captions.training_captions(seed=1)
    assert {caption.language for caption in made} == set(TRAINED)
    for digit in range(10):
        assert sum(caption.digit == digit for caption in made) == len(made) / 10
    alone = {template for template, _ in ALONE}
    templates = [caption.template for caption in made if caption.template not in alone]
    assert len(set(templates)) > 0.9 * len(templates), "nearly every caption has a wording of its own"


def test_a_caption_of_another_language_has_its_english_counterpart():
    found = next(c for c in captions.training_captions() if c.language == "fr" and c.template == "{}" and c.digit == 7)
    assert (found.text, found.english) == ("sept", "seven")
    native = next(c for c in captions.training_captions() if c.template == "dessine {}" and c.digit == 8)
    assert (native.text, native.english) == ("dessine huit", "draw eight")


def test_a_word_alone_is_trained_in_the_forms_in_which_it_is_typed():
    forms = captions.alone("sept", 7, "fr")
    assert [one.text for one in forms] == ["sept", "Sept", "sept.", "Sept.", '"sept"']
    assert [one.english for one in forms] == ["seven", "Seven", "seven.", "Seven.", '"seven"']
    assert [one.text for one in captions.alone("7", 7, "en")] == ["7", "7.", '"7"']  # no text twice
    with_them = {one.text for one in captions.training_captions()}
    without = {one.text for one in captions.training_captions(bare=False)}
    assert {"sept", "seven", "7"} < without and not {"Sept.", "Seven."} & without
    for word, language in (("sept", "fr"), ("seven", "en"), ("7", "en"), ("七", "zh")):
        assert {one.text for one in captions.alone(word, 7, language)} <= with_them


def test_words_alone_are_measured_in_these_forms_from_several_seeds():
    found = captions.bare_captions("id", 3)
    assert len(found) == 10 * len(ALONE) * 3 and {one.text for one in found} >= {"tujuh", "Tujuh", "tujuh."}
    assert {one.language for one in found} == {"id"}
    with pytest.raises(UsageError, match="language must be one of 'en'"):
        captions.bare_captions("fr")


def test_measured_templates_are_trained_in_no_form():
    every = set(captions.training_templates())
    assert len(every) > 100_000 and "{}" == captions.training_templates()[0]
    assert not every & (set(UNSEEN) | set(VALIDATION)) and not set(UNSEEN) & set(VALIDATION)
    assert len(UNSEEN) >= 15


def test_no_content_word_of_a_measured_template_is_in_a_training_template():
    """What they share are the words that any two English texts share."""

    def words(templates: list[str]) -> set[str]:
        return set(re.findall(r"[a-z]+", " ".join(templates).lower()))

    shared = words([*UNSEEN, *VALIDATION]) & words(captions.training_templates())
    assert shared <= set("a as could do for here in is it me my number of on our the this with write you".split())


def test_no_held_out_word_is_trained_in_any_language():
    texts = [caption.text for caption in (*captions.training_captions(), *captions.validation_captions())]
    shown = {fold(part) for text in texts for part in re.split(r"[\s.!?,:\"']+", text)}
    for language in HELD_OUT:
        found = captions.held_out_captions(language, ["{}"])
        assert found and not {fold(caption.text) for caption in found} & shown, language
    assert [caption.text for caption in captions.held_out_captions("id", ["{}"])] == list(WORDS["id"])
    assert {caption.text for caption in captions.held_out_captions("it", ["{}"])} & {"zero", "uno"} == set()
    assert set(COGNATES) < set(HELD_OUT)


def test_weights_are_chosen_by_captions_that_are_neither_trained_on_nor_measured():
    chosen = captions.validation_captions()
    assert chosen == captions.validation_captions() and {c.language for c in chosen} == {"en", *CHECKED}
    trained = {caption.text for caption in captions.training_captions()}
    measured = {c.text for language in HELD_OUT for c in captions.held_out_captions(language)}
    measured |= {caption.text for caption in captions.plain_captions()}
    assert not {caption.text for caption in chosen if caption.language == "en"} & (trained | measured)
    assert not {caption.text for caption in chosen} & measured
    assert not set(CHECKED) & (set(TRAINED) | set(HELD_OUT))


def test_plain_sums_and_facts():
    plain = captions.plain_captions(["a {}"])
    assert [c.text for c in plain[:2]] == ["a zero", "a one"] and plain[13].text == "a 3" and plain[13].digit == 3
    assert all(0 <= caption.digit <= 9 for caption in captions.sum_captions())
    assert len(captions.sum_captions()) == 36 and len(captions.fact_captions()) == 40
    trained = {caption.text for caption in captions.training_captions()}
    assert not trained & {c.text for c in (*captions.sum_captions(), *captions.fact_captions())}


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="language must be one of .*'id'.*got 'fr'"):
        captions.held_out_captions("fr")
    with pytest.raises(UsageError, match="templates must be a whole number from 1 to"):
        captions.training_captions(1_000_000)
    with pytest.raises(UsageError, match="foreign must be"):
        captions.training_captions(4, 5)
