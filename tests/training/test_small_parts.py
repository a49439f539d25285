"""Seeds, schedule, averages, grids, the watch: each by itself."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from icl_vision.errors import TrainingError, UsageError
from icl_vision.training.ema import Ema, EmaConfig
from icl_vision.training.schedule import ScheduleConfig, rate_factor
from icl_vision.training.seeds import derive, kept_generators, seed_globally
from icl_vision.training.step import optimiser_tensors, restore_optimisers
from icl_vision.training.watching.grids import grid_image, save_grid
from icl_vision.training.watching.watch import StopConfig, Watch


def test_seeds_are_functions_of_their_place() -> None:
    found = {derive(seed, stream, step) for seed in (0, 1) for stream in (1, 2) for step in range(50)}
    assert len(found) == 200 and all(0 <= seed < 2**63 for seed in found)
    draws = []
    for _ in range(2):
        seed_globally(3, 4, 5)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]
    with kept_generators():
        expected = torch.rand(3)
    with kept_generators():
        assert torch.equal(torch.rand(3), expected)


def test_root_decay_rises_falls_with_the_root_and_cools_down() -> None:
    schedule = ScheduleConfig("root", warmup=0.1, cooldown=0.2)
    factors = [rate_factor(schedule, step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01) and factors[99] == pytest.approx(1.0)
    assert factors[399] == pytest.approx(math.sqrt(100 / 400))
    assert factors[899] == pytest.approx(math.sqrt(100 / 900) * 101 / 200)
    assert factors[999] == pytest.approx(math.sqrt(100 / 1000) / 200)
    assert max(factors) == pytest.approx(1.0)


def test_cosine_constant_floor_and_timescale() -> None:
    cosine = [rate_factor(ScheduleConfig("cosine", 0.1, 0.0, floor=0.05), step, 100) for step in range(100)]
    assert cosine[9] == pytest.approx(1.0) and cosine[-1] == pytest.approx(0.05)
    assert all(a >= b for a, b in itertools.pairwise(cosine[9:]))
    constant = ScheduleConfig("constant", 0.0, 0.0)
    assert {rate_factor(constant, step, 10) for step in range(10)} == {1.0}
    late = ScheduleConfig("root", 0.0, 0.0, timescale=0.5)
    assert rate_factor(late, 49, 100) == 1.0 and rate_factor(late, 99, 100) == pytest.approx(math.sqrt(0.5))
    assert rate_factor(ScheduleConfig(), 0, 1) == 1.0  # a run of one step learns


def test_the_average_follows_slowly_and_keeps_buffers() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    net[0].bias.requires_grad_(False)
    ema = Ema(net, EmaConfig(decay=0.9, warmup=False))
    before = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight += 1
        net[1].running_mean += 2
    ema.update(0)
    assert torch.allclose(ema.average[0].weight, before + 0.1)
    assert torch.equal(ema.average[1].running_mean, net[1].running_mean)
    assert not ema.average.training and not any(one.requires_grad for one in ema.average.parameters())
    rising = Ema(net, EmaConfig(decay=0.9))
    assert [rising.decay_at(0), rising.decay_at(1000)] == [0.1, 0.9]


def test_grids(tmp_path: Path) -> None:
    rows = [torch.rand(3, 1, 16, 16), torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)]
    plain = grid_image(rows)
    assert plain.size == (3 * 66 - 2, 2 * 66 - 2)  # enlarged four times
    labelled = grid_image(rows, ["original", "1 word"])
    assert labelled.width > plain.width
    save_grid(tmp_path / "new" / "grid.png", [torch.ones(2, 3, 128, 128)])
    with Image.open(tmp_path / "new" / "grid.png") as image:
        assert image.size == (258, 128)
        assert image.getpixel((5, 5)) == (255, 255, 255)
    with pytest.raises(UsageError, match="rows of a grid must be"):
        grid_image([])
    with pytest.raises(UsageError, match="and alike"):
        grid_image([torch.rand(3, 1, 8, 8), torch.rand(2, 1, 8, 8)])
    with pytest.raises(UsageError, match="2 rows need as many labels"):
        grid_image(rows, ["a"])


def test_the_watch_names_what_is_not_finite() -> None:
    watch = Watch(StopConfig())
    with pytest.raises(TrainingError, match="step 3: not finite: pixel, the gradient's norm; lower optimiser.rate"):
        watch.refuse_numbers(3, {"pixel": math.inf, "total": 1.0}, math.nan)
    with pytest.raises(TrainingError, match="a loss in another process"):
        watch.refuse_numbers(3, {"pixel": 1.0}, 1.0)


def test_the_watch_stops_for_a_collapse_of_all_layers_only(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(StopConfig(perplexity=1.5, patience=2))
    with caplog.at_level(logging.WARNING, "icl_vision"):
        for step in range(4):
            watch.check_usage(step, [1.0, 9.0])
    assert len(caplog.messages) == 1 and "layer 1 says little more than one word" in caplog.messages[0]
    watch.check_usage(5, [1.0, 1.2])
    watch.check_usage(6, [1.0, 2.0])
    watch.check_usage(7, [1.0, 1.2])
    with pytest.raises(TrainingError, match="for 2 log intervals the perplexity of every layer was below 1.5"):
        watch.check_usage(8, [1.0, 1.2])
    Watch(StopConfig(perplexity=None)).check_usage(1, [1.0])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_averages_come_back_in_the_memory_order_of_their_weights(memory: torch.memory_format) -> None:
    """A checkpoint holds them in plain order, and the fused step of Adam goes through memory as it lies."""

    def steps(net: torch.nn.Conv2d, optimiser: torch.optim.AdamW, numbers: range) -> None:
        for number in numbers:
            net(torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(number))).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()

    whole = torch.nn.Conv2d(3, 4, 3).to(memory_format=memory)  # type: ignore[call-overload]  # torch's types forget this form
    half = copy.deepcopy(whole)
    steps(whole, torch.optim.AdamW(whole.parameters(), lr=0.01, fused=True), range(4))
    before = torch.optim.AdamW(half.parameters(), lr=0.01, fused=True)
    steps(half, before, range(2))
    kept = {name: value.contiguous() for name, value in optimiser_tensors({"generator": before}).items()}
    after = torch.optim.AdamW(half.parameters(), lr=0.01, fused=True)
    restore_optimisers({"generator": after}, kept)
    steps(half, after, range(2, 4))
    assert torch.equal(whole.weight, half.weight)
