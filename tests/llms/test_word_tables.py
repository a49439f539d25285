"""What the embedded LLM says of words after constant prompts: learnt once, kept on disk, answered as if asked."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import random
import sqlite3
import subprocess
import sys

import pytest
from fake_llama import fake_local

from icl_vision.contracts import Prompt
from icl_vision.errors import BudgetExceededError, LLMUnavailableError, UsageError
from icl_vision.files.rows import JsonRows
from icl_vision.llms import Budget, CachedLLM, FakeLLM, FallbackLLM, Meter, MeteredLLM, ResponseCache, cache_mode
from icl_vision.llms.loop import run_sync
from icl_vision.llms.scores import take
from icl_vision.llms.word_tables import (
    FILE,
    LEARNING,
    WordTable,
    WordTables,
    key_of,
    learns,
    table_of,
    unknown,
    word_tables,
)
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.llms.wrappers.replay import record

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the extra local (xllamacpp)"
)

PROMPTS = [Prompt("", f"{label}: sea sand {other}", f"{label}:") for label in ("cat", "dog") for other in ("a", "b")]
WORDS = [f"word{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask(llm, words, prompts=PROMPTS):
    return llm.score_sync([(prompt, " " + word) for prompt in prompts for word in words], terminator="")


def learn(llm, words=WORDS, prompts=PROMPTS):
    return run_sync(llm.learn_words(prompts, words))


def test_a_learnt_word_is_answered_exactly_as_if_it_were_asked_and_without_a_request(monkeypatch):
    llm, server = fake_local(monkeypatch)
    draw = random.Random(0)
    bags = [draw.sample(WORDS, 5) for _ in range(20)]
    ask(llm, bags[0])  # the slot then holds what it holds before every later call
    asked = [ask(llm, bag) for bag in bags]
    spent = learn(llm)
    assert spent.requests == LEARNING * len(PROMPTS)
    before = len(server.requests)
    learnt = [ask(llm, bag) for bag in bags]
    assert len(server.requests) == before
    for one, other in zip(asked, learnt, strict=True):
        assert other.usage.requests == other.usage.prompt_tokens == 0
        assert other.method == "word tables"
        assert other.logprobs == pytest.approx(one.logprobs, abs=2e-4)
    assert learn(llm).requests == 0


def test_an_image_is_answered_alike_whichever_others_are_asked_with_it(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    first, second = WORDS[:5], WORDS[5:10]
    pairs = [(prompt, " " + word) for bag in (first, second) for prompt in PROMPTS for word in bag]
    together = llm.score_sync(pairs, terminator="").logprobs
    assert together == (*ask(llm, first).logprobs, *ask(llm, second).logprobs)


def test_another_process_finds_the_same_numbers(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    found = ask(llm, WORDS[:5]).logprobs
    again, server = fake_local(monkeypatch)
    assert ask(again, WORDS[:5]).logprobs == found
    assert not server.requests


@pytest.mark.parametrize(
    ("model", "options"),
    [("b" * 64, {}), ("a" * 64, {"context": 512}), ("a" * 64, {"slots": 2}), ("a" * 64, {"threads": 7})],
)
def test_another_model_or_another_server_finds_nothing(monkeypatch, model, options):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    other, server = fake_local(monkeypatch, model, **options)
    assert table_of(other, PROMPTS[0]) is None
    assert ask(other, WORDS[:5]).usage.requests == len(server.requests) > 0


def test_another_llama_cpp_finds_nothing(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    monkeypatch.setattr("icl_vision.llms.local.embedded.llama_version", lambda: "another")
    assert table_of(fake_local(monkeypatch)[0], PROMPTS[0]) is None


def test_the_model_file_itself_tells_one_from_another(tmp_path, monkeypatch):
    from icl_vision.llms.local.gguf import file_hash

    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    first = file_hash(path)
    path.write_bytes(b"another")
    assert file_hash(path) != first
    with pytest.raises(LLMUnavailableError, match=r"missing.gguf' cannot be read"):
        file_hash(tmp_path / "missing.gguf")


def test_words_that_were_not_learnt_are_asked_and_then_kept(monkeypatch):
    llm, server = fake_local(monkeypatch)
    learn(llm, WORDS[:30])
    mixed = [*WORDS[28:32], "twofold"]
    asked = ask(llm, mixed)
    assert asked.usage.requests == len(server.requests) - LEARNING * len(PROMPTS) > 0
    again, other = fake_local(monkeypatch)
    assert ask(again, mixed).logprobs == pytest.approx(asked.logprobs, abs=1e-4)
    assert not other.requests


def test_words_of_several_tokens_are_scored_whole_and_never_by_their_first_token(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    with word_tables("off"):
        ask(llm, ["twofold", "twotwo"])
        right = ask(llm, ["twofold", "twotwo"]).logprobs
    learn(llm, [*WORDS, "twofold", "twotwo"])
    table = table_of(llm, PROMPTS[0])
    assert "word1" in table and "twofold" not in table
    assert ask(llm, ["twofold", "twotwo"]).logprobs == pytest.approx(right, abs=0.3)


def test_nothing_is_learnt_where_a_word_melts_into_the_prompt(monkeypatch):
    llm, server = fake_local(monkeypatch)
    plain = server.tokenize

    async def melting(text, *, start=True, special=False):
        tokens = await plain(text, start=start, special=special)
        return [*tokens[:-2], 9999] if ": word" in text else tokens

    monkeypatch.setattr(server, "tokenize", melting)
    assert learn(llm).requests == 0
    assert table_of(llm, PROMPTS[0]) is None


def test_a_terminator_is_no_business_of_a_table(monkeypatch):
    llm, server = fake_local(monkeypatch)
    learn(llm)
    before = len(server.requests)
    llm.score_sync([(PROMPTS[0], " word1")], terminator="\n")
    llm.score_sync([(PROMPTS[0], "word1")], terminator="")
    assert len(server.requests) > before + 1


def test_deterministic_and_closed_llms(monkeypatch):
    llm, _ = fake_local(monkeypatch, deterministic=True)
    assert not llm.learns_words and learn(llm).requests == 0
    open_, _ = fake_local(monkeypatch)
    learn(open_)
    open_.close()
    with pytest.raises(LLMUnavailableError, match="was closed"):
        ask(open_, WORDS[:5])
    with pytest.raises(LLMUnavailableError, match="was closed"):
        learn(open_)


@pytest.mark.parametrize("off", [word_tables, cache_mode])
def test_switched_off_nothing_is_read_written_or_learnt(monkeypatch, cache, off):
    llm, server = fake_local(monkeypatch)
    with off("off"):
        assert not learns(llm)
        assert learn(llm).requests == 0
        ask(llm, WORDS[:5])
    assert not (cache / FILE).exists()
    learn(llm)
    before = len(server.requests)
    with off("off"):
        assert table_of(llm, PROMPTS[0]) is None
        assert ask(llm, WORDS[:5]).usage.requests == len(server.requests) - before > 0
    with pytest.raises(UsageError, match="word_tables must be 'on' or 'off'; got 'perhaps'"), word_tables("perhaps"):
        pass


def test_a_damaged_row_is_learnt_again(monkeypatch, cache, caplog):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    with sqlite3.connect(cache / FILE) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM tables ORDER BY key")]
        bodies = ['{"words": ["x"], "shares": [-1.0], "levels": [NaN], "more": {}}', "not JSON", '{"words": 3}', "{}"]
        for key, body in zip(keys, bodies, strict=True):
            connection.execute("UPDATE tables SET body = ? WHERE key = ?", (body, key))
    again, server = fake_local(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert ask(again, WORDS[:5]).usage.requests == len(server.requests) > 0
    assert caplog.text.count("deleted") == len(PROMPTS)
    assert learn(again).requests == LEARNING * len(PROMPTS)


@pytest.mark.parametrize("what", ["no database", "a folder"])
def test_a_file_that_cannot_be_used_costs_one_warning_and_nothing_else(monkeypatch, cache, caplog, what):
    cache.mkdir()
    if what == "a folder":
        (cache / FILE).mkdir()
    else:
        (cache / FILE).write_bytes(b"this is no database at all, but it is long enough to be read as one" * 40)
    llm, server = fake_local(monkeypatch)
    with caplog.at_level(logging.WARNING):
        learn(llm)
        before = len(server.requests)
        ask(llm, WORDS[:5])
        ask(llm, [*WORDS[:5], "another"])
    assert len(server.requests) == before + len(PROMPTS)  # in memory all the same, and the new word
    assert caplog.text.count("is kept in memory only") == 1


def test_a_full_disk_costs_one_warning(monkeypatch, caplog):
    llm, server = fake_local(monkeypatch)

    def full(self, bodies):
        with self._guard("written"):
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(JsonRows, "put_all", full)
    with caplog.at_level(logging.WARNING):
        learn(llm)
        before = len(server.requests)
        assert ask(llm, WORDS[:5]).usage.requests == 0 == len(server.requests) - before
    assert caplog.text.count("disk is full") == 1


def test_the_file_stays_below_its_limit_and_the_oldest_goes_first(tmp_path):
    tables = WordTables(tmp_path / "small.sqlite", most_bytes=200_000)
    words = [f"w{number}" for number in range(200)]
    for number in range(100):
        tables.keep({f"{number:03d}": WordTable.of(words, [-1.0] * 200, [-2.0] * 200)})
    assert (tmp_path / "small.sqlite").stat().st_size < 300_000
    fresh = WordTables(tmp_path / "small.sqlite")
    found = fresh.load(f"{number:03d}" for number in range(100))
    assert "099" in found and "000" not in found


def test_the_file_may_go_at_any_time(monkeypatch, cache):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    for path in cache.glob(f"{FILE}*"):
        path.unlink()
    assert ask(llm, WORDS[:5]).usage.requests == 0
    again, server = fake_local(monkeypatch)
    assert ask(again, WORDS[:5]).usage.requests == len(server.requests) > 0


WRITER = """
import sys
from icl_vision.llms.word_tables import WordTable, WordTables
tables = WordTables(sys.argv[1])
for place in range(20):
    for key in (f"{sys.argv[2]}-{place}", "both"):
        tables.keep({key: WordTable.of(["a", "b"], [-1.0, -2.0], [-3.0, -4.0])})
