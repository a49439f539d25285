"""benchmarks/lqae_probe.py: its probe, its draw of photographs, and its features of a tiny LQAE."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scripts import loaded
from torch import nn

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.pictures import Picture
from icl_vision.models.lqae import LQAE, LqaeConfig
from icl_vision.models.nets.taef2 import Taef2Encoder
from icl_vision.models.words.masked_lm_files import TextShape

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return loaded(BENCHMARKS / "lqae_probe.py")


def clusters(count: int, wide: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three classes around three points, on scales that differ a thousandfold; two further columns say
    nothing, and one never changes."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, wide, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % 3
    near = centres[labels] + 0.3 * torch.randn(count, wide, generator=random)
    noise = torch.randn(count, 2, generator=random)
    return torch.cat([near * torch.logspace(-1, 2, wide), 50 * noise, torch.ones(count, 1)], dim=1), labels


def test_a_probe_tells_classes_apart_whatever_the_scale(bench: ModuleType) -> None:
    features, labels = clusters(120)
    others, truths = clusters(60, seed=1)
    probe = bench.Probe(features, labels)
    assert (probe(others) == truths).float().mean() > 0.95
    # As a network's BatchNorm would have it: the same whatever is added or multiplied.
    again = bench.Probe(features * 7 - 3, labels)
    assert (again(others * 7 - 3) == probe(others)).float().mean() > 0.97


def test_a_probe_of_noise_is_at_chance(bench: ModuleType) -> None:
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(300, 40, generator=random), torch.arange(300) % 3
    others = torch.randn(300, 40, generator=random)
    assert 0.2 < (bench.Probe(features, labels)(others) == labels).float().mean() < 0.47


def test_the_probe_is_batch_norm_and_a_linear_layer(bench: ModuleType) -> None:
    features, labels = clusters(120)
    probe = bench.Probe(features, labels, penalties=(0.1,))
    norm, linear = nn.BatchNorm1d(features.shape[1], affine=False, momentum=1.0), nn.Linear(features.shape[1], 3)
    norm(features)  # takes mean and spread
    norm.running_var.mul_(119 / 120)  # kept with N - 1; in training it divides by N
    weight, intercept = probe.weights
    linear.load_state_dict({"weight": weight.T, "bias": intercept})
    others, _ = clusters(60, seed=1)
    assert torch.equal(linear(norm.eval()(others)).argmax(1), probe(others))
    # At the minimum nothing pulls any more.
    scaled = norm(features)
    value = nn.functional.cross_entropy(scaled @ weight.requires_grad_() + intercept, labels)
    (gradient,) = torch.autograd.grad(value + 0.05 * weight.square().sum(), weight)
    assert gradient.abs().max() < 1e-3


def test_photographs_are_drawn_by_class_and_the_test_is_kept_apart(bench: ModuleType) -> None:
    pictures = [Picture(f"{label}/{number}.jpg", "", label) for label in "cab" for number in range(9)]
    train, test = bench.drawn(pictures, 6, 2, seed=3)
    assert len(train) == 12 and len(test) == 6
    assert not {picture.name for picture in train} & {picture.name for picture in test}
    assert all(sum(picture.label == label for picture in test) == 2 for label in "abc")
    assert bench.drawn(list(reversed(pictures)), 6, 2, seed=3) == (train, test)
    assert bench.drawn(pictures, 6, 2, seed=4) != (train, test)
    with pytest.raises(UsageError, match="'a' has 9 photographs; --images asks for 12"):
        bench.drawn(pictures, 12, 2, seed=0)
    with pytest.raises(UsageError, match="must leave photographs"):
        bench.drawn(pictures, 6, 6, seed=0)
    with pytest.raises(UsageError, match="two classes"):
        bench.drawn(pictures[:9], 6, 2, seed=0)


def test_places_are_pooled_row_by_row(bench: ModuleType) -> None:
    states = torch.arange(16.0).reshape(1, 16, 1)  # places 0 to 15 of a grid of 4 x 4
    maps = bench.on_grid(states, (4, 4))
    assert maps[0, 0].tolist() == np.arange(16.0).reshape(4, 4).tolist()
    assert bench.pooled(maps, 1).tolist() == [[7.5]]
    assert bench.pooled(maps, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]


def test_rows_are_compared_in_pairs(bench: ModuleType) -> None:
    first, second = torch.tensor([True] * 9 + [False]), torch.tensor([False] * 8 + [True, True])
    (pair,) = bench.compared({"a": first, "b": second}, [("a", "b"), ("a", "missing")])
    assert (pair["only_first"], pair["only_second"], pair["n"]) == (8, 1, 10)
    assert pair["difference"] == pytest.approx(0.7) and pair["interval"][0] > 0 and pair["p"] == pair["p_holm"]


def tiny(text: TextShape | None) -> LQAE:
    torch.manual_seed(0)
    config = LqaeConfig(
        net="photo", side=32, grid=4, dim=8, directions=6, batch_norm=True, text=text, train_on="latents", width=16,
        blocks=1,
    )  # fmt: skip
    return LQAE(config, torch.randn(24, 8)).eval()


def test_features_are_those_of_the_models_own_line(bench: ModuleType) -> None:
    model = tiny(TextShape(width=8, layers=2, heads=2, inner=16, positions=16))
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    rows = bench.Seen(model, seed=0).rows(pixels)
    assert {name: value.shape[1] for name, value in rows.items()} == {
        "latents, mean and spread": 64, "latents, 4x4": 512, "encoder, mean": 6, "encoder, 4x4": 96, "words, bag": 24,
        "words, table, mean": 8, "words, table, 2x2": 32, "text encoder, mean": 24, "text encoder, 2x2": 96,
        "random text encoder, mean": 24, "random text encoder, 2x2": 96, "encoder + text encoder": 192,
    }  # fmt: skip
    images = pixels.permute(0, 3, 1, 2).float() / 255
    (ids,) = model.encode_ids(images)
    assert torch.equal(rows["words, bag"].sum(1), torch.full((3,), 16.0))
    assert rows["words, bag"][0].nonzero().flatten().tolist() == sorted(set(ids[0].flatten().tolist()))
    torch.testing.assert_close(rows["words, table, mean"], model.codebook[ids.flatten(1)].mean(1))
    states = torch.cat([layer.mean(1) for layer in model.hidden_states(ids)], dim=1)
    torch.testing.assert_close(rows["text encoder, mean"], states)
    torch.testing.assert_close(rows["latents, mean and spread"][:, :32], model.frozen(images)[0].mean((2, 3)))
    # Other layers, the same words: what differs is the text encoder alone.
    assert not torch.allclose(rows["random text encoder, mean"], states)
    again = bench.Seen(model, seed=0).rows(pixels)
    assert all(torch.equal(again[name], value) for name, value in rows.items())
    other = bench.Seen(model, seed=1).rows(pixels)
    assert [name for name in rows if not torch.equal(other[name], rows[name])] == [
        "random text encoder, mean", "random text encoder, 2x2",
    ]  # fmt: skip


def test_without_a_text_encoder_there_are_no_rows_of_it(bench: ModuleType) -> None:
    rows = bench.Seen(tiny(None), seed=0).rows(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))
    assert not any("text" in name for name in rows) and "words, bag" in rows


def test_an_exported_one_has_the_same_rows_but_those_of_the_encoders_places(bench: ModuleType) -> None:
    model = tiny(TextShape(width=8, layers=2, heads=2, inner=16, positions=16))
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2).float() / 255

    class Tokenizer:
        name, codebook = "tiny", model.codebook.numpy()

        def encode(self, given: list[np.ndarray[Any, Any]]) -> list[SimpleNamespace]:
            assert np.array_equal(np.stack(given), pixels.numpy())
            return [SimpleNamespace(ids=(ids.numpy(),)) for ids in model.encode_ids(images)[0]]

        def embed(self, given: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
            return model.encode(images).mean((2, 3)).detach().numpy()

    taef2 = next(net for net in model.encoder.modules() if isinstance(net, Taef2Encoder))
    rows = bench.Exported(Tokenizer(), model.text, taef2, seed=0).rows(pixels)
    whole = bench.Seen(model, seed=0).rows(pixels)
    assert set(whole) - set(rows) == {"encoder, 4x4", "encoder + text encoder"}
    for name, value in rows.items():
        torch.testing.assert_close(value, whole[name])
    other = tiny(TextShape(width=8, layers=2, heads=2, inner=16, positions=16)).text
    other.table = other.table + 1
    with pytest.raises(UsageError, match="another text encoder"):
        bench.Exported(Tokenizer(), other, taef2, seed=0)
