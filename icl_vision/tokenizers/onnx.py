"""Tokenizers that are an artefact folder: one or two graphs, a card, and a codebook shared with others.

Knows: what a card says of its graphs, how ids become words on grids and back into pictures.
Refuses to know: torch, how the graphs were made, which names exist (``zoo.py``), how a folder is checked
(``artefact.py``).

An artefact folder holds ``card.json`` and the files the card lists with their sha256: ``encoder.onnx``, perhaps
``decoder.onnx`` and, where classes can be withheld, ``classes.txt``. The codebook lies in a folder of its own, found
by name and sha256; so do weights that a graph shares with others (``parts.py``). K is the number of words of the whole
layout (of a flat list: the most there are, ``k_max``).

    encoder  pixels uint8 [batch, S, S, 3]; codebook float32 [T, c]; optional class_bias float32 [C]
             -> ids int32 [batch, K], coarse first or best first; optional features float32 [batch, D]
    decoder  ids int32 [batch, K]; layers int64 [1], how many layers of them count; codebook float32 [T, c]
             -> pixels uint8 [batch, S, S, 3]

A card that says ``"modality": "clip"`` and ``"frames": T`` stands for a tokenizer of clips: pixels are uint8 [batch, T,
S, S, 3] in both graphs, and the grids of its layout have three axes, time first.

A card of kind "words" stands for a flat list of any length up to ``k_max``, one of kind "pyramid" for the layers
of its ``layout``.
"""

from __future__ import annotations

import difflib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.clips.reels import ClipLimits, check_sampling
from icl_vision.errors import ArtefactDamagedError, PyramidError, UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.artefact import (
    CLASSES_FILE,
    DECODER_FILE,
    ENCODER_FILE,
    find_codebook,
    read_file,
    verify_files,
)
from icl_vision.tokenizers.base import ImageTokenizer, on_grids
from icl_vision.tokenizers.parts import find_parts, whole_graph
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import CPU, GraphSession, checked_threads, resolve_providers, worth_trying
from icl_vision.tokenizers.taking import CLIP, IMAGE, MODALITIES
from icl_vision.vocabulary import MOST_WORDS, Vocabulary, read_card

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

FLAT, PYRAMID = "words", "pyramid"
KINDS = (FLAT, PYRAMID)
OPSETS = range(13, 24)  # main-domain opsets this code was written for
_WITHHELD = np.float32(-1e9)
_LONGEST_NAME = 200
_WIDEST = 2**20  # of the vectors of "features"
_BATCH, _BATCH_CPU = 32, 8
_BATCH_CLIPS, _BATCH_CLIPS_CPU = 8, 2
_MOST_FRAMES = 256


