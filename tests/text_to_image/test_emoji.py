"""Named pictures: what is read of a list, which names are twins, and the two stages on tiny parts."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_t2i import TableEncoder, tiny_llm

from icl_vision.errors import UsageError
from icl_vision.text_to_image.emoji import TEMPLATES, UNSEEN, captions, family, open_frames, open_named
from icl_vision.text_to_image.parts import load_parts
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.text_to_image.training import load_config, train

NAMES = {
    "one zero": "train", "two": "train", "three seven": "train", "man four": "train", "woman four": "test",
    "nine": "test", "five": "train",
}  # fmt: skip


def animation(colour: tuple[int, int, int]) -> bytes:
    """Three frames: the colour, white, the colour."""
    frames = [Image.new("RGB", (8, 8), one) for one in (colour, (255, 255, 255), colour)]
    out = io.BytesIO()
    frames[0].save(out, format="WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50)
    return out.getvalue()


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    lines = []
    path = tmp_path / "emoji.tar"
    with tarfile.open(path, "w:") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for number, (name, split) in enumerate(NAMES.items()):
            add(f"clips/{number}.webp", animation((40 * number, 0, 200)))
            lines.append({"file": f"clips/{number}.webp", "name": name, "split": split})
        add("clips.jsonl", "\n".join(map(json.dumps, lines)).encode())
    return path


@pytest.mark.parametrize(
    ("twins", "own"),
    [
        (("man fire engine", "woman fire engine", "adult fire engine"), "engine fire"),
        (("mage", "mage male sign", "mage female sign"), "mage"),
        (("cat", "cat face"), "cat"),
        (("man", "woman boy girl", "older adult"), "people"),
    ],
)
def test_twins_are_of_one_family(twins: tuple[str, ...], own: str):
    assert {family(name) for name in twins} == {own}
    assert family("zebra face") != family("horse face")


def test_first_frames_and_no_twin_of_a_held_out_name(emoji: Path):
    named = open_named(emoji)
    assert named.names == tuple(NAMES) and named.pixels.shape == (7, 32, 32, 3)
    assert [named.names[place] for place in named.train] == ["one zero", "two", "three seven", "five"]
    assert [named.names[place] for place in named.test] == ["woman four", "nine"]
    assert named.pixels[2, 0, 0].tolist() == [80, 0, 200]
    frames = open_frames(emoji)
    assert [own.shape for own in frames] == [(3, 32, 32, 3)] * 7 and frames[2][1].min() == 255


def test_a_folder_is_read_as_a_tar_is(emoji: Path, tmp_path: Path):
    with tarfile.open(emoji) as tar:
        tar.extractall(tmp_path / "folder", filter="data")
    with tarfile.open(tmp_path / "packed.tar", "w:") as tar:
        tar.add(tmp_path / "folder", ".")  # members are called ./clips/0.webp
    assert np.array_equal(open_named(tmp_path / "packed.tar").pixels, open_named(emoji).pixels)
    named = open_named(tmp_path / "folder")
    assert np.array_equal(named.pixels, open_named(emoji).pixels) and named.names == tuple(NAMES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "line 1 of clips.jsonl in .* is not JSON"),
        ('["0.png", "a", "train"]', "must be an object with a text 'file'"),
        ('{"file": "0.png"}', "must have a name of 1 to"),
        ('{"file": "0.png", "name": "a\\u0007", "split": "train"}', "printable"),
        ('{"file": "0.png", "name": "a", "split": "validation"}', "split, train or test"),
        ('{"file": "9.png", "name": "a", "split": "train"}', "names '9.png', which is not there"),
        ('{"file": "0.png", "name": "a", "split": "test"}', "leaves nothing to train on"),
    ],
)
def test_lists_that_cannot_be_used(line: str, said: str, tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "clips.jsonl").write_text(line)
    with pytest.raises(UsageError, match=said):
        open_named(tmp_path)


def test_pictures_without_a_list(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    with pytest.raises(UsageError, match="has no clips.jsonl, which says what its pictures are called"):
        open_named(tmp_path)


def test_figures_are_of_wordings_that_are_not_trained_on():
    assert not set(UNSEEN) & set(TEMPLATES) and "{}" in TEMPLATES
    assert captions(["a", "b"], ("{}", "{}", "draw {}")) == [("a", 0), ("draw a", 0), ("b", 1), ("draw b", 1)]


SMALL = (
    "denoiser.channels=[16,16,16]",
    "denoiser.width=16",
    "denoiser.length=4",
    "mapper.width=8",
    "mapper.heads=2",
    "stage0.steps=4",
    "stage0.batch=4",
    "stage0.checkpoint=2",
    "stage1.steps=4",
    "stage1.batch=4",
)


def test_the_same_command_trains_them(emoji: Path, tmp_path: Path, cache: Path):
    config = load_config("emoji", [*SMALL, "data.limit=3"], data=emoji)
    keys = {"encoder": TableEncoder(), "llm": tiny_llm(), "progress": False}
    assert train(config, tmp_path / "run", until="denoiser", **keys).parts is None
    result = train(config, tmp_path / "run", until="stage1", resume=True, **keys)
    assert result.parts is not None and set(result.fit["stage1"]) == {"r2", "cosine", "nearest"}
    found = load_parts(result.parts)
    assert found.denoiser.config.in_channels == 48 and len(found.card["names"]) == 3
    assert set(found.card["names"]) < {"one zero", "two", "three seven", "five"}
    assert str(tmp_path) not in json.dumps(found.card)
    image = LLMTextToImage.from_pretrained(result.parts, llm=tiny_llm()).draw("draw two", steps=2)
    assert image.size == (32, 32) and image.mode == "RGB"
    assert np.asarray(image).std() > 0
    mean = TableEncoder().encode(found.card["names"]).mean(0)
    assert torch.equal(found.mapper.null, mean.half().float())


@pytest.mark.parametrize(
    ("change", "until", "said"),
    [
        ("seed=1", "stage2", "trained until stage1"),
        ("loss.weights=sensitivity", "stage1", "with loss.weights=none"),
        ("denoiser.colours=1", "stage1", "denoiser.colours must be 3; got 1"),
        ("denoiser.width=32", "stage1", "must be those of table, 4 and 16; got"),
    ],
)
def test_what_named_pictures_cannot_be_trained_with(change: str, until: str, said: str, emoji: Path, tmp_path: Path):
    config = load_config("emoji", [*SMALL, change], data=emoji)
    with pytest.raises(UsageError, match=said):
        train(config, tmp_path / "run", until=until, encoder=TableEncoder(), llm=tiny_llm(), progress=False)
    with pytest.raises(UsageError, match="give a folder or .tar with a clips.jsonl"):
        train(load_config("emoji", SMALL), tmp_path / "none", until="stage1", encoder=TableEncoder(), progress=False)
