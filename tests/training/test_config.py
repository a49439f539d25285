"""Configurations: strict, layered, hashed by what decides a run; the shipped ones load and build."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_type_hints

import pytest
import torch

from icl_vision.codebook import Codebook
from icl_vision.errors import UntrustedNameError, UsageError
from icl_vision.models.spae import build_nets
from icl_vision.training import TrainConfig, load_config, shipped_configs
from icl_vision.training.spae import DepthConfig, SpaeTrainConfig, draw_depth

ABLATIONS = ("vq-learned", "vq-frozen", "vq-semantic", "rq-2", "saq-2", "pyramid", "no-thresholds")


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_shipped_configurations() -> None:
    names = shipped_configs()
    wanted = {f"spae-{name}" for name in ("paper-128", "paper-256", "photo-128", "scratch-64")}
    wanted |= {"spae-digits-32", "spae-digits-32-guide-free"}
    wanted |= {f"ablation-{row}" for row in (*ABLATIONS, "no-dynamic-weight", "perceptual")}
    assert wanted <= set(names)
    configs = {name: load_config(name) for name in names}
    assert len({config.hash for config in configs.values()}) == len(names)  # each is another run
    for config in configs.values():
        again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        if config.codebook is not None:
            assert Codebook.load(config.codebook).vectors.shape[1] == config.model.dim


def test_ablations_differ_from_the_whole_method_in_what_they_say() -> None:
    whole = load_config("ablation-pyramid").to_dict()
    changed = {
        "vq-learned": {"model", "loss", "guide"},
        "vq-frozen": {"model", "loss", "guide"},
        "vq-semantic": {"model"},
        "rq-2": {"model", "loss"},
        "saq-2": {"model", "loss"},
        "no-thresholds": {"loss"},
        "no-dynamic-weight": {"loss"},
        "perceptual": {"loss"},
    }
    for row, keys in changed.items():
        other = load_config(f"ablation-{row}").to_dict()
        assert {key for key in whole if whole[key] != other[key]} == keys, row


def test_the_papers_model_has_the_papers_size() -> None:
    for name, millions in (("spae-paper-128", 59.4), ("spae-paper-256", None)):
        with torch.device("meta"):
            nets = build_nets(load_config(name).model)
        count = sum(one.numel() for net in nets for one in net.parameters())
        assert count / 1e6 == pytest.approx(millions or 59.4, abs=0.1 if millions else 10)
    assert load_config("spae-paper-128").model.layout.cumulative == (1, 5, 21, 85, 341, 597)
    assert load_config("spae-digits-32").model.layout.cumulative[-1] == 37


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp: 5", r"unknown key 'stesp' \(did you mean 'steps'\?\); allowed are model, loss,"),
        ("loss: {gann: 1}", r"unknown key 'loss.gann' \(did you mean 'gan'\?\); allowed are pixel,"),
        ("loss: {discriminator: {filter: 1}}", r"'loss.discriminator.filter' \(did you mean 'filters'\?\)"),
        ("zzz: 1", r"unknown key 'zzz'; allowed are"),
        ("steps: many", "steps must be a whole number; got 'many'"),
        ("steps: true", "steps must be a whole number; got True"),
        ("steps: 0", "steps must be a whole number of 1 or more; got 0"),
        ("seed: -1", "seed must be a whole number of 0 or more; got -1"),
        ("batch: 5\ndevices: {count: 2}", "batch 5 cannot be dealt evenly to devices.count 2"),
        ("optimiser: {rate: fast}", "optimiser.rate must be a number; got 'fast'"),
        ("optimiser: {rate: 0}", "optimiser.rate must be a number above 0; got 0"),
        ("optimiser: {clip: -1}", "optimiser.clip must be above 0, or null"),
        ("optimiser: {betas: [0.9]}", r"optimiser.betas must be a list of 2; got \[0.9\]"),
        ("optimiser: {betas: [0.9, 1]}", "optimiser.betas must be at least 0 and below 1"),
        ("optimiser: 3", "optimiser must be a mapping"),
        ("precision: fp16", "precision must be one of 32-true, bf16-mixed; got 'fp16'"),
        ("schedule: {kind: cosin}", r"schedule.kind must be one of .* \(did you mean 'cosine'\?\)"),
        ("schedule: {warmup: 0.6, cooldown: 0.6}", "together longer than the run"),
        ("schedule: {warmup: 2}", "schedule.warmup is a fraction, 0 to 1; got 2"),
        ("schedule: {timescale: 0}", "schedule.timescale is a fraction above 0"),
        ("schedule: {kind: root, warmup: 0}", "give a warmup or a timescale"),
        ("ema: {decay: 1}", "ema.decay must be at least 0 and below 1"),
        ("stop: {patience: 0}", "stop.patience must be a whole number of 1 or more log intervals; got 0"),
        ("stop: {perplexity: 0.5}", "stop.perplexity is 1 or more"),
        ("log: {every: 0}", "log.every must be a whole number of 1 or more; got 0"),
        ("devices: {count: 0}", "devices.count must be a whole number of 1 or more; got 0"),
        ("depth: {weights: [1, 2]}", "depth.weights must have one number for each of 4 layers; got 2"),
        ("depth: {weights: [0, 0, 0, 0]}", "depth.weights must be numbers of 0 or more, one above 0"),
        ("guide: {kind: none}", "loss.semantic 0.02 needs a guide"),
        (
            "model: {net: photo, side: 32, channels: 3, names: 0, train_on: latents}\nloss: {perceptual: 0.1}",
            "latents, which LPIPS and a discriminator cannot look at",
        ),
        ("data: {flip: 1}", "data.flip must be true or false; got 1"),
        ("codebook: 5", "codebook must be text; got 5"),
        ("model: {grids: 4}", "model.grids must be a list; got 4"),
        ("model: {grids: [1, x]}", r"model.grids\[1\] must be a whole number; got 'x'"),
        ("model: {grids: [2, 1]}", "model: .*grid"),
        ("loss: {gan: 1}", "a discriminator with 5 multipliers halves 32 px"),
        ("- 1", "must be a mapping of keys to values"),
        ("a: [", "cannot be read as YAML"),
        ("base: 5", "base in .* must be a configuration's name or file; got 5"),
        (
            "base: spae-digit-32",
            r"neither a shipped configuration \(did you mean 'spae-digits-32'\?\)",
        ),
        ("base: mine.yaml", "is its own base"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    if not text.startswith(("base", "- ", "a:")):
        text = f"base: spae-digits-32\n{text}"
    with pytest.raises(UsageError, match=message):
        load_config(write(tmp_path, text))


def test_unknown_names_list_what_is_shipped() -> None:
    with pytest.raises(UsageError, match="is neither a shipped configuration nor a file; shipped are ablation-"):
        load_config("nothing-like-it")


def test_files_build_on_each_other(tmp_path: Path) -> None:
    write(tmp_path, "base: spae-digits-32\nsteps: 7\nloss: {pixel: 3}\n", "middle.yaml")
    config = load_config(write(tmp_path, "base: middle.yaml\nloss: {commitment: 0.5}\noptimiser: {rate: 1e-3}\n"))
    assert (config.steps, config.loss.pixel, config.loss.commitment) == (7, 3.0, 0.5)
    assert config.model == load_config("spae-digits-32").model
    assert config.optimiser.rate == 1e-3  # YAML 1.1 takes this for text


@pytest.mark.parametrize(
    ("text", "key", "instead"),
    [
        ("data: {path: /elsewhere}", "data.path", "--data"),
        ("codebook: mine/words", "codebook", "--set codebook=VALUE"),
        ("guide: {encoder: org/model}", "guide.encoder", "--set guide.encoder=VALUE"),
        ("lpips: x.safetensors", "lpips", "--set lpips=VALUE"),
        ("pretrained: weights", "pretrained", "--set pretrained=VALUE"),
        ("init: another/run", "init", "--set init=VALUE"),
    ],
)
def test_a_place_in_a_file_is_the_callers_to_name(tmp_path: Path, text: str, key: str, instead: str) -> None:
    file = write(tmp_path, f"base: spae-digits-32\n{text}\n")
    above = write(tmp_path, f"base: {file.name}\n", "above.yaml")
    for one in (file, above):
        with pytest.raises(UntrustedNameError, match=f"names the {key} .*pass {instead}.*trust"):
            load_config(one)
        trusted = load_config(one, trust=True)
        own = {"data": "/mine"} if key == "data.path" else {"overrides": [f"{key}=mine"]}
        assert load_config(one, **own) != trusted


def test_packaged_names_in_a_file_need_nothing(tmp_path: Path) -> None:
    text = "base: spae-digits-32\ncodebook: digits-minilm-128\nguide: {encoder: openai/clip-vit-large-patch14}\n"
    load_config(write(tmp_path, text))


def test_a_base_elsewhere_is_the_callers_to_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "base: spae-digits-32\nsteps: 7\n", "outside.yaml")
    (tmp_path / "in").mkdir()
    for base in ("../outside.yaml", str(tmp_path / "outside.yaml"), "outside.yaml"):
        file = write(tmp_path / "in", f"base: {base}\n")
        monkeypatch.chdir(tmp_path)  # where "outside.yaml" is found
        with pytest.raises(UntrustedNameError, match="names the base"):
            load_config(file)
        assert load_config(file, trust=True).steps == 7


def test_overrides(tmp_path: Path) -> None:
    data = str(tmp_path / "x = y: z")
    overrides = ["loss.semantic=0", "guide.kind=none", "model.grids=[1, 2, 4]", "depth.weights=null"]
    config = load_config("spae-digits-32", overrides, data=data)
    assert config.loss.semantic == 0.0
    assert config.model.grids == (1, 2, 4)
    assert config.data.path == data
    assert config.data.shift == load_config("spae-digits-32").data.shift
    assert load_config("spae-digits-32", ["data.limit=5", "data.limit=null"]).data.limit is None
    for override, message in {
        "steps": "an override must be KEY=VALUE",
        "=5": "an override must be KEY=VALUE",
        "loss..gan=5": "an override must be KEY=VALUE",
        "steps=[": "is not YAML",
        "steps.more=1": "steps is a value, so 'steps.more' cannot be set inside it",
        "loss.gann=1": "unknown key 'loss.gann'",
    }.items():
        with pytest.raises(UsageError, match=message):
            load_config("spae-digits-32", [override])


def test_the_hash_is_of_what_decides_a_run() -> None:
    plain = load_config("spae-digits-32")
    for same in ("devices.count=2", "log.every=5", "data.workers=7", "data.path=/elsewhere"):
        assert load_config("spae-digits-32", [same]).hash == plain.hash
    for other in ("seed=5", "steps=5", "loss.pixel=2", "data.shift=1", "precision=bf16-mixed", "ema.decay=0"):
        assert load_config("spae-digits-32", [other]).hash != plain.hash


def test_drawn_depths_follow_their_weights() -> None:
    assert {draw_depth(DepthConfig("full"), 4, 0, step) for step in range(20)} == {4}
    assert {draw_depth(DepthConfig("random"), 4, 0, step) for step in range(60)} == {1, 2, 3, 4}
    assert {draw_depth(DepthConfig("extra", (0, 1, 0, 1)), 4, 0, step) for step in range(60)} == {2, 4}
    assert [draw_depth(DepthConfig("random"), 4, 0, 9) for _ in range(3)] == [
        draw_depth(DepthConfig("random"), 4, 0, 9)
    ] * 3


def test_a_mistake_of_another_module_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="side"):
        load_config(write(tmp_path, "base: spae-digits-32\nmodel: {side: 30}\n"))


def keys_of(kind: type, path: str = "") -> list[str]:
    found = []
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = hints[field.name]
        here = f"{path}{field.name}"
        found += keys_of(inner, f"{here}.") if dataclasses.is_dataclass(inner) else [here]
    return found


def test_every_key_and_shipped_configuration_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    inside = "loss.discriminator."
    missing = [key for key in keys_of(SpaeTrainConfig) if f"`{key.removeprefix(inside)}`" not in text]
    assert missing == []
    assert [name for name in shipped_configs() if name.startswith("spae") and f"`{name}`" not in text] == []
