"""Words on a pyramid of grids: which grids there are, which cells they own, and one image's words on them.

Knows: grids, eq. (1) of SPAE, ids per layer and how they read as words.
Refuses to know: how an image becomes ids, and what a word means to an LLM.

Two objects, both immutable:

- ``PyramidLayout``: the grids, coarse to fine, and the positions each layer owns on the finest grid.
- ``TokenPyramid``: the ids of one image on such a layout, with the vocabulary that names them (with named parts:
  ``image_words``).

Layers are numbered from 1. ``k`` always counts words, ``layers`` always layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import PyramidError, VocabularyError

if TYPE_CHECKING:
    from icl_vision.images import ImageSource
    from icl_vision.tokenizers import ImageTokenizer
    from icl_vision.vocabulary import Vocabulary

IdArray = npt.NDArray[np.int32]

_FORMAT = 1
_LAST_CODE_POINT = 0x10FFFF
_MOST_LAYERS = 256  # far beyond any picture's, and so few that a damaged file cannot keep anybody busy
_MOST_CELLS = 2**22


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _sequence(value: object, rule: str) -> list[Any]:
    """``value`` as a list; strings and things that cannot be iterated are refused with ``rule``."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise PyramidError(f"{rule}; got {_short(value)}")
    return list(value)


def _keys(document: object, what: str, *names: str) -> Mapping[str, Any]:
    """``document`` as a mapping that has at least the keys ``names``."""
    if not isinstance(document, Mapping):
        raise PyramidError(f"{what} must be a dict as to_dict() gives it; got {_short(document)}")
    missing = [name for name in names if name not in document]
    if missing:
        raise PyramidError(f"{what} must be a dict as to_dict() gives it; missing: {', '.join(missing)}")
    return document


def _grid(value: object, what: str) -> tuple[int, ...]:
    """``value`` as a tuple of two (rows, columns) or three (frames, rows, columns) sizes of 1 or more."""
    given = _sequence(value, f"{what} must be (rows, columns) or (frames, rows, columns)")
    sizes = tuple(checks.count(f"each size of {what}", size, least=None, error=PyramidError) for size in given)
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise PyramidError(f"{what} must be two or three sizes of 1 or more; got {_short(sizes)}")
    return sizes


