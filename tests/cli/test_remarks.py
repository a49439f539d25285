"""Warnings and bars of a command: shown to whom they are for, and not under --quiet."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from icl_vision.cli import main
from icl_vision.llms.fake import FakeLLM

OPTIONS = ["generate", "--examples", "digits", "--shots", "1", "--query", "an image of 3", "--llm", "fake"]


@pytest.mark.parametrize("quiet", [True, False])
def test_a_warning_is_shown_once_and_not_under_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    logger = logging.getLogger("icl_vision")
    before = (list(logger.handlers), logger.level)
    answer, warned = FakeLLM._complete, []

    async def warning(self: FakeLLM, *args: object, **settings: object) -> object:
        if not warned:
            warned.append(1)
            logging.getLogger("icl_vision.llms.remote.resilience").warning("not reachable, trying again: x")
        return await answer(self, *args, **settings)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(FakeLLM, "_complete", warning)
    more = ["--guidance", "1", "--out", str(tmp_path / "a.png"), *(["--quiet"] if quiet else [])]
    done = CliRunner().invoke(main, [*OPTIONS, *more])
    assert done.exit_code == 0, done.output
    assert warned and done.stderr.count("not reachable, trying again: x") == (0 if quiet else 1)
    assert (list(logger.handlers), logger.level) == before


@pytest.mark.parametrize("quiet", [True, False])
def test_a_bar_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    monkeypatch.setattr("icl_vision.cli.options.common.progress_wanted", lambda quiet: not quiet)
    more = ["--out", str(tmp_path / "a.png"), *(["--quiet"] if quiet else [])]
    done = CliRunner().invoke(main, [*OPTIONS, *more])
    assert done.exit_code == 0 and ("37/37" in done.stderr) is not quiet, done.stderr
