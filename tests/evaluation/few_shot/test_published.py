"""The quoted rows: that they are consistent in themselves, and have the form of a result."""

from __future__ import annotations

import json

import pytest

from icl_vision.evaluation.few_shot.config import SETTINGS, Setting, settings_of
from icl_vision.evaluation.few_shot.published import PUBLISHED, Published, quoted


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)
def test_printed_means_are_the_means_of_the_printed_cells(one: Published) -> None:
    for ways, mean in one.means.items():
        cells = [one.cells[setting] for setting in settings_of(ways) if setting in one.cells]
        if cells:
            # Cells are printed to one decimal, so a mean of seven may be off by 0.05, and by rounding.
            assert sum(cells) / 7 == pytest.approx(mean, abs=0.06)


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)
def test_every_row_says_where_it_comes_from(one: Published) -> None:
    assert "arXiv" in one.source
    assert one.meaning
    assert one.differs
    assert one.cells or one.means
    assert all(0 <= value <= 100 for value in (*one.cells.values(), *one.means.values()))
    assert all(setting in SETTINGS for setting in one.cells)


def test_names_are_unique() -> None:
    assert len({one.name for one in PUBLISHED}) == len(PUBLISHED)


def test_the_best_published_spae() -> None:
    (spae,) = [one for one in PUBLISHED if one.name == "SPAE-PaLM (21)"]
    assert spae.means == {2: 79.03, 5: 61.86}
    assert spae.cells[Setting(5, 1)] == 65.1
    assert spae.cells[Setting(2, 1, 0, False)] == 27.9


def test_quoted_has_the_form_of_a_result() -> None:
    document = quoted(SETTINGS)
    json.dumps(document, allow_nan=False)
    assert [row["name"] for row in document["rows"]] == [one.name for one in PUBLISHED]
    assert all(row["kind"] == "quoted" and row["llm_calls"] is None and row["source"] for row in document["rows"])
    assert len(document["cells"]) == len(PUBLISHED) * len(SETTINGS)
    cells = {(cell["row"], cell["setting"]): cell for cell in document["cells"]}
    assert cells["LQAE", "2w-3s-0r-i"]["accuracy"] == {
        "accuracy": 0.682, "n": None, "interval": None, "scorer": "as published"
    }  # fmt: skip
    assert cells["LQAE", "2w-3s-0r-i"]["note"] == "quoted"
    assert cells["MAE + linear (LQAE)", "2w-1s-0r-i"] == {
        "row": "MAE + linear (LQAE)", "setting": "2w-1s-0r-i", "accuracy": None, "note": "not published"
    }  # fmt: skip
    assert {"row": "SPAE-PaLM (5)", "ways": 5, "mean": 0.5876} in document["means"]


def test_only_rows_with_something_to_say_about_the_settings() -> None:
    document = quoted([Setting(5, 3)])
    assert "ASCII (LQAE)" not in {row["name"] for row in document["rows"]}
    assert "De-Diffusion, PaLM 2-L" not in {row["name"] for row in document["rows"]}
    assert document["means"] == []
    assert quoted([Setting(3, 1)]) == {"rows": [], "cells": [], "means": []}
    assert quoted([]) == {"rows": [], "cells": [], "means": []}
