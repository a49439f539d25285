"""``describe-photo``: a photograph in words with parts, each word with the probability that it is right.

    tokenizer = ImageTokenizer.from_pretrained("describe-photo", parts=("what", "said", "colours"))
    words, = tokenizer.encode("photo.jpg", about="what colour is the bus?")

One pass of the graph gives what is seen, what people would say and what is where; colours come from the pixels, text
from a reader. An artefact's card is of kind "describe"; the graph's outputs and the card are those of
``exporters/describe.py``.

Knows: which part is made of what, how many words of each a ``k`` stands for, which parts are wanted. Refuses to know:
how a graph is started (``onnx.py``), colours (``colours.py``), how text is read (``reading.py``), which words bear on a
question (``focus.py``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from icl_vision.errors import PyramidError, UnknownWordError, UsageError
from icl_vision.image_words import TEXT, ImageWords
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.artefact import ENCODER_FILE, read_file
from icl_vision.tokenizers.describe import colours
from icl_vision.tokenizers.describe.focus import focused
from icl_vision.tokenizers.describe.places import REGIONS, cut_places, most_places
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.vocabulary import MOST_WORDS

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.tokenizers.describe.reading import TextReader
    from icl_vision.tokenizers.pixels import Preprocessing

logger = logging.getLogger(__name__)

KIND = "describe"
WHAT, SAID, COLOURS, WHERE = "what", "said", "colours", "where"
PARTS = (WHAT, SAID, COLOURS, WHERE, TEXT)
"""In the order in which they stand; ``text`` holds strings and no words."""
NEEDED = (WHAT, SAID, COLOURS)
"""One of these must be among the parts, so that every picture has words."""
ONLY_COLOURS = frozenset({"black", "white"})
"""Words that no other part says: of a person they would be more than a colour."""

_OUTPUTS = {
    WHAT: ("what", "what_probabilities"),
    SAID: ("said_probabilities",),
    WHERE: ("regions", "region_probabilities"),
}
_FULL_SIZE = "icl_vision.full_size"  # where a shrunk picture keeps the one that text is read in
_told: set[str] = set()


class DescribePhoto(OnnxTokenizer):
    """The words of a photograph by part: what, said, colours, where, and the text in it.

    ``k`` is the most words a part: *what* and *said* give the ``k`` most probable, *colours* half as many (there are
    twelve names), *where* one or two a region. ``encode(about=)`` chooses from all there are.

    Args:
        folder: the artefact folder.
        parts: which parts are wanted, in any order; None for all. What is not wanted is not computed.
        reader: what reads text; None for rapidocr, where the extra ``ocr`` is installed (else there is no text, which
            is said once in the log).
        strict, providers, threads, withhold, cuda_graph, batch_size: as for ``OnnxTokenizer``. A withheld class's
            words are not in *what* and *where*, and it counts for nothing in *said*.

    Raises:
        ArtefactNotFoundError, ArtefactDamagedError: as ``OnnxTokenizer``.
        UsageError: parts that there are not, or none that gives words; a reader that is none; see ``OnnxTokenizer``.
    """

    kinds: ClassVar[tuple[str, ...]] = (KIND,)
    can_focus = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        parts: Sequence[str] | None = None,
        reader: TextReader | None = None,
        strict: bool = False,
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        withhold: Sequence[str] = (),
        cuda_graph: bool = False,
        batch_size: int | None = None,
    ) -> None:
        wanted = _checked_parts(parts)
        self.parts = tuple(part for part in wanted if part != TEXT)
        super().__init__(
            folder,
            strict=strict,
            providers=providers,
            threads=threads,
            withhold=withhold,
            cuda_graph=cuda_graph,
            batch_size=batch_size,
        )
        self.focus_from = self.k_max
        self.reader = _reader(reader, threads, asked=parts is not None) if TEXT in wanted else None
        self._options |= {"parts": None if parts is None else wanted, "reader": reader}
        self._check_vocabulary()
        self._said = self._said_ids() if SAID in self.parts else np.zeros(0, np.int32)
        self._layout = self.layout_for(self.default_k)

    def _read(self, card: dict[str, Any]) -> None:
        super()._read(card)
        self.default_k = self._layout.cumulative[-1]

    def _check_vocabulary(self) -> None:
        """Whether it has the words that parts say whatever the graph gives, and the regions lie as here."""
        needed = colours.NAMES if {COLOURS, WHERE} & set(self.parts) else ()
        needed = (*needed, *(REGIONS if WHERE in self.parts else ()))
        missing = [word for word in needed if word not in self.vocabulary]
        if missing:
            raise self._damaged(
                f"its vocabulary lacks {', '.join(missing)}, which the parts 'colours' and 'where' say (leave them "
                "out: parts=('what', 'said'))"
            )
        regions = self._card.get("regions", list(REGIONS))
        if WHERE in self.parts and regions != list(REGIONS):
            raise self._damaged(f"its card says the regions {regions!r}, and they are {list(REGIONS)}, in this order")

    def _said_ids(self) -> npt.NDArray[np.int32]:
        """The ids of the words that *said* chooses from, in the order of the graph's output."""
        entry = self._card.get("said")
        file = entry.get("file") if isinstance(entry, Mapping) else None
        if not isinstance(file, str) or file not in self._card["files"]:
            raise self._damaged(f"its card must name the file of the words of 'said'; it says {entry!r}")
        try:
            words = read_file(self.folder, self._card, file, most=MOST_WORDS).decode("utf-8").split()
            ids = self.vocabulary.ids(words)
        except (UnicodeDecodeError, UnknownWordError) as error:
            raise self._damaged(f"{file} does not hold words of its vocabulary ({error})") from error
        if not words or len(set(words)) < len(words):
            raise self._damaged(f"{file} must hold words, each once")
        return np.asarray(ids, dtype=np.int32)

    # -- the contract

    @property
    def layout(self) -> PyramidLayout:
        """The flat layer of all words there can be by default; a picture may have fewer."""
        return self._layout

    @property
    def card(self) -> Mapping[str, Any]:
        """The artefact's card, with the parts in use and who reads text."""
        reader = {} if self.reader is None else {"reader": self.reader.identity}
        return {**super().card, "words_by_part": list(self.parts), **reader}

    @property
    def identity(self) -> str:
        own = {key: self.card.get(key) for key in ("words_by_part", "reader")}
        return hashlib.sha256(f"{super().identity}/{json.dumps(own)}".encode()).hexdigest()

    def layout_for(self, k: int) -> PyramidLayout:
        if not 1 <= k <= self.k_max:
            raise PyramidError(f"the tokenizer {self.name!r} gives 1 to {self.k_max} words a part; got k={k}")
        return PyramidLayout.flat(sum(self._most(part, k) for part in self.parts))

    def _most(self, part: str, k: int) -> int:
        """The most words of a part, for a ``k``."""
        if part == SAID:
            return min(k, len(self._said))
        if part == COLOURS:
            return colours.most_colours(k)
        return most_places(k) if part == WHERE else k

    def _cut(self, words: ImageWords, k: int) -> ImageWords:
        places: dict[str, Sequence[int]] = {}
        for part, count in words.parts:
            places[part] = cut_places(words.words(part), k) if part == WHERE else range(min(count, self._most(part, k)))
        return words.only(places)

    def from_text(self, text: str) -> ImageWords:
        """The words whose ``to_text`` is ``text``, their parts in its order; those it does not name are empty.

        Raises:
            UnknownWordError: a word outside the vocabulary.
            PyramidError: another form, or a part that this tokenizer does not have.
        """
        found = ImageWords.from_text(self._text(text), self.vocabulary)
        unknown = [part for part in found.names if part not in self.parts]
        if unknown:
            raise PyramidError(f"the tokenizer {self.name!r} has the parts {', '.join(self.parts)}; got {unknown[0]!r}")
        rows = {part: found.words(part) for part in found.names}
        return ImageWords.of(
            rows | {part: [] for part in self.parts if part not in rows}, self.vocabulary, text=found.text
        )

    def _focus(self, words: TokenPyramid, about: str, k: int | None) -> ImageWords:
        assert isinstance(words, ImageWords)  # focus() saw to it
        return focused(words, about, self.default_k if k is None else k, self._codebook)

    # -- encoding

    @property
    def _shrinking(self) -> Callable[[Image.Image], Image.Image]:
        return functools.partial(shrunk, rule=self.preprocessing, readable=self.reader is not None)

    def _outputs(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in _OUTPUTS.get(part, ()))

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        wanted = self.default_k if k is None else k
        given = self._graph_outputs(images)
        rows: dict[str, list[list[tuple[int, float]]]] = {}  # by part, a picture's (id, probability)
        if WHAT in self.parts:
            rows[WHAT] = self._what(given["what"], given["what_probabilities"], wanted)
        if SAID in self.parts:
            rows[SAID] = self._best_said(given["said_probabilities"], wanted)
        means = colours.mean_shares(images if {COLOURS, WHERE} & set(self.parts) else [])
        if COLOURS in self.parts:
            rows[COLOURS] = self._colours(means, wanted)
        if WHERE in self.parts:
            rows[WHERE] = self._where(means, given["regions"], given["region_probabilities"], wanted)
        texts = self._texts(images)
        return [
            self._picture({part: rows[part][place] for part in self.parts}, texts[place])
            for place in range(len(images))
        ]

    def _picture(self, rows: Mapping[str, list[tuple[int, float]]], text: tuple[str, ...]) -> ImageWords:
        ids = np.array([[one for row in rows.values() for one, _ in row]], dtype=np.int32)
        if not ids.size:
            raise self._damaged("its graph gives a picture no words")
        counts = tuple((part, len(row)) for part, row in rows.items())
        chances = tuple(chance for row in rows.values() for _, chance in row)
        return ImageWords((ids,), PyramidLayout.flat(ids.shape[1]), self.vocabulary, counts, chances, text)

    def _graph_outputs(self, images: list[Image.Image]) -> dict[str, npt.NDArray[Any]]:
        """The graph's outputs by name, of the shapes and within the ranges that its card promises."""
        names = self._outputs()
        if not names:
            return {}
        values = self._graph(ENCODER_FILE).run({"pixels": self.preprocessing.batch(images)}, names)
        given = dict(zip(names, map(np.asarray, values), strict=True))
        count = len(images)
        for name, value in given.items():
            if name in ("what", "regions"):
                fits = value.ndim == (2 if name == "what" else 3) and len(value) == count and value.dtype.kind in "iu"
                if not fits or (name == "regions" and value.shape[1] != len(REGIONS)):
                    raise self._gave(name, value, f"whole numbers for {count} pictures")
                if value.size and not 0 <= int(value.min()) <= int(value.max()) < len(self.vocabulary):
                    raise self._damaged(
                        f"its encoder gives ids from {value.min()} to {value.max()} of {len(self.vocabulary)} words"
                    )
                continue
            of = {"what_probabilities": "what", "region_probabilities": "regions"}.get(name)
            shape = given[of].shape if of else (count, len(self._said))
            if value.dtype.kind != "f" or value.shape != shape:
                raise self._gave(name, value, f"floats {list(shape)}")
            if value.size and not 0 <= float(value.min()) <= float(value.max()) <= 1:  # (a NaN is neither)
                raise self._damaged(f"its encoder gives {name} from {value.min()} to {value.max()}")
        return given

    @functools.cached_property
    def _elsewhere(self) -> frozenset[int]:
        """Ids of words that only *colours* says."""
        return self._known(ONLY_COLOURS)

    def _known(self, words: frozenset[str] | set[str]) -> frozenset[int]:
        return frozenset(self.vocabulary.ids([word for word in words if word in self.vocabulary]))

    def _what(self, ids: npt.NDArray[Any], chances: npt.NDArray[Any], k: int) -> list[list[tuple[int, float]]]:
        rows = []
        for row, own in zip(ids.tolist(), chances.tolist(), strict=True):
            kept = [pair for pair in zip(row, own, strict=True) if pair[0] not in self._elsewhere]
            rows.append(kept[:k])
        return rows

    def _best_said(self, chances: npt.NDArray[Any], k: int) -> list[list[tuple[int, float]]]:
        rows = []
        for row in chances:
            best = np.argsort(-row, kind="stable")[:k]
            rows.append(list(zip(self._said[best].tolist(), row[best].tolist(), strict=True)))
        return rows

    def _colours(self, means: npt.NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        rows = []
        for row in colours.colour_probabilities(means):
            best = np.argsort(-row, kind="stable")[: colours.most_colours(k)]
            rows.append([(self._colour_ids[place], float(row[place])) for place in best.tolist()])
        return rows

    @functools.cached_property
    def _colour_ids(self) -> list[int]:
        return [int(one) for one in self.vocabulary.ids(colours.NAMES)]

    @functools.cached_property
    def _region_ids(self) -> list[int]:
        return [int(one) for one in self.vocabulary.ids(REGIONS)]

    def _where(
        self, means: npt.NDArray[np.float32], ids: npt.NDArray[Any], chances: npt.NDArray[Any], k: int
    ) -> list[list[tuple[int, float]]]:
        """For each region its name, and the thing there; with ``k`` of 2 or more its colour before that.

        A region's name says nothing of the picture, so its probability is 0: it is no candidate for an answer.
        """
        shares, said = colours.region_colours(means)
        rows = []
        for picture in range(len(means)):
            row: list[tuple[int, float]] = []
            for region in range(len(REGIONS)):
                row.append((self._region_ids[region], 0.0))
                if k > 1:
                    colour = int(shares[picture, region].argmax())
                    row.append((self._colour_ids[colour], float(said[picture, region, colour])))
                pairs = zip(ids[picture, region].tolist(), chances[picture, region].tolist(), strict=True)
                things = [pair for pair in pairs if pair[0] not in self._region_ids]
                row += ([pair for pair in things if pair[0] not in self._colour_ids] or things)[:1]
            rows.append(row)
        return rows

    def _texts(self, images: list[Image.Image]) -> list[tuple[str, ...]]:
        if self.reader is None:
            return [()] * len(images)
        from icl_vision.tokenizers.describe.reading import read_texts

        return read_texts(self.reader, [image.info.get(_FULL_SIZE, image) for image in images])


def shrunk(image: Image.Image, *, rule: Preprocessing, readable: bool) -> Image.Image:
    """An image as the graph takes it; with ``readable`` it carries itself along at the size at which text is read."""
    small = rule.apply(image)
    if not readable:
        return small
    from icl_vision.tokenizers.describe.reading import MAX_SIDE

    small, full = small.copy(), image.copy()  # (the image may be the caller's)
    full.thumbnail((MAX_SIDE, MAX_SIDE))
    full.info = {}
    small.info = {_FULL_SIZE: full}
    return small


def _checked_parts(parts: Sequence[str] | None) -> tuple[str, ...]:
    if parts is None:
        return PARTS
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise UsageError(f"parts must be a sequence of names, as ('what', 'said'); got {parts!r}")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UsageError(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    if not set(parts) & set(NEEDED):
        raise UsageError(f"parts must hold at least one of {', '.join(NEEDED)}; got {', '.join(parts) or 'none'}")
    return tuple(part for part in PARTS if part in parts)


def _reader(reader: TextReader | None, threads: int | None, *, asked: bool) -> TextReader | None:
    """Whoever reads text, or None where nobody can, which is said once."""
    from icl_vision.tokenizers.describe.reading import RapidReader, TextReader, can_read

    if reader is not None:
        if not isinstance(reader, TextReader):
            raise UsageError(f"reader must have read(images) and identity, as RapidReader; got {type(reader).__name__}")
        return reader
    if can_read():
        return RapidReader(threads=threads)
    if TEXT not in _told:
        _told.add(TEXT)
        logger.log(
            logging.WARNING if asked else logging.INFO,
            "no text is read in pictures: that needs rapidocr, pip install 'icl-vision[ocr]'",
        )
    return None
