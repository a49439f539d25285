"""Requests to a server in chaos: every one ends as an answer or as an error of ours, none is lost, none is kept twice.

    python benchmarks/bench_chaos.py --requests 2000 --out benchmarks/results/chaos.json

The server (``loopback_server.py``, a process of its own) fails a seeded share of all attempts: 429 with and without a
time to wait, 500, 503, 529, connections reset before and inside an answer, truncated bodies, answers that come too
late, limits told by reset headers, in words or in the error object only, errors inside a 200, empty bodies and bodies
that are no JSON or have no choices, refusals, and answers that are none: thoughts that used up the room, nothing,
withheld or broken off ones; some right answers come behind a block of thoughts. The same images are asked about in
three ways:

- script: ``classify_many`` from ordinary code, on the library's own event loop;
- notebook: ``await clf.aclassify(image)``, all at once, inside a running event loop of somebody else's;
- agent: the classifier's LangChain tool, ``abatch`` with LangChain's own bound on concurrency.

Each way has a run folder and a response cache. Afterwards the journal is held against the list of images: ``lost`` are
images without a line, ``duplicated`` lines too many, ``wrong`` answers that belong to another image,
``foreign_errors`` those outside our tree. ``stored_wrongly`` are results in the journal that are no answer of the
server's, rows of the cache that are none, and images for which the cache alone, with no server behind it, gives
another answer than the right one or any answer though the image ended in an error.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write
from loopback_server import Loopback, answer_for
from numbered import NumberTokenizer, numbered

from icl_vision import errors
from icl_vision.files.runs import Run
from icl_vision.llms import CachedLLM, Limiter, OpenAICompatibleLLM, Resilience, ResponseCache, RetryPolicy
from icl_vision.tasks import FewShotClassifier, classify_many

LABELS = ["red", "green", "blue"]
WAYS = ("script", "notebook", "agent")
CONCURRENCY = 64

POLICY = RetryPolicy(
    attempts=6,
    attempt_timeout=2.0,
    total_timeout=60.0,
    wait_initial=0.02,
    wait_maximum=0.3,
    retry_after_maximum=1.0,
)
SLOW = 4.0
"""Seconds of a slow answer; more than an attempt may take."""


def classifier_for(url: str, cache: ResponseCache) -> FewShotClassifier:
    """A classifier of numbered images with three labels, asking a server at ``url`` what is not in the cache."""
    # These 429s come however seldom one asks: without a floor the limiter would go down to one at a time.
    resilience = Resilience(POLICY, Limiter(start=16, minimum=16, maximum=CONCURRENCY, cooldown=1.0))
    llm = CachedLLM(OpenAICompatibleLLM("chaos", url, resilience=resilience), cache)
    clf = FewShotClassifier(llm, NumberTokenizer(), k=4, concurrency=CONCURRENCY, progress=False)
    return clf.fit([numbered(number) for number in range(6)], LABELS * 2)


def expected_label(clf: FewShotClassifier, image: npt.NDArray[np.uint8]) -> str:
    """What the server answers to the question about an image, if it answers."""
    ((prompt, _),) = clf.prompt_for(image).pairs
    user = "\n".join(part for part in (prompt.context, prompt.query) if part)
    return answer_for("\n".join(part for part in (prompt.instruction, user) if part))


def by_script(clf: FewShotClassifier, images: dict[str, npt.NDArray[np.uint8]], folder: Path) -> None:
    classify_many(clf, images, folder, progress=False)


def by_notebook(clf: FewShotClassifier, images: dict[str, npt.NDArray[np.uint8]], folder: Path) -> None:
    async def cell() -> None:
        async def one(name: str, image: npt.NDArray[np.uint8]) -> None:
            try:
                (result,) = await clf.aclassify(image)
            except Exception as error:
                run.record_error(name, error)
            else:
                run.record(name, {"label": result.label})

        with Run.open(folder, "chaos", {"way": "notebook"}) as run:
            await asyncio.gather(*(one(name, image) for name, image in images.items()))

    asyncio.run(cell())


def by_agent(clf: FewShotClassifier, images: dict[str, npt.NDArray[np.uint8]], folder: Path) -> None:
    tool = clf.as_tool(images=images)

    async def agent() -> None:
        calls = [{"type": "tool_call", "name": tool.name, "args": {"image": name}, "id": name} for name in images]
        answers = await tool.abatch(calls, config={"max_concurrency": CONCURRENCY}, return_exceptions=True)
        with Run.open(folder, "chaos", {"way": "agent"}) as run:
            for name, answer in zip(images, answers, strict=True):
                if isinstance(answer, Exception):
                    run.record_error(name, answer)
                else:
                    run.record(name, {"label": answer.artifact.label})

    asyncio.run(agent())


def stored_wrongly(
    clf: FewShotClassifier,
    cache: ResponseCache,
    images: dict[str, npt.NDArray[np.uint8]],
    lines: list[dict[str, Any]],
    wanted: dict[str, str],
) -> dict[str, int]:
    """What journal and cache hold though it is no answer, or none of this image; the server is gone by now."""
    results = {str(line["id"]).partition("#")[0]: line["result"] for line in lines if "result" in line}
    with contextlib.closing(sqlite3.connect(cache.path)) as connection:
        rows = [json.loads(body) for (body,) in connection.execute("SELECT body FROM responses")]
    again = dict(zip(images, clf.quietly().classify(list(images.values())), strict=True))
    known = {name: classification.label for name, classification in again.items() if classification.error is None}
    return {
        "journal": sum(result["label"] != wanted[name] for name, result in results.items()),
        "rows": sum(row["text"] not in LABELS or row["finish_reason"] not in ("stop", "length") for row in rows),
        "cache": sum(label != wanted[name] or name not in results for name, label in known.items()),
        "answers_not_in_the_cache": sum(name not in known for name in results),
    }


def one_way(way: str, requests: int, folder: Path, *, seed: int, chaos: float) -> dict[str, Any]:
    """Ask about ``requests`` images in one way; what the journal then holds."""
    images = {f"image {number}": numbered(number) for number in range(100, 100 + requests)}
    cache = ResponseCache(folder.with_suffix(".sqlite"))
    with Loopback(delay=0.005, chaos=chaos, seed=seed, slow=SLOW) as server:
        clf = classifier_for(server.url, cache)
        wanted = {name: expected_label(clf, image) for name, image in images.items()}
        began, cpu = time.perf_counter(), time.process_time()
        {"script": by_script, "notebook": by_notebook, "agent": by_agent}[way](clf, images, folder)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        stats = server.stats()
    clf.llm_.close()  # type: ignore[attr-defined]  # the fitted task's own LLM
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    journalled = collections.Counter(str(line["id"]).partition("#")[0] for line in lines)
    answers = {str(line["id"]).partition("#")[0]: line["result"]["label"] for line in lines if "result" in line}
    failures = collections.Counter(line["error"]["type"] for line in lines if "error" in line)
    stored = stored_wrongly(clf, cache, images, lines, wanted)
    cache.close()
    ours = {name for name in vars(errors) if isinstance(getattr(errors, name), type)}
    return {
        "way": way,
        "requests": requests,
        "answers": len(answers),
        "errors": dict(sorted(failures.items())),
        "lost": len(images.keys() - journalled.keys()),
        "duplicated": sum(journalled.values()) - len(journalled),
        "wrong": sum(answers[name] != wanted[name] for name in answers),
        "stored_wrongly": stored,
        "foreign_errors": sum(count for name, count in failures.items() if name not in ours),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "server": {
            "attempts": stats["requests"],
            "fates": dict(sorted(stats["fates"].items())),
            "most_in_flight": stats["most_in_flight"],
            "answered_more_than_once": sum(count > 1 for count in stats["answered"].values()),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=2000, help="requests in each way (default: 2000)")
    parser.add_argument("--chaos", type=float, default=0.4, help="share of attempts that fail (default: 0.4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    rows = []
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            row = one_way(way, arguments.requests, Path(folder) / "run", seed=arguments.seed, chaos=arguments.chaos)
        print(json.dumps(row), flush=True)
        rows.append(row)
    if arguments.out is not None:
        write(arguments.out, {**header(arguments.seed), "share_of_failing_attempts": arguments.chaos, "ways": rows})
    broken = [row["way"] for row in rows if failed(row)]
    if broken:
        raise SystemExit(f"requests were lost, kept twice, answered or stored wrongly: {', '.join(broken)}")


def failed(row: dict[str, Any]) -> bool:
    """Whether anything went wrong that chaos does not excuse."""
    counts = ("lost", "duplicated", "wrong", "foreign_errors")
    return any(row[name] for name in counts) or any(row["stored_wrongly"].values())


if __name__ == "__main__":
    main()
