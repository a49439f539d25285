"""The process that holds llama.cpp: reads its options from stdin, answers with its port, ends when stdin ends.

Knows: xllamacpp's parameters. Refuses to know: everything else of ours; it is run as a plain file, not imported.

A process of its own because llama.cpp's threads survive neither a fork nor every
way an interpreter can exit, because its log goes straight to stderr, and because
a model that crashes must not take the user's program with it. The pipe on stdin
is the lifeline: when the parent ends, however it ends, the pipe does too.

Two facts decide the settings (measured, see benchmarks/bench_local_llm_scoring.py):

- Gemma 3 attends through sliding windows. Unless the whole cache is kept (``swa_full``), going back to a shared
  prefix makes llama.cpp evaluate part of it again.
- llama.cpp's ``cache_idle_slots`` clears a slot when another one starts a task, which would undo the prefix cache.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def parameters(xllamacpp: Any, options: dict[str, Any]) -> Any:
    """llama.cpp's parameters for ``llama_server.ServerOptions`` and a key."""
    params = xllamacpp.CommonParams()
    params.model.path = options["path"]
    params.n_ctx = options["context"] * options["slots"]
    params.n_parallel = options["slots"]
    params.cpuparams.n_threads = options["threads"]
    params.cpuparams_batch.n_threads = options["threads"]
    params.swa_full = True
    params.n_ctx_checkpoints = 0
    params.cache_idle_slots = False
    params.cache_ram_mib = 0
    params.warmup = False
    params.fit_params = False
    params.verbosity = -1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # Other users of the machine can reach the loopback interface too.
    params.api_keys = [options["key"]]
    params.ui = False
    params.endpoint_slots = False
    return params


def main() -> None:
    """Serve until stdin ends."""
    # Whatever llama.cpp prints must not mix with our one line of answer.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    options = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = options["sys_path"]

    def lifeline() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=lifeline, daemon=True).start()
    try:
        import xllamacpp

        server = xllamacpp.Server(parameters(xllamacpp, options))
        document: dict[str, int | str] = {"port": int(str(server.listening_address).rsplit(":", 1)[1])}
    except Exception as error:  # whatever it is, the parent tells the user
        document = {"error": f"{type(error).__name__}: {error}"}
    answer.write(json.dumps(document) + "\n")
    answer.close()
    if "error" in document:
        os._exit(1)
    threading.Event().wait()


if __name__ == "__main__":
    main()
