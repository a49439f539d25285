"""A mapper to a Stable Diffusion that is there already: from captions of a user's file to a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_t2i import WORDS, tiny_llm, tiny_stable_diffusion

from icl_vision.errors import ArtefactNotFoundError, UntrustedNameError, UsageError
from icl_vision.text_to_image.parts import load_parts
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.text_to_image.text_encoder import ClipStates, PipelineStates
from icl_vision.text_to_image.training import load_config, train
from icl_vision.text_to_image.training.captioned import read_captions

SMALL = (
    "mapper.width=8", "mapper.heads=2", "mapper.blocks=1", "stage1.steps=4", "stage1.batch=4", "stage1.checkpoint=2"
)  # fmt: skip


@pytest.fixture
def diffusion(tmp_path: Path) -> Path:
    return tiny_stable_diffusion(tmp_path)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(f"draw {word} of a" for word in WORDS))
    return path


def test_the_text_encoder_alone_says_what_the_pipeline_says(diffusion: Path):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(diffusion)
    texts = ["a", "", "a a a a a a a a a a a a"]
    alone, whole = ClipStates.open(diffusion), PipelineStates(pipeline, "sd")
    assert (alone.length, alone.width, alone.name) == (whole.length, whole.width, "sd") == (8, 24, "sd")
    assert torch.allclose(alone.encode(texts), whole.encode(texts), atol=1e-6)
    with pytest.raises(ArtefactNotFoundError, match="cannot open the text encoder of"):
        ClipStates.open(diffusion / "none")
    with pytest.raises(UsageError, match="not one string"):
        alone.encode("a")


def test_from_captions_to_a_picture(diffusion: Path, captions: Path, tmp_path: Path, cache: Path):
    config = load_config("captions", [*SMALL, f"diffusion={diffusion}"], data=captions)
    result = train(config, tmp_path / "run", until="stage1", llm=tiny_llm(), progress=False)
    assert result.parts is not None and set(result.fit["stage1"]) == {"r2", "cosine"}
    found = load_parts(result.parts)
    assert found.denoiser is None and (found.mapper.length, found.mapper.outputs) == (8, 24)
    assert torch.equal(found.mapper.null, ClipStates.open(diffusion).encode([""])[0].half().float())
    assert str(tmp_path) not in json.dumps(found.card) and found.card["text_encoder"]["name"] == "sd"
    system = LLMTextToImage.from_pretrained(result.parts, llm=tiny_llm(), diffusion=diffusion)
    image = system.draw("draw seven", steps=2, guidance=2)
    assert image.size == (16, 16) and np.asarray(image).std() > 0


def test_stopped_it_goes_on(diffusion: Path, captions: Path, tmp_path: Path, cache: Path):
    config = load_config("captions", [*SMALL, f"diffusion={diffusion}"], data=captions)
    first = train(config, tmp_path / "run", until="stage1", llm=tiny_llm(), progress=False)
    assert first.parts is not None
    written = (first.parts / "mapper.safetensors").read_bytes()
    again = train(config, tmp_path / "run", until="stage1", llm=tiny_llm(), progress=False, resume=True)
    assert again.fit == first.fit and (first.parts / "mapper.safetensors").read_bytes() == written


def test_files_of_captions(tmp_path: Path):
    lines = tmp_path / "captions.jsonl"
    rows = [{"text": f"a  cat {number}"} for number in range(15)] + [{"caption": f"dog {n}"} for n in range(10)]
    lines.write_text("\n".join(map(json.dumps, [*rows, rows[0]])) + "\n\n")
    found = read_captions(lines)
    assert len(found) == 25 and found[0] == "a cat 0" and found[-1] == "dog 9"
    lines.write_text('{"text": 3}')
    with pytest.raises(UsageError, match="line 1 of .* has no caption"):
        read_captions(lines)
    lines.write_text("a cat")
    with pytest.raises(UsageError, match="is no JSON"):
        read_captions(lines)
    few = tmp_path / "few.txt"
    few.write_text("a cat\na dog\na cat")
    with pytest.raises(UsageError, match="holds 2 different captions; a mapper needs at least 20"):
        read_captions(few)


@pytest.mark.parametrize(
    ("change", "until", "said"),
    [
        ("seed=1", "stage2", "from captions alone stage1 is trained"),
        ("loss.target=plain", "stage1", "loss.target=caption"),
        ("seed=1", "stage1", "diffusion must name the Stable Diffusion pipeline"),
    ],
)
def test_what_captions_alone_cannot_train(change: str, until: str, said: str, captions: Path, tmp_path: Path):
    config = load_config("captions", [*SMALL, change], data=captions)
    with pytest.raises(UsageError, match=said):
        train(config, tmp_path / "run", until=until, llm=tiny_llm(), progress=False)
    with pytest.raises(UsageError, match="there are no captions"):
        train(load_config("captions", SMALL), tmp_path / "run", until="stage1", llm=tiny_llm(), progress=False)


def test_a_file_does_not_say_what_is_opened(tmp_path: Path):
    file = tmp_path / "own.yaml"
    file.write_text("subject: captions\ndiffusion: OWNER/NAME\n")
    with pytest.raises(UntrustedNameError, match="diffusion"):
        load_config(file)
    assert load_config(file, trust=True).diffusion == "OWNER/NAME"
    assert load_config(file, ["diffusion=OTHER/NAME"]).diffusion == "OTHER/NAME"
