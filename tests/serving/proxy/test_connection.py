"""Connections to a server that says what it likes: when they are kept, when they are given up, what is an error."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from icl_vision.serving.proxy import connection
from icl_vision.serving.proxy.connection import BrokenError, Lines

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADERS = [(b"host", b"x")]


class Server:
    """Says ``says`` after each request; closes after ``requests`` of them. met: connections. told: bodies. heard, left:
    released for each body, and for each client that goes."""

    def __init__(self, says: bytes = OK, requests: int = 100, after: bytes = b"") -> None:
        self.says, self.requests, self.after = says, requests, after
        self.met = 0
        self.heard, self.left = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.told: list[bytes] = []
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        try:
            for _ in range(self.requests):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                self.told.append(await reader.readexactly(length))
                self.heard.release()
                writer.write(self.says)
                await writer.drain()
            writer.write(self.after)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.release()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def listening(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Lines]:
    running = await asyncio.start_server(server.talk, "127.0.0.1", 0, ssl=tls)
    server.port = running.sockets[0].getsockname()[1]
    lines = Lines("127.0.0.1", server.port, secure=False)
    try:
        yield lines
    finally:
        lines.close()
        running.close()
        await asyncio.sleep(0.01)


async def asked(lines: Lines, body: bytes | None = b"{}", seconds: float = 10) -> tuple[int, bytes]:
    line = await lines.take()
    try:
        status, _ = await line.ask("GET" if body is None else "POST", b"/", HEADERS, body, seconds)
        return status, b"".join([piece async for piece in line.pieces(seconds)])
    finally:
        lines.give(line)


async def test_a_connection_is_used_again() -> None:
    server = Server()
    async with listening(server) as lines:
        for body in (b"a", None, b"", b"x" * 3_000_000):
            assert await asked(lines, body) == (200, b"ok")
        assert await asyncio.gather(*(asked(lines) for _ in range(3))) == [(200, b"ok")] * 3
    assert server.told[:4] == [b"a", b"", b"", b"x" * 3_000_000] and server.met == 3


async def test_one_that_waited_too_long_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    async with listening(server) as lines:
        await asked(lines)
        monkeypatch.setattr(connection, "IDLE_SECONDS", -1.0)
        await asked(lines)
    assert server.met == 2


async def test_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_IDLE", 2)
    server = Server()
    async with listening(server) as lines:
        await asyncio.gather(*(asked(lines) for _ in range(5)))
        for _ in range(3):
            await server.left.acquire()
        await asyncio.gather(*(asked(lines) for _ in range(3)))
    assert server.met == 6


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_one_that_the_server_closed_or_spoke_on_is_not(after: bytes) -> None:
    server = Server(requests=1, after=after)
    async with listening(server) as lines:
        for met in (1, 2, 3):
            assert await asked(lines) == (200, b"ok") and server.met == met
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"y" * 5_000_000, b"y" * 5_000_000),
    ],
)
async def test_forms_of_answers(says: bytes, told: bytes) -> None:
    async with listening(Server(says, requests=1)) as lines:
        assert (await asked(lines))[1] == told


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_answers_that_break_off_or_are_none(says: bytes) -> None:
    server = Server(says, requests=1)
    async with listening(server) as lines:
        with pytest.raises(BrokenError) as caught:
            await asked(lines)
        assert str(server.port) not in str(caught.value)
        with pytest.raises(BrokenError):  # and the connection was not kept
            await asked(lines)
    assert server.met == 2


async def test_silence() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok")
    async with listening(server) as lines:
        with pytest.raises(TimeoutError):
            await asked(lines, seconds=0.1)
        await server.left.acquire()  # nobody waits for the rest


async def test_who_gives_up_closes() -> None:
    server = Server(b"")
    async with listening(server) as lines:
        work = asyncio.ensure_future(asked(lines))
        await server.heard.acquire()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await server.left.acquire()


async def test_what_nobody_takes_is_not_received() -> None:
    """A server that sends faster than a client takes waits for it."""
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"y" * 50_000_000, requests=1)
    async with listening(server) as lines:
        line = await lines.take()
        await line.ask("POST", b"/", HEADERS, b"{}", 10)
        await asyncio.sleep(0.2)
        assert line._wire._size < 2_000_000
        assert sum([len(piece) async for piece in line.pieces(10)]) == 50_000_000
        lines.give(line)


async def test_an_answer_before_all_was_read() -> None:
    """It counts, and the connection, on which the rest of the body waits, is not used again."""
    server, done = Server(), asyncio.Event()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.met += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await done.wait()
        writer.close()

    server.talk = hasty  # type: ignore[method-assign]  # this one's
    async with listening(server) as lines:
        assert await asked(lines, b"x" * 30_000_000) == (200, b"ok")
        assert await asked(lines) == (200, b"ok") and server.met == 2
        done.set()


async def test_headers_that_cannot_go_on() -> None:
    server = Server()
    async with listening(server) as lines:
        line = await lines.take()
        with pytest.raises(BrokenError, match="headers cannot go on"):
            await line.ask("POST", b"/", [*HEADERS, (b"x", b"a\r\nb: c")], b"{}", 10)
        lines.give(line)
    assert server.told == []


def certificate(folder: Path) -> Path:
    """One for 127.0.0.1 that it signed itself, with its key."""
    x509 = pytest.importorskip("cryptography.x509")
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=now.year + 1)
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    file = folder / "server.pem"
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    file.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return file


async def test_tls(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused; one that is known is taken, for its own name only."""
    file = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server = Server()
    async with listening(server, context):
        lines = Lines("127.0.0.1", server.port, secure=True)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asked(lines)
        assert lines.tls is not None
        lines.tls.load_verify_locations(file)
        assert await asked(lines) == (200, b"ok") and await asked(lines) == (200, b"ok")
        lines.close()
        other = Lines("localhost", server.port, secure=True)
        assert other.tls is not None
        other.tls.load_verify_locations(file)
        with pytest.raises(OSError):  # the certificate's name is another
            await asked(other)
    assert server.told == [b"{}"] * 2


async def test_a_server_that_is_not_there() -> None:
    server = Server()
    async with listening(server):
        pass
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(OSError):
            await asked(Lines(host, server.port, secure=False))


async def test_any_answer_is_told_as_it_came() -> None:
    """(The names of headers are in lower case, as HTTP/2 has them.)"""
    says = b"HTTP/1.1 418 Odd\r\nX-One: 1\r\nX-One: \xe9\r\nContent-Length: 0\r\n\r\n"
    async with listening(Server(says)) as lines:
        line = await lines.take()
        told = await line.ask("GET", b"/a?b=%20", HEADERS, None, 10)
        lines.give(line)
    assert told == (418, [(b"x-one", b"1"), (b"x-one", b"\xe9"), (b"content-length", b"0")])
