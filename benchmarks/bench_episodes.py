"""Episodes per minute of the few-shot benchmark, with and without prefix reuse; requests and tokens; memory.

    python benchmarks/bench_episodes.py --data DIR --episodes 4 --out FILE.json
    python benchmarks/bench_episodes.py --data DIR --memory --out FILE.json

An episode is one question in each of the settings. "prefix reuse": one prefix cache for each kind of prompt, as
`icl-vision eval few-shot` connects the embedded LLM. "one cache": a single prefix cache, which every change of template
empties. "no reuse": every LLM call starts from an empty cache (inside a call its own questions still share theirs).

--memory: peak memory of runs of a word-counting stand-in for the LLM, one process each, against the number of episodes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

from icl_vision.cli.options.runs import SLOTS
from icl_vision.contracts import Completion, Prompt, Scores, TextLLM
from icl_vision.evaluation import BenchmarkConfig, FewShotBenchmark, parse_settings
from icl_vision.llms import connect
from icl_vision.llms.fake import FakeLLM

ARMS: dict[str, dict[str, Any]] = {
    "prefix reuse": {"slots": SLOTS},
    "one cache": {"slots": 1},
    "no reuse": {"deterministic": True},
}


def measured(data: Path, llm: TextLLM, config: BenchmarkConfig, tokenizer: str) -> dict[str, Any]:
    """One run into a throw-away folder; the images become words before the clock starts."""
    benchmark = FewShotBenchmark(data, llm=llm, tokenizer=tokenizer, config=config)
    llm.complete_sync("warm", max_tokens=1)
    benchmark.estimate()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        results = benchmark.run(Path(folder) / "run", progress=False).results
        seconds = time.monotonic() - began
    episodes = benchmark.episodes
    usage = results["usage"]
    return {
        "episodes": episodes,
        "seconds": round(seconds, 1),
        "episodes_per_minute": round(60 * episodes / seconds, 2),
        "prompts_per_episode": round(results["prompts"] / episodes, 1),
        "requests_per_episode": round(usage["requests"] / episodes, 1),
        "prompt_tokens_per_episode": round(usage["prompt_tokens"] / episodes),
        "new_prompt_tokens_per_episode": round((usage["prompt_tokens"] - usage["cached_tokens"]) / episodes),
    }


def peak(data: Path, episodes: int, tokenizer: str) -> dict[str, Any]:
    """Peak memory in MiB of a process of its own."""
    code = [sys.executable, __file__, "--data", str(data), "--child", str(episodes), "--tokenizer", tokenizer]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()
    return {"episodes": episodes, "peak_mib": round(int(kilobytes) / 1024, 1), "seconds": float(seconds)}


class Forgetful(FakeLLM):
    """The stand-in without its memory of what it was asked, which would grow with the episodes."""

    async def _complete(self, prompt: Prompt, **settings: Any) -> Completion:
        self.calls.clear()
        return await super()._complete(prompt, **settings)

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.calls.clear()
        return await super()._score(pairs, terminator=terminator)


def child(data: Path, episodes: int, tokenizer: str) -> None:
    config = BenchmarkConfig(
        settings=parse_settings(["1s-0r-i", "5s-0r-i"], [5]),
        episodes=episodes,
        k=None,
        scorers=("exact", "likelihood"),
        baselines=("prior", "words_prototype"),
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = FewShotBenchmark(data, llm=Forgetful(), tokenizer=tokenizer, config=config)
        benchmark.run(Path(folder) / "run", progress=False)
    print(round(time.monotonic() - began, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders, or an episode file")
    parser.add_argument("--episodes", type=int, default=4, help="episodes an arm (default: 4)")
    parser.add_argument("--ways", type=int, nargs="+", default=[5], help="default: 5")
    parser.add_argument("--settings", nargs="+", default=["all"], help="default: all")
    parser.add_argument("--scorers", nargs="+", default=["exact", "likelihood"], help="default: exact likelihood")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="default: all")
    parser.add_argument("--tokenizer", default="words-photo")
    parser.add_argument("--memory", action="store_true", help="measure memory against episodes instead")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000], help="episodes of --memory")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="result file")
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.data, arguments.child, arguments.tokenizer)
        return
    if arguments.out is None:
        parser.error("--out is needed")
    if arguments.memory:
        rows: Any = [peak(arguments.data, size, arguments.tokenizer) for size in arguments.sizes]
    else:
        config = BenchmarkConfig(
            settings=parse_settings(arguments.settings, arguments.ways),
            episodes=arguments.episodes,
            scorers=tuple(arguments.scorers),
            baselines=("prior", "words_prototype"),
        )
        rows = {
            arm: measured(arguments.data, connect("local", **ARMS[arm]), config, arguments.tokenizer)
            for arm in arguments.arms
        }
    write(arguments.out, {**header(0), "settings": arguments.settings, "scorers": arguments.scorers, "rows": rows})
    for row in rows if isinstance(rows, list) else [{"arm": arm} | row for arm, row in rows.items()]:
        print(row)


if __name__ == "__main__":
    main()
