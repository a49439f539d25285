"""Captions of digits: what the demonstration is trained on, and what it is measured with.

Training captions are made of English templates (an opening, a name, an ending) around a number word or a numeral, the
same templates around number words of thirteen other languages, and a few templates in those languages. Every caption
has an English counterpart, the same template with the English word: what the text encoder is shown for it.

Measured is on templates that were written apart and share no wording with the training ones; on number words of
languages that training never shows (of those, only words whose form it never shows either); on sums; on facts.

Knows: words and templates. Refuses to know: nets, pictures, and what is done with a caption.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from icl_vision.checks import choice, count

ENGLISH: Final = "en"

_TRAINED: Final = {
    ENGLISH: "zero one two three four five six seven eight nine",
    "ar": "صفر واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة",
    "cs": "nula jedna dva tři čtyři pět šest sedm osm devět",
    "el": "μηδέν ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "hi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ",
    "pl": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
    "ro": "zero unu doi trei patru cinci șase șapte opt nouă",
    "ru": "ноль один два три четыре пять шесть семь восемь девять",
    "sv": "noll ett två tre fyra fem sex sju åtta nio",
    "tr": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
    "vi": "không một hai ba bốn năm sáu bảy tám chín",
    "zh": "零 一 二 三 四 五 六 七 八 九",
}
_HELD_OUT: Final = {
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "id": "nol satu dua tiga empat lima enam tujuh delapan sembilan",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "ko": "영 일 이 삼 사 오 육 칠 팔 구",
    "nl": "nul een twee drie vier vijf zes zeven acht negen",
    "pt": "zero um dois três quatro cinco seis sete oito nove",
    "uk": "нуль один два три чотири п'ять шість сім вісім дев'ять",
}
WORDS: Final = {language: tuple(words.split()) for language, words in {**_TRAINED, **_HELD_OUT}.items()}
"""Number words, 0 to 9, by language."""
TRAINED: Final = tuple(_TRAINED)
"""Languages of the training captions, English first."""
HELD_OUT: Final = tuple(_HELD_OUT)
"""Languages that no training caption shows."""
COGNATES: Final = ("de", "it", "nl", "pt")
"""Those of them whose words look like words of training languages; reported apart."""

_OPENINGS: Final = (
    "", "", "a picture of ", "an image of ", "a drawing of ", "a photo of ", "draw ", "please draw ", "paint ",
    "show me ", "write ", "I would like ", "make ", "a scan of ", "here is ", "can you draw ", "this is ",
)  # fmt: skip
_NAMES: Final = (
    "{}", "{}", "a {}", "the digit {}", "the number {}", "a handwritten {}", "the numeral {}", "a white {}",
    "a single {}", "a hand drawn {}", "the figure {}", "one large {}",
)  # fmt: skip
_ENDINGS: Final = ("", "", "", " on black", " by hand", " please", " in white", " in chalk", ".", "!")

VALIDATION: Final = (
    "a quick {}", "{} in pencil", "give me {}", "{} written down", "the character {}", "somebody's {}", "{}?",
    "print {} here",
)  # fmt: skip
"""Templates for choosing settings with; neither trained on nor reported."""
UNSEEN: Final = (
    "could you sketch {} for a child", "{} scribbled with a marker", "the sign for {}", "a messy {}",
    "how do people write {}", "someone wrote {} here", "a big bold {}", "let me see {}", "{} on a blackboard",
    "just {}", "my favourite is {}", "the postman reads {}", "the answer is {}", "a child's {}", "trace {} slowly",
    "{} in blue ink", "a photograph showing {}", "put {} on the page", "illustrate {}", "a neat little {}",
    "house number {}", "it says {}", "the clerk noted {}", "{} with a thin pen", "render {} for our poster",
    "the ticket shows {}", "a crooked {}", "try {} this time", "{} as in a ledger", "jot down {}",
)  # fmt: skip
"""Templates that figures are measured on; none shares its wording with a training template."""

_NATIVE: Final = {
    "ar": ("الرقم {}", "ارسم {}"),
    "cs": ("číslo {}", "nakresli {}"),
    "el": ("ο αριθμός {}", "ζωγράφισε {}"),
    "es": ("el número {}", "dibuja {}"),
    "fr": ("le chiffre {}", "dessine {}"),
    "hi": ("अंक {}", "{} बनाओ"),
    "pl": ("cyfra {}", "narysuj {}"),
    "ro": ("cifra {}", "desenează {}"),
    "ru": ("цифра {}", "нарисуй {}"),
    "sv": ("siffran {}", "rita {}"),
    "tr": ("{} rakamı", "{} çiz"),
    "vi": ("số {}", "vẽ {}"),
    "zh": ("数字{}", "画{}"),
}
_NATIVE_ENGLISH: Final = ("the number {}", "draw {}")
"""What the two templates of each language say."""

_FACTS: Final = (
    ("the number of legs of a spider", 8), ("the number of days in a week", 7), ("the sides of a triangle", 3),
    ("the wheels of a bicycle", 2), ("the wheels of a car", 4), ("the legs of an insect", 6),
    ("the fingers on one hand", 5), ("the planets of the solar system", 8), ("the seasons of a year", 4),
    ("the colours of the rainbow", 7), ("the corners of a square", 4), ("the eyes of a cyclops", 1),
    ("the lives of a cat", 9), ("the arms of an octopus", 8), ("the continents of the earth", 7),
    ("the strings of a violin", 4), ("the strings of a guitar", 6), ("the faces of a cube", 6),
    ("the moons of the earth", 1), ("the rings of the olympic flag", 5), ("the horns of a unicorn", 1),
    ("the players of a basketball team", 5), ("the goals in a match without goals", 0), ("half a dozen", 6),
    ("the sides of a hexagon", 6), ("a pair", 2), ("the dwarfs of snow white", 7), ("the musketeers in the title", 3),
    ("the sides of a pentagon", 5), ("the sides of an octagon", 8), ("the legs of a dog", 4), ("the legs of a bird", 2),
    ("the symphonies of beethoven", 9), ("the wonders of the ancient world", 7), ("the leaves of a lucky clover", 4),
    ("the squares in a row of tic-tac-toe", 3), ("the months of a quarter", 3), ("the humps of a dromedary", 1),
    ("the elephants in an empty room", 0), ("the lanes of a one-lane road", 1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption. text: as it is given. digit: what is to be seen. english: the same with the English word.

    language: of the number word. template: what it was put into.
    """

    text: str
    digit: int
    english: str
    language: str
    template: str


