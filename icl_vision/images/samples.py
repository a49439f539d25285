"""Samples of any depth as 8 bits: what black and white are, by a file's own words.

One rule. Unsigned integers of b bits run from 0 to 2**b - 1 and are scaled by that, signed ones from 0 to
2**(b - 1) - 1 (a negative sample is refused: nothing says how dark it is), floats from 0 to 1 (anything beyond, and
NaN, is refused: nothing says what white is). Rounded, never clipped. Where a TIFF says WhiteIsZero, the result is
inverted.

``read_tiff`` decodes what Pillow does not: grey and RGB, with or without alpha, of any depth up to 32 bits (floats of
16, 32 and 64), in strips, uncompressed or deflated.

Knows: bits, signs, TIFF's tags. Refuses to know: sources, caps, which errors leave ``images.py``.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
"""TIFF's SampleFormat."""

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, EXTRA, FORMAT = 317, 338, 339
WHITE_IS_ZERO: Final = 0
_DEFLATED: Final = (8, 32946)
_ROWS: Final = 64  # unpacked at a time: a bit takes a byte meanwhile


class SamplesError(ValueError):
    """The samples, or the way they are stored, cannot be read as a picture. (``images.py`` says whose they are.)"""


def to_8_bits(values: npt.NDArray[Any], bits: int, format: int = UNSIGNED) -> npt.NDArray[np.uint8]:
    """Samples as uint8, by the rule above.

    Raises:
        SamplesError: negative, or floats beyond [0, 1], or NaN.
    """
    if not values.size:
        return values.astype(np.uint8)
    low, high = values.min(), values.max()
    if format == FLOAT:
        if not (np.isfinite(low) and np.isfinite(high)):
            raise SamplesError("holds NaN or infinite values; replace them first")
        if low < 0 or high > 1:
            raise SamplesError(f"holds floats from {float(low):.9g} to {float(high):.9g}; scale it to [0, 1] first")
        return np.rint(values.astype(np.float64) * 255.0).astype(np.uint8)
    if low < 0:
        raise SamplesError(
            f"holds signed values from {int(low)} to {int(high)}; shift and scale it to 0 and more first"
        )
    white = 2 ** (bits - 1 if format == SIGNED else bits) - 1
    if white <= 255:
        table: npt.NDArray[np.uint8] = (np.arange(white + 1) * 255.0 / white + 0.5).astype(np.uint8)
        return np.asarray(table[values], dtype=np.uint8)
    wide = values.astype(np.uint32 if white < 2**22 else np.uint64)
    scaled: npt.NDArray[np.uint8] = np.asarray((wide * 510 + white) // (2 * white), dtype=np.uint8)
    return scaled


def tag(tags: Any, number: int, default: int) -> int:
    """The first value of a tag as an int."""
    value = tags.get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)


