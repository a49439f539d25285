"""`ImageDenoiser` with a tokenizer of one grid, no pyramid: nothing is refined, what is kept is kept, what was cropped
stays cropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import icl_vision
from icl_vision import ImageDenoiser
from icl_vision.images import list_images, load_image
from icl_vision.llms import FakeLLM
from icl_vision.tasks.denoise.denoiser import Protocol

DEMO = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"


@pytest.fixture(scope="module")
def photographs() -> list[Path]:
    return list_images(DEMO)[::20][:7]


@pytest.mark.parametrize("protocol", ["leak-free", "paper"])
def test_half_a_grid_is_kept_and_the_other_drawn_row_by_row(protocol: Protocol, photographs: list[Path]) -> None:
    wide = next(file for file in photographs if load_image(file).width > load_image(file).height)
    llm = FakeLLM()
    denoiser = ImageDenoiser(
        llm, "lqae-photo-128", "outpainting", protocol=protocol, context=3, allowed="place", most_uses=64
    )  # fmt: skip
    denoiser.fit([file for file in photographs if file != wide][: 0 if protocol == "paper" else 3])
    assert denoiser.parts_.refine == "none" and denoiser.parts_.layers == 1
    (puzzle,) = denoiser.puzzles([wide])
    (restored,) = denoiser.solve([puzzle])
    assert restored.decided == ("layer 1: 32 of 64 words kept from the condition, 32 by the LLM, shown the condition",)
    assert restored.pyramid is not None and restored.merged is not None
    assert restored.pyramid.words()[:32] == puzzle.condition.words()[:32]
    assert sorted(restored.drawing.answers) == [5, 6, 7, 8]  # rows; those that are kept whole are not asked for
    assert len(llm.calls) == 4
    # The middle that the tokenizer cropped, not a square drawn wide.
    assert restored.merged.size == (128, 128) != load_image(wide).size
    assert np.array_equal(np.asarray(restored.merged)[:64], puzzle.shown[:64])
    assert isinstance(restored.condition, Image.Image) and restored.condition.size == (128, 128)
