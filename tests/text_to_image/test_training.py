"""Training on tiny parts: every stage, stopped and resumed, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_t2i import TableEncoder, tiny_llm

from icl_vision.errors import RunMismatchError, UntrustedNameError, UsageError
from icl_vision.text_to_image import parts as parts_module
from icl_vision.text_to_image.parts import load_parts
from icl_vision.text_to_image.training import load_config, shipped_configs, train
from icl_vision.text_to_image.training import mapping as mapping_module
from icl_vision.text_to_image.training import stage as stage_module
from icl_vision.training.checkpoint import latest_checkpoint


def latest(folder: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a stage's newest checkpoint."""
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint.tensors("ema")


SMALL = (
    "captions.templates=4",
    "captions.foreign=2",
    "denoiser.channels=[16,16,16]",
    "denoiser.width=16",
    "denoiser.length=4",
    "mapper.kind=queries",
    "mapper.width=8",
    "mapper.heads=2",
    "adapters.blocks=1",
    "adapters.hidden=4",
    "loss.pictures=2",
    "loss.weights=none",
    "data.workers=0",
    *(f"stage{number}.{key}" for number in range(3) for key in ("steps=4", "batch=4", "checkpoint=2")),
)


def run(digits: Path, out: Path, *more: str, **keys: Any) -> Any:
    config = load_config("digits", [*SMALL, *more], data=digits)
    return train(config, out, encoder=TableEncoder(), llm=tiny_llm(), progress=False, **keys)


def test_all_stages_and_what_they_leave(digits: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mapping_module, "_PROBES", 2)
    result = run(digits, tmp_path / "run", "loss.weights=sensitivity")
    assert set(result.fit) == {"stage1", "stage2"} and set(result.sizes) == {"denoiser", "mapper", "llm", "adapters"}
    found = load_parts(result.parts)
    assert found.denoiser is not None and found.adapters is not None
    assert sum(value.numel() for value in found.adapters.values()) == result.sizes["adapters"]
    assert {name.split(".")[0] for name in found.adapters} == {"llm", "mapper"}
    card = json.loads((result.parts / "card.json").read_text())
    assert set(card["files"]) == {"denoiser.safetensors", "mapper.safetensors", "adapters.safetensors"}
    assert card["licence"] and card["llm"] == {"spec": "tiny", "width": 32, "prompt": "{}", "blocks": 3}
    assert "notice" not in card and str(tmp_path) not in json.dumps(card)
    assert torch.equal(found.mapper.null, TableEncoder().encode([""])[0].half().float())
    journal = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in journal] == [
        f"{name}-000004" for name in ("denoiser", "stage1", "stage2")
    ]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["fit"] == result.fit


