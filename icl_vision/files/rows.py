"""JSON objects by key in one SQLite file: what our caches keep on disk.

WAL mode, rows of JSON text, no pickle: a row is data, whoever wrote it. A row that cannot be read back is logged,
deleted and counts as missing. A write is a commit without an fsync: what a power cut takes from a cache can be had
again.

Knows: files, rows, damage. Refuses to know: what keys and objects mean.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from icl_vision.errors import StorageError
from icl_vision.files.reading import checked_path
from icl_vision.forks import ForkLock

logger = logging.getLogger(__name__)

_of_parents: list[sqlite3.Connection] = []


class JsonRows:
    """A table of JSON objects. Thread-safe, and survives a fork; several processes may share the file.

    path: the file; its folder is made with mode 0700. table: the table's name in it. what: for messages, "the response
    cache" say. ``hits`` and ``misses`` count what ``get`` found.
    """

    def __init__(self, path: str | os.PathLike[str], *, table: str, what: str) -> None:
        if not table.isidentifier():
            raise ValueError(f"a table's name must be an identifier; got {table!r}")
        self.path = Path(path)
        self.hits = 0
        self.misses = 0
        self._table = table
        self._what = what
        self._lock = ForkLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        # For pickle: the same file, opened anew.
        return self.__dict__ | {"_connection": None}

    def get(self, key: str) -> dict[str, Any] | None:
        """The object stored under a key, or None. A damaged row is deleted and counts as a miss."""
        with self._lock, self._guard("read"):
            row = self._open().execute(f"SELECT body FROM {self._table} WHERE key = ?", (key,)).fetchone()
            if row is None:
                self.misses += 1
                return None
            try:
                body = json.loads(row[0])
                if not isinstance(body, dict):
                    raise ValueError("not an object")
            except (ValueError, TypeError, RecursionError) as error:
                logger.warning("row %s of %s cannot be read (%s); deleted", key[:12], self.path, error)
                with contextlib.suppress(sqlite3.Error):  # read-only, say: it stays and is a miss again
                    self._open().execute(f"DELETE FROM {self._table} WHERE key = ?", (key,))
                self.misses += 1
                return None
            self.hits += 1
            return body

    def put(self, key: str, body: Mapping[str, Any]) -> None:
        """Store an object; the newest wins."""
        self.put_all({key: body})

    def put_all(self, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """Store objects by their keys, all or none of them."""
        now = time.time()
        rows = [(key, now, json.dumps(body, ensure_ascii=False)) for key, body in bodies.items()]
        with self._lock, self._guard("written"):
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(
                    f"INSERT OR REPLACE INTO {self._table} (key, created, body) VALUES (?, ?, ?)", rows
                )
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def discard(self, key: str) -> None:
        """Forget what is stored under a key."""
        with self._lock, self._guard("written"):
            self._open().execute(f"DELETE FROM {self._table} WHERE key = ?", (key,))

    def prune(self, most_bytes: int) -> int:
        """Where the rows take more than so many bytes, delete the oldest quarter of them; how many went.

        The file keeps its size and later rows take the place, so it stays near the limit.
        """
        with self._lock, self._guard("written"):
            connection = self._open()
            pages, free, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size <= most_bytes:
                return 0
            gone = connection.execute(
                f"DELETE FROM {self._table} WHERE key IN (SELECT key FROM {self._table} ORDER BY created, key LIMIT "
                f"(SELECT (COUNT(*) + 3) / 4 FROM {self._table}))"
            ).rowcount
            logger.info("removed the oldest %d rows of %s, which had grown over %d bytes", gone, self.path, most_bytes)
            return gone

    def damaged(self, key: str, why: object) -> None:
        """A row that ``get`` gave turns out to be of no use: log it, delete it, and count it as the miss it is."""
        logger.warning("row %s of %s is of no use (%s); deleted", key[:12], self.path, why)
        self.discard(key)
        self.hits -= 1
        self.misses += 1

    def __len__(self) -> int:
        with self._lock, self._guard("read"):
            return int(self._open().execute(f"SELECT COUNT(*) FROM {self._table}").fetchone()[0])

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                if self._pid == os.getpid():
                    self._connection.close()
                else:
                    _of_parents.append(self._connection)
                self._connection = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, hits={self.hits}, misses={self.misses})"

    def _open(self) -> sqlite3.Connection:
        # SQLite connections must not cross a fork, not even to be closed: the parent's is kept where nobody frees it.
        if self._connection is not None:
            if self._pid == os.getpid():
                return self._connection
            _of_parents.append(self._connection)
            self._connection = None
        self._pid = os.getpid()
        checked_path(self.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} "
                "(key TEXT PRIMARY KEY, created REAL NOT NULL, body TEXT NOT NULL)"
            )
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    @contextlib.contextmanager
    def _guard(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"{self._what} {str(self.path)!r} cannot be {done}: {error}; delete the file, or set "
                "ICL_VISION_CACHE to another folder"
            ) from error


def _use_wal(connection: sqlite3.Connection, patience: float = 30.0) -> None:
    """Turn write-ahead logging on. SQLite does not wait for that lock as it does for others, so we do."""
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
