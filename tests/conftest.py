"""What every test gets: no network, no keys, a cache folder of its own, and a few small images.

Knows: how to keep tests away from the outside. Refuses to know: any one part of the library.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# pytest's importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))
import generator_guard
import loop_guard

CACHE_VARIABLE = "ICL_VISION_CACHE"
KEY_VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")

_session_cache: Path | None = None
_users_cache: str | None = None
_attempts: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """A throw-away cache folder, no keys and no hub, for this process and every one that a test starts."""
    global _session_cache, _users_cache
    # Shells make a job in the background deaf to Ctrl-C, and every process it starts: tests interrupt theirs.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _users_cache = os.environ.get(CACHE_VARIABLE)
    _session_cache = Path(tempfile.mkdtemp(prefix="icl-vision-tests-"))
    os.environ[CACHE_VARIABLE] = str(_session_cache)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in KEY_VARIABLES:
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _session_cache is not None:
        shutil.rmtree(_session_cache, ignore_errors=True)


# Network: loopback only. --------------------------------------------------------------------------------------------


class NetworkBlockedError(RuntimeError):
    """A test tried to reach something other than this machine."""


def _is_loopback(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _refuse(what: str) -> None:
    message = f"a test tried to reach {what}; tests may talk to loopback only (127.0.0.0/8, ::1, localhost)"
    _attempts.append(message)
    raise NetworkBlockedError(message)


@pytest.fixture(autouse=True, scope="session")
def _network_guard() -> Iterator[None]:
    """Refuses every connection and look-up that would leave this machine, in every thread, for the whole session."""
    patch = pytest.MonkeyPatch()

    def guarded(name: str, address_at: int) -> None:
        original = getattr(socket.socket, name)

        def method(self: socket.socket, *args: Any) -> Any:
            address = args[address_at] if len(args) > address_at or address_at < 0 else None
            inet = self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple)
            if inet and not _is_loopback(address[0]):
                _refuse(f"{address[0]}:{address[1]}")
            return original(self, *args)

        patch.setattr(socket.socket, name, method)

    guarded("connect", 0)
    guarded("connect_ex", 0)
    guarded("sendto", -1)
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_loopback(host):
            _refuse(f"the host {host!r}")
        return look_up(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _no_network_attempts(_network_guard: None) -> Iterator[None]:
    """Fails the test that tried, even where the code under test swallowed the refusal."""
    _attempts.clear()
    yield
    if _attempts:
        message = _attempts[0]
        _attempts.clear()
        pytest.fail(message)


@pytest.fixture
def network_attempts() -> list[str]:
    """The refused attempts so far; a test of the guard itself clears the list so as not to fail."""
    return _attempts


# The event loop that serves every LLM: nothing of ours may block it. --------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[None]:
    """Fails the test whose code did work on the loop that belongs into a thread; see ``loop_guard``."""
    loop_guard.start()
    loop_guard.found.clear()
    yield
    if loop_guard.found:
        message = "\n".join(dict.fromkeys(loop_guard.found))
        loop_guard.found.clear()
        pytest.fail(message)


@pytest.fixture
def blocking_work() -> list[str]:
    """What was caught so far; a test of the guard itself clears the list so as not to fail."""
    return loop_guard.found


@pytest.fixture(autouse=True)
def _no_generator_is_left() -> Iterator[None]:
    """Fails the test while which a generator of ours was left half read; see ``generator_guard``."""
    generator_guard.start()
    generator_guard.found.clear()
    yield
    if generator_guard.found:
        message = "\n".join(dict.fromkeys(generator_guard.found))
        generator_guard.found.clear()
        pytest.fail(message)


@pytest.fixture
def left_generators() -> list[str]:
    """What was left so far; a test of the guard itself clears the list so as not to fail."""
    return generator_guard.found


# Disk. ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="session")
def _no_fsync() -> Iterator[None]:
    """Nothing waits for the disk: tests kill processes, whose writes the kernel keeps, and never cut the power."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda handle: None)
    yield
    patch.undo()


# Cache. ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """The user's real folder of assembled models, put into the session's cache folder, and returned.

    For tests with the real LLM: its 253 MB file is assembled once for a user, not once for every test run. Nothing
    else of the user's cache is seen or written.
    """
    from icl_vision.files.storage import cache_dir

    assert _session_cache is not None
    patch = pytest.MonkeyPatch()
    with patch.context() as inner:
        if _users_cache is None:
            inner.delenv(CACHE_VARIABLE, raising=False)
        else:
            inner.setenv(CACHE_VARIABLE, _users_cache)
        real = cache_dir() / "models"
    real.mkdir(parents=True, exist_ok=True)
    link = _session_cache / "models"
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    if not link.is_symlink():
        link.symlink_to(real, target_is_directory=True)
    return real


# Images. --------------------------------------------------------------------------------------------------------------

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 50, 200)}


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A small image that is nowhere flat: uint8 [40, 56, 3], the same every time."""
    rows, columns = np.mgrid[0:40, 0:56]
    channels = (rows * 6, columns * 4, (rows + columns) * 2)
    return np.stack(channels, axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: red, green and blue, four 32x32 PNG images each, every one a little different."""
    from PIL import Image

    top = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (top / name).mkdir()
        for number in range(4):
            noise = random.integers(-25, 26, size=(32, 32, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number:03d}.png")
    return top
