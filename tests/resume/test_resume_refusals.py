"""What an LLM refused, withheld or left empty is journalled as an error and asked again on resume, by every task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icl_vision import FewShotClassifier, ImageDenoiser, ImageGenerator
from icl_vision.contracts import Completion, Usage
from icl_vision.evaluation import BenchmarkConfig, FewShotBenchmark, parse_settings
from icl_vision.llms import FakeLLM
from icl_vision.tasks import classify_many
from icl_vision.tasks.many import missing_in

ENDS = {
    "refused": ("I can't help with that.", "refusal"),
    "withheld": ("Ba", "content_filter"),
    "empty": ("", "stop"),
    "blank": (" \n\n", "stop"),
    "broken off": ("bar", "error"),
}


class Reluctant(FakeLLM):
    """Gives no answer to the first so many questions, each time it is asked one of them; asked: every prompt."""

    def __init__(self, how: str, silent: int, **options: Any) -> None:
        super().__init__(**{"scores_text": False, **options})
        self.how, self.silent = how, silent
        self.mute: set[str] = set()
        self.asked: list[str] = []

    async def _complete(self, prompt: Any, **settings: Any) -> Completion:
        self.asked.append(prompt.text)
        if prompt.text in self.mute or len(self.mute) < self.silent:
            self.mute.add(prompt.text)
            return Completion(*ENDS[self.how], Usage(1, 10, 0, 3))
        return await super()._complete(prompt, **settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def here(commands: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(commands.folder)
    return Path(commands.folder)


@pytest.mark.parametrize("how", ENDS)
def test_classify(how: str, here: Path) -> None:
    from calls import LABELS, queries, support

    def classifier(llm: FakeLLM) -> FewShotClassifier:
        made = FewShotClassifier(llm, "spae-digits-32", 5, scoring="parse", shots=1)
        return made.fit(*support("support", LABELS))

    first = classify_many(classifier(Reluctant(how, 4)), queries(), "run")
    assert (first.answered, first.failed) == (5, 4)
    errors = [line["error"]["type"] for line in lines(here / "run") if "error" in line]
    assert errors == ["LLMNoAnswerError"] * 4
    willing = Reluctant(how, 0)
    assert len(missing_in("run", classifier(willing), queries())) == 4
    second = classify_many(classifier(willing), queries(), "run", resume=True)
    assert (second.kept, second.answered, second.failed) == (5, 4, 0) and len(willing.asked) == 4
    assert second.rows == classify_many(classifier(Reluctant(how, 0)), queries(), "whole").rows


def test_a_journal_that_kept_an_empty_answer_as_a_result(here: Path) -> None:
    """As version 0.1.0 did."""
    from calls import LABELS, queries, support

    clf = FewShotClassifier(FakeLLM(scores_text=False), "spae-digits-32", 5, scoring="parse").fit(
        *support("support", LABELS)
    )
    whole = classify_many(clf, queries(), "run")
    journal = here / "run" / "journal.jsonl"
    old = lines(here / "run")
    for line in old[:3]:
        line["result"] |= {"label": None, "probabilities": None, "text": "" if line is old[0] else " \n"}
    old[2]["result"]["text"] = "no idea"  # an answer, though none of the labels: an abstention
    journal.write_text("".join(json.dumps(line) + "\n" for line in old), encoding="utf-8")
    assert len(missing_in("run", clf, queries())) == 2
    again = classify_many(clf, queries(), "run", resume=True)
    assert (again.kept, again.answered) == (7, 2)
    assert sum(one != two for one, two in zip(again.rows, whole.rows, strict=True)) == 1


@pytest.mark.parametrize("how", ENDS)
def test_eval_few_shot(how: str, here: Path) -> None:
    config = BenchmarkConfig(
        settings=parse_settings(["1s-0r-i"], [2]), episodes=6, k=5, scorers=("exact",), baselines=()
    )

    def benchmark(llm: FakeLLM) -> FewShotBenchmark:
        return FewShotBenchmark(here / "support", llm=llm, tokenizer="spae-digits-32", config=config)

    first = benchmark(Reluctant(how, 2)).run("run", progress=False)
    assert (first.asked, first.failed) == (4, 2) and "LLMNoAnswerError" in first.problem
    willing = Reluctant(how, 0)
    second = benchmark(willing).run("run", resume=True, progress=False)
    assert (second.asked, second.kept, second.failed) == (2, 4, 0) and len(willing.asked) == 2
    whole = benchmark(Reluctant(how, 0)).run("whole", progress=False).results
    assert second.results["cells"] == whole["cells"] and second.results["items"] == 6


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("constraint", [None, "choice"])
def test_generate(how: str, constraint: Any, here: Path) -> None:
    from calls import DRAWN, support

    def generator(llm: FakeLLM) -> ImageGenerator:
        made = ImageGenerator(llm, shots=1, stride=16, errors="return", asks=2, concurrency=1)
        return made.fit(*support("shapes", {"bar": DRAWN[0], "block": DRAWN[1]}))

    reluctant = Reluctant(how, 1, constraint=constraint)
    first = generator(reluctant).generate(list(DRAWN), out="run")
    assert [one.error is None for one in first].count(False) >= 1
    assert any("error" in line for line in lines(here / "run"))
    assert not any(line["result"]["words"] is None for line in lines(here / "run") if "result" in line)
    done = sum("result" in line for line in lines(here / "run"))
    willing = Reluctant(how, 0, constraint=constraint)
    second = generator(willing).generate(list(DRAWN), out="run", resume=True)
    fresh = Reluctant(how, 0, constraint=constraint)
    whole = generator(fresh).generate(list(DRAWN))
    assert [one.pyramid for one in second] == [one.pyramid for one in whole]
    assert len(willing.asked) <= len(fresh.asked) - done


@pytest.mark.parametrize("how", ENDS)
def test_denoise(how: str, here: Path) -> None:
    def denoiser(llm: FakeLLM) -> ImageDenoiser:
        made = ImageDenoiser(llm, "spae-digits-32", "outpainting", context=3, errors="return")
        return made.fit(sorted(Path("intact").glob("*.bmp")))

    asked = sorted(Path("restore").glob("*.bmp"))
    first = denoiser(Reluctant(how, 1, constraint="choice")).denoise(asked, out="run")
    assert any(one.error is not None for one in first)
    willing = Reluctant(how, 0, constraint="choice")
    second = denoiser(willing).denoise(asked, out="run", resume=True)
    whole = denoiser(Reluctant(how, 0, constraint="choice")).denoise(asked)
    assert [one.error for one in second] == [None] * len(asked)
    assert [one.pyramid for one in second] == [one.pyramid for one in whole]
