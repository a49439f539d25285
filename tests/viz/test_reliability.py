"""The reliability diagram: what it draws, what it says to a screen reader, where it stands in a page."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from icl_vision.probabilities import reliability
from icl_vision.viz.reliability import reliability_diagram, reliability_section, summary


@pytest.fixture
def found():
    random = np.random.default_rng(0)
    shares = random.uniform(0.35, 1, 800)
    document = reliability(shares, random.random(800) < shares**2, briers=[0.3] * 800).to_dict()
    return {"probabilities": "raw", **document}


def test_a_bar_for_every_bin_that_holds_answers(found):
    drawn = ET.fromstring(reliability_diagram(found, title="a <title>"))
    bars = [one for one in drawn.iter() if one.get("class") == "right"]
    inside = [one for one in found["bins"] if one["n"]]
    assert len(bars) == len(inside) == 7
    for bar, one in zip(bars, inside, strict=True):
        assert float(bar.get("height")) == pytest.approx(240 * one["accuracy"], abs=0.06)
    label = drawn.get("aria-label")
    assert label.startswith("a <title>. calibration error 0.") and "n = 800" in label and "% right" in label
    assert len([one for one in drawn.iter() if one.get("class") == "diagonal"]) == 1


def test_the_section_draws_the_first_and_lists_all(found):
    html = reliability_section([(f"row {number}", "5w-1s-0r-i", found) for number in range(9)], diagrams=4)
    assert html.count("<svg") == 4 and html.count('<th scope="row">') == 9
    assert "row 8" in html and summary(found) in html and "0.300" in html
    assert reliability_section([]) == ""


def test_a_bin_of_one_says_one():
    label = ET.fromstring(reliability_diagram(reliability([0.95], [True]).to_dict(), title="x")).get("aria-label")
    assert "1 answer with" in label and "n = 1" in label


def test_labels_are_escaped(found):
    assert "<b>" not in reliability_section([("<b>", "<i>", found)])
