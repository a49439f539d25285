"""Progressive decoding: what it costs beside the LLM, what a prefix cache saves, what becomes of malformed answers.

    python benchmarks/bench_progressive.py --out benchmarks/results/progressive.json
    python benchmarks/bench_progressive.py --only latency overhead fuzz        (no LLM)

- latency: PNAR at concurrency 16 to a server on loopback (a process of its own) that answers each request after 50 ms.
  Ideal: requests * 0.05 / 16. Open-ended, since the answers are right. A first drawing, not counted, opens
  connections and lets the limiter grow. The same
  requests go through the client without the decoder too, in turns: where the CPU and not the server sets the pace, only
  the difference between the two is the decoder's.
- overhead: PAR with 50 examples of 37 words, stride 4, to an LLM that answers at once: CPU of a segment without that
  inside the LLM. The first query of a segment renders its examples; each further one only adds its own line.
- cache: ten pictures drawn in one call by the embedded LLM, PAR: the share of prompt tokens that llama.cpp reports to
  have read from its cache. ``fixed_part`` is the share if nine of ten queries found just the examples there;
  queries that go on alike share more. ``expected`` is the plan's estimate.
- fuzz: malformed answers (``malformed_answers``); crashes and silent guesses must both be 0.

Medians over the rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from loopback_server import Loopback
from malformed_answers import fuzz, pictures

from icl_vision.contracts import Usage
from icl_vision.drawing import Pair, ProgressiveDecoder, Query, par, pnar
from icl_vision.llms import OpenAICompatibleLLM, connect
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.loop import run_sync
from icl_vision.pyramid import PyramidLayout

DIGIT = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))
DELAY = 0.05
CONCURRENCY = 16
QUERIES = 10


def pairs(count: int, seed: int) -> list[Pair]:
    return [Pair(f"an image of {at % 10}", picture) for at, picture in enumerate(pictures(count, DIGIT, seed))]


def queries(count: int) -> list[Query]:
    return [Query(f"an image of {at % 10}", name=str(at)) for at in range(count)]


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


class Recorded(OpenAICompatibleLLM):
    """Remembers what it was asked."""

    def __init__(self, url: str) -> None:
        super().__init__("m", url, concurrency=CONCURRENCY)
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    async def complete(self, prompt: Any, **settings: Any) -> Any:
        self.asked.append((prompt, settings))
        return await super().complete(prompt, **settings)


async def client_alone(llm: OpenAICompatibleLLM, requests: list[tuple[Any, dict[str, Any]]]) -> None:
    """The same requests through the same client, without the decoder."""
    left = iter(requests)

    async def work() -> None:
        for prompt, settings in left:
            await llm.complete(prompt, **settings)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def latency(rounds: int, seed: int) -> dict[str, Any]:
    """PNAR against 50 ms: 32 pictures of 37 one-word segments; and the same requests through the client alone."""
    walls: dict[str, list[float]] = {"decoder": [], "client": []}
    cpus: dict[str, list[float]] = {"decoder": [], "client": []}
    with Loopback(delay=DELAY) as server:
        llm = Recorded(server.url)
        decoder = ProgressiveDecoder(llm, pnar(1, allowed="vocabulary"), constrain="never", concurrency=CONCURRENCY)
        shown, asked = pairs(10, seed), queries(32)
        decoder.decode_sync(shown, asked)
        requests = list(llm.asked)
        plain = OpenAICompatibleLLM("m", server.url, concurrency=CONCURRENCY)
        run_sync(client_alone(plain, requests))
        ways: dict[str, Callable[[], object]] = {
            "decoder": lambda: decoder.decode_sync(shown, asked),
            "client": lambda: run_sync(client_alone(plain, requests)),
        }
        for _ in range(rounds):
            for name, way in ways.items():
                wall, cpu = time.perf_counter(), time.process_time()
                way()
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
        llm.close()
        plain.close()
        most = server.stats()["most_in_flight"]
    ideal = len(requests) * DELAY / CONCURRENCY
    return {
        "requests": len(requests),
        "concurrency": CONCURRENCY,
        "most_in_flight": most,
        "ideal_seconds": ideal,
        "seconds": spread(walls["decoder"]),
        "over_ideal": spread([wall / ideal - 1 for wall in walls["decoder"]]),
        "client_alone_over_ideal": spread([wall / ideal - 1 for wall in walls["client"]]),
        "over_client_alone": spread([a / b - 1 for a, b in zip(walls["decoder"], walls["client"], strict=True)]),
        "cpu_ms_a_request": {name: 1000 * statistics.median(some) / len(requests) for name, some in cpus.items()},
        "cpu_ms_a_request_that_fits": 1000 * DELAY / CONCURRENCY,
        "target": "over_ideal <= 0.10",
    }


class Timed(FakeLLM):
    """Answers at once, and knows how long it took to."""

    inside = 0.0

    async def _complete(self, *arguments: Any, **settings: Any) -> Any:
        started = time.process_time()
        try:
            return await super()._complete(*arguments, **settings)
        finally:
            self.inside += time.process_time() - started
            self.calls.clear()


def overhead(rounds: int, seed: int) -> dict[str, Any]:
    """Milliseconds of CPU of a segment beside the LLM, for one query and for each further one."""
    found: dict[int, list[float]] = {1: [], QUERIES: []}
    segments = 0
    for _ in range(rounds):
        for count in found:
            shown = pairs(50, seed)
            llm = Timed(lambda text: text[text.rindex("\nA: ", 0, len(text) - 2) + 4 :].split("\n")[0])
            decoder = ProgressiveDecoder(llm, par(4))
            started = time.process_time()
            drawings = decoder.decode_sync(shown, queries(count))
            spent = time.process_time() - started - llm.inside
            segments = len(drawings[0].answers)
            found[count].append(1000 * spent / segments)
    further = [(many - alone) / (QUERIES - 1) for alone, many in zip(found[1], found[QUERIES], strict=True)]
    return {
        "segments": segments,
        "ms_a_segment_of_one_query": spread(found[1]),
        "ms_for_each_further_query": spread(further),
        "target": "ms_a_segment_of_one_query < 2",
    }


def cache(examples: list[int], seed: int) -> dict[str, Any]:
    """Ten pictures in one call to the embedded LLM, for several numbers of examples."""
    rows = []
    for count in examples:
        llm = connect("local")
        decoder = ProgressiveDecoder(llm, par(4, allowed="context"))
        shown, asked = pairs(count, seed), queries(QUERIES)
        plan = decoder.plan(shown, asked)
        started = time.perf_counter()
        drawings = decoder.decode_sync(shown, asked)
        seconds = time.perf_counter() - started
        used = sum((drawing.usage for drawing in drawings), Usage())
        rows.append({
            "examples": count,
            "requests": used.requests,
            "prompt_tokens": used.prompt_tokens,
            "cached_tokens": used.cached_tokens,
            "share": used.cached_tokens / used.prompt_tokens,
            "expected": plan.usage.cached_tokens / plan.usage.prompt_tokens,
            "fixed_part": (1 - 1 / QUERIES) * count / (count + 1),
            "asked_again": used.requests - plan.usage.requests,
            "seconds_a_picture": seconds / QUERIES,
        })  # fmt: skip
    return {"queries": QUERIES, "stride": 4, "rows": rows, "target": "share >= 0.80"}


def malformed(answers: int, seed: int) -> dict[str, Any]:
    return {**fuzz(answers, seed), "target": "no crashes, nothing silent"}


def table(results: dict[str, Any]) -> str:
    lines = []
    if "latency" in results:
        part = results["latency"]
        over, cpu = part["over_ideal"], part["cpu_ms_a_request"]
        lines.append(
            f"latency   {part['requests']} requests, {part['seconds']['median']:.2f} s, "
            f"ideal {part['ideal_seconds']:.2f} s, "
            f"{over['median']:+.1%} ({over['least']:+.1%} to {over['most']:+.1%}); "
            f"the client alone {part['client_alone_over_ideal']['median']:+.1%}; CPU a request "
            f"{cpu['decoder']:.2f} ms, the client alone {cpu['client']:.2f} ms"
        )
    if "overhead" in results:
        part = results["overhead"]
        lines.append(
            f"overhead  {part['ms_a_segment_of_one_query']['median']:.2f} ms a segment of one query, "
            f"{part['ms_for_each_further_query']['median']:.2f} ms for each further query"
        )
    for row in results.get("cache", {}).get("rows", ()):
        lines.append(
            f"cache     {row['examples']} examples: {row['share']:.1%} of {row['prompt_tokens']:,} prompt tokens (plan "
            f"{row['expected']:.1%}, fixed part {row['fixed_part']:.1%}), {row['seconds_a_picture']:.1f} s a picture"
        )
    if "fuzz" in results:
        part = results["fuzz"]
        lines.append(
            f"fuzz      {part['answers']} malformed answers in {part['segments']} segments: {part['read']} repaired, "
            f"{part['refused']} refused, {len(part['crashes'])} crashes, {len(part['silent'])} silent guesses"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=("latency", "overhead", "cache", "fuzz"), default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--examples", type=int, nargs="+", default=[10, 20], help="for cache (default: 10 20)")
    parser.add_argument("--answers", type=int, default=1000, help="for fuzz (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file; default: only the table is printed")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "latency": lambda: latency(arguments.rounds, arguments.seed),
        "overhead": lambda: overhead(arguments.rounds, arguments.seed),
        "cache": lambda: cache(arguments.examples, arguments.seed),
        "fuzz": lambda: malformed(arguments.answers, arguments.seed),
    }
    results = {name: make() for name, make in parts.items() if arguments.only is None or name in arguments.only}
    print(table(results))
    if arguments.out:
        write(arguments.out, header(arguments.seed) | results)


if __name__ == "__main__":
    main()
