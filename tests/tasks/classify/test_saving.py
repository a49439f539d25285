"""save and load: what is written, what is not, and what a damaged or foreign file says."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from icl_vision import FewShotClassifier
from icl_vision.errors import ArtefactError, StorageError, UsageError
from icl_vision.llms import FakeLLM
from icl_vision.tokenizers import AsciiTokenizer


@pytest.fixture
def saved(overlap_llm, tokenizer, support, tmp_path):
    """A fitted classifier and the file it was saved to."""
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3, shots=1, order_seed=np.int64(7), calibration="contextual")
    clf.fit(*support)
    path = tmp_path / "clf.json"
    clf.save(path)
    return clf, path


def test_round_trip(saved, overlap_llm, colour_tokenizer, queries):
    clf, path = saved
    fresh = colour_tokenizer()
    copy = FewShotClassifier.load(path, llm=overlap_llm(), tokenizer=fresh)
    assert fresh.encoded == 0  # the words are in the file
    assert copy.predict(queries[0]) == queries[1]
    np.testing.assert_array_equal(copy.predict_proba(queries[0]), clf.predict_proba(queries[0]))
    same = {name: value for name, value in clf.get_params().items() if name not in ("llm", "tokenizer")}
    assert {name: copy.get_params()[name] for name in same} == same
    assert copy.classes_ == clf.classes_ and len(copy.examples_) == 6
    assert str(copy.prompt_for(queries[0][0])) == str(clf.prompt_for(queries[0][0]))


def test_names_bring_back_what_they_can(picture, tmp_path):
    images = [picture("red"), picture("blue")]
    clf = FewShotClassifier(FakeLLM(), AsciiTokenizer(), None).fit(images, ["a", "b"])
    clf.save(tmp_path / "clf.json")
    copy = FewShotClassifier.load(tmp_path / "clf.json")  # "fake" and "ascii" are names that connect and the zoo know
    assert (copy.llm, copy.tokenizer) == ("fake", "ascii")
    assert copy.predict(images) == clf.predict(images)


def test_int_labels_and_characters_survive(overlap_llm, picture, tmp_path):
    images = [picture("red"), picture("blue")]
    clf = FewShotClassifier(overlap_llm(), AsciiTokenizer(4, 4), None).fit(images, [3, 10])
    clf.save(tmp_path / "clf.json")
    copy = FewShotClassifier.load(tmp_path / "clf.json", llm=clf.llm_, tokenizer=AsciiTokenizer(4, 4))
    assert copy.classes_ == [3, 10]
    assert str(copy.prompt_for(images[0])) == str(clf.prompt_for(images[0]))


def test_the_file_holds_words_and_no_keys(saved, support, overlap_llm, tokenizer, tmp_path):
    text = saved[1].read_text()
    document = json.loads(text)
    assert document["format_version"] == 1 and document["examples"][0]["text"] == "brick cherry apple"
    assert len(text) < 20_000
    spec = "openai-compatible:m@https://user:secret@host/v1?api_key=secret"
    clf = FewShotClassifier(spec, tokenizer, 3, scoring="parse").fit(*support)
    clf.save(tmp_path / "clf.json")
    text = (tmp_path / "clf.json").read_text()
    assert "secret" not in text and "openai-compatible:m@https://host/v1" in text


def test_saving_replaces_whole_files_or_nothing(saved, tmp_path, monkeypatch):
    clf, path = saved
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"cannot be written to .*clf.json': No space left"):
        clf.save(path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["clf.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        clf.save(tmp_path / "file" / "below.json")


def test_names_that_lead_nowhere_say_what_to_pass(saved):
    with pytest.raises(
        UsageError, match=r"the llm was saved from an object, by its name 'overlap'.*load\(path, llm=...\)"
    ):
        FewShotClassifier.load(saved[1])
    with pytest.raises(
        UsageError, match=r"the tokenizer was saved from an object, by its name 'colours'.*tokenizer=..."
    ):
        FewShotClassifier.load(saved[1], llm=saved[0].llm_)


def test_another_tokenizer_is_refused(saved, colour_tokenizer):
    other = colour_tokenizer(words="nine quite other words are in this one x".split())
    with pytest.raises(ArtefactError, match=r"'colours' is not the one that made the words .* tokenizer=..., or fit"):
        FewShotClassifier.load(saved[1], llm=saved[0].llm_, tokenizer=other)


def damage(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=99), "has format_version 99; this icl_vision reads 1"),
        (lambda d: d.update(format="other"), "its 'format' is not"),
        (lambda d: d.pop("classes"), "'classes' is missing or is no list"),
        (lambda d: d.update(params=[]), "'params' is missing or is no object"),
        (lambda d: d["llm"].pop("spec"), "'llm' holds no 'spec'"),
        (lambda d: d["tokenizer"].pop("hash"), "'tokenizer' holds no 'name' or 'hash'"),
        (lambda d: d["params"].update(colour=1), "no parameter 'colour'"),
        (lambda d: d["params"].update(k="x"), "k must be a whole number"),
        (lambda d: d["examples"].pop(0) and d["examples"].clear(), "without examples"),
        (lambda d: d["examples"][0].pop("words"), "KeyError: 'words'"),
        (lambda d: d["examples"][0]["words"]["ids"][0][0].append(1), "PyramidError"),
        (lambda d: d["examples"][0]["words"].update(ids=[[[99, 0, 0]]]), "ids 0 to 8"),
        (lambda d: d["examples"][0].update(label="unseen"), "ValueError"),
        (lambda d: d["examples"].append(3), "TypeError"),
        (lambda d: d.update(classes=[["a"], "b"]), "a label must be a str or an int"),
    ],
)
def test_damaged_documents(saved, change, message):
    clf, path = saved
    damage(path, change)
    with pytest.raises(StorageError, match=message):
        FewShotClassifier.load(path, llm=clf.llm_, tokenizer=clf.tokenizer_)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "'format'"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_files_that_are_no_saved_classifier(saved, content, message):
    saved[1].write_bytes(content)
    with pytest.raises(StorageError, match=f"is not a saved classifier, or is damaged: .*{message}"):
        FewShotClassifier.load(saved[1])


def test_a_cut_off_file_at_every_length(saved):
    clf, path = saved
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError):
            FewShotClassifier.load(path, llm=clf.llm_, tokenizer=clf.tokenizer_)


def test_missing_files(tmp_path):
    with pytest.raises(StorageError, match=r"there is no file '.*none.json'"):
        FewShotClassifier.load(tmp_path / "none.json")
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        FewShotClassifier.load(tmp_path)


def test_a_fitted_classifier_can_be_pickled(picture):
    """joblib and processes do it; what it holds is made anew on the other side."""
    images = [picture("red"), picture("blue"), picture("red"), picture("blue")]
    clf = FewShotClassifier("fake", "ascii", None, shots=1, selection="nearest").fit(images, ["a", "b", "a", "b"])
    clf.set_params(shots=2)  # takes effect at the next fit, there too
    twin = pickle.loads(pickle.dumps(clf))  # noqa: S301  # our own bytes, made on this line
    np.testing.assert_array_equal(twin.predict_proba(images), clf.predict_proba(images))
    assert str(twin.prompt_for(images[0])) == str(clf.prompt_for(images[0]))
    assert twin.get_params() == clf.get_params() and twin.llm_ is not clf.llm_
    assert pickle.loads(pickle.dumps(FewShotClassifier(k=3))).k == 3  # noqa: S301  # likewise


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy])
def test_a_copy_is_fitted_and_shares_the_llm(saved, clone, queries):
    clf, _ = saved
    twin = clone(clf)
    assert twin.predict(queries[0]) == queries[1]
    assert twin.llm_ is clf.llm_ and twin.tokenizer_ is clf.tokenizer_
    twin.set_params(errors="return")
    assert clf.errors == "raise"
