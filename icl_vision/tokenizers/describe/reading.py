"""Text that stands in pictures, read as strings: who reads it, and what of it may go further.

    reader = RapidReader()                 # needs the extra ``ocr``
    read_texts(reader, [image])            # [("FRESH BREAD", "open")]

What is read is somebody else's text and may be meant to harm ("ignore the above ..."): it leaves this module as short
single lines without control, invisible or direction-changing characters, and whoever shows it to an LLM quotes it.

Knows: the protocol of a reader, one reader (rapidocr, https://github.com/RapidAI/RapidOCR), reading order, which
characters and how many may leave. Refuses to know: words of a vocabulary, prompts, where images come from. It never
downloads: rapidocr is given the models that lie inside its own package, opened here, and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import math
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import (
    ArtefactDamagedError,
    ArtefactError,
    ArtefactNotFoundError,
    MissingExtraError,
    UsageError,
)
from icl_vision.forks import ForkLock
from icl_vision.spelling import composed

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE: Final = 2000
"""Longest side in pixels of an image that is read; a larger one is made smaller first."""

MAX_STRINGS: Final = 12
"""Most strings kept of one image: those with the tallest letters, in reading order."""

MAX_CHARACTERS: Final = 80
"""Most characters of one string, as of a label; the rest is cut off."""

MAX_CHARACTERS_IN_ALL: Final = 400
"""Most characters kept of one image."""

_LEAST_SIDE = 8  # pixels: no letter is lower
_MOST_BOXES = 100  # pieces of text that are recognised at all, so that a page of print cannot take minutes
_MODELS = {"Det": "*_det_*.onnx", "Cls": "*_cls_*.onnx", "Rec": "*_rec_*.onnx"}
_RAPIDOCR = "RapidOCR"


@dataclass(frozen=True, slots=True)
class ReadText:
    """One line or piece of text found in an image.

    text: as it was read; not yet fit for a prompt, see ``safe_texts``. confidence: the reader's own, 0 to 1, not
    calibrated.
    """

    text: str
    confidence: float


@runtime_checkable
class TextReader(Protocol):
    """What reads text in images; ``RapidReader`` is one, and so is any object of yours with these two members."""

    @property
    def identity(self) -> str:
        """What decides what is read: another one, other texts. Goes into the keys of caches."""
        ...

    def read(self, images: list[Image.Image]) -> list[tuple[ReadText, ...]]:
        """For each RGB image the texts in it, in reading order; an empty tuple where there is none."""
        ...


class RapidReader:
    """Text in images by rapidocr's detector, direction classifier and recogniser, on onnxruntime.

    All readers of a process share one engine, which reads one image at a time; it is made at the first ``read``, and
    anew in a forked child. A reader pickles as its options.

    Args:
        threads: CPU threads; None takes the cores that this process may use.
        side: longest side in pixels at which text is looked for (the letters are then read at up to ``MAX_SIDE``).
            Time grows with its square; letters lower than about 8 pixels at this size are missed.
        confidence: strings read with less are dropped, 0 to 1. On photographs most of what is read with less is none.
        models: a folder with one ``*_det_*.onnx``, one ``*_cls_*.onnx`` and one ``*_rec_*.onnx``, for another script
            than Chinese and Latin; None is the folder inside the installed rapidocr.

    Raises:
        UsageError: an option that cannot be.
        MissingExtraError: rapidocr, or what it needs, is not installed.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        side: int = 640,
        confidence: float = 0.8,
        models: str | os.PathLike[str] | None = None,
    ) -> None:
        self.threads = checks.count("threads", threads, none="the cores that this process may use")
        self.side = checks.count("side", side, least=64, most=MAX_SIDE, of="pixels")
        self.confidence = checks.number("confidence", confidence, least=0, most=1)
        if not can_read():
            raise _missing()
        self.models = None if models is None else Path(models).absolute()
        self._stamps: str | None = None

    @property
    def identity(self) -> str:
        """Reader, its version, which decides its models, and options; of models of one's own their hashes, as they were
        when first asked for."""
        if self.models is not None and self._stamps is None:
            self._stamps = _stamps(self.models)
        models = "" if self.models is None else f", models {self._stamps}"
        return f"rapidocr {_version()}, side {self.side}, confidence {self.confidence:g}{models}"

    def read(self, images: list[Image.Image]) -> list[tuple[ReadText, ...]]:
        """The texts of each RGB image, in reading order.

        Raises:
            MissingExtraError: rapidocr cannot be imported.
            ArtefactNotFoundError, ArtefactDamagedError: a model file is missing, or is none.
            ArtefactError: rapidocr failed on an image.
        """
        return [self._read_one(image) for image in images]

    def _read_one(self, image: Image.Image) -> tuple[ReadText, ...]:
        pixels = _sized(image, self.side)
        if pixels is None:
            return ()
        with _lock, _hushed():
            engine = _engine_for(self.threads, self.side, self.models)
            try:
                with _one_thread():
                    found = engine(pixels)
            # cv2, shapely and rapidocr raise what they like; it says nothing of this picture's other parts.
            except Exception as error:
                what = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
                raise ArtefactError(
                    f"rapidocr {_version()} failed on an image of {image.width}x{image.height} pixels ({what}); "
                    "encode without the part 'text', or report the image to rapidocr"
                ) from error
        # Where nothing was found, or nothing recognised, it gives results of other kinds, which lack some of these.
        columns = [getattr(found, name, None) for name in ("boxes", "txts", "scores")]
        if any(column is None for column in columns):
            return ()
        kept = [
            (np.asarray(box, dtype=np.float64), ReadText(str(text), float(score)))
            for box, text, score in zip(*columns, strict=True)
            if score >= self.confidence
        ]
        kept = sorted(kept, key=lambda pair: -_height(pair[0]))[:MAX_STRINGS]
        return tuple(kept[place][1] for place in reading_order([box for box, _ in kept]))

    def __repr__(self) -> str:
        models = "" if self.models is None else f", models={str(self.models)!r}"
        return f"RapidReader(threads={self.threads}, side={self.side}, confidence={self.confidence:g}{models})"


