"""Folders handed to a classifier, and what it looks like printed and in a notebook."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_vision import FewShotClassifier
from icl_vision.contracts import Classification
from icl_vision.errors import DroppedGuaranteeWarning, ImageNotFoundError, UsageError
from icl_vision.llms.fake import FakeLLM
from icl_vision.prompting.templates import packaged_folder
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tasks.inputs import read_classes
from icl_vision.vocabulary import Vocabulary


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, grey in (("light", 230), ("dark", 20)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), grey + number, np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_a_folder_of_class_folders_is_a_support_set_and_a_folder_is_asked_about(photos: Path) -> None:
    clf = FewShotClassifier("fake", "ascii", None).fit(photos)
    assert clf.classes_ == ["dark", "light"] and len(clf.examples_) == 4
    by_hand = FewShotClassifier("fake", "ascii", None).fit(*read_classes(photos))
    assert [example.text for example in clf.examples_] == [example.text for example in by_hand.examples_]
    # In the order of their paths: dark/0, dark/1, light/0, light/1.
    paths = sorted(photos.glob("*/*.png"))
    assert clf.predict(str(photos)) == clf.predict(paths)
    assert len(clf.classify(photos / "dark")) == 2


def test_folders_that_are_none(photos: Path, tmp_path: Path) -> None:
    clf = FewShotClassifier("fake", "ascii", None)
    with pytest.raises(UsageError, match="fit needs labels"):
        clf.fit([np.zeros((8, 8), np.uint8)])
    with pytest.raises(UsageError, match="single class|no sub-folders"):
        clf.fit(photos / "dark")
    (tmp_path / "void").mkdir()
    with pytest.raises(UsageError, match="no images for 'void'"):
        clf.fit(photos)
    (tmp_path / "void").rmdir()
    clf.fit(photos)
    with pytest.raises(UsageError, match="holds no images"):
        clf.predict(photos / ".hidden")
    with pytest.raises(ImageNotFoundError, match="is a folder"):
        clf.predict([photos / "dark"])  # one answer for each item of a list: a folder in it would be several


def test_print_says_what_it_is(photos: Path) -> None:
    clf = FewShotClassifier("fake", "ascii", None)
    assert "not fitted" in str(clf)
    clf.fit(photos)
    assert str(clf) == (
        "FewShotClassifier of 2 classes (dark, light) from 4 examples: words of ascii, read by fake, scoring channel"
    )
    assert repr(clf).startswith("FewShotClassifier(")


def test_notebooks_see_it_and_nothing_in_it_is_markup() -> None:
    nasty = "<script>alert(1)</script>"
    images = [np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)]
    clf = FewShotClassifier("fake", "ascii", None).fit(images, ["<b>dark", "light"])
    one = Classification(nasty, {nasty: 0.75, "b": 0.25}, ((nasty, "sea"),), "channel", calibrated=False)
    pyramid = TokenPyramid(
        (np.array([[0, 1]], np.int32),), PyramidLayout(((1, 2),)), Vocabulary(["<i>x", "sea"], name="v")
    )
    for shown in (clf._repr_html_(), one._repr_html_(), pyramid._repr_html_()):
        assert "<script>" not in shown and "<b>dark" not in shown and "<i>x" not in shown
    assert "75%" in one._repr_html_() and "raw" in one._repr_html_()
    assert "calibrated" in Classification("a", {"a": 1.0}, (("sea",),), "channel", calibrated=True)._repr_html_()
    failed = Classification(None, None, (), None, error=UsageError("no <b>"))
    assert "failed" in failed._repr_html_() and "no &lt;b&gt;" in failed._repr_html_()
    assert "no known label" in Classification(None, None, (("sea",),), "parse", text="dunno")._repr_html_()
    assert "&lt;b&gt;dark" in clf._repr_html_() and "1 example<" in clf._repr_html_()


def test_a_template_of_ones_own_says_that_the_channel_is_lost(photos: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    source = packaged_folder() / "classification.jinja"
    (own / "classification.jinja").write_text(source.read_text())
    (photos / "own").rename(photos.parent / f"{photos.name}-own")  # not a class
    own = photos.parent / f"{photos.name}-own"
    with pytest.warns(DroppedGuaranteeWarning, match=r"add classification_channel\.jinja beside it"):
        clf = FewShotClassifier("fake", "ascii", None, templates=own).fit(photos)
    assert clf.method_ == "direct"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FewShotClassifier("fake", "ascii", None, templates=own, scoring="direct").fit(photos)  # as asked for
        FewShotClassifier(FakeLLM(scores_text=False), "ascii", None, templates=own).fit(photos)  # nothing to lose
        twin = "classification_channel.jinja"
        (own / twin).write_text((packaged_folder() / twin).read_text())
        assert FewShotClassifier("fake", "ascii", None, templates=own).fit(photos).method_ == "channel"
