"""Pictures at http addresses, fetched without being led astray: off unless whoever starts a server asks for it.

An address comes from a client or from a language model, and this machine can reach places that they cannot. So a name
is resolved once, every address it has must be a public one, and the connection goes to the address that was looked at
(a name server that says something else a moment later is not asked). The same for each of at most three redirects.
Ports 80 and 443 only, no proxy of the environment, no cookies, and none of the client's headers.

Knows: addresses, redirects, sizes. Refuses to know: who asked, what a picture shows.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from icl_vision.errors import RequestRefusedError
from icl_vision.llms.redaction import url_host

if TYPE_CHECKING:
    import httpx2

MOST_REDIRECTS = 3
MOST_ADDRESS = 2048
"""Characters of an address."""

PORTS = {"http": 80, "https": 443}

_WAITS = ("connect", "read", "write", "pool")

Resolver = Callable[[str, int], Awaitable[list[str]]]

_NOT_PUBLIC_4 = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))  # relays, among others
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet: not loopback, private, link-local, shared, multicast, reserved,
    unspecified, documentation, nor an IPv6 form of an IPv4 address (which could be any of these)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        # Mapped, translated and compatible forms of IPv4 lie outside of 2000::/3; 6to4 and Teredo inside.
        if parsed not in _GLOBAL_6 or any(parsed in range_ for range_ in _NOT_PUBLIC_6):
            return False
    elif any(parsed in range_ for range_ in _NOT_PUBLIC_4):
        return False
    kinds = (parsed.is_loopback, parsed.is_private, parsed.is_link_local, parsed.is_multicast, parsed.is_reserved)
    return parsed.is_global and not parsed.is_unspecified and not any(kinds)


# Threads of its own: names that nobody answers for would else hold up all that is done in the loop's few.
_NAMES = ThreadPoolExecutor(16, thread_name_prefix="icl-vision-names")


async def resolved(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system tells them."""
    ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_NAMES, ask)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """Fetches pictures.

    Args:
        most: bytes of one.
        seconds: for one, redirects and all.
        resolve: name and port to addresses.
        may_reach: whether an address may be connected to.
        transport: of httpx2, in place of its own.
    """

    def __init__(
        self,
        most: int,
        seconds: float,
        *,
        resolve: Resolver = resolved,
        may_reach: Callable[[str], bool] = is_public,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.most = most
        self.seconds = seconds
        self.resolve = resolve
        self.may_reach = may_reach
        self.transport = transport

    async def fetch(self, url: str, where: str) -> bytes:
        """The bytes at an address.

        Raises:
            RequestRefusedError: 400 where it may not or cannot be fetched (the message does not say which of the two,
                so that nobody can look around by it), 413 where it is too large.
        """
        import httpx2

        try:
            async with asyncio.timeout(self.seconds):
                for _ in range(MOST_REDIRECTS + 1):
                    answer = await self._ask(url, where)
                    if isinstance(answer, bytes):
                        return answer
                    url = answer
        except (TimeoutError, OSError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, ValueError) as error:
            if isinstance(error, RequestRefusedError):
                raise
        raise _unreachable(where)

    async def _ask(self, url: str, where: str) -> bytes | str:
        """The bytes, or the address that a redirect leads to."""
        import httpx2

        if len(url) > MOST_ADDRESS:
            raise _unreachable(where)
        parsed = httpx2.URL(url)
        host, default = parsed.raw_host.decode("ascii"), PORTS.get(parsed.scheme)
        if default is None or not host or parsed.userinfo or (parsed.port or default) != default:
            raise _unreachable(where)
        addresses = await self.resolve(host.strip("[]"), default)
        if not addresses or not all(map(self.may_reach, addresses)):
            raise _unreachable(where)
        request = httpx2.Request(
            "GET",
            parsed.copy_with(host=addresses[0], fragment=None),
            headers={
                "Host": url_host(host),
                "Accept": "image/*",
                "Accept-Encoding": "identity",
                "User-Agent": "icl-vision",
                "Connection": "close",
            },
            extensions={"sni_hostname": host, "timeout": dict.fromkeys(_WAITS, self.seconds)},
        )
        # The transport alone: a client would log addresses, keep cookies and ask the environment for proxies.
        transport = self.transport or httpx2.AsyncHTTPTransport(trust_env=False)
        response = await transport.handle_async_request(request)
        try:
            if response.is_redirect and "location" in response.headers:
                return str(parsed.join(response.headers["location"]))
            if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
                raise _unreachable(where)
            return await self._content(response, where)
        finally:
            await response.aclose()
            if self.transport is None:
                await transport.aclose()

    async def _content(self, response: httpx2.Response, where: str) -> bytes:
        import httpx2

        chunks, size = [], 0
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        async for chunk in stream:
            size += len(chunk)
            if size > self.most:
                raise RequestRefusedError(
                    f"{where} leads to more than the {self.most:,} bytes that a picture may have", 413
                )
            chunks.append(chunk)
        return b"".join(chunks)


def _unreachable(where: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"{where} names an address from which no picture can be fetched: it must be a public http or https address at "
        f"its usual port, with at most {MOST_REDIRECTS} redirects to others like it, and answer in time",
        400,
    )
