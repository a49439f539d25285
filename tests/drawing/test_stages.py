"""Segments, windows and stages: every place exactly once, and what each pass is shown."""

from __future__ import annotations

import itertools

import pytest
from drawn_pictures import DIGITS, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.drawing.passes import passes_of, resolve
from icl_vision.drawing.stages import (
    Decoding,
    Near,
    Stage,
    layer_of,
    par,
    parents,
    pnar,
    shown_places,
    single_pass,
    split,
    stages_of,
    two_stage,
)
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout

PHOTO = PyramidLayout(((1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (16, 16)))
VIDEO = PyramidLayout(((1, 1, 1), (1, 2, 2), (2, 4, 4)))
layouts = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(
    lambda powers: PyramidLayout(tuple((2**power, 2**power) for power in sorted(powers)))
)
givens = st.sampled_from(["all", "none", "layers", Near(), Near(3)])


@settings(max_examples=60, deadline=None)
@given(layouts, st.data())
def test_segments_hold_every_place_exactly_once(layout, data):
    first = data.draw(st.integers(1, len(layout)))
    last = data.draw(st.integers(first, len(layout)))
    of_a_layer = st.one_of(st.none(), st.just("rows"), st.integers(1, 70))
    size = last - first + 1
    stride = data.draw(st.one_of(st.just("all"), of_a_layer, st.lists(of_a_layer, min_size=size, max_size=size)))
    segments = split(layout, stride, (first, last))
    places = [place for one in segments for place in one.places]
    begin, end = (0, *layout.cumulative)[first - 1], layout.cumulative[last - 1]
    assert places == list(range(begin, end))
    if stride == "all":
        assert len(segments) == 1
    else:
        assert all(len({layer_of(layout, place) for place in one.places}) == 1 for one in segments)
    assert all(one.layer == layer_of(layout, one.start) for one in segments)
    if stride is None:
        assert [len(one) for one in segments] == list(layout.counts[first - 1 : last])
    if stride == "rows":
        assert all(len(one) == layout.grids[one.layer - 1][1] for one in segments)
    if isinstance(stride, int):
        assert all(1 <= len(one) <= stride for one in segments)


@settings(max_examples=60, deadline=None)
@given(layouts, st.integers(1, 9), givens)
def test_a_pass_is_shown_only_what_came_before_in_earlier_waves(layout, stride, window):
    passes = passes_of(resolve([Stage(stride=stride, given=window)], layout), layout)
    wave = {place: one.wave for one in passes for place in one.segment.places}
    for one in passes:
        assert list(one.shown) == sorted(set(one.shown))
        assert all(place < one.segment.start for place in one.shown)
        assert all(wave[place] < one.wave for place in one.shown)
        assert one.wave == 0 or any(wave[place] == one.wave - 1 for place in one.shown)


def test_the_windows_of_equation_11():
    segments = split(DIGITS, 4)
    third = segments[2]  # the first four words of layer 3
    assert (third.start, third.stop, third.layer) == (5, 9, 3)
    assert shown_places(DIGITS, third, "all", 1) == (0, 1, 2, 3, 4)
    assert shown_places(DIGITS, third, "none", 1) == ()
    assert shown_places(DIGITS, third, "layers", 3) == (0, 1, 2, 3, 4)
    assert shown_places(DIGITS, third, "layers", 2) == (0,)
    assert shown_places(DIGITS, third, Near(), 1) == (1, 2)  # the upper two words of the 2x2 layer
    assert shown_places(DIGITS, third, Near(2), 1) == (1, 2, 3, 4)
    fourth = split(DIGITS, 4)[3]
    assert shown_places(DIGITS, fourth, Near(1), 1) == (1, 2, 8)
    with pytest.raises(UsageError, match="given must be 'all', 'none', 'layers' or Near"):
        shown_places(DIGITS, third, "some", 1)  # type: ignore[arg-type]  # wrong on purpose


def test_parents_lie_over_their_children():
    assert parents(DIGITS, [0]) == ()
    assert parents(DIGITS, [1, 4]) == (0,)
    assert parents(DIGITS, [5 + 15]) == (4,)
    assert parents(DIGITS, [21 + 6]) == (5 + 6,)  # equal grids: the cell itself
    assert parents(PHOTO, range(21, 29)) == (5, 6, 7, 8)
    assert parents(VIDEO, [5 + 16]) == (1,)  # frame 2, first cell, under the only frame above
    uneven = PyramidLayout(((2, 2), (3, 3)), (6, 6))
    assert parents(uneven, [4 + 1]) == (0, 1)  # the middle column lies under both


def test_every_child_has_a_parent_that_covers_it():
    for layout in (PHOTO, VIDEO):
        for layer in range(2, len(layout) + 1):
            begin = layout.cumulative[layer - 2]
            over = [parents(layout, [begin + at]) for at in range(layout.counts[layer - 1])]
            assert all(len(one) == 1 for one in over)
            assert {one[0] for one in over} == set(range(begin - layout.counts[layer - 2], begin))


def test_waves_say_what_can_run_side_by_side():
    def waves(stages, layout=DIGITS):
        return [one.wave for one in passes_of(resolve(stages, layout), layout)]

    assert waves(pnar(4)) == [0] * 10
    assert waves(par(4)) == list(range(10))
    assert waves(par(stride="all")) == [0]
    assert waves(par(stride=None)) == [0, 1, 2, 3]
    assert waves(single_pass()) == [0]
    assert waves([Stage(stride=4, given=Near())]) == [0, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert waves(two_stage(2, 2, 8)) == [0, 1, 2, 3, 3, 3, 3]
    assert waves([Stage(layers=(4, 4), stride=4, given="layers")]) == [0] * 4


def test_two_stages_are_those_of_the_paper():
    upper, lower = resolve(two_stage(2, 4, 8, allowed="place"), DIGITS)
    assert (upper.layers, upper.stride, upper.given, upper.condition, upper.template) == (
        (1, 2), 4, "all", "all", "progressive",
    )  # fmt: skip
    assert (lower.layers, lower.stride, lower.given, lower.condition, lower.template) == (
        (3, 4), 8, "layers", "none", "refinement",
    )  # fmt: skip
    assert upper.allowed == lower.allowed == "place"
    assert two_stage(2, 4, template="mine")[1].template == "mine"
    for stage in (upper, lower, Stage(stride=[1, None]), Stage(given=Near(2))):
        assert (
            Stage(**{**stage.to_dict(), "given": stage.given, "decoding": stage.decoding}).to_dict() == stage.to_dict()
        )
    assert [stage.stride for stage in two_stage(2, 4)] == [4, 4]
    assert [stage.stride for stage in two_stage(2, 4, None)] == [4, None]
    assert [stage.stride for stage in two_stage(2, (1, 2), "rows")] == [(1, 2), "rows"]


def test_one_maker_of_stages_by_name() -> None:
    assert stages_of("par", stride=3) == par(3) and stages_of("pnar", stride=3) == pnar(3)
    assert stages_of("near", stride=3) == (Stage(stride=3, given=Near()),)
    assert stages_of("single", stride=3) == single_pass() == (Stage(stride="all", given="none"),)
    assert stages_of("two-stage", stride=3, upper=2) == two_stage(2, 3)
    first, second = stages_of("two-stage", stride=(1, 2, 4, 8), upper=2, template="mine", allowed="layer")
    assert (first.stride, second.stride, second.condition) == ((1, 2), (4, 8), "none")  # divided between the stages
    assert {first.template, second.template} == {"mine"} and {first.allowed, second.allowed} == {"layer"}
    refined = stages_of(
        "near", stride=(1, 2), upper=2, refining={"stride": "rows", "given": "all", "condition": "same"}
    )
    assert [(stage.layers, stage.stride, stage.given, stage.condition) for stage in refined] == [
        ((1, 2), (1, 2), Near(), "all"), ((3, -1), "rows", "all", "same"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stride", "written"),
    [(4, 4), ((1, None, 16, "rows"), [1, None, 16, 4]), (None, [None] * 4), ("rows", [1, 2, 4, 4]), ("all", None)],
)
def test_runs_of_older_versions_are_known_by_the_same_stages(stride, written):
    """0.1.0 wrote whole layers as a null each, rows as numbers, and null where everything is one segment."""
    (stage,) = resolve([Stage(stride=stride)], DIGITS)
    assert stage.to_dict()["stride"] == written


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: split(SMALL, 0),
            r"the stride of layer 1 must be a whole number of 1 or more words, or 'rows', or None \(the whole layer\); "
            "got 0",
        ),
        (lambda: split(SMALL, [1, "all"]), "the stride of layer 2 must be a whole number .*; got 'all'"),
        (lambda: Stage(stride="columns"), "stride must be a number of words, 'rows', None .*; got 'columns'"),
        (lambda: Stage(stride=0.5), "stride must be a number of words.*; got 0.5"),
        (lambda: stages_of("up"), "passes must be one of 'par', 'near', 'pnar', 'two-stage', 'single'; got 'up'"),
        (lambda: split(SMALL, [1, 2, 3]), r"one stride for each of the 2 layers 1 to 2; got \[1, 2, 3\]"),
        (lambda: split(SMALL, 1, (2, 3)), "1 <= first <= last <= 2; got 2, 3"),
        (lambda: layer_of(SMALL, 5), "place 5 lies outside this pyramid, whose places are 0 to 4"),
        (lambda: Near(-1), r"Near\(last=\) must be a whole number of 0 or more words; got -1"),
        (
            lambda: Stage(allowed="some"),
            "allowed must be one of 'shown', 'own', 'place', 'layer', 'context', 'vocabulary'; got 'some'",
        ),
        (lambda: Stage(condition="x"), "condition must be one of 'all', 'same', 'none'; got 'x'"),
        (lambda: Decoding(temperature=-1), "temperature must be a number of 0 or more; got -1"),
        (lambda: Decoding(best_of=0), "best_of must be a whole number of 1 or more"),
        (lambda: Decoding(best_of=2), "best_of=2 with temperature=0"),
        (lambda: Decoding(longest_run=0), "longest_run must be a whole number of 1 or more"),
        (lambda: resolve([], SMALL), "stages must be a sequence of at least one Stage"),
        (lambda: resolve([Stage(), Stage()], SMALL), "stage 2 decodes layers 1 to 2; .*the one before ends at 2"),
        (lambda: resolve([Stage(layers=(1, 3))], SMALL), "stage 1 decodes layers 1 to 3"),
    ],
)
def test_what_cannot_be(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_all_places_once_over_stages():
    passes = passes_of(resolve(two_stage(3, 5, 7), PHOTO), PHOTO)
    assert list(itertools.chain(*(one.segment.places for one in passes))) == list(range(597))
    assert [one.number for one in passes] == list(range(1, len(passes) + 1))
