"""What was paid for once: hits per second of both caches, and a second run that asks nothing.

    python benchmarks/bench_cache.py --out benchmarks/results/cache.json

- responses: answers of a CachedLLM on disk, asked for from an event loop, 64 at a time, and one after the other through
  ``complete_sync``; prompts are as long as few-shot prompts of ten examples are.
- words: images whose words are on disk, small JPEG files, digest of the file included; beside it the same encoded.
- second run: ``classify_many`` into a second folder, with the caches of the first; requests are the server's count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from loopback_server import Loopback

from icl_vision.contracts import TextLLM
from icl_vision.llms import CachedLLM, FakeLLM, OpenAICompatibleLLM, ResponseCache
from icl_vision.llms.loop import run_sync
from icl_vision.tasks import FewShotClassifier, classify_many
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache

CONTEXT = "Input: river ocean boat sand\nOutput: sea\nInput: field fence grass barn\nOutput: farm\n" * 5


def per_second(what: Callable[[], Any], count: int, rounds: int) -> float:
    """Median over rounds of ``count`` / seconds."""
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        what()
        rates.append(count / (time.perf_counter() - began))
    return round(statistics.median(rates), 1)


def responses(folder: Path, count: int, rounds: int) -> dict[str, float]:
    cache = ResponseCache(folder / "responses.sqlite")
    llm = CachedLLM(FakeLLM("cat"), cache)
    prompts = [f"{CONTEXT}Input: question {number}\nOutput:" for number in range(count)]

    async def ask(llm: TextLLM) -> None:
        gate = asyncio.Semaphore(64)

        async def one(prompt: str) -> None:
            async with gate:
                await llm.complete(prompt)

        await asyncio.gather(*map(one, prompts))

    stored = per_second(lambda: run_sync(ask(llm)), count, 1)
    hits = per_second(lambda: run_sync(ask(llm)), count, rounds)
    few = prompts[: count // 5]
    sync = per_second(lambda: [llm.complete_sync(prompt) for prompt in few], len(few), rounds)
    assert cache.misses == count
    cache.close()
    return {"stored_per_second": stored, "hits_per_second": hits, "hits_per_second_sync": sync}


def words(folder: Path, images: Sequence[Path], rounds: int) -> dict[str, float]:
    plain = ImageTokenizer.from_pretrained("words-photo")
    plain.encode(images[:1])  # the session
    cache = WordsCache(folder / "words.sqlite")
    cached = CachedTokenizer(plain, cache)
    encoded = per_second(lambda: plain.encode(images), len(images), 1)
    first = per_second(lambda: cached.encode(images), len(images), 1)
    hits = per_second(lambda: cached.encode(images), len(images), rounds)
    assert cache.misses == len(images)
    cache.close()
    return {"encoded_per_second": encoded, "encoded_and_stored_per_second": first, "hits_per_second": hits}


def second_run(folder: Path, images: Sequence[Path]) -> dict[str, Any]:
    found = []
    with Loopback(delay=0.01) as server:
        for number in (1, 2):
            llm = CachedLLM(OpenAICompatibleLLM("m", server.url), ResponseCache(folder / "second.sqlite"))
            tokenizer = CachedTokenizer(
                ImageTokenizer.from_pretrained("words-photo"), WordsCache(folder / "second-words.sqlite")
            )
            before = server.stats()["requests"]
            clf = FewShotClassifier(llm, tokenizer, progress=False).fit(images[:4], ["even", "odd"] * 2)
            began = time.perf_counter()
            outcome = classify_many(clf, images, folder / f"run-{number}", progress=False)
            found.append(
                {
                    "seconds": round(time.perf_counter() - began, 3),
                    "requests": server.stats()["requests"] - before,
                    "images_encoded": tokenizer.cache.misses,
                    "rows": outcome.rows,
                }
            )
            llm.cache.close()
            tokenizer.cache.close()
    equal = found[0].pop("rows") == found[1].pop("rows")
    return {"images": len(images), "first": found[0], "second": found[1], "equal": equal}


def make_images(folder: Path, count: int) -> list[Path]:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((400, 300), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.jpg")
    return sorted(folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--answers", type=int, default=5000, help="answers in the cache (default: 5000)")
    parser.add_argument("--images", type=int, default=200, help="images (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement of hits (default: 5)")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = make_images(folder / "images", arguments.images)
        report = {
            "answers": arguments.answers,
            "images": arguments.images,
            "rounds": arguments.rounds,
            "responses": responses(folder, arguments.answers, arguments.rounds),
            "words": words(folder, images, arguments.rounds),
            "second_run": second_run(folder, images),
        }
    print(json.dumps(report, indent=2))
    if arguments.out is not None:
        write(arguments.out, {**header(0), **report})
    if report["second_run"]["second"]["requests"] or not report["second_run"]["equal"]:
        raise SystemExit("the second run asked again, or found something else")


if __name__ == "__main__":
    main()
