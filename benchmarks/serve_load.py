"""`icl-vision serve` in front of a slow LLM and under attack: what it costs, what every request ends in, what leaks.

    python benchmarks/serve_load.py latency --out benchmarks/results/serve_latency.json
    python benchmarks/serve_load.py hostile --out benchmarks/results/serve_hostile.json
    python benchmarks/serve_load.py pictures --out benchmarks/results/serve_pictures.json

``latency``: a loopback upstream waits 500 ms, then streams 100 pieces 20 ms apart. 64 clients at once ask it directly,
through the proxy without a picture, and through the proxy with one picture whose words are known; the three take turns,
round by round, so that a busy machine hits all alike. Clients begin one after the other, spread over the time of an
answer, as they would be found on any day; with --burst all in the same moment. Told are the times to the first byte and
to the last, and the proxy's processor time a request.

``hostile``: requests drawn from two dozen kinds, in all three dialects: bombs, private addresses in all their forms,
traversal, links, too many pictures, broken JSON, foreign Host and Origin headers, forms, a wrong token, files that are
no pictures, clients that hang up inside their request or before the answer. The client's key, the token, pictures'
bytes and names outside the root hold canaries, for which every answer, every header and everything that the proxy
prints is searched; the upstream looks for them too (the key apart, which is for it).

``pictures``: new pictures, one a request, eight clients at once, in front of an upstream that answers at once; beside
it the tokenizer alone, which is given the same bytes one after the other, on the same cores.

Knows: what is sent, what is counted. Refuses to know: how a proxy works.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import io
import json
import os
import random
import re
import signal
import statistics
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

from PIL import Image
from PIL.PngImagePlugin import PngInfo

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _common import header, write

CANARY = "canary"
KEY = f"sk-{CANARY}-key-0123456789"
TOKEN = f"{CANARY}-token-0123456789"
WAIT, PIECES, BETWEEN = 0.5, 100, 0.02

# The upstream ---------------------------------------------------------------------------------------------------------


async def upstream(wait: float, pieces: int, between: float) -> None:
    """Serve until standard input is closed. Prints its port; at the end, what it saw as JSON."""
    seen: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                seen["requests"] += 1
                # What was shown to the proxy alone must not come here, nor any picture.
                told = head.replace(KEY.encode(), b"") + body
                if CANARY.encode() in told or b"data:image" in body or b"iVBOR" in body:
                    seen["leaks"] += 1
                await asyncio.sleep(wait)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for number in range(pieces):
                    delta = {"choices": [{"index": 0, "delta": {"content": f" word{number}"}, "finish_reason": None}]}
                    piece = f"data: {json.dumps(delta)}\n\n".encode()
                    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(between)
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                if b"connection: close" in head.lower():
                    break
        except asyncio.IncompleteReadError as error:
            seen["hung up"] += bool(error.partial)  # (else a connection that was kept is let go)
        except (ConnectionError, asyncio.LimitOverrunError):
            seen["hung up"] += 1
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(seen), flush=True)


class Upstream:
    """It in a process of its own."""

    def __init__(self, wait: float, pieces: int, between: float) -> None:
        command = [sys.executable, __file__, "upstream", str(wait), str(pieces), str(between)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> dict[str, int]:
        """What it saw."""
        said, _ = self._process.communicate(timeout=60)
        found: dict[str, int] = json.loads(said.splitlines()[-1])
        return found


class Proxy:
    """The command, started; ``said`` is all that it printed."""

    def __init__(self, port: int, *options: str) -> None:
        command = [sys.executable, "-m", "icl_vision", "serve", "--llm-url", f"http://127.0.0.1:{port}", "--port", "0"]
        self._process = subprocess.Popen(
            [*command, *options],
            env=os.environ | {"BENCH_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        assert self._process.stdout is not None
        while not (found := re.search(r"serving at http://127\.0\.0\.1:(\d+)", self.said[-1] if self.said else "")):
            self.said.append(self._process.stdout.readline())
            if not self.said[-1]:
                raise SystemExit("the proxy did not start: " + "".join(self.said))
        self.port = int(found[1])
        self._reader = threading.Thread(target=lambda: self.said.extend(self._process.stdout or ()), daemon=True)
        self._reader.start()

    def memory(self) -> int:
        """Resident bytes."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> str:
        """End it as Ctrl-C does; gives all that it printed."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._reader.join(10)
        return "".join(self.said)


# A client that does little --------------------------------------------------------------------------------------------


def request(body: bytes, headers: dict[str, str], path: str = "/v1/chat/completions") -> bytes:
    """One POST, its connection closed after the answer."""
    lines = {"Host": "127.0.0.1", "Content-Type": "application/json", "Connection": "close"} | headers
    lines = {name: value for name, value in lines.items() if value}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode("latin-1") + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


async def timed(port: int, sent: bytes) -> tuple[float, float, bytes]:
    """Seconds to the first byte of the body and to the last, and the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    began = time.perf_counter()
    writer.write(sent)
    answer = await reader.readuntil(b"\r\n\r\n")
    answer += await reader.read(1)
    first = time.perf_counter() - began
    answer += await reader.read(-1)
    seconds = time.perf_counter() - began
    writer.close()
    return first, seconds, answer


