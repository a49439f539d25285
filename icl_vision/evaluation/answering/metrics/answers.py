"""When an answer to a question counts as right: exact match, and VQA accuracy by the official rule.

Knows: the VQA evaluation's normalisation and its traps. Refuses to know: how long an answer may be and where it is cut
(the task's affair), and benchmarks with a rule of their own (``vl_icl.py``).

The normalisation is that of the VQA challenge (Antol et al. 2015, arXiv 1505.00468; repository GT-Vision-Lab/VQA,
vqaEvaluation/vqaEval.py), letter for letter, oddities included:

- A punctuation mark becomes nothing where it stands beside a space anywhere in the text (or where the text has a comma
  between digits), else a space: "red,blue" and "red, blue" are both "red blue", but "t-shirt" is "t shirt".
- A full stop goes unless a digit follows. Apostrophes and colons stay.
- Number words up to ten become digits, and "none" becomes "0".
- The articles a, an and the go, wherever they stand: an answer "A" is empty afterwards.
- Contractions get their apostrophe back ("dont" is "don't"), so does "wed", but not "lets" or "shes".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from icl_vision import checks
from icl_vision.errors import UsageError

PEOPLE: Final = 4
"""Fewest human answers for which VQA accuracy can reach 1: three must agree beside the one left out."""

_PUNCTUATION: Final = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER: Final = re.compile(r"\d,\d")
_FULL_STOP: Final = re.compile(r"\.(?!\d)")
_ARTICLES: Final = frozenset({"a", "an", "the"})
_NUMBERS: Final = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}  # fmt: skip
_CONTRACTED: Final = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _restored() -> dict[str, str]:
    """What a word without one of its apostrophes stands for: the official table, which lists exactly these."""
    table = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTED.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    table["somebody'd"] = "somebodyd"  # the one entry that goes the wrong way round there
    return table


_RESTORED: Final = _restored()


def normalise_answer(text: str) -> str:
    """An answer as the VQA evaluation compares it (see the module). May be empty: "The." is.

    >>> normalise_answer("The two t-shirts.")
    '2 t shirts'
    """
    text = _stripped(text)
    spaced = _COMMA_IN_NUMBER.search(text) is not None
    changed = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        changed = changed.replace(mark, "" if beside_space or spaced else " ")
    words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", changed).lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def is_empty(answer: str) -> bool:
    """Whether nothing was answered: no letter, digit or other sign beside spaces and punctuation. Never right."""
    return re.search(r"[^\s.;:/\[\]\"'{}()=_\-<>@`,?!]", answer) is None


def exact_answer(answer: str, answers: Sequence[str]) -> bool:
    """Whether an answer is one of the right ones, both normalised (or as they stand, case aside: a letter "A" read in
    a picture has no normal form). An empty answer is never right.

    Raises:
        UsageError: no right answers.
    """
    _some(answers)
    if is_empty(answer):
        return False
    found, plain = normalise_answer(answer), _stripped(answer).casefold()
    return any(
        plain == _stripped(right).casefold() or (found and found == normalise_answer(right)) for right in answers
    )


def raw_exact_answer(answer: str, answers: Sequence[str]) -> bool:
    """Whether an answer is one of the right ones letter for letter, spaces around it aside; never where it is empty.

    Raises:
        UsageError: no right answers.
    """
    _some(answers)
    return not is_empty(answer) and answer.strip() in {right.strip() for right in answers}


def vqa_accuracy(answer: str, answers: Sequence[str], *, normalise: Literal["split", "always"] = "split") -> float:
    """VQA accuracy of one answer by the official rule: the mean, over every person left out in turn, of
    min(others who said the same / 3, 1).

    With ten people who agree in 1, 2, 3 and 4 cases it is 0.3, 0.6, 0.9 and 1: three who agree are not quite enough,
    for each of the three is left out once.

    Trap: the official code normalises only where people differ. Where all gave the same answer, letter for letter
    (newlines and tabs are spaces, and spaces around it do not count), the answer is compared letter for letter too:
    "two" is wrong beside ten times "2", "Red" and "red." beside ten times "red". Its earlier version, which many carry
    on, always normalised the answer; other readers of the data normalise both always.

    Args:
        answer: what was answered; nothing answered scores 0, whatever people said.
        answers: what each person said, ``PEOPLE`` or more (VQAv2 and OK-VQA have ten).
        normalise: "split" as the official code, where people differ; "always".

    Returns:
        From 0 to 1.

    Raises:
        UsageError: too few people.
    """
    matches = _matches(answer, answers, normalise)
    n, agreeing = len(matches), sum(matches)
    with_it, without = min((agreeing - 1) / 3, 1.0), min(agreeing / 3, 1.0)
    return (agreeing * with_it + (n - agreeing) * without) / n if agreeing else 0.0


def plain_vqa_accuracy(
    answer: str, answers: Sequence[str], *, normalise: Literal["split", "always"] = "split"
) -> float:
    """min(people who said the same / 3, 1), as often quoted for VQA accuracy: never below the official figure, and
    above it where one, two or three of ten agree (by up to 0.1). For comparison only.

    Args, raises: as ``vqa_accuracy``.
    """
    return min(sum(_matches(answer, answers, normalise)) / 3, 1.0)


def read_yes_no(answer: str) -> Literal["yes", "no"] | None:
    """What an answer to a yes-or-no question says: its first word, if that is yes or no; None where it is neither,
    so that silence and evasion are never right."""
    first = re.match(r"\W*([a-z]+)", answer.strip().casefold())
    word = first[1] if first else ""
    return "yes" if word in ("yes", "yeah", "yep") else "no" if word in ("no", "nope") else None


def _matches(answer: str, answers: Sequence[str], normalise: str) -> list[bool]:
    checks.choice("normalise", normalise, ("split", "always"))
    if len(answers) < PEOPLE:
        raise UsageError(
            f"VQA accuracy needs the answers of {PEOPLE} people or more, for three must agree beside the one left out; "
            f"got {len(answers)}: use exact_answer where one answer is right"
        )
    people = [_stripped(one) for one in answers]
    if is_empty(answer):
        return [False] * len(people)
    if normalise == "split" and len(set(people)) == 1:
        return [_stripped(answer) == one for one in people]
    found = normalise_answer(answer)
    return [bool(found) and found == normalise_answer(one) for one in people]


def _stripped(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _some(answers: Sequence[str]) -> None:
    if isinstance(answers, str) or not answers:
        raise UsageError(f"answers must be a list of one or more right answers; got {checks.shown(answers)}")
