"""The denoiser through onnxruntime: the same pictures as torch's, from a graph that is made once."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_t2i import tiny_llm, tiny_parts
from torch import Tensor, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from icl_vision.errors import ArtefactDamagedError, ArtefactError, UsageError
from icl_vision.text_to_image.onnx_denoiser import OnnxDenoiser, onnx_graph
from icl_vision.text_to_image.parts import Parts, load_parts, save_parts
from icl_vision.text_to_image.pipeline import LLMTextToImage

exporter = importlib.import_module("icl_vision.exporters.denoiser")


class Net(nn.Module):
    """What a U-Net is to a pipeline, in four operators: a U-Net of any size takes seconds to export."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(sample_size=16, in_channels=4, cross_attention_dim=16)
        self.conv_out = nn.Conv2d(4, 4, 3, padding=1)
        self.attend = nn.Linear(16, 4)

    def forward(self, latents: Tensor, times: Tensor, states: Tensor, return_dict: bool) -> tuple[Tensor]:
        seen = self.attend(states).mean(1) * (1 + times.float()).log().expand(len(latents))[:, None]
        return (self.conv_out(latents) + seen[:, :, None, None],)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Parts, Path]:
    """A cache with the graph of the parts' denoiser in it."""
    root = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    parts = replace(tiny_parts(denoiser=False), denoiser=Net().eval().requires_grad_(False), folder=root)
    parts.card["files"] = {"denoiser.safetensors": "ab" * 32}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICL_VISION_CACHE", str(root / "cache"))
        return root / "cache", parts, onnx_graph(parts)


@pytest.fixture
def graph(kept: tuple[Path, Parts, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICL_VISION_CACHE", str(kept[0]))
    return kept[2]


@pytest.fixture
def parts(kept: tuple[Path, Parts, Path]) -> Parts:
    return kept[1]


def test_it_predicts_what_torch_predicts(graph: Path, parts: Parts):
    denoiser = OnnxDenoiser(graph, parts.denoiser.config, threads=1)
    for size, length in ((1, 4), (3, 4), (2, 7)):
        latents, states = torch.randn(size, 4, 16, 16), torch.randn(size, length, 16)
        for time in (torch.tensor(7), torch.arange(size) * 300):
            wanted = parts.denoiser(latents, time, states, return_dict=False)[0]
            (found,) = denoiser(latents, time, encoder_hidden_states=states, return_dict=False)
            assert found.dtype == torch.float32 and (found - wanted).abs().max() < exporter.TOLERANCE


def test_it_is_made_once(graph: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporter, "export_denoiser", lambda *_, **__: pytest.fail("the graph is there already"))
    assert onnx_graph(parts) == graph and ("ab" * 16) in graph.name


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_the_same_pictures_through_the_pipeline(sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    folder = save_parts(tmp_path / "parts", tiny_parts())
    mine = LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), sampler=sampler, denoiser="onnx")
    torchs = LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), sampler=sampler)
    assert isinstance(mine.pipeline.unet, OnnxDenoiser)
    texts = ["draw seven", "the number 3"]
    for found, wanted in zip(mine.draw(texts, seed=5), torchs.draw(texts, seed=5), strict=True):
        difference = np.abs(np.asarray(found).astype(int) - np.asarray(wanted).astype(int))
        assert difference.max() <= 1


def test_a_graph_that_computes_something_else_is_not_kept(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path))
    graph = exporter._graph

    def other(unet: Any, length: int) -> Any:
        model = graph(unet, length)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("conv_out.bias"):
                tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + 1).tobytes()
        return model

    monkeypatch.setattr(exporter, "_graph", other)
    with pytest.raises(ArtefactError, match="from torch where 0.0001 is allowed"):
        onnx_graph(parts)
    assert not list(tmp_path.rglob("*.onnx"))


def test_what_cannot_be(parts: Parts, graph: Path, tmp_path: Path):
    folder = save_parts(tmp_path / "bare", tiny_parts(denoiser=False))
    with pytest.raises(UsageError, match=r"denoiser must be .*'torch'.*got 'tensorrt'"):
        LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), denoiser="tensorrt")
    with pytest.raises(UsageError, match="computes the parts' own denoiser on a CPU; got diffusion 'somewhere'"):
        LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), denoiser="onnx", diffusion="somewhere")
    with pytest.raises(UsageError, match="on a CPU; got device 'cuda'"):
        LLMTextToImage.from_pretrained(folder, llm=tiny_llm(), denoiser="onnx", device="cuda")
    with pytest.raises(UsageError, match="have none of their own"):
        onnx_graph(load_parts(folder))
    denoiser = OnnxDenoiser(graph, parts.denoiser.config, threads=1)
    with pytest.raises(UsageError, match="takes no cross_attention_kwargs"):
        denoiser(torch.zeros(1, 4, 16, 16), torch.tensor(1), torch.zeros(1, 4, 16), cross_attention_kwargs={"scale": 1})


def test_a_file_in_the_cache_that_is_no_graph(parts: Parts, tmp_path: Path):
    path = tmp_path / "denoiser.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ArtefactDamagedError, match="cannot read the graph of 'denoiser'"):
        OnnxDenoiser(path, parts.denoiser.config)
