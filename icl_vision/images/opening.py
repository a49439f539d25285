"""Anything a user calls an image becomes an upright RGB image: the one way from untrusted bytes to pixels.

Knows: sources (path, bytes, file object, PIL image, numpy array), formats, caps, pixel modes, orientation.
Refuses to know: what an image is used for; sizes and preprocessing belong to the tokenizers. It fetches no URLs.

What is done to every image: the first frame is taken, EXIF (or XMP) orientation applied, transparency laid over
white, values of any depth scaled (never clipped) to 8 bits (the rule stands in ``samples.py``), any other mode
converted to RGB; colour profiles are not applied. The result carries no metadata, so loading it again changes nothing.

Only ``ImageError`` and its subclasses leave this module, whatever the bytes hold.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PilImage

from icl_vision.errors import (
    ImageArrayError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    ImageTruncatedError,
)
from icl_vision.images.samples import FLOAT, UNSIGNED, SamplesError, grey_of_tiff, is_planar_wide, read_tiff, to_8_bits
from icl_vision.images.sources import holds_bytes, read_source

logger = logging.getLogger(__name__)

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PilImage.Image | npt.NDArray[Any]
"""What ``load_image`` takes."""

MAX_PIXELS: Final = 50_000_000
"""The largest image that is opened, unless ``max_pixels`` says otherwise."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""The largest file that is read, unless ``max_bytes`` says otherwise."""

