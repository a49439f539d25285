"""Long work ends when its client gives it up, when it takes too long, and keeps nobody else waiting meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
from mcp import Client

from icl_vision.llms.fake import FakeLLM
from icl_vision.serving.pictures import Limits


class Slow:
    """A tokenizer in front of another whose every ``encode`` waits until ``go`` is set."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.begun, self.go = threading.Event(), threading.Event()
        self.lots = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, *arguments: Any, **options: Any) -> Any:
        self.lots += 1
        self.begun.set()
        assert self.go.wait(30)
        return self._tokenizer.encode(*arguments, **options)


class Hanging(FakeLLM):
    """Never answers; says when it was asked and when the request was given up."""

    def __init__(self) -> None:
        super().__init__("nothing", scores_text=False)
        self.asked, self.given_up = threading.Event(), threading.Event()

    async def _complete(self, *_: Any, **__: Any) -> Any:
        self.asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.given_up.set()
            raise


async def happened(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, 30)


async def test_a_folder_given_up_is_left_at_the_next_lot(world: Any, era: str, picture: Any) -> None:
    for number in range(40):
        (world.root / f"{number:02d}.png").write_bytes(picture())
    slow = Slow(world.tokenizer)
    given = {"folder": ".", "out": "all.jsonl"}
    async with Client(world.server(tokenizer=slow), mode=era) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "tokenize_folder", given)
            await happened(slow.begun)
            refused = await client.call_tool("tokenize_folder", given)
            assert refused.is_error and "another folder" in refused.content[0].text
            # (In one process giving up waits for the server to have done so.)
            asyncio.get_running_loop().call_later(0.05, slow.go.set)
            group.cancel_scope.cancel()
        with anyio.fail_after(30):
            while (result := await client.call_tool("tokenize_folder", given)).is_error:
                assert "another folder" in result.content[0].text
                await anyio.sleep(0.01)
    assert result.structured_content["images"] == 42
    assert slow.lots == 1 + 6  # of the first call one, of the last all
    assert sorted(path.name for path in world.out.iterdir()) == ["all.jsonl", "all.jsonl.run.json"]


async def test_nothing_is_written_of_what_was_given_up(world: Any, era: str) -> None:
    slow = Slow(world.tokenizer)
    async with Client(world.server(tokenizer=slow), mode=era) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "tokenize_folder", {"folder": ".", "out": "all.jsonl"})
            await happened(slow.begun)
            asyncio.get_running_loop().call_later(0.05, slow.go.set)
            group.cancel_scope.cancel()
        with anyio.fail_after(30):
            while any(world.out.iterdir()):  # noqa: ASYNC110  # nobody tells of a file that is gone
                await anyio.sleep(0.01)


async def test_a_question_given_up_is_given_up_at_the_llm(world: Any, era: str) -> None:
    llm = Hanging()
    async with Client(world.server(llm=llm), mode=era) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "ask_image", {"path": "red.png", "question": "what is it?"})
            await happened(llm.asked)
            group.cancel_scope.cancel()
        await happened(llm.given_up)


async def test_a_drawing_given_up_is_given_up_at_the_llm(world: Any, era: str) -> None:
    llm = Hanging()
    async with Client(world.server(llm=llm), mode=era) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "draw_image", {"text": "an image of 3"})
            await happened(llm.asked)
            group.cancel_scope.cancel()
        await happened(llm.given_up)


async def test_what_takes_too_long_is_stopped(world: Any, era: str, text_of: Any) -> None:
    llm = Hanging()
    async with Client(world.server(llm=llm, seconds=2), mode=era) as client:
        result = await client.call_tool("ask_image", {"path": "red.png", "question": "what is it?"})
    assert result.is_error and text_of(result) == "ask_image took more than 2 seconds and was stopped; ask for less"
    await happened(llm.given_up)


async def test_others_are_answered_meanwhile_and_the_next_is_refused(world: Any, era: str, text_of: Any) -> None:
    slow = Slow(world.tokenizer)
    results = []
    kit = {"tokenizer": slow, "at_once": 1, "limits": Limits(waiting=1)}
    async with Client(world.server(**kit), mode=era) as client:

        async def describe() -> None:
            results.append(await client.call_tool("describe_image", {"path": "red.png"}))

        async with anyio.create_task_group() as group:
            group.start_soon(describe)
            await happened(slow.begun)
            assert len((await client.list_tools()).tools) == 5
            group.start_soon(describe)
            await anyio.wait_all_tasks_blocked()
            refused = await client.call_tool("describe_image", {"path": "below/blue.png"})
            assert text_of(refused) == "the server is busy: 1 calls are at work and 1 wait; try again later"
            slow.go.set()
    assert [result.is_error for result in results] == [False, False]
    assert results[0].structured_content == results[1].structured_content and slow.lots == 1


@pytest.mark.parametrize("count", [0, 1])
async def test_a_turn_is_given_back(world: Any, count: int) -> None:
    """Calls that fail, or are given up while they wait, leave no turn taken."""
    llm = Hanging()
    async with Client(world.server(llm=llm, at_once=1)) as client:
        for _ in range(3):
            with anyio.move_on_after(0.1 * count):
                await client.call_tool("ask_image", {"path": "red.png", "question": "what is it?"})
            await client.call_tool("describe_image", {"path": "missing.png"})
        assert not (await client.call_tool("describe_image", {"path": "red.png"})).is_error
