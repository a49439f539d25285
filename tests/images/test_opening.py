"""images.py: what every source and pixel mode becomes, one clear error per kind of bad input, and hostile bytes."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from icl_vision.errors import (
    DataLeftOutWarning,
    ImageArrayError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTruncatedError,
)
from icl_vision.images import is_image_source, iter_images, list_images, load_image, load_images, opening

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
ALL_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]


def photo(width: int = 37, height: int = 23) -> Image.Image:
    """Smooth colours with some noise: every codec has something to do, and no side is a multiple of 8."""
    y, x = np.mgrid[:height, :width]
    colours = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2)
    noise = np.random.default_rng(0).integers(-9, 10, colours.shape)
    return Image.fromarray(np.clip(colours + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: Any, **options: Any) -> np.ndarray[Any, Any]:
    image = load_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def one(source: Any) -> tuple[int, ...]:
    """The colour of the first pixel."""
    return tuple(int(value) for value in pixels(source)[0, 0])


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    middle = b"".join(chunk(name, data) for name, data in extra)
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class TestSources:
    def test_every_kind_of_source_gives_the_same_pixels(self, tmp_path: Path) -> None:
        image = photo()
        data = encoded(image, "PNG")
        path = tmp_path / "a photo \N{SNOWMAN}.bin"  # the suffix plays no part
        path.write_bytes(data)
        expected = np.asarray(image)
        with path.open("rb") as handle:
            buffers = data, bytearray(data), memoryview(data), io.BytesIO(data)
            for source in (path, str(path), handle, *buffers, image, expected):
                assert np.array_equal(pixels(source), expected), type(source)

    @pytest.mark.parametrize("kind", ALL_FORMATS)
    def test_every_format(self, kind: str) -> None:
        image = photo().quantize(16) if kind == "GIF" else photo()
        data = encoded(image, kind)
        assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))

    def test_the_formats_are_these(self) -> None:
        assert list(opening.FORMATS) == ALL_FORMATS

    def test_a_file_object_is_read_from_its_start_put_back_and_left_open(self) -> None:
        buffer = io.BytesIO(encoded(photo(), "PNG"))
        buffer.seek(0, io.SEEK_END)
        first = pixels(buffer)
        assert buffer.tell() == len(buffer.getvalue())
        assert not buffer.closed
        assert np.array_equal(pixels(buffer), first)

    def test_a_file_object_that_cannot_seek_and_reads_little_at_a_time(self) -> None:
        class Pipe:
            def __init__(self, data: bytes) -> None:
                self.inner = io.BytesIO(data)

            def read(self, size: int = -1) -> bytes:
                return self.inner.read(min(size, 100))

        assert np.array_equal(pixels(Pipe(encoded(photo(), "PNG"))), np.asarray(photo()))

    def test_a_pil_image_is_not_changed_and_not_shared(self) -> None:
        source = photo().convert("RGBA")
        source.info["note"] = "mine"
        before = source.tobytes()
        result = load_image(source)
        result.paste(RED, (0, 0, 5, 5))
        assert (source.mode, source.tobytes(), source.info) == ("RGBA", before, {"note": "mine"})
        rgb = photo()
        load_image(rgb).paste(RED, (0, 0, 5, 5))
        assert rgb.tobytes() == photo().tobytes()

    def test_a_lazily_opened_pil_image(self) -> None:
        data = encoded(photo(), "PNG")
        assert np.array_equal(pixels(Image.open(io.BytesIO(data))), np.asarray(photo()))

    def test_loading_twice_changes_nothing(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        once = load_image(encoded(photo(), "JPEG", exif=exif))
        assert once.size == (23, 37)
        assert np.array_equal(pixels(once), np.asarray(once))
        assert once.info == {}

    def test_load_images_names_the_index(self) -> None:
        good = encoded(photo(), "PNG")
        assert len(load_images([good, photo(), np.zeros((2, 2), np.uint8)])) == 3
        with pytest.raises(ImageEmptyError, match=r"^images\[2\]: the image buffer is empty"):
            load_images([good, good, b""])
        with pytest.raises(ImageNotFoundError, match=r"^queries\[0\]: there is no file 'nothing.png'"):
            next(iter_images(["nothing.png"], name="queries"))

    def test_iter_images_is_lazy(self) -> None:
        stream = iter_images([photo(), b""])
        assert next(stream).size == (37, 23)
        with pytest.raises(ImageEmptyError, match=r"images\[1\]"):
            next(stream)

    def test_one_or_several(self) -> None:
        for single in ("a.png", Path("a.png"), b"", io.BytesIO(), photo(), np.zeros((4, 4, 3)), np.zeros(3)):
            assert is_image_source(single), single
        for several in (["a.png"], (), {}, None, 3, np.zeros((2, 4, 4, 3)), np.array(["a.png", "b.png"]), iter([])):
            assert not is_image_source(several), several

    def test_threads(self) -> None:
        data = {kind: encoded(photo(), kind) for kind in ALL_FORMATS}
        expected = {kind: pixels(data[kind]) for kind in data}
        wrong: list[str] = []

        def work() -> None:
            for kind in ALL_FORMATS * 3:
                if not np.array_equal(pixels(data[kind]), expected[kind]):
                    wrong.append(kind)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestModes:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_exif_orientation(self, kind: str, orientation: int) -> None:
        # The upright picture: red, green / blue, white. `stored` is what a camera held that way would have written.
        upright = np.array([[RED, GREEN], [BLUE, WHITE], [BLACK, BLACK]], dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        undo: dict[int, Callable[[Any], Any]] = {
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a, 1),
            7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
            8: lambda a: np.rot90(a, -1),
        }
        stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
        data = encoded(stored, kind, exif=exif, **options)
        for source in (data, Image.open(io.BytesIO(data))):
            result = pixels(source)
            assert result.shape == upright.shape
            assert np.abs(result[8::16, 8::16].astype(int) - upright[8::16, 8::16]).max() < 12

    def test_damaged_exif_is_no_reason_to_refuse(self) -> None:
        data = encoded(photo(), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
        assert np.array_equal(pixels(data), np.asarray(photo()))

    def test_alpha_lies_over_white(self) -> None:
        values = [((255, 0, 0, 255), RED), ((255, 0, 0, 0), WHITE), ((0, 0, 0, 128), (127, 127, 127))]
        for colour, expected in values:
            assert one(encoded(Image.new("RGBA", (2, 2), colour), "PNG")) == expected
        assert one(encoded(Image.new("LA", (2, 2), (0, 0)), "PNG")) == WHITE
        assert one(encoded(Image.new("LA", (2, 2), (100, 255)), "PNG")) == (100, 100, 100)
        assert one(Image.new("RGBA", (1, 1), (0, 0, 0, 128)).convert("RGBa")) == (127, 127, 127)
        assert one(Image.new("LA", (1, 1), (0, 128)).convert("La")) == (127, 127, 127)
        assert one(encoded(Image.new("RGBA", (2, 2), (0, 0, 255, 0)), "WEBP", lossless=True)) == WHITE

    def test_opaque_alpha_changes_nothing(self) -> None:
        assert np.array_equal(pixels(photo().convert("RGBA")), np.asarray(photo()))

    def test_palette(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([*RED, *GREEN])
        image.putdata([0, 1])
        assert pixels(encoded(image, "PNG")).tolist() == [[list(RED), list(GREEN)]]
        assert pixels(encoded(image, "PNG", transparency=0)).tolist() == [[list(WHITE), list(GREEN)]]
        assert pixels(encoded(image, "PNG", transparency=b"\x80\x00")).tolist() == [[[255, 127, 127], list(WHITE)]]
        assert pixels(encoded(image, "GIF", transparency=1)).tolist() == [[list(RED), list(WHITE)]]
        assert one(image.convert("PA")) == RED

    def test_transparent_key_colours(self) -> None:
        assert one(encoded(Image.new("RGB", (2, 2), RED), "PNG", transparency=RED)) == WHITE
        assert one(encoded(Image.new("RGB", (2, 2), RED), "PNG", transparency=GREEN)) == RED
        assert one(encoded(Image.new("L", (2, 2), 9), "PNG", transparency=9)) == WHITE
        assert one(encoded(Image.new("1", (2, 2), 0), "PNG", transparency=0)) == WHITE

    def test_16_bit_grey_is_scaled_not_clipped(self) -> None:
        values = np.array([[0, 128, 129, 32767, 32768, 65535, 257 * 77]], dtype=np.uint16)
        expected = [0, 0, 1, 127, 128, 255, 77]
        for kind in ("PNG", "TIFF"):
            data = encoded(Image.fromarray(values), kind)
            assert pixels(data)[0, :, 0].tolist() == expected, kind
        assert pixels(Image.fromarray(values))[0, :, 0].tolist() == expected
        assert pixels(Image.fromarray(values.astype(np.int32)))[0, :, 0].tolist() == expected  # mode I
        big_endian = Image.frombytes("I;16B", (7, 1), values.astype(">u2").tobytes())
        assert pixels(big_endian)[0, :, 0].tolist() == expected
        pgm = b"P5 7 1 65535\n" + values.astype(">u2").tobytes()
        assert pixels(pgm)[0, :, 0].tolist() == expected

    def test_16_bit_colour(self) -> None:
        row = b"\x00" + struct.pack(">3H", 65535, 257 * 100, 0)
        assert one(png(1, 1, 16, 2, row)) == (255, 100, 0)
        assert one(png(1, 1, 16, 6, b"\x00" + struct.pack(">4H", 65535, 0, 0, 65535))) == RED
        assert one(png(1, 1, 16, 4, b"\x00" + struct.pack(">2H", 257 * 50, 65535))) == (50, 50, 50)

    def test_16_bit_transparent_keys(self) -> None:
        grey = b"\x00" + struct.pack(">2H", 257 * 50, 257 * 60)
        result = pixels(png(2, 1, 16, 0, grey, (b"tRNS", struct.pack(">H", 257 * 50))))
        assert result[0, :, 0].tolist() == [255, 60]
        colour = b"\x00" + struct.pack(">6H", 65535, 257 * 100, 0, 0, 0, 0)
        result = pixels(png(2, 1, 16, 2, colour, (b"tRNS", struct.pack(">3H", 65535, 257 * 100, 0))))
        assert result.tolist() == [[list(WHITE), list(BLACK)]]

    @pytest.mark.parametrize(("bits", "row", "step"), [(2, b"\x1b", 85), (4, b"\x01\x23", 17), (8, b"\0\1\2\3", 1)])
    def test_transparent_keys_of_grey_images_of_few_bits(self, bits: int, row: bytes, step: int) -> None:
        """The key is one of the file's values 0, 1, 2 and 3, which are scaled to 8 bits."""
        data = png(4, 1, bits, 0, b"\x00" + row, (b"tRNS", struct.pack(">H", 1)))
        for source in (data, Image.open(io.BytesIO(data))):
            assert pixels(source)[0, :, 0].tolist() == [0, 255, 2 * step, 3 * step]

    def test_float_images(self) -> None:
        values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
        data = encoded(Image.fromarray(values), "TIFF")
        assert pixels(data)[0, :, 0].tolist() == [0, 128, 255]
        scale = r"holds floats from .*; scale it to \[0, 1\] first"
        replace = "holds NaN or infinite values; replace them first"
        for bad, said in ((2.0, scale), (-0.1, scale), (float("nan"), replace), (float("inf"), replace)):
            data = encoded(Image.fromarray(np.array([[0.0, bad]], dtype=np.float32)), "TIFF")
            with pytest.raises(ImageFormatError, match=said):
                load_image(data)

    def test_32_bit_integers_beyond_16_bits(self) -> None:
        for bad in (70000, -1):
            data = encoded(Image.fromarray(np.array([[0, bad]], dtype=np.int32)), "TIFF")
            with pytest.raises(ImageFormatError, match=f"holds 32-bit values from .*{bad}.*; scale it to 16 bits"):
                load_image(data)

    def test_cmyk_as_pillow_gives_it(self) -> None:
        red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
        assert one(red) == RED
        assert one(encoded(red, "TIFF")) == RED
        data = encoded(red, "JPEG")  # Pillow writes the Adobe marker with inverted values, and reads it back
        assert b"Adobe" in data
        assert np.abs(np.array(one(data)) - RED).max() < 5

    def test_other_modes(self) -> None:
        assert one(Image.new("1", (1, 1), 1)) == WHITE
        assert one(encoded(Image.new("1", (9, 2), 1), "PNG")) == WHITE
        assert one(Image.new("L", (1, 1), 7)) == (7, 7, 7)
        assert one(Image.new("HSV", (1, 1), (0, 255, 255))) == RED
        assert one(Image.new("RGB", (1, 1), RED).convert("YCbCr")) == (254, 0, 0)
        assert one(Image.new("RGBX", (1, 1), (1, 2, 3, 0))) == (1, 2, 3)

    def test_a_mode_that_is_not_read(self) -> None:
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
        lab = ImageCms.applyTransform(photo(), transform)
        assert lab is not None
        with pytest.raises(ImageFormatError, match="the pixel mode 'LAB', which is not read here"):
            load_image(lab)

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_frame_of_an_animation(self, kind: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert one(data) == RED

    def test_a_pil_image_gives_its_current_frame(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
        opened = Image.open(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
        opened.seek(1)
        assert one(opened) == GREEN

    def test_a_phones_multi_picture_file_is_its_first_jpeg(self) -> None:
        frames = [photo(), photo().rotate(180)]
        data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
        assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


class TestArrays:
    def test_shapes_and_dtypes(self) -> None:
        grey = np.array([[0, 128, 255]], dtype=np.uint8)
        rgb = np.stack([grey] * 3, axis=2)
        for array in (grey, grey[:, :, None], rgb, np.dstack([rgb, np.full_like(grey, 255)])):
            assert pixels(array).tolist() == rgb.tolist()
        for dtype in (np.float16, np.float32, np.float64):
            assert pixels((grey / 255).astype(dtype)).tolist() == rgb.tolist()

    def test_every_8_bit_value_survives_as_float(self) -> None:
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        for dtype in (np.float32, np.float64):
            assert np.array_equal(pixels((grey / 255).astype(dtype))[:, :, 0], grey)

    def test_alpha_lies_over_white(self) -> None:
        assert one(np.array([[[255, 0, 0, 0]]], dtype=np.uint8)) == WHITE
        assert one(np.array([[[1.0, 0, 0, 1.0]]])) == RED

    def test_strided_and_read_only_arrays(self) -> None:
        array = np.asarray(photo())[::-1, ::2]
        array.flags.writeable = False
        assert np.array_equal(pixels(array), array)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 4), np.uint16), r"dtype uint16.*must be uint8 .* or float .*array // 257"),
            (np.zeros((4, 4), np.int64), r"dtype int64.*use .astype\(np.uint8\)"),
            (np.zeros((4, 4), bool), r"dtype bool.*scale it: array.astype\(np.uint8\) \* 255"),
            (np.zeros((4, 4), complex), "dtype complex128"),
            (np.full((4, 4), None), "dtype object"),
            (np.full((4, 4), "a"), "must be uint8"),
            (np.zeros(4, np.uint8), r"must have shape \[H, W\] or \[H, W, C\]"),
            (np.zeros((), np.uint8), "must have shape"),
            (np.zeros((4, 4, 2), np.uint8), "C of 1, 3 or 4"),
            (np.zeros((3, 4, 5), np.uint8), r"channels first: use .transpose\(1, 2, 0\)"),
            (np.zeros((2, 4, 4, 3), np.uint8), "pass a batch to a function that takes several images"),
            (np.zeros((0, 4), np.uint8), "has no pixels"),
            (np.zeros((4, 0, 3), np.uint8), "has no pixels"),
            (np.full((2, 2), np.nan), "holds NaN or infinite values"),
            (np.array([[0.5, np.inf]]), "holds NaN or infinite values"),
            (np.array([[0.0, 255.0]]), r"values from 0 to 255; floats must lie in \[0, 1\]; divide by 255"),
            (np.array([[-0.5, 0.5]]), r"values from -0.5 to 0.5; floats must lie in \[0, 1\]$"),
            (np.array([[0.0, 1.0000001]]), r"from 0 to 1.0000001; .*looks like rounding: pass array.clip\(0, 1\)"),
        ],
    )
    def test_refused(self, array: Any, message: str) -> None:
        with pytest.raises(ImageArrayError, match=message):
            load_image(array)


