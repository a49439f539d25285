"""Which of a picture's words bear on a question, and in which order: pure text work, no picture, no LLM.

Two things say so. A table of kinds of question, by how a question is put, says which parts and which words can be its
answer: "how many" wants numbers, "what colour" wants colours and where the thing is, "who" wants persons. And the
question's own words say what it is about: a word whose vector lies near one of them is about the same. In *what*
and *said*, words are ordered by

    how good a word is whatever is asked + 2 x likeness to the question's words + 4 x likeness to what the kind wants

with cosines in the codebook's space as likeness, and logarithms of probabilities, or of one over ranks, as goodness. A
word that the question itself says is nearest to it and seldom its answer, so 1 is taken from it; but in questions to be
answered by yes or no it comes first, for there it is the evidence. The weights were set on the tuning questions
(``benchmarks/describe_focus.py``).

Knows: kinds of question, their wording, likeness of words. Refuses to know: pictures, prompts, how an answer is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from icl_vision.image_words import ImageWords
from icl_vision.tokenizers.describe.colours import NAMES as COLOUR_NAMES
from icl_vision.tokenizers.describe.colours import most_colours
from icl_vision.tokenizers.describe.places import REGIONS, cut_places, regions_of

if TYPE_CHECKING:
    from icl_vision.codebook import Codebook

_LIKE_QUESTION, _LIKE_KIND = 2.0, 4.0
_NAMED = 1.0  # taken from a word that the question says
_FIRST = 20.0  # given to words that come before all others, and taken from those that come after them
_LEAST = 1e-4  # of a probability whose logarithm is taken
_SAME_THING = 0.6  # cosine from which a word of a region may be the thing that is asked about
_LONGEST = 2000  # characters of a question that are looked at

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve dozen several many few couple pair single"
).split()
PERSONS = (
    "man woman boy girl child baby men women boys girls children people person kid kids lady guy player players crowd "
    "couple family group friends team worker driver rider toddler adult adults"
).split()
PLACES = (
    "room kitchen bathroom bedroom street road city beach water ocean sea lake river park field grass yard forest "
    "mountain mountains snow sky stadium court airport station store shop restaurant zoo table garden building house"
).split()
DOINGS = "playing running walking sitting standing riding jumping eating holding swimming climbing talking".split()


@dataclass(frozen=True)
class Kind:
    """A kind of question: how it is worded, and what its answer is looked for among.

    name: what it is called. pattern: regular expression, tried on the question in lower case. parts: in which its words
    lie, the likeliest first; the others are dropped. only: words that alone count in *what* and *said*, none for all.
    like: words that an answer is like. ending: words that end so come first. last: whether words that are no things
    (numbers, colours, sizes, what somebody does) come last. named: whether words that the question says come first, as
    the evidence. text: whether text read in the picture stays.
    """

    name: str
    pattern: str
    parts: tuple[str, ...]
    only: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    ending: str = ""
    last: bool = False
    named: bool = False
    text: bool = False


KINDS = (
    Kind("colour", r"\bcolou?rs?\b", ("colours", "where")),
    Kind("number", r"\bhow many\b|\bnumber of\b|\bhow much\b", ("said", "what"), only=tuple(NUMBERS)),
    Kind(
        "text",
        r"\b(say|says|said|read|reads|written|write|spell(ed|s)?|text|letters?|words?|brand|logo|called|titled?)\b"
        r"|\bnumber (is )?on\b|\bname (of|on)\b|\bwhat (time|number)\b",
        ("said", "what"),
        text=True,
    ),
    Kind(
        "place",
        r"^(and )?where\b|\bwhat (kind of |type of )?(place|room|location)\b|\bin which (place|room)\b",
        ("said", "what", "where"),
        like=tuple(PLACES),
    ),
    Kind(
        "person",
        r"\bwho\b|\bwhose\b|\bwhat (kind of |type of )?(person|people)\b",
        ("said", "what"),
        like=tuple(PERSONS),
    ),
    Kind(
        "action",
        r"\bwhat\b.*\b(doing|do|does)\W*$|\b(doing|happening|going on)\b",
        ("said", "what"),
        like=tuple(DOINGS),
        ending="ing",
    ),
    Kind(
        "yes or no",
        r"^(is|are|was|were|do|does|did|can|could|has|have|will|would|should)(n't)?\b|^won't\b|\bor\b",
        ("what", "said", "colours", "where"),
        named=True,
        text=True,
    ),
    Kind("thing", r"", ("what", "said"), last=True, text=True),
)
"""Tried in this order; the last one fits every question."""

SIZES = "small large big little tall short long young old new high low wide open full".split()
NO_DOINGS = frozenset("building thing clothing morning evening ceiling king ring string wing spring".split())
"""Words that end in "ing" and say what nobody does."""

_EMPTY = frozenset(
    "a about an and any are as at be been being by can could did do does done doing for from had has have he her here "
    "his how i in into is it its it's kind many me more most much my of off on one or other our out over own picture "
    "photo photograph image shown show shows see seen she should so some somebody someone something sort such than "
    "that the their them there these they thing things this those to type up was we were what what's when where "
    "where's which while who who's whose why will with would you your s t".split()
)
"""Words that say nothing of what a question is about."""


@dataclass(frozen=True)
class Question:
    """A question as it was understood.

    kind: see ``KINDS``. words: those that say what it is about, in their order, as they stand in the vocabulary.
    """

    kind: Kind
    words: tuple[str, ...] = field(default=())


def understood(about: str, known: Callable[[str], bool]) -> Question:
    """What a text asks for, and about what.

    Args:
        about: the text; only its first 2,000 characters count.
        known: whether a word is in the vocabulary. A word that is not is tried without its ending.
    """
    text = about[:_LONGEST].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = " ".join(text.split())
    kind = next(kind for kind in KINDS if re.search(kind.pattern, text))
    words: dict[str, None] = {}
    for word in re.findall(r"[a-z']+", text):
        if word in _EMPTY or re.fullmatch("colou?r(ed|s)?", word):
            continue
        found = next((form for form in forms(word.strip("'")) if form and known(form)), None)
        if found is not None:
            words[found] = None
    return Question(kind, tuple(words))


def forms(word: str) -> Iterable[str]:
    """A word, and what it may be an inflected form of, or a form of."""
    yield word
    for ending, instead in (("'s", ""), ("ies", "y"), ("es", ""), ("s", ""), ("ing", ""), ("ing", "e"), ("ed", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            yield word[: -len(ending)] + instead
    yield word + "s"


def focused(words: ImageWords, about: str, k: int, codebook: Codebook) -> ImageWords:
    """A picture's words that bear on a question, the closest first in each part; the other words are dropped.

    Args:
        words: all there are; of the parts what, said, colours and where.
        about: the question.
        k: most words of a part (of a region, in *where*).
        codebook: the words' vectors.

    Returns:
        Words of the parts that the question wants, in the order in which it wants them; where these have none at all,
        the first ``k`` of each part there is.
    """
    question = understood(about, codebook.vocabulary.__contains__)
    asked = _Asked(question, codebook)
    kind = question.kind
    places: dict[str, list[int]] = {}
    for part in (part for part in kind.parts if part in words.names):
        own = words.words(part)
        if part == "where":
            places[part] = _where(own, asked, k, every=kind.name != "colour")
            continue
        if part == "colours":  # by what is seen alone: that buses are red in general says nothing of this one
            places[part] = _of_the_thing(words, [*range(len(own))], asked)[: most_colours(k)]
            continue
        order = asked.ranked(own, _goodness(words, part))
        places[part] = [place for place in order if not kind.only or own[place] in kind.only][:k]
    text = words.text if kind.text else ()
    if not any(places.values()):
        return words.only({part: _first(words, part, k) for part in words.names}, text=text)
    return words.only(places, text=text)


class _Asked:
    """A question with the vectors of its words: what makes one word come before another."""

    def __init__(self, question: Question, codebook: Codebook) -> None:
        self.question = question
        self.codebook = codebook
        self.stems = {form for word in question.words for form in forms(word)}
        self.about = self._vectors(question.words)
        self.kind = self._vectors(question.kind.like)

    def _vectors(self, words: Sequence[str]) -> npt.NDArray[np.float32]:
        ids = self.codebook.vocabulary.ids([word for word in words if word in self.codebook.vocabulary])
        vectors: npt.NDArray[np.float32] = self.codebook.vectors[np.asarray(ids, dtype=np.int64)]
        return vectors

    def likeness(self, words: Sequence[str], to: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The greatest cosine of each word to any of these vectors; 0 where there are none."""
        if not len(to) or not words:
            return np.zeros(len(words), dtype=np.float32)
        best: npt.NDArray[np.float32] = (self._vectors(words) @ to.T).max(1)
        return best

    def says(self, word: str) -> bool:
        """Whether the question itself says the word, in any form."""
        return any(form in self.stems for form in forms(word))

    def ranked(self, words: Sequence[str], base: npt.NDArray[np.float64]) -> list[int]:
        """The places of words, the closest to the question first; equal ones in their order.

        base: how good each word is whatever is asked, as a logarithm.
        """
        scores = base + _LIKE_QUESTION * self.likeness(words, self.about) + _LIKE_KIND * self.likeness(words, self.kind)
        kind = self.question.kind
        for place, word in enumerate(words):
            doing = word.endswith("ing") and word not in NO_DOINGS
            if self.says(word):
                scores[place] += _FIRST if kind.named else -_NAMED
            if kind.ending and doing:
                scores[place] += _FIRST
            if kind.last and (doing or word in NUMBERS or word in SIZES or word in COLOUR_NAMES):
                scores[place] -= _FIRST
        return sorted(range(len(words)), key=lambda place: (-scores[place], place))