@pytest.mark.parametrize("stage", ["denoiser", "stage1", "stage2"])
def test_stopped_in_any_stage_it_ends_as_if_it_had_not_been(
    stage: str, digits: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run(digits, tmp_path / "whole")
    saved = stage_module.save_checkpoint

    def killed(root: Path, step: int, *rest: Any, **keys: Any) -> Path:
        written = saved(root, step, *rest, **keys)
        if root.name == stage and step == 2:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(stage_module, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(digits, tmp_path / "cut")
    monkeypatch.setattr(stage_module, "save_checkpoint", saved)
    again = run(digits, tmp_path / "cut", resume=True)
    for name in ("denoiser", "mapper", "adapters"):
        file = f"{name}.safetensors"
        assert (again.parts / file).read_bytes() == (whole.parts / file).read_bytes(), name


def test_a_finished_run_resumed_trains_nothing(
    digits: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    first = run(digits, tmp_path / "run", until="stage1")
    assert "adapters" not in first.sizes and load_parts(first.parts).adapters is None
    monkeypatch.setattr(stage_module, "rate_factor", lambda *_: pytest.fail("a step was done"))
    again = run(digits, tmp_path / "run", until="stage1", resume=True)
    assert again.fit == first.fit


def test_another_configuration_is_not_resumed(digits: Path, tmp_path: Path, cache: Path):
    run(digits, tmp_path / "run", until="denoiser")
    with pytest.raises(RunMismatchError, match="seed differ"):
        run(digits, tmp_path / "run", "seed=1", resume=True, until="denoiser")
    with pytest.raises(RunMismatchError, match="already holds this run"):
        run(digits, tmp_path / "run", until="denoiser")


def test_the_denoiser_of_other_parts_stays_as_it_is(digits: Path, tmp_path: Path, cache: Path):
    first = run(digits, tmp_path / "run", until="stage1")
    second = run(digits, tmp_path / "second", f"parts={first.parts}", until="stage1")
    assert str(tmp_path) not in (second.parts / "card.json").read_text(), "parts are named by what they are"
    third = run(digits, tmp_path / "third", f"init={first.parts}", until="denoiser")
    with pytest.raises(UsageError, match="give one of them"):
        run(digits, tmp_path / "fourth", f"init={first.parts}", f"parts={first.parts}")
    before, after = (load_parts(first.parts).denoiser.state_dict(), latest(third.folder / "denoiser"))
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert moved and all((before[name] - after[name]).abs().mean() < 0.02 for name in moved), "and trained further"
    file = "denoiser.safetensors"
    assert (second.parts / file).read_bytes() == (first.parts / file).read_bytes()
    assert not (tmp_path / "second" / "denoiser").exists()


def test_a_mapper_learns(digits: Path, tmp_path: Path, cache: Path):
    more = ("stage1.steps=150", "stage1.batch=32", "stage1.rate=0.01", "mapper.width=32", "captions.foreign=0")
    result = run(digits, tmp_path / "run", *more, until="stage1")
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    losses = [line["result"]["total"] for line in lines if line["id"].startswith("stage1")]
    assert losses[-1] < 0.7 * losses[0] and result.fit["stage1"].keys() == {"r2", "cosine", "weighted_r2"}


def test_the_sensitive_metric_counts_what_the_denoiser_looks_at():
    matrices = torch.stack([torch.diag(torch.tensor([4.0, 0.0])), torch.diag(torch.tensor([1.0, 1.0]))])
    metric = mapping_module.Metric(matrices)
    zero = torch.zeros(1, 2, 2)
    seen, unseen = zero.clone(), zero.clone()
    seen[0, 0, 0] = 1
    unseen[0, 0, 1] = 1
    assert metric(seen, zero).item() == 1 and metric(unseen, zero).item() == 0
    even = mapping_module.Metric()
    assert even(seen, zero).item() == even(unseen, zero).item() == 0.25


def test_gemmas_parts_carry_its_notice(digits: Path, tmp_path: Path, cache: Path):
    llm = tiny_llm()
    llm.spec = "gemma"
    config = load_config("digits", [*SMALL, "llm=gemma"], data=digits)
    result = train(config, tmp_path / "run", encoder=TableEncoder(), llm=llm, progress=False, until="stage1")
    card = json.loads((result.parts / "card.json").read_text())
    assert "Gemma Terms of Use" in card["notice"] and "Gemma" in card["licence"]
    assert parts_module.gemma_parts().is_relative_to(cache)


def test_data_that_cannot_be_trained_on(digits: Path, tmp_path: Path, cache: Path):
    with pytest.raises(UsageError, match="at least 1000 digits; there are 80"):
        train(load_config("digits", SMALL), tmp_path / "few", encoder=TableEncoder(), llm=tiny_llm(), progress=False)
    with pytest.raises(UsageError, match="denoiser.length and denoiser.width must be those of table, 4 and 16"):
        run(digits, tmp_path / "odd", "denoiser.width=32")


def test_configurations(tmp_path: Path):
    assert {"digits", "gemma-digits"} <= set(shipped_configs())
    assert load_config("gemma-digits").parts == "packaged" and load_config("gemma-digits").llm == "gemma"
    assert load_config("digits", ["stage0.steps=7"]).stage0.batch == load_config("digits").stage0.batch
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load_config("digit")
    with pytest.raises(UsageError, match="unknown key 'stage0.step'.*did you mean 'steps'"):
        load_config("digits", ["stage0.step=7"])
    with pytest.raises(UsageError, match="steps must be a whole number"):
        load_config("digits", ["stage1.steps=0"])
    file = tmp_path / "own.yaml"
    file.write_text("llm: /elsewhere/model\n")
    with pytest.raises(UntrustedNameError, match="llm"):
        load_config(file)
    assert load_config(file, trust=True).llm == "/elsewhere/model"
    assert load_config(file, ["llm=smollm2"]).llm == "smollm2"
