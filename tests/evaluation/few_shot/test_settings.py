"""Settings: the papers' 14 in their order, ids that read back, and clear words about what is none."""

from __future__ import annotations

import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.config import SETTINGS, Setting, parse_settings, settings_of


def test_the_14_settings_are_those_of_the_papers() -> None:
    assert [one.id for one in settings_of(2)] == [
        "2w-1s-0r-n", "2w-1s-0r-i", "2w-3s-0r-i", "2w-5s-0r-i", "2w-1s-1r-i", "2w-1s-3r-i", "2w-1s-5r-i",
    ]  # fmt: skip
    assert SETTINGS == settings_of(2) + settings_of(5) and len(set(SETTINGS)) == 14
    # prior-work: ways x shots x (repeats + 1) + 1
    assert [one.images for one in settings_of(2)] == [3, 3, 7, 11, 5, 9, 13]
    assert [one.images for one in settings_of(5)] == [6, 6, 16, 26, 11, 21, 31]


@pytest.mark.parametrize("setting", [*SETTINGS, Setting(12, 7, 2, False)])
def test_an_id_and_a_document_read_back(setting: Setting) -> None:
    assert Setting.parse(setting.id) == setting == Setting.from_dict(setting.to_dict())
    assert str(setting) == setting.id == f"{setting.ways}w-{setting.column}"


def test_all_columns_and_ids_may_be_mixed() -> None:
    assert parse_settings(["all"]) == SETTINGS
    assert parse_settings(["all"], [5]) == settings_of(5)
    assert parse_settings(["1s-0r-i"], [2, 5]) == (Setting(2, 1), Setting(5, 1))
    assert parse_settings(["5w-1s-0r-i"], [2, 5]) == (Setting(5, 1),)
    # Each once, in the papers' order, others after them in the order named.
    named = ["5w-10s-0r-i", "5w-5s-0r-i", "5w-1s-0r-n", "5w-5s-0r-i", "5w-2s-0r-n"]
    assert [one.id for one in parse_settings(named, [5])] == ["5w-1s-0r-n", "5w-5s-0r-i", "5w-10s-0r-i", "5w-2s-0r-n"]


@pytest.mark.parametrize(
    ("texts", "ways", "message"),
    [
        (["5-way"], [5], "'5-way' is no setting; write 'all', WAYSw-SHOTSs"),
        (["3w-1s-0r-i"], [2, 5], "the setting '3w-1s-0r-i' has 3 ways, but the run has 2, 5: change ways"),
        ([], [2], "give at least one setting, or 'all'"),
        (["all"], [], "give at least one number of ways"),
        (["5w-0s-0r-i"], [5], "shots of a setting must be a whole number of 1 or more; got 0"),
        (["all"], [1], "ways of a setting must be a whole number of 2 or more; got 1"),
    ],
)
def test_what_is_no_setting_is_named(texts: list[str], ways: list[int], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(texts, ways)
    assert message in str(caught.value)


def test_parts_that_cannot_work_are_named() -> None:
    with pytest.raises(UsageError, match="repeats of a setting must be a whole number of 0 or more; got -1"):
        Setting(2, 1, -1)
    with pytest.raises(UsageError, match=r"'1s-0r-i' is no setting; write WAYSw-SHOTSs-REPEATSr-i"):
        Setting.parse("1s-0r-i")
    with pytest.raises(UsageError, match="not a setting: 'repeats' is missing"):
        Setting.from_dict({"ways": 2, "shots": 1})
