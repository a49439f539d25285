"""Frozen's Real-Fast-VQA, as its archive lies on disk, asked with the words of a tiny LQAE."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from icl_vision.codebook import Codebook
from icl_vision.contracts import Tokenizer
from icl_vision.evaluation.answering.benches import question_bench
from icl_vision.evaluation.answering.config import AnsweringConfig
from icl_vision.evaluation.answering.evaluation import AnsweringEvaluation
from icl_vision.evaluation.answering.readers import read_questions
from icl_vision.exporters.checkpoint import Export
from icl_vision.exporters.lqae import export_lqae
from icl_vision.llms.fake import FakeLLM
from icl_vision.models.lqae import LQAE, LqaeConfig
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.pixels import Preprocessing

ASKED = [
    {
        "question_id": number,
        "image_1": "a.jpg", "caption_1": "This is a lion.", "image_2": "b.jpg", "caption_2": "This is a vase.",
        "question": "What is the vase made of?", "question_image": "q.jpg", "answer": answer,
    }
    for number, answer in enumerate(("glass", "wood"))
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> OnnxTokenizer:
    torch.manual_seed(3)
    config = LqaeConfig(
        net="photo", side=64, grid=8, dim=128, directions=6, batch_norm=True, train_on="latents", width=16, blocks=1
    )
    model = LQAE(config, torch.from_numpy(np.array(Codebook.load().vectors))).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    export_lqae(model, folder, Export("tiny", Codebook.load(), Preprocessing(64), pixels))
    return OnnxTokenizer(folder, providers="cpu", threads=1)


def archive(folder: Path) -> Path:
    """Two questions about one picture of noise, after two others."""
    folder.mkdir()
    (folder / "guided_vqa_shots_1_ways_2_all_questions.json").write_text(json.dumps(ASKED), encoding="utf-8")
    for number, name in enumerate(("a", "b", "q")):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    return folder


@pytest.mark.slow
def test_real_fast_vqa_is_asked_in_its_64_words(tmp_path: Path, tokenizer: OnnxTokenizer) -> None:
    folder = archive(tmp_path / "guided")
    loaded: list[str] = []

    def load(name: str) -> Tokenizer:
        loaded.append(name)
        return tokenizer

    llm = FakeLLM(lambda prompt: " glass\n" if re.search(r"^C: ", prompt, flags=re.MULTILINE) else " stone\n")
    found = read_questions(folder)
    assert found.name == "real-fast-vqa"
    config = AnsweringConfig(rows=("blind:greedy", "lqae-64:greedy"), shots=2)
    evaluation = AnsweringEvaluation(question_bench(found, shots=2), found.metric, llm=llm, config=config, load=load)
    rows = {row["name"]: row for row in evaluation.run(tmp_path / "run").results["rows"]}
    assert rows["lqae-64:greedy"]["figure"]["accuracy"] == 0.5 and rows["blind:greedy"]["figure"]["accuracy"] == 0.0
    assert rows["lqae-64:greedy"]["tokens_an_image"] == 64 and "lqae-photo-128" in loaded
    seen = {name: " ".join(tokenizer.encode(folder / f"{name}.jpg")[0].words()) for name in "abq"}
    assert all(len(words.split()) == 64 for words in seen.values()) and len(set(seen.values())) == 3
    prompts = {call.prompt.text for call in llm.calls if "C: " in call.prompt.text}
    assert len(prompts) == 1  # two answers to one question
    (prompt,) = prompts
    lines = prompt.splitlines()
    order = [lines.index(f"C: {seen[name]}") for name in "abq"]
    assert order == sorted(order)
    for name, caption in (("a", "This is a lion."), ("b", "This is a vase.")):
        assert caption in "\n".join(lines[lines.index(f"C: {seen[name]}"):][:3])  # fmt: skip
