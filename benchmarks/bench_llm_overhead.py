"""What the library adds to a request: the same questions through the bare SDK, through LangChain and through us.

    python benchmarks/bench_llm_overhead.py --rounds 9 --out benchmarks/results/llm_overhead.json

1,000 requests, 64 at a time, to a server on loopback (a process of its own) that answers each after 50 ms: ideally
1000 * 0.05 / 64 = 0.78 s.

- bare: openai.AsyncOpenAI, chat.completions.create under an asyncio.Semaphore; its retries are off.
- ours: ``llm.complete`` awaited on the library's own event loop, as every task does. Retries, limiter and all.
- ours_from_users_loop: the same, awaited on an event loop of the user's: each request changes threads twice.
- langchain: ChatOpenAI.abatch with max_concurrency.

Warm: 500 requests go first, which lets our limiter grow from 8 to 64. Then each round's 1,000 requests are asked in
slices of 250, the contenders taking turns in an order drawn anew for every slice, since a shared machine is never the
same for long; 64 requests before every slice, not timed, open connections that idled away. Cold: a new client asks
1,000 at one go. Figures are medians over the rounds, ratios are medians of the ratios within a round.

CPU is this process's, all threads, per request; it is what is left of the comparison where the CPU and not the server
sets the pace, as ``over_ideal`` of the bare client tells.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from loopback_server import Loopback

from icl_vision.llms import OpenAICompatibleLLM
from icl_vision.llms.loop import run_sync

DELAY = 0.05
CONCURRENCY = 64
WARM_UP = 500
SLICE = 250
CONTEXT = "Input: river ocean boat sand\nOutput: sea\nInput: field fence grass barn\nOutput: farm\n" * 5

_number = itertools.count()


def prompts(count: int) -> list[str]:
    """As long as few-shot prompts of ten examples are."""
    return [f"{CONTEXT}Input: question {number}\nOutput:" for number in range(count)]


class Contender(ABC):
    """A client that stays open, and the event loop it lives on."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, count: int) -> None:
        self.run(self._ask(prompts(count)))

    def run(self, coro: Coroutine[Any, Any, Any]) -> None:
        _runner.run(coro)

    @abstractmethod
    async def _ask(self, texts: list[str]) -> None: ...

    def close(self) -> None:  # noqa: B027 - not every client can be closed
        """Close what can be closed."""


_runner = asyncio.Runner()
"""The user's event loop."""


class Bare(Contender):
    def __init__(self, url: str) -> None:
        import openai

        super().__init__(url)
        self.client = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0)

    async def _ask(self, texts: list[str]) -> None:
        gate = asyncio.Semaphore(CONCURRENCY)

        async def one(text: str) -> str | None:
            async with gate:
                answer = await self.client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": text}], max_tokens=16, temperature=0.0
                )
                return answer.choices[0].message.content

        await asyncio.gather(*map(one, texts))

    def close(self) -> None:
        self.run(self.client.close())


class OursFromUsersLoop(Contender):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.llm = OpenAICompatibleLLM("m", url, concurrency=CONCURRENCY)

    async def _ask(self, texts: list[str]) -> None:
        await asyncio.gather(*map(self.llm.complete, texts))

    def close(self) -> None:
        self.llm.close()


class Ours(OursFromUsersLoop):
    def run(self, coro: Coroutine[Any, Any, Any]) -> None:
        run_sync(coro)


class LangChain(Contender):
    def __init__(self, url: str) -> None:
        from langchain_openai import ChatOpenAI

        # It keeps one HTTP client for each address for as long as the process lives: an address of its own each time
        # (the server does not look at it) makes a new one.
        super().__init__(f"{url}/{next(_number)}")
        self.model = ChatOpenAI(
            model="m",
            api_key="none",
            base_url=self.url,
            max_retries=0,
            max_tokens=16,
            temperature=0.0,
            use_responses_api=False,
        )

    async def _ask(self, texts: list[str]) -> None:
        await self.model.abatch(list(texts), config={"max_concurrency": CONCURRENCY})


CONTENDERS: dict[str, type[Contender]] = {
    "bare": Bare,
    "ours": Ours,
    "ours_from_users_loop": OursFromUsersLoop,
    "langchain": LangChain,
}