def fold(text: str) -> str:
    """``text`` without case and accents: the form in which two words count as the same."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().replace("ı", "i").replace("ł", "l"))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def training_templates(number: int, seed: int = 0) -> list[str]:
    """So many different English templates, always the bare word first; the same for a seed."""
    everything = dict.fromkeys(o + n + e for o in _OPENINGS for n in _NAMES for e in _ENDINGS)
    others = [template for template in everything if template != "{}"]
    count("number", number, most=len(others) + 1)
    order = np.random.default_rng([seed, 1]).permutation(len(others))[: number - 1]
    return ["{}", *(others[index] for index in order)]


def training_captions(templates: int = 100, foreign: int = 14, seed: int = 0) -> list[Caption]:
    """What is trained on: every English template with every word and numeral, and the other languages.

    Args:
        templates: English templates, each with ten words and ten numerals.
        foreign: templates, drawn anew for every word of another language; the bare word is always one. 0 leaves the
            other languages out.
        seed: of what is drawn.
    """
    count("foreign", foreign, least=0, most=templates)
    rng = np.random.default_rng([seed, 2])
    wordings = training_templates(templates, seed)
    captions = []
    for template in wordings:
        for digit, word in enumerate(WORDS[ENGLISH]):
            for said in (word, str(digit)):
                text = template.format(said)
                captions.append(Caption(text, digit, text, ENGLISH, template))
    for language in TRAINED[1:] if foreign else ():
        for digit, word in enumerate(WORDS[language]):
            chosen = [0, *(1 + rng.permutation(len(wordings) - 1)[: foreign - 1])]
            captions += [_translated(wordings[index], word, digit, language) for index in chosen]
            captions += [
                Caption(native.format(word), digit, english.format(WORDS[ENGLISH][digit]), language, native)
                for native, english in zip(_NATIVE[language], _NATIVE_ENGLISH, strict=True)
            ]
    return captions


def plain_captions(templates: Sequence[str] = UNSEEN) -> list[Caption]:
    """English captions of these templates: of each, ten words and then ten numerals."""
    numerals = tuple(map(str, range(10)))
    return [
        Caption(template.format(word), digit, template.format(word), ENGLISH, template)
        for template in templates
        for words in (WORDS[ENGLISH], numerals)
        for digit, word in enumerate(words)
    ]


def held_out_captions(language: str, templates: Sequence[str] = UNSEEN) -> list[Caption]:
    """Captions with number words of a language that training never shows, in these (English) templates.

    Words whose form training shows as a word of another language (case and accents aside) are left out.

    Raises UsageError for another language.
    """
    choice("language", language, HELD_OUT)
    shown = {fold(word) for trained in TRAINED for word in WORDS[trained]}
    words = [(digit, word) for digit, word in enumerate(WORDS[language]) if fold(word) not in shown]
    return [_translated(template, word, digit, language) for template in templates for digit, word in words]


def sum_captions() -> list[Caption]:
    """ "three plus four" and the like, every pair whose sum is one digit; none is trained on."""
    words = WORDS[ENGLISH]
    return [
        Caption(f"{words[left]} plus {words[right]}", left + right, words[left + right], ENGLISH, "{} plus {}")
        for left, right in _pairs()
    ]


def fact_captions() -> list[Caption]:
    """Things with a number everybody knows ("the number of legs of a spider"); none is trained on."""
    return [Caption(text, digit, WORDS[ENGLISH][digit], ENGLISH, text) for text, digit in _FACTS]


def _pairs() -> Iterator[tuple[int, int]]:
    return ((left, right) for left in range(1, 10) for right in range(1, 10 - left))


def _translated(template: str, word: str, digit: int, language: str) -> Caption:
    return Caption(template.format(word), digit, template.format(WORDS[ENGLISH][digit]), language, template)
