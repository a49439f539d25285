"""Encoding on a local Ray cluster of two processes writes what `icl-vision tokenize` writes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_describe

import icl_vision
from icl_vision.images import list_images
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.bulk.files import bad_file, tokenize_files

PHOTOS = Path(icl_vision.__file__).parent / "demo_data"

# Ray leaves processes and sockets to be collected, which are errors here: it gets a process of its own.
PROGRAM = """
import json, sys
from pathlib import Path
import pyarrow
import ray
from icl_vision.integrations.ray import EncodeImages, tokenize_dataset

folder = Path(sys.argv[1])
paths = json.loads((folder / "paths.json").read_text())  # not as arguments: Ray wants those to be valid text
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
report = tokenize_dataset(paths, folder / "ray.jsonl", "spae-digits-32", 5, processes=2)
table = pyarrow.table({"image": [paths[0], paths[-1]]})
rows = EncodeImages("spae-digits-32", 1)(table).to_pylist()  # as map_batches calls it
asked = tokenize_dataset(paths[:40], folder / "asked.jsonl", str(folder / "tiny"), 3, processes=2, about="Who is it?")
(folder / "found.json").write_text(json.dumps({"report": [report.images, report.bad], "rows": rows}))
ray.shutdown()
"""


def test_without_ray_the_extra_is_named() -> None:
    code = "import sys; sys.modules['ray'] = None\nimport icl_vision.integrations.ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (
        "encoding on a Ray cluster needs an extra that is not installed: pip install 'icl-vision[ray]'" in done.stderr
    )


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """150 photographs with two bad files among them, one with a name that is not valid text."""
    photos: list[Path] = list_images(PHOTOS)[:150]
    odd = tmp_path / "odd\udcff.jpg"
    odd.write_bytes(b"no image")
    return [*photos[:70], odd, *photos[70:], tmp_path / "missing.jpg"]


@pytest.mark.slow
def test_the_same_files_as_without_ray(paths: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    # A token of this cluster's own; left alone, Ray writes one into the home folder.
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    (tmp_path / "paths.json").write_text(json.dumps(list(map(str, paths))), encoding="utf-8")
    tiny_describe.make(tmp_path / "tiny")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["report"] == [150, 2]
    tokenizer = ImageTokenizer.from_pretrained("spae-digits-32")
    ours = tokenize_files(tokenizer, paths, tmp_path / "own.jsonl", 5).out
    for file in (Path, bad_file):
        assert file(tmp_path / "ray.jsonl").read_bytes() == file(ours).read_bytes(), file
    # Words by part, asked about:
    by_part = ImageTokenizer.from_pretrained(str(tmp_path / "tiny"))
    ours = tokenize_files(by_part, paths[:40], tmp_path / "asked-own.jsonl", 3, about="Who is it?").out
    assert (tmp_path / "asked.jsonl").read_bytes() == ours.read_bytes()
    # A dataset of the user's own:
    good, missing = found["rows"]
    assert good["image"] == str(paths[0]) and good["k"] == 1 and good["error"] is None
    assert good["words"] == [tokenizer.encode(paths[0], 1)[0].words()]
    assert missing["error"] == "ImageNotFoundError" and missing["words"] is None and "no file" in missing["message"]


@pytest.mark.slow
def test_what_cannot_be(paths: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    code = """
import sys
from icl_vision.errors import IclVisionError
from icl_vision.integrations.ray import tokenize_dataset
for options in ({"processes": 0}, {"out": "words.txt"}, {"tokenizer": "spae-digits-32", "k": 4},
                {"tokenizer": "spae-digits-32", "about": "Who?"}):
    try:
        tokenize_dataset(**{"paths": ["a.jpg"], "out": "words.jsonl", **options})
    except IclVisionError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    first, second, third, fourth = done.stdout.splitlines()
    assert first == "UsageError processes and cpus must be 1 or more; got 0 and 1"
    assert "UsageError 'words.txt' must end in .jsonl or .parquet" in second
    assert third.startswith("PyramidError k=4 words do not fill whole layers")
    assert fourth.startswith("UsageError") and "can_focus=False" in fourth
