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
    "captions.bare=false",  # a thousand captions fewer
    *(f"stage{number}.{key}" for number in range(3) for key in ("steps=4", "batch=4", "checkpoint=2")),
)


def journal_of(folder: Path) -> dict[str, dict[str, float]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return {line["id"]: line["result"] for line in map(json.loads, lines)}


def better_and_better() -> Any:
    """Held-out numbers that fall with every look: the last weights of a stage are kept."""
    looks = iter(range(1000, 0, -1))

    def numbers(*_: Any) -> dict[str, float]:
        look = float(next(looks))
        return {"total": look, "wrong": look / 1000, "right_english": 0.0, "right_other": 0.0}

    return numbers


def by_the_weights(held: Any, mapped: torch.Tensor, _: Any) -> dict[str, float]:
    """Held-out numbers that are as good as random, but the same for the same weights: any step may be the best."""
    some = float(mapped.double().abs().sum() * 777 % 1)
    return {"total": some, "wrong": some, "right_english": 0.0, "right_other": 0.0}


def run(digits: Path, out: Path, *more: str, **keys: Any) -> Any:
    config = load_config("digits", [*SMALL, *more], data=digits)
    return train(config, out, encoder=TableEncoder(), llm=tiny_llm(), progress=False, **keys)


def test_all_stages_and_what_they_leave(digits: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mapping_module, "_PROBES", 2)
    monkeypatch.setattr(mapping_module.HeldOut, "numbers", better_and_better())
    result = run(digits, tmp_path / "run", "loss.weights=sensitivity", "stage2.rate=1e-5")
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
    assert list(journal_of(tmp_path / "run")) == ["denoiser-000004"] + [
        f"{name}-{line}" for name in ("stage1", "stage2") for line in ("held-out-000000", "000004", "held-out-000004")
    ]
    assert set(card["kept"]) == {"stage1", "stage2"} and card["kept"]["stage2"]["step"] == 4
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["fit"] == result.fit


@pytest.mark.parametrize("stage", ["denoiser", "stage1", "stage2"])
def test_stopped_in_any_stage_it_ends_as_if_it_had_not_been(
    stage: str, digits: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mapping_module.HeldOut, "numbers", by_the_weights)
    whole = run(digits, tmp_path / "whole", "stage2.check=1", "stage2.rate=1e-5")
    saved = stage_module.save_checkpoint

    def killed(root: Path, step: int, *rest: Any, **keys: Any) -> Path:
        written = saved(root, step, *rest, **keys)
        if root.name == stage and step == 2:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(stage_module, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(digits, tmp_path / "cut", "stage2.check=1", "stage2.rate=1e-5")
    monkeypatch.setattr(stage_module, "save_checkpoint", saved)
    again = run(digits, tmp_path / "cut", "stage2.check=1", "stage2.rate=1e-5", resume=True)
    # Which step is best, and so whether there are adapters, hangs on the processor; what stage 2 came to does not.
    files = {file.name: file.read_bytes() for file in whole.parts.glob("*.safetensors")}
    assert {"denoiser.safetensors", "mapper.safetensors"} <= files.keys()
    assert {file.name: file.read_bytes() for file in again.parts.glob("*.safetensors")} == files
    ended = latest(tmp_path / "whole" / "stage2")
    assert ended and all(
        torch.equal(tensor, ended[name]) for name, tensor in latest(tmp_path / "cut" / "stage2").items()
    )


def test_stage_2_begins_where_stage_1_ended_and_lowers_the_held_out_loss(digits: Path, tmp_path: Path, cache: Path):
    more = ("stage2.steps=6", "stage2.check=2", "stage2.rate=1e-4", "adapters.dropout=0.0")
    result = run(digits, tmp_path / "run", *more)
    journal = journal_of(tmp_path / "run")
    # What is held out is looked at through the adapters; at their start they change nothing but what fp16 does.
    card = json.loads((result.parts / "card.json").read_text())
    before, after = card["kept"]["stage1"], card["kept"]["stage2"]
    assert journal["stage2-held-out-000000"]["total"] == pytest.approx(before["held_out"]["total"], abs=1e-3)
    checks = {step: journal[f"stage2-held-out-{step:06d}"] for step in (0, 2, 4, 6)}
    assert checks[6]["total"] < checks[0]["total"]
    best = min(checks, key=lambda step: (checks[step]["wrong"], checks[step]["total"]))
    kept = {key: value for key, value in checks[best].items() if key != "step"}
    assert after["step"] == best and after["held_out"] == kept and after["before"]["total"] == checks[0]["total"]


def test_a_stage_2_that_makes_it_worse_is_not_kept(
    digits: Path, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
):
    first = run(digits, tmp_path / "first", until="stage1")
    result = run(digits, tmp_path / "run", "stage2.rate=10.0")
    lines = [line for name, line in journal_of(tmp_path / "run").items() if "stage2-held" in name]
    assert lines[1]["total"] > lines[0]["total"] and lines[1]["wrong"] >= lines[0]["wrong"], "with such a rate"
    assert "stage 1, whose weights are kept" in caplog.text
    found = load_parts(result.parts)
    assert found.adapters is None and "adapters" not in result.sizes
    assert found.card["kept"]["stage2"]["step"] == 0
    assert (result.parts / "mapper.safetensors").read_bytes() == (first.parts / "mapper.safetensors").read_bytes()
    assert result.fit["stage2"] == result.fit["stage1"]
    last = run(digits, tmp_path / "last", "stage2.rate=10.0", "stage2.keep=last")
    assert load_parts(last.parts).adapters is not None and last.kept["stage2"]["step"] == 4
    assert last.kept["stage2"]["held_out"]["total"] == lines[1]["total"]


def test_without_adapters_stage_2_goes_on_with_the_mapper(
    digits: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    more = ("adapters.blocks=0", "adapters.mapper=false", "stage2.rate=1e-4")
    monkeypatch.setattr(mapping_module.HeldOut, "numbers", better_and_better())
    result = run(digits, tmp_path / "run", *more)
    found = load_parts(result.parts)
    assert found.adapters is None and found.card["kept"]["stage2"]["step"] == 4
    before = latest(tmp_path / "run" / "stage1")
    moved = [name for name, value in found.mapper.state_dict().items() if not torch.equal(value, before[name].half())]
    assert "body.queries" in moved and "mean" not in moved


def test_a_choice_is_sharpened_when_it_has_been_trained(digits: Path, tmp_path: Path, cache: Path):
    more = ("mapper.kind=choice", "mapper.width=16", "stage1.check=4", "stage2.check=4")
    soft = load_parts(run(digits, tmp_path / "soft", *more, "loss.sharpen=1", until="stage1").parts)
    firm = load_parts(run(digits, tmp_path / "firm", *more, "loss.sharpen=4", until="stage1").parts)
    before, after = soft.mapper.state_dict(), firm.mapper.state_dict()
    assert torch.equal(after["body.enter.weight"], 4 * before["body.enter.weight"])
    assert torch.equal(after["body.leave.weight"], before["body.leave.weight"])


def test_a_denoiser_may_read_captions_in_all_languages(digits: Path, tmp_path: Path, cache: Path):
    run(digits, tmp_path / "english", until="denoiser")
    run(digits, tmp_path / "all", "captions.encoded=all", until="denoiser")
    english, every = (latest(tmp_path / name / "denoiser") for name in ("english", "all"))
    assert any(not torch.equal(value, every[name]) for name, value in english.items())


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
    losses = [line["result"]["total"] for line in lines if line["id"].startswith("stage1-0")]
    assert losses[-1] < 0.7 * losses[0]
    assert set(result.fit["stage1"]) == {"r2", "cosine", "weighted_r2", "right_english", "right_other"}


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