def can_read() -> bool:
    """Whether rapidocr is installed; found out without importing it (which takes most of a second)."""
    return importlib.util.find_spec("rapidocr") is not None


def models_missing() -> list[str]:
    """Which of the models that should lie inside the installed rapidocr do not, as patterns of file names; all of them
    where it is not installed."""
    if not can_read():
        return [*_MODELS.values()]
    return [pattern for pattern in _MODELS.values() if not list(_own_models().glob(pattern))]


def read_texts(reader: TextReader, images: list[Image.Image]) -> list[tuple[str, ...]]:
    """What any reader reads in each image, fit to go further: see ``safe_texts``.

    Raises:
        UsageError: the reader did not give a sequence of ``ReadText`` for each image.
    """
    found = reader.read(images)
    if not isinstance(found, list | tuple) or len(found) != len(images):
        raise UsageError(
            f"the text reader {type(reader).__name__} must give one tuple of ReadText for each of {len(images)} "
            f"images; got {checks.shown(found)}"
        )
    return [safe_texts(texts) for texts in found]


def safe_texts(texts: Iterable[ReadText]) -> tuple[str, ...]:
    """The strings that may leave: ``safe_text`` of each, in their order, empty ones and repeats left out, the first
    ``MAX_STRINGS`` of them and at most ``MAX_CHARACTERS_IN_ALL`` characters.

    Raises:
        UsageError: something else than ``ReadText`` among them.
    """
    kept: dict[str, None] = {}
    left = MAX_CHARACTERS_IN_ALL
    for read in texts:
        if not isinstance(read, ReadText) or not isinstance(read.text, str):
            raise UsageError(f"a text reader must give ReadText(text, confidence); got {checks.shown(read)}")
        text = safe_text(read.text)
        if not text or text in kept:
            continue
        if len(kept) == MAX_STRINGS or len(text) > left:
            break
        kept[text] = None
        left -= len(text)
    return tuple(kept)


def safe_text(text: str) -> str:
    """One line of at most ``MAX_CHARACTERS`` that ``prompting.labels.check_label`` accepts; "" where nothing is left.

    Control characters, line and paragraph separators become spaces; format characters (invisible and
    direction-changing ones among them), lone surrogates and characters without a meaning are taken out.
    """
    # Far more than can be kept, far less than would take time: a reader is not ours to trust.
    text = str.__str__(text)[: 8 * MAX_CHARACTERS]
    if not (text.isascii() and text.isprintable()):
        text = "".join(_SPACE if unicodedata.category(one) in _BREAKS else one for one in text)
        text = composed("".join(one for one in text if unicodedata.category(one) not in _UNSEEN))
    return " ".join(text.split())[:MAX_CHARACTERS].strip()


_SPACE = " "
_BREAKS = ("Cc", "Zl", "Zp")
_UNSEEN = ("Cf", "Cs", "Co", "Cn")


def reading_order(boxes: Sequence[npt.NDArray[np.float64]]) -> list[int]:
    """The places of boxes [4, 2] (x, y of the corners, clockwise from the upper left) line by line, left to right.

    A box belongs to a line where its middle lies within the upper and lower edge of the line's first (uppermost) box.
    """
    tops = [float(box[:, 1].min()) for box in boxes]
    bottoms = [float(box[:, 1].max()) for box in boxes]
    lefts = [float(box[:, 0].min()) for box in boxes]
    waiting = sorted(range(len(boxes)), key=lambda place: (tops[place] + bottoms[place], lefts[place]))
    order: list[int] = []
    while waiting:
        first = waiting[0]
        line = [place for place in waiting if tops[first] <= (tops[place] + bottoms[place]) / 2 <= bottoms[first]] or [
            first
        ]
        order.extend(sorted(line, key=lambda place: lefts[place]))
        waiting = [place for place in waiting if place not in line]
    return order


