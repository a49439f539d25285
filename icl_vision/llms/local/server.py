"""llama.cpp's server, one for each set of options in a process: started, shared, watched, stopped.

Knows: the server's process (``local.process``), its slots and their prefix caches. Refuses to know: prompts, labels,
scoring.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from icl_vision.cores import usable_cores as usable_cores
from icl_vision.errors import LLMUnavailableError, MissingExtraError
from icl_vision.llms.forced_requests import common_prefix
from icl_vision.llms.local.loopback import LoopbackClient
from icl_vision.llms.loop import at_exit
from icl_vision.llms.redaction import Secret

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What makes two embedded servers the same one.

    context: tokens of one request's window (every slot has its own). slots: requests
    evaluated side by side. threads: of llama.cpp.
    """

    path: Path
    threads: int
    context: int
    slots: int


@dataclass(slots=True, eq=False)
class Slot:
    """One of the server's slots and the tokens its cache is known to begin with."""

    number: int
    tokens: list[int] = field(default_factory=list)


class LlamaServer:
    """A running server. Make one with ``shared_server``; use it on the background loop only."""

    def __init__(self, options: ServerOptions, process: subprocess.Popen[bytes], port: int, key: str) -> None:
        self.options = options
        self.process = process
        self._client = LoopbackClient(port, key)
        self._free = [Slot(number) for number in range(options.slots)]
        self._available = asyncio.Semaphore(options.slots)

    def __repr__(self) -> str:
        return f"LlamaServer({self.options.path.name!r}, {self._client!r})"

    async def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """One request; errors as ``LoopbackClient.post`` raises them."""
        return await self._client.post(path, document)

    async def tokenize(self, text: str, *, start: bool = True, special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            start: put the model's start token (BOS) first, if it has one.
            special: read "<end_of_turn>" and the like as special tokens. Off for users' text, which must not be
                able to end a turn.
        """
        answer = await self.post("/tokenize", {"content": text, "add_special": start, "parse_special": special})
        return [int(token) for token in answer["tokens"]]

    @asynccontextmanager
    async def slot(self, tokens: list[int]) -> AsyncIterator[Slot]:
        """A free slot whose cache is of use for ``tokens``, else the one unused for longest; first come, first served.

        Of use is a cache that shares half of its own tokens or of these: every two prompts begin alike (with the start
        token, or an instruction), and for so little no slot should lose what another prompt will ask for again.
        """
        async with self._available:
            shares = {slot.number: common_prefix(slot.tokens, tokens) for slot in self._free}
            useful = [slot for slot in self._free if 2 * shares[slot.number] >= min(len(slot.tokens) or 2, len(tokens))]
            # Slots come back at the end of the list, so its first is the one unused for longest.
            best = max(useful, key=lambda slot: shares[slot.number]) if useful else self._free[0]
            self._free.remove(best)
            try:
                yield best
            except BaseException:
                # What a cut request left in the cache is not known.
                best.tokens = []
                raise
            finally:
                self._free.append(best)

    @property
    def address(self) -> tuple[str, Secret]:
        """Where it listens, for whoever speaks HTTP to it himself, and its key. What such requests leave in the slots'
        caches is not known here: a server that prompts are scored on is not for that."""
        return self._client.address

    @property
    def alive(self) -> bool:
        """False when the server's process has ended, by a crash of the model for instance."""
        return self.process.poll() is None


_servers: dict[ServerOptions, asyncio.Task[LlamaServer]] = {}
"""Touched on the background loop only, so it needs no lock."""

_processes: list[subprocess.Popen[bytes]] = []
"""Every server process started and not yet stopped."""


async def shared_server(options: ServerOptions) -> LlamaServer:
    """The process's server for these options, started at the first call (other calls wait for the same start)."""
    task = _servers.get(options)
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None or not task.result().alive)):
        task = asyncio.get_running_loop().create_task(_start(options))
        _servers[options] = task
    # One waiting caller giving up must not stop the start for the others.
    return await asyncio.shield(task)


async def _start(options: ServerOptions) -> LlamaServer:
    key = secrets.token_hex(16)
    logger.info("starting llama.cpp: %s", options)
    process, port = await asyncio.to_thread(_start_process, options, key)
    return LlamaServer(options, process, port, key)


def _start_process(options: ServerOptions, key: str) -> tuple[subprocess.Popen[bytes], int]:
    document = {
        "path": str(options.path),
        "threads": options.threads,
        "context": options.context,
        "slots": options.slots,
        "key": key,
        "sys_path": [entry or os.getcwd() for entry in sys.path],
    }
    environment = dict(os.environ)
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        # llama.cpp's threads meet at a barrier hundreds of times a token. OpenMP spins there by default, which with
        # one busy core too few makes everything five to ten times slower; sleeping costs next to nothing.
        environment["OMP_WAIT_POLICY"] = "passive"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            # Ctrl-C in a terminal goes to the whole group: it is for the user's program, which then stops the server.
            start_new_session=True,
        )
        _processes.append(process)
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # a process that died at once says why in its log
                process.stdin.write(json.dumps(document).encode("utf-8") + b"\n")
                process.stdin.flush()
            with process.stdout:
                line = process.stdout.readline()
            answer = json.loads(line) if line else {"error": "the process ended at once"}
        except BaseException:
            _stop(process)
            raise
        if "port" in answer:
            return process, int(answer["port"])
        _stop(process)
        raise LLMUnavailableError(
            f"llama.cpp could not load {str(options.path)!r} ({answer['error']}); the file may be damaged, of an "
            f"unknown architecture, or too large for the memory. Its log ends:\n{_tail(log)}"
        )


def _tail(log: IO[bytes], lines: int = 5) -> str:
    log.seek(0)
    return "\n".join(log.read().decode("utf-8", "replace").strip().splitlines()[-lines:])


def _stop(process: subprocess.Popen[bytes], timeout: float = 5.0) -> None:
    """End a server: close its lifeline, then wait, then kill."""
    with contextlib.suppress(ValueError):
        _processes.remove(process)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@functools.cache
def llama_version() -> str:
    """The version of the package that holds llama.cpp: another one may round otherwise."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def require_xllamacpp() -> None:
    """MissingExtraError, naming the extra, where xllamacpp is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtraError("the local LLM", "local")


def stop_all() -> None:
    """Stop every server of this process; the next call starts a new one."""
    for process in list(_processes):
        _stop(process)


at_exit(stop_all)


def _forget_after_fork() -> None:
    # The servers are the parent's. Closing our copy of a lifeline leaves the parent's open; the return code keeps
    # the child from waiting for, or complaining about, processes that are not its own.
    for process in _processes:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        process.returncode = 0
    _processes.clear()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
