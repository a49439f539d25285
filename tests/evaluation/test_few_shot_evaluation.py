"""Episodes from end to end with a tiny tokenizer and a word-counting LLM: one report, the same queries for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.evaluation.few_shot.evaluation import FewShotEvaluation, FewShotReport
from icl_vision.evaluation.few_shot.pages import few_shot_page
from icl_vision.llms.base import BaseLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

COLOURS = {"apple_tree": (200, 20, 20), "sky": (20, 20, 200), "meadow": (20, 200, 20)}
VOCABULARY = Vocabulary(["red", "green", "blue", "sky", "dim", "bright"])


class ColourTokenizer(ImageTokenizer):
    """Two words: the strongest channel, and how bright it is."""

    name = "colour"
    can_embed = True
    embedding_width = 3

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(2)

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    @property
    def codebook(self) -> Any:
        return np.eye(6, dtype=np.float32)

    def _embed(self, images: list[Image.Image]) -> Any:
        return np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images])

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        result = []
        for mean in self._embed(images):
            ids = np.asarray([[int(np.argmax(mean)), 4 + int(mean.max() > 200)]], dtype=np.int32)
            result.append(TokenPyramid((ids,), self.layout, self.vocabulary))
        return result


class OverlapLLM(BaseLLM):
    """Scores a continuation by how often prompt lines hold its words together with the prompt's last line."""

    def __init__(self, *, scores: bool = True) -> None:
        self.scores = scores
        self.calls = 0

    @property
    def profile(self) -> Profile:
        return Profile("overlap", context_window=4096, api="completions", scores_text=self.scores)

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        self.calls += 1
        query = prompt.query.split("Input: ")[1].split("\n")[0].split()[0]
        blocks = [block for block in prompt.context.split("###") if f"Input: {query}" in block]
        return Completion(blocks[0].split("Output: ")[1].strip() if blocks else "nothing", "stop")

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.calls += 1
        values = []
        for prompt, continuation in pairs:
            label = prompt.query.rstrip(":")
            lines = [line for line in prompt.context.splitlines() if line.startswith(label + ":")]
            values.append(float(sum(line.count(word) for line in lines for word in continuation.split()[:1])) - 5)
        return Scores(tuple(values))

    async def _count_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.clip(np.asarray(colour) + rng.integers(-9, 9, (6, 6, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return ImageFolder(tmp_path / "photos")


def test_a_run_with_every_baseline(folder: ImageFolder) -> None:
    names = ("blind", "prior", "words_prototype", "image_prototype", "label_name")
    evaluation = FewShotEvaluation(folder, llm=OverlapLLM(), tokenizer=ColourTokenizer(), k=2, baselines=names)
    results = list(evaluation.run(folder.episodes(3, ways=3, shots=2, fresh=True)))
    report = FewShotReport.of(results)
    assert report.result.to_dict() == {
        "accuracy": 1.0,
        "n": 9,
        "interval": [pytest.approx(0.7009, abs=1e-4), 1.0],
        "scorer": "likelihood",
    }
    # The codebook does not hold "apple tree": the label-name baseline is left out, not counted on fewer questions.
    assert list(report.baselines) == ["blind", "prior", "words_prototype", "image_prototype"]
    assert all(accuracy.n == 9 for accuracy in report.baselines.values())
    assert report.baselines["blind"].accuracy == pytest.approx(1 / 3)
    assert report.baselines["prior"].accuracy == pytest.approx(1 / 3)
    assert report.baselines["words_prototype"].accuracy == 1.0
    assert [report.baselines[name].scorer for name in report.baselines] == [
        "likelihood",
        "constant",
        "nearest prototype",
        "nearest prototype",
    ]
    assert results[0].question.method == "channel"


def test_summary_and_details_are_plain_json(folder: ImageFolder) -> None:
    evaluation = FewShotEvaluation(folder, llm=OverlapLLM(), tokenizer=ColourTokenizer(), k=2)
    results = list(evaluation.run(folder.episodes(1, ways=2, shots=1)))
    summary = json.loads(json.dumps(FewShotReport.of(results).to_dict()))
    assert list(summary) == ["result", "ways", "shots", "episodes", "baselines"]
    assert (summary["ways"], summary["shots"], summary["episodes"]) == (2, 1, 1)
    detail = json.loads(json.dumps(results[0].to_dict()))
    query = detail["queries"][0]
    assert query["truth"] in detail["labels"] and query["right"] is True
    assert sum(query["probabilities"].values()) == pytest.approx(1)
    assert set(query["baselines"]) == {"blind", "prior", "words_prototype"}
    assert len(detail["support"]) == 2 and len(detail["support"][0]["words"]) == 2


def test_an_llm_without_log_probabilities_is_parsed(folder: ImageFolder) -> None:
    evaluation = FewShotEvaluation(folder, llm=OverlapLLM(scores=False), tokenizer=ColourTokenizer(), k=2)
    report = FewShotReport.of(list(evaluation.run(folder.episodes(2, ways=3, shots=1))))
    assert report.result.accuracy == 1.0 and report.result.scorer == "tolerant parse"
    assert report.baselines["blind"].accuracy == 0.0 and report.baselines["blind"].scorer == "prefix"


def test_the_blind_baseline_asks_once_an_episode(folder: ImageFolder) -> None:
    episodes = folder.episodes(2, ways=3, shots=1)
    calls = []
    for names in ((), ("blind",)):
        llm = OverlapLLM()
        evaluation = FewShotEvaluation(folder, llm=llm, tokenizer=ColourTokenizer(), k=2, baselines=names)
        list(evaluation.run(episodes))
        calls.append(llm.calls)
    assert calls[1] - calls[0] == len(episodes)


def test_unknown_baselines_and_mixed_sizes_are_refused(folder: ImageFolder) -> None:
    with pytest.raises(UsageError, match="no baseline is called 'oracle'; there are blind, prior"):
        FewShotEvaluation(folder, llm=OverlapLLM(), tokenizer=ColourTokenizer(), baselines=("oracle",))
    with pytest.raises(UsageError, match="episodes of one size; got"):
        FewShotReport.of([])
    evaluation = FewShotEvaluation(folder, llm=OverlapLLM(), tokenizer=ColourTokenizer(), k=2, baselines=())
    mixed = [folder.sample(0, ways=2, shots=1), folder.sample(0, ways=3, shots=1)]
    with pytest.raises(UsageError, match=r"got \(ways, shots\) = \[\(2, 1\), \(3, 1\)\]"):
        FewShotReport.of(list(evaluation.run(mixed)))


@pytest.mark.parametrize("options", [{}, {"scoring": "direct"}, {"scoring": "parse"}])
def test_the_page_shows_the_prompt_as_sent(folder: ImageFolder, options: dict[str, Any]) -> None:
    evaluation = FewShotEvaluation(folder, llm=OverlapLLM(), tokenizer=ColourTokenizer(), k=2, **options)
    results = list(evaluation.run(folder.episodes(1, ways=3, shots=2)))
    html = few_shot_page(FewShotReport.of(results), folder, title="Colours", llm="Counter", facts={"seed": 0})
    assert "Colours" in html and "apple tree" in html and "as sent" in html
    words = " ".join(results[0].queries[results[0].example].words)
    first = results[0].question.pairs[0][0]
    assert words in html and first.context.splitlines()[1] in html.replace("&quot;", '"')
    assert html.count("<img ") == 3 * 2 + 3 + 1
