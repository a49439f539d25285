"""PyramidLayout and TokenPyramid: eq. (1) against a literal transcription, and every refusal with its message."""

from __future__ import annotations

import copy
import json
import math
import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.errors import PyramidError, VocabularyError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.vocabulary import Vocabulary

PHOTO = PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16)))
DIGITS = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))
VIDEO = PyramidLayout(((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (4, 16, 16)))
WORDS = Vocabulary([f"word{number}" for number in range(600)], name="test-words")


def spae_positions(grid: tuple[int, ...], finest: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Eq. (1) of SPAE, letter by letter: {(h'i - ceil(h'/2) + 1, ...) | (i, ...) in [1, h_l] x ...}, h' = h_D / h_l."""
    positions = set()
    for index in product(*(range(1, size + 1) for size in grid)):
        position = []
        for i, h_l, h_d in zip(index, grid, finest, strict=True):
            ratio = h_d / h_l
            assert ratio == int(ratio)
            position.append(int(ratio) * i - math.ceil(ratio / 2) + 1)
        positions.add(tuple(position))
    return positions


def filled(layout: PyramidLayout, vocabulary: Vocabulary | None = WORDS, seed: int = 0) -> TokenPyramid:
    generator = np.random.default_rng(seed)
    low, high = (33, 127) if vocabulary is None else (0, len(vocabulary))
    return TokenPyramid(tuple(generator.integers(low, high, grid) for grid in layout.grids), layout, vocabulary)


@st.composite
def layouts(draw: st.DrawFn) -> PyramidLayout:
    """Any pyramid: 2-D or 3-D, not square, each grid a multiple of the one before."""
    axes = draw(st.integers(2, 3))
    grid = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    grids = [grid]
    for _ in range(draw(st.integers(0, 3))):
        grid = tuple(size * draw(st.integers(1, 3 if axes == 2 else 2)) for size in grid)
        grids.append(grid)
    return PyramidLayout(tuple(grids))


class TestLayout:
    def test_counts_of_the_papers_pyramid(self) -> None:
        assert PHOTO.counts == (1, 4, 16, 64, 256, 256)
        assert PHOTO.cumulative == (1, 5, 21, 85, 341, 597)
        assert DIGITS.cumulative == (1, 5, 21, 37)
        assert VIDEO.cumulative == (1, 5, 21, 149, 1173, 2197)
        assert len(PHOTO) == 6
        assert str(DIGITS) == "1x1 + 2x2 + 4x4 + 4x4"

    def test_rows_named_in_the_literature(self) -> None:
        rows = [sorted({row for row, _ in PHOTO.positions(layer)}) for layer in (1, 2, 3, 4, 5)]
        assert rows == [[9], [5, 13], [3, 7, 11, 15], list(range(2, 17, 2)), list(range(1, 17))]

    def test_layers_1_to_4_never_overlap_and_a_position_holds_at_most_3_words(self) -> None:
        sets = [set(PHOTO.positions(layer)) for layer in range(1, 5)]
        assert len(set.union(*sets)) == sum(map(len, sets)) == 85
        held = PHOTO.words_per_position()
        assert held.shape == (16, 16)
        assert dict(zip(*np.unique(held, return_counts=True), strict=True)) == {2: 171, 3: 85}

    @given(layouts())
    @settings(max_examples=60, deadline=None)
    def test_positions_are_eq_1(self, layout: PyramidLayout) -> None:
        for layer, grid in enumerate(layout.grids, start=1):
            positions = layout.positions(layer)
            assert set(positions) == spae_positions(grid, layout.finest)
            assert len(set(positions)) == len(positions) == layout.counts[layer - 1]
            assert list(positions) == sorted(positions)  # raster order

    @given(layouts())
    @settings(max_examples=30, deadline=None)
    def test_owners_indices_and_counts_agree(self, layout: PyramidLayout) -> None:
        held = layout.words_per_position()
        assert held.sum() == layout.cumulative[-1]
        for position in product(*(range(1, size + 1) for size in layout.finest)):
            owners = layout.owners(position)
            assert owners == tuple(layer for layer in range(1, len(layout) + 1) if position in layout.positions(layer))
            assert len(owners) == held[tuple(at - 1 for at in position)]

    @given(layouts())
    @settings(max_examples=30, deadline=None)
    def test_each_position_lies_in_the_block_its_word_stands_for(self, layout: PyramidLayout) -> None:
        for layer, grid in enumerate(layout.grids, start=1):
            for word, place in zip(np.ndindex(*grid), layout.positions(layer), strict=True):
                for i, parts, whole, at in zip(word, grid, layout.finest, place, strict=True):
                    block = whole // parts
                    assert i * block < at <= (i + 1) * block

    def test_indices_are_positions_from_zero(self) -> None:
        cells = np.arange(256).reshape(16, 16)
        assert cells[PHOTO.indices(2)].tolist() == [4 * 16 + 4, 4 * 16 + 12, 12 * 16 + 4, 12 * 16 + 12]

    def test_a_truncated_pyramid_keeps_its_places(self) -> None:
        two = PHOTO.truncate(2)
        assert two.grids == ((1, 1), (2, 2))
        assert two.finest == (16, 16)
        assert two.positions(1) == PHOTO.positions(1) == ((9, 9),)
        assert two.owners((1, 1)) == ()
        assert two.truncate(1) == PHOTO.truncate(1)
        assert two != PyramidLayout(((1, 1), (2, 2)))
        assert PyramidLayout.from_dict(two.to_dict()) == two

    def test_flat(self) -> None:
        flat = PyramidLayout.flat(5)
        assert flat == PyramidLayout(((1, 5),))
        assert flat.cumulative == (5,)
        assert flat.positions(1) == ((1, 1), (1, 2), (1, 3), (1, 4), (1, 5))

    @pytest.mark.parametrize(("k", "layers"), [(1, 1), (5, 2), (597, 6), (np.int64(21), 3)])
    def test_layers_for(self, k: int, layers: int) -> None:
        assert PHOTO.layers_for(k) == layers

    def test_layers_for_lists_what_fits(self) -> None:
        with pytest.raises(PyramidError, match="k=6 words do not fill whole layers.*one of 1, 5, 21, 85, 341, 597"):
            PHOTO.layers_for(6)

    @pytest.mark.parametrize("bad", [0, 7, -1])
    def test_layer_out_of_range(self, bad: int) -> None:
        with pytest.raises(PyramidError, match=f"layer={bad} is out of range; this pyramid has layers 1 to 6"):
            PHOTO.positions(bad)
        with pytest.raises(PyramidError, match=f"layers={bad} is out of range"):
            PHOTO.truncate(bad)

    @pytest.mark.parametrize(
        ("grids", "message"),
        [
            ((), "at least one layer"),
            (((0, 1),), "two or three sizes of 1 or more; got .0, 1."),
            (((4,),), "two or three sizes"),
            (((1, 1, 1, 1),), "two or three sizes"),
            (((1.5, 2),), "must be a whole number; got 1.5"),
            (((True, 2),), "must be a whole number; got True"),
            ((5,), r"must be \(rows, columns\).*got 5"),
            ("16", "sequence of grids, coarse first; got '16'"),
            (7, "sequence of grids"),
            (((1, 1), (1, 2, 2)), "as many axes as .1, 2, 2.; layer 1 is .1, 1."),
            (((3, 3), (16, 16)), "a multiple of every grid; layer 1: .3, 3."),
            (((4, 4), (2, 2), (4, 4)), "must not shrink, coarse to fine; layer 2 is .2, 2. after .4, 4."),
        ],
    )
    def test_grids_that_do_not_fit(self, grids: object, message: str) -> None:
        with pytest.raises(PyramidError, match=message):
            PyramidLayout(grids)  # type: ignore[arg-type]  # wrong on purpose

    @pytest.mark.parametrize("position", [(0, 1), (17, 1), (1, 1, 1), (1,)])
    def test_position_outside(self, position: tuple[int, ...]) -> None:
        with pytest.raises(PyramidError, match="position"):
            PHOTO.owners(position)

    @pytest.mark.parametrize("document", [None, [], {}, {"grids": 3}, {"grids": [[1, 1]], "finest": 3}])
    def test_from_dict_refuses(self, document: object) -> None:
        with pytest.raises(PyramidError, match="layout"):
            PyramidLayout.from_dict(document)  # type: ignore[arg-type]  # wrong on purpose


class TestPyramid:
    def test_ids_become_read_only_int32_copies(self) -> None:
        source = np.arange(5).reshape(1, 5)
        pyramid = TokenPyramid((source,), PyramidLayout.flat(5), WORDS)
        source[:] = 9
        assert pyramid.ids[0].dtype == np.int32
        assert pyramid.words() == ["word0", "word1", "word2", "word3", "word4"]
        with pytest.raises(ValueError, match="read-only"):
            pyramid.ids[0][0, 0] = 3
        with pytest.raises(AttributeError):
            pyramid.ids = ()  # type: ignore[misc]  # wrong on purpose

    def test_words_by_layer_in_raster_order(self) -> None:
        pyramid = TokenPyramid(([[7]], [[1, 2], [3, 4]]), PyramidLayout(((1, 1), (2, 2))), WORDS)  # type: ignore[arg-type]  # lists in place of arrays
        assert pyramid.words(1) == ["word7"]
        assert pyramid.words(2) == ["word1", "word2", "word3", "word4"]
        assert pyramid.words() == pyramid.words(1) + pyramid.words(2)
        assert (pyramid.k, pyramid.layers) == (5, 2)

    @pytest.mark.parametrize("bad", [0, 7, -1])
    def test_layer_numbers_start_at_1(self, bad: int) -> None:
        pyramid = filled(PHOTO)
        with pytest.raises(PyramidError, match=f"layer={bad} is out of range; this pyramid has layers 1 to 6"):
            pyramid.words(bad)

    def test_truncate_counts_layers(self) -> None:
        pyramid = filled(PHOTO)
        two = pyramid.truncate(2)
        assert two.words() == pyramid.words()[:5]
        assert two.layout == PHOTO.truncate(2)
        with pytest.raises(PyramidError, match="layers=21 is out of range"):
            pyramid.truncate(21)

    @pytest.mark.parametrize("layout", [PHOTO, DIGITS, VIDEO, PyramidLayout.flat(5), PHOTO.truncate(3)], ids=str)
    def test_dict_round_trip_through_json(self, layout: PyramidLayout) -> None:
        pyramid = filled(layout)
        document = json.loads(json.dumps(pyramid.to_dict()))
        assert document["vocabulary"] == {"name": "test-words", "hash": WORDS.hash}
        again = TokenPyramid.from_dict(document, WORDS)
        assert again == pyramid
        assert hash(again) == hash(pyramid)
        assert again.words() == pyramid.words()

    def test_equality(self) -> None:
        pyramid = filled(DIGITS)
        assert pyramid == filled(DIGITS, Vocabulary(WORDS.words, name="same words"))
        assert pyramid != filled(DIGITS, seed=1)
        assert pyramid != filled(DIGITS, Vocabulary([*WORDS.words, "more"]))
        assert pyramid != filled(DIGITS, None)
        assert pyramid != pyramid.words()
        assert len({pyramid, filled(DIGITS), filled(DIGITS, seed=1)}) == 2

    @pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])  # noqa: S301  # our own bytes
    def test_copies_stay_read_only(self, clone: object) -> None:
        pyramid = filled(DIGITS)
        again = clone(pyramid)  # type: ignore[operator]  # one of the functions above
        assert again == pyramid
        assert not any(ids.flags.writeable for ids in again.ids)

    def test_characters(self) -> None:
        art = TokenPyramid((np.array([[64, 35], [46, 46]]),), PyramidLayout(((2, 2),)))
        assert art.words(1) == ["@#", ".."]
        assert art.k == 2
        assert TokenPyramid.from_dict(json.loads(json.dumps(art.to_dict()))) == art
        assert "characters" in repr(art)

    @pytest.mark.parametrize("code", [10, 0, 127, 0xD800, 0x110000, 2**40])
    def test_characters_must_be_printable(self, code: int) -> None:
        with pytest.raises(PyramidError, match=f"layer 1 hold {code}, no printable character"):
            TokenPyramid((np.array([[code]]),), PyramidLayout(((1, 1),)))

    def test_repr_is_short_and_says_what_it_is(self) -> None:
        text = repr(filled(PHOTO))
        assert text.startswith("TokenPyramid(597 words on 1x1 + 2x2 + 4x4")
        assert "test-words" in text
        assert text.endswith("...')")
        assert len(text) < 200
        assert "..." not in repr(filled(PyramidLayout.flat(5)))

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ([[0, 1, 2, 3]], r"layer 1 have shape \(4,\); the layout says \(1, 4\)"),
            ([[[0, 1], [2, 3]]], r"shape \(2, 2\)"),
            ([[[0, 1], [2]]], "layer 1 are not an array of whole numbers"),
            ([[[0.0, 1.0, 2.0, 3.0]]], "must be whole numbers; got dtype float64"),
            ([[[True, False, True, True]]], "must be whole numbers; got dtype bool"),
            ([[["a", "b", "c", "d"]]], "must be whole numbers"),
            ([[[0, -1, 2, 3]]], "layer 1 hold -1; ids are 0 or more"),
            ([[[0, 600, 2, 3]]], "layer 1 hold 600; the vocabulary 'test-words' has ids 0 to 599"),
            ([[[0, 2**40, 2, 3]]], f"hold {2**40}"),
            ([[[0, 2**80, 2, 3]]], "layer 1"),
            ([], "0 layers of ids given, the layout has 1"),
            ("ids", "sequence of integer arrays, one per layer; got 'ids'"),
            (None, "sequence of integer arrays"),
        ],
    )
    def test_ids_that_do_not_fit(self, ids: object, message: str) -> None:
        with pytest.raises(PyramidError, match=message):
            TokenPyramid(ids, PyramidLayout.flat(4), WORDS)  # type: ignore[arg-type]  # wrong on purpose

    def test_wrong_vocabulary_is_refused(self) -> None:
        document = filled(DIGITS).to_dict()
        other = Vocabulary(["cat", "dog"], name="pets")
        with pytest.raises(VocabularyError, match=r"written with the vocabulary 'test-words' \(hash .*'pets'"):
            TokenPyramid.from_dict(document, other)
        with pytest.raises(VocabularyError, match="written with the vocabulary 'test-words'; pass it"):
            TokenPyramid.from_dict(document)
        with pytest.raises(VocabularyError, match="holds characters, not words of 'pets'"):
            TokenPyramid.from_dict(filled(DIGITS, None).to_dict(), other)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": 2}, "pyramid format 2 is unknown; this version reads format 1"),
            ({"ids": None}, "sequence of integer arrays"),
            ({"ids": [[[1]], [[1]]]}, "2 layers of ids given, the layout has 4"),
            ({"layout": None}, "a layout must be a dict"),
            ({"vocabulary": "test-words"}, "must be null or hold a name and a hash"),
        ],
    )
    def test_damaged_documents(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(PyramidError, match=message):
            TokenPyramid.from_dict({**filled(DIGITS).to_dict(), **change}, WORDS)

    def test_documents_of_another_kind(self) -> None:
        with pytest.raises(PyramidError, match="must be a dict as to_dict.. gives it; got"):
            TokenPyramid.from_dict([1, 2])  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(PyramidError, match="missing: format, layout, vocabulary, ids"):
            TokenPyramid.from_dict({})

    @given(layouts(), st.integers(0, 2**32 - 1))
    @settings(max_examples=25, deadline=None)
    def test_any_pyramid_survives_a_dict(self, layout: PyramidLayout, seed: int) -> None:
        pyramid = filled(layout, seed=seed)
        assert TokenPyramid.from_dict(json.loads(json.dumps(pyramid.to_dict())), WORDS) == pyramid


def test_show_lays_out_escaped_words() -> None:
    words = Vocabulary(["<b>", "cat", "dog", "&amp;", "'x'"], name="odd")
    layout = PyramidLayout(((1, 1), (2, 2)))
    view = TokenPyramid(([[0]], [[1, 2], [3, 4]]), layout, words).show()  # type: ignore[arg-type]  # lists in place of arrays
    html = view._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "&amp;amp;" in html
    assert html.count("<tr>") == 3
    assert "layer 2 (2x2)" in html
    art = TokenPyramid((np.array([[60, 38], [46, 46]]),), PyramidLayout(((2, 2),))).show()._repr_html_()
    assert "&lt;&amp;\n..</pre>" in art
    assert filled(VIDEO).show()._repr_html_().count("<table>") == 1 + 1 + 1 + 2 + 4 + 4
