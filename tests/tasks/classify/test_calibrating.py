"""Calibrated probabilities of a classifier: which map it has, one's own images, what is kept, what is refused."""

from __future__ import annotations

import copy
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from icl_vision import FewShotClassifier
from icl_vision.errors import (
    BudgetExceededError,
    CapabilityError,
    ImageError,
    LLMStatusError,
    RunMismatchError,
    StorageError,
    UsageError,
)
from icl_vision.llms import Budget, Meter, MeteredLLM, connect
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.probabilities import ProbabilityMap, packaged
from icl_vision.probabilities.packaged import Grid, MapFolder, Situation, find_map
from icl_vision.tasks import classify_many
from icl_vision.tasks.classify.calibrating import LEAST_IMAGES, content_of, prompt_digest
from icl_vision.tasks.classify.prompts import PromptBuilder
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.wrapping import WrappedTokenizer, fingerprint

COLOURS = {"warm": "red", "leafy": "green", "wet": "blue"}


@pytest.fixture
def held_out(picture):
    """Images that are not in the support set; one in five is labelled as something else than it looks."""
    images, labels = [], []
    for number in range(60):
        label = ("warm", "leafy", "wet")[number % 3]
        images.append(picture(COLOURS[label], 5 + number))
        labels.append(label if number % 5 else ("leafy", "wet", "warm")[number % 3])
    return images, labels


@pytest.fixture
def clf(overlap_llm, tokenizer, support):
    return FewShotClassifier(overlap_llm(), tokenizer, 3).fit(*support)


@pytest.fixture
def packaged_map(monkeypatch, tokenizer):
    """As if the library came with a map for the LLM, the tokenizer and the prompt of these tests."""
    channel = PromptBuilder("classification").channel()
    grid = Grid(((3.0,), (2.0, 3.0, 9.0), (1.0, 2.0)), {(3.0, w, s): w + s for w in (2, 3, 9) for s in (1, 2)}, 700)
    key = (fingerprint(tokenizer), prompt_digest(channel), "channel", True, False)
    folders = (MapFolder("overlap", {key: grid}, {}),)
    monkeypatch.setattr(packaged, "packaged_maps", lambda: folders)


# Which map ------------------------------------------------------------------------------------------------------------


def test_an_unknown_llm_stays_raw_and_says_so(clf, queries):
    assert clf.probability_map_ is None and clf.probabilities == "calibrated"
    found = clf.classify(queries[0])
    assert not any(one.calibrated for one in found) and found[0].to_dict()["calibrated"] is False
    assert clf.set_params(probabilities="raw").classify(queries[0]) == found


def test_a_known_one_is_calibrated_and_labels_and_order_stay(packaged_map, overlap_llm, tokenizer, support, queries):
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(*support)
    assert clf.probability_map_ == ProbabilityMap(5.0, "packaged", 700)  # three ways, two shots
    calibrated = clf.classify(queries[0])
    raw = clf.set_params(probabilities="raw").classify(queries[0])  # without another fit
    assert [one.calibrated for one in (*calibrated, *raw)] == [True] * 4 + [False] * 4
    for one, other in zip(calibrated, raw, strict=True):
        assert one.label == other.label
        mine, own = [*one.probabilities.values()], [*other.probabilities.values()]
        assert list(np.argsort(mine, kind="stable")) == list(np.argsort(own, kind="stable"))
        assert max(mine) < max(own) and sum(mine) == pytest.approx(1)
    np.testing.assert_allclose(
        clf.set_params(probabilities="calibrated").predict_proba(queries[0]),
        [list(one.probabilities.values()) for one in calibrated],
    )


def test_ties_are_broken_as_ever(packaged_map, overlap_llm, tokenizer, picture):
    same = [picture("red"), picture("red", 3), picture("red", 6)]
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(same, ["c", "a", "b"])
    (one,) = clf.classify([picture("red", 9)])
    assert one.calibrated and one.label == "a" and len(set(one.probabilities.values())) == 1


