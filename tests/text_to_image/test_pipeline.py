"""Drawing through diffusers' pipeline on tiny random parts, the demonstration's and Stable Diffusion's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_t2i import tiny_llm, tiny_parts, tiny_stable_diffusion

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.text_to_image.denoisers.samplers import demonstration_sampler
from icl_vision.text_to_image.denoisers.unet import to_latents, to_pixels
from icl_vision.text_to_image.parts import load_parts, save_parts
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.text_to_image.training.config import DrawingConfig

TEXTS = ["draw seven", "the number 3", "two"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_parts(tmp_path / "parts", tiny_parts())


@pytest.fixture
def system(folder: Path) -> LLMTextToImage:
    return LLMTextToImage.from_pretrained(folder, llm=tiny_llm())


@pytest.fixture
def diffusion(tmp_path: Path) -> Path:
    """A Stable Diffusion pipeline of tiny random parts, saved as users have them."""
    return tiny_stable_diffusion(tmp_path)


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


def test_the_latents_are_the_picture_in_another_order():
    picture = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    latents = to_latents(picture)
    assert latents.shape == (2, 4, 16, 16) and torch.equal(to_pixels(latents), picture)
    assert latents[0, 1, 0, 0] == picture[0, 0, 0, 1] / 127.5 - 1


def test_parts_are_what_was_saved(folder: Path):
    found, before = load_parts(folder), tiny_parts()
    for name, value in before.mapper.state_dict().items():
        assert torch.equal(found.mapper.state_dict()[name], value), name
    for name, value in before.denoiser.state_dict().items():
        assert torch.equal(found.denoiser.state_dict()[name], value), name
    assert found.adapters is not None and before.adapters is not None
    assert {name: value.half().float().sum() for name, value in before.adapters.items()} == {
        name: value.sum() for name, value in found.adapters.items()
    }


def test_damaged_parts_are_refused(folder: Path, tmp_path: Path):
    data = bytearray((folder / "mapper.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "mapper.safetensors").write_bytes(data)
    with pytest.raises(ArtefactDamagedError, match="mapper.safetensors"):
        load_parts(folder)
    with pytest.raises(ArtefactNotFoundError, match="there is no folder"):
        load_parts(tmp_path / "none")
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("of somebody's")
    with pytest.raises(UsageError, match="is there already and holds no parts"):
        save_parts(other, tiny_parts())


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_a_picture_is_its_text_and_seed(sampler: str, folder: Path):
    system = LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), sampler=sampler)
    together = system.draw(TEXTS, seed=5)
    assert [image.size for image in together] == [(32, 32)] * 3 and together[0].mode == "RGB"
    alone = system.draw(TEXTS[1], seed=6)
    assert abs(pixels(alone) - pixels(together[1])).max() <= 1
    assert np.array_equal(pixels(system.draw(TEXTS, seed=5)[2]), pixels(together[2]))
    assert abs(pixels(system.draw(TEXTS[1], seed=7)) - pixels(alone)).max() > 20
    chosen = system.draw(TEXTS, seed=[9, 6, 9])
    assert abs(pixels(chosen[1]) - pixels(alone)).max() <= 1
    assert system.draw([]) == []


def test_a_word_alone_is_put_into_the_wording_of_the_parts(system: LLMTextToImage):
    seen: list[list[str]] = []
    understood = system.llm.states

    def heard(texts: Any) -> Any:
        seen.append(list(texts))
        return understood(texts)

    system.llm.states = heard  # type: ignore[method-assign]  # what the LLM is asked, seen on its way
    plain = system.states(["two"])
    system.alone = "draw the number {}"
    worded = system.states([" two. ", "draw seven", "..."])
    assert seen == [["two"], ["draw the number two", "draw seven", "..."]]
    assert torch.allclose(system.states("draw the number two")[0], worded[0], atol=1e-5)
    assert not torch.allclose(plain[0], worded[0], atol=1e-5)


def test_a_wording_for_words_alone_needs_a_place(tmp_path: Path):
    with pytest.raises(UsageError, match="drawing.alone must hold {} once"):
        DrawingConfig(alone="a digit")
    parts = tiny_parts()
    parts.card["drawing"] = {"alone": "{} or {}"}
    with pytest.raises(UsageError, match="drawing.alone of the parts' card"):
        LLMTextToImage.from_pretrained(save_parts(tmp_path / "parts", parts), llm=tiny_llm())


def test_text_guidance_and_negative_text_matter(system: LLMTextToImage):
    one = pixels(system.draw(TEXTS[0], guidance=1))
    assert (one != pixels(system.draw(TEXTS[1], guidance=1))).any()
    assert (one != pixels(system.draw(TEXTS[0], guidance=4))).any()
    guided = pixels(system.draw(TEXTS[0], guidance=4))
    assert (guided != pixels(system.draw(TEXTS[0], guidance=4, negative="two"))).any()
    # Drawn away from itself nothing is left of guidance.
    assert abs(pixels(system.draw(TEXTS[0], guidance=4, negative=TEXTS[0])) - one).max() <= 1


def test_pictures_on_their_way(system: LLMTextToImage):
    seen: list[tuple[int, list[int]]] = []
    last: list[Image.Image] = []

    def watch(step: int, places: Any, images: list[Image.Image]) -> None:
        seen.append((step, list(places)))
        last[:] = images

    drawn = system.draw(TEXTS, steps=4, watch=watch)
    assert seen == [(step, [0, 1, 2]) for step in (1, 2, 3, 4)]
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(drawn, last, strict=True))


def test_the_llm_answers_without_its_adapters(system: LLMTextToImage):
    plain = tiny_llm().states(TEXTS).values
    assert not torch.allclose(system.llm.states(TEXTS).values, plain, atol=1e-3)
    with system.unadapted():
        assert torch.equal(system.llm.states(TEXTS).values, plain)
    assert not torch.allclose(system.llm.states(TEXTS).values, plain, atol=1e-3)


@dataclass
class Routed:
    draw: bool | None
    confidence: float = 0.9


class Router:
    """Sure of what has the word draw in it, and that no other is a picture; but for one."""

    def route(self, line: str) -> Routed:
        return Routed(None, 0.5) if "perhaps" in line else Routed("draw" in line)


def test_chatting(system: LLMTextToImage):
    system.router = Router()
    picture = system.chat("draw seven", seed=3)
    assert picture.text is None and picture.image is not None and picture.confidence == 0.9 and not picture.asked
    assert np.array_equal(pixels(picture.image), pixels(system.draw("draw seven", seed=3)))
    text = system.chat("two of the", tokens=3)
    assert text.image is None and text.text == tiny_llm().answer("two of the", tokens=3)

    said = system.chat("perhaps seven", llm=always(" draw"))
    assert said.image is not None and said.asked and said.confidence == 0.5
    other = system.chat("perhaps seven", llm=always("text"))
    assert other.image is None and other.text == "text" and other.asked
    alone = system.chat("perhaps seven", tokens=2)  # its own LLM, of random weights, names neither
    assert alone.image is None and alone.asked
    with pytest.raises(UsageError, match="must have something in it"):
        system.chat(" ")


def always(answer: str) -> Any:
    """An LLM that gives one answer."""
    from icl_vision.contracts import Completion, Profile

    class Always:
        profile = Profile(name="always")

        def complete_sync(self, prompt: str, **_: Any) -> Completion:
            return Completion(answer, finish_reason="stop")

    return Always()


def test_the_packaged_router_decides(system: LLMTextToImage):
    drawn = system.chat("Draw me a seven, please")
    assert drawn.image is not None and drawn.confidence > 0.9 and not drawn.asked
    told = system.chat("What is the capital of France?", tokens=2)
    assert told.text is not None and told.confidence > 0.9


def test_a_tool_for_agents(system: LLMTextToImage):
    pytest.importorskip("langchain_core")
    tool = system.as_tool()
    message = tool.invoke({"name": tool.name, "args": {"text": "draw seven"}, "id": "1", "type": "tool_call"})
    assert "picture has the id" in message.content and message.artifact["text"] == "draw seven"
    kept = tool.images[message.artifact["id"]]
    assert kept.size == (32, 32)
    refused = tool.invoke({"name": tool.name, "args": {"text": " "}, "id": "2", "type": "tool_call"})
    assert "1 to 300 printable characters" in refused.content
    assert "hand-written digits" in tool.description
    system.parts.card["names"] = ["octopus", "ant"]
    assert "small pictures of 2 things, such as 'octopus'" in system.as_tool().description


def test_states_that_cannot_be_drawn_from(system: LLMTextToImage):
    states, null = torch.randn(2, 4, 16), system.mapper.null
    with pytest.raises(UsageError, match="guidance 2 draws away from negative states, and none were given"):
        system.draw_states(states)
    assert len(system.draw_states(states, guidance=1)) == 2
    with pytest.raises(UsageError, match=r"as long and wide as the others, \[2, 4, 16\]; got \[2, 5, 16\]"):
        system.draw_states(states, torch.randn(5, 16))
    with pytest.raises(UsageError, match=r"states must be \[B, N, 16\].*got \[2, 4, 8\]"):
        system.draw_states(torch.randn(2, 4, 8), null)
    with pytest.raises(UsageError, match="floating-point tensor .*got torch.int64"):
        system.draw_states(torch.zeros(2, 4, 16, dtype=torch.int64), null)
    with pytest.raises(UsageError, match="negative states must be a floating-point tensor; got torch.int64"):
        system.draw_states(states, torch.zeros(4, 16, dtype=torch.int64))
    with pytest.raises(UsageError, match="one for each of the 2 texts; got 3"):
        system.draw(TEXTS[:2], seed=[1, 2, 3])
    with pytest.raises(UsageError, match="seed must be a whole number"):
        system.draw("seven", seed=-1)
    with pytest.raises(UsageError, match="1 to 300 characters"):
        system.draw("")
    with pytest.raises(UsageError, match="sampler must be one of"):
        demonstration_sampler("euler")


def test_parts_of_another_llm_or_net(folder: Path, tmp_path: Path, diffusion: Path):
    with pytest.raises(UsageError, match="trained for another one"):
        LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), diffusion=diffusion)
    bare = save_parts(tmp_path / "bare", tiny_parts(denoiser=False))
    with pytest.raises(UsageError, match="hold no denoiser of their own"):
        LLMTextToImage.from_pretrained(bare, llm=tiny_llm())


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_stable_diffusion_by_folder(sampler: str, tmp_path: Path, diffusion: Path):
    parts = save_parts(tmp_path / "parts", tiny_parts(denoiser=False, outputs=24, length=8))
    system = LLMTextToImage.from_pretrained(parts, llm=tiny_llm(), diffusion=diffusion, sampler=sampler)
    assert system.pipeline.text_encoder is None and "StableDiffusionPipeline" in repr(system)
    seen: list[tuple[int, int]] = []
    images = system.draw(TEXTS[:2], steps=2, seed=1, watch=lambda step, _, made: seen.append((step, made[0].width)))
    assert [image.size for image in images] == [(16, 16)] * 2 and images[0].mode == "RGB"
    assert seen == [(1, 16), (2, 16)]
    assert np.array_equal(pixels(images[0]), pixels(system.draw(TEXTS[:2], steps=2, seed=1)[0]))
    assert (pixels(images[0]) != pixels(system.draw(TEXTS[1], steps=2, seed=1))).any()
    with pytest.raises(ArtefactNotFoundError, match="cannot open .* as a Stable Diffusion pipeline"):
        LLMTextToImage.from_pretrained(parts, llm=tiny_llm(), diffusion=tmp_path / "none")