# Format -> (signature, Pillow's reader). The readers are called directly, not through PIL.Image.open: that applies
# PIL.Image.MAX_IMAGE_PIXELS, a process-wide setting of the user's which we neither trust nor change. MPO (phone
# photographs) begins with a complete JPEG and is read as one.
_READERS: Final[dict[str, tuple[re.Pattern[bytes], Any]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "TIFF": (re.compile(rb"II[*+]\x00|MM\x00[*+]"), TiffImagePlugin.TiffImageFile),
    "PPM": (re.compile(rb"P[1-6f]\s"), PpmImagePlugin.PpmImageFile),
}
FORMATS: Final = tuple(_READERS)
"""The formats that are read; everything else is refused by its signature, whatever its suffix."""

_FORMAT_LIST: Final = ", ".join(FORMATS)
_KNOWN_OTHERS: Final[tuple[tuple[str, str], ...]] = (
    (r"%PDF", "a PDF document"),
    (r"8BPS", "a Photoshop file"),
    (r"....ftyp(hei|hev|mif1|msf1)", "a HEIC image"),
    (r"....ftypavi[fs]", "an AVIF image"),
    (r"....ftyp", "a video (MP4 or MOV)"),
    (r"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
    (r"\x00\x00\x00\x0cJXL |\xff\x0a", "a JPEG XL image"),
    (r"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (r"\x00\x00[\x01\x02]\x00(?!\x00\x00)", "an icon or cursor"),
    (r"PK\x03\x04", "a ZIP archive or office document"),
    (r"\x1f\x8b", "gzip-compressed data"),
    (r"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (r"\x93NUMPY", "a numpy file (load it with numpy.load and pass the array)"),
    (r"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing"),
    (r"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)", "an HTML page"),
    (r"(?s:version https://git-lfs)", "a Git LFS pointer (run `git lfs pull`)"),
    # No signature, but a header of which few values can be: colour map, kind, bits a pixel, flags.
    (
        r".(\x00[\x02\x03\x0a\x0b]\x00{5}|\x01[\x01\x09].{4}[\x0f\x10\x18\x20]).{8}[\x01\x08\x0f\x10\x18\x20][\x00-\x3f]",
        "a TGA image",
    ),
)
_GUESSES: Final = tuple((re.compile(p.encode("latin-1"), re.DOTALL | re.IGNORECASE), name) for p, name in _KNOWN_OTHERS)
_FRAMES: Final = "clips are taken by a tokenizer of the modality 'clip' (--tokenizer spae-clips-64)"
_ROUNDING: Final = 1e-3
"""How far outside [0, 1] a float array may be for the message to take it for an accident of arithmetic."""
_ORIENTATION_TAG: Final = 0x0112
_ORIENTATIONS: Final = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> PilImage.Image:
    """One image as an upright 8-bit RGB Pillow image, new and fully loaded.

    Args:
        source: a path; the bytes of an image file; a binary file object (read from its start where it can seek, its
            position restored, never closed); a PIL image (its current frame; not changed); or a numpy array [H, W],
            [H, W, 1], [H, W, 3] or [H, W, 4], uint8 or float in [0, 1].
        max_pixels: refuse images with more pixels; checked before anything is decoded.
        max_bytes: refuse files and buffers with more bytes; checked before a file is read.

    Raises:
        ImageNotFoundError: no such file, a folder, not readable, or a URL.
        ImageEmptyError: zero bytes, or an image without pixels.
        ImageTruncatedError: cut off or damaged.
        ImageFormatError: not an image, or of a format outside JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM.
        ImageTooLargeError: more pixels or bytes than allowed.
        ImageArrayError: an array of another dtype, shape or range, or with NaN.

    What black and white are: integers of b bits run from 0 to 2**b - 1 (TIFF's BitsPerSample, 1 to 32; PNG; PGM's
    largest value), signed ones from 0 to 2**(b - 1) - 1, floats from 0 to 1, and a TIFF that says WhiteIsZero is
    inverted. Pillow's mode I, and the signed 32-bit TIFF that it writes of it, are 16 bits that were widened: 0 to
    65535. What lies beyond is refused, never clipped, since nothing says what it would look like.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, PilImage.Image):
        return _from_pil(source, max_pixels)
    if holds_bytes(source):
        return _from_bytes(*read_source(source, max_bytes), max_pixels)
    hint = "; pass .cpu().numpy() in [H, W, C] order" if hasattr(source, "__array__") else ""
    hint = f"; a list of frames is a clip: {_FRAMES}" if isinstance(source, list | tuple) else hint
    raise ImageFormatError(
        "an image must be a path, bytes, a binary file object, a PIL image or a numpy array; "
        f"got {type(source).__name__}{hint}"
    )


def format_of(data: bytes) -> str | None:
    """Which of ``FORMATS`` bytes begin as; whether the rest holds together only ``load_image`` finds out."""
    return next((name for name, (signature, _) in _READERS.items() if signature.match(data)), None)


def guess_of(data: bytes) -> str | None:
    """What bytes of none of ``FORMATS`` seem to be, for a message: "a PDF document"."""
    head = data[:4096]
    return next((what for pattern, what in _GUESSES if pattern.match(head)), None)


def iter_images(
    sources: Iterable[ImageSource],
    *,
    name: str = "images",
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Iterator[PilImage.Image]:
    """Load images one by one, as they are asked for.

    Raises:
        ImageError: of the kind ``load_image`` raises; the message begins with the index, ``images[3]: ...``.
    """
    for index, source in enumerate(sources):
        try:
            image = load_image(source, max_pixels=max_pixels, max_bytes=max_bytes)
        except ImageError as error:
            raise type(error)(f"{name}[{index}]: {error}") from error
        yield image


def load_images(
    sources: Iterable[ImageSource], *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> list[PilImage.Image]:
    """``load_image`` for each source; an error names the index. For many large images use ``iter_images``."""
    return list(iter_images(sources, max_pixels=max_pixels, max_bytes=max_bytes))


def is_image_source(value: object) -> bool:
    """Whether ``value`` stands for one image rather than for several.

    A 4-D array [N, H, W, C] and a 1-D array of paths are several; every other array is one image (perhaps a bad one).
    """
    if isinstance(value, np.ndarray):
        return value.ndim != 4 and not (value.ndim == 1 and value.dtype.kind in "OU")
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview | PilImage.Image):
        return True
    return callable(getattr(value, "read", None))


# Sources


def _from_bytes(data: bytes, label: str, max_pixels: int) -> PilImage.Image:
    kind = format_of(data)
    if kind is None:
        head = data[:4096]
        guess = guess_of(head)
        if guess is not None:
            advice = f"; {_FRAMES}" if "video" in guess else ""
            raise ImageFormatError(f"{label} is {guess}; convert it to one of {_FORMAT_LIST}{advice}")
        raise ImageFormatError(f"{label} is not an image: its first bytes are {data[:8]!r}; allowed are {_FORMAT_LIST}")
    with guarded(label, f"begins as a {kind} image but is cut off or damaged", ImageTruncatedError):
        if kind == "TIFF" and _without_mode(data):
            picture, orientation = read_tiff(data, lambda size: check_pixels(label, size, max_pixels))
            return _upright(to_rgb(picture, label), orientation)
        declared = declared_size(kind, data)
        if declared is not None:
            check_pixels(label, declared, max_pixels)
        with contextlib.closing(opened(kind, data)) as image:
            check_pixels(label, image.size, max_pixels)
            if kind == "TIFF":  # a tile may be larger than the image, and is decoded whole
                tile = (image.tag_v2.get(322, 1), image.tag_v2.get(323, 1))
                check_pixels(label, tile, max(max_pixels, 1 << 24))
            bits = _bits_of_png(image)
            image.load()
            return to_rgb(image, label, bits)


def opened(kind: str, data: bytes) -> Any:
    return _READERS[kind][1](io.BytesIO(data), "")


def _without_mode(data: bytes) -> bool:
    """Whether a TIFF is of a depth that Pillow has no mode for, or takes for bytes (16 bits in planes of their own)."""
    try:
        with contextlib.closing(opened("TIFF", data)) as image:
            return is_planar_wide(image.tag_v2)
    except SyntaxError as error:
        return str(error) == "unknown pixel mode"


def _from_pil(source: PilImage.Image, max_pixels: int) -> PilImage.Image:
    label = f"the PIL image ({source.mode}, {source.size[0]}x{source.size[1]})"
    check_pixels(label, source.size, max_pixels)
    with guarded(label, "cannot be read (closed, cut off or damaged)", ImageTruncatedError):
        bits = _bits_of_png(source)
        source.load()
    with guarded(label, "cannot be converted to RGB", ImageFormatError):
        return to_rgb(source, label, bits)


def _from_array(source: npt.NDArray[Any], max_pixels: int) -> PilImage.Image:
    label = f"the array (dtype {source.dtype}, shape {source.shape})"
    if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (1, 3, 4)):
        hint = ""
        if source.ndim == 3 and source.shape[0] in (1, 3, 4):
            hint = "; this looks like channels first: use .transpose(1, 2, 0)"
        elif source.ndim == 4:
            hint = f"; pass a batch to a function that takes several images; if it is a clip: {_FRAMES}"
        elif source.ndim == 5:
            hint = f"; these are clips: {_FRAMES}"
        raise ImageArrayError(f"{label} must have shape [H, W] or [H, W, C] with C of 1, 3 or 4{hint}")
    if source.size == 0:
        raise ImageArrayError(f"{label} has no pixels")
    check_pixels(label, (source.shape[1], source.shape[0]), max_pixels)
    if isinstance(source, np.ma.MaskedArray) and np.ma.is_masked(source):
        raise ImageArrayError(f"{label} has masked pixels; fill them first: array.filled(...)")
    pixels = np.asarray(source)
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageArrayError(f"{label} holds NaN or infinite values; replace them first")
        if low < 0.0 or high > 1.0:
            hint = "; divide by 255" if low >= 0.0 and 1.0 < high <= 255.0 else ""
            if -_ROUNDING <= low and high <= 1.0 + _ROUNDING:
                hint = " (this looks like rounding: pass array.clip(0, 1))"
            raise ImageArrayError(f"{label} holds values from {low:.9g} to {high:.9g}; floats must lie in [0, 1]{hint}")
        # At least float32: float16 has too few digits to round n/255 back to n.
        scaled = np.multiply(pixels, 255.0, dtype=np.float32 if pixels.dtype.itemsize <= 4 else np.float64)
        pixels = np.rint(scaled).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ImageArrayError(f"{label} must be uint8 (0 to 255) or float (0 to 1){_as_uint8(pixels)}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return to_rgb(PilImage.fromarray(np.ascontiguousarray(pixels)), label)


def _as_uint8(pixels: npt.NDArray[Any]) -> str:
    """How an array of another dtype becomes one that is taken; by its values, so that nothing wraps or goes black."""
    if pixels.dtype == np.bool_:
        return "; scale it: array.astype(np.uint8) * 255"
    if pixels.dtype.kind not in "iu":
        return "; use .astype(np.uint8)"
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0:
        return f"; it holds values from {low} to {high}: shift and scale them to 0 to 255 first"
    if pixels.dtype == np.uint16:
        small = "" if high > 255 else ", or .astype(np.uint8) if 255 is white"
        return f"; scale it: (array // 257).astype(np.uint8){small}"
    if high > 255:
        return f"; it holds values from {low} to {high}: scale them to 0 to 255 first, then use .astype(np.uint8)"
    return "; use .astype(np.uint8)"


# Checks


@contextlib.contextmanager
def guarded(label: str, problem: str, kind: type[ImageError]) -> Iterator[None]:
    """Turn whatever Pillow raises on hostile bytes (there is no list of it) into one clear error."""
    try:
        yield
    except ImageError:
        raise
    except SamplesError as error:
        raise ImageFormatError(f"{label} {error}") from error
    except (PilImage.DecompressionBombError, PilImage.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"{label} exceeds Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS: {error}") from error
    except MemoryError as error:
        raise ImageTooLargeError(f"{label} does not fit into memory; scale it down first") from error
    except Exception as error:
        raise kind(f"{label} {problem} ({type(error).__name__}: {error})") from error


def check_pixels(label: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageEmptyError(f"{label} has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{label} has {width}x{height} = {width * height:,} pixels, the cap is {max_pixels:,}; "
            "scale it down or pass a larger max_pixels"
        )


def declared_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """Width and height as the header says, for the formats whose Pillow reader allocates pixels on opening."""
    if kind == "WEBP":
        chunk = data[12:16]
        if chunk == b"VP8X" and len(data) >= 30:
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        if chunk == b"VP8L" and len(data) >= 25:
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if chunk == b"VP8 " and len(data) >= 30:
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    if kind == "GIF":
        # The first frame may reach beyond the screen, and then it counts.
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        while data[at : at + 1] == b"!":
            at += 2
            while at < len(data) and data[at]:
                at += data[at] + 1
            at += 1
        if data[at : at + 1] == b",":
            left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
            return max(width, left + wide), max(height, top + high)
        return width, height
    return None


# Pixels


def to_rgb(image: PilImage.Image, label: str, bits: int = 8) -> PilImage.Image:
    """A loaded image in any mode as a new upright RGB image without metadata. bits: see ``_bits_of_png``."""
    orientation = _orientation(image)  # of TIFF files Pillow has applied and dropped it while loading
    mode = image.mode
    wide = grey_of_tiff(image)
    if wide is not None or mode in ("I", "F") or mode.startswith("I;16"):
        rgb = _from_wide(image, label, wide)
    elif image.has_transparency_data:
        if mode in ("L", "RGB", "1", "P"):
            image = _with_8_bit_key(image, bits)
        alpha = image.convert("LA" if mode == "La" else "RGBA").convert("RGBA")
        rgb = PilImage.new("RGB", image.size, "white")
        rgb.paste(alpha, mask=alpha)
    elif mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        rgb = image.convert("RGB")
    else:
        raise ImageFormatError(f"{label} has the pixel mode {mode!r}, which is not read here; convert it to RGB first")
    if rgb is image:
        rgb = image.copy()
    rgb.info = {}  # an orientation left in it would be applied again
    return _upright(rgb, orientation)


def _upright(image: PilImage.Image, orientation: int) -> PilImage.Image:
    method = _ORIENTATIONS.get(orientation)
    return image if method is None else image.transpose(method)


def _orientation(image: PilImage.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception as error:  # damaged EXIF is common and no reason to refuse a good picture
        logger.debug("EXIF of %r cannot be read, taken as upright: %s", image, error)
        return 1


def _from_wide(image: PilImage.Image, label: str, tiff: tuple[int, int, bool] | None) -> PilImage.Image:
    """16-bit, 32-bit integer, signed and float greyscale, scaled to 8 bits. tiff: what its file says of its samples."""
    bits, format, inverted = tiff or ((32, FLOAT, False) if image.mode == "F" else (16, UNSIGNED, False))
    values = np.asarray(image)
    if image.mode == "L":  # Pillow took signed bytes for unsigned ones
        values = values.view(np.int8)
    elif image.mode == "I" and format == UNSIGNED and bits == 32:
        values = values.view(np.uint32)
    elif image.mode == "I" and not (tiff and bits < 32):
        # Pillow's mode for 16 bits that were widened, and what it writes of that to a file: there white is 65535.
        bits, format = 16, UNSIGNED
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ImageFormatError(
                f"{label} holds 32-bit values from {low} to {high}; scale it to 16 bits (0 to 65535) first"
            )
    try:
        grey = to_8_bits(values, bits, format)
    except SamplesError as error:
        raise ImageFormatError(f"{label} {error}") from error
    if inverted:
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode != "F":
        grey[values == key] = 255
    return PilImage.fromarray(grey).convert("RGB")


def _bits_of_png(image: PilImage.Image) -> int:
    """2 or 4 for a grey PNG of so many bits that is not loaded yet, else 8: loading scales its pixels, not its key."""
    tile = getattr(image, "tile", None)
    return {"L;2": 2, "L;4": 4}.get(str(tile[0][3]), 8) if image.format == "PNG" and tile else 8


def _with_8_bit_key(image: PilImage.Image, bits: int) -> PilImage.Image:
    """The image, or a copy in which a PNG's transparent colour has 8 bits as its pixels have: that of a 16-bit one cut,
    that of a grey one of few bits scaled."""
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode == "L" and bits < 8:
        most = 2**bits - 1
        key_of_8: Any = (key & most) * 255 // most
    elif isinstance(key, tuple) and not all(isinstance(part, int) and part <= 255 for part in key):
        key_of_8 = tuple(part >> 8 for part in key)
    else:
        return image
    copy = image.copy()
    copy.info["transparency"] = key_of_8
    return copy