def test_wrappers_of_the_llm_and_the_tokenizer_hand_the_map_on(packaged_map, overlap_llm, tokenizer, support):
    metered = MeteredLLM(overlap_llm(), Meter())
    clf = FewShotClassifier(metered, WrappedTokenizer(tokenizer), 3).fit(*support)
    assert clf.probability_map_ is not None


@pytest.mark.parametrize(
    "options",
    [
        {"repeats": 1},
        {"selection": "nearest", "shots": 1},
        {"scoring": "direct"},
        {"ensemble": None},
        {"calibration": "contextual"},
        {"template": "classification_palm"},
        {"k": 2},
    ],
)
def test_what_the_map_was_not_fitted_for_stays_raw(packaged_map, overlap_llm, tokenizer, support, options):
    clf = FewShotClassifier(overlap_llm(), tokenizer, **{"k": 3, **options}).fit(*support)
    assert clf.probability_map_ is None


@pytest.mark.parametrize("options", [{"induction": False}, {"order_seed": None}, {"shots": 1}, {"selection": "random"}])
def test_what_changes_nothing_in_its_prompts_keeps_it(packaged_map, overlap_llm, tokenizer, support, options):
    assert FewShotClassifier(overlap_llm(), tokenizer, 3, **options).fit(*support).probability_map_ is not None


def test_an_own_template_stays_raw_until_it_says_the_same(packaged_map, overlap_llm, tokenizer, support, tmp_path):
    packaged_templates = PromptBuilder("classification").template.info.path.parent
    for name in ("classification", "classification_channel"):
        text = (packaged_templates / f"{name}.jinja").read_text(encoding="utf-8")
        (tmp_path / f"{name}.jinja").write_text(text, encoding="utf-8")
    options = {"k": 3, "templates": tmp_path}
    assert FewShotClassifier(overlap_llm(), tokenizer, **options).fit(*support).probability_map_ is not None
    mine = (tmp_path / "classification_channel.jinja").read_text(encoding="utf-8")
    mine = mine.replace("{{ label }}:\n{% endblock %}", "A {{ label }}:\n{% endblock %}")
    (tmp_path / "classification_channel.jinja").write_text(mine, encoding="utf-8")
    assert FewShotClassifier(overlap_llm(), tokenizer, **options).fit(*support).probability_map_ is None


def test_what_is_beyond_the_measured_is_said(packaged_map, overlap_llm, tokenizer, picture, caplog):
    images = [picture("red", shade) for shade in range(6)]
    with caplog.at_level("INFO", logger="icl_vision"):
        clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(images, ["a", "b"] * 3)
    assert clf.probability_map_.note == "3 shots taken as 2, the nearest measured"
    assert "3 shots taken as 2" in caplog.text


@pytest.mark.parametrize("tokenizer", ["words-photo", "spae-photo-128"])
@pytest.mark.parametrize("contextual", [False, True])
@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (5, 1), (5, 3), (5, 5), (28, 3), (28, 2.5)])
def test_the_library_comes_with_maps_for_its_defaults(tokenizer, contextual, ways, shots):
    """Should an identity, a template or a fingerprint change, the maps would be lost without a word."""
    pytest.importorskip("xllamacpp")
    prompt = prompt_digest(PromptBuilder("classification").channel())
    words = fingerprint(ImageTokenizer.from_pretrained(tokenizer))
    llm = connect("local").identity
    found = find_map(Situation(llm, prompt, words, "channel", True, contextual, 5, ways, shots))
    assert found is not None and found.source == "packaged" and found.note == ""
    assert 3 < found.temperature < 8  # the scores are far too sure as they are
    if tokenizer == "words-photo":
        direct = prompt_digest(PromptBuilder("classification"))
        for method, digest in (("channel", prompt), ("direct", direct)):
            assert find_map(Situation(llm, digest, words, method, False, contextual, 5, ways, shots)) is not None
    assert find_map(Situation(llm, prompt, words, "channel", True, contextual, 21, ways, shots)) is None


