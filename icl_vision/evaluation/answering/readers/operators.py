"""Two digits and a hidden operator: what is 3 ? 4, after examples such as 5 ? 2 = 7. An induction set of our own.

Knows: how episodes are drawn and kept, what stands for a digit. Refuses to know: LLMs, prompts, tokenizers.

The idea is VL-ICL Bench's interleaved operator induction (arXiv 2403.13164). An LLM that is shown perfect text gives
the ceiling; what it keeps of that when each digit is an image in words is what the words carry. So that a figure says
that and nothing else:

- the first two examples already tell the operator (no other gives both results), and so do all after them;
- the three operators have three different results for the digits asked about, so that an answer tells which operator
  was taken;
- the digits asked about stand together in no example, so that copying one cannot be right by the digits;
- the left digit is never the smaller one, whatever the operator: results are not negative, and that gives nothing away;
- pictures occur once in an episode, and every three episodes have each operator once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.files.reading import read_json
from icl_vision.files.storage import atomic_path
from icl_vision.images import load_image

OPERATORS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "x": lambda left, right: left * right,
}
"""What may be hidden."""

PACKAGED: Final = Path(__file__).parents[3] / "artefacts" / "examples" / "digits"
FORMAT_VERSION = 1
KIND = "operator-induction"
HIDDEN = "?"
"""What stands in the operator's place."""
TELLING = 2
"""So many examples tell the operator."""
MOST_SHOTS = 20
"""Most examples of an episode: there are 55 pairs of digits, and not each tells something."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Pictures of digits. names: of the pictures. labels: "0" to "9". images: what ``images.load_image`` takes.

    name: where they come from: "packaged", or the file's or folder's own name.
    """

    name: str
    names: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    images: tuple[Any, ...] = field(repr=False)

    def png(self, index: int) -> bytes:
        """A digit as a PNG file."""
        data = io.BytesIO()
        load_image(self.images[index]).save(data, "PNG")
        return data.getvalue()


def digit_set(source: str | Path | None = None) -> Digits:
    """Digits to draw episodes from.

    Args:
        source: an .npz file in MNIST's layout (its ``x_test``) or a folder with a folder for each digit; None for the
            100 packaged ones, which the packaged tokenizer of digits was trained with: for a figure give others.

    Raises:
        UsageError: nothing there, or fewer than two pictures of a digit.
    """
    found = [picture for picture in list_pictures(PACKAGED if source is None else source) if picture.label is not None]
    digits = [picture for picture in found if picture.label in set("0123456789")]
    few = [digit for digit in "0123456789" if sum(picture.label == digit for picture in digits) < 2]
    if few:
        raise UsageError(f"operator induction needs two pictures or more of each digit; there are too few of {few}")
    return Digits(
        "packaged" if source is None else Path(source).name,
        tuple(picture.name for picture in digits),
        tuple(str(picture.label) for picture in digits),
        tuple(picture.image for picture in digits),
    )


@dataclass(frozen=True, slots=True)
class OperatorEpisode:
    """One hidden operator.

    number: from 0. operator: one of ``OPERATORS``. examples: pairs of pictures, by their place in the ``Digits``; fewer
    shots are the first of them. query: the pair asked about.
    """

    number: int
    operator: str
    examples: tuple[tuple[int, int], ...]
    query: tuple[int, int]


def operator_episodes(digits: Digits, n: int, *, shots: int = 8, seed: int = 0) -> list[OperatorEpisode]:
    """``n`` episodes; a longer series of the same seed begins with the shorter one, and with fewer shots the query and
    the first examples are the same.

    Args:
        digits: where the pictures come from.
        n: 1 or more.
        shots: examples of each, 2 to ``MOST_SHOTS``.
        seed: names the series.

    Raises:
        UsageError: a number outside of its range, or too few pictures.
    """
    n = checks.count("n", n, of="episodes")
    shots = checks.count("shots", shots, least=TELLING, most=MOST_SHOTS, of="examples")
    by_digit = {
        str(digit): [place for place, label in enumerate(digits.labels) if label == str(digit)] for digit in range(10)
    }
    return [_episode(by_digit, number, shots, seed) for number in range(n)]


