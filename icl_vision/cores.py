"""How many CPU cores this process may use: fewer than the machine has, under taskset or in a container.

    threads = usable_cores()

What counts is the least of: the cores that the process may be scheduled on (its affinity; from Python 3.13 on also what
``PYTHON_CPU_COUNT`` says), and the CPU time that its control groups grant it, in whole cores (2.5 cores are 2: a third
thread would only wait for its share). A pool of more threads than that is not faster but slower, and one that spins
burns the share of the others.

Knows: affinity, the control groups of Linux in both versions. Refuses to know: what the threads are for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def usable_cores() -> int:
    """Cores that this process may use at the same time, 1 or more."""
    return min(_schedulable(), quota_cores() or _schedulable())


def _schedulable() -> int:
    count = getattr(os, "process_cpu_count", None)  # Python 3.13
    if count is not None:
        return count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def quota_cores(root: Path = _ROOT) -> int | None:
    """Whole cores that the control groups of this process grant it, 1 or more; None where nothing limits it.

    root: of the file system, for tests.
    """
    try:
        granted = list(_quotas(root))
    except (OSError, ValueError, IndexError):  # not Linux, or a file that says something new: nothing is known
        return None
    return max(1, int(min(granted))) if granted else None


def _quotas(root: Path) -> Iterator[float]:
    """The cores that each group on the way up from this process's own grants, where it limits them."""
    for kind, point, folder in _groups(root):
        while True:
            quota = _quota_of(folder, kind)
            if quota is not None:
                yield quota
            if folder == point or point not in folder.parents:
                break
            folder = folder.parent


def _groups(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """(version, mount point, this process's group below it) of each hierarchy that limits CPU time."""
    paths: dict[str, str] = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, what = before.split(), after.split()
        kind = what[0]
        if kind not in paths or (kind == "cgroup" and "cpu" not in what[2].split(",")):
            continue
        # The mount may show only a part of the hierarchy: the container's own group, and what lies below.
        shown, point = Path(fields[3]), root / fields[4].lstrip("/")
        own = Path(paths[kind])
        inside = own.relative_to(shown) if own.is_relative_to(shown) else Path()
        yield kind, point, point / inside


def _quota_of(folder: Path, kind: str) -> float | None:
    try:
        if kind == "cgroup2":
            quota, period = (folder / "cpu.max").read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        return None if limit <= 0 else limit / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):  # the topmost group has no such file
        return None
