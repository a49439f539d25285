"""Items with a tiny tokenizer and a word-counting LLM: every row is asked the same queries, and a page shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores
from icl_vision.errors import CapabilityError, PromptTooLongError
from icl_vision.evaluation.few_shot.baselines import ROWS
from icl_vision.evaluation.few_shot.config import Setting
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder
from icl_vision.evaluation.few_shot.items import ItemMaker
from icl_vision.evaluation.few_shot.pages import few_shot_page
from icl_vision.evaluation.few_shot.scorers import LADDER
from icl_vision.evaluation.few_shot.tally import RowInfo, Tally
from icl_vision.evaluation.kit.metrics import Accuracy
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

    def __init__(self, *, scores: bool = True, window: int = 4096) -> None:
        self.scores = scores
        self.window = window
        self.calls = 0

    @property
    def profile(self) -> Profile:
        return Profile("overlap", context_window=self.window, api="completions", scores_text=self.scores)

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


BASELINES = ("blind", "prior", "words_prototype", "image_prototype", "label_name")


def maker(folder: ImageFolder, llm: OverlapLLM | None = None, **options: Any) -> ItemMaker:
    options = {"scorers": ("likelihood",), "baselines": (), "strict": True, **options}
    return ItemMaker(llm or OverlapLLM(), ColourTokenizer(), 2, lambda path: str(folder.path(path)), **options)


def items_of(maker: ItemMaker, episode: Episode, number: int = 0) -> list[dict[str, Any]]:
    documents = [document for _, document in maker.answered(number, episode, [Setting(episode.ways, episode.shots)])]
    return json.loads(json.dumps(documents))  # plain JSON, as a journal takes it


def test_every_query_of_an_episode_is_put_to_every_row(folder: ImageFolder) -> None:
    asking, tally = maker(folder, baselines=BASELINES), Tally()
    for number, episode in enumerate(folder.episodes(3, ways=3, shots=2, fresh=True)):
        items = items_of(asking, episode, number)
        assert [item["query"]["label"] for item in items] == [query.label for query in episode.queries]
        assert [item["id"] for item in items] == [f"e0000{number}/3w-2s-0r-i{end}" for end in ("", "/q1", "/q2")]
        for item in items:
            assert len(item["support"]) == 6 and len(item["query"]["words"]) == 2
            assert sum(item["answers"]["likelihood"]["probabilities"].values()) == pytest.approx(1)
            # The codebook does not hold "apple tree": the row is noted, not counted on fewer queries.
            assert item["notes"] == {"label_name": "not available: a label's words are not in the codebook"}
            tally.add(item)
    measured = {
        row.name: tally.accuracy(RowInfo.of(row, "any"), Setting(3, 2))
        for row in (LADDER["channel"], *(ROWS[name] for name in BASELINES))
    }
    assert measured.pop("label_name") is None
    assert {name: accuracy.to_dict() for name, accuracy in measured.items() if accuracy} == {
        "likelihood": Accuracy.count(9, 9, "likelihood").to_dict(),
        "blind": Accuracy.count(3, 9, "likelihood").to_dict(),
        "prior": Accuracy.count(3, 9, "constant").to_dict(),
        "words_prototype": Accuracy.count(9, 9, "nearest prototype").to_dict(),
        "image_prototype": Accuracy.count(9, 9, "nearest prototype").to_dict(),
    }


def test_what_an_episode_spends_is_dealt_to_its_queries(folder: ImageFolder) -> None:
    episode = folder.sample(0, ways=3, shots=1)
    llm = OverlapLLM()
    items = items_of(maker(folder, llm, baselines=("blind",)), episode)
    # The blind prompt (3 labels) is asked once for the episode, the channel's (3 labels) once a query.
    assert sum(item["asked"] for item in items) == 3 + 3 * 3
    assert [item["answers"]["blind"]["calls"] for item in items] == [1, 1, 1]
    assert [item["answers"]["likelihood"]["calls"] for item in items] == [3, 3, 3]
    without = OverlapLLM()
    items_of(maker(folder, without), episode)
    assert llm.calls == without.calls + 1


def test_an_llm_without_log_probabilities_is_parsed(folder: ImageFolder) -> None:
    llm, row = OverlapLLM(scores=False), LADDER["parse"]
    tally = Tally()
    for number, episode in enumerate(folder.episodes(2, ways=3, shots=1)):
        for item in items_of(maker(folder, llm, scorers=(row.name,), baselines=("blind",)), episode, number):
            tally.add(item)
            assert item["answers"]["parsed"]["raw"] and item["prompts"]["open"].endswith("Output:")
    assert tally.accuracy(RowInfo.of(row, "llm"), Setting(3, 1)) == Accuracy.count(6, 6, "tolerant parse")
    blind = tally.accuracy(RowInfo.of(ROWS["blind"], "baseline"), Setting(3, 1))
    assert blind is not None and blind.accuracy == 0.0


def test_a_row_that_cannot_be_had_is_noted_or_fails_the_item(folder: ImageFolder) -> None:
    episode = folder.sample(0, ways=2, shots=1)
    (item, _) = items_of(maker(folder, OverlapLLM(scores=False), strict=False), episode)
    assert item["answers"] == {} and item["notes"]["likelihood"].startswith("not available: 'overlap' gives no log")
    with pytest.raises(CapabilityError, match="gives no log-probabilities"):
        items_of(maker(folder, OverlapLLM(scores=False)), episode)
    with pytest.raises(PromptTooLongError):
        items_of(maker(folder, OverlapLLM(window=8)), episode)


@pytest.mark.parametrize("method", ["channel", "direct", "parse"])
def test_the_page_shows_the_prompt_as_sent(folder: ImageFolder, method: Any) -> None:
    episode = folder.sample(0, ways=3, shots=2)
    options = {"scoring": method} if method != "parse" else {}
    items = items_of(maker(folder, scorers=(LADDER[method].name,), options=options), episode)
    html = few_shot_page(
        [items],
        folder,
        method=method,
        result=Accuracy.count(3, 3, LADDER[method].scorer),
        baselines={"blind": Accuracy.count(1, 3, "likelihood")},
        title="Colours",
        llm="Counter",
        facts={"seed": 0},
    )
    assert "Colours" in html and "apple tree" in html and "as sent" in html
    assert "the words of the photograph withheld" in html
    shown = next(item for item in items if item["answers"][LADDER[method].name]["right"])
    prompt = shown["prompts"]["open" if method == "parse" else "channel"]
    assert " ".join(shown["query"]["words"]) in prompt and prompt in html.replace("&quot;", '"')
    assert html.count("<img ") == 3 * 2 + 3 + 1
