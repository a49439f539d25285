"""Maps from scores to probabilities: the order they keep, their form in a file, the packaged ones between measured."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.errors import ArtefactDamagedError, UsageError
from icl_vision.probabilities import ProbabilityMap
from icl_vision.probabilities.packaged import MapFolder, Situation, is_same_llm

SCORES = st.lists(st.floats(-300, 0) | st.just(-math.inf), min_size=2, max_size=40)


@given(SCORES, st.floats(0.05, 200))
def test_every_map_keeps_the_order_of_labels_and_ties(scores, temperature):
    shares = ProbabilityMap(temperature)(scores)
    assert shares.sum() == pytest.approx(1) and (shares >= 0).all()
    if not any(map(math.isfinite, scores)):
        assert shares == pytest.approx(1 / len(scores))
        return
    for one, share in zip(scores, shares, strict=True):
        for other, its in zip(scores, shares, strict=True):
            assert not (one > other and share < its)  # never turned round
            assert one != other or share == its  # a tie stays one
    # (the first of equals is the label, before and after)
    assert int(np.argmax(shares)) <= int(np.argmax(scores)) or shares.max() > shares[int(np.argmax(scores))]
    assert shares[int(np.argmax(scores))] == shares.max()


@given(SCORES.filter(lambda scores: any(map(math.isfinite, scores))))
def test_a_temperature_of_one_is_the_raw_probability_and_more_is_less_sure(scores):
    raw = np.exp(np.asarray(scores) - np.logaddexp.reduce(scores))
    np.testing.assert_allclose(ProbabilityMap(1.0)(scores), raw, rtol=1e-9, atol=1e-300)
    assert ProbabilityMap(4.0)(scores).max() <= raw.max() + 1e-12


@pytest.mark.parametrize("temperature", [0, -1, 0.01, 1e6, math.nan, math.inf, True, "3"])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(UsageError, match=r"a number from 0\.05 to 200; got"):
        ProbabilityMap(temperature)


def test_a_map_goes_through_json():
    one = ProbabilityMap(3.25, "own", 120, "a note", {"raw": {"ece": 0.2}})
    again = ProbabilityMap.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one and again.measured == one.measured


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"temperature": 2.0, "source": "elsewhere", "n": 1},
        {"temperature": 2.0, "source": "own", "n": -1},
        {"temperature": "2", "source": "own", "n": 1},
        {"temperature": 2.0, "source": "own", "n": 1, "note": 3},
        {"temperature": 2.0, "source": "own", "n": 1, "measured": []},
    ],
)
def test_a_document_that_is_no_map_is_refused(document):
    with pytest.raises(UsageError, match="probability map"):
        ProbabilityMap.from_dict(document)


# Packaged -------------------------------------------------------------------------------------------------------------

SITUATION = Situation("local:tiny|completions", "prompt", "tokenizer", "channel", True, False, 5, 5, 3)


def folder_of(path: Path, **changes) -> Path:
    rule = {
        "tokenizer_hash": "tokenizer",
        "prompt": "prompt",
        "method": "channel",
        "ensemble": True,
        "contextual": False,
        "axes": {"words": [5], "ways": [2, 5, 20], "shots": [1, 4]},
        "temperatures": [[[8.0, 2.0], [6.0, 3.0], [5.0, 4.0]]],
        "n": 1000,
        **changes,
    }
    path.mkdir(exist_ok=True)
    data = json.dumps({"rules": [rule]}).encode()
    (path / "maps.json").write_bytes(data)
    card = {"format_version": 1, "kind": "probability maps", "llm": "local:tiny|completions"}
    card["files"] = {"maps.json": hashlib.sha256(data).hexdigest()}
    (path / "card.json").write_text(json.dumps(card))
    return path


def test_measured_points_are_given_back_and_others_lie_between(tmp_path):
    maps = MapFolder.load(folder_of(tmp_path / "maps"))

    def at(words=5, ways=5, shots=1):
        found = maps.find(replace(SITUATION, words=words, ways=ways, shots=shots))
        return None if found is None else found.temperature

    assert at() == pytest.approx(6.0) and at(shots=4) == pytest.approx(3.0) and at(ways=20, shots=4) == pytest.approx(4)
    assert at(shots=2) == pytest.approx(math.sqrt(6 * 3), abs=1e-4)  # half-way between 1 and 4 in the logarithm
    assert at(ways=10) == pytest.approx(math.sqrt(6 * 5), abs=1e-4)
    assert 3.0 < at(ways=3, shots=2) < 8.0
    assert at(shots=2.5) < at(shots=2)  # classes with two and three examples
    temperatures = [at(shots=shots) for shots in (1, 1.5, 2, 3, 4)]
    assert temperatures == sorted(temperatures, reverse=True)


def test_beyond_the_measured_ways_and_shots_the_nearest_is_taken_and_said(tmp_path):
    maps = MapFolder.load(folder_of(tmp_path / "maps"))
    found = maps.find(replace(SITUATION, ways=100, shots=9))
    assert found is not None and found.temperature == pytest.approx(4.0)
    assert found.note == "100 ways taken as 20, the nearest measured; 9 shots taken as 4, the nearest measured"
    assert maps.find(SITUATION).note == ""


@pytest.mark.parametrize(
    "change",
    [
        {"llm": "local:other|completions"},
        {"llm": "local:tiny"},
        {"prompt": "another template"},
        {"tokenizer": "another"},
        {"method": "direct"},
        {"ensemble": False},
        {"contextual": True},
        {"words": 4},
        {"words": 6},
    ],
)
def test_what_was_not_measured_has_no_map(tmp_path, change):
    assert MapFolder.load(folder_of(tmp_path / "maps")).find(replace(SITUATION, **change)) is None


def test_options_of_an_adapter_do_not_make_another_llm():
    assert is_same_llm("local:tiny|completions", "local:tiny|completions")
    assert is_same_llm("local:tiny|completions|deterministic", "local:tiny|completions")
    assert not is_same_llm("local:tiny|completions2", "local:tiny|completions")
    assert not is_same_llm("fallback(local:tiny|completions, fake)", "local:tiny|completions")


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": {"words": [5], "ways": [5, 2], "shots": [1]}},
        {"axes": {"words": [5], "ways": [], "shots": [1]}},
        {"axes": {"words": [0], "ways": [2], "shots": [1]}},
        {"temperatures": [[[8.0]]]},
        {"temperatures": [[[8.0, 2.0], [6.0, 3.0], [5.0, -4.0]]]},
        {"n": "many"},
    ],
)
def test_a_damaged_folder_is_named(tmp_path, changes):
    with pytest.raises(ArtefactDamagedError, match="holds no probability maps"):
        MapFolder.load(folder_of(tmp_path / "maps", **changes))


def test_a_changed_file_and_a_broken_card_are_named(tmp_path):
    folder = folder_of(tmp_path / "maps")
    (folder / "maps.json").write_text('{"rules": []}')
    with pytest.raises(ArtefactDamagedError, match=r"maps\.json"):
        MapFolder.load(folder)
    (folder / "card.json").write_text("{")
    with pytest.raises(ArtefactDamagedError, match=r"card\.json"):
        MapFolder.load(folder)
    (folder / "card.json").write_text('{"format_version": 1, "kind": "words"}')
    with pytest.raises(ArtefactDamagedError, match="describes no probability maps"):
        MapFolder.load(folder)
