"""Reading a segment's words out of any text: repaired with every change named, or not read at all."""

from __future__ import annotations

import random

import numpy as np
import pytest
from drawn_pictures import WORDS

from icl_vision.codebook import Codebook
from icl_vision.drawing.repair import Reading, WordSet, printable, read_words
from icl_vision.errors import UsageError
from icl_vision.vocabulary import Vocabulary

ALL = WordSet(WORDS.words)
THREE = [ALL] * 3
QUERY = "C: an image of 3\nQ: ball kite\nA:"
MARKS = ("C:", "Q:", "A:")


def read(answer: str, count: int = 3, **options) -> Reading:
    return read_words(answer, [ALL] * count, query=QUERY, marks=MARKS, **options)


def kinds(reading: Reading) -> list[str]:
    return [change.kind for change in reading.changes]


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        (" ball kite moss", []),
        ("ball kite moss\n", []),
        ("Ball, Kite, MOSS.", ["folded"] * 3),
        ("\uff42\uff41\uff4c\uff4c kite moss", ["folded"]),
        ("ball,kite,moss", ["dropped"]),
        ('["ball", "kite", "moss"]', ["folded"] * 3),
        ("1. ball 2. kite 3. moss", ["dropped"] * 3),
        ("- ball - kite - moss", ["dropped"] * 3),
        ("ball\nkite\nmoss", ["lines joined"]),
        ("```\nball kite moss\n```", []),
        ("A: ball kite moss", ["echo"]),
        (QUERY + " ball kite moss", ["echo"]),
        ("C: an image of 1\nQ: x\nA: rust rust rust\n" + QUERY + " ball kite moss", ["echo"]),
        ("Here are the next 3 words: ball kite moss", ["lead-in"]),
        ("Sure! Here they are.\n\nball kite moss", ["other line"]),
        ("ball kite moss rust pear", ["cut"]),
        ("ball kite moss\nC: an image of 7\nA: rust rust rust", ["cut"]),
        ("ball kite mosss", ["nearest string"]),
        ("balll kitte mosss", ["nearest string"] * 3),
    ],
)
def test_what_is_repaired(answer, changes):
    reading = read(answer)
    assert reading.words == ("ball", "kite", "moss"), reading
    assert kinds(reading) == changes
    assert reading.problem == ""


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "the answer is empty"),
        (" \n\t ", "the answer is empty"),
        ("```\n```", "the answer is empty"),
        (QUERY, "the answer is empty after the prompt's own text"),
        ("A:", "the answer is empty after the prompt's own text"),
        ("C: an image of 1\nA: ball kite moss", "the answer repeats the prompt: 'C: an image of 1'"),
        ("Q: ball kite\nA: rust rust rust", "the answer repeats the prompt"),
        ("I am sorry, but I cannot see pictures.", "only 0 of 3 words are among those allowed"),
        ("the ball was green and round", "only 1 of 3 words"),
        ("a ball of moss", "only 1 of 3 words"),
        ("zebra quartz violin", "only 0 of 3 words"),
        ("Sure:\nball kite moss\nor\nrust rust rust", "2 lines of the answer could be meant"),
        ("\U0001f600 \u202e \ud800", "word 1 of 3 is missing"),
    ],
)
def test_what_is_not_read(answer, problem):
    reading = read(answer)
    assert reading.words == (None, None, None)
    assert problem in reading.problem


def test_what_is_read_in_part():
    short = read("ball kite")
    assert (short.words, short.problem) == (("ball", "kite", None), "word 3 of 3 is missing")
    odd = read("ball zebra moss")
    assert odd.words == ("ball", None, "moss")
    assert odd.problem == "word 2 of 3, 'zebra', is none of those allowed"


def test_known_words_are_kept_and_named():
    reading = read("ball kite moss", known={1: "rust"})
    assert reading.words == ("ball", "rust", "moss")
    assert [str(change) for change in reading.changes] == ["word 2: known: 'kite' -> 'rust'"]
    assert read("ball rust moss", known={1: "rust"}).changes == ()
    assert read("", known={1: "rust"}).words == (None, "rust", None)


def test_each_place_has_its_own_words():
    places = [WordSet(["ball", "kite"]), WordSet(["moss"])]
    assert read_words("kite moss", places).words == ("kite", "moss")
    assert read_words("moss kite", places).words == (None, None)


def test_two_words_as_near_as_each_other_are_none():
    near = WordSet(["plate", "plane"])
    assert near.find("plae") is None
    assert WordSet(["Turkey", "turkey"]).find("TURKEY") is None  # folded, both would do
    assert WordSet(["Turkey", "turkey"]).find("turkey") == ("turkey", "exact")


