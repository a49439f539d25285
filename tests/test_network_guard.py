"""The guard in conftest.py itself: it must refuse the outside, allow loopback, and notice swallowed refusals."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest


def test_look_up_outside_is_refused(network_attempts: list[str]) -> None:
    with pytest.raises(RuntimeError, match=r"tried to reach the host 'example\.org'; tests may talk to loopback only"):
        socket.getaddrinfo("example.org", 443)
    network_attempts.clear()


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
def test_connection_outside_is_refused(call: str, network_attempts: list[str]) -> None:
    with socket.socket() as sock, pytest.raises(RuntimeError, match=r"tried to reach 192\.0\.2\.1:80"):
        getattr(sock, call)(("192.0.2.1", 80))
    network_attempts.clear()


def test_datagram_outside_is_refused(network_attempts: list[str]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match=r"192\.0\.2\.1:53"):
        sock.sendto(b"x", ("192.0.2.1", 53))
    network_attempts.clear()


def test_asyncio_and_threads_are_refused_too(network_attempts: list[str]) -> None:
    async def reach() -> None:
        await asyncio.open_connection("192.0.2.1", 80)

    seen: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(reach())
        except RuntimeError as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "192.0.2.1" in str(seen[0])
    network_attempts.clear()


def test_a_swallowed_refusal_is_remembered(network_attempts: list[str]) -> None:
    with pytest.raises(RuntimeError):
        socket.create_connection(("192.0.2.1", 80))
    assert len(network_attempts) == 1
    network_attempts.clear()


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"hello")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(5) == b"hello"