"""


def test_two_processes_at_once(tmp_path):
    path = tmp_path / "shared.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(2)]
    assert [one.wait() for one in writers] == [0, 0]
    keys = [*(f"{number}-{place}" for number in range(2) for place in range(20)), "both"]
    assert WordTables(path).load(keys).keys() == set(keys)


def test_who_learns_second_finds_what_the_first_has_learnt(monkeypatch):
    import asyncio

    llm, server = fake_local(monkeypatch)

    async def both():
        return await asyncio.gather(llm.learn_words(PROMPTS, WORDS), llm.learn_words(PROMPTS, WORDS))

    spent = run_sync(both())
    assert sorted(one.requests for one in spent) == [0, LEARNING * len(PROMPTS)]
    assert len(server.requests) == LEARNING * len(PROMPTS)


def test_progress_counts_every_prompt(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    learn(llm, WORDS, PROMPTS[:1])
    told = []
    run_sync(llm.learn_words(PROMPTS, WORDS, done=told.append))
    assert sum(told) == len(PROMPTS)


def test_a_stop_in_the_middle_keeps_what_was_learnt(monkeypatch):
    llm, server = fake_local(monkeypatch)
    plain, count = server.post, 0

    async def breaks(path, document):
        nonlocal count
        count += 1
        if count > LEARNING:
            raise LLMUnavailableError("the server is gone")
        return await plain(path, document)

    monkeypatch.setattr(server, "post", breaks)
    with pytest.raises(LLMUnavailableError, match="the server is gone"):
        learn(llm)
    found = [table_of(fake_local(monkeypatch)[0], prompt) for prompt in PROMPTS]
    assert sum(table is not None for table in found) == 1


def test_a_call_that_fails_for_a_new_word_hands_on_what_the_tables_know(monkeypatch):
    llm, server = fake_local(monkeypatch)
    learn(llm)
    known = ask(llm, WORDS[:2], PROMPTS[:1]).logprobs
    server.failure = LLMUnavailableError("the server is gone")
    with pytest.raises(LLMUnavailableError) as caught:
        llm.score_sync([(PROMPTS[0], " new"), *((PROMPTS[0], f" {word}") for word in WORDS[:2])], terminator="")
    assert take(caught.value).logprobs == {1: known[0], 2: known[1]}


# ---- wrappers ----


def test_a_meter_books_what_was_asked_and_nothing_for_what_was_known(monkeypatch):
    llm, server = fake_local(monkeypatch)
    meter = Meter(budget=Budget(requests=LEARNING * len(PROMPTS)))
    metered = MeteredLLM(llm, meter)
    assert learn(metered).requests == LEARNING * len(PROMPTS) == meter.total()[0].requests
    assert learn(metered).requests == 0
    assert ask(metered, WORDS[:5]).usage.requests == 0  # though the budget is used up
    with pytest.raises(BudgetExceededError):
        ask(metered, ["another"])
    with pytest.raises(BudgetExceededError):
        learn(metered, WORDS, [Prompt("", "", "new:")])
    assert meter.total()[0].requests == len(server.requests)


def test_pairs_that_no_table_answers(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    pairs = [(PROMPTS[0], " word1"), (PROMPTS[0], " other"), (PROMPTS[0], "word1")]
    assert run_sync(unknown(llm, pairs)) == pairs
    learn(llm)
    assert run_sync(unknown(llm, pairs)) == pairs[1:]
    assert run_sync(unknown(FakeLLM(), pairs)) == pairs


def test_through_a_cache_and_a_recording(monkeypatch, tmp_path):
    llm, server = fake_local(monkeypatch)
    cached = CachedLLM(record(llm, tmp_path / "recorded.jsonl"), ResponseCache(tmp_path / "responses.sqlite"))
    assert learn(cached).requests == LEARNING * len(PROMPTS)
    before = len(server.requests)
    found = ask(cached, WORDS[:5])
    assert len(server.requests) == before and found.usage.requests == 0
    assert ask(llm, WORDS[:5]).logprobs == found.logprobs
    from icl_vision import connect

    replayed = connect(f"replay:{tmp_path / 'recorded.jsonl'}")
    assert not learns(replayed)
    assert ask(replayed, WORDS[:5]).logprobs == found.logprobs


def test_a_plan_never_asks_and_knows_what_is_kept(monkeypatch):
    llm, server = fake_local(monkeypatch)
    dry = DryLLM(llm)
    assert learn(dry).requests == 0 and not server.requests
    learn(llm)
    assert "word1" in table_of(dry, PROMPTS[0])


def test_llms_that_keep_nothing(monkeypatch):
    assert learn(FakeLLM(scores_bags=True)).requests == 0
    assert not learns(FallbackLLM([fake_local(monkeypatch)[0], FakeLLM(scores_bags=True)]))
    with pytest.raises(UsageError, match="a word to learn must be a string that is not empty; got ''"):
        learn(FakeLLM(), [""])


def test_a_llm_with_tables_goes_through_a_pickle(monkeypatch):
    llm, _ = fake_local(monkeypatch)
    learn(llm)
    twin = pickle.loads(pickle.dumps(llm))  # noqa: S301 - its own
    assert ask(twin, WORDS[:5]).logprobs == ask(llm, WORDS[:5]).logprobs


def test_keys_hold_all_that_decides(monkeypatch):
    keys = {key_of(identity, prompt) for identity in (("a", 1), ("a", 2), ("b", 1)) for prompt in PROMPTS}
    assert len(keys) == 3 * len(PROMPTS)
