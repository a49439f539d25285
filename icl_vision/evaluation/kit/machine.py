"""What a measurement ran on, for whoever wants to repeat it.

Knows: processor, cores, memory, operating system. Refuses to know: host and user names, paths.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from icl_vision.cores import usable_cores


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory and operating system; no host or user name."""
    processor, memory = platform.processor() or platform.machine(), None
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError, AttributeError):
        pass  # not Linux
    return {"processor": processor, "cores": usable_cores(), "memory_gib": memory, "system": platform.system()}
