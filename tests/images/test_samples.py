"""Samples of every depth, sign, polarity and byte order: what black and white become, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import ImageArrayError, ImageFormatError, ImageTooLargeError, ImageTruncatedError
from icl_vision.images import load_image

Tags = list[tuple[int, list[int]]]


def tiff(
    rows: bytes,
    size: tuple[int, int],
    bits: tuple[int, ...] = (8,),
    photometric: int = 1,
    *,
    order: str = "<",
    format: int | None = None,
    more: Tags | None = None,
    strips: list[bytes] | None = None,
    rows_per_strip: int | None = None,
) -> bytes:
    """A TIFF written by hand, for what Pillow cannot write."""
    parts = [rows] if strips is None else strips
    entries: Tags = [(256, [size[0]]), (257, [size[1]]), (258, list(bits)), (262, [photometric])]
    entries += [(273, [0] * len(parts)), (277, [len(bits)]), (278, [rows_per_strip or size[1]])]
    entries += [(279, [len(part) for part in parts])]
    entries += [(339, [format] * len(bits))] if format else []
    given = {number for number, _ in more or []}
    entries = sorted([entry for entry in entries if entry[0] not in given] + (more or []))
    if 259 not in given:
        entries = sorted([*entries, (259, [1])])
    start = 8 + 2 + 12 * len(entries) + 4
    tail = b""
    body = struct.pack(order + "H", len(entries))
    data_at = start + sum(4 * len(values) for _, values in entries if len(values) > 1)
    for number, values in entries:
        if number == 273:
            at, values = data_at, []
            for part in parts:
                values.append(at)
                at += len(part)
        raw = struct.pack(order + "L" * len(values), *values)
        field = raw if len(values) == 1 else struct.pack(order + "L", start + len(tail))
        tail += b"" if len(values) == 1 else raw
        body += struct.pack(order + "HHL", number, 4, len(values)) + field
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return head + body + b"\0" * 4 + tail + b"".join(parts)


def packed(values: list[int], bits: int) -> bytes:
    """Samples packed highest bit first, filled up to a byte."""
    text = "".join(format(value % 2**bits, f"0{bits}b") for value in values)
    return bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


def stored(values: list[int], bits: int, order: str) -> bytes:
    if bits in (8, 16, 24, 32):
        return b"".join((v % 2**bits).to_bytes(bits // 8, {"<": "little", ">": "big"}[order]) for v in values)
    return packed(values, bits)


def grey(source: Any) -> list[int]:
    image = load_image(source)
    assert image.mode == "RGB"
    array = np.asarray(image)
    assert (array == array[:, :, :1]).all()
    return [int(value) for value in array[:, :, 0].ravel()]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", range(1, 33))
def test_unsigned_samples_of_every_depth(bits: int, photometric: int, order: str) -> None:
    white = 2**bits - 1
    values = [0, white, white // 2, white // 3, white // 5 * 2, 1, white - 1]
    exact = [value * 255 / white for value in values]
    expected = [255 - value if photometric == 0 else value for value in exact]
    found = grey(tiff(stored(values, bits, order), (len(values), 1), (bits,), photometric, order=order))
    assert all(abs(one - other) <= 0.5 + 1e-6 for one, other in zip(found, expected, strict=True)), (found, expected)
    assert found[:2] == ([0, 255] if photometric else [255, 0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [8, 10, 12, 16, 24])
def test_signed_samples(bits: int, photometric: int, order: str) -> None:
    white = 2 ** (bits - 1) - 1
    data = tiff(stored([0, white, white // 3], bits, order), (3, 1), (bits,), photometric, order=order, format=2)
    expected = [0, 255, round(white // 3 * 255 / white)]
    assert grey(data) == ([255 - one for one in expected] if photometric == 0 else expected)
    bad = tiff(stored([0, -1, 5], bits, order), (3, 1), (bits,), photometric, order=order, format=2)
    with pytest.raises(ImageFormatError, match="holds signed values from -1 to 5; shift and scale it to 0 and more"):
        load_image(bad)


def test_what_pillow_writes_of_its_mode_i_is_16_bits() -> None:
    values = np.array([[0, 257, 65535]], np.int32)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    assert grey(buffer.getvalue()) == grey(Image.fromarray(values)) == [0, 1, 255]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("bits", "code"), [(16, "e"), (32, "f"), (64, "d")])
def test_float_samples(bits: int, code: str, photometric: int, order: str) -> None:
    def written(*values: float) -> bytes:
        rows = struct.pack(order + code * len(values), *values)
        return tiff(rows, (len(values), 1), (bits,), photometric, order=order, format=3)

    expected = [0, 64, 128, 255]
    assert grey(written(0, 0.25, 0.5, 1)) == (expected if photometric else [255 - value for value in expected])
    for bad, said in ((2.0, r"floats from 0 to 2; scale it to \[0, 1\]"), (-0.5, "floats from -0.5 to 0")):
        with pytest.raises(ImageFormatError, match=said):
            load_image(written(0, bad))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ImageFormatError, match="NaN or infinite values"):
            load_image(written(0, bad))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [4, 10, 12, 16, 24, 32])
def test_colour_of_every_depth(bits: int, order: str) -> None:
    white = 2**bits - 1
    values = [white, 0, 0, 0, white, white // 2]
    row = stored(values, bits, order)
    for data in (
        tiff(row, (2, 1), (bits,) * 3, 2, order=order),
        tiff(b"", (2, 1), (bits,) * 3, 2, order=order, more=[(284, [2])], rows_per_strip=1,
             strips=[stored(values[plane::3], bits, order) for plane in range(3)]),
    ):  # fmt: skip
        found = np.asarray(load_image(data))[0].tolist()
        assert found[0] == [255, 0, 0]
        assert found[1][:2] == [0, 255] and abs(found[1][2] - white // 2 * 255 / white) <= 1
    floats = struct.pack(order + "6f", 1, 0, 0, 0, 1, 0.5)
    found = np.asarray(load_image(tiff(floats, (2, 1), (32,) * 3, 2, order=order, format=3)))
    assert found[0].tolist() == [[255, 0, 0], [0, 255, 128]]


def test_alpha_at_other_depths_lies_over_white() -> None:
    row = struct.pack("<6H", 0, 65535, 0, 0, 0, 32768)
    for extra, expected in ((2, [0, 255, 127]), (0, [0, 0, 0])):
        assert grey(tiff(row, (3, 1), (16, 16), 1, more=[(338, [extra])])) == expected
    inverted = struct.pack("<4H", 65535, 65535, 65535, 0)
    assert grey(tiff(inverted, (2, 1), (16, 16), 0, more=[(338, [2])])) == [0, 255]


def test_strips_deflate_and_orientation_at_other_depths() -> None:
    white = 2**10 - 1
    rows = [[0, white, 0], [white, white, 0], [0, 0, 0], [white, 0, white], [0, 0, white]]
    plain = [packed(row, 10) for row in rows]
    expected = [255 * value // white for row in rows for value in row]
    whole = tiff(b"".join(plain), (3, 5), (10,))
    strips = [plain[0] + plain[1], plain[2] + plain[3], plain[4]]
    split = tiff(b"", (3, 5), (10,), strips=strips, rows_per_strip=2)
    deflated = tiff(
        b"", (3, 5), (10,), strips=[zlib.compress(one) for one in strips], rows_per_strip=2, more=[(259, [8])]
    )
    for data in (whole, split, deflated):
        assert grey(data) == expected
    turned = load_image(tiff(b"".join(plain), (3, 5), (10,), more=[(274, [6])]))
    assert np.array_equal(np.asarray(turned)[:, :, 0], np.rot90(np.reshape(expected, (5, 3)), -1))
    assert load_image(turned).size == (5, 3)


def test_what_cannot_be_decoded_at_other_depths_says_so() -> None:
    row = packed([0, 1023], 10)
    for more, said in (
        ([(259, [5])], r"holds 10 bits a sample \(unsigned\) in a compression \(5\) that is not read"),
        ([(317, [2]), (259, [8])], "in a compression"),
        ([(266, [2])], "in a compression"),
        ([(262, [9])], "10 bits a sample .* of photometric interpretation 9, which is not read here"),
    ):
        with pytest.raises(ImageFormatError, match=said):
            load_image(tiff(row, (2, 1), (10,), more=more))
    with pytest.raises(ImageTruncatedError, match="cut off or damaged"):
        load_image(tiff(row, (2, 9), (10,)))
    with pytest.raises(ImageTruncatedError, match="cut off or damaged"):
        load_image(tiff(b"nonsense", (2, 1), (10,), more=[(259, [8])]))
    with pytest.raises(ImageTooLargeError, match="100000x100000"):
        load_image(tiff(row, (100_000, 100_000), (10,)))


def test_an_open_tiff_keeps_its_polarity_and_depth() -> None:
    data = tiff(struct.pack("<3H", 0, 32768, 65535), (3, 1), (16,), 0)
    assert grey(Image.open(io.BytesIO(data))) == [255, 127, 0]
    assert grey(Image.open(io.BytesIO(tiff(packed([0, 2048, 4095], 12) + b"", (3, 1), (12,))))) == [0, 128, 255]


@pytest.mark.parametrize(("most", "values"), [(1, [0, 1]), (100, [0, 50, 100]), (4095, [0, 4095]), (65535, [0, 65535])])
def test_pgm_by_its_largest_value(most: int, values: list[int]) -> None:
    rows = struct.pack(f">{len(values)}H", *values) if most > 255 else bytes(values)
    found = grey(b"P5 %d 1 %d\n" % (len(values), most) + rows)
    assert (found[0], found[-1]) == (0, 255)
    assert found[1:-1] in ([], [127], [128])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([[-5, 3]]), "it holds values from -5 to 3: shift and scale them to 0 to 255 first$"),
        (np.array([[0, 70000]]), r"it holds values from 0 to 70000: scale them to 0 to 255 first, then use .astype"),
        (np.array([[-1, 3]], np.int8), "it holds values from -1 to 3: shift"),
        (np.array([[0, 200]], np.int16), r"use .astype\(np.uint8\)$"),
        (
            np.array([[0, 200]], np.uint16),
            r"\(array // 257\).astype\(np.uint8\), or .astype\(np.uint8\) if 255 is white",
        ),
        (np.array([[0, 5000]], np.uint16), r"\(array // 257\).astype\(np.uint8\)$"),
        (np.array([[True]]), r"array.astype\(np.uint8\) \* 255"),
        (np.ma.array([[1, 2]], mask=[[0, 1]], dtype=np.uint8), "has masked pixels; fill them first"),
    ],
)
def test_arrays_are_told_what_would_not_wrap(array: Any, said: str) -> None:
    with pytest.raises(ImageArrayError, match=said):
        load_image(array)


def test_arrays_of_every_float_width_and_order() -> None:
    for kind in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g"):
        assert grey(np.array([[0, 0.25, 0.5, 1]], dtype=kind)) == [0, 64, 128, 255]
    assert grey(np.ma.array([[1, 2]], dtype=np.uint8)) == [1, 2]
