"""`icl-vision mcp --http` under 2,000 calls, hostile ones among them: statuses, memory, and what leaks.

    python benchmarks/bench_mcp.py --out benchmarks/results/mcp.json

One server process on loopback; eight clients at a time send calls that are drawn from twenty kinds: pictures by path
and as bytes, questions, folders, and paths outside, links out, decompression bombs, pictures cut off, no base64,
foreign Host and Origin headers, a wrong token, a body that is no JSON, a form instead of JSON, an unknown tool, wrong
arguments, a client that hangs up in the middle. Names outside the root and the token hold a canary, for which every
answer, every header and everything the server prints is searched.

Knows: what is sent, what is counted. Refuses to know: how long an LLM takes: it is the fake one.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

CANARY = "canary"
TOKEN = f"{CANARY}-token-0123456789"
VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
KINDS = 20
CLIENTS = 8


def png(colour: tuple[int, int, int]) -> bytes:
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, format="PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A kilobyte that says it is a picture of 3.6 thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


class Server:
    """The command, started; ``said`` is all that it printed."""

    def __init__(self, folder: Path, tokenizer: str) -> None:
        self.root, self.outside = folder / "photos", folder / f"{CANARY}-outside"
        self.root.mkdir()
        self.outside.mkdir()
        for number in range(8):
            (self.root / f"{number}.png").write_bytes(png((number * 30, 80, 120)))
        (self.outside / "secret.png").write_bytes(png((9, 9, 9)))
        (self.root / "link.png").symlink_to(self.outside / "secret.png")
        command = [sys.executable, "-m", "icl_vision", "mcp", "--http", "--port", "0", "--token-env", "BENCH_TOKEN"]
        command += ["--root", str(self.root), "--out", str(folder / "words"), "--llm", "fake", "--tokenizer", tokenizer]
        self.process = subprocess.Popen(
            command, env=os.environ | {"BENCH_TOKEN": TOKEN}, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        while not (found := re.search(r"serving MCP at (\S+);", self.said[-1] if self.said else "")):
            self.said.append(self.process.stderr.readline())
            if not self.said[-1]:
                raise SystemExit("the server did not start: " + "".join(self.said))
        self.address = found[1]
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._reader.start()

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self._reader.join(10)


class Calls:
    """Calls of all kinds, the same for a seed."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._bomb = base64.b64encode(bomb()).decode()

    def made(self, number: int) -> tuple[dict[str, str], bytes | None]:
        """Headers and a body; None for a client that hangs up."""
        pick = self._random
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {TOKEN}",
            "mcp-protocol-version": VERSION,
        }
        kind = number % KINDS
        name, given = "describe_image", {"path": "0.png"}
        if kind < 4:
            given = {
                "path": f"{pick.randrange(8)}.png",
                "question": pick.choice(["what colour?", "how many?", "where?"]),
            }
        elif kind < 6:
            given = {"image": base64.b64encode(png((pick.randrange(256), pick.randrange(256), 7))).decode()}
        elif kind == 6:
            outside = str(self._server.outside / "secret.png")
            places = [f"../{CANARY}-outside/secret.png", outside, "link.png", "/etc/passwd", "/dev/zero", "a\0b"]
            given = {"path": pick.choice(places)}
        elif kind == 7:
            given = {"image": self._bomb}
        elif kind == 8:
            given = {"image": "!" * pick.randrange(1000)}
        elif kind == 9:
            name, given = "tokenize_folder", {"folder": pick.choice([".", "..", "/"]), "out": f"words{number}.jsonl"}
        elif kind == 10:
            headers["host"] = "attacker.example"
        elif kind == 11:
            headers["origin"] = "https://attacker.example"
        elif kind == 12:
            headers["authorization"] = "Bearer wrong"
        elif kind == 13:
            return headers, b"{" * pick.randrange(1, 5000)
        elif kind == 14:
            name = "no_such_tool"
        elif kind == 15:
            name, given = "ask_image", {"path": f"{pick.randrange(8)}.png", "question": "what is it?"}
        elif kind == 16:
            given = {"image": base64.b64encode(png((1, 2, 3))[: pick.randrange(10, 60)]).decode()}
        elif kind == 17:
            given = {"path": "0.png", "no_such_argument": "1"}
        elif kind == 18:
            headers["content-type"] = "text/plain"
        else:
            return headers, None
        params = {"name": name, "arguments": given, "_meta": META}
        body = {"jsonrpc": "2.0", "id": number + 1, "method": "tools/call", "params": params}
        return headers | {"mcp-method": "tools/call", "mcp-name": name}, json.dumps(body).encode()


async def send(server: Server, calls: Calls, numbers: range, told: Counter[str], leaks: list[int]) -> list[float]:
    """Send them, ``CLIENTS`` at a time; gives the seconds each answer took."""
    turns = asyncio.Semaphore(CLIENTS)
    seconds: list[float] = []
    async with httpx2.AsyncClient(timeout=60) as client:

        async def one(number: int) -> None:
            headers, body = calls.made(number)
            async with turns:
                if body is None:
                    port = httpx2.URL(server.address).port
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
                    await writer.drain()
                    writer.close()
                    told["hung up"] += 1
                    return
                began = time.perf_counter()
                answer = await client.post(server.address, headers=headers, content=body)
                seconds.append(time.perf_counter() - began)
            kind = "refused by a tool" if '"isError":true' in answer.text else "answered"
            told[f"200, {kind}" if answer.status_code == 200 else str(answer.status_code)] += 1
            if CANARY in answer.text or any(CANARY in value for value in answer.headers.values()):
                leaks.append(number)

        await asyncio.gather(*(one(number) for number in numbers))
    return seconds


def measured(server: Server, calls: Calls, count: int) -> dict[str, Any]:
    """All of them in four parts, with memory after each."""
    told: Counter[str] = Counter()
    leaks: list[int] = []
    memory: dict[str, int] = {}
    seconds: list[float] = []
    cpu = server.cpu()
    for part in range(4):
        numbers = range(part * count // 4, (part + 1) * count // 4)
        seconds += asyncio.run(send(server, calls, numbers, told, leaks))
        memory[str(numbers.stop)] = server.memory()
    first, *_, last = memory.values()
    seconds.sort()
    return {
        "calls": count,
        "answers": dict(sorted(told.items())),
        "without an answer": count - sum(told.values()),
        "answers with a canary": len(leaks),
        "memory": memory,
        "memory, last quarter to first": round(last / first, 4),
        "seconds": {"median": round(seconds[len(seconds) // 2], 4), "most": round(seconds[-1], 3)},
        "cpu seconds a call": round((server.cpu() - cpu) / count, 4),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--tokenizer", default="describe-photo", help="name or folder (default describe-photo)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), options.tokenizer)
        try:
            result = measured(server, Calls(server, options.seed), options.calls)
        finally:
            server.stop()
        printed = "".join(server.said)
        result["server printed"] = {
            "characters": len(printed),
            "a canary": CANARY in printed,
            "a traceback": "Traceback" in printed,
        }
        written = [path.name for path in (Path(folder) / "words").iterdir()]
        result["files in the output folder"] = len(written)
    result["tokenizer"] = Path(options.tokenizer).name
    print(json.dumps(result, indent=2))
    if options.out is not None:
        write(options.out, header(options.seed) | result)


if __name__ == "__main__":
    main()
