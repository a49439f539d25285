"""Captions of digits: what the demonstration is trained on, and what it is measured with.

Training captions are made of English templates (an opening, a name, an ending; some hundred thousand of them) around a
number word or a numeral, such templates around number words of twenty-four other languages, and a few templates in
thirteen of those, and every word alone, as people type it: with a capital letter, a full stop, in quotes. Nearly every
other caption has a template of its own: of a few wordings that come again and again a mapper learns the wordings. Every
caption has an English counterpart, the same template with the English word: what the text
encoder is shown for it.

Settings are chosen, and the best weights of a training kept, on templates and five languages of their own.

Measured is on templates that were written apart and share no wording with the training ones; on number words of
languages that training never shows (of those, only words whose form it never shows either), in these and alone; on
sums; on facts.

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
    "bn": "শূন্য এক দুই তিন চার পাঁচ ছয় সাত আট নয়",
    "ca": "zero un dos tres quatre cinc sis set vuit nou",
    "cy": "sero un dau tri pedwar pump chwech saith wyth naw",
    "fa": "صفر یک دو سه چهار پنج شش هفت هشت نه",
    "he": "אפס אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע",
    "hr": "nula jedan dva tri četiri pet šest sedam osam devet",
    "hu": "nulla egy kettő három négy öt hat hét nyolc kilenc",
    "ja": "ゼロ いち に さん よん ご ろく なな はち きゅう",
    "la": "nihil unus duo tria quattuor quinque sex septem octo novem",
    "lt": "nulis vienas du trys keturi penki šeši septyni aštuoni devyni",
    "th": "ศูนย์ หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า",
}
_CHECKED: Final = {
    "fi": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
    "ga": "náid aon dó trí ceathair cúig sé seacht ocht naoi",
    "mt": "xejn wieħed tnejn tlieta erbgħa ħamsa sitta sebgħa tmienja disgħa",
    "sq": "zero një dy tre katër pesë gjashtë shtatë tetë nëntë",
    "sw": "sifuri moja mbili tatu nne tano sita saba nane tisa",
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
WORDS: Final = {language: tuple(words.split()) for language, words in {**_TRAINED, **_CHECKED, **_HELD_OUT}.items()}
"""Number words, 0 to 9, by language."""
TRAINED: Final = tuple(_TRAINED)
"""Languages of the training captions, English first."""
CHECKED: Final = tuple(_CHECKED)
"""Languages of the captions that weights and settings are chosen by; neither trained on nor measured."""
HELD_OUT: Final = tuple(_HELD_OUT)
"""Languages that no caption shows of those that are trained on or chosen by."""
COGNATES: Final = ("de", "it", "nl", "pt")
"""Those of them whose words look like words of training languages; reported apart."""

_OPENINGS: Final = (
    "", "", "a picture of ", "an image of ", "a drawing of ", "a photo of ", "draw ", "please draw ", "paint ",
    "show me ", "write ", "I would like ", "make ", "a scan of ", "here is ", "can you draw ", "this is ", "produce ",
    "create ", "generate ", "I want ", "we need ", "could I have ", "display ", "imagine ", "think of ", "design ",
    "depict ", "a view of ", "the shape of ", "an outline of ", "a painting of ", "an old picture of ",
    "a close-up of ", "a blurry image of ", "look at ", "we saw ", "they drew ", "she painted ", "he made ",
    "my sister drew ", "the teacher drew ", "the artist made ", "next comes ", "and now ", "then ", "once more ",
    "next: ", "label: ", "class ", "I like ", "do you know ", "we counted to ", "the score was ", "room ", "bus ",
    "gate ", "channel ", "player ", "the clock strikes ", "press ", "type ", "choose ", "pick ", "there is ",
    "the robot drew ", "what about ", "it looks like ", "the result: ", "our guess is ", "it must be ", "remember ",
    "a lesson about ", "the story of ", "a poem on ", "where is ", "hello, draw ", "ok, ",
)  # fmt: skip
_NAMES: Final = (
    "{}", "{}", "{}", "a {}", "the digit {}", "the number {}", "a handwritten {}", "the numeral {}", "a white {}",
    "a single {}", "a hand drawn {}", "the figure {}", "a large {}", "a tiny {}", "a huge {}", "a plain {}",
    "a simple {}", "a clear {}", "a slanted {}", "a curly {}", "a round {}", "an ugly {}", "a pretty {}",
    "a wobbly {}", "a fat {}", "a narrow {}", "a tall {}", "a bright {}", "another {}", "your {}", "our {}",
    "this {}", "that {}", "the value {}", "the symbol {}", "the word {}", '"{}"', "'{}'", "number {}", "digit {}",
    "some lovely {}", "an old {}", "a modern {}", "a faint {}", "a dark {}",
)  # fmt: skip
_ENDINGS: Final = (
    "", "", "", "", "", " on black", " by hand", " please", " in white", " in chalk", ".", "!", " on paper",
    " on a wall", " on a dark background", " in a notebook", " with a brush", " with a finger", " from memory",
    " for me", " for my friend", " for the exam", " on the door", " today", " now", " again", " in the middle",
    " in grey", " at night", " in the sand", " in snow", ", low resolution", ", handwriting", ", thick strokes",
    ", thanks", " if you can", " as an image", " in gold", " for the museum", " of course", " and nothing else",
    ", really", " on the screen", " at the top", " next to a tree", " in the morning", " like an artist",
    ": that is all", " tomorrow",
)  # fmt: skip

ALONE: Final = (("{}", False), ("{}", True), ("{}.", False), ("{}.", True), ('"{}"', False))
"""Forms of a word that stands alone: what it is put into, and whether it has a capital letter."""
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


def training_templates() -> list[str]:
    """Every English template that training captions may have, the bare word first."""
    everything = dict.fromkeys(o + n + e for o in _OPENINGS for n in _NAMES for e in _ENDINGS)
    return ["{}", *(template for template in everything if template != "{}")]


def alone(word: str, digit: int, language: str) -> list[Caption]:
    """A word as people type it where it is all that they type: as it is, with a capital letter, with a full stop, in
    quotes; no text twice."""
    english = word if language == ENGLISH else WORDS[ENGLISH][digit]
    found: dict[str, Caption] = {}
    for template, capital in ALONE:
        text, said = (template.format(one[:1].upper() + one[1:] if capital else one) for one in (word, english))
        found.setdefault(text, Caption(text, digit, said, language, template))
    return list(found.values())


def training_captions(templates: int = 100, foreign: int = 8, seed: int = 0, bare: bool = True) -> list[Caption]:
    """What is trained on: every English word and numeral, and the words of other languages, in many templates.

    Args:
        templates: of each English word and of each numeral, drawn anew for it; the bare word is always one.
        foreign: the same of every word of another language; 0 leaves these languages out.
        seed: of what is drawn.
        bare: also each word alone with a capital letter, a full stop, in quotes (``alone``).
    """
    pool = training_templates()
    count("templates", templates, most=len(pool))
    count("foreign", foreign, least=0, most=templates)
    rng = np.random.default_rng([seed, 2])

    def drawn(number: int) -> list[str]:
        return ["{}", *(pool[place] for place in 1 + rng.choice(len(pool) - 1, number - 1, replace=False))]

    captions = []
    for digit, word in enumerate(WORDS[ENGLISH]):
        for said in (word, str(digit)):
            texts = ((template, template.format(said)) for template in drawn(templates))
            captions += [Caption(text, digit, text, ENGLISH, template) for template, text in texts]
            captions += alone(said, digit, ENGLISH)[1:] if bare else []
    for language in TRAINED[1:] if foreign else ():
        for digit, word in enumerate(WORDS[language]):
            captions += [_translated(template, word, digit, language) for template in drawn(foreign)]
            captions += alone(word, digit, language)[1:] if bare else []
            captions += [
                Caption(native.format(word), digit, english.format(WORDS[ENGLISH][digit]), language, native)
                for native, english in zip(_NATIVE.get(language, ()), _NATIVE_ENGLISH, strict=False)
            ]
    return captions


def validation_captions() -> list[Caption]:
    """What weights and settings are chosen by: English captions in templates of their own, and words of languages of
    their own, alone in two forms and in one of these templates."""
    captions = plain_captions(VALIDATION)
    for number, language in enumerate(CHECKED):
        for digit, word in enumerate(WORDS[language]):
            bare = alone(word, digit, language)
            captions += [bare[0], bare[1 + digit % (len(bare) - 1)]]
            captions.append(_translated(VALIDATION[(number + digit) % len(VALIDATION)], word, digit, language))
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

    Words whose form is shown as a word of a language that is trained on or chosen by (case and accents aside) are left
    out.

    Raises UsageError for another language.
    """
    choice("language", language, HELD_OUT)
    shown = {fold(word) for trained in (*TRAINED, *CHECKED) for word in WORDS[trained]}
    words = [(digit, word) for digit, word in enumerate(WORDS[language]) if fold(word) not in shown]
    return [_translated(template, word, digit, language) for template in templates for digit, word in words]


