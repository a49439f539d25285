"""CIDEr-D, BLEU-4 and ROUGE-L against the numbers of the reference's code, and the words they count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.metrics import Bleu, CiderD, caption_tokens, rouge_l, sentence_bleu
from icl_vision.evaluation.kit.bootstrap import mean_interval
from icl_vision.evaluation.kit.paired_means import paired_mean

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "captions.json").read_text(encoding="utf-8"))
REFERENCES = GOLDEN["references"]
ROWS = sorted(GOLDEN["rows"])


@pytest.mark.parametrize(
    ("sentence", "words"), json.loads((FOLDER / "tokens.json").read_text(encoding="utf-8"))["sentences"]
)
def test_words_are_those_of_the_java_tokenizer(sentence: str, words: list[str]) -> None:
    assert caption_tokens(sentence) == words


def test_words_of_what_is_no_caption() -> None:
    assert caption_tokens("") == caption_tokens(" ... ?! ' ") == []
    assert caption_tokens("“Curly” ‘quotes’ and it’s") == ["curly", "quotes", "and", "it", "'s"]
    assert caption_tokens("one\ntwo\tthree") == ["one", "two", "three"]


@pytest.mark.parametrize("row", ROWS)
def test_cider_d_is_the_references(row: str) -> None:
    golden = GOLDEN["rows"][row]
    scores = CiderD(REFERENCES).scores(golden["captions"])
    np.testing.assert_allclose(scores, golden["cider"], rtol=1e-9, atol=1e-12)
    assert scores.mean() == pytest.approx(golden["cider_mean"], rel=1e-9)


@pytest.mark.parametrize("row", ROWS)
def test_bleu_is_the_references(row: str) -> None:
    golden = GOLDEN["rows"][row]
    assert Bleu(golden["captions"], REFERENCES).score == pytest.approx(golden["bleu4"], rel=1e-9)


@pytest.mark.parametrize("row", ROWS)
def test_rouge_l_is_the_references(row: str) -> None:
    golden = GOLDEN["rows"][row]
    found = [rouge_l(caption, captions) for caption, captions in zip(golden["captions"], REFERENCES, strict=True)]
    np.testing.assert_allclose(found, golden["rouge"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("row", ROWS)
def test_smoothed_bleu_of_a_sentence(row: str) -> None:
    captions = GOLDEN["rows"][row]["captions"]
    found = [sentence_bleu(caption, references) for caption, references in zip(captions, REFERENCES, strict=True)]
    np.testing.assert_allclose(found, GOLDEN["sentence_bleu"]["values"][row], rtol=1e-9)


def test_document_frequencies_stay_those_of_all_references_while_pictures_are_drawn() -> None:
    captions = GOLDEN["rows"]["first"]["captions"]
    whole = CiderD(REFERENCES).scores(captions)
    half = CiderD(REFERENCES[:5]).scores(captions[:5])
    assert not np.allclose(whole[:5], half)  # a figure is about its references
    interval = mean_interval(whole)
    assert interval["mean"] == pytest.approx(whole.mean()) and interval["n"] == 10
    assert whole.min() <= interval["interval"][0] < interval["mean"] < interval["interval"][1] <= whole.max()


def test_two_rows_are_compared_in_pairs_with_the_same_frequencies() -> None:
    cider = CiderD(REFERENCES)
    first, second = (cider.scores(GOLDEN["rows"][row]["captions"]) for row in ("first", "second"))
    pair = paired_mean(first.tolist(), second.tolist(), higher_is_better=True)
    assert pair.mean == pytest.approx(first.mean() - second.mean()) and pair.n == 10


def test_bleu_has_an_interval_of_its_own() -> None:
    bleu = Bleu(GOLDEN["rows"]["first"]["captions"], REFERENCES)
    estimate = bleu.bootstrap(rounds=500)
    assert estimate["mean"] == bleu.score and estimate["n"] == 10
    assert 0 < estimate["interval"][0] < bleu.score < estimate["interval"][1] < 1
    assert estimate == bleu.bootstrap(rounds=500)
    certain = Bleu(["a dog runs on the grass"] * 3, [["a dog runs on the grass"]] * 3).bootstrap(rounds=100)
    assert certain["interval"] == pytest.approx([1.0, 1.0])


def test_empty_captions_score_nothing() -> None:
    assert CiderD([["a dog"], ["a cat"]]).scores(["", "?"]).tolist() == [0.0, 0.0]
    assert Bleu(["", ""], [["a dog"], ["a cat"]]).score == 0.0
    assert rouge_l("", ["a dog"]) == sentence_bleu("", ["a dog"]) == 0.0


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="give 2 or more; got 1"):
        CiderD([["a dog"]])
    with pytest.raises(UsageError, match="picture 2 of 2 has no reference caption"):
        CiderD([["a dog"], []])
    with pytest.raises(UsageError, match="2 pictures need as many captions; got 1"):
        CiderD([["a dog"], ["a cat"]]).scores(["a dog"])
    with pytest.raises(UsageError, match="a caption for each picture; got 1 for 2"):
        Bleu(["a dog"], [["a dog"], ["a cat"]])
    with pytest.raises(UsageError, match="picture 1 needs a list of one or more reference captions"):
        Bleu(["a dog"], ["a dog"])
    with pytest.raises(UsageError, match="a list of one or more reference captions"):
        rouge_l("a dog", "a dog")
    with pytest.raises(UsageError, match="finite numbers"):
        mean_interval([1.0, float("nan")])