def test_the_nearest_vector_is_a_word_of_the_codebook():
    vocabulary = Vocabulary(["cat", "kitten", "lorry", "odd"], name="vectors")
    vectors = np.array([[1, 0, 0], [0.9, 0.4, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32)
    book = Codebook(vocabulary, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    allowed = WordSet(["cat", "lorry"], book)
    assert allowed.find("kitten") == ("cat", "nearest vector")
    assert allowed.find("Kitten.") == ("cat", "nearest vector")
    assert allowed.find("kitten", near=False) is None
    assert allowed.find("odd") is None  # nothing is near it
    assert allowed.find("puppy") is None  # no vector
    reading = read_words("kitten lorry", [allowed] * 2)
    assert reading.words == ("cat", "lorry")
    assert kinds(reading) == ["nearest vector"]


def test_a_set_needs_words():
    with pytest.raises(UsageError, match="at least one word; got none"):
        WordSet([])
    assert WordSet(["one"]).without("one").words == ("one",)
    assert WordSet(["one", "two"]).without("one").words == ("two",)


def test_reports_are_valid_unicode():
    assert printable("a\ud800b") == "a\\ud800b"
    assert printable("x" * 100).endswith("...")


ESSAY = (
    "Certainly! The following sentence was written by a helpful assistant who likes to talk about a ball, a kite and "
    "moss before it comes to the point. In conclusion, pictures are nice:"
)


def malformed(draw: random.Random, count: int) -> str:
    """One of many ways in which an answer is not what was asked for."""
    right = [draw.choice(WORDS.words) for _ in range(count)]
    other = [
        draw.choice(["zebra", "quartz", "Ballroom", "42", "<unused7>", "naïve", "l'été", "kitelike"]) for _ in right
    ]
    text = " ".join(right)
    junk = "".join(
        chr(draw.choice([*range(32, 127), *range(0x3040, 0x30FF), 0xD800, 0x202E, 0x200B, 0x1F600])) for _ in text
    )

    def typing(word: str) -> str:
        at = draw.randrange(len(word))
        return word[:at] + draw.choice("abcxyz") + word[at + draw.choice([0, 1]) :]

    made = [
        lambda: "",
        lambda: draw.choice([" ", "\n\n", "\t", "\u00a0", "\ufeff"]),
        lambda: " ".join(other),
        lambda: " ".join(draw.choice(pair) for pair in zip(right, other, strict=True)),
        lambda: " ".join(right[: draw.randrange(count)]),
        lambda: " ".join(right * draw.randint(2, 30)),
        lambda: " ".join(map(typing, right)),
        lambda: text.upper() + draw.choice([".", "!", "...", " <end>"]),
        lambda: ", ".join(right) + ".",
        lambda: str(right),
        lambda: "{'answer': " + str(right) + "}",
        lambda: "\n".join(f"{number}. {word}" for number, word in enumerate(right, start=1)),
        lambda: junk,
        lambda: text.replace(" ", draw.choice(["\u3000", "\u200b", "\u2028", "_", "", "\x00", "|"])),
        lambda: ESSAY[: draw.randrange(len(ESSAY))],
        lambda: ESSAY + " " + text,
        lambda: ESSAY + "\n" + text + "\n" + ESSAY,
        lambda: QUERY,
        lambda: QUERY + draw.choice([" ", "\n"]) + text,
        lambda: "C: an image of 1\nQ: ball\nA: " + text + "\n" + QUERY[: draw.randrange(len(QUERY))],
        lambda: text + "\nC: an image of 9\nQ: " + text + "\nA: " + text,
        lambda: "Learn a new language and predict the next words.",
        lambda: text + junk,
        lambda: junk + text,
        lambda: "a" * draw.randint(1, 20_000),
        lambda: "ball" * draw.randint(1, 2_000),
    ]
    return draw.choice(made)()


def check_reading(reading: Reading, answer: str, count: int) -> bool:
    """Whether a reading is whole; fails where a word is not allowed or stands there silently."""
    assert len(reading.words) == count
    assert (None in reading.words) == bool(reading.problem)
    named = {change.place for change in reading.changes}
    pieces = answer.replace(",", " ").replace("|", " ").replace(";", " ").replace("/", " ").split()
    for place, word in enumerate(reading.words, start=1):
        assert word is None or word in ALL
        assert word is None or place in named or word in pieces
    if not reading.changes and not reading.problem:
        assert [piece for piece in pieces if piece != "```"] == list(reading.words)
    return not reading.problem


def test_a_thousand_malformed_answers():
    draw = random.Random(7)
    whole = refused = 0
    for _ in range(1000):
        count = draw.randint(1, 8)
        answer = malformed(draw, count)
        if check_reading(read(answer, count), answer, count):
            whole += 1
        else:
            refused += 1
    assert whole + refused == 1000
    assert min(whole, refused) > 200  # both ways are tried