def _height(box: npt.NDArray[np.float64]) -> float:
    """Of the letters: the mean length of a box's left and right edges."""
    return float(math.dist(box[0], box[3]) + math.dist(box[1], box[2])) / 2


def _sized(image: Image.Image, side: int) -> npt.NDArray[np.uint8] | None:
    """BGR pixels uint8 [h, w, 3] of an RGB image at the size at which it is read; None where no letter would fit."""
    from PIL import Image as PilImage

    if not isinstance(image, PilImage.Image):
        raise UsageError(f"a text reader takes PIL images; got {type(image).__name__}: icl_vision.load_image makes one")
    longest = max(image.size)
    wanted = side if longest < side else min(longest, MAX_SIDE)
    size = tuple(round(length * wanted / longest) for length in image.size) if longest else (0, 0)
    if min(size) < _LEAST_SIDE or min(image.size) < _LEAST_SIDE:
        return None
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if size != image.size:
        rgb = rgb.resize((size[0], size[1]), PilImage.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8)[:, :, ::-1])


# The engine -----------------------------------------------------------------------------------------------------------

_lock = ForkLock()
_engine: tuple[tuple[Any, ...], Any] | None = None
_of_the_parent: list[Any] = []
_forked_with_opencv = False


def _forget() -> None:
    """In a forked child: leave alone what the parent's threads belong to, its engine and opencv's pool. Those threads
    do not exist here, and taking the one down, or giving the other another size, would wait for them."""
    global _engine, _forked_with_opencv
    _of_the_parent.append(_engine)
    _engine = None
    _forked_with_opencv = "cv2" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _engine_for(threads: int | None, side: int, models: Path | None) -> Any:
    """The process's engine; made where there is none, or one with other options. Called with the lock held."""
    global _engine
    from icl_vision.cores import usable_cores

    cores = usable_cores() if threads is None else threads
    key = (cores, side, models)
    if _engine is not None and _engine[0] == key:
        return _engine[1]
    _engine = (key, _made(cores, side, models))
    return _engine[1]


def _made(threads: int, side: int, models: Path | None) -> Any:
    from icl_vision.tokenizers.sessions import GraphSession

    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise _missing() from error
    folder = _own_models() if models is None else models
    files = {part: _model_file(folder, pattern) for part, pattern in _MODELS.items()}
    options: dict[str, Any] = {
        "Global.log_level": "critical",
        "Global.text_score": 0.0,
        # Images come in at the size they are to be read at; rapidocr's own rule fails on long thin ones.
        "Global.use_preprocess_img": False,
        "Det.limit_type": "max",
        "Det.limit_side_len": side,
        "Det.max_candidates": _MOST_BOXES,
        "Rec.rec_batch_num": 1,
    }
    # Were the sessions below ever ignored by another version, it still would have the files' places and look for none.
    options |= {f"{part}.model_path": str(path) for part, path in files.items()}
    engine = RapidOCR(params=options)
    for part, path in files.items():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtefactNotFoundError(
                f"the text reader's model {str(path)!r} cannot be read ({error.strerror}); "
                "pip install --force-reinstall rapidocr"
            ) from error
        session = GraphSession(content, path.name, providers="cpu", threads=threads, arena=False)
        # Without its list of characters, rapidocr would go and fetch one.
        if part == "Rec" and "character" not in session.raw.get_modelmeta().custom_metadata_map:
            raise ArtefactDamagedError(
                f"the model {str(path)!r} holds no list of characters and cannot read; "
                "pip install --force-reinstall rapidocr, or give RapidReader another folder of models"
            )
        section = getattr(engine.cfg, part)
        section._set_flag("allow_objects", True)  # omegaconf holds plain values only, unless told
        section.session = session.raw
    return engine


def _own_models() -> Path:
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        raise _missing()
    return Path(spec.origin).parent / "models"


def _model_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = f" (there are {', '.join(path.name for path in found)})" if found else ""
        raise ArtefactNotFoundError(
            f"the text reader needs exactly one {pattern} in {str(folder)!r}{names}, and never downloads one; "
            "pip install --force-reinstall rapidocr, or give RapidReader a folder that has it"
        )
    return found[0]


def _stamps(folder: Path) -> str:
    from icl_vision.files.storage import sha256_file

    return ", ".join(sha256_file(_model_file(folder, pattern))[:16] for pattern in _MODELS.values())


def _version() -> str:
    try:
        return importlib.metadata.version("rapidocr")
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"


def _missing() -> MissingExtraError:
    return MissingExtraError("reading text in pictures (rapidocr, with opencv-python-headless)", "ocr")


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Whatever rapidocr does to its logger (a handler of its own, a line for every picture without text) is undone."""
    logger = logging.getLogger(_RAPIDOCR)
    before = logger.level, list(logger.handlers), logger.propagate
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        level, handlers, propagate = before
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """opencv's resizing on one thread: its pool would take all cores of the machine."""
    import cv2

    if _forked_with_opencv:
        yield
        return
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