@dataclass(frozen=True)
class PyramidLayout:
    """The grids of a token pyramid, coarse first (SPAE section 3.1).

    Args:
        grids: one grid per layer, ``(rows, columns)`` or, for video, ``(frames, rows, columns)``. Sizes never
            shrink from one layer to the next.
        finest: the grid that positions refer to, a multiple of every layer's grid. Left out, the last layer's
            grid; a truncated pyramid keeps that of the whole one, because its words still own the same cells.

    Raises:
        PyramidError: no layers, sizes below 1, grids of mixed rank, shrinking, or not dividing the finest; more than
            256 layers, or more than 4,194,304 cells in a grid.

    SPAE for photographs is ``PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16)))``; a flat list
    of ``k`` words is ``PyramidLayout.flat(k)``, the same as ``PyramidLayout(((1, k),))``.
    """

    grids: tuple[tuple[int, ...], ...]
    finest: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = _sequence(self.grids, "a layout's grids must be a sequence of grids, coarse first")
        if len(given) > _MOST_LAYERS:
            raise PyramidError(f"a layout may have {_MOST_LAYERS} layers; got {len(given):,} grids")
        grids = tuple(_grid(grid, f"the grid of layer {number}") for number, grid in enumerate(given, start=1))
        if not grids:
            raise PyramidError("a layout needs at least one layer; got no grids")
        finest = _grid(self.finest, "the finest grid") if len(self.finest) else grids[-1]
        for number, grid in enumerate([*grids, finest], start=1):
            if math.prod(grid) > _MOST_CELLS:
                which = f"layer {number}" if number <= len(grids) else "the finest grid"
                raise PyramidError(f"a grid may have {_MOST_CELLS:,} cells; {which} is {_short(grid)}")
        for number, grid in enumerate(grids, start=1):
            if len(grid) != len(finest):
                raise PyramidError(f"all grids must have as many axes as {finest}; layer {number} is {grid}")
            if any(whole % part for whole, part in zip(finest, grid, strict=True)):
                raise PyramidError(f"the finest grid {finest} must be a multiple of every grid; layer {number}: {grid}")
        for number, (coarse, fine) in enumerate(itertools.pairwise(grids), start=2):
            if any(a > b for a, b in zip(coarse, fine, strict=True)):
                raise PyramidError(f"grids must not shrink, coarse to fine; layer {number} is {fine} after {coarse}")
        object.__setattr__(self, "grids", grids)
        object.__setattr__(self, "finest", finest)

    @classmethod
    def flat(cls, k: int) -> PyramidLayout:
        """One layer of ``k`` words in a row, best first: grids ``((1, k),)``."""
        return cls(((1, k),))

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.grids)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many ids each layer holds, e.g. (1, 4, 16, 64, 256, 256)."""
        return tuple(math.prod(grid) for grid in self.grids)

    @property
    def cumulative(self) -> tuple[int, ...]:
        """How many ids the first 1, 2, ... layers hold together, e.g. (1, 5, 21, 85, 341, 597)."""
        return tuple(itertools.accumulate(self.counts))

    def layers_for(self, k: int) -> int:
        """The number of layers that hold exactly ``k`` words together.

        Raises:
            PyramidError: ``k`` is none of ``cumulative``; the message lists them.
        """
        k = checks.count("k", k, least=None, error=PyramidError)
        if k not in self.cumulative:
            allowed = ", ".join(map(str, self.cumulative))
            raise PyramidError(f"k={k} words do not fill whole layers of this pyramid; k must be one of {allowed}")
        return self.cumulative.index(k) + 1

    def truncate(self, layers: int) -> PyramidLayout:
        """The layout of the first ``layers`` layers, still placed on the same finest grid."""
        return PyramidLayout(self.grids[: self._layer(layers, "layers")], self.finest)

    def positions(self, layer: int) -> tuple[tuple[int, ...], ...]:
        """Eq. (1) of SPAE: the positions on the finest grid that ``layer`` owns, counted from 1, in raster order.

        Along each axis ``i -> h' * i - ceil(h' / 2) + 1`` with ``h' = h_D / h_l``: about the middle of the block
        of cells that word ``i`` stands for.

        Raises:
            PyramidError: no such layer.
        """
        grid = self.grids[self._layer(layer) - 1]
        axes = []
        for parts, whole in zip(grid, self.finest, strict=True):
            ratio = whole // parts
            axes.append([ratio * i - math.ceil(ratio / 2) + 1 for i in range(1, parts + 1)])
        return tuple(itertools.product(*axes))

    def indices(self, layer: int) -> tuple[npt.NDArray[np.intp], ...]:
        """``positions(layer)`` as an index for arrays of the finest grid's shape (from 0, one array per axis).

        ``grid_array[layout.indices(layer)]`` are that layer's cells in raster order.
        """
        return tuple(np.asarray(axis, dtype=np.intp) - 1 for axis in zip(*self.positions(layer), strict=True))

    def owners(self, position: Sequence[int]) -> tuple[int, ...]:
        """The layers that own a position of the finest grid (counted from 1), coarse first; may be empty if truncated.

        Raises:
            PyramidError: the position lies outside the finest grid.
        """
        place = _grid(position, "a position")
        if len(place) != len(self.finest) or any(at > size for at, size in zip(place, self.finest, strict=True)):
            raise PyramidError(f"position {place} lies outside the finest grid {self.finest} (positions count from 1)")
        return tuple(layer for layer in range(1, len(self) + 1) if place in self._position_sets[layer - 1])

    def words_per_position(self) -> npt.NDArray[np.int32]:
        """How many layers own each cell, int32 of the finest grid's shape; 0 where a truncated pyramid has no word."""
        held = np.zeros(self.finest, dtype=np.int32)
        for layer in range(1, len(self) + 1):
            held[self.indices(layer)] += 1
        return held

    @cached_property
    def _position_sets(self) -> tuple[frozenset[tuple[int, ...]], ...]:
        return tuple(frozenset(self.positions(layer)) for layer in range(1, len(self) + 1))

    def _layer(self, layer: int, what: str = "layer") -> int:
        number = checks.count(what, layer, least=None, error=PyramidError)
        if not 1 <= number <= len(self):
            raise PyramidError(f"{what}={number} is out of range; this pyramid has layers 1 to {len(self)}")
        return number

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: ``{"grids": [[...], ...], "finest": [...]}``."""
        return {"grids": [list(grid) for grid in self.grids], "finest": list(self.finest)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PyramidLayout:
        """The layout that ``to_dict`` wrote; ``finest`` may be left out.

        Raises:
            PyramidError: no grids, or grids that do not fit.
        """
        keys = _keys(document, "a layout", "grids")
        finest = _sequence(keys.get("finest") or (), "a layout's 'finest' must be a list of sizes")
        return cls(keys["grids"], tuple(finest))

    def __str__(self) -> str:
        return " + ".join("x".join(map(str, grid)) for grid in self.grids)


@dataclass(frozen=True, eq=False)
class TokenPyramid:
    """The words of one image: ids per layer on a layout, named by a vocabulary.

    Args:
        ids: one integer array per layer, coarse first, of the shapes of ``layout.grids``. Copied to int32 and
            made read-only.
        layout: the grids.
        vocabulary: what the ids name. None for character art: the ids are Unicode code points (printable ones),
            and each row of a grid is one word.

    Raises:
        PyramidError: a wrong number of layers, a wrong shape or dtype, or an id outside the vocabulary.
    """

    ids: tuple[IdArray, ...]
    layout: PyramidLayout
    vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        layers = _sequence(self.ids, "ids must be a sequence of integer arrays, one per layer")
        if len(layers) != len(self.layout):
            raise PyramidError(f"{len(layers)} layers of ids given, the layout has {len(self.layout)} ({self.layout})")
        checked = tuple(
            self._checked(number, values, grid)
            for number, (values, grid) in enumerate(zip(layers, self.layout.grids, strict=True), start=1)
        )
        object.__setattr__(self, "ids", checked)

    def _checked(self, number: int, values: object, grid: tuple[int, ...]) -> IdArray:
        try:
            array = np.asarray(values)
        except (ValueError, OverflowError) as error:  # ragged lists, integers beyond any dtype
            raise PyramidError(f"the ids of layer {number} are not an array of whole numbers: {error}") from None
        if array.shape != grid:
            raise PyramidError(f"the ids of layer {number} have shape {array.shape}; the layout says {grid}")
        if array.dtype.kind not in "iu":
            raise PyramidError(f"the ids of layer {number} must be whole numbers; got dtype {array.dtype}")
        smallest, largest = int(array.min()), int(array.max())
        if smallest < 0:
            raise PyramidError(f"the ids of layer {number} hold {smallest}; ids are 0 or more")
        if self.vocabulary is None:
            for code in np.unique(array).tolist():
                if code > _LAST_CODE_POINT or not chr(code).isprintable():
                    raise PyramidError(f"the ids of layer {number} hold {code}, no printable character's code point")
        elif largest >= len(self.vocabulary):
            raise PyramidError(
                f"the ids of layer {number} hold {largest}; the vocabulary {self.vocabulary.name!r} "
                f"has ids 0 to {len(self.vocabulary) - 1}"
            )
        fixed = array.astype(np.int32, order="C", copy=True)
        fixed.setflags(write=False)
        return fixed

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self.ids)

    @property
    def k(self) -> int:
        """The number of words: ``len(self.words())``."""
        if self.vocabulary is None:
            return sum(count // grid[-1] for count, grid in zip(self.layout.counts, self.layout.grids, strict=True))
        return self.layout.cumulative[-1]

    def words(self, layer: int | None = None) -> list[str]:
        """The words of one layer in raster order, or of all layers, coarse to fine (flat).

        Args:
            layer: from 1; None for all.

        Raises:
            PyramidError: no such layer.
        """
        if layer is None:
            return [word for number in range(1, self.layers + 1) for word in self.words(number)]
        array = self.ids[self.layout._layer(layer) - 1]
        if self.vocabulary is None:
            return ["".join(map(chr, row)) for row in array.reshape(-1, array.shape[-1]).tolist()]
        names = self.vocabulary.words
        return [names[index] for index in array.ravel().tolist()]

    def truncate(self, layers: int) -> TokenPyramid:
        """The first ``layers`` layers (not words), as a pyramid on the same finest grid.

        Raises:
            PyramidError: fewer than one layer, or more than there are.
        """
        layout = self.layout.truncate(layers)
        return TokenPyramid(self.ids[: len(layout)], layout, self.vocabulary)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: format, layout, ids as nested lists, and the vocabulary's name and hash (or null)."""
        vocabulary = None if self.vocabulary is None else {"name": self.vocabulary.name, "hash": self.vocabulary.hash}
        return {
            "format": _FORMAT,
            "layout": self.layout.to_dict(),
            "vocabulary": vocabulary,
            "ids": [array.tolist() for array in self.ids],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], vocabulary: Vocabulary | None = None) -> TokenPyramid:
        """The pyramid that ``to_dict`` wrote.

        Args:
            document: the dict, e.g. read from JSON.
            vocabulary: the one it was written with; None for character art.

        Raises:
            VocabularyError: ``vocabulary`` is not the one named in the document (by hash).
            PyramidError: missing keys, another format, or ids that do not fit.

        A document with parts is read as the ``ImageWords`` it was.
        """
        keys = _keys(document, "a pyramid", "format", "layout", "vocabulary", "ids")
        if "parts" in keys:
            from icl_vision.image_words import ImageWords  # which builds on this module

            return ImageWords.from_dict(keys, vocabulary)
        if keys["format"] != _FORMAT:
            raise PyramidError(f"pyramid format {keys['format']!r} is unknown; this version reads format {_FORMAT}")
        _check_vocabulary(keys["vocabulary"], vocabulary)
        return cls(keys["ids"], PyramidLayout.from_dict(keys["layout"]), vocabulary)

    def show(self, *, image: ImageSource | None = None, tokenizer: ImageTokenizer | None = None) -> Any:
        """The words laid out on their grids, as an object that notebooks display (``_repr_html_``).

        Args:
            image: the image that the words are of, drawn behind them; left out, the words stand alone.
            tokenizer: the one that made them; given, words are coloured by their similarity to the image.

        Raises:
            PyramidError: an image for a pyramid of several frames, or a pyramid that is not the tokenizer's.
            VocabularyError: a pyramid of another vocabulary than the tokenizer's.
            ImageError: the image cannot be used.
        """
        from icl_vision.viz.pyramids.notebook import show_pyramid  # the named lazy exception: show() reaches viz

        return show_pyramid(self, image=image, tokenizer=tokenizer)

    def _repr_html_(self) -> str:
        return str(self.show().html)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenPyramid):
            return NotImplemented
        return (
            self.layout == other.layout
            and _vocabulary_key(self.vocabulary) == _vocabulary_key(other.vocabulary)
            and all(np.array_equal(a, b) for a, b in zip(self.ids, other.ids, strict=True))
        )

    def __hash__(self) -> int:
        return hash((self.layout, tuple(array.tobytes() for array in self.ids)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and other processes get arrays through the constructor, so they stay read-only and checked.
        return (type(self), (self.ids, self.layout, self.vocabulary))

    def __repr__(self) -> str:
        words = self.words(1) if self.layers == 1 else [word for n in (1, 2) for word in self.words(n)]
        shown = " ".join(words[:5]) + (" ..." if self.k > min(len(words), 5) else "")
        name = "characters" if self.vocabulary is None else self.vocabulary.name
        return f"TokenPyramid({self.k} words on {self.layout}, {name}: {shown!r})"


def _vocabulary_key(vocabulary: Vocabulary | None) -> str | None:
    return None if vocabulary is None else vocabulary.hash


def _check_vocabulary(written: object, given: Vocabulary | None) -> None:
    if written is None:
        if given is not None:
            raise VocabularyError(f"this pyramid holds characters, not words of {given.name!r}; pass vocabulary=None")
        return
    if not isinstance(written, Mapping) or "hash" not in written:
        raise PyramidError(f"a pyramid's 'vocabulary' must be null or hold a name and a hash; got {_short(written)}")
    if given is None:
        raise VocabularyError(f"this pyramid was written with the vocabulary {written.get('name')!r}; pass it")
    if written["hash"] != given.hash:
        raise VocabularyError(
            f"this pyramid was written with the vocabulary {written.get('name')!r} (hash {str(written['hash'])[:12]}); "
            f"the one given is {given.name!r} (hash {given.hash[:12]})"
        )
