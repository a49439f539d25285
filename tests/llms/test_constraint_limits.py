"""How many strings, and how many characters of them, a constraint may allow: what a profile says is kept everywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icl_vision import FewShotClassifier, PromptBuilder, connect
from icl_vision.contracts import MANY_STRINGS, Constraint, Profile
from icl_vision.drawing.answering import SegmentAsker
from icl_vision.drawing.repair import WordSet
from icl_vision.errors import CapabilityError, StorageError
from icl_vision.llms import FakeLLM, record, register_profile
from icl_vision.llms.remote.openai.dialects import keeps
from icl_vision.llms.remote.structured import answer_from_json, check_constraint
from icl_vision.tasks.classify.scoring import choose_method

OPENAI = connect("openai:gpt-4o").profile


def strings(count: int, length: int) -> tuple[str, ...]:
    return tuple(f"{number:0{length}d}" for number in range(count))


@pytest.mark.parametrize(
    ("count", "length", "said"),
    [
        (
            400,
            40,
            "15,000 characters in a constraint's allowed strings where there are more than 250; got 16,000 in 400",
        ),
        (251, 60, "15,000 characters .* got 15,060 in 251"),
        (250, 60, ""),  # no more than 250
        (375, 40, ""),  # 15,000
        (1000, 15, ""),
        (1001, 5, "1000 allowed strings in a constraint; got 1001"),
        (200, 600, "119,000 characters in a constraint's allowed strings; got 120,000"),
    ],
)
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5.1", "o3", "gpt-5.2-pro"])
def test_openai_documents_limits_in_strings_and_in_characters(model, count, length, said):
    import re

    profile = connect(f"openai:{model}").profile
    found = profile.too_much(strings(count, length))
    assert re.match(said, found) if said else found == ""
    constraint = Constraint(strings(count, length))
    if said:
        with pytest.raises(CapabilityError, match=f"'openai:{model}' bears {said}; allow fewer or shorter ones"):
            check_constraint(constraint, profile)
    else:
        check_constraint(constraint, profile)


def test_strings_said_twice_are_sent_once():
    assert OPENAI.too_much(strings(300, 40) * 2) == ""


def test_the_rung_follows_the_characters():
    builder = PromptBuilder()
    long, short = strings(400, 40), strings(400, 10)
    assert choose_method("auto", OPENAI, builder, long) == "parse"
    assert choose_method("auto", OPENAI, builder, short) == "constrained"
    assert choose_method("auto", OPENAI, builder, 400) == "constrained"
    with pytest.raises(CapabilityError, match=r"among 400 labels is more than .* restricted to \(15,000 characters"):
        choose_method("constrained", OPENAI, builder, long)


def test_a_classifier_with_long_labels_parses():
    register_profile("openai:limits-of-this-test", constraint="json_schema", constraint_characters=30)
    llm = connect("openai:limits-of-this-test", api_key="x")
    images = [np.full((8, 8), value, dtype=np.uint8) for value in (10, 250)]
    for labels, method in ((["a" * 20, "b" * 20], "parse"), (["a", "b"], "constrained")):
        clf = FewShotClassifier(llm, "ascii", k=None).fit(images, labels)
        assert clf.method_ == method
        writing = clf.prompt_for(images[0]).writing
        assert (writing.constraint is not None) == (method == "constrained")


def test_drawing_leaves_a_constraint_out_that_is_too_much():
    fake = FakeLLM(constraint="json_schema")
    fake._profile = Profile("fake", constraint="json_schema", constraint_characters_many=1_000)
    few, many = WordSet(strings(MANY_STRINGS, 10)), WordSet(strings(MANY_STRINGS + 1, 10))
    asker = SegmentAsker(fake)
    assert asker.constraint([few], {}) is not None
    assert asker.constraint([many], {}) is None
    with pytest.raises(CapabilityError, match="bears 1,000 characters .* the words of this segment"):
        SegmentAsker(fake, constrain="always").constraint([many], {})


def test_a_recording_of_a_version_without_these_fields_goes_on(tmp_path):
    fake = FakeLLM("dog")
    file = tmp_path / "r.jsonl"
    record(fake, file).complete_sync("x")
    first, *rest = file.read_text().splitlines(keepends=True)
    header = json.loads(first)
    for name in ("constraint_characters", "constraint_characters_many"):
        del header["profile"][name]
    file.write_text(json.dumps(header) + "\n" + "".join(rest))
    record(fake, file).complete_sync("y")
    replay = connect(f"replay:{file}")
    assert [replay.complete_sync(one).text for one in "xy"] == ["dog", "dog"]
    with pytest.raises(StorageError, match="with another profile"):
        record(FakeLLM("dog", scores_bags=True), file)


@pytest.mark.parametrize("said", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("allowed", ["caf\u00e9", "cafe\u0301"])
def test_an_answer_may_compose_characters_or_take_them_apart(said, allowed):
    constraint = Constraint((allowed, "dog"))
    assert answer_from_json(json.dumps({"answer": said}), constraint, arrays=True) == allowed
    assert keeps(said, constraint) and not keeps("cafe", constraint)