def grey_of_tiff(image: Image.Image) -> tuple[int, int, bool] | None:
    """(bits, format, still to be inverted) of a grey TIFF that Pillow has loaded with more than 8 bits or a sign; None
    for any other image.

    Pillow inverts WhiteIsZero where it unpacks to 8 bits or fewer, and nowhere else.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None or tag(tags, PHOTOMETRIC, 1) not in (0, 1):
        return None
    bits, format = tag(tags, BITS, 1), tag(tags, FORMAT, UNSIGNED)
    if image.mode == "L" and format == SIGNED:
        return bits, format, False  # of these Pillow reads BlackIsZero only
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return bits, format, tag(tags, PHOTOMETRIC, 1) == WHITE_IS_ZERO
    return None


def is_planar_wide(tags: Any) -> bool:
    """Whether a TIFF holds each channel in a plane of its own, with more than 8 bits: Pillow would read its bytes."""
    return tag(tags, PLANAR, 1) == 2 and tag(tags, SAMPLES, 1) > 1 and tag(tags, BITS, 1) > 8


def read_tiff(data: bytes, size_allowed: Any) -> tuple[Image.Image, int]:
    """The first picture of a TIFF that Pillow has no mode for, and its orientation.

    size_allowed: called with (width, height) before anything is decoded; raises where that is too much.

    Raises:
        SamplesError: stored in a way that is not read here; the message says which.
        Anything else: cut off or damaged.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in (data[2], data[3]) else 8])
    handle = io.BytesIO(data)
    handle.seek(tags.next)
    tags.load(handle)
    width, height = tag(tags, WIDTH, 0), tag(tags, HEIGHT, 0)
    size_allowed((width, height))
    depths = tags.get(BITS, (1,))
    samples, format = tag(tags, SAMPLES, 1), tag(tags, FORMAT, UNSIGNED)
    bits, photometric = int(depths[0]), tag(tags, PHOTOMETRIC, 1)
    colours = 3 if photometric == 2 else 1
    what = f"holds {'+'.join(map(str, depths))} bits a sample ({_FORMATS.get(format, f'format {format}')})"
    allowed = (16, 32, 64) if format == FLOAT else range(1, 33)
    if photometric not in (0, 1, 2) or len(set(depths)) != 1 or bits not in allowed or format not in _FORMATS:
        raise SamplesError(f"{what} of photometric interpretation {photometric}, which is not read here")
    compression, planar = tag(tags, COMPRESSION, 1), tag(tags, PLANAR, 1)
    if compression not in (1, *_DEFLATED) or tag(tags, PREDICTOR, 1) != 1 or tag(tags, FILL_ORDER, 1) != 1:
        raise SamplesError(f"{what} in a compression ({compression}) that is not read at this depth")
    if OFFSETS not in tags or not colours <= samples <= 8:
        raise SamplesError(f"{what} in tiles or in {samples} samples a pixel, which is not read at this depth")
    order = "<" if data[:2] == b"II" else ">"
    planes, inside = (samples, 1) if planar == 2 else (1, samples)
    strips = _strips(data, tags, height, planes, -(-width * inside * bits // 8), compression)
    stored = np.concatenate([_unpacked(rows, width * inside, bits, format, order) for rows in strips])
    stored = stored.reshape(planes, height, width, inside)
    pixels = stored[:, :, :, 0].transpose(1, 2, 0) if planar == 2 else stored[0]
    if photometric == WHITE_IS_ZERO:
        pixels = np.concatenate([255 - pixels[:, :, :1], pixels[:, :, 1:]], axis=2)
    extra = int((tags.get(EXTRA) or (0,))[0]) if samples > colours else 0
    shown = pixels[:, :, :colours] if colours == 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    if extra in (1, 2):
        shown = np.concatenate([shown, pixels[:, :, colours : colours + 1]], axis=2)
    image = Image.frombytes(
        {0: "RGB", 1: "RGBa", 2: "RGBA"}.get(extra, "RGB"), (width, height), np.ascontiguousarray(shown).tobytes()
    )
    return image, tag(tags, ORIENTATION, 1)


_FORMATS: Final = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "float"}


def _strips(
    data: bytes, tags: Any, height: int, planes: int, row: int, compression: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """The rows of each strip, uint8 [rows, bytes]."""
    offsets, counts = tags[OFFSETS], tags[COUNTS]
    each = min(tag(tags, ROWS_PER_STRIP, height), height)
    at = 0
    for _ in range(planes):
        for top in range(0, height, each):
            wanted = min(each, height - top) * row
            raw = data[offsets[at] : offsets[at] + counts[at]]
            if compression in _DEFLATED:
                raw = zlib.decompressobj().decompress(raw, wanted)
            if len(raw) < wanted:
                raise EOFError(f"strip {at} holds {len(raw)} of {wanted} bytes")
            yield np.frombuffer(raw[:wanted], np.uint8).reshape(-1, row)
            at += 1


def _unpacked(rows: npt.NDArray[np.uint8], count: int, bits: int, format: int, order: str) -> npt.NDArray[np.uint8]:
    """Rows of packed samples as uint8 [rows, count]."""
    if format == FLOAT or bits in (8, 16, 32):
        kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[format]
        return to_8_bits(np.ascontiguousarray(rows).view(f"{order}{kind}{bits // 8}"), bits, format)
    parts = []
    for top in range(0, len(rows), _ROWS):
        some = rows[top : top + _ROWS]
        if bits == 24:  # whole bytes, in the file's order
            some = some.reshape(len(some), count, 3)[:, :, :: -1 if order == "<" else 1].reshape(len(some), -1)
        flat = np.unpackbits(some, axis=1)[:, : count * bits].reshape(len(some), count, bits)
        values = np.zeros((len(some), count), np.int64)
        for place in range(bits):  # the highest bit first, whatever the order of bytes
            values = values * 2 + flat[:, :, place]
        if format == SIGNED:
            values -= (values >> (bits - 1)) << bits
        parts.append(to_8_bits(values, bits, format))
    return np.concatenate(parts)
