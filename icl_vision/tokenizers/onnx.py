"""Tokenizers that are an artefact folder: a graph, a card, and a codebook shared with others.

Knows: the folder's form, hashes, which codebook belongs to it, how ids become flat word lists.
Refuses to know: torch, how the graph was made, which names exist (``zoo.py``).

An artefact folder holds ``card.json`` and the files the card lists with their sha256: ``encoder.onnx`` and, where
classes can be withheld, ``classes.txt``. The codebook lies in a folder of its own, found by name and sha256.
The card of kind "words" says how to feed the graph:

    inputs   pixels uint8 [batch, S, S, 3]; codebook float32 [T, c]; optional class_bias float32 [C]
    outputs  ids int32 [batch, k_max], best first; features float32 [batch, D]
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import ArtefactDamagedError, PyramidError, UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import ImageTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import GraphSession, checked_threads, resolve_providers
from icl_vision.vocabulary import CARD_FILE, Vocabulary, read_card

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

ENCODER_FILE = "encoder.onnx"
CLASSES_FILE = "classes.txt"
KIND = "words"
OPSETS = range(13, 24)  # main-domain opsets this code was written for
_WITHHELD = np.float32(-1e9)


class OnnxTokenizer(ImageTokenizer):
    """An artefact folder as a tokenizer: flat words, best first, any ``k`` up to the graph's own limit.

    Making one reads and checks the files; the session is made at the first use, once, whatever the number of
    threads. It pickles as its folder and options.

    Args:
        folder: the artefact folder.
        strict: refuse to run on another execution provider than the one asked for, instead of one warning.
        providers: None (CUDA where a device is usable, else the CPU), "cpu", "cuda", an onnxruntime provider name or
            a sequence of these, best first.
        threads: CPU threads of the session; None leaves it to onnxruntime.
        withhold: names of classes that must not be recognised (a control for classifiers trained on the tested
            classes); any name in ``classes.txt``, case ignored. Only where the card has classes.
        batch_size: images held in memory at once.

    Raises:
        ArtefactNotFoundError: no such folder.
        ArtefactDamagedError: a file or the codebook is missing, or is not the one the card describes.
        UsageError: an option that cannot be.
    """

    can_embed = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        strict: bool = False,
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        withhold: Sequence[str] = (),
        batch_size: int = 32,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._options: dict[str, Any] = {
            "strict": strict,
            "providers": providers if providers is None or isinstance(providers, str) else list(providers),
            "threads": threads if threads is None else checked_threads(threads),
            "withhold": _names(withhold),
            "batch_size": batch_size,
        }
        resolve_providers(providers)  # a name that cannot be is told now, not at the first image
        self.batch_size = batch_size
        card = read_card(self.folder)
        self._read(card)
        verify_files(self.folder, card)
        self._bias = self._class_bias(self._options["withhold"])
        self._codebook = find_codebook(self.folder, card)
        if self._codebook.vocabulary.hash != card["vocabulary"]:
            raise self._damaged(f"its codebook {self._codebook.name!r} has other words than it was built with")
        self._layout = PyramidLayout.flat(self._default_k)
        self._session: GraphSession | None = None
        self._lock = threading.Lock()

    def _read(self, card: dict[str, Any]) -> None:
        """Take what is needed from the card; anything missing or of the wrong kind is damage."""
        self._card = card
        if card.get("kind") != KIND:
            raise self._damaged(f"its card is of kind {card.get('kind')!r}, this icl-vision reads {KIND!r}")
        missing = [key for key in ("name", "vocabulary", "codebook", "files", "k_max", "opset") if key not in card]
        if missing:
            raise self._damaged(f"its card lacks {', '.join(missing)}")
        if card["opset"] not in OPSETS:
            known = f"{OPSETS[0]} to {OPSETS[-1]}"
            raise self._damaged(f"its graph has opset {card['opset']!r}; this icl-vision reads {known}")
        self.name = str(card["name"])
        self.preprocessing = Preprocessing.from_card(card.get("preprocessing"))
        self.k_max, self._default_k = card["k_max"], card.get("default_k", 5)
        self.embedding_width = card.get("features", 0)
        for key, value in (("k_max", self.k_max), ("default_k", self._default_k), ("features", self.embedding_width)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise self._damaged(f"its card says {key} = {value!r}")

    def _damaged(self, what: str) -> ArtefactDamagedError:
        return ArtefactDamagedError(f"{str(self.folder)!r} cannot be used: {what}; fetch or build it again")

    # -- the contract

    @property
    def layout(self) -> PyramidLayout:
        return self._layout

    @property
    def vocabulary(self) -> Vocabulary:
        return self._codebook.vocabulary

    @property
    def codebook(self) -> npt.NDArray[np.float32]:
        """The words' vectors, float32 [T, c], unit length, read-only."""
        return self._codebook.vectors

    @property
    def card(self) -> Mapping[str, Any]:
        """The artefact's card; with ``withheld``, the withheld class names, where there are any."""
        withheld = {"withheld": list(self._options["withhold"])} if self._options["withhold"] else {}
        return {**self._card, "layout": self.layout.to_dict(), **withheld}

    @property
    def provider(self) -> str:
        """The execution provider in use; makes the session if need be."""
        return self._graph().provider

    def layout_for(self, k: int) -> PyramidLayout:
        if not 1 <= k <= self.k_max:
            raise PyramidError(f"the tokenizer {self.name!r} gives 1 to {self.k_max} words an image; got k={k}")
        return PyramidLayout.flat(k)

    def _shrink(self, image: Image.Image) -> Image.Image:
        return self.preprocessing.apply(image)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        layout = self._layout if k is None else self.layout_for(k)
        (ids,) = self._graph().run(self._feeds(images), ["ids"])
        chosen = np.asarray(ids, dtype=np.int32)[:, : layout.cumulative[-1]]
        return [TokenPyramid((row[None],), layout, self.vocabulary) for row in chosen]

    def _embed(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
        (features,) = self._graph().run(self._feeds(images), ["features"])
        return np.asarray(features, dtype=np.float32)

    # -- the session

    def _feeds(self, images: list[Image.Image]) -> dict[str, npt.NDArray[Any]]:
        return {"pixels": self.preprocessing.batch(images)}

    def _graph(self) -> GraphSession:
        if self._session is None:
            with self._lock:
                if self._session is None:
                    self._session = self._start()
        return self._session

    def _start(self) -> GraphSession:
        data = (self.folder / ENCODER_FILE).read_bytes()
        if hashlib.sha256(data).hexdigest() != self._card["files"][ENCODER_FILE]:
            raise self._damaged(f"{ENCODER_FILE} was changed since it was checked")
        constants: dict[str, npt.NDArray[Any]] = {"codebook": self._codebook.vectors}
        if self._bias is not None:
            constants["class_bias"] = self._bias
        options = {key: self._options[key] for key in ("strict", "providers", "threads")}
        session = GraphSession(data, self.name, constants=constants, **options)
        if set(session.inputs) != {"pixels", *constants} or not {"ids", "features"} <= set(session.outputs):
            raise self._damaged(f"its graph has inputs {list(session.inputs)} and outputs {list(session.outputs)}")
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "options": {**self._options, "batch_size": self.batch_size}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], **state["options"])  # type: ignore[misc]

    # -- withheld classes

    def _class_bias(self, withhold: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """float32 [C], 0 or very negative; None where the graph knows no classes."""
        if CLASSES_FILE not in self._card["files"]:
            if withhold:
                raise UsageError(f"the tokenizer {self.name!r} recognises no fixed classes, so none can be withheld")
            return None
        lines = (self.folder / CLASSES_FILE).read_text(encoding="utf-8").splitlines()
        places: dict[str, list[int]] = {}
        for index, line in enumerate(lines):
            for name in line.split("; "):
                places.setdefault(_fold(name), []).append(index)
        bias = np.zeros(len(lines), dtype=np.float32)
        for name in withhold:
            if _fold(name) not in places:
                near = difflib.get_close_matches(_fold(name), places, n=3, cutoff=0.6)
                hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"{CLASSES_FILE} lists the names"
                raise UsageError(f"the tokenizer {self.name!r} has no class {name!r} to withhold; {hint}")
            bias[places[_fold(name)]] = _WITHHELD
        return bias


def verify_files(folder: Path, card: Mapping[str, Any]) -> None:
    """Check every file that a card lists under "files" against its sha256.

    Raises:
        ArtefactDamagedError: a file is missing, cannot be read or is another one; or the list itself is damaged.
    """
    files = card.get("files")
    if not isinstance(files, Mapping) or ENCODER_FILE not in files:
        raise ArtefactDamagedError(
            f"{CARD_FILE} in {str(folder)!r} must list {ENCODER_FILE} with its sha256 under 'files'"
        )
    for name, expected in files.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} lists {name!r}, which is no plain file name")
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise ArtefactDamagedError(f"{str(folder)!r} has no {name}; fetch or build the folder again") from None
        except OSError as error:
            raise ArtefactDamagedError(f"{name} in {str(folder)!r} cannot be read ({error.strerror})") from error
        if found != expected:
            raise ArtefactDamagedError(
                f"{name} in {str(folder)!r} is not the file its card describes: its sha256 is {found[:12]}..., "
                f"the card says {str(expected)[:12]}...; fetch or build the folder again"
            )