def test_a_wrong_value_is_refused_at_fit_and_at_the_call(clf, overlap_llm, tokenizer, support, queries):
    with pytest.raises(UsageError, match="probabilities must be one of 'calibrated', 'raw'; got 'sure'"):
        FewShotClassifier(overlap_llm(), tokenizer, 3, probabilities="sure").fit(*support)
    with pytest.raises(UsageError, match="probabilities must be one of"):
        clf.set_params(probabilities="sure").classify(queries[0])


# One's own images -----------------------------------------------------------------------------------------------------


def test_calibrating_on_own_images(clf, held_out, queries):
    before = clf.classify(queries[0])
    assert clf.calibrate_probabilities(*held_out) is clf
    found = clf.probability_map_
    assert found.source == "own" and found.n == 60 and "60 images of 3 classes" in found.note
    measured = found.measured
    assert measured["raw"]["n"] == measured["calibrated"]["n"] == 60
    assert measured["calibrated"]["ece"] < measured["raw"]["ece"]
    after = clf.classify(queries[0])
    assert [one.label for one in after] == [one.label for one in before] and all(one.calibrated for one in after)
    shares, _ = clf.predict_proba(held_out[0]), clf.set_params(probabilities="raw")
    assert abs(shares.max(axis=1).mean() - 0.8) < abs(clf.predict_proba(held_out[0]).max(axis=1).mean() - 0.8)


async def test_calibrating_is_the_same_in_a_loop(clf, held_out):
    twin = copy.copy(clf)
    await twin.acalibrate_probabilities(*held_out)
    assert clf.probability_map_ is None
    assert clf.calibrate_probabilities(*held_out).probability_map_ == twin.probability_map_


def test_it_asks_for_raw_probabilities_whatever_was_before(clf, held_out):
    first = clf.calibrate_probabilities(*held_out).probability_map_
    assert clf.calibrate_probabilities(*held_out).probability_map_ == first  # not fitted on top of itself
    assert clf.set_params(probabilities="raw").calibrate_probabilities(*held_out).probability_map_ == first


def test_another_fit_forgets_it(clf, held_out, support):
    clf.calibrate_probabilities(*held_out)
    assert clf.fit(*support).probability_map_ is None


@pytest.mark.parametrize("form", ["same object", "array", "bytes", "path"])
def test_support_images_are_refused_in_every_form(clf, support, held_out, tmp_path, form):
    image = support[0][2]
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path = tmp_path / "copy.png"
    path.write_bytes(buffer.getvalue())
    forms = {"same object": image, "array": np.asarray(image), "bytes": buffer.getvalue(), "path": path}
    images = [*held_out[0], forms[form]]
    with pytest.raises(UsageError, match=r"images\[60\].* is one of the support images"):
        clf.calibrate_probabilities(images, [*held_out[1], support[1][2]])
    assert clf.probability_map_ is None and len(clf.llm_.asked) == 0


def test_support_images_given_as_files_are_known_again(overlap_llm, tokenizer, support, held_out, tmp_path):
    paths = []
    for number, image in enumerate(support[0]):
        image.save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(paths, support[1])
    with pytest.raises(UsageError, match=r"images\[0\] .* is one of the support images|images\[0\] is one"):
        clf.calibrate_probabilities([support[0][0], *held_out[0]], [support[1][0], *held_out[1]])
    with pytest.raises(UsageError, match=r"0\.png.*is one of the support images"):
        clf.calibrate_probabilities([paths[0], *held_out[0]], [support[1][0], *held_out[1]])


