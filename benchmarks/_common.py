"""What every benchmark's result file begins with, and how it is written.

Knows: machine, versions, commit, seed, command. Refuses to know: what is measured.
"""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from icl_vision.evaluation.kit.running import machine
from icl_vision.files.runs import source_commit, versions
from icl_vision.files.storage import write_text


def header(seed: int | None = None) -> dict[str, Any]:
    """The fields that make a figure repeatable: date, command, commit, seed, machine, versions."""
    script = Path(sys.argv[0]).name
    return {
        "date": datetime.now(UTC).date().isoformat(),
        # Names of files only: where they lay on the machine is nobody's business.
        "command": shlex.join(
            ["python", f"benchmarks/{script}", *(Path(a).name if "/" in a else a for a in sys.argv[1:])]
        ),
        "commit": source_commit(),
        "seed": seed,
        "machine": machine(),
        "versions": versions(),
    }


def write(path: str | Path, document: dict[str, Any]) -> None:
    """Write a result file whole or not at all."""
    write_text(Path(path), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
