"""Clips made again: stills and key frames by hand, files within their bytes, sets, a whole small run."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grey_clips import GreyClips, clips
from PIL import Image

from icl_vision.clips import save_clip
from icl_vision.errors import PyramidError, UsageError
from icl_vision.evaluation.clips.baselines import (
    KeyFrames,
    blended,
    by_file,
    bytes_of_words,
    image_uses,
    key_times,
    mean_frame,
    middle_frame,
)
from icl_vision.evaluation.clips.distance import FramesInOrder
from icl_vision.evaluation.clips.evaluation import ALL, ClipEvaluation
from icl_vision.evaluation.clips.sets import NamedClip, most_moving, near_twins, read_clips
from icl_vision.files.runs import Run
from icl_vision.pyramid import PyramidLayout, TokenPyramid


def _ramp(*levels: int, side: int = 12) -> np.ndarray:
    return np.stack([np.full((side, side, 3), level, dtype=np.uint8) for level in levels])


class GreyPictures:
    """An image tokenizer whose pictures come back in their mean grey, of which it counts those it encoded."""

    name, layout = "greys", PyramidLayout(((1, 1), (2, 2)))

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, images: list[Image.Image]) -> list[TokenPyramid]:
        self.encoded += len(images)
        level = [int(np.asarray(image).mean()) for image in images]
        return [TokenPyramid((np.full((1, 1), v), np.full((2, 2), v)), self.layout, _Levels) for v in level]  # type: ignore[arg-type]  # as a vocabulary

    def decode(self, pyramids: list[TokenPyramid]) -> list[Image.Image]:
        return [Image.new("RGB", (6, 6), (int(p.ids[0].max()),) * 3) for p in pyramids]


class _Names(list[str]):
    name, hash = "levels", "levels"
    words = property(list)


_Levels = _Names(map(str, range(256)))


def test_stills() -> None:
    clip = _ramp(0, 10, 50, 100)
    assert middle_frame(clip)[:, 0, 0, 0].tolist() == [50] * 4
    assert mean_frame(clip)[:, 0, 0, 0].tolist() == [40] * 4


def test_key_frames_are_blended_linearly() -> None:
    assert key_times(16, 1) == [8] and key_times(16, 3) == [0, 8, 15] and key_times(4, 4) == [0, 1, 2, 3]
    made = blended(_ramp(0, 90), [0, 3], 4)
    assert made[:, 0, 0, 0].tolist() == [0, 30, 60, 90]
    assert blended(_ramp(7), [2], 4)[:, 0, 0, 0].tolist() == [7] * 4
    with pytest.raises(UsageError, match="1 to 4 key frames; got 5"):
        key_times(4, 5)


def test_words_are_spent_on_as_many_key_frames_as_they_allow() -> None:
    layout = PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8)))  # 1, 5, 21, 85
    assert image_uses(layout, 100, 16) == [(16, 5), (4, 21), (1, 85)]
    assert image_uses(layout, 3, 16) == [(3, 1)]
    tokenizer = GreyPictures()
    tool, clip = KeyFrames(tokenizer), _ramp(0, 10, 20, 90)
    (made,) = tool.by(2, 5)([clip])
    assert made.shape == clip.shape and made[:, 0, 0, 0].tolist() == [0, 30, 60, 90]
    tool.by(1, 5)([clip])
    tool.by(2, 1)([clip])
    assert tokenizer.encoded == 3  # of the four asked for two were known


def test_files_keep_within_their_bytes() -> None:
    clip = clips(1)[0]
    assert bytes_of_words(549, 14210) == 947 and bytes_of_words(8, 2) == 1
    near = [float(np.square(by_file(kind, 20_000)([clip])[0].astype(float) - clip).mean()) for kind in ("gif", "webp")]
    far = [float(np.square(by_file(kind, 200)([clip])[0].astype(float) - clip).mean()) for kind in ("gif", "webp")]
    assert all(a < b for a, b in zip(near, far, strict=True))
    (flat,) = by_file("gif", 1)([clip])
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1 and flat.shape == clip.shape


def test_sets_are_read_by_part(tmp_path: Path) -> None:
    lines = []
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for number, clip in enumerate(clips(3)):
            save_clip(clip, tmp_path / f"{number}.png", ms=50)
            archive.add(tmp_path / f"{number}.png", f"{number}.png")
            lines.append({"file": f"{number}.png", "name": f"clip {number}", "split": "test" if number else "train"})
        text = "\n".join(map(json.dumps, lines)).encode()
        info = tarfile.TarInfo("clips.jsonl")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    (found, _) = read_clips(tmp_path / "set.tar", frames=4)
    assert (found.name, found.says) == ("1.png", "clip 1") and np.array_equal(found.frames, clips(3)[1])
    (train,) = read_clips(tmp_path / "set.tar", frames=4, part="train")
    assert train.name == "0.png" and len(read_clips(tmp_path / "set.tar", frames=4, limit=1)) == 1
    assert [clip.name for clip in read_clips(tmp_path, frames=4)] == ["0.png", "1.png", "2.png"]
    with pytest.raises(UsageError, match="no clip of the part 'held'"):
        read_clips(tmp_path / "set.tar", frames=4, part="held")
    (tmp_path / "clips.jsonl").write_text('{"file": "0.png"}\n{"file": "1.png", "split": "test"}')
    assert [clip.name for clip in read_clips(tmp_path, frames=4)] == ["1.png"]  # 0.png may have been learned from
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        for name in ("0.png", "1.png", "clips.jsonl"):
            archive.add(tmp_path / name, f"./{name}")
    assert [clip.name for clip in read_clips(tmp_path / "packed.tar", frames=4)] == ["1.png"]
    (only,) = read_clips(tmp_path, frames=4, part="train", keep=1)
    assert only.name == "0.png" and len(only.frames) == 1
    (tmp_path / "clips.jsonl").write_text('{"file": "../0.png"}')
    with pytest.raises(UsageError, match=r"line 1 of clips.jsonl .*no path inside the set"):
        read_clips(tmp_path, frames=4)
    with pytest.raises(UsageError, match="neither a .tar or folder"):
        read_clips(tmp_path / "none.zip", frames=4)


def test_digits_move_where_there_is_an_npz(tmp_path: Path) -> None:
    images = np.full((3, 28, 28), 200, dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", x_test=images, y_test=np.arange(3), x_train=images, y_train=np.arange(3))
    found = read_clips(tmp_path / "digits.npz", frames=16, limit=2)
    assert [clip.name for clip in found] == ["moving[0]", "moving[1]"] and found[0].frames.shape == (16, 64, 64, 3)
    # The same pictures and numbers, and yet no test clip moves as a training clip does.
    train = read_clips(tmp_path / "digits.npz", frames=16, limit=2, part="train")
    assert not any(np.array_equal(a.frames, b.frames) for a in train for b in found)


def test_what_is_easy_is_told_apart() -> None:
    found = [NamedClip("still", _ramp(100, 100)), NamedClip("moving", _ramp(0, 200))]
    assert most_moving(found) == {"moving"}
    assert near_twins(found, [NamedClip("train", _ramp(102, 0))]) == {"still"}


def test_a_run_measures_every_row_and_goes_on(tmp_path: Path) -> None:
    tokenizer = GreyClips()
    some = [NamedClip(f"{number}", clip) for number, clip in enumerate(clips(3))]

    def evaluation(**options: Any) -> ClipEvaluation:
        features = FramesInOrder(lambda frames: frames[:, ::8, ::8].reshape(len(frames), -1), "pixels")
        return ClipEvaluation(
            some, tokenizer, image=GreyPictures(), features=features, groups={"two": {"0", "1"}}, batch=2, **options
        )

    with Run.open(tmp_path / "run", "clips", {}, seed=0) as run:
        one = evaluation()
        one.measure(run)
        found, distances = one.summary(run), one.frechet(["73 words", "mean frame"])
        asked = tokenizer.asked
        evaluation().measure(run)
        assert tokenizer.asked == asked  # all are there already
    rows = {row["row"]: row for row in found["rows"]}
    assert list(rows)[:3] == ["1 words", "9 words", "73 words"] and found["n"] == 3
    # Cells are in the middle of their shades, so that the finest layer gives them back exactly.
    assert rows["73 words"]["groups"][ALL]["psnr"]["mean"] == 100
    assert rows["1 words"]["groups"][ALL]["movement"]["mean"] == 0
    assert rows["73 words"]["groups"]["two"]["psnr"]["n"] == 2 and found["groups"] == {"all": 3, "two": 2}
    assert set(found["best_image"]) == {"1", "9", "73"} and found["best_image"]["73"] in rows
    pair = next(p for p in found["pairs"] if (p["k"], p["second"], p["group"]) == (73, "mean frame", "all"))
    assert pair["better"] is True and pair["wins"] == 3
    assert {p["second"] for p in found["pairs"] if p["k"] == 73} >= {"middle frame", "best image use", "9 words"}
    assert [usage["layer"] for usage in found["words"]] == [1, 2, 3]
    assert distances is not None and distances["at"]["73 words"] < 1e-6 < distances["at"]["mean frame"]


def test_what_cannot_be_measured_is_refused() -> None:
    some = [NamedClip("a", clips(1)[0])]
    with pytest.raises(UsageError, match="a name of its own"):
        ClipEvaluation(some * 2, GreyClips())
    with pytest.raises(UsageError, match="say how many words"):
        ClipEvaluation(some)
    with pytest.raises(PyramidError):
        ClipEvaluation(some, GreyClips(), ks=[2])