def test_too_few_images_say_how_many(clf, held_out):
    images, labels = held_out
    with pytest.raises(UsageError, match=f"needs {LEAST_IMAGES} different images or more .* got 49"):
        clf.calibrate_probabilities(images[:49], labels[:49])
    with pytest.raises(UsageError, match="got 1"):  # the same picture fifty times is one
        clf.calibrate_probabilities([images[0]] * 50, labels[:1] * 50)
    with pytest.raises(UsageError, match="equal length; got 60 images and 59 labels"):
        clf.calibrate_probabilities(images, labels[1:])
    with pytest.raises(UsageError, match="'dry' is no class of this classifier.*'leafy', 'warm', 'wet'"):
        clf.calibrate_probabilities(images, ["dry", *labels[1:]])
    assert clf.llm_.asked == []


def test_what_gives_no_probabilities_cannot_be_calibrated(overlap_llm, tokenizer, support, held_out):
    clf = FewShotClassifier(overlap_llm(scores_text=False), tokenizer, 3).fit(*support)
    with pytest.raises(CapabilityError, match="scoring by 'parse' gives no probabilities to calibrate"):
        clf.calibrate_probabilities(*held_out)
    assert clf.probability_map_ is None and not clf.classify(held_out[0][:1])[0].calibrated


def test_a_bad_image_is_named_and_nothing_changes(clf, held_out, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"images\[60\]"):
        clf.calibrate_probabilities([*held_out[0], tmp_path / "bad.png"], [*held_out[1], "wet"])
    assert clf.probability_map_ is None


def test_a_plan_says_what_it_would_ask(overlap_llm, tokenizer, support, held_out):
    dry = FewShotClassifier(DryLLM(overlap_llm()), tokenizer, 3).fit(*support)
    planned = dry.plan_calibration(*held_out)
    assert planned.queries == 60 and planned.usage == dry.plan(held_out[0]).usage
    with pytest.raises(UsageError, match="different images or more"):
        dry.plan_calibration(held_out[0][:3], held_out[1][:3])


def test_a_budget_stops_it_and_a_run_folder_keeps_what_was_answered(
    overlap_llm, tokenizer, support, held_out, tmp_path
):
    class Counting(overlap_llm):
        def __init__(self, most):
            super().__init__()
            self.most = most

        async def _score(self, pairs, *, terminator):
            if len(self.asked) >= self.most:
                raise LLMStatusError("no money left", 402)
            return await super()._score(pairs, terminator=terminator)

    metered = MeteredLLM(overlap_llm(), Meter(budget=Budget(requests=3)))
    with pytest.raises(BudgetExceededError):
        FewShotClassifier(metered, tokenizer, 3).fit(*support).calibrate_probabilities(*held_out)

    clf = FewShotClassifier(Counting(2), tokenizer, 3, concurrency=1).fit(*support)
    with pytest.raises(LLMStatusError, match="no money left"):
        clf.calibrate_probabilities(*held_out, out=tmp_path / "run")
    assert clf.probability_map_ is None
    clf.llm_.most, clf.llm_.asked = 99, []
    clf.calibrate_probabilities(*held_out, out=tmp_path / "run", resume=True)
    assert 0 < len(clf.llm_.asked) < 4  # two of the four calls were answered before
    whole = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(*support).calibrate_probabilities(*held_out)
    assert clf.probability_map_.temperature == pytest.approx(whole.probability_map_.temperature)


# What is kept ---------------------------------------------------------------------------------------------------------


