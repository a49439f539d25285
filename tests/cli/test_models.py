"""`icl-vision models list|info`."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from icl_vision.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_list_names_tokenizers_and_llms() -> None:
    plain = run("list")
    assert plain.exit_code == 0
    assert "  words-photo\n" in plain.stdout
    assert "  local\n" in plain.stdout
    document = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in document["tokenizers"]] == [
        "ascii",
        "describe-photo",
        "lqae-photo-128",
        "spae-clips-64",
        "spae-digits-32",
        "spae-photo-128",
        "words-photo",
    ]
    assert document["tokenizers"][6]["licence"] == "Apache-2.0"
    assert all("MIT" in document["tokenizers"][at]["licence"] for at in (2, 3, 5))  # what comes from TAEF2
    assert "replay:FILE" in [row["spec"] for row in document["llms"]]


def test_info_shows_the_whole_card() -> None:
    card = json.loads(run("info", "words-photo", "--json").stdout)
    assert card["name"] == "words-photo"
    assert card["metrics"]["parity"]["mismatches"] == 0
    text = run("info", "words-photo").stdout
    assert "licence: Apache-2.0\n" in text
    assert "  mismatches: 0\n" in text
    assert "ramp:" in run("info", "ascii").stdout
    assert "Gemma 3 270M" in run("info", "local").stdout


def test_info_of_an_unknown_name_lists_what_exists() -> None:
    result = run("info", "words-foto")
    assert result.exit_code == 1
    assert (
        "no tokenizer 'words-foto': available are ascii, describe-photo, lqae-photo-128, spae-clips-64, "
        "spae-digits-32, spae-photo-128, words-photo" in result.stderr
    )
    assert result.stdout == ""


def test_every_kind_of_llm_is_listed() -> None:
    from icl_vision.cli.models import LLMS
    from icl_vision.llms.connecting import KINDS

    assert {spec.partition(":")[0] for spec in LLMS} == set(KINDS)
