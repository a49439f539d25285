"""cores.py: affinity and control groups of both versions, and the pools that heed them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icl_vision import cores
from icl_vision.cores import quota_cores, usable_cores

V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 30 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 30 0:31 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)


def machine(folder: Path, group: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": group, "proc/self/mountinfo": mounts, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", None), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("100000 50000", 2)],
)
def test_version_2_in_a_container(tmp_path: Path, quota: str, expected: int | None) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(root="/"), {"sys/fs/cgroup/cpu.max": quota + "\n"})
    assert quota_cores(root) == expected


def test_version_2_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/user.slice"
    files = {f"{base}/cpu.max": "300000 100000", f"{base}/a/cpu.max": "max 100000", f"{base}/a/b/cpu.max": "max 100000"}
    root = machine(tmp_path, "0::/user.slice/a/b\n", V2.format(root="/"), files)
    assert quota_cores(root) == 3
    (root / base / "a/b/cpu.max").write_text("100000 100000\n")
    assert quota_cores(root) == 1


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("150000", 1), ("400000", 4)])
def test_version_1(tmp_path: Path, quota: str, expected: int | None) -> None:
    group = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
    inside = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}
    # Seen from the machine itself, and from within a container, to which the mount shows its own group only.
    for number, (shown, where) in enumerate([("/", "/docker/abc"), ("/docker/abc", "")]):
        files = {f"sys/fs/cgroup/cpu,cpuacct{where}/{name}": text for name, text in inside.items()}
        root = machine(tmp_path / str(number), group, V1.format(root=shown), files)
        assert quota_cores(root) == expected


def test_both_versions_at_once_and_paths_from_elsewhere(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu.max": "800000 100000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    group = "0::/../outside\n4:cpu,cpuacct:/\n"
    assert quota_cores(machine(tmp_path, group, V2.format(root="/") + V1.format(root="/"), files)) == 3


@pytest.mark.parametrize("text", ["", "nonsense", "max", "a b", "0 0", "-5 100000"])
def test_what_says_nothing_limits_nothing(tmp_path: Path, text: str) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(root="/"), {"sys/fs/cgroup/cpu.max": text})
    assert quota_cores(root) in (None, 1)
    assert quota_cores(tmp_path / "no such machine") is None
    (root / "proc/self/cgroup").write_text(text)
    assert quota_cores(root) is None


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_schedulable", lambda: 4)
    for quota, expected in ((None, 4), (2, 2), (8, 4)):
        monkeypatch.setattr(cores, "quota_cores", lambda quota=quota: quota)
        assert usable_cores() == expected


def test_everyone_asks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.evaluation.kit import running as about
    from icl_vision.llms.local import embedded as local
    from icl_vision.tokenizers import sessions
    from icl_vision.tokenizers.bulk import encoding as bulk

    for module in (about, bulk, sessions):
        monkeypatch.setattr(module, "usable_cores", lambda: 1)
    monkeypatch.setattr(local, "usable_cores", lambda: 1)
    assert about.machine()["cores"] == 1
    with bulk._readers(0) as readers:
        assert readers._max_workers == 1  # type: ignore[attr-defined]  # the pool's own count
    settings = sessions.cpu_settings()
    assert settings.intra_op_num_threads == (1 if (os.cpu_count() or 1) > 1 else 0)
    assert sessions.cpu_settings(3).intra_op_num_threads == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_onnxruntime_makes_no_pool_for_cores_it_may_not_use() -> None:
    code = (
        "import os, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from icl_vision.tokenizers import ImageTokenizer\n"
        "import onnxruntime\n"
        "tokenizer = ImageTokenizer.from_pretrained('spae-digits-32', providers='cpu')\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "tokenizer.provider\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "0", done.stderr