def find_codebook(folder: Path, card: Mapping[str, Any]) -> Codebook:
    """The codebook a card names, from inside the artefact, beside it, or from the package; the sha256 decides.

    Raises:
        ArtefactDamagedError: none of that name, or only ones with another sha256.
    """
    entry = card.get("codebook")
    name, wanted = (entry.get("name"), entry.get("hash")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(name, str) or Path(name).name != name or not isinstance(wanted, str):
        raise ArtefactDamagedError(
            f"{CARD_FILE} in {str(folder)!r} must name its codebook and the codebook's hash; got {entry!r}"
        )
    places: list[str | Path] = [folder / name, folder.parent / name]
    found = []
    for place in [*(place for place in places if Path(place).is_dir()), *({name} & set(packaged_codebooks()))]:
        codebook = Codebook.load(place)
        if codebook.hash == wanted:
            return codebook
        found.append(f"{str(place)!r} has {codebook.hash[:12]}...")
    nowhere = f"no such folder inside or beside it, nor in the package {packaged_codebooks()}"
    raise ArtefactDamagedError(
        f"{str(folder)!r} needs the codebook {name!r} with sha256 {wanted[:12]}...: {', '.join(found) or nowhere}"
    )


def _names(withhold: object) -> tuple[str, ...]:
    if isinstance(withhold, str) or not isinstance(withhold, Sequence) or not all(isinstance(n, str) for n in withhold):
        raise UsageError(f"withhold must be a sequence of class names; got {withhold!r}")
    return tuple(dict.fromkeys(withhold))


def _fold(name: str) -> str:
    """Class names alike up to case, underscores and spaces."""
    return " ".join(name.replace("_", " ").casefold().split())
