"""Figures quoted from publications, to stand beside measured ones and never among them.

Knows: the cells as printed, where they were printed, and what was different there.
Refuses to know: this library's runs.

Nothing here was measured by this library. The publications print no number of episodes and no interval for these
tables. LQAE's and SPAE's tables are called "Open-Ended miniImageNet" and use the real class names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_vision.evaluation.few_shot.config import Setting, settings_of

KIND = "quoted"
SCORER = "as published"

LQAE = "Liu et al., LQAE, 2023 (arXiv 2302.00902)"
SPAE = "Yu et al., SPAE, 2023 (arXiv 2306.17842)"
DE_DIFFUSION = "Wei et al., De-Diffusion, 2023 (arXiv 2311.00618)"


@dataclass(frozen=True, slots=True)
class Published:
    """One quoted row.

    name: the row's name. meaning: one line on the method. source: where the figures are printed. differs: what was not
    as in a run of this library. cells: percent by setting. means: ways -> the printed mean of the seven columns; a
    method of which only the mean is known has no cells.
    """

    name: str
    meaning: str
    source: str
    differs: str
    cells: Mapping[Setting, float]
    means: Mapping[int, float]

    def row(self) -> dict[str, Any]:
        """As an entry of a result's "rows"."""
        return {
            "name": self.name,
            "kind": KIND,
            "meaning": f"{self.meaning}; {self.differs}",
            "constrained": False,
            "transductive": False,
            "llm_calls": None,
            "source": self.source,
        }

    def cell(self, setting: Setting) -> dict[str, Any]:
        """As an entry of a result's "cells": a share without n and interval, or a note that none was published."""
        percent = self.cells.get(setting)
        accuracy = None
        if percent is not None:
            accuracy = {"accuracy": round(percent / 100, 6), "n": None, "interval": None, "scorer": SCORER}
        note = KIND if accuracy else "not published"
        return {"row": self.name, "setting": setting.id, "accuracy": accuracy, "note": note}


def _columns(ways: int, text: str) -> dict[Setting, float]:
    """The seven columns of one number of ways, as printed."""
    return dict(zip(settings_of(ways), map(float, text.split()), strict=True))


_FIVE_TOKENS = "5 tokens an image"
_REAL = "mini-ImageNet's test classes under their real names, photographs of ImageNet's validation set"

PUBLISHED: Sequence[Published] = (
    Published(
        "ASCII (LQAE)", "the image as 64x64 ASCII art, read by text-davinci-003", LQAE,
        f"about 1,100 tokens an image, {_REAL}; the model is no longer served",
        _columns(2, "0 5.2 5.9 6.5 4.5 4.8 5.2"), {2: 4.59},
    ),
    Published(
        "MAE + linear (LQAE)", "a linear classifier on features of a masked autoencoder, no language model", LQAE,
        f"{_REAL}; only the mean is quoted", {}, {2: 11.71},
    ),
    Published(
        "Frozen", "an image encoder trained through a frozen language model of 7 billion parameters",
        "Tsimpoukelli et al., Frozen, 2021 (arXiv 2106.13884), as printed by LQAE and SPAE",
        f"reads image vectors, not words; {_REAL}",
        _columns(2, "1.7 33.7 66 66 63 65 63.7") | _columns(5, "0.9 14.5 34.7 33.8 33.8 33.3 32.8"),
        {2: 51.3, 5: 26.26},
    ),
    Published(
        "LQAE", "256 RoBERTa tokens an image, read by text-davinci-003", LQAE,
        f"{_REAL}; five-way cells of many images may have exceeded the model's window; the model is no longer served",
        _columns(2, "1.5 35.2 68.2 69.8 68.5 68.7 65.9") | _columns(5, "1.0 15.7 35.9 36.5 31.9 36.4 45.9"),
        {2: 53.97, 5: 29.04},
    ),
    Published(
        "SPAE-GPT (5)", f"SPAE with GPT tokens, {_FIVE_TOKENS}, read by text-davinci-003", SPAE,
        f"{_REAL}; the model is no longer served",
        _columns(2, "5.3 77.2 84.4 86.0 79.4 77.2 77.1") | _columns(5, "4.3 63.0 63.4 60.6 61.9 62.1 62.1"),
        {2: 69.51, 5: 53.91},
    ),
    Published(
        "SPAE-PaLM (5)", f"SPAE with PaLM 2 tokens, {_FIVE_TOKENS}, read by PaLM 2-L", SPAE,
        f"{_REAL}; the model was never public",
        _columns(2, "32.2 84.0 88.5 88.4 85.1 83.6 82.4") | _columns(5, "23.6 64.2 68.0 69.9 63.4 62.0 60.2"),
        {2: 77.74, 5: 58.76},
    ),
    Published(
        "SPAE-PaLM (21)", "SPAE with PaLM 2 tokens, 21 tokens an image, read by PaLM 2-L", SPAE,
        f"{_REAL}; the model was never public",
        _columns(2, "27.9 84.8 92.5 92.6 84.8 85.2 85.4") | _columns(5, "20.2 65.1 73.7 74.3 66.4 67.0 66.3"),
        {2: 79.03, 5: 61.86},
    ),
    Published(
        "De-Diffusion, Llama 2", "75 words an image, trained for a text-to-image decoder, read by Llama 2 70B",
        DE_DIFFUSION, f"{_REAL}; one shot only",
        {Setting(2, 1, 0, False): 60.8, Setting(2, 1): 95.0, Setting(5, 1, 0, False): 64.8, Setting(5, 1): 87.9}, {},
    ),
    Published(
        "De-Diffusion, PaLM 2-S", "75 words an image, trained for a text-to-image decoder, read by PaLM 2-S",
        DE_DIFFUSION, f"{_REAL}; one shot only; the model was never public",
        {Setting(2, 1, 0, False): 79.2, Setting(2, 1): 98.1, Setting(5, 1, 0, False): 66.4, Setting(5, 1): 88.6}, {},
    ),
    Published(
        "De-Diffusion, PaLM 2-L", "75 words an image, trained for a text-to-image decoder, read by PaLM 2-L",
        DE_DIFFUSION, f"{_REAL}; one shot only; the model was never public",
        {Setting(2, 1, 0, False): 78.9, Setting(2, 1): 99.3, Setting(5, 1, 0, False): 71.8, Setting(5, 1): 97.0}, {},
    ),
)  # fmt: skip
"""The quoted rows, in the order of the papers' tables."""


def quoted(settings: Iterable[Setting]) -> dict[str, list[dict[str, Any]]]:
    """The quoted parts of a result about these settings: {"rows", "cells", "means"}.

    A row without a cell or mean for any of the settings is left out. A mean is the one printed, and stands there only
    where all seven columns of its ways are among the settings.
    """
    wanted = list(settings)
    full = [ways for ways in dict.fromkeys(setting.ways for setting in wanted) if set(settings_of(ways)) <= set(wanted)]
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    for paper in PUBLISHED:
        known = [ways for ways in full if ways in paper.means]
        if not known and not any(setting in paper.cells for setting in wanted):
            continue
        rows.append(paper.row())
        cells.extend(paper.cell(setting) for setting in wanted)
        means.extend({"row": paper.name, "ways": ways, "mean": round(paper.means[ways] / 100, 6)} for ways in known)
    return {"rows": rows, "cells": cells, "means": means}