class TestRefusals:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ImageNotFoundError, match=r"there is no file 'cat.png' \(relative to .*\); check the path"):
            load_image("cat.png")
        with pytest.raises(FileNotFoundError, match=r"there is no file '.*cat.png'; check the path"):
            load_image(tmp_path / "cat.png")

    def test_empty_path(self) -> None:
        with pytest.raises(ImageNotFoundError, match="the image path is an empty string"):
            load_image("")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageNotFoundError, match="is a folder, not an image file"):
            load_image(tmp_path)

    def test_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageNotFoundError, match=r"is not a regular file \(a pipe, socket or device\)"):
            load_image(tmp_path / "pipe.png")

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "secret.png"
        path.write_bytes(encoded(photo(), "PNG"))

        def refuse(self: Path, *args: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, whom no mode bits stop
        with pytest.raises(ImageNotFoundError, match="secret.png' cannot be read: Permission denied"):
            load_image(path)

    @pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000 + ".png"])
    def test_impossible_paths(self, path: str) -> None:
        with pytest.raises(ImageNotFoundError, match="cannot be read"):
            load_image(path)

    def test_a_path_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(ImageNotFoundError, match="cannot be read: Not a directory"):
            load_image(tmp_path / "file" / "cat.png")

    @pytest.mark.parametrize("url", ["http://example.com/cat.png", "HTTPS://example.com/c.png", "s3://bucket/cat.png"])
    def test_urls_are_never_fetched(self, url: str) -> None:
        message = "is a URL and no URL is ever fetched; download the image first and pass its path or bytes"
        with pytest.raises(ImageNotFoundError, match=message):
            load_image(url)
        with pytest.raises(ImageNotFoundError, match=message):
            load_image(Path(url))  # pathlib makes one slash of two

    def test_other_schemes(self) -> None:
        with pytest.raises(ImageNotFoundError, match=r"is a URL.*; pass the path without the scheme"):
            load_image("file:///tmp/cat.png")
        with pytest.raises(ImageNotFoundError, match=r"'data:image/png;base64,A{40,60}\.\.\.' is a URL"):
            load_image("data:image/png;base64," + "A" * 500)

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.png"
        path.touch()
        with pytest.raises(ImageEmptyError, match=r"empty.png' is empty \(0 bytes\)"):
            load_image(path)
        with pytest.raises(ImageEmptyError, match="the image buffer is empty"):
            load_image(b"")
        with pytest.raises(ImageEmptyError, match=r"the BytesIO is empty"):
            load_image(io.BytesIO())
        with pytest.raises(ImageEmptyError, match="has no pixels"):
            load_image(Image.new("RGB", (0, 5)))

    @pytest.mark.parametrize("kind", ALL_FORMATS)
    def test_truncated(self, kind: str) -> None:
        data = encoded(photo(), kind)
        whole = pixels(data)
        for keep in (12, 20, 40, len(data) // 4, len(data) // 2, len(data) * 3 // 4, len(data) - 40):
            with pytest.raises(ImageTruncatedError, match=f"begins as a {kind} image but is cut off or damaged"):
                load_image(data[:keep])
        for keep in range(len(data) - 40, len(data)):
            try:
                got = pixels(data[:keep])
            except ImageTruncatedError:
                continue
            assert np.array_equal(got, whole), f"{kind} cut to {keep} of {len(data)} bytes gives other pixels"

    def test_damaged_inside(self) -> None:
        data = bytearray(encoded(photo(), "PNG"))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(ImageTruncatedError, match="begins as a PNG image but is cut off or damaged"):
            load_image(bytes(data))

    def test_a_truncated_pil_image(self) -> None:
        data = encoded(photo(), "PNG")
        with pytest.raises(ImageTruncatedError, match=r"the PIL image \(RGB, 37x23\) cannot be read"):
            load_image(Image.open(io.BytesIO(data[: len(data) // 2])))

    def test_a_closed_pil_image(self) -> None:
        closed = photo()
        closed.close()
        with pytest.raises(ImageError, match="the PIL image"):
            load_image(closed)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"hello world, I am text", "is not an image: its first bytes are b'hello wo'; allowed are JPEG, PNG"),
            (b"\x00", r"is not an image: its first bytes are b'\\x00'"),
            (b"\x89PN", "is not an image"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing; convert it to one of JPEG"),
            (b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "is an SVG drawing"),
            (b"\x00\x00\x00\x18ftypheic\x00\x00", "is a HEIC image"),
            (b"\x00\x00\x00\x18ftypavif\x00\x00", "is an AVIF image"),
            (b"\x00\x00\x00\x18ftypisom\x00\x00", "is a video"),
            (b"%PDF-1.7\n", "is a PDF document"),
            (b"8BPS\x00\x01", "is a Photoshop file"),
            (b"\n<!DOCTYPE html><html>", "is an HTML page"),
            (b"PK\x03\x04....", "is a ZIP archive"),
            (b"\x00\x00\x01\x00\x01\x00", "is an icon or cursor"),
            (b"%!PS-Adobe-3.0 EPSF", "is a PostScript file"),
            (b"\x93NUMPY\x01\x00", "is a numpy file"),
            (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ],
    )
    def test_not_an_image_or_not_an_allowed_one(self, data: bytes, message: str, tmp_path: Path) -> None:
        path = tmp_path / "cat.jpg"  # whatever its suffix says
        path.write_bytes(data)
        for source in (data, path, io.BytesIO(data)):
            with pytest.raises(ImageFormatError, match=message):
                load_image(source)

    def test_formats_pillow_reads_but_we_do_not(self) -> None:
        for kind in ("ICO", "TGA", "PCX", "ICNS", "DDS"):
            with pytest.raises(ImageFormatError, match="allowed are|convert it to one of"):
                load_image(encoded(Image.new("RGB", (32, 32)), kind))

    @pytest.mark.parametrize("kind", ALL_FORMATS)
    def test_pixel_cap(self, kind: str) -> None:
        data = encoded(photo(), kind)
        message = r"the image buffer has 37x23 = 851 pixels, the cap is 850; scale it down or pass a larger max_pixels"
        with pytest.raises(ImageTooLargeError, match=message):
            load_image(data, max_pixels=850)
        load_image(data, max_pixels=851)

    def test_pixel_cap_of_pil_images_and_arrays(self) -> None:
        with pytest.raises(ImageTooLargeError, match=r"the PIL image \(RGB, 37x23\) has 37x23 = 851 pixels"):
            load_image(photo(), max_pixels=850)
        with pytest.raises(ImageTooLargeError, match=r"the array .* has 37x23 = 851 pixels"):
            load_image(np.asarray(photo()), max_pixels=850)

    def test_a_bomb_is_refused_before_decoding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def explode(*args: object, **options: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
        bomb = png(60_000, 60_000, 1, 0, b"")
        with pytest.raises(ImageTooLargeError, match="60000x60000 = 3,600,000,000 pixels, the cap is 50,000,000"):
            load_image(bomb)

    def test_formats_whose_reader_allocates_on_opening(self) -> None:
        vp8x = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16382).to_bytes(3, "little") * 2
        webp = b"RIFF" + struct.pack("<I", len(vp8x) + 4) + b"WEBP" + vp8x
        with pytest.raises(ImageTooLargeError, match="16383x16383"):
            load_image(webp)
        lossless = encoded(photo(), "WEBP", lossless=True)
        assert opening.declared_size("WEBP", lossless) == (37, 23)
        assert opening.declared_size("WEBP", encoded(photo(), "WEBP")) == (37, 23)
        assert opening.declared_size("WEBP", encoded(photo().convert("RGBA"), "WEBP")) == (37, 23)
        assert opening.declared_size("GIF", encoded(photo(), "GIF", comment=b"hello")) == (37, 23)

    def test_a_gif_whose_frame_is_larger_than_its_screen(self) -> None:
        data = bytearray(encoded(Image.new("L", (4, 4)), "GIF"))
        at = data.index(b",", 13 + 3 * 2)
        struct.pack_into("<HHHH", data, at + 1, 0, 0, 60_000, 60_000)
        with pytest.raises(ImageTooLargeError, match="60000x60000"):
            load_image(bytes(data))

    def test_a_tiff_whose_tile_is_larger_than_the_image(self) -> None:
        def tiff(side: int) -> bytes:
            # Width, height, bits, compression (LZW), photometric, samples, tile width and height, offset, bytes.
            fields = [(256, 8), (257, 8), (258, 8), (259, 5), (262, 1), (277, 1), (322, side), (323, side), (324, 200)]
            entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*fields, (325, 40)])
            return (b"II*\0\x08\0\0\0" + struct.pack("<H", 10) + entries).ljust(240, b"\0")

        with pytest.raises(ImageTooLargeError, match="60000x60000"):
            load_image(tiff(60_000))
        with pytest.raises(ImageTruncatedError, match="begins as a TIFF"):
            load_image(tiff(16))

    def test_pillows_own_limit_is_neither_used_nor_changed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for limit in (10, None):
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM"):
                if kind == "WEBP" and limit is not None:
                    continue  # Pillow's WebP reader asks its limit itself
                assert pixels(encoded(photo(), kind)).shape == (23, 37, 3)
            assert limit == Image.MAX_IMAGE_PIXELS

    def test_pillows_own_limit_where_its_readers_insist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encoded(photo(), "TIFF")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(ImageTooLargeError, match=r"exceeds Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS"):
            load_image(data)

    def test_byte_cap(self, tmp_path: Path) -> None:
        data = encoded(photo(), "BMP")
        path = tmp_path / "large.bmp"
        path.write_bytes(data)
        for source in (path, data, memoryview(data), io.BytesIO(data)):
            with pytest.raises(ImageTooLargeError, match="has more bytes than the cap of 1,000; make it smaller"):
                load_image(source, max_bytes=1000)
            load_image(source, max_bytes=len(data))

    def test_the_default_byte_cap_is_checked_before_reading(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse.png"
        with path.open("wb") as handle:
            handle.truncate(opening.MAX_BYTES + 1)
        with pytest.raises(ImageTooLargeError, match="cap of 268,435,456"):
            load_image(path)

    def test_out_of_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhaust(*args: object) -> None:
            raise MemoryError

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhaust)
        with pytest.raises(ImageTooLargeError, match="does not fit into memory"):
            load_image(encoded(photo(), "PNG"))

    @pytest.mark.parametrize("source", [None, 3, 2.5, ["a.png"], {"a": 1}, object()])
    def test_not_a_source(self, source: Any) -> None:
        kind = type(source).__name__
        more = "; a list of frames is a clip: .*" if isinstance(source, list) else ""
        message = f"an image must be a path, bytes, .* or a numpy array; got {kind}{more}$"
        with pytest.raises(ImageFormatError, match=message):
            load_image(source)

    def test_a_tensor(self) -> None:
        class Tensor:
            def __array__(self) -> np.ndarray[Any, Any]:
                return np.zeros((2, 2))

        with pytest.raises(ImageFormatError, match=r"got Tensor; pass .cpu\(\).numpy\(\)"):
            load_image(Tensor())  # type: ignore[arg-type]  # wrong on purpose

    def test_text_mode_and_broken_file_objects(self, tmp_path: Path) -> None:
        with pytest.raises(ImageFormatError, match=r"reads str, not bytes; open it in binary mode \('rb'\)"):
            load_image(io.StringIO("text"))  # type: ignore[arg-type]  # wrong on purpose
        closed = io.BytesIO(b"x")
        closed.close()
        with pytest.raises(ImageNotFoundError, match="the BytesIO cannot be read: I/O operation on closed file"):
            load_image(closed)
        path = tmp_path / "named.png"
        path.write_bytes(b"hello")
        with path.open("rb") as handle, pytest.raises(ImageFormatError, match=r"the file object '.*named.png' is not"):
            load_image(handle)


class TestFuzz:
    """Whatever the bytes, only ImageError leaves (a crash, another exception or a warning fails the test)."""

    @pytest.mark.parametrize("kind", [*ALL_FORMATS, "TIFF-LZW", "PNG-P", "PNG-16", "GIF-ANIMATED", "JPEG-EXIF"])
    @pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata are not the point here
    def test_mutations(self, kind: str) -> None:
        image = photo(24, 16)
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "description"
        data = {
            "TIFF-LZW": lambda: encoded(image, "TIFF", compression="tiff_lzw"),
            "PNG-P": lambda: encoded(image.quantize(8), "PNG", transparency=b"\x00\x80\xff"),
            "PNG-16": lambda: encoded(Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600), "PNG"),
            "GIF-ANIMATED": lambda: encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)], disposal=2),
            "JPEG-EXIF": lambda: encoded(image, "JPEG", exif=exif, progressive=True),
        }.get(kind, lambda: encoded(image, kind))()
        generator = random.Random(kind)
        loaded = 0
        for _ in range(250):
            broken = bytearray(data)
            # Most of the damage goes to the header, where it does the most.
            reach = len(broken) if generator.random() < 0.5 else min(len(broken), 80)
            for _ in range(generator.choice([1, 1, 2, 4, 16])):
                at = generator.randrange(reach)
                action = generator.random()
                if action < 0.6:
                    broken[at] = generator.choice([0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)])
                elif action < 0.75:
                    del broken[at : at + generator.randrange(1, 9)]
                elif action < 0.9:
                    broken[at:at] = generator.randbytes(generator.randrange(1, 9))
                else:
                    broken = broken[: at + 1]
                reach = min(reach, len(broken))
                if not reach:
                    break
            try:
                result = load_image(bytes(broken), max_pixels=1_000_000)
            except ImageError:
                continue
            assert result.mode == "RGB"
            loaded += 1
        assert loaded < 250

    def test_noise_behind_a_signature(self) -> None:
        signatures = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"GIF89a", b"BM", b"II*\0", b"P6 "]
        generator = random.Random(1)
        for signature in signatures * 40:
            with pytest.raises(ImageError):
                load_image(signature + generator.randbytes(generator.randrange(200)), max_pixels=1_000_000)