def trained_captions(templates: Sequence[str] = UNSEEN) -> list[Caption]:
    """Captions with number words of the languages beside English that training shows, in these (English) templates: the
    words are known, their wording is not.

    Each form stands once, in the first language that has it; English ones, and those that mean another digit in another
    language, are left out.
    """
    english = {fold(word) for word in WORDS[ENGLISH]}
    meant: dict[str, set[int]] = {}
    first: dict[str, tuple[int, str, str]] = {}
    for language in TRAINED[1:]:
        for digit, word in enumerate(WORDS[language]):
            meant.setdefault(fold(word), set()).add(digit)
            first.setdefault(fold(word), (digit, word, language))
    words = [own for form, own in first.items() if form not in english and len(meant[form]) == 1]
    return [_translated(template, word, digit, language) for template in templates for digit, word, language in words]


def bare_captions(language: str, times: int = 10) -> list[Caption]:
    """Every word of a language alone, in the forms that ``alone`` gives, each so often: drawn from as many seeds.

    English ones are trained on; of a held-out language the forms are, and no word.

    Raises UsageError for a language that is neither English nor held out.
    """
    choice("language", language, (ENGLISH, *HELD_OUT))
    words = plain_captions(["{}"])[:10] if language == ENGLISH else held_out_captions(language, ["{}"])
    return [one for word in words for one in alone(word.text, word.digit, language) for _ in range(times)]


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
