"""What was paid for once is not paid for again, and nothing false is ever served."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, Usage
from icl_vision.errors import LLMResponseError, LLMUnavailableError, StorageError, UsageError
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.modes import cache_mode, repeat
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache


class Counting(BaseLLM):
    """Numbers its answers and counts what it was asked."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked = 0
        self.scored: list[tuple[Prompt, str]] = []
        self.fail = False
        self.gate: asyncio.Event | None = None

    @property
    def profile(self) -> Profile:
        return Profile(self.name, scores_text=True, constraint="json_schema", seed=True)

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(0.01)
        if self.fail:
            raise LLMUnavailableError("down")
        return Completion(f"answer {number}", "stop", Usage(1, 10, 0, 2))

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.scored.extend(pairs)
        return Scores(tuple(-float(len(text)) for _, text in pairs), Usage(len(pairs), 5), "direct")


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def llm(inner: Counting, tmp_path: Path) -> CachedLLM:
    return CachedLLM(inner, ResponseCache(tmp_path / "cache" / "responses.sqlite"))


def test_the_second_time_is_free(llm: CachedLLM, inner: Counting) -> None:
    first = llm.complete_sync("2+2=")
    again = llm.complete_sync("2+2=")
    assert first.text == again.text == "answer 1"
    assert first.finish_reason == again.finish_reason
    assert inner.asked == 1
    assert first.usage == Usage(1, 10, 0, 2)
    assert again.usage == Usage()  # nothing was spent
    assert "hits=1, misses=1" in repr(llm)


def test_it_survives_the_process(llm: CachedLLM, inner: Counting) -> None:
    llm.complete_sync("2+2=")
    other = CachedLLM(inner, ResponseCache(llm.cache.path))
    assert other.complete_sync("2+2=").text == "answer 1"
    assert inner.asked == 1


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 3},
        {"stop": ["\n"]},
        {"temperature": 0.5},
        {"seed": 4},
        {"constraint": Constraint(("4", "5"))},
    ],
)
def test_whatever_decides_the_answer_is_in_the_key(llm: CachedLLM, inner: Counting, change: dict[str, object]) -> None:
    llm.complete_sync("2+2=")
    llm.complete_sync("2+2=", **change)  # type: ignore[arg-type]  # a mapping of options
    assert inner.asked == 2


def test_model_and_prompt_parts_are_in_the_key(llm: CachedLLM, inner: Counting) -> None:
    llm.complete_sync(Prompt("a", "b", "c"))
    llm.complete_sync(Prompt("a", "", "b\nc"))  # the same text, but another chat message layout
    assert inner.asked == 2
    other = Counting("another model")
    CachedLLM(other, llm.cache).complete_sync(Prompt("a", "b", "c"))
    assert other.asked == 1


def test_repeats_are_kept_apart(llm: CachedLLM, inner: Counting) -> None:
    answers = []
    for _ in range(2):
        for index in range(3):
            with repeat(index):
                answers.append(llm.complete_sync("joke", temperature=1.0).text)
    assert answers == ["answer 1", "answer 2", "answer 3"] * 2
    assert inner.asked == 3
    with pytest.raises(UsageError, match="0 or more; got -1"), repeat(-1):
        pass


def test_modes(llm: CachedLLM, inner: Counting) -> None:
    llm.complete_sync("x")
    with cache_mode("off"):
        assert llm.complete_sync("x").text == "answer 2"
    assert llm.complete_sync("x").text == "answer 1"
    with cache_mode("refresh"):
        assert llm.complete_sync("x").text == "answer 3"
    assert llm.complete_sync("x").text == "answer 3"
    with pytest.raises(UsageError, match="got 'only'"), cache_mode("only"):  # type: ignore[arg-type]  # wrong on purpose
        pass


def test_errors_are_never_stored(llm: CachedLLM, inner: Counting) -> None:
    inner.fail = True
    with pytest.raises(LLMUnavailableError):
        llm.complete_sync("x")
    assert len(llm.cache) == 0
    inner.fail = False
    assert llm.complete_sync("x").text == "answer 2"


def test_identical_requests_in_flight_share_one_call(llm: CachedLLM, inner: Counting) -> None:
    async def main() -> set[str]:
        return {answer.text for answer in await asyncio.gather(*(llm.complete("x") for _ in range(20)))}

    assert asyncio.run(main()) == {"answer 1"}
    assert inner.asked == 1


async def test_a_cancelled_first_asker_is_followed_by_one_other(llm: CachedLLM, inner: Counting) -> None:
    tasks = [asyncio.create_task(llm.complete("2+2=")) for _ in range(10)]
    while not inner.asked:  # noqa: ASYNC110 - it is asked on another loop
        await asyncio.sleep(0)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {answer.text for answer in answers[1:] if isinstance(answer, Completion)} == {"answer 2"}
    assert inner.asked == 2


def test_a_failing_first_asker_does_not_fail_the_others_for_good(llm: CachedLLM, inner: Counting) -> None:
    inner.fail = True

    async def main() -> list[object]:
        return list(await asyncio.gather(*(llm.complete("x") for _ in range(3)), return_exceptions=True))

    assert all(isinstance(answer, LLMUnavailableError) for answer in asyncio.run(main()))
    assert inner.asked == 3


