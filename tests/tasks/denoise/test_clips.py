"""ImageDenoiser on clips: frames foreseen and filled in, what is known of them, both protocols, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grey_clips import FRAMES, LAYOUT, SIDE, GreyClips, clips
from grey_pictures import GreyTokenizer
from PIL import Image

from icl_vision.clips import save_clip
from icl_vision.errors import ImageError, UsageError
from icl_vision.evaluation.denoising.baselines import BASELINES, Task, extrapolated_words
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks.denoise.clip_tasks import CLIP_TASKS, task_for
from icl_vision.tasks.denoise.denoiser import ImageDenoiser

QUERIES = clips(2, seed=9)


def fitted(task: str = "prediction", **options: Any) -> ImageDenoiser:
    llm = FakeLLM(constraint="logit_bias")
    denoiser = ImageDenoiser(llm, GreyClips(), task, **{"context": 3, **options})  # type: ignore[arg-type]  # a tokenizer of the bare contract
    return denoiser.fit(clips(4) if options.get("protocol") != "paper" else ())


def test_whole_frames_give_way_to_the_nearest_known_ones() -> None:
    clip = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    assert task_for("prediction", clips=True).degrade(clip)[:, 0, 0, 0].tolist() == [*range(8), *[7] * 8]
    filled = task_for("filling", clips=True).degrade(clip)[:, 0, 0, 0].tolist()
    assert filled == [0, 1, 2, 3, 3, 3, 3, 3, 12, 12, 12, 12, 12, 13, 14, 15]
    hidden = task_for("outpainting", clips=True).degrade(clip)
    assert (hidden[:, 2:] == 128).all() and np.array_equal(hidden[:, :2], clip[:, :2])


def test_words_of_known_frames_are_known() -> None:
    # 1 place, then 2 x 2 x 2, then 4 x 4 x 4.
    assert task_for("prediction", clips=True).known_places(LAYOUT) == (*range(1, 5), *range(9, 41))
    assert task_for("filling", clips=True).known_places(LAYOUT) == (*range(9, 25), *range(57, 73))
    assert len(task_for("outpainting", clips=True).known_places(LAYOUT)) == 4 + 32
    assert task_for("deblurring", clips=True).known_places(LAYOUT) == ()
    region = task_for("prediction", clips=True).region((16, 64, 64, 3))
    assert region == (slice(8, 16), slice(0, 64), slice(0, 64))
    assert task_for("outpainting", clips=False).region((64, 64, 3)) == (slice(32, 64), slice(0, 64))


@pytest.mark.parametrize("task", sorted(CLIP_TASKS))
def test_every_task_is_undone_in_words(task: str) -> None:
    denoiser = fitted(task)
    (result,) = denoiser.denoise(QUERIES[:1])
    assert result.is_clip and result.pyramid is not None and result.pyramid.layout == LAYOUT
    assert result.clip is not None and len(result.clip) == FRAMES and result.clip[0].size == (SIDE, SIDE)
    known = result.puzzle.query.known
    assert all(result.pyramid.words()[place] == word for place, word in known.items())
    if task == "prediction":
        merged = np.stack([np.asarray(frame) for frame in result.clip_merged or ()])
        assert np.array_equal(merged[:2], QUERIES[0][:2])
        assert np.array_equal(merged[2:], np.stack([np.asarray(frame) for frame in result.clip[2:]]))
        # Known cells come back as they were: the tokenizer is exact.
        assert np.array_equal(np.asarray(result.clip[0]), QUERIES[0][0])
        held = np.stack([np.asarray(frame) for frame in result.clip_condition])
        assert np.array_equal(held[2:], QUERIES[0][[1, 1]])
    with pytest.raises(UsageError, match="this is a clip"):
        _ = result.image


def test_the_papers_protocol_leaks_here_too() -> None:
    denoiser = fitted("prediction", protocol="paper")
    (puzzle,) = denoiser.puzzles(QUERIES[:1])
    pairs = denoiser.pairs_for(puzzle)
    assert len(pairs) == 3 and all(pair.condition == puzzle.condition for pair in pairs)
    assert denoiser.denoise(QUERIES[:1])[0].leaking


def test_a_clip_of_the_context_is_refused() -> None:
    denoiser = fitted(context=4)
    with pytest.raises(UsageError, match="also a context image"):
        denoiser.puzzles(clips(1))


def test_a_clip_may_be_a_file_and_stand_alone(tmp_path: Path) -> None:
    save_clip(QUERIES[0], tmp_path / "clip.png", ms=50)
    denoiser = fitted()
    (of_file,) = denoiser.puzzles(tmp_path / "clip.png")
    (alone,) = denoiser.puzzles(QUERIES[0])
    assert of_file.target is not None and np.array_equal(of_file.target, alone.target)
    with pytest.raises(ImageError, match=r"images\[0\]"):
        denoiser.puzzles([tmp_path / "none.gif"])
    with pytest.raises(UsageError, match="a clip or a sequence of clips"):
        denoiser.puzzles(7)  # type: ignore[arg-type]  # the wrong kind is the point


def test_tasks_of_pictures_and_of_clips_are_told_apart() -> None:
    with pytest.raises(UsageError, match="task of a clip must be one of prediction, filling"):
        fitted("rotation")
    with pytest.raises(UsageError, match="'prediction' is for clips"):
        ImageDenoiser(FakeLLM(), GreyTokenizer(), "prediction").fit([Image.new("RGB", (8, 8))])
    with pytest.raises(UsageError, match="task must be one of"):
        ImageDenoiser(FakeLLM(), GreyTokenizer(), "foreseeing").fit([])


def test_a_fitted_denoiser_of_clips_is_kept(tmp_path: Path) -> None:
    denoiser = fitted()
    assert [pair.target.layout for pair in denoiser.pairs_] == [LAYOUT] * 3
    plan = denoiser.plan(QUERIES)
    assert plan.queries == 2 and any("kept from the condition" in line for line in plan.facts["decided"])


def test_words_are_extrapolated_along_their_vectors() -> None:
    # A cell that turns by two shades in the known half turns on, by less and less: a chord is no arc.
    shade = np.array([2, 4, 4, 4])[:, None, None] * np.ones((1, 4, 4), int)
    clip = np.repeat((np.kron(shade, np.ones((1, 4, 4), int)) * 16 + 8).astype(np.uint8)[..., None], 3, 3)
    denoiser = fitted()
    (puzzle,) = denoiser.puzzles([clip])
    made = extrapolated_words(
        Task(denoiser.pairs_, puzzle.condition, puzzle.query, GreyClips.codebook, 0, denoiser.parts_.stages)
    )
    assert made is not None
    assert [int(layer[0, 0]) for layer in made.ids[-1]] == [2, 4, 6, 7]
    (still,) = fitted("outpainting").puzzles([clip])
    assert extrapolated_words(Task(denoiser.pairs_, still.condition, still.query, GreyClips.codebook)) is None
    assert BASELINES["extrapolated words"][0] is extrapolated_words