def _goodness(words: ImageWords, part: str) -> npt.NDArray[np.float64]:
    """How good each word of a part is whatever is asked: the logarithm of its probability.

    In *what*, of one over its rank: probabilities there say which kinds of words people use at all, and would bring
    common words up from far below.
    """
    count = len(words.words(part))
    if part == "what" or not words.chances(part):
        return -np.log(np.arange(1, count + 1, dtype=np.float64))
    return np.log(np.maximum(np.asarray(words.chances(part), dtype=np.float64), _LEAST))


def _first(words: ImageWords, part: str, k: int) -> Sequence[int]:
    own = words.words(part)
    if part == "where":
        return cut_places(own, k)
    return range(min(most_colours(k) if part == "colours" else k, len(own)))


def _regions_of_the_thing(words: Sequence[str], asked: _Asked) -> list[str]:
    """The regions in which a thing lies that the question names, by the class words there; the likest first."""
    found: dict[str, float] = {}
    for region, own in regions_of(words).items():
        for place in own:
            word = words[place]
            like = 1.0 if asked.says(word) else float(asked.likeness([word], asked.about)[0])
            if word not in COLOUR_NAMES and like >= _SAME_THING:
                found[region] = max(like, found.get(region, 0.0))
    return sorted(found, key=lambda region: (-found[region], REGIONS.index(region)))


def _of_the_thing(words: ImageWords, order: list[int], asked: _Asked) -> list[int]:
    """Colours reordered: those of the regions in which the thing lies first, where it lies in some and not in all."""
    if "where" not in words.names:
        return order
    row, names = words.words("where"), words.words("colours")
    regions = _regions_of_the_thing(row, asked)
    if not 0 < len(regions) < len(REGIONS):
        return order
    own = regions_of(row)
    there = [row[place] for region in regions for place in own[region] if row[place] in COLOUR_NAMES]
    first = [names.index(name) for name in dict.fromkeys(there) if name in names]
    return [*first, *(place for place in order if place not in first)]


def _where(words: Sequence[str], asked: _Asked, k: int, *, every: bool) -> list[int]:
    """Places of a row of regions: those in which the thing lies first; with ``every`` the others after them."""
    own = regions_of(words)
    first = _regions_of_the_thing(words, asked)
    kept = set(cut_places(words, k))
    order = [*first, *(region for region in own if every and region not in first)]
    return [place for region in order for place in (own[region].start - 1, *own[region]) if place in kept]
