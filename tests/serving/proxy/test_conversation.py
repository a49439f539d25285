"""What is said of a picture never changes as the conversation goes on; later questions get words of their own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from proxied import Proxied, data_url, picture

from icl_vision.errors import RequestRefusedError
from icl_vision.serving import words
from icl_vision.serving.pictures import Limits, Pictures
from icl_vision.serving.proxy import conversation
from icl_vision.serving.proxy.dialects import chat, messages, responses
from icl_vision.serving.proxy.dialects.reading import Picture, Turn
from icl_vision.serving.proxy.spans import Suffix, edited

Serve = Callable[..., Proxied]
COLOUR, SAYS, WHAT = "What colour is it?", "What does it say?", "What is in the picture?"


def shown(seed: int = 0) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(picture(seed))}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "t"}]}
REPLY = {"role": "assistant", "content": "a bus"}


async def put(proxied: Proxied, messages: list[Any]) -> list[Any]:
    response = await proxied.post("/v1/chat/completions", {"model": "m", "messages": messages})
    assert response.status_code == 200, response.text
    found: list[Any] = proxied.talker.seen[-1].document["messages"]
    return found


def marked(number: int, line: str, again: str = "") -> str:
    return f"[image {number} in words{again}: {line}]"


AGAIN = ", for this question"


async def test_words_are_about_the_question_of_the_same_message(serve: Serve, lines: Any):
    found = await put(serve(), [user(text("Hello."), shown()), user(text(COLOUR), shown(), text("Tell me."))])
    assert found[0]["content"][1]["text"] == marked(1, await lines(picture(), "Hello."))
    assert found[1]["content"][1]["text"] == marked(2, await lines(picture(), f"{COLOUR}\nTell me."))


async def test_else_about_that_of_the_next_user_message(serve: Serve, lines: Any):
    found = await put(serve(), [CALL, {"role": "tool", "content": [shown()]}, user(shown(1)), user(text(COLOUR))])
    assert found[1]["content"][0]["text"] == marked(1, await lines(picture(), COLOUR))
    assert found[2]["content"][0]["text"] == marked(2, await lines(picture(1), COLOUR))
    assert found[3]["content"] == [text(COLOUR)]


async def test_a_tools_picture_is_about_what_the_user_asked_before(serve: Serve, lines: Any):
    messages = [user(text(COLOUR)), CALL, {"role": "tool", "content": [shown()]}]
    found = await put(serve(), messages)
    assert found[2]["content"][0]["text"] == marked(1, await lines(picture(), COLOUR))
    longer = await put(serve(), [*messages, REPLY, user(text(SAYS))])
    assert longer[:3] == found


async def test_without_any_question_all_words(serve: Serve, lines: Any):
    found = await put(serve(), [user(shown())])
    assert found[0]["content"][0]["text"] == marked(1, await lines(picture(), None))


@pytest.mark.parametrize("as_parts", [True, False])
async def test_a_later_question_gets_its_words_at_its_own_end(serve: Serve, lines: Any, as_parts: bool):
    asked = user(text(SAYS)) if as_parts else {"role": "user", "content": SAYS}
    found = await put(serve(), [user(text(COLOUR), shown()), REPLY, asked])
    assert found[0]["content"][1]["text"] == marked(1, await lines(picture(), COLOUR))
    later = marked(1, await lines(picture(), SAYS), AGAIN)
    assert found[2]["content"] == ([text(SAYS), text(later)] if as_parts else f"{SAYS}\n\n{later}")


async def test_nothing_is_said_twice(serve: Serve):
    again = {"role": "user", "content": "What colour is it, please?"}
    found = await put(serve(), [user(text(COLOUR), shown()), REPLY, again, REPLY, again])
    assert found[2] == again and found[4] == again


async def test_pictures_are_meant_by_their_numbers_else_the_last_ones(serve: Serve, lines: Any):
    messages = [user(text(COLOUR), shown(1), shown(2)), REPLY, user(text(COLOUR), shown(3)), REPLY]
    last = await put(serve(), [*messages, user(text(SAYS))])
    assert last[4]["content"][1:] == [text(marked(3, await lines(picture(3), SAYS), AGAIN))]
    question = "What does image 2 say, and picture #1?"
    named = await put(serve(), [*messages, user(text(question))])
    pieces = [marked(number, await lines(picture(number), question), AGAIN) for number in (1, 2)]
    assert named[4]["content"][1:] == [text("\n".join(pieces))]
    other = await put(serve(), [*messages, user(text("And what does image 1 say?"), shown(4))])
    assert "[image 1 in words, for this question: " in other[4]["content"][2]["text"]


async def test_what_was_sent_before_stays_the_same_to_the_byte(serve: Serve):
    """A conversation of every kind, sent turn by turn: each request begins with all of the one before."""
    proxied = serve()
    conversation = [
        {"role": "system", "content": "You see through words."},
        user(shown(1)),
        REPLY,
        {"role": "user", "content": SAYS},
        REPLY,
        user(text("Compare with this one."), shown(2)),
        CALL,
        {"role": "tool", "content": [shown(3)]},
        REPLY,
        {"role": "user", "content": "What colour is image 1?"},
        REPLY,
        user(text(WHAT)),
        REPLY,
        user(shown(4)),
        REPLY,
        {"role": "user", "content": "Who is there?"},
    ]
    before: list[str] = []
    for length in range(2, len(conversation) + 1):
        if conversation[length - 1]["role"] == "assistant" and conversation[length - 1] is not CALL:
            continue  # a client sends what ends with itself
        found = [json.dumps(message) for message in await put(proxied, conversation[:length])]
        assert found[: len(before)] == before
        before = found
    assert sum("for this question" in message for message in before) >= 3


async def test_an_answer_that_is_only_referred_to_is_one(serve: Serve):
    proxied = serve()
    first = {"role": "user", "content": [{"type": "input_image", "image_url": data_url(picture())}]}
    referred = {"type": "item_reference", "id": "msg_1"}
    for items in ([first], [first, referred, {"role": "user", "content": COLOUR}]):
        assert (await proxied.post("/v1/responses", {"model": "m", "input": items})).status_code == 200
    before, after = (seen.document["input"] for seen in proxied.talker.seen)
    assert after[0] == before[0]


def test_too_many_pictures_are_refused_before_anything_is_looked_for():
    """Of 100,000 turns with a picture and no question each would else be looked through for every other."""

    class Counted(list[Turn]):
        looked = 0

        def __getitem__(self, place: Any) -> Any:
            self.looked += 1
            return super().__getitem__(place)

    turns = Counted([Turn("user", "", (Picture((place,), "", str),)) for place in range(500)])
    with pytest.raises(RequestRefusedError, match="holds 500 pictures") as told:
        conversation.pictures_of(turns, 16)
    assert told.value.status == 413 and turns.looked == 0


async def test_a_picture_is_hashed_once_however_many_questions_are_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    hashed: list[bytes] = []

    def digest(data: bytes) -> str:
        hashed.append(data)
        return hashlib.sha256(data).hexdigest()

    monkeypatch.setattr(words, "digest", digest)
    monkeypatch.setattr(conversation, "digest", digest)
    await put(serve(), [user(text(COLOUR), shown()), *[REPLY, {"role": "user", "content": SAYS}] * 20])
    assert hashed.count(picture()) == 1


async def test_later_questions_have_so_many_seconds_together():
    class Slow:
        async def line(self, data: bytes, question: str | None, where: str, **options: Any) -> str:
            if question != COLOUR:
                await asyncio.sleep(0.05)
            return f"words for {question}"

    first = Turn("user", COLOUR, (Picture(("a",), data_url(picture()), str),))
    later = [Turn("user", f"question {number}", (), lambda text: Suffix(("b",), text)) for number in range(100)]
    slow: Any = Slow()
    assert len(await conversation.edits([first, *later[:3]], Pictures(), slow)) == 4
    with pytest.raises(RequestRefusedError, match=r"not found within 0\.5 seconds; try again later") as told:
        await conversation.edits([first, *later], Pictures(Limits(seconds=0.5)), slow)
    assert told.value.status == 429


class Told:
    """Words of pictures, of which some are those of the question."""

    async def line(self, data: bytes, question: str | None, where: str = "", *, key: str = "") -> str:
        return f"{key[:6]} {' '.join(sorted(set((question or 'all').split())))}"


ASKED = ("", "what colour", "how many in image 1", "where is picture 2", "  ", "hello")
SIDES = ("user", "user", "assistant", "tool")


def entry(pick: random.Random, dialect: str, who: str) -> dict[str, Any]:
    """A message of any kind: a text, pictures, both, nothing."""
    seeds = [pick.randrange(5) for _ in range(pick.choice([0, 0, 1, 1, 2]))]
    asks, as_parts = pick.choice(ASKED), pick.random() < 0.5
    if dialect == "messages":
        encoded = [url.partition(",")[2] for url in map(URLS.__getitem__, seeds)]
        parts = [{"type": "image", "source": {"type": "base64", "data": data}} for data in encoded]
        parts = [{"type": "tool_result", "tool_use_id": "t", "content": parts}] if who == "tool" else parts
        parts += [{"type": "text", "text": asks}] if asks.strip() else []
        role = "assistant" if who == "assistant" else "user"
        return {"role": role, "content": parts if seeds or who == "tool" or as_parts else asks}
    if dialect == "responses":
        parts = [{"type": "input_image", "image_url": URLS[seed]} for seed in seeds]
        if who == "tool":
            return {"type": "function_call_output", "output": parts or asks}
        parts += [{"type": "input_text", "text": asks}] if asks.strip() else []
        return {"role": who, "content": parts if seeds or as_parts else asks}
    parts = [{"type": "image_url", "image_url": {"url": URLS[seed]}} for seed in seeds]
    parts.insert(pick.randrange(len(parts) + 1), {"type": "text", "text": asks})
    return {"role": who, "content": parts if seeds or as_parts else asks}


URLS = [data_url(picture(seed, (4, 4))) for seed in range(5)]
CONVERSATIONS = [("chat", chat, "messages"), ("messages", messages, "messages"), ("responses", responses, "input")]


@pytest.mark.parametrize(("name", "dialect", "key"), CONVERSATIONS)
async def test_of_any_conversation_the_beginning_stays(name: str, dialect: Any, key: str):
    """Sent again at each of the model's turns, it begins as it did when it was sent before."""
    again = 0
    for seed in range(150):
        pick = random.Random(seed)
        sides = [pick.choice(SIDES) for _ in range(pick.randrange(2, 9))]
        whole = [entry(pick, name, side) for side in sides]
        before: list[Any] = []
        for end in range(1, len(whole) + 1):
            if sides[end - 1] == "assistant" or (end < len(whole) and sides[end] != "assistant"):
                continue
            document = {key: whole[:end]}
            words: Any = Told()
            edits = await conversation.edits(dialect.turns(document), Pictures(Limits(pictures=100)), words)
            now = json.loads(edited(json.dumps(document), edits))[key]
            assert now[: len(before)] == before
            again += AGAIN in json.dumps(now[len(before) :]) and bool(before)
            before = now
    assert again > 5  # and it is about more than first questions