class OnnxTokenizer(ImageTokenizer):
    """An artefact folder as a tokenizer: flat words, best first, or a pyramid of layers, coarse first.

    Making one reads and checks the files; a session is made at its first use, once, whatever the number of
    threads. It pickles as its folder and options.

    Args:
        folder: the artefact folder.
        strict: refuse to run on another execution provider than the one asked for, instead of one warning.
        providers: None (CUDA where a device is usable, else the CPU), "cpu", "cuda", an onnxruntime provider name or
            a sequence of these, best first.
        threads: CPU threads of a session; None takes the cores that this process may use (under taskset or in a
            container fewer than the machine has).
        withhold: names of classes that must not be recognised (a control for classifiers trained on the tested
            classes); any name in ``classes.txt``, case ignored. Only where the card has classes.
        cuda_graph: on CUDA, capture the graph once and replay it: less overhead where every batch has the same size,
            so batches are filled up to ``batch_size``. Ignored, with a remark in the log, on another provider.
        batch_size: images that the graph takes at once; None takes 8 on the CPU, where more are no faster and only take
            memory (photographs of 128 px: 0.6 GB at 8, 2 GB at 32), and 32 elsewhere; of clips 2 and 8.
        rate: of clips: frames a second that are read, from a clip's beginning; None for evenly over its time.
        reads: of clips: how many frames are read, of which as many as it takes are used, evenly; None for so many.

    Raises:
        ArtefactNotFoundError: no such folder.
        ArtefactDamagedError: a file or the codebook is missing, or is not the one the card describes.
        UsageError: an option that cannot be.
    """

    preprocessing: Preprocessing
    kinds: ClassVar[tuple[str, ...]] = KINDS
    """The kinds of card that this class reads."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        strict: bool = False,
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        withhold: Sequence[str] = (),
        cuda_graph: bool = False,
        batch_size: int | None = None,
        rate: float | None = None,
        reads: int | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._options: dict[str, Any] = {
            "strict": strict,
            "providers": providers if providers is None or isinstance(providers, str) else list(providers),
            "threads": checked_threads(threads),
            "withhold": _names(withhold),
            "cuda_graph": bool(cuda_graph),
            "batch_size": batch_size,
            # Subclasses that read images alone do not take these.
            **{key: told for key, told in (("rate", rate), ("reads", reads)) if told is not None},
        }
        # A name that cannot be is told now, not at the first image.
        first = worth_trying(resolve_providers(providers))[0]
        card = read_card(self.folder)
        self._read(card)
        if self.modality != CLIP and (rate, reads) != (None, None):
            raise UsageError(f"rate and reads say which frames of a clip are read; {self.name!r} takes images")
        self.reads, self.rate = check_sampling(reads, rate, ClipLimits())
        usual, on_cpu = (_BATCH, _BATCH_CPU) if self.modality == IMAGE else (_BATCH_CLIPS, _BATCH_CLIPS_CPU)
        self._usual_batch = on_cpu if first == CPU else usual
        self.batch_size = self._usual_batch if batch_size is None else batch_size
        verify_files(self.folder, card)
        self.can_decode = DECODER_FILE in card["files"]
        self.can_embed = self.embedding_width > 0
        self._bias = self._class_bias(self._options["withhold"])
        self._codebook = find_codebook(self.folder, card)
        self._parts = find_parts(self.folder, card)
        if self._codebook.vocabulary.hash != card["vocabulary"]:
            raise self._damaged(f"its codebook {self._codebook.name!r} has other words than it was built with")
        self._sessions: dict[str, GraphSession] = {}
        self._lock = threading.Lock()

    def _read(self, card: dict[str, Any]) -> None:
        """Take what is needed from the card; anything missing or of the wrong kind is damage."""
        self._card = card
        kind = card.get("kind")
        if kind not in self.kinds:
            known = " and ".join(map(repr, self.kinds))
            raise self._damaged(f"its card is of kind {kind!r}, this icl-vision reads {known}")
        own = ("layout",) if kind == PYRAMID else ("k_max",)
        missing = [key for key in ("name", "vocabulary", "codebook", "files", *own, "opset") if key not in card]
        if missing:
            raise self._damaged(f"its card lacks {', '.join(missing)}")
        if card["opset"] not in OPSETS:
            known = f"{OPSETS[0]} to {OPSETS[-1]}"
            raise self._damaged(f"its graph has opset {card['opset']!r}; this icl-vision reads {known}")
        if not isinstance(card["name"], str) or not 0 < len(card["name"]) <= _LONGEST_NAME:
            raise self._damaged(f"its card's name must be a string of 1 to {_LONGEST_NAME} characters")
        self.name = card["name"]
        self.preprocessing = Preprocessing.from_card(card.get("preprocessing"))
        self._flat = kind != PYRAMID
        self.embedding_width = self._whole("features", card.get("features", 0), least=0, most=_WIDEST)
        if self._flat:
            self.k_max = self._whole("k_max", card["k_max"], most=_WIDEST)
            self._layout = PyramidLayout.flat(
                self._whole("default_k", card.get("default_k", min(5, self.k_max)), most=self.k_max)
            )
        else:
            try:
                self._layout = PyramidLayout.from_dict(card["layout"])
            except PyramidError as error:
                raise self._damaged(f"its card's layout cannot be: {error}") from error
            self.k_max = self._layout.cumulative[-1]
        self._read_modality(card)

    def _read_modality(self, card: Mapping[str, Any]) -> None:
        self.modality = card.get("modality", IMAGE)
        if self.modality not in MODALITIES:
            known = " and ".join(map(repr, MODALITIES))
            raise self._damaged(f"its card is of the modality {self.modality!r}, this icl-vision reads {known}")
        axes = len(self._layout.finest)
        if self.modality != CLIP:
            if axes != 2 and not self._flat:
                raise self._damaged(f"its card's layout has grids of {axes} axes, which only those of clips have")
            return
        self.frames = self._whole("frames", card.get("frames"), most=_MOST_FRAMES)
        if axes != 3 and not self._flat:
            raise self._damaged(f"its card's layout has grids of {axes} axes; those of clips have three, time first")

    def _whole(self, key: str, value: object, *, least: int = 1, most: int) -> int:
        number = checks.as_whole(value)
        if number is None or not least <= number <= most:
            raise self._damaged(
                f"its card says {key} = {checks.shown(value)}, which must be a whole number from {least} to {most:,}"
            )
        return number

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
        """The words' vectors, float32 [T, c], read-only."""
        return self._codebook.vectors

    @property
    def card(self) -> Mapping[str, Any]:
        """The artefact's card; with ``withheld``, the withheld class names, where there are any."""
        withheld = {"withheld": list(self._options["withhold"])} if self._options["withhold"] else {}
        return {**self._card, "layout": self.layout.to_dict(), **withheld}

    @property
    def provider(self) -> str:
        """The execution provider in use; makes the encoder's session if need be."""
        return self._graph(ENCODER_FILE).provider

    def layout_for(self, k: int) -> PyramidLayout:
        if not self._flat:
            return super().layout_for(k)
        if not 1 <= k <= self.k_max:
            raise PyramidError(f"the tokenizer {self.name!r} gives 1 to {self.k_max} words an image; got k={k}")
        return PyramidLayout.flat(k)

    @property
    def _shrinking(self) -> Callable[[Image.Image], Image.Image]:
        """``_shrink`` without the tokenizer: small enough to be sent to another process."""
        return self.preprocessing.apply

    def _shrink(self, image: Image.Image) -> Image.Image:
        return self._shrinking(image)

    def _pixels(self, images: list[Any]) -> npt.NDArray[np.uint8]:
        """What the encoder takes of a batch."""
        if self.modality == IMAGE:
            return self.preprocessing.batch(images)
        return np.stack([self.preprocessing.clip(clip) for clip in images])

    def _encode(self, images: list[Any], k: int | None) -> list[TokenPyramid]:
        layout = self._layout if k is None else self.layout_for(k)
        chosen = self._run(ENCODER_FILE, {"pixels": self._pixels(images)}, "ids")
        wanted = layout.cumulative[-1]
        if chosen.dtype.kind not in "iu" or chosen.ndim != 2 or len(chosen) != len(images) or chosen.shape[1] < wanted:
            raise self._gave("ids", chosen, f"whole numbers [{len(images)}, {wanted} or more]")
        if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self.vocabulary):
            raise self._damaged(
                f"its encoder gives ids from {chosen.min()} to {chosen.max()} of {len(self.vocabulary)} words"
            )
        chosen = chosen.astype(np.int32, copy=False)[:, :wanted]
        return [TokenPyramid(on_grids(row, layout), layout, self.vocabulary) for row in chosen]

    def _embed(self, images: list[Any]) -> npt.NDArray[np.float32]:
        features = self._run(ENCODER_FILE, {"pixels": self._pixels(images)}, "features")
        if features.dtype.kind != "f" or features.shape != (len(images), self.embedding_width):
            raise self._gave("features", features, f"floats [{len(images)}, {self.embedding_width}]")
        return features.astype(np.float32, copy=False)

    def _decode(self, pyramids: list[TokenPyramid]) -> list[Image.Image]:
        from PIL import Image

        decoded: list[Any] = [None] * len(pyramids)
        axes, wanted = (4, "height, width, 3") if self.modality == IMAGE else (5, f"{self.frames}, height, width, 3")
        for layers in sorted({pyramid.layers for pyramid in pyramids}):
            as_deep = [index for index, pyramid in enumerate(pyramids) if pyramid.layers == layers]
            ids = np.zeros((len(as_deep), self.k_max), dtype=np.int32)  # ids of missing layers are not looked at
            for row, index in enumerate(as_deep):
                flat = np.concatenate([layer.ravel() for layer in pyramids[index].ids])
                ids[row, : flat.size] = flat
            pixels = self._run(DECODER_FILE, {"ids": ids, "layers": np.array([layers], dtype=np.int64)}, "pixels")
            right = pixels.dtype == np.uint8 and pixels.ndim == axes and len(pixels) == len(as_deep)
            if not right or pixels.shape[-1] != 3 or (axes == 5 and pixels.shape[1] != self.frames):
                raise self._gave("pixels", pixels, f"uint8 [{len(as_deep)}, {wanted}]")
            for index, made in zip(as_deep, pixels, strict=True):
                decoded[index] = Image.fromarray(made) if axes == 4 else [Image.fromarray(frame) for frame in made]
        return decoded

    # -- the sessions

    def _outputs(self) -> tuple[str, ...]:
        """What ``_encode`` needs of the encoder."""
        return ("ids",)

    def _run(self, file: str, feeds: dict[str, npt.NDArray[Any]], output: str) -> npt.NDArray[Any]:
        (value,) = self._graph(file).run(feeds, [output])
        return np.asarray(value)

    def _gave(self, output: str, value: npt.NDArray[Any], wanted: str) -> ArtefactDamagedError:
        return self._damaged(f"its graph gives {output} as {value.dtype} {list(value.shape)}, not as {wanted}")

    def _graph(self, file: str) -> GraphSession:
        if file not in self._sessions:
            with self._lock:
                if file not in self._sessions:
                    self._sessions[file] = self._start(file)
        return self._sessions[file]

    def _start(self, file: str) -> GraphSession:
        data = whole_graph(self.folder, self._card, file, self._parts)
        constants: dict[str, npt.NDArray[Any]] = {"codebook": self._codebook.vectors}
        if file == ENCODER_FILE:
            fed, needed = {"pixels"}, {*self._outputs(), *(("features",) if self.can_embed else ())}
            if self._bias is not None:
                constants["class_bias"] = self._bias
        else:
            fed, needed = {"ids", "layers"}, {"pixels"}
        options = {key: self._options[key] for key in ("strict", "providers", "threads")}
        fixed = self._checked_batch_size() if self._options["cuda_graph"] else None
        session = GraphSession(data, self.name, constants=constants, fixed_batch=fixed, **options)
        if set(session.inputs) != fed | set(constants) or not needed <= set(session.outputs):
            raise self._damaged(
                f"the graph in {file} has inputs {list(session.inputs)} and outputs {list(session.outputs)}"
            )
        return session

    def __getstate__(self) -> dict[str, Any]:
        # Where it is unpickled there may be another device.
        size = None if self.batch_size == self._usual_batch else self.batch_size
        return {"folder": str(self.folder), "options": {**self._options, "batch_size": size}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], **state["options"])  # type: ignore[misc]  # begins anew as its own constructor would

    # -- withheld classes

    def _class_bias(self, withhold: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """float32 [C], 0 or very negative; None where the graph knows no classes."""
        if CLASSES_FILE not in self._card["files"]:
            if withhold:
                raise UsageError(f"the tokenizer {self.name!r} recognises no fixed classes, so none can be withheld")
            return None
        try:
            lines = read_file(self.folder, self._card, CLASSES_FILE, most=MOST_WORDS).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise self._damaged(f"{CLASSES_FILE} is not UTF-8 text ({error.reason})") from error
        classes: dict[str, list[int]] = {}
        for index, line in enumerate(lines):
            for name in line.split("; "):
                classes.setdefault(_fold(name), []).append(index)
        bias = np.zeros(len(lines), dtype=np.float32)
        for name in withhold:
            if _fold(name) not in classes:
                near = difflib.get_close_matches(_fold(name), classes, n=3, cutoff=0.6)
                hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"{CLASSES_FILE} lists the names"
                raise UsageError(f"the tokenizer {self.name!r} has no class {name!r} to withhold; {hint}")
            bias[classes[_fold(name)]] = _WITHHELD
        return bias


def _names(withhold: object) -> tuple[str, ...]:
    if isinstance(withhold, str) or not isinstance(withhold, Sequence) or not all(isinstance(n, str) for n in withhold):
        raise UsageError(f"withhold must be a sequence of class names; got {withhold!r}")
    return tuple(dict.fromkeys(withhold))


def _fold(name: str) -> str:
    """Class names alike up to case, underscores and spaces."""
    return " ".join(name.replace("_", " ").casefold().split())
