"""The embedded LLM's scores against transformers on the same GGUF file (slow: about a minute to load it twice).

llama.cpp rounds activations to 8 bits before each product with the 4-bit weights, transformers multiplies the
dequantised weights in float32. Measured on 24 pairs (81 tokens): 0.11 nats a token root mean square, 0.27 at most, no
bias. So one token agrees within about 0.25 nats, and a continuation of six tokens within about half a nat.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from icl_vision import connect
from icl_vision.contracts import Prompt
from icl_vision.llms.loop import run_sync

pytestmark = pytest.mark.slow

LINES = """golden retriever: grass puppy gold fur paw
sailboat: sea harbor wave mast wind
guitar: string wood music song chord
golden retriever: puppy tail fur ear gold
sailboat: ocean wind sail hull bay
guitar: chord music neck bridge string"""
LABELS = ("golden retriever", "sailboat", "guitar")


@pytest.fixture(scope="module")
def reference(model_cache) -> Any:
    """Gemma in transformers, float32. ``from_pretrained`` would need accelerate, so the tensors are put in by hand."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    from icl_vision.llms.local.gguf import packaged_gemma

    path = packaged_gemma()
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(path.parent, gguf_file=path.name), dtype=torch.float32
    )
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert (set(missing), list(unexpected)) == ({"lm_head.weight"}, []), "the output layer is tied to the embeddings"
    model.tie_weights()
    return model.eval()


def direct(words: str) -> list[tuple[Prompt, str]]:
    context = "\n".join(
        f"###\nInput: {line.partition(': ')[2]}\nOutput: {line.partition(': ')[0]}" for line in LINES.splitlines()
    )
    return [(Prompt("", context, f"###\nInput: {words}\nOutput:"), f" {label}") for label in LABELS]


def channel(words: str) -> list[tuple[Prompt, str]]:
    return [(Prompt("", LINES, f"{label}:"), f" {words}") for label in LABELS]


def test_scores_agree_with_transformers(reference):
    import torch

    llm = connect("local")

    async def tokens(text: str) -> list[int]:
        return await (await llm._ready()).tokenize(text)

    def expected(prompt: Prompt, continuation: str) -> tuple[float, int]:
        start = len(run_sync(tokens(prompt.text)))
        ids = run_sync(tokens(prompt.text + continuation + "\n"))
        with torch.no_grad():
            logprobs = torch.log_softmax(reference(torch.tensor([ids])).logits[0].double(), -1)
        return sum(logprobs[at - 1, ids[at]].item() for at in range(start, len(ids))), len(ids) - start

    differences = []
    for words in ("fur paw puppy", "sail ocean hull", "song string chord"):
        for pairs in (direct(words), channel(words)):
            ours = llm.score_sync(pairs).logprobs
            theirs = [expected(*pair) for pair in pairs]
            by_ours = sorted(range(len(pairs)), key=lambda place: -ours[place])
            by_theirs = sorted(range(len(pairs)), key=lambda place: -theirs[place][0])
            assert by_ours[0] == by_theirs[0]
            gaps = [theirs[a][0] - theirs[b][0] for a, b in itertools.pairwise(by_theirs)]
            if min(gaps) > 0.5:  # what lies closer together than the rounding may change places
                assert by_ours == by_theirs
            differences += [abs(mine - value) / count for mine, (value, count) in zip(ours, theirs, strict=True)]
    assert max(differences) <= 0.25, f"nats a token: {differences}"
    assert sum(differences) / len(differences) <= 0.12, f"nats a token: {differences}"