Times = dict[str, list[tuple[float, float]]]
"""For each contender, seconds of wall clock and of CPU, a pair for each round."""


def timed(contender: Contender, count: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    contender.ask(count)
    return time.perf_counter() - wall, time.process_time() - cpu


def warm(kinds: dict[str, type[Contender]], url: str, requests: int, rounds: int, draw: random.Random) -> Times:
    contenders = {name: kind(url) for name, kind in kinds.items()}
    for contender in contenders.values():
        contender.ask(WARM_UP)
    found: Times = {name: [] for name in contenders}
    for number in range(rounds):
        sums = dict.fromkeys(contenders, (0.0, 0.0))
        for start in range(0, requests, SLICE):
            for name in draw.sample(sorted(contenders), len(contenders)):
                contenders[name].ask(CONCURRENCY)
                wall, cpu = timed(contenders[name], min(SLICE, requests - start))
                sums[name] = sums[name][0] + wall, sums[name][1] + cpu
        for name, pair in sums.items():
            found[name].append(pair)
        print(f"warm: round {number + 1} of {rounds}", file=sys.stderr)
    for contender in contenders.values():
        contender.close()
    return found


def cold(kinds: dict[str, type[Contender]], url: str, requests: int, rounds: int, draw: random.Random) -> Times:
    found: Times = {name: [] for name in kinds}
    for number in range(rounds):
        for name in draw.sample(sorted(kinds), len(kinds)):
            contender = kinds[name](url)
            found[name].append(timed(contender, requests))
            contender.close()
        print(f"cold: round {number + 1} of {rounds}", file=sys.stderr)
    return found


def measure(*, requests: int, rounds: int, seed: int) -> dict[str, Any]:
    ideal = requests * DELAY / CONCURRENCY
    draw = random.Random(seed)
    kinds = dict(CONTENDERS)
    try:
        import langchain_openai  # noqa: F401 - only whether it is there
    except ImportError:
        del kinds["langchain"]
        print("langchain-openai is not installed: its row is left out", file=sys.stderr)
    with Loopback(delay=DELAY) as server:
        found = {
            "warm": warm(kinds, server.url, requests, rounds, draw),
            "cold": cold(kinds, server.url, requests, max(1, rounds // 2), draw),
        }
        stats = server.stats()
    report: dict[str, Any] = {
        "requests": requests,
        "concurrency": CONCURRENCY,
        "delay_seconds": DELAY,
        "ideal_seconds": round(ideal, 3),
        "rounds": rounds,
        "server_cpu_ms_per_request": round(1000 * stats["cpu_seconds"] / stats["requests"], 3),
    }
    for kind, rows in found.items():
        walls = {name: [wall for wall, _ in row] for name, row in rows.items()}
        cpus = {name: [cpu for _, cpu in row] for name, row in rows.items()}
        report[kind] = {
            name: {
                "seconds": round(statistics.median(walls[name]), 3),
                "over_ideal": round(statistics.median(walls[name]) / ideal, 2),
                "over_bare": _ratio(walls[name], walls["bare"]),
                "cpu_ms_per_request": round(1000 * statistics.median(cpus[name]) / requests, 3),
                "cpu_over_bare": _ratio(cpus[name], cpus["bare"]),
                "all_seconds": [round(wall, 3) for wall in walls[name]],
                "all_cpu_seconds": [round(cpu, 3) for cpu in cpus[name]],
            }
            for name in rows
        }
    return report


def _ratio(values: list[float], base: list[float]) -> float:
    return round(statistics.median(value / other for value, other in zip(values, base, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=1000, help="requests timed in a round (default: 1000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5; half as many cold ones)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    report = measure(requests=arguments.requests, rounds=arguments.rounds, seed=arguments.seed)
    print(f"ideal {report['ideal_seconds']:.2f} s")
    for kind in ("warm", "cold"):
        for name, row in report[kind].items():
            print(
                f"{kind} {name:<21} {row['seconds']:6.2f} s ({row['over_bare']:.3f} of bare)  "
                f"CPU {row['cpu_ms_per_request']:.2f} ms a request ({row['cpu_over_bare']:.3f} of bare)"
            )
    if arguments.out is not None:
        write(arguments.out, {**header(arguments.seed), **report})


if __name__ == "__main__":
    main()
