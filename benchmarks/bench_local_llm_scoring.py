"""Time of one query with the embedded LLM (Gemma 3 270M), with and without the prefix cache.

    python benchmarks/bench_local_llm_scoring.py [--ways 5 --shots 3 --words 5 --threads 1 2] [--out FILE.json]

Rows, per number of threads:

- first query: channel scoring right after a new support set, whose tokens are evaluated once
- channel: log P(words | label) for every label, support set in the cache
- direct: log P(label | words) for every label, support set in the cache
- open-ended: greedy writing of a label, support set in the cache
- channel, no cache: the same requests as "channel", each evaluating its whole prompt (once, not --repeats times)
- bounds for the two other designs (llms/local/scoring.py says which was taken): as many tokens written as
  channel scoring asks for, in a row by one slot ("forced in one request") and by a slot for each label ("side by side")

Wall time, median and worst; idle cores give the best figures. No accuracy is measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.contracts import Prompt, Scores
from icl_vision.llms import LocalLLM
from icl_vision.llms.local.server import usable_cores
from icl_vision.llms.loop import run_sync
from icl_vision.tasks.classify.prompts import Example, PreparedPrompt, PromptBuilder

LABELS = (
    "golden retriever", "sailboat", "hummingbird", "acoustic guitar", "sports car", "volcano", "pizza", "lighthouse",
    "school bus", "sunflower",
)  # fmt: skip
WORDS = """dog grass puppy fur boat sea sail wave harbor tree leaf bird wing feather guitar string music wood piano car
road wheel engine metal flower petal garden rose yellow smoke fire rock mountain ash cheese bread tomato oven plate
tower light coast cliff children window street driver seed field summer bee""".split()


class Episode:
    """A support set and an endless supply of queries, in channel and direct form."""

    def __init__(self, ways: int, shots: int, words: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = words
        self.labels = LABELS[:ways]
        examples = [Example(self.words(), label) for _ in range(shots) for label in self.labels]
        builder = PromptBuilder("classification")
        self.direct_prompt: PreparedPrompt = builder.prepare(examples, self.labels)
        self.channel_prompt: PreparedPrompt = builder.channel().prepare(examples, self.labels)

    def words(self) -> str:
        return " ".join(self._random.sample(WORDS, self._words))

    def channel(self) -> list[tuple[Prompt, str]]:
        words = self.words()
        return [(self.channel_prompt.query(label=label), " " + words) for label in self.labels]

    def direct(self) -> list[tuple[Prompt, str]]:
        prompt = self.direct_prompt.query(words=self.words())
        return [(prompt, " " + label) for label in self.labels]


def timed(action: Callable[[], Any], repeats: int) -> tuple[dict[str, Any], Any]:
    """Seconds of each run, and the last result."""
    seconds, result = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - began)
    return {
        "median_s": round(statistics.median(seconds), 3),
        "worst_s": round(max(seconds), 3),
        "runs": repeats,
    }, result


def spent(result: Scores) -> dict[str, int]:
    usage = result.usage
    return {"requests": usage.requests, "evaluated_tokens": usage.prompt_tokens - usage.cached_tokens}


async def without_cache(llm: LocalLLM, pairs: list[tuple[Prompt, str]]) -> None:
    """The requests of channel scoring, each with its whole prompt to evaluate."""
    server = await llm._ready()
    for prompt, continuation in pairs:
        start = len(await server.tokenize(prompt.text))
        ids = await server.tokenize(prompt.text + continuation + "\n")
        for at in range(start, len(ids)):
            await server.post("/completion", {"prompt": ids[:at], "n_predict": 1, "n_probs": 1, "cache_prompt": False})


async def write_tokens(llm: LocalLLM, prompts: list[Prompt], tokens: int) -> None:
    """Each prompt continued by so many tokens with their probabilities, all at once, each in a slot of its own."""
    server = await llm._ready()
    documents = [
        {
            "prompt": await server.tokenize(prompt.text),
            "n_predict": tokens,
            "n_probs": 1,
            "temperature": 0,
            "ignore_eos": True,
            "id_slot": slot,
        }
        for slot, prompt in enumerate(prompts)
    ]
    await asyncio.gather(*(server.post("/completion", document) for document in documents))


def measure(threads: int, options: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    episode = Episode(options.ways, options.shots, options.words, seed=0)
    llm = LocalLLM(threads=threads)
    llm.complete_sync("One two", max_tokens=1)  # the model is loaded and its file in memory
    prompt_tokens = llm.count_tokens_sync(episode.channel()[0][0].text)

    support_sets = iter(range(1, 1000))

    def first_query() -> Scores:
        return llm.score_sync(Episode(options.ways, options.shots, options.words, next(support_sets)).channel())

    rows["first query"], result = timed(first_query, options.repeats)
    rows["first query"] |= spent(result)
    for name, pairs in (("channel", episode.channel), ("direct", episode.direct)):
        llm.score_sync(pairs())
        rows[name], result = timed(lambda pairs=pairs: llm.score_sync(pairs()), options.repeats)
        rows[name] |= spent(result)
    rows["open-ended"], _ = timed(
        lambda: llm.complete_sync(episode.direct()[0][0], max_tokens=16, stop="\n"), options.repeats
    )
    rows["channel, no cache"], _ = timed(lambda: run_sync(without_cache(llm, episode.channel())), 1)

    steps = options.words + 1
    prompts = [prompt for prompt, _ in episode.channel()]
    run_sync(write_tokens(llm, prompts[:1], 1))
    rows["bound: forced in one request"], _ = timed(
        lambda: run_sync(write_tokens(llm, prompts[:1], steps * options.ways)), options.repeats
    )
    slots = LocalLLM(threads=threads, slots=options.ways, context=2048)
    run_sync(write_tokens(slots, prompts, 1))
    rows["bound: side by side in slots"], _ = timed(
        lambda: run_sync(write_tokens(slots, prompts, steps)), options.repeats
    )
    return {"threads": threads, "prompt_tokens": prompt_tokens, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", type=int, default=5, choices=range(2, len(LABELS) + 1))
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--words", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, usable_cores()}))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results = [measure(threads, options) for threads in options.threads]
    for result in results:
        print(
            f"\n{result['threads']} thread(s), {options.ways}-way {options.shots}-shot, {options.words} words, ", end=""
        )
        print(f"{result['prompt_tokens']} prompt tokens")
        for name, row in result["rows"].items():
            more = f"  {row['requests']} requests, {row['evaluated_tokens']} new tokens" if "requests" in row else ""
            print(f"  {name:30s} median {row['median_s']:7.3f} s  worst {row['worst_s']:7.3f} s{more}")
    if options.out:
        settings = {"ways": options.ways, "shots": options.shots, "words": options.words}
        write(options.out, header(seed=0) | {"load_before": load, "settings": settings, "results": results})


if __name__ == "__main__":
    main()
