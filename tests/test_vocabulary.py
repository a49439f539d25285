"""Vocabulary: ids and words, strict text, files and their damage."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UnknownWordError, VocabularyError
from icl_vision.vocabulary import Vocabulary, hash_words, read_card

WORDS = ["dog", "cat", "Dog", "x-ray", "blå"]


@pytest.fixture
def vocabulary():
    return Vocabulary(WORDS, name="small")


def test_words_and_ids(vocabulary):
    assert vocabulary.words == tuple(WORDS)
    assert len(vocabulary) == 5 and list(vocabulary) == WORDS
    assert "dog" in vocabulary and "DOG" not in vocabulary and 3 not in vocabulary
    assert [vocabulary.id(word) for word in WORDS] == [0, 1, 2, 3, 4]
    assert vocabulary.word(np.int32(2)) == "Dog"
    ids = vocabulary.ids(["cat", "dog"])
    assert ids.dtype == np.int32 and ids.tolist() == [1, 0]
    assert vocabulary.ids([]).shape == (0,)


def test_frozen_hashable_and_copied(vocabulary):
    with pytest.raises(AttributeError):
        vocabulary.name = "other"
    same = Vocabulary(tuple(WORDS), name="another name")
    assert vocabulary == same and hash(vocabulary) == hash(same) and len({vocabulary, same}) == 1
    assert vocabulary != Vocabulary(WORDS[::-1]) and vocabulary != WORDS
    assert vocabulary.hash == hash_words(WORDS) and len(vocabulary.hash) == 64
    assert copy.deepcopy(vocabulary) == vocabulary
    assert pickle.loads(pickle.dumps(vocabulary)).id("cat") == 1  # noqa: S301 - worker processes receive it so
    assert "small" in repr(vocabulary) and "words=5" in repr(vocabulary)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the vocabulary 'bad' has no words"),
        ("dog cat", "sequence of words, not of one string: 'dog cat'"),
        (["dog", ""], "word 1 of the vocabulary 'bad' is empty"),
        (["dog", 7], "word 1 of the vocabulary 'bad' is not a string: 7"),
        (["dog", "cat", "dog"], r"holds 'dog' twice \(ids 0 and 2\)"),
        (["two words"], "holds whitespace: 'two words'"),
        (["tab\t"], "holds whitespace"),
        (["nbsp\u00a0"], "holds whitespace"),
        (["bell\x07"], r"control or invisible character \(U\+0007\)"),
        (["zero\u200bwidth"], r"control or invisible character \(U\+200B\)"),
        (["\ud800"], r"control or invisible character \(U\+D800\)"),
        (["a" * 129], "longer than 128 characters"),
    ],
)
def test_bad_words_are_refused(words, message):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(words, name="bad")


@pytest.mark.parametrize("bad", [-1, 5, 10**9])
def test_unknown_id(vocabulary, bad):
    with pytest.raises(UnknownWordError, match=f"no word has id {bad}: the vocabulary 'small' has ids 0 to 4"):
        vocabulary.word(bad)


def test_id_that_is_no_integer(vocabulary):
    with pytest.raises(UnknownWordError, match=r"a word id is an integer; got 1\.5"):
        vocabulary.word(1.5)


def test_unknown_word_names_the_nearest(vocabulary):
    with pytest.raises(UnknownWordError, match="'small' does not hold 'cta'; the nearest word is 'cat'"):
        vocabulary.id("cta")
    with pytest.raises(UnknownWordError, match="does not hold 'CAT'; the nearest word is 'cat'"):
        vocabulary.id("CAT")
    with pytest.raises(UnknownWordError, match="does not hold 'qqq'$"):
        vocabulary.id("qqq")
    with pytest.raises(UnknownWordError, match="a word is a string; got 3"):
        vocabulary.id(3)
    with pytest.raises(UnknownWordError, match=r"a word is a string; got \['dog'\]"):
        vocabulary.id(["dog"])
    with pytest.raises(UnknownWordError, match=r"'q{37}\.\.\.'"):
        vocabulary.id("q" * 1000)


def test_text(vocabulary):
    assert vocabulary.to_text([1, 3]) == "cat x-ray"
    assert vocabulary.to_text([]) == ""
    assert vocabulary.from_text(" cat  x-ray\n").tolist() == [1, 3]
    assert vocabulary.from_text("").dtype == np.int32
    assert vocabulary.from_text("  ", separator=",").shape == (0,)
    assert vocabulary.from_text(vocabulary.to_text([0, 1, 4], separator=", "), separator=", ").tolist() == [0, 1, 4]


def test_text_is_strict(vocabulary):
    with pytest.raises(UnknownWordError, match=r"does not hold 'cow' \(word 2 of 3\)"):
        vocabulary.from_text("dog cow cat")
    with pytest.raises(UnknownWordError, match=r"does not hold '' \(word 2 of 3\)"):
        vocabulary.from_text("dog,,cat", separator=",")
    with pytest.raises(UnknownWordError, match=r"a sequence of words; for one text use from_text\('dog cat'\)"):
        vocabulary.ids("dog cat")


@pytest.mark.parametrize("separator", ["-", "- "])
def test_separator_inside_a_word_is_refused(vocabulary, separator):
    with pytest.raises(VocabularyError, match="occurs inside the word 'x-ray'"):
        vocabulary.to_text([0, 3], separator=separator)


def test_empty_separator_is_refused(vocabulary):
    for call in (lambda: vocabulary.to_text([0], separator=""), lambda: vocabulary.from_text("dog", separator="")):
        with pytest.raises(VocabularyError, match="the separator must not be empty"):
            call()


# Letters, numbers, marks, punctuation and symbols: everything a word may hold.
_word = st.text(st.characters(categories=["L", "N", "M", "P", "S"]), min_size=1, max_size=12).filter(
    lambda word: not any(character.isspace() for character in word)
)


@given(st.lists(_word, min_size=1, max_size=20, unique=True), st.data())
def test_text_round_trip_is_lossless(words, data):
    vocabulary = Vocabulary(words)
    ids = data.draw(st.lists(st.integers(0, len(words) - 1), max_size=30))
    assert vocabulary.from_text(vocabulary.to_text(ids)).tolist() == ids


def test_save_and_load(vocabulary, tmp_path):
    folder = vocabulary.save(tmp_path / "v", card={"licence": "CC0", "size": 99})
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "words.txt"]
    loaded = Vocabulary.load(folder)
    assert loaded == vocabulary and loaded.name == "small"
    card = read_card(folder)
    assert card["licence"] == "CC0" and card["size"] == 5 and card["vocabulary_hash"] == vocabulary.hash
    # A checkout that rewrites line ends holds the same words.
    (folder / "words.txt").write_bytes((folder / "words.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert Vocabulary.load(folder) == vocabulary
    vocabulary.save(folder)


def test_save_does_not_overwrite_something_else(vocabulary, tmp_path):
    (tmp_path / "card.json").write_text('{"kind": "codebook"}')
    with pytest.raises(VocabularyError, match="holds something else than a vocabulary"):
        vocabulary.save(tmp_path)


def _damage(folder, kind):
    words, card = folder / "words.txt", folder / "card.json"
    if kind == "no words":
        words.unlink()
    elif kind == "other words":
        words.write_text("dog\ncow\n")
    elif kind == "cut":
        words.write_text("dog\n")
    elif kind == "not text":
        words.write_bytes(b"\xff\xfe")
    elif kind == "words folder":
        words.unlink()
        words.mkdir()
    elif kind == "no card":
        card.unlink()
    elif kind == "bad json":
        card.write_text("{")
    elif kind == "list":
        card.write_text("[]")
    elif kind == "later format":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"format_version": 9}))
    elif kind == "card folder":
        card.unlink()
        card.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no words", "has no words.txt"),
        ("other words", "words.txt in .* is not the list its card describes: its hash is"),
        ("cut", "is not the list its card describes"),
        ("not text", "words.txt in .* is not UTF-8 text"),
        ("words folder", "words.txt in .* cannot be read"),
        ("no card", "has no card.json"),
        ("bad json", "card.json in .* is not valid JSON"),
        ("list", "must hold a JSON object; got list"),
        ("later format", "has format 9; this icl-vision reads format 1"),
        ("card folder", "card.json in .* cannot be read"),
    ],
)
def test_damage_is_named(vocabulary, tmp_path, kind, message):
    vocabulary.save(tmp_path)
    _damage(tmp_path, kind)
    with pytest.raises(ArtefactDamagedError, match=message):
        Vocabulary.load(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="there is no folder .*nowhere"):
        Vocabulary.load(tmp_path / "nowhere")
