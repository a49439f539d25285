"""What is said of the pictures of a conversation, and where, so that it never changes as the conversation goes on.

A provider keeps the beginning of a prompt in a cache and charges little for it the next time, as long as every byte is
the same. So the text of a picture depends on nothing that comes later than what was there when it was first sent:

- its words are about the question of its own message; where that asks nothing, of the next user message before any
  answer; where there is none, of the last one before it;
- a later question gets words of its own, at the end of its own message: of the pictures it names ("image 2"), else of
  the pictures of the last message that had any; and only where they say something that was not said.

Knows: turns, numbers of pictures, whose question is whose. Refuses to know: dialects, how words are found.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.pictures import Pictures
from icl_vision.serving.proxy.dialects.reading import Picture, Turn
from icl_vision.serving.proxy.spans import Edit, Replace
from icl_vision.serving.words import PictureWords, digest, marked

T = TypeVar("T")

_NAMED = re.compile(
    r"\b(?:image|picture|photo|photograph|screenshot|img|pic)\s*(?:no\.?\s*|number\s+|#\s*)?(\d{1,3})\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a conversation. number: from 1. turn: the place of its turn. question: what its words are about.
    asked_in: the place of the turn that asks it, None for none."""

    number: int
    turn: int
    picture: Picture
    question: str | None
    asked_in: int | None


def pictures_of(turns: Sequence[Turn], most: int) -> list[Shown]:
    """The pictures in their order, each with its question.

    Raises:
        RequestRefusedError: more than ``most``. (Counted first: for each of them turns are looked through.)
    """
    count = sum(len(turn.pictures) for turn in turns)
    if count > most:
        raise RequestRefusedError(
            f"the request holds {count} pictures, those of earlier messages among them; {most} are allowed", 413
        )
    shown: list[Shown] = []
    for place, turn in enumerate(turns):
        if turn.pictures:
            asked_in = _asking(turns, place)
            question = None if asked_in is None else turns[asked_in].asks
            for picture in turn.pictures:
                shown.append(Shown(len(shown) + 1, place, picture, question, asked_in))
    return shown


def _asking(turns: Sequence[Turn], place: int) -> int | None:
    """Which turn asks about the pictures of the one at ``place``."""
    if turns[place].asks.strip():
        return place
    for later in range(place + 1, len(turns)):
        if turns[later].role == "assistant":
            break
        if turns[later].asks.strip():
            return later
    return next((earlier for earlier in range(place - 1, -1, -1) if turns[earlier].asks.strip()), None)


def meant(turns: Sequence[Turn], shown: Sequence[Shown], place: int) -> list[Shown]:
    """The earlier pictures that the turn at ``place`` asks about."""
    before = [one for one in shown if one.turn < place]
    numbers = {int(number) for number in _NAMED.findall(turns[place].asks)}
    named = [one for one in before if one.number in numbers]
    if named or not before or turns[place].pictures:
        return named
    return [one for one in before if one.turn == before[-1].turn]


async def read(shown: Sequence[Shown], pictures: Pictures) -> list[bytes]:
    """The bytes of every picture.

    Raises:
        RequestRefusedError: one that cannot be had.
    """

    async def one(picture: Picture) -> bytes:
        if picture.plain:
            return pictures.from_base64(picture.reference, picture.where)
        return await pictures.read(picture.reference, picture.where)

    return await together([one(entry.picture) for entry in shown])


async def edits(turns: Sequence[Turn], pictures: Pictures, words: PictureWords) -> list[Edit]:
    """The changes that put words in the places of all pictures; none where there are none.

    Raises:
        RequestRefusedError: too many pictures, or one that cannot be had or cannot become words;
            429, words for later questions that take too long.
    """
    shown = pictures_of(turns, pictures.limits.pictures)
    if not shown:
        return []
    data = await read(shown, pictures)
    keys = [digest(content) for content in data]

    async def line(one: Shown, question: str | None) -> str:
        place = one.number - 1
        return await words.line(data[place], question, one.picture.where, key=keys[place])

    lines = await together([line(one, one.question) for one in shown])
    changes: list[Edit] = []
    said: dict[int, set[str]] = {}
    for one, text in zip(shown, lines, strict=True):
        changes.append(Replace(one.picture.path, one.picture.wrap(marked(one.number, text))))
        said[one.number] = set(text.split())
    try:
        # A body has room for a hundred thousand questions. What was found for them until then is kept.
        async with asyncio.timeout(pictures.limits.seconds):
            return [*changes, *[edit async for edit in _later(turns, shown, said, line)]]
    except TimeoutError:
        raise RequestRefusedError(
            f"the words for later questions about pictures were not found within {pictures.limits.seconds:g} seconds; "
            "try again later",
            429,
        ) from None


async def _later(
    turns: Sequence[Turn],
    shown: Sequence[Shown],
    said: dict[int, set[str]],
    line: Callable[[Shown, str], Awaitable[str]],
) -> AsyncIterator[Edit]:
    """What is added for questions about earlier pictures. said: the words of each picture that stand there already."""
    for place, turn in enumerate(turns):
        if not turn.asks.strip() or turn.add is None:
            continue
        await asyncio.sleep(0)  # words that are kept are there at once, and others wait too
        news = []
        for one in meant(turns, shown, place):
            if one.asked_in == place:
                continue
            text = await line(one, turn.asks)
            if set(text.split()) - said[one.number]:
                said[one.number] |= set(text.split())
                news.append(marked(one.number, text, again=True))
        if news:
            yield turn.add("\n".join(news))


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them side by side; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