# Latency --------------------------------------------------------------------------------------------------------------


def png(colour: tuple[int, int, int] = (200, 30, 30), note: str = "") -> bytes:
    """A small picture; ``note`` is kept in its bytes and shows in no pixel."""
    info = PngInfo()
    info.add_text("note", note)
    file = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def data_url(data: bytes) -> str:
    """As clients send pictures."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def chat(*parts: dict[str, Any]) -> bytes:
    """A Chat Completions request of these parts."""
    return json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": [*parts]}]}).encode()


def text(said: str) -> dict[str, Any]:
    """A part."""
    return {"type": "text", "text": said}


def picture(url: str) -> dict[str, Any]:
    """A part."""
    return {"type": "image_url", "image_url": {"url": url}}


def spread(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in seconds."""
    ordered = sorted(values)
    return {"median": round(statistics.median(ordered), 4), "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 4)}


def between(through: list[float], direct: list[float]) -> str:
    """How much longer the median is, where requests are drawn anew from those that were measured (bootstrap)."""
    draws = random.Random(0)
    found = sorted(
        statistics.median(draws.choices(through, k=len(through)))
        / statistics.median(draws.choices(direct, k=len(direct)))
        for _ in range(2000)
    )
    return f"{100 * (found[50] - 1):+.1f} to {100 * (found[-51] - 1):+.1f}%"


def latency(clients: int, rounds: int, *, burst: bool) -> dict[str, Any]:
    """See the head of this module."""
    slow = Upstream(WAIT, PIECES, BETWEEN)
    proxy = Proxy(slow.port)
    asked = chat(text("What colour is it?"))
    seen = chat(text("What colour is it?"), picture(data_url(png())))
    cases = {
        "direct": (slow.port, asked),
        "no picture": (proxy.port, asked),
        "cached picture": (proxy.port, seen),
    }
    firsts: dict[str, list[float]] = collections.defaultdict(list)
    totals: dict[str, list[float]] = collections.defaultdict(list)
    cpu: dict[str, float] = collections.defaultdict(float)
    wrong = 0

    async def ask_all(port: int, body: bytes) -> list[tuple[float, float, bytes]]:
        sent = request(body, {"Authorization": f"Bearer {KEY}"})

        async def one(number: int) -> list[tuple[float, float, bytes]]:
            if burst:
                return [await timed(port, sent)]
            await asyncio.sleep(number / clients * (WAIT + PIECES * BETWEEN))
            # Twice, so that all are at work together for as long as an answer takes.
            return [await timed(port, sent), await timed(port, sent)]

        return [found for some in await asyncio.gather(*map(one, range(clients))) for found in some]

    try:
        for port, body in cases.values():  # connections and words are made
            asyncio.run(timed(port, request(body, {})))
        for _ in range(rounds):
            for name, (port, body) in cases.items():
                before = proxy.cpu()
                for first, total, answer in asyncio.run(ask_all(port, body)):
                    firsts[name].append(first)
                    totals[name].append(total)
                    wrong += answer.count(b'"delta"') != PIECES
                cpu[name] += proxy.cpu() - before
    finally:
        proxy.stop()
        counted = slow.stop()
    result: dict[str, Any] = {
        "clients": clients,
        "rounds": rounds,
        "burst": burst,
        "answers not whole": wrong,
        "upstream": counted,
    }
    for name in cases:
        result[name] = {"first byte": spread(firsts[name]), "total": spread(totals[name])}
        if name != "direct":
            result[name]["longer than direct"] = {
                what: {
                    **{
                        key: f"{100 * (result[name][what][key] / result['direct'][what][key] - 1):+.1f}%"
                        for key in ("median", "p99")
                    },
                    "median, 95% interval": between(values[name], values["direct"]),
                }
                for what, values in (("first byte", firsts), ("total", totals))
            }
            result[name]["requests"] = len(totals[name])
            result[name]["cpu seconds a request"] = round(cpu[name] / len(totals[name]), 4)
    return result


# Pictures -------------------------------------------------------------------------------------------------------------


def pictures(count: int, tokenizer: str) -> dict[str, Any]:
    """See the head of this module."""
    from icl_vision import ImageTokenizer

    files = [png((number * 7 % 256, number * 13 % 256, number * 29 % 256), str(number)) for number in range(count + 8)]
    fast = Upstream(0.0, 3, 0.0)
    proxy = Proxy(fast.port, "--tokenizer", tokenizer)
    sent = [request(chat(text("What colour is it?"), picture(data_url(data))), {}) for data in files]
    wrong = 0

    async def ask_all(some: list[bytes]) -> None:
        turns = asyncio.Semaphore(8)

        async def one(body: bytes) -> None:
            nonlocal wrong
            async with turns:
                _, _, answer = await timed(proxy.port, body)
            wrong += not answer.startswith(b"HTTP/1.1 200 ")

        await asyncio.gather(*map(one, some))

    try:
        asyncio.run(ask_all(sent[:8]))  # sessions are made
        before, began = proxy.cpu(), time.perf_counter()
        asyncio.run(ask_all(sent[8:]))
        through = time.perf_counter() - began
        cpu = proxy.cpu() - before
    finally:
        proxy.stop()
        fast.stop()
    alone = ImageTokenizer.from_pretrained(tokenizer)
    alone.encode(files[:8])
    began, before = time.perf_counter(), time.process_time()
    for data in files[8:]:
        alone.encode([data])
    bare = time.perf_counter() - began
    return {
        "pictures": count,
        "tokenizer": Path(tokenizer).name,
        "not answered": wrong,
        "through the proxy": {"pictures a second": round(count / through, 2), "cpu seconds": round(cpu / count, 4)},
        "tokenizer alone": {
            "pictures a second": round(count / bare, 2),
            "cpu seconds": round((time.process_time() - before) / count, 4),
        },
    }


# Hostile --------------------------------------------------------------------------------------------------------------

PRIVATE = """http://127.0.0.1/a.png http://127.1/a.png http://0x7f000001/a.png http://2130706433/a.png http://0/a.png
http://localhost/a.png http://[::1]/a.png http://[::ffff:127.0.0.1]/a.png http://[::ffff:7f00:1]/a.png http://10.0.0.1/a.png
http://192.168.0.1/a.png http://172.16.0.1/a.png http://169.254.169.254/latest/meta-data http://100.64.0.1/a.png
http://[fe80::1]/a.png http://[fc00::1]/a.png http://224.0.0.1/a.png http://[64:ff9b::7f00:1]/a.png http://[2002:7f00:1::]/a.png
http://0177.0.0.1/a.png http://127.0.0.1:22/a.png ftp://127.0.0.1/a.png gopher://127.0.0.1/a http://a@127.0.0.1/a.png
https://127.0.0.1/a.png http://198.18.0.1/a.png http://255.255.255.255/a.png http://[ff02::1]/a.png""".split()


def bomb() -> bytes:
    """A kilobyte that says it is a picture of 3.6 thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


class Requests:
    """Requests of all kinds, the same for a seed."""

    def __init__(self, root: Path, outside: Path, seed: int) -> None:
        self._root, self._outside = root, outside
        self._random = random.Random(seed)
        self._bomb = data_url(bomb())

    def made(self, number: int) -> tuple[str, bytes, int]:
        """Its kind, the bytes to send, and after how many of them the client hangs up (0: it does not)."""
        pick = self._random
        key = {"Authorization": f"Bearer {KEY}", "X-Icl-Vision-Token": TOKEN}
        question = text(pick.choice(["What colour is it?", "How many?", "Where?"]))
        fine = picture(data_url(png((pick.randrange(256), 30, 30), f"{CANARY}-{number}")))
        kinds: list[tuple[str, Any]] = [
            ("no picture", lambda: request(chat(question), key)),
            ("a picture", lambda: request(chat(question, fine), key)),
            ("a picture for messages", lambda: self._messages(question, key)),
            ("a picture for responses", lambda: self._responses(key)),
            ("a file in the root", lambda: request(chat(question, picture(f"file://{self._root}/red.png")), key)),
            ("a file outside", lambda: request(chat(question, picture(self._away())), key)),
            ("a private address", lambda: request(chat(question, picture(pick.choice(PRIVATE))), key)),
            ("a bomb", lambda: request(chat(question, picture(self._bomb)), key)),
            ("too many pictures", lambda: request(chat(question, *[fine] * 100), key)),
            ("no base64", lambda: request(chat(question, picture("data:image/png;base64,!!!" + CANARY)), key)),
            ("no picture in base64", lambda: request(chat(picture(data_url(CANARY.encode()))), key)),
            ("cut off", lambda: request(chat(picture(data_url(png()[: pick.randrange(9, 200)]))), key)),
            ("broken JSON", lambda: request(chat(question, fine)[: pick.randrange(1, 300)], key)),
            ("deep JSON", lambda: request(b"[" * 100_000, key)),
            ("a key twice", lambda: request(b'{"messages": [], ' + chat(question, fine)[1:], key)),
            ("a foreign Host", lambda: request(chat(question, fine), key | {"Host": "attacker.example"})),
            ("a foreign Origin", lambda: request(chat(question), key | {"Origin": "https://attacker.example"})),
            ("a form", lambda: request(chat(question, fine), key | {"Content-Type": "text/plain"})),
            ("no token", lambda: request(chat(question), {"Authorization": f"Bearer {KEY}"})),
            ("another path", lambda: request(chat(question), key, f"/v1/{pick.choice(['files', '../x', 'chat', ''])}")),
            ("two lengths", lambda: request(chat(question), key | {"Content-Length": "5"})),
            (
                "a PDF",
                lambda: request(chat({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}), key),
            ),
            ("an order in a system message", lambda: request(self._system(fine), key)),
            ("hangs up inside", lambda: request(chat(question, fine), key)),
            ("hangs up after", lambda: request(chat(question, fine), key)),
        ]
        kind, make = kinds[number % len(kinds)]
        sent = make()
        cut = {"hangs up inside": len(sent) // 2, "hangs up after": len(sent)}.get(kind, 0)
        return kind, sent, cut

    def _away(self) -> str:
        outside = self._outside.name
        return self._random.choice(
            [
                f"file://{self._outside}/secret.png",
                f"file://{self._root}/../{outside}/secret.png",
                f"file://{self._root}/%2e%2e/{outside}/secret.png",
                f"file://{self._root}/link.png",
                "file:///etc/passwd",
                "file:///dev/zero",
                f"file:red.png/../../{outside}/secret.png",
            ]
        )

    def _messages(self, question: dict[str, Any], key: dict[str, str]) -> bytes:
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(note=CANARY)).decode()}
        content = [{"type": "image", "source": source}, question]
        document = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
        return request(json.dumps(document).encode(), key, "/v1/messages")

    def _responses(self, key: dict[str, str]) -> bytes:
        content = [
            {"type": "input_image", "image_url": data_url(png(note=CANARY))},
            {"type": "input_text", "text": "?"},
        ]
        document = {"model": "m", "input": [{"role": "user", "content": content}]}
        return request(json.dumps(document).encode(), key, "/v1/responses")

    def _system(self, part: dict[str, Any]) -> bytes:
        return json.dumps({"model": "m", "messages": [{"role": "system", "content": [part]}]}).encode()


def hostile(count: int, seed: int, seconds: float, tokenizer: str) -> dict[str, Any]:
    """See the head of this module."""
    told: dict[str, Counter[str]] = collections.defaultdict(Counter)
    leaks: list[str] = []
    late: list[str] = []
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, outside = Path(folder) / "photos", Path(folder) / f"{CANARY}-outside"
        root.mkdir()
        outside.mkdir()
        (root / "red.png").write_bytes(png())
        (outside / "secret.png").write_bytes(png((1, 2, 3)))
        (root / "link.png").symlink_to(outside / "secret.png")
        fast = Upstream(0.0, 3, 0.0)
        proxy = Proxy(fast.port, "--root", str(root), "--fetch", "--token-env", "BENCH_TOKEN", "--tokenizer", tokenizer)
        requests = Requests(root, outside, seed)

        async def one(turns: asyncio.Semaphore, kind: str, sent: bytes, cut: int) -> None:
            async with turns:
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=2**20)
                writer.write(sent[:cut] if cut else sent)
                await writer.drain()
                if cut:
                    writer.transport.abort()
                    told[kind]["hung up"] += 1
                    return
                try:
                    answer = await asyncio.wait_for(reader.read(-1), seconds)
                except TimeoutError:
                    late.append(kind)
                    return
                finally:
                    writer.close()
            told[kind][answer[9:12].decode("latin-1") or "closed"] += 1
            if CANARY.encode() in answer or b"iVBOR" in answer:
                leaks.append(f"{kind}: {answer[-200:]!r}")

        async def some(numbers: range) -> None:
            turns = asyncio.Semaphore(8)
            await asyncio.gather(*(one(turns, *requests.made(number)) for number in numbers))

        try:
            for part in range(4):
                numbers = range(part * count // 4, (part + 1) * count // 4)
                asyncio.run(some(numbers))
                memory[str(numbers.stop)] = proxy.memory()
        finally:
            printed = proxy.stop()
            counted = fast.stop()
    first, *_, last = memory.values()
    return {
        "requests": count,
        "tokenizer": Path(tokenizer).name,
        "answers": {kind: dict(statuses) for kind, statuses in told.items()},
        "not answered in time": late,
        "answers with a canary": leaks[:10],
        "upstream": counted,
        "memory": memory,
        "memory, last quarter to first": round(last / first, 4),
        "proxy printed": {
            "characters": len(printed),
            "a canary": CANARY in printed,
            "a traceback": "Traceback" in printed,
        },
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    first = kinds.add_parser("latency", help="64 clients at once, directly and through the proxy")
    first.add_argument("--clients", type=int, default=64)
    first.add_argument("--rounds", type=int, default=3)
    first.add_argument("--burst", action="store_true", help="all clients begin in the same moment")
    second = kinds.add_parser("hostile", help="2,000 requests that mean harm, or are broken")
    second.add_argument("--requests", type=int, default=2000)
    second.add_argument("--seconds", type=float, default=60.0, help="that an answer may take (default 60)")
    second.add_argument("--seed", type=int, default=0)
    second.add_argument("--tokenizer", default="describe-photo")
    fourth = kinds.add_parser("pictures", help="new pictures a second, and by the tokenizer alone")
    fourth.add_argument("--pictures", type=int, default=100)
    fourth.add_argument("--tokenizer", default="describe-photo")
    third = kinds.add_parser("upstream", help="the upstream itself, used by the others")
    third.add_argument("times", type=float, nargs=3)
    for one in (first, second, fourth):
        one.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if options.kind == "upstream":
        wait, pieces, between = options.times
        asyncio.run(upstream(wait, int(pieces), between))
        return
    if options.kind == "latency":
        result = latency(options.clients, options.rounds, burst=options.burst)
    elif options.kind == "pictures":
        result = pictures(options.pictures, options.tokenizer)
    else:
        result = hostile(options.requests, options.seed, options.seconds, options.tokenizer)
    print(json.dumps(result, indent=2))
    if options.out is not None:
        write(options.out, header(getattr(options, "seed", None)) | result)


if __name__ == "__main__":
    main()
