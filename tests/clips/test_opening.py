"""clips/: what every source becomes, which frames stand for a clip, what is one clip, one clear error per bad input."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from icl_vision.clips import ClipLimits, is_clip_source, iter_clips, list_clips, load_clip, save_clip
from icl_vision.clips.opening import seconds_of
from icl_vision.errors import (
    ClipError,
    ClipTooLongError,
    DataLeftOutWarning,
    ImageArrayError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTruncatedError,
    UsageError,
)

WHITE = (255, 255, 255)


def moving(frames: int = 16, height: int = 12, width: int = 20) -> np.ndarray[Any, Any]:
    """A dot that walks over noise: no two frames alike."""
    clip = np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)[None].repeat(frames, 0)
    for index in range(frames):
        clip[index, index % height, index % width] = 255
        clip[index, 0, -1] = index
    return clip


def numbers(clip: np.ndarray[Any, Any]) -> list[int]:
    """Which frames of ``moving`` a clip holds."""
    return [int(value) for value in clip[:, 0, -1, 0]]


def animated(clip: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    first, *others = [Image.fromarray(frame) for frame in clip]
    buffer = io.BytesIO()
    if kind == "WEBP":
        options |= {"lossless": True}
    first.save(buffer, kind, save_all=True, append_images=others, **{"duration": 100, **options})
    return buffer.getvalue()


class TestSources:
    def test_every_kind_of_source_gives_the_same_frames(self, tmp_path: Path) -> None:
        clip = moving()
        folder = tmp_path / "frames"
        folder.mkdir()
        for index, frame in enumerate(clip):
            Image.fromarray(frame).save(folder / f"f{index}.png")  # f10 comes after f9, not after f1
        data = animated(clip, "WEBP")
        path = tmp_path / "a clip.bin"  # the suffix plays no part
        path.write_bytes(data)
        pictures = [Image.fromarray(frame) for frame in clip]
        with path.open("rb") as handle:
            sources: list[Any] = [
                clip,
                pictures,
                tuple(pictures),
                list(clip),
                iter(pictures),
                folder,
                str(folder),
                path,
            ]
            sources += [str(path), data, bytearray(data), io.BytesIO(data), handle, Image.open(path)]
            sources += [sorted(folder.iterdir(), key=lambda frame: int(frame.stem[1:])), animated(clip, "PNG")]
            for source in sources:
                assert np.array_equal(load_clip(source), clip), type(source)

    def test_a_gif_is_read_as_a_viewer_shows_it(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
        clip = np.stack([np.asarray(frame) for frame in frames])
        assert np.array_equal(load_clip(animated(clip, "GIF"), frames=None), clip)

    def test_transparency_lies_over_white_and_is_put_away_between_frames(self) -> None:
        def dot(at: int) -> Image.Image:
            image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
            image.paste((255, 0, 0, 255), (8 * at, 0, 8 * at + 8, 8))
            image.paste((0, 0, 255, 255), (56, 56, 64, 64 - at))  # so that what changes holds clear pixels too
            return image

        frames = [dot(0), dot(2), dot(4)]
        for kind, disposal in (("GIF", {"disposal": 2}), ("PNG", {"disposal": 1}), ("WEBP", {"lossless": True})):
            buffer = io.BytesIO()
            frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100, **disposal)
            clip = load_clip(buffer, frames=None)
            for index, frame in enumerate(clip):
                row = [tuple(int(value) for value in pixel) for pixel in frame[4, :48:8]]
                assert row == [(255, 0, 0) if at == 2 * index else WHITE for at in range(6)], (kind, index)

    def test_a_pngs_picture_for_viewers_that_cannot_show_the_rest_is_no_frame(self) -> None:
        clip = moving(3)
        first = Image.new("RGB", (20, 12), "red")
        buffer = io.BytesIO()
        frames = [Image.fromarray(frame) for frame in clip]
        first.save(buffer, "PNG", save_all=True, append_images=frames, default_image=True, duration=100)
        assert np.array_equal(load_clip(buffer, frames=None), clip)

    def test_a_pil_image_keeps_its_place(self) -> None:
        image = Image.open(io.BytesIO(animated(moving(), "WEBP")))
        image.seek(5)
        load_clip(image)
        assert image.tell() == 5

    def test_floats_and_grey_and_alpha(self) -> None:
        grey = moving()[..., 0]
        expected = np.repeat(grey[..., None], 3, axis=3)
        for source in (grey, grey[..., None], grey / 255.0, grey.astype(np.float32) / 255):
            assert np.array_equal(load_clip(source), expected), source.shape
        clear = np.concatenate([moving(), np.zeros((16, 12, 20, 1), np.uint8)], axis=3)
        assert (load_clip(clear) == 255).all()

    def test_one_picture_in_a_list_stands_still(self) -> None:
        picture = moving(1)[0]
        assert load_clip([picture], frames=3).shape == (3, 12, 20, 3)

    def test_iter_clips_names_the_index(self) -> None:
        good = moving()
        assert [len(clip) for clip in iter_clips([good, animated(good, "GIF")], frames=4)] == [4, 4]
        with pytest.raises(ImageNotFoundError, match=r"^clips\[1\]: there is no file 'nothing.gif'"):
            list(iter_clips([good, "nothing.gif"]))


class TestSampling:
    def test_by_count_the_middles_of_equal_spans(self) -> None:
        clip = moving()
        assert numbers(load_clip(clip)) == list(range(16))
        assert numbers(load_clip(clip, frames=4)) == [2, 6, 10, 14]
        assert numbers(load_clip(clip, frames=1)) == [8]
        assert numbers(load_clip(clip[:4], frames=8)) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert numbers(load_clip(clip, frames=None)) == list(range(16))

    def test_time_counts_not_the_number_of_frames(self) -> None:
        data = animated(moving(3), "WEBP", duration=[100, 200, 100])
        assert numbers(load_clip(data, frames=4)) == [0, 1, 1, 2]

    def test_by_rate_from_the_beginning(self) -> None:
        data = animated(moving(), "WEBP")  # ten frames a second
        assert numbers(load_clip(data, rate=10)) == list(range(16))
        assert numbers(load_clip(data, rate=5, frames=None)) == [1, 3, 5, 7, 9, 11, 13, 15]
        assert numbers(load_clip(data, rate=5, frames=3)) == [1, 3, 5]
        assert numbers(load_clip(data, rate=5, frames=10)) == [1, 3, 5, 7, 9, 11, 13, 15, 15, 15]  # the last is held
        assert numbers(load_clip(data, rate=20, frames=6)) == [0, 0, 1, 1, 2, 2]

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
    def test_frames_that_say_no_time_stand_as_browsers_show_them(self, kind: str) -> None:
        data = animated(moving(4), kind, duration=0)
        assert numbers(load_clip(data, rate=10, frames=None))[0] == 0
        assert len(load_clip(data, rate=10, frames=None)) == 4

    def test_a_rate_needs_times(self) -> None:
        with pytest.raises(UsageError, match=r"rate=5 takes so many frames a second, but nothing says how long"):
            load_clip(moving(), rate=5)

    @pytest.mark.parametrize("options", [{"frames": 0}, {"frames": 2.5}, {"frames": True}, {"rate": 0}, {"rate": "5"},
                                         {"rate": float("nan")}, {"frames": 10**9}])  # fmt: skip
    def test_numbers_that_cannot_be(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=next(iter(options))):
            load_clip(moving(), **options)


class TestOneOrSeveral:
    def test_what_is_one_clip(self) -> None:
        clip = moving()
        picture = Image.fromarray(clip[0])
        moves = Image.open(io.BytesIO(animated(clip, "GIF")))
        for one in ("a.gif", Path("a"), b"GIF89a", io.BytesIO(), moves, picture, clip, clip[0], list(clip),
                    [picture, picture], (picture,)):  # fmt: skip
            assert is_clip_source(one), type(one)
        for several in ([], ["a.png", "b.png"], [clip, clip], [moves, moves], [[picture], [picture]], clip[None],
                        np.array(["a.gif", "b.gif"]), iter([clip]), None, {"a": clip}):  # fmt: skip
            assert not is_clip_source(several), several

    def test_list_clips(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        for name in ("b.GIF", "a.webp", "deep/c.mp4", ".hidden.gif", "notes.txt", "photo.jpg"):
            (tmp_path / name).write_bytes(b"x")
        assert [path.relative_to(tmp_path).as_posix() for path in list_clips(tmp_path)] == [
            "a.webp",
            "b.GIF",
            "deep/c.mp4",
        ]
        with pytest.raises(ImageNotFoundError, match="is not a folder; pass a folder of clips"):
            list_clips(tmp_path / "b.GIF")

    def test_a_still_gif_is_a_picture(self, tmp_path: Path) -> None:
        clip = moving(3)
        for index, frame in enumerate(clip):
            Image.fromarray(frame).save(tmp_path / f"{index}.gif")
        assert list_clips(tmp_path) == [tmp_path]  # a clip of three frames, not three clips
        assert load_clip(tmp_path, frames=None).shape == clip.shape
        save_clip(clip, tmp_path / "moves.gif")
        with pytest.warns(DataLeftOutWarning, match="pictures that do not move: 3"):
            assert list_clips(tmp_path) == [tmp_path / "moves.gif"]
        with pytest.raises(ClipError, match=r"'moves.gif' moves"):
            load_clip(tmp_path)


class TestRefusals:
    def test_each_kind_of_bad_input_has_one_clear_error(self, tmp_path: Path) -> None:
        clip = moving()
        still = io.BytesIO()
        Image.fromarray(clip[0]).save(still, "PNG")
        jpeg = io.BytesIO()
        Image.fromarray(clip[0]).save(jpeg, "JPEG")
        webp = animated(clip, "WEBP")
        (tmp_path / "empty").mkdir()
        clips = tmp_path / "clips"
        clips.mkdir()
        save_clip(clip, clips / "a.webp")
        torn = tmp_path / "torn"
        torn.mkdir()
        (torn / "1.png").write_bytes(still.getvalue())
        (torn / "2.png").write_bytes(b"no picture")
        cases: list[tuple[Any, type[ImageError], str]] = [
            ("no such.gif", ImageNotFoundError, "there is no file 'no such.gif'"),
            ("", ImageNotFoundError, "the clip path is an empty string"),
            ("https://example.org/a.mp4", ImageNotFoundError, "is a URL and no URL is ever fetched; download the clip"),
            ("rtsp://example.org/a", ImageNotFoundError, "is a URL"),
            ("concat:/etc/passwd", ImageNotFoundError, "is a URL"),
            (b"", ImageEmptyError, "the clip buffer is empty"),
            ([], ImageEmptyError, "the list of frames has no frames"),
            (tmp_path / "empty", ImageEmptyError, "holds no pictures to be the frames of a clip"),
            (np.zeros((0, 4, 4, 3), np.uint8), ImageEmptyError, "has no frames or no pixels"),
            (webp[: len(webp) // 2], ImageTruncatedError, "cut off or damaged"),
            (still, ClipError, "is a still picture"),
            (jpeg, ClipError, r"is a still picture \(JPEG\)"),
            (Image.fromarray(clip[0]), ClipError, r"is a still picture; a clip is an animated GIF, WEBP or PNG"),
            (clips, ClipError, r"holds clips \('a.webp' moves\) and is none itself"),
            (torn, ImageFormatError, r"frame 1 of the folder .*torn': '.*2.png' is not an image"),
            ([clip[0], clip[0, :5]], ClipError, r"several sizes: 20x12 \(frame 0\) and 20x5 \(frame 1\)"),
            (b"hello there", ImageFormatError, r"is not a clip: its first bytes are b'hello th'"),
            (b"%PDF-1.7", ImageFormatError, "is a PDF document"),
            (
                b"#EXTM3U\nhttp://example.org/a.ts",
                ImageFormatError,
                "is an M3U or HLS playlist, and no file that names",
            ),
            (b"\xef\xbb\xbf#EXTM3U\n", ImageFormatError, "playlist"),
            (b"ffconcat version 1.0\nfile /etc/passwd", ImageFormatError, "is a playlist"),
            (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash">', ImageFormatError, "is a playlist"),
            (b"[playlist]\nFile1=/etc/passwd", ImageFormatError, "is a playlist"),
            (7, ImageFormatError, "got int"),
            ({"frames": clip}, ImageFormatError, "got dict"),
            ([clip[0], None], ImageFormatError, "frame 1 of the list of frames: an image must be"),
            ([clip[0], "no.png"], ImageNotFoundError, "frame 1 of the list of frames: there is no file 'no.png'"),
            (clip[0], ImageArrayError, r"this is one picture: \[array\] is a clip that stands still"),
            (clip[None], ImageArrayError, "pass several clips to a function that takes several"),
            (clip.transpose(0, 3, 1, 2), ImageArrayError, r"channels first: use .transpose\(0, 2, 3, 1\)"),
            (clip.astype(np.int64), ImageArrayError, "frame 4 of the array .* must be uint8"),
            (np.full((2, 4, 4, 3), np.nan), ImageArrayError, "NaN"),
        ]
        for source, kind, message in cases:
            with pytest.raises(kind, match=message) as caught:
                load_clip(source, frames=2)
            assert type(caught.value) is kind, source

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
    def test_caps(self, kind: str) -> None:
        data = animated(moving(), kind)
        limits: list[tuple[dict[str, Any], type[ImageError], str]] = [
            ({"frames": 15}, ClipTooLongError, "more frames than the cap of 15"),
            ({"seconds": 1.5}, ClipTooLongError, "longer than the cap of 1.5 seconds"),
            ({"decoded": 12 * 20 * 15}, ClipTooLongError, "more than 3,600 pixels in its frames of 20x12 together"),
            ({"pixels": 239}, ImageTooLargeError, "20x12 = 240 pixels, the cap is 239"),
            ({"max_bytes": 100}, ImageTooLargeError, "more bytes than the cap of 100"),
        ]
        for options, error, message in limits:
            with pytest.raises(error, match=message) as caught:
                load_clip(data, frames=2, limits=ClipLimits(**options))
            (cap,) = options
            assert str(caught.value).endswith(f", or load it with load_clip(..., limits=ClipLimits({cap}=...))")
            assert "larger" not in str(caught.value)  # max_pixels is no argument of load_clip
        assert load_clip(data, frames=2, limits=None).shape == (2, 12, 20, 3) and seconds_of(data, limits=None)
        with pytest.raises(UsageError, match="limits must be a ClipLimits, or None"):
            load_clip(data, limits={"frames": 3})  # type: ignore[arg-type]  # what is refused
        enough = ClipLimits(frames=16, seconds=1.7, decoded=12 * 20 * 16, pixels=240, max_bytes=len(data))
        assert load_clip(data, frames=2, limits=enough).shape == (2, 12, 20, 3)

    def test_a_gif_of_more_frames_than_the_cap_is_not_walked_through_to_its_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buffer = io.BytesIO()
        save = [Image.fromarray(frame) for frame in moving(40)]
        save[0].save(buffer, "GIF", save_all=True, append_images=save[1:], duration=100)
        furthest, skip = [0], GifImageFile._seek

        def seen(image: GifImageFile, frame: int, update_image: bool = True) -> None:
            furthest[0] = max(furthest[0], frame)
            skip(image, frame, update_image)

        monkeypatch.setattr(GifImageFile, "_seek", seen)
        with pytest.raises(ClipTooLongError, match="more frames than the cap of 4"):
            load_clip(buffer.getvalue(), frames=None, limits=ClipLimits(frames=4))
        assert furthest[0] <= 5

    def test_caps_of_lists_and_of_what_is_asked_for(self) -> None:
        small = ClipLimits(frames=3)
        with pytest.raises(ClipTooLongError, match="the list_iterator of frames has more frames than the cap of 3"):
            load_clip(iter(list(moving())), frames=2, limits=small)
        with pytest.raises(UsageError, match="frames"):
            load_clip(moving(2), frames=4, limits=small)
        with pytest.raises(ClipTooLongError, match="more than 479 pixels"):
            load_clip(moving(2), frames=None, limits=ClipLimits(decoded=479))
        with pytest.raises(ClipTooLongError, match="more than 500 pixels"):
            load_clip(moving(2), frames=3, limits=ClipLimits(decoded=500))  # held twice counts twice
        with pytest.raises(ImageTooLargeError, match=r"frame 0 .* load it with .*ClipLimits\(pixels=...\)"):
            load_clip(moving(2), frames=2, limits=ClipLimits(pixels=239))
        with pytest.raises(UsageError, match="limits: frames"):
            ClipLimits(frames=0)

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
    def test_hostile_bytes_give_frames_or_an_image_error(self, kind: str) -> None:
        data = animated(moving(4), kind)
        generator = np.random.default_rng(1)
        for trial in range(150):
            broken = bytearray(data)
            if trial % 3 == 0:
                broken = broken[: int(generator.integers(1, len(data)))]
            else:
                for at in generator.integers(6, len(data), 1 + trial % 5):
                    broken[at] = int(generator.integers(256))
            try:
                clip = load_clip(bytes(broken), frames=4, limits=ClipLimits(pixels=10_000, decoded=100_000))
            except ImageError:
                continue
            assert clip.dtype == np.uint8 and clip.shape[0] == 4

    def test_a_pipe_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.gif")
        with pytest.raises(ImageNotFoundError, match="is not a regular file"):
            load_clip(tmp_path / "pipe.gif")
