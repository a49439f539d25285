"""Locks after a fork: whoever held one in the parent, the child is not kept waiting."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

import icl_vision
from icl_vision.forks import ForkLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

CHILD = """
import os, sys, threading
from pathlib import Path
{before}
held, go = threading.Event(), threading.Event()

def hold():
    with lock:
        held.set()
        go.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    {after}
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
go.set()
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "from icl_vision.files.rows import JsonRows; rows = JsonRows(sys.argv[1], table='t', what='the cache');"
            "rows.put('a', {'x': 1}); lock = rows._lock",
            "assert rows.get('a') == {'x': 1}; rows.put('b', {}); rows.close()",
        ),
        (
            "from icl_vision.llms import Meter; from icl_vision.contracts import Usage; meter = Meter();"
            "lock = meter._lock",
            "meter.reserve('m', Usage(1)); meter.settle('m', Usage(1), Usage(1)); assert meter.total()[0].requests",
        ),
        (
            "from icl_vision.llms import FakeLLM, FallbackLLM; llm = FallbackLLM([FakeLLM('a')] * 2); lock = llm._lock",
            "assert llm.complete_sync('x').text == 'a' and llm.answered == {'fake': 1}",
        ),
        (
            "from icl_vision.llms import profiles, register_profile; lock = profiles._lock",
            "register_profile('openai:x', seed=True); assert profiles.profile_for('openai:x').seed",
        ),
        (
            "from icl_vision.integrations.registry import ImageRegistry; images = ImageRegistry(); lock = images._lock",
            "assert len(images) == 0 and not list(images)",
        ),
    ],
    ids=["rows", "meter", "fallback", "profiles", "registry"],
)
def test_a_lock_held_by_another_thread(before: str, after: str, tmp_path: Path) -> None:
    code = CHILD.format(before=before.replace("; ", "\n").replace(";", "\n"), after=after)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "rows.sqlite")], check=True, timeout=60)


def test_every_lock_of_the_package_is_one_of_these() -> None:
    """Where a plain lock is right, say why here."""
    plain = {
        "forks.py",
        "llms/loop.py",  # has a hook of its own
        "tokenizers/onnx.py",  # onnxruntime's sessions do not survive a fork either
        "tokenizers/sessions.py",
    }
    root = Path(icl_vision.__file__).parent
    using = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "threading.Lock(" in path.read_text() or "threading.RLock(" in path.read_text()
    }
    assert using <= plain


def test_a_lock() -> None:
    lock = ForkLock()
    with lock:
        assert lock._lock.locked()
        lock.renew()
    copied = copy.deepcopy(lock)
    with lock, copied:
        pass
    with lock:
        pass