def test_the_map_is_saved_and_read_back(clf, held_out, queries, overlap_llm, colour_tokenizer, tmp_path):
    clf.calibrate_probabilities(*held_out)
    clf.save(tmp_path / "clf.json")
    again = FewShotClassifier.load(tmp_path / "clf.json", llm=overlap_llm(), tokenizer=colour_tokenizer())
    assert again.probability_map_ == clf.probability_map_ and again.probabilities == "calibrated"
    np.testing.assert_array_equal(again.predict_proba(queries[0]), clf.predict_proba(queries[0]))
    with pytest.raises(UsageError, match="is one of the support images"):  # known from the file
        again.calibrate_probabilities([*held_out[0], queries[0][3]], [*held_out[1], "warm"])
    document = json.loads((tmp_path / "clf.json").read_text())
    assert document["probabilities"]["temperature"] == clf.probability_map_.temperature
    for wrong in ({"temperature": -1}, [], "high"):
        (tmp_path / "bad.json").write_text(json.dumps({**document, "probabilities": wrong}))
        with pytest.raises(StorageError, match="not a saved classifier, or is damaged"):
            FewShotClassifier.load(tmp_path / "bad.json", llm=overlap_llm(), tokenizer=colour_tokenizer())


def test_a_packaged_map_is_not_written_but_found_again(
    packaged_map, overlap_llm, tokenizer, support, colour_tokenizer, tmp_path
):
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(*support)
    clf.save(tmp_path / "clf.json")
    assert "probabilities" not in {key for key in json.loads((tmp_path / "clf.json").read_text()) if key != "params"}
    again = FewShotClassifier.load(tmp_path / "clf.json", llm=overlap_llm(), tokenizer=colour_tokenizer())
    assert again.probability_map_ == clf.probability_map_


def test_a_file_of_the_first_version_goes_on_giving_its_numbers(
    packaged_map, overlap_llm, tokenizer, support, queries, held_out, tmp_path
):
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3, probabilities="raw").fit(*support)
    clf.save(tmp_path / "clf.json")
    document = json.loads((tmp_path / "clf.json").read_text())
    del document["params"]["probabilities"]
    del document["pictures"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = FewShotClassifier.load(tmp_path / "old.json", llm=overlap_llm(), tokenizer=tokenizer)
    assert old.probabilities == "raw"
    np.testing.assert_array_equal(old.predict_proba(queries[0]), clf.predict_proba(queries[0]))
    assert old.set_params(probabilities="calibrated").classify(queries[0])[0].calibrated
    with pytest.raises(UsageError, match="does not say which its support images were.*fit it again"):
        old.calibrate_probabilities(*held_out)


def test_copies_and_pickles_keep_it(held_out, picture, queries):
    clf = FewShotClassifier("fake", "ascii", None).fit([picture("red"), picture("blue")], ["a", "b"])
    images, labels = held_out
    clf.calibrate_probabilities(images, [("a", "b")[number % 2] for number, _ in enumerate(labels)])
    own = clf.probability_map_
    assert own is not None and own.source == "own"
    assert copy.deepcopy(clf).probability_map_ == own
    again = pickle.loads(pickle.dumps(clf))  # noqa: S301  (its own)
    assert again.probability_map_ == own
    assert [one.calibrated for one in again.classify(queries[0])] == [True] * 4


def test_a_run_goes_on_only_with_the_same_probabilities(
    packaged_map, overlap_llm, tokenizer, support, queries, tmp_path
):
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(*support)
    outcome = classify_many(clf, queries[0], tmp_path / "run")
    assert all(row["calibrated"] for row in outcome.rows)
    with pytest.raises(RunMismatchError, match=r"\(probabilities differ\)"):
        classify_many(copy.copy(clf).set_params(probabilities="raw"), queries[0], tmp_path / "run", resume=True)
    assert classify_many(clf, queries[0], tmp_path / "run", resume=True).kept == 4


def test_the_digest_of_a_picture_is_that_of_its_pixels(tmp_path):
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    forms = [image, np.asarray(image), tmp_path / "a.png", str(tmp_path / "b.bmp"), (tmp_path / "a.png").read_bytes()]
    assert len({content_of(form)[0] for form in forms}) == 1
    assert content_of(image.transpose(Image.Transpose.ROTATE_90))[0] != content_of(image)[0]
    with (tmp_path / "a.png").open("rb") as handle:
        digest, kept = content_of(handle)
        assert digest == content_of(image)[0] and content_of(kept)[0] == digest
