"""A small network that reads a hand-written digit: the judge of digits that were reconstructed or drawn.

Knows: its artefact folder (``reader.onnx``, ``card.json``). Refuses to know: tokenizers, and how it was trained
(``exporters/digit_reader.py``; its card has data, recipe and accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from icl_vision.errors import ArtefactDamagedError
from icl_vision.tokenizers.artefact import read_file, verify_files
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import GraphSession
from icl_vision.vocabulary import read_card

if TYPE_CHECKING:
    from PIL import Image

READER_FILE = "reader.onnx"
KIND = "reader"
LABELS = tuple("0123456789")
_PACKAGED = Path(__file__).parents[2] / "artefacts" / "readers" / "digits"


class Reader(Protocol):
    """Names what is on a picture: a digit, a class."""

    name: str

    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """One label for each picture."""


class DigitReader:
    """Reads digits on 32 x 32 pixels, white on black; other sizes are framed as 28 x 28 digits are.

    Args:
        folder: its artefact; None for the packaged one.
        threads: CPU threads; None leaves it to onnxruntime.

    Raises:
        ArtefactNotFoundError, ArtefactDamagedError: no such folder, or a file is not the one its card describes.
    """

    name = "digit reader"

    def __init__(self, folder: str | Path | None = None, *, threads: int | None = None) -> None:
        self.folder = _PACKAGED if folder is None else Path(folder)
        self.card = read_card(self.folder)
        if self.card.get("kind") != KIND:
            raise ArtefactDamagedError(f"{str(self.folder)!r} holds no digit reader; fetch or build the folder again")
        verify_files(self.folder, self.card, required=READER_FILE)
        self._preprocessing = Preprocessing.from_card(self.card.get("preprocessing"))
        data = read_file(self.folder, self.card, READER_FILE)
        self._session = GraphSession(data, self.name, providers="cpu", threads=threads)

    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """The likeliest digit on each image, "0" to "9"."""
        return [LABELS[best] for best in self.probabilities(images).argmax(1)] if images else []

    def probabilities(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """float32 [N, 10], rows add up to 1."""
        parts: list[Any] = []
        for start in range(0, len(images), 256):
            pixels = self._preprocessing.batch(list(images[start : start + 256]))
            parts += self._session.run({"pixels": pixels}, ["probabilities"])
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, len(LABELS)), np.float32)