def _episode(by_digit: Mapping[str, Sequence[int]], number: int, shots: int, seed: int) -> OperatorEpisode:
    operator = Draw("operators", seed, number // len(OPERATORS)).shuffled(OPERATORS)[number % len(OPERATORS)]
    draw = Draw("operator-episode", seed, number)
    pairs = draw.shuffled([(left, right) for left in range(10) for right in range(left + 1)])
    query = next(pair for pair in pairs if len({rule(*pair) for rule in OPERATORS.values()}) == len(OPERATORS))
    others = [pair for pair in pairs if pair != query]
    # First a pair that rules out most, then whichever: the first two together leave one operator.
    first = others[0]
    second = next(pair for pair in others[1:] if _fitting(operator, [first, pair]) == [operator])
    shown = [first, second, *(pair for pair in others[1:] if pair != second)][:MOST_SHOTS]
    places = {digit: iter(draw.shuffled(found)) for digit, found in by_digit.items()}
    try:
        chosen = [[next(places[str(digit)]) for digit in pair] for pair in (query, *shown[:shots])]
    except StopIteration:
        raise UsageError(
            f"an episode of {shots} shots needs more pictures of each digit than there are; give more digits, or ask "
            "for fewer shots"
        ) from None
    return OperatorEpisode(
        number, operator, tuple((left, right) for left, right in chosen[1:]), (chosen[0][0], chosen[0][1])
    )


def _fitting(operator: str, pairs: Sequence[tuple[int, int]]) -> list[str]:
    """The operators that give the same results as this one for all the pairs."""
    rule = OPERATORS[operator]
    return [name for name, other in OPERATORS.items() if all(other(*pair) == rule(*pair) for pair in pairs)]


def operator_questions(
    episodes: Sequence[OperatorEpisode],
    digits: Digits,
    describe: Callable[[int], str] | None = None,
    *,
    hidden: bool = True,
    name: str = KIND,
) -> QASet:
    """Episodes as questions with examples, each about two pictures, with what stands between them as the question: the
    template ``answer_operator`` writes ``3 ? 4 = 7``. The type is the operator.

    Args:
        episodes: of ``operator_episodes`` with the same digits.
        digits: their pictures.
        describe: what stands for a picture, by its place among the digits: ``lambda place: digits.labels[place]`` is
            perfect text; its words by a tokenizer measure these. None leaves the pictures.
        hidden: ask "?"; False asks with the operator itself ("+"), which leaves arithmetic alone: what is lost against
            that is induction.
        name: of the set.

    Raises:
        UsageError: no episodes.
    """
    made: dict[int, Picture] = {}

    def picture(place: int) -> Picture:
        if place not in made:
            title = digits.names[place]
            made[place] = (
                Picture(title, digits.png(place)) if describe is None else Picture(title, text=describe(place))
            )
        return made[place]

    def asked(title: str, pair: tuple[int, int], operator: str, examples: tuple[Question, ...] = ()) -> Question:
        left, right = (int(digits.labels[place]) for place in pair)
        result = str(OPERATORS[operator](left, right))
        pictures = (picture(pair[0]), picture(pair[1]))
        return Question(title, pictures, HIDDEN if hidden else operator, (result,), operator, examples=examples)

    return QASet(
        name,
        tuple(
            asked(
                str(episode.number),
                episode.query,
                episode.operator,
                tuple(
                    asked(f"{episode.number}/{shot}", pair, episode.operator)
                    for shot, pair in enumerate(episode.examples, start=1)
                ),
            )
            for episode in episodes
        ),
    )


def save_operator_episodes(target: str | Path, episodes: Sequence[OperatorEpisode], digits: Digits) -> None:
    """Write episodes as one JSON file (atomically): names of the pictures and what they show, no pixels."""
    rows = [
        {
            "number": episode.number,
            "operator": episode.operator,
            "examples": [[digits.names[place] for place in pair] for pair in episode.examples],
            "query": [digits.names[place] for place in episode.query],
        }
        for episode in episodes
    ]
    used = sorted({place for episode in episodes for pair in (*episode.examples, episode.query) for place in pair})
    labels = {digits.names[place]: digits.labels[place] for place in used}
    head = {"format_version": FORMAT_VERSION, "kind": KIND, "digits": digits.name, "labels": labels}
    with atomic_path(Path(target)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(json.dumps(head, ensure_ascii=False)[:-1] + ',\n"episodes": [\n')
        handle.write(",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]}\n")


def load_operator_episodes(source: str | Path, digits: Digits) -> list[OperatorEpisode]:
    """Read a file of ``save_operator_episodes``.

    Args:
        source: the file.
        digits: holds its pictures.

    Raises:
        UsageError: no such file or of another form, or other digits than it was drawn from.
    """
    try:
        document = read_json(source)
    except (OSError, ValueError) as error:
        raise UsageError(f"the episode file {str(source)!r} cannot be read: {error}") from error
    known = isinstance(document, dict) and (document.get("format_version"), document.get("kind")) == (
        FORMAT_VERSION,
        KIND,
    )
    if not known or not isinstance(document.get("labels"), dict) or not isinstance(document.get("episodes"), list):
        raise UsageError(f"{str(source)!r} is no file of {KIND} episodes of format version {FORMAT_VERSION}")
    places = {name: place for place, name in enumerate(digits.names)}
    for name, label in document["labels"].items():
        if name not in places or digits.labels[places[name]] != label:
            raise UsageError(
                f"{str(source)!r} was drawn from other digits ({document.get('digits')!r:.80}): there {name!r:.80} is "
                f"a {label!r:.20}; give those digits, or draw new episodes"
            )
    return [_read(row, places, source) for row in document["episodes"]]


def _read(row: Any, places: Mapping[str, int], source: str | Path) -> OperatorEpisode:
    try:
        pairs = [tuple(places[name] for name in pair) for pair in (row["query"], *row["examples"])]
        if row["operator"] not in OPERATORS or any(len(pair) != 2 for pair in pairs) or len(pairs) <= TELLING:
            raise ValueError("an operator, two examples or more and a query, each of two pictures, are needed")
        number = checks.count("number", row["number"], least=0)
        return OperatorEpisode(number, row["operator"], tuple((a, b) for a, b in pairs[1:]), (pairs[0][0], pairs[0][1]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the episode {str(row)[:200]} of {str(source)!r} cannot be used: {error}") from error
