"""Which words bear on a question: kinds of question, order, what is dropped."""

from __future__ import annotations

import pytest

from icl_vision import ImageWords
from icl_vision.codebook import Codebook
from icl_vision.tokenizers.describe import focus
from icl_vision.tokenizers.describe.focus import focused, understood
from icl_vision.tokenizers.describe.places import cut_places, regions_of

BOOK = Codebook.load()
PARTS = {
    "what": "bus tram truck car train road street taxi".split(),
    "said": "street man city people red two woman driving walking standing night three child".split(),
    "colours": "green white blue red gray black".split(),
    "where": "top gray train bottom green road left white tree right red bus centre red bus".split(),
}
CHANCES = {part: [0.9 - 0.05 * place for place in range(len(row))] for part, row in PARTS.items()}


def words(**parts: list[str]) -> ImageWords:
    given = parts or PARTS
    chances = {part: CHANCES[part][: len(given[part])] for part in given}
    return ImageWords.of(given, BOOK.vocabulary, probabilities=chances, text=["EXIT"])


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("what is the color of the bus", "colour"),
        ("Which COLOURS has it?", "colour"),
        ("what is in colored boxes", "thing"),
        ("How many people are there?", "number"),
        ("the herd of elephants how many running with a baby", "number"),
        ("What does the sign say?", "text"),
        ("What number is on the bus?", "text"),
        ("What time is it?", "text"),
        ("Where was the picture taken?", "place"),
        ("what kind of room is this", "place"),
        ("Who rides the horse?", "person"),
        ("What is the man doing?", "action"),
        ("what is happening here", "action"),
        ("What does the man do?", "action"),
        ("what can you do ...?", "action"),
        ("Is there a dog?", "yes or no"),
        ("Isn\u2019t this a dog?", "yes or no"),
        ("Don't they play?", "yes or no"),
        ("Can't it swim?", "yes or no"),
        ("Won't it fall?", "yes or no"),
        ("are they inside or outside", "yes or no"),
        ("what is eating grass in the sun", "thing"),
        ("what do the herd of elephants cross", "thing"),
        ("???", "thing"),
        ("\u4ec0\u4e48", "thing"),
    ],
)
def test_kinds_of_questions(question: str, kind: str) -> None:
    assert understood(question, BOOK.vocabulary.__contains__).kind.name == kind


def test_words_a_question_is_about() -> None:
    found = understood("What\u2019s the colour of the two dogs' balls, sitting by qzxv?", BOOK.vocabulary.__contains__)
    assert (
        found.words[:1] == ("two",) and {"dogs", "balls", "sitting"} <= set(found.words) and "qzxv" not in found.words
    )
    assert understood("what is it", BOOK.vocabulary.__contains__).words == ()


def test_what_colour_wants_colours_and_the_things_region_first() -> None:
    asked = focused(words(), "What colour is the bus?", 6, BOOK)
    assert asked.names == ("colours", "where") and asked.text == ()
    assert asked.words("colours") == ["red", "green", "white"]  # red, because the bus lies where it is red
    assert asked.words("where") == "right red bus centre red bus".split()
    other = focused(words(), "What colour is the road?", 6, BOOK)
    assert other.words("colours")[0] == "green" and other.words("where")[:3] == "bottom green road".split()


def test_a_thing_that_lies_nowhere_or_everywhere_changes_no_order() -> None:
    assert focused(words(), "What colour is the sky at night?", 10, BOOK).words("colours") == PARTS["colours"][:5]
    rows = [word for region in ("top", "bottom", "left", "right", "centre") for word in (region, "red", "bus")]
    everywhere = words(**{**PARTS, "where": rows})
    assert focused(everywhere, "What colour is the bus?", 10, BOOK).words("colours") == PARTS["colours"][:5]


def test_how_many_wants_numbers() -> None:
    asked = focused(words(), "How many people are there?", 10, BOOK)
    assert asked.words() == ["two", "three"] and asked.chances("said") == (0.65, 0.35)
    none = focused(words(what=["dog", "cat"]), "How many dogs?", 1, BOOK)
    assert none.words() == ["dog"]  # nothing that it wants is there: the first of each part


def test_who_and_where_and_doing() -> None:
    assert focused(words(), "Who is there?", 4, BOOK).words("said")[:2] == ["man", "people"]
    assert focused(words(), "Where are they?", 4, BOOK).words("said")[:2] == ["street", "city"]
    doing = focused(words(), "What is the man doing?", 3, BOOK)
    assert set(doing.words("said")) == {"driving", "walking", "standing"}


def test_things_come_before_what_is_no_thing() -> None:
    last = focused(words(), "what is next to it", 20, BOOK).words("said")[-6:]
    assert set(last) == {"red", "two", "three", "walking", "standing", "driving"}


def test_what_the_question_says_is_no_answer_but_evidence_for_yes() -> None:
    assert focused(words(), "what is next to the taxi", 8, BOOK).words("what")[0] == "bus"
    assert focused(words(), "Is there a taxi?", 8, BOOK).words("what")[0] == "taxi"
    assert focused(words(), "Is there a child?", 5, BOOK).words("said")[0] == "child"


def test_read_text_stays_where_it_may_be_the_answer() -> None:
    assert focused(words(), "What does the sign say?", 3, BOOK).text == ("EXIT",)
    assert focused(words(), "How many people are there?", 3, BOOK).text == ()


def test_k_counts_words_of_a_part_and_a_longer_list_begins_alike() -> None:
    for question in ("what is in the street", "Who is there?", "Where is it?"):
        short, long = (focused(words(), question, k, BOOK) for k in (2, 5))
        for part in ("what", "said"):
            assert short.words(part) == long.words(part)[:2] and len(long.words(part)) == 5


def test_probabilities_go_with_their_words() -> None:
    asked = focused(words(), "Is there a child?", 20, BOOK)
    for part in asked.names:
        if part != "where":
            own = dict(zip(PARTS[part], CHANCES[part], strict=True))
            assert [own[word] for word in asked.words(part)] == list(asked.chances(part))
    bare = ImageWords.of(PARTS, BOOK.vocabulary)
    assert focused(bare, "Who is there?", 2, BOOK).probabilities is None


@pytest.mark.parametrize("question", ["a" * 100_000, "(" * 5000, "what " * 50_000, "ing's" * 4000])
def test_a_question_of_any_length_ends(question: str) -> None:
    assert focused(words(), question, 3, BOOK).k


def test_rows_of_regions() -> None:
    row = "top blue sky bottom grass".split()
    assert regions_of(row) == {"top": range(1, 3), "bottom": range(4, 5)}
    assert [row[place] for place in cut_places(row, 1)] == ["top", "sky", "bottom", "grass"]
    assert cut_places(row, 2) == [0, 1, 2, 3, 4] and cut_places([], 1) == []


def test_the_table_is_whole() -> None:
    names = [kind.name for kind in focus.KINDS]
    assert len(set(names)) == len(names) and focus.KINDS[-1].pattern == ""
    for kind in focus.KINDS:
        assert set(kind.parts) <= {"what", "said", "colours", "where"} and kind.parts
        assert {*kind.only, *kind.like} - set(BOOK.vocabulary.words) == set(), kind.name
