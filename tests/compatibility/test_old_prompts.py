"""Every packaged template gives the prompts of 0.1.0, to the letter: figures, caches and runs rest on them."""

from __future__ import annotations

import json
from pathlib import Path

from icl_vision.prompting import list_templates


def test_prompts_are_the_same_to_the_letter(files: Path) -> None:
    from calls import prompt_texts

    old = json.loads((files / "prompts.json").read_text(encoding="utf-8"))
    new = dict(prompt_texts())
    assert set(new) == set(old) and len(old) > 300
    changed = [mode for mode, text in old.items() if new[mode] != text]
    assert changed == []


def test_every_template_of_that_version_is_among_them(files: Path) -> None:
    modes = json.loads((files / "prompts.json").read_text(encoding="utf-8"))
    names = {mode.partition("/")[0] + ("_channel" if mode.endswith("/channel") else "") for mode in modes}
    listed = json.loads((files / "json" / "prompts-list.json").read_text(encoding="utf-8"))["templates"]
    packaged = {one["name"] for one in listed if one["origin"] == "packaged"}
    assert packaged and packaged <= names
    assert packaged <= {info.name for info in list_templates()}
