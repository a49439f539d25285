"""Checkpoints and configurations of 0.1.0's training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lightning_fabric")


def test_an_old_configuration_is_read_and_means_the_same(files: Path) -> None:
    from icl_vision.training import TrainConfig

    info = json.loads((files / "half_done" / "train" / "run.json").read_text(encoding="utf-8"))
    state = json.loads(
        (files / "half_done" / "train" / "checkpoints" / "step-00000002" / "state.json").read_text(encoding="utf-8")
    )
    for document in (state["config"],):
        config = TrainConfig.from_dict(document)
        assert config.hash == state["config_hash"]
        assert config.steps == 4 and list(config.model.grids) == [1, 2]
    assert info["seed"] == 3


def test_every_old_name_of_a_configuration_is_there(files: Path) -> None:
    from icl_vision.training import load_config

    for name in json.loads((files / "training-configurations.json").read_text(encoding="utf-8")):
        load_config(name, data=Path("somewhere"))


@pytest.mark.slow
def test_an_old_checkpoint_becomes_a_tokenizer(files: Path, work: Path) -> None:
    from click.testing import CliRunner

    from icl_vision import ImageTokenizer
    from icl_vision.cli import main

    arguments = ["export", str(files / "half_done" / "train"), "--out", "exported", "--quiet"]
    result = CliRunner().invoke(main, [*arguments, "--pictures", "queries", "--json"])
    assert result.exit_code == 0, result.output
    tokenizer = ImageTokenizer.from_pretrained("exported")
    assert tokenizer.encode(["queries/0.bmp"])[0].layout.cumulative == (1, 5)