def test_a_tga_is_no_icon() -> None:
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        with pytest.raises(ImageFormatError, match="is a TGA image; convert it to one of"):
            load_image(encoded(Image.new(mode, (40, 30)), "TGA"))
    for data in (encoded(photo(), "ICO", sizes=[(16, 16)]), b"\0\0\2\0\1\0\x20\x20\0\0" + bytes(20)):
        with pytest.raises(ImageFormatError, match="is an icon or cursor; convert it"):
            load_image(data)


class TestListImages:
    def test_recursive_sorted_by_suffix_without_hidden(self, tmp_path: Path) -> None:
        names = ["b.JPG", "a.png", "sub/c.webp", "sub/deep/d.TIFF", "notes.txt", ".hidden.png", ".git/e.png", "f.heic"]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        with pytest.warns(DataLeftOutWarning, match="hidden pictures: 1 .'.hidden.png'.*other formats: 1"):
            found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
        assert found == ["a.png", "b.JPG", "sub/c.webp", "sub/deep/d.TIFF"]

    def test_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageNotFoundError, match="is not a folder; pass a folder of images"):
            list_images(tmp_path / "nothing")
        (tmp_path / "file.png").touch()
        with pytest.raises(ImageNotFoundError, match="is not a folder"):
            list_images(tmp_path / "file.png")

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(place: str) -> None:
            raise PermissionError(13, "Permission denied", str(place))

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(ImageNotFoundError, match="cannot be read: Permission denied"):
            list_images(tmp_path)
