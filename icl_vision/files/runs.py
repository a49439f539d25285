"""The one run-folder format: whatever takes long is journalled item by item and can be resumed.

A run is a folder:

    run.json        format_version, command, config and its hash, versions, seed, commit
    lock            held while a process writes to the run
    journal.jsonl   one line per finished item, appended, flushed and fsynced before the item counts as done
    results.json    the outcome, written atomically when the run is complete
    report.html     a page for people (written by the caller, where the command has one)

Order of writes: the journal line first, everything derived from it after. A kill can lose
at most the item in flight: a half last line is cut off on resume. An error is journalled
as an error, never as a result, and its item is done again on resume.

Knows: folders, journals, locks. Refuses to know: what an item or a result means.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from icl_vision.contracts import Usage
from icl_vision.errors import RunError, RunLockedError, RunMismatchError, StorageError, UsageError
from icl_vision.files.reading import checked_path, loads, opened, read_json
from icl_vision.files.storage import json_text, write_json, writing

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
PACKAGE = Path(__file__).resolve().parents[1]
"""The package's own folder."""
HERE = Path(__file__).resolve().relative_to(PACKAGE).as_posix()
"""This file within it."""


def config_hash(command: str, config: Mapping[str, Any]) -> str:
    """Hex sha256 of a command and its configuration, independent of key order.

    Raises UsageError where the configuration is not plain JSON.
    """
    try:
        text = json_text([command, dict(config)], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a run's configuration must be plain JSON values: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what decides a run's results: Python, this library, and the packages it computes with."""
    versions = {"python": platform.python_version()}
    for name in ("icl-vision", "numpy", "pillow", "onnxruntime-gpu", "onnxruntime", "openai", "anthropic", "xllamacpp"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def source_commit() -> str | None:
    """The git commit of the package's own checkout, with "-dirty" where it has changes; None where it runs from none.

    An installed package often lies inside somebody's repository, in a virtual environment or vendored: the commit of
    that says nothing about what ran. Looked up once: what a process runs is the code it loaded, whatever is committed
    meanwhile.
    """
    return _commit_of(PACKAGE)


def _commit_of(package: Path) -> str | None:
    if not _is_own_checkout(package.parent):
        return None
    # Set by git for its hooks: they would point at the repository whose hook is running.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", *arguments], cwd=package.parent, env=environment, capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        if git("ls-files", "--error-unmatch", "--", f"{package.name}/{HERE}") is None:
            return None
        head = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if head is None else head + ("-dirty" if changes else "")


def _is_own_checkout(folder: Path) -> bool:
    """Whether a folder is the top of a checkout of this package: a repository whose project has our name."""
    if not (folder / ".git").exists():  # a file, in a worktree
        return False
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return False
    return isinstance(project, dict) and project.get("name") == "icl-vision"


class Run:
    """An open run folder. Use as a context manager; made by ``Run.open``.

    Attributes: ``folder``; ``info``, the content of run.json; ``done``, the ids of finished items.
    """

    def __init__(self, folder: Path, info: dict[str, Any], lock: Any, journal: IO[bytes], done: set[str]) -> None:
        self.folder = folder
        self.info = info
        self.done = done
        self._lock = lock
        self._journal = journal

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        command: str,
        config: Mapping[str, Any],
        *,
        seed: int | None = None,
        resume: bool = False,
    ) -> Run:
        """Start a run in ``folder``, or go on with the one that is there.

        folder: made if missing. command, config: what decides the results, plain JSON; they are hashed, and a
        resume with another hash is refused. resume: False refuses a folder that already holds a run.

        Raises RunMismatchError (another configuration, or a run is there and ``resume`` is off), RunLockedError
        (another process writes to it), RunError (unreadable run.json, or a format this version does not know).
        """
        import filelock

        path = Path(folder)
        digest = config_hash(command, config)
        try:
            checked_path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the run folder {str(path)!r} cannot be made: {error.strerror}") from error
        # Not bound to a thread: a run may be opened in one and closed in another.
        lock = filelock.FileLock(path / "lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise RunLockedError(
                f"another process is writing to the run {str(path)!r}; wait for it, or choose another folder"
            ) from None
        except OSError as error:  # "lock" is a folder, say
            raise RunError(f"the run folder {str(path)!r} cannot be locked: {error.strerror or error}") from error
        try:
            _sweep(path)
            info = cls._info(path, command, dict(config), digest, seed, resume)
            done = _recover(path / "journal.jsonl")
            try:
                journal = (path / "journal.jsonl").open("ab")
            except OSError as error:
                raise _unusable(path / "journal.jsonl", error) from error
        except BaseException:
            lock.release()
            raise
        return cls(path, info, lock, journal, done)

    @staticmethod
    def _info(
        path: Path, command: str, config: dict[str, Any], digest: str, seed: int | None, resume: bool
    ) -> dict[str, Any]:
        target = path / "run.json"
        info: dict[str, Any]
        if not target.exists():
            journal = path / "journal.jsonl"
            if journal.exists() and journal.stat().st_size:
                # Written after run.json, always: answers of an unknown configuration must not become this run's.
                raise RunError(
                    f"{str(path)!r} holds a journal but no run.json, so nothing says what its results are of; restore "
                    "run.json, or choose another folder"
                )
            info = {
                "format_version": FORMAT_VERSION,
                "command": command,
                "config": config,
                "config_hash": digest,
                "seed": seed,
                "versions": versions(),
                "commit": source_commit(),
            }
            write_json(target, info)
            return info
        info = read_info(path)
        check_config(info, command, config, path)
        if not resume:
            raise RunMismatchError(
                f"{str(path)!r} already holds this run; pass --resume (resume=True) to go on with it"
            )
        return info

    def record(self, item: str, result: Any) -> None:
        """Journal one finished item: when this returns, the line is on disk and ``item`` is in ``done``."""
        self._append({"id": item, "result": result})
        self.done.add(item)

    def record_error(self, item: str, error: BaseException, usage: Usage | None = None) -> None:
        """Journal that an item failed, and what it cost all the same. It is not done: a resume does it again."""
        line: dict[str, Any] = {"id": item, "error": {"type": type(error).__name__, "message": str(error)}}
        self._append(line if usage is None or usage == Usage() else line | {"usage": usage.to_dict()})

    def results(self) -> Iterator[tuple[str, Any]]:
        """Finished items with their results, in the order they finished; the newest where an item has several."""
        yield from read_results(self.folder)

    def finish(self, results: Any) -> Path:
        """Write results.json atomically and give its path."""
        target = self.folder / "results.json"
        write_json(target, results)
        return target

    def close(self) -> None:
        """Close the journal and give the lock back. Closing twice does nothing."""
        try:
            self._journal.close()  # writes what a full disk refused before, and may fail with it
        except OSError as error:
            raise StorageError(f"the journal of the run {str(self.folder)!r} cannot be closed: {error}") from error
        finally:
            self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StorageError as failure:
            if error is None:
                raise
            logger.warning("%s", failure)  # what ended the run says more

    def _append(self, line: dict[str, Any]) -> None:
        try:
            data = json_text(line, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise UsageError(f"the result of item {line['id']!r} is not plain JSON: {error}") from error
        with writing(self.folder / "journal.jsonl"):
            self._journal.write(data)
            self._journal.flush()
            os.fsync(self._journal.fileno())


def read_info(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """run.json of a folder, checked. Raises RunError where there is none or it cannot be read."""
    target = Path(folder) / "run.json"
    try:
        info = read_json(target)
    except FileNotFoundError:
        raise RunError(f"{str(folder)!r} holds no run (no run.json)") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{str(target)!r} cannot be read: {error}") from error
    if not isinstance(info, dict) or not isinstance(info.get("config"), dict) or "config_hash" not in info:
        raise RunError(f"{str(target)!r} is not a run description: config or config_hash is missing")
    if info.get("format_version") != FORMAT_VERSION:
        raise RunError(
            f"{str(target)!r} has format {info.get('format_version')!r}; this version reads format {FORMAT_VERSION}"
        )
    return info


def check_config(info: Mapping[str, Any], command: str, config: Mapping[str, Any], folder: Path) -> None:
    """Raise RunMismatchError, naming what differs, where a run was started with another command or configuration."""
    if info["config_hash"] == config_hash(command, config):
        return
    before: dict[str, Any] = info["config"]
    changed = sorted(key for key in {*before, *config} if before.get(key) != config.get(key)) or ["command"]
    raise RunMismatchError(
        f"the run in {str(folder)!r} was started with another configuration ({', '.join(changed)} differ); "
        "resume with the same options, or choose another folder"
    )


def read_results(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """Finished items of a run folder, open or not, one at a time (memory does not grow with the results)."""
    path = Path(folder) / "journal.jsonl"
    if not path.exists():
        return
    newest: dict[str, int] = {}
    for number, line in enumerate(_lines(path)):
        if line is not None and "result" in line:
            newest[line["id"]] = number
    for number, line in enumerate(_lines(path)):
        if line is not None and "result" in line and newest.get(line["id"]) == number:
            yield line["id"], line["result"]


@contextlib.contextmanager
def _journal(path: Path) -> Iterator[IO[bytes]]:
    """The journal, open for reading. Raises RunError where it is no file, or cannot be read."""
    try:
        with opened(path, most=2**63) as handle:
            yield handle
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(journal: Path, error: OSError) -> RunError:
    why = error.strerror or error
    return RunError(f"the journal {str(journal)!r} cannot be used: {why}; restore it, or choose another folder")


def read_usage(folder: str | os.PathLike[str]) -> Usage:
    """What a run has used so far, for a budget that is to hold for the whole of it; nothing where there is no run.

    Summed over every line of the journal that says it, under ``usage``: answers, and failures that cost something too.
    """
    path = Path(folder) / "journal.jsonl"
    total = Usage()
    for line in _lines(path) if path.exists() else ():
        told = None if line is None else line.get("result", line)
        total += _usage_of(told)
    return total


def _usage_of(told: Any) -> Usage:
    usage = told.get("usage") if isinstance(told, Mapping) else None
    known = Usage().to_dict()
    if not isinstance(usage, Mapping):
        return Usage()
    # A journal of an earlier version may lack a kind of token.
    return Usage(**{name: value for name in known if isinstance(value := usage.get(name, 0), int)})


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Lines of a journal; None for one that cannot be read (logged), a half last line ends the reading."""
    with _journal(path) as handle:
        for number, raw in enumerate(handle, start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = loads(raw, finite=False)
                if not isinstance(line, dict) or not isinstance(line.get("id"), str):
                    raise ValueError("not a journal line")
            except ValueError as error:
                logger.warning("%s line %d cannot be read (%s); its item will be done again", path, number, error)
                yield None
                continue
            yield line


def _sweep(folder: Path) -> None:
    """Remove what a killed process left of files that are written under the lock alone."""
    for name in ("run.json", "results.json"):
        for left in folder.glob(f".tmp-{name}-*"):
            left.unlink(missing_ok=True)


def _recover(path: Path) -> set[str]:
    """Cut a half last line off the journal and give the ids of the finished items."""
    if not path.exists():
        return set()
    data_end, half = 0, False
    with _journal(path) as handle:
        for raw in handle:
            if half := not raw.endswith(b"\n"):
                break
            data_end += len(raw)
    if half:
        logger.warning("%s ends in half a line; it is cut off and its item will be done again", path)
        try:
            os.truncate(path, data_end)
        except OSError as error:
            raise _unusable(path, error) from error
    return {line["id"] for line in _lines(path) if line is not None and "result" in line}