def test_scores_are_cached_pair_by_pair(llm: CachedLLM, inner: Counting) -> None:
    prompt = Prompt("", "", "q")
    first = llm.score_sync([(prompt, " a"), (prompt, " bb")])
    second = llm.score_sync([(prompt, " bb"), (prompt, " ccc"), (prompt, " ccc")])
    assert first.logprobs == (-2.0, -3.0)
    assert second.logprobs == (-3.0, -4.0, -4.0)
    assert [text for _, text in inner.scored] == [" a", " bb", " ccc"]
    assert second.usage.requests == 1
    assert llm.score_sync([(prompt, " a")]).usage == Usage()
    assert llm.score_sync([(prompt, " a")], terminator="").usage.requests == 1


def test_a_score_of_minus_infinity_survives(tmp_path: Path) -> None:
    class Impossible(Counting):
        async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
            return Scores(tuple(-math.inf for _ in pairs), Usage(1), "direct")

    llm = CachedLLM(Impossible(), ResponseCache(tmp_path / "c.sqlite"))
    pair = [(Prompt("", "", "q"), " a")]
    assert llm.score_sync(pair).logprobs == llm.score_sync(pair).logprobs == (-math.inf,)


@pytest.mark.parametrize("body", ['{"logprob": NaN}', '{"logprob": Infinity}', '{"logprob": 3.5}', '{"logprob": true}'])
def test_a_score_that_is_none_is_a_miss(llm: CachedLLM, inner: Counting, body: str) -> None:
    pair = [(Prompt("", "", "q"), " a")]
    llm.score_sync(pair)
    llm.cache.close()
    with sqlite3.connect(llm.cache.path) as connection:
        connection.execute("UPDATE responses SET body = ?", (body,))
    connection.close()
    assert llm.score_sync(pair).logprobs == llm.score_sync(pair).logprobs == (-2.0,)
    assert len(inner.scored) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5])
def test_a_score_that_is_none_is_never_kept(tmp_path: Path, value: float) -> None:
    class Wrong(Counting):
        async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
            scores = await super()._score(pairs, terminator=terminator)
            return Scores(
                tuple(value if text == " b" else one for (_, text), one in zip(pairs, scores.logprobs, strict=True)),
                Usage(1),
            )

    inner = Wrong()
    llm = CachedLLM(inner, ResponseCache(tmp_path / "c.sqlite"))
    pairs = [(Prompt("", "", "q"), text) for text in (" a", " b", " cc")]
    for _ in range(2):
        with pytest.raises(LLMResponseError, match="as a log-probability"):
            llm.score_sync(pairs)
    assert len(llm.cache) == 2 and [text for _, text in inner.scored] == [" a", " b", " cc", " b"]


def test_minus_infinity_is_kept_only_where_the_method_can_give_it(tmp_path: Path) -> None:
    class Forced(Counting):
        async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
            return Scores(tuple(-math.inf for _ in pairs), Usage(1), "forced tokens")  # which have a floor

    llm = CachedLLM(Forced(), ResponseCache(tmp_path / "c.sqlite"))
    with pytest.raises(LLMResponseError, match="gave -inf as a log-probability"):
        llm.score_sync([(Prompt("", "", "q"), " a")])
    assert len(llm.cache) == 0


@pytest.mark.parametrize("body", ["not json", "[1, 2]", '{"text": 3, "finish_reason": "stop"}', "null"])
def test_a_damaged_row_is_a_miss(llm: CachedLLM, inner: Counting, body: str) -> None:
    llm.complete_sync("x")
    llm.cache.close()
    with sqlite3.connect(llm.cache.path) as connection:
        connection.execute("UPDATE responses SET body = ?", (body,))
    connection.close()
    assert llm.complete_sync("x").text == "answer 2"
    assert llm.complete_sync("x").text == "answer 2"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "responses.sqlite"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StorageError, match=r"responses\.sqlite.*delete the file"):
        CachedLLM(Counting(), ResponseCache(path)).complete_sync("x")


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    llm: CachedLLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(bodies: object) -> None:
        raise StorageError("the response cache cannot be written: the disk is full")

    monkeypatch.setattr(llm.cache, "put_all", full)
    assert llm.complete_sync("2+2=").text == "answer 1"  # it was paid for
    assert llm.score_sync([(Prompt("", "", "a"), " b")]).logprobs == (-2.0,)
    assert caplog.text.count("the disk is full") == 2


def test_threads_and_two_connections(tmp_path: Path) -> None:
    caches = [ResponseCache(tmp_path / "c.sqlite") for _ in range(2)]

    def work(number: int) -> None:
        caches[number % 2].put(f"key {number % 50}", {"text": "ä" * 100, "number": number})
        assert caches[(number + 1) % 2].get(f"key {number % 50}") is not None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert len(caches[0]) == 50
    for cache in caches:
        cache.close()


def test_the_default_place_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "private"))
    cache = ResponseCache()
    cache.put("k", {"text": "v"})
    assert cache.path == tmp_path / "private" / "responses.sqlite"
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0
    cache.close()
