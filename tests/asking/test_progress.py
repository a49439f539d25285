"""Progress bars: shown to a person at a terminal, or where they are asked for."""

from __future__ import annotations

import io
import sys

import pytest

from icl_vision.asking.jobs import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "wanted", "shown"),
    [(io.StringIO, None, False), (Terminal, None, True), (Terminal, False, False), (io.StringIO, True, True)],
)
def test_a_bar_is_shown_at_a_terminal_or_when_asked_for(monkeypatch, stream, wanted, shown):
    err = stream()
    monkeypatch.setattr(sys, "stderr", err)
    with progress_bar(3, "things", wanted) as done:
        done(2)
    assert ("things" in err.getvalue()) is shown
