"""Checkpoints: folders of safetensors and one JSON file, complete or not there at all.

    RUN/checkpoints/step-00000400/
        model.safetensors  ema.safetensors  optimiser.safetensors ...   named tensors
        state.json      format_version, step, whatever the loop wants back, and size and sha256 of the files beside it

A checkpoint is written under a temporary name, state.json last, everything fsynced, and then renamed: a kill at any
moment leaves the earlier ones untouched and at most a ``.tmp-`` folder, which the next save removes. No pickles.

Knows: files. Refuses to know: models, optimisers, what the numbers mean.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from icl_vision.errors import StorageError
from icl_vision.files.reading import read_json
from icl_vision.files.storage import atomic_path, sha256_file, write_json

logger = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1
STATE_FILE: Final = "state.json"
CHECKPOINTS: Final = "checkpoints"
_NAME: Final = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk. folder: its path. step: finished steps. state: the content of state.json."""

    folder: Path
    step: int
    state: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return f"{name}.safetensors" in self.state["files"]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``name``.safetensors, on the CPU.

        Raises StorageError where the file is not the one that state.json describes.
        """
        path = self.folder / f"{name}.safetensors"
        if name not in self:
            raise StorageError(f"the checkpoint {str(self.folder)!r} holds no {path.name}")
        try:
            if sha256_file(path) != self.state["files"][path.name]["sha256"]:
                raise StorageError(
                    f"{str(path)!r} is not the file that its {STATE_FILE} describes; take an earlier one"
                )
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{str(path)!r} cannot be read: {error}") from error


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write ``RUN/checkpoints/step-...`` and remove all but the newest ``keep``.

    tensors: file stem -> named tensors. state: plain JSON beside them.

    Raises StorageError where it cannot be written; earlier checkpoints are still there then.
    """
    root = run / CHECKPOINTS
    target = root / f"step-{step:08d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=root))
        temporary.chmod(0o755)
        _write(temporary, step, tensors, state)
        if target.exists():  # written before, and the run was then resumed from an earlier one
            target.rename(root / f".tmp-old-{target.name}")
        temporary.rename(target)
        _sync_folder(root)
        _sweep(root)
        for old in list_checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    except OSError as error:
        raise StorageError(
            f"the checkpoint {str(target)!r} cannot be written ({error.strerror or error}); earlier ones are kept"
        ) from error
    return target


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    root = run / CHECKPOINTS
    if not root.is_dir():
        return []
    numbered = [(int(match[1]), path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; damaged ones are named in the log and passed over."""
    for folder in reversed(list_checkpoints(run)):
        try:
            return read_checkpoint(folder)
        except StorageError as error:
            logger.warning("%s; an earlier checkpoint is used", error)
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open one checkpoint folder: state.json is read, the files' sizes are checked, their content when it is loaded.

    Raises StorageError where it is not a whole checkpoint of a format this version knows.
    """
    path = folder / STATE_FILE
    try:
        state = read_json(path, finite=False)
    except FileNotFoundError:
        raise StorageError(f"{str(folder)!r} is no checkpoint: it has no {STATE_FILE}") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"{str(path)!r} cannot be read: {error}") from error
    if (
        not isinstance(state, dict)
        or not isinstance(state.get("files"), dict)
        or not isinstance(state.get("step"), int)
    ):
        raise StorageError(f"{str(path)!r} does not describe a checkpoint: step or files is missing")
    if state.get("format_version") != FORMAT_VERSION:
        raise StorageError(
            f"{str(path)!r} has format {state.get('format_version')!r}; this version reads format {FORMAT_VERSION}"
        )
    for name, entry in state["files"].items():
        if Path(name).name != name or not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
            raise StorageError(f"{str(path)!r} does not describe a checkpoint: its entry {name!r} is {entry!r}")
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != entry["bytes"]:
            own = "missing" if size is None else f"{size} bytes long, not {entry['bytes']}"
            raise StorageError(f"the checkpoint {str(folder)!r} is damaged: {name} is {own}")
    return Checkpoint(folder, state["step"], state)


def _write(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    files: dict[str, dict[str, Any]] = {}
    for name, named in tensors.items():
        path = folder / f"{name}.safetensors"
        # A copy each: safetensors refuses tensors that share memory, and a view would drag its whole storage along.
        copies = {key: value.detach().cpu().contiguous().clone() for key, value in named.items()}
        with atomic_path(path) as temporary:  # for the file's mode: safetensors lets the owner alone read it
            save_file(copies, temporary)
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    document = {"format_version": FORMAT_VERSION, "step": step, **state, "files": files}
    write_json(folder / STATE_FILE, document)
    with (folder / STATE_FILE).open("rb") as handle:
        os.fsync(handle.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(root: Path) -> None:
    """Remove what an interrupted save left behind."""
    for left in root.glob(".tmp-*"):
        shutil.rmtree(left)
