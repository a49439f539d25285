"""Weights rounded to 255 levels a channel, and the levels found again in an exported graph."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from icl_vision.exporters import artefact
from icl_vision.models.rounding import round_to_fp16, round_to_int8


def net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5)
    ).eval()


def test_a_channel_has_255_levels_and_the_error_is_half_of_one() -> None:
    module = net()
    before = module[0].weight.detach().clone()
    round_to_int8(round_to_fp16(module))
    rows = module[0].weight.detach().flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / 127
    levels = rows / scale
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert float(((rows - before.flatten(1)).abs() / scale).max()) < 1.1  # the largest itself moves to a whole 127
    assert float(((rows - before.flatten(1)).abs() / scale).mean()) < 0.3


def test_a_second_rounding_changes_nothing() -> None:
    module = round_to_int8(round_to_fp16(net()))
    before = [one.detach().clone() for one in module.parameters()]
    round_to_int8(module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_channel_of_zeros_stays_zero() -> None:
    module = net()
    torch.nn.init.zeros_(module[0].weight[2])
    round_to_int8(module)
    assert module[0].weight[2].abs().max() == 0
    assert torch.isfinite(module[0].weight).all()


@pytest.mark.slow
def test_a_graph_holds_int8_and_computes_the_same() -> None:
    import onnxruntime as ort

    module = round_to_int8(round_to_fp16(net()))
    x = torch.randn(2, 3, 8, 8)
    model = artefact.to_onnx(module, {"input": x}, ["y"], {"input": {0: torch.export.Dim("batch")}})
    whole = len(model.SerializeToString())
    assert artefact.store_int8(model) == 2
    artefact.store_fp16(model)
    data = model.SerializeToString()
    assert len(data) < 0.6 * whole
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) == 2
    (found,) = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)
