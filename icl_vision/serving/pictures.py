"""From a reference to a picture's bytes: the one way in for whatever a client names.

    pictures = Pictures(Limits(), Roots(["photos"]))
    data = await pictures.read("data:image/png;base64,...", "messages[0].content[1]")

A client may send the bytes themselves (base64, a data: URL). A file is read only under the folders named at start
(``roots``), an http address only with a ``Fetcher`` (``fetching``). What is refused is refused with a status and a text
that holds neither the bytes nor a path outside of these folders; what is missing and what is forbidden read alike.

Knows: forms of references, caps. Refuses to know: what a picture shows, and pixels: it looks at first bytes only.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icl_vision import checks
from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.images.opening import format_of
from icl_vision.serving.roots import Roots

if TYPE_CHECKING:
    from icl_vision.serving.fetching import Fetcher

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost.

    Args:
        body: bytes of a request. bodies: of all requests that are at work.
        bytes: of one picture, before base64.
        pixels: of one picture.
        pictures: in one request, those of earlier messages among them.
        seconds: for one picture, to be fetched or to become words; also for a request to arrive.
        encodings: pictures that become words at the same time.
        waiting: pictures that may wait for that; further ones are refused.

    Raises:
        UsageError: one below 1; room for less than one body.
    """

    body: int = 32 * MIB
    bodies: int = 256 * MIB
    bytes: int = 10 * MIB
    pixels: int = 25_000_000
    pictures: int = 16
    seconds: float = 30.0
    encodings: int = 2
    waiting: int = 64

    def __post_init__(self) -> None:
        for name in ("body", "bodies", "bytes", "pixels", "pictures", "encodings", "waiting"):
            checks.count(name, getattr(self, name))
        if self.bodies < self.body:
            raise UsageError(
                f"all requests together may have {self.bodies:,} bytes, and one of them {self.body:,}: the first must "
                "be at least the second (--most-bodies and --most-body)"
            )
        checks.number("seconds", self.seconds, least=0.001)


class Pictures:
    """What a client may name as a picture.

    Args:
        limits: caps; None for the defaults.
        roots: the folders under which files may be named; none by default.
        fetcher: what fetches http addresses; None fetches none.
    """

    def __init__(
        self, limits: Limits | None = None, roots: Roots | None = None, fetcher: Fetcher | None = None
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.roots = Roots() if roots is None else roots
        self.fetcher = fetcher

    async def read(self, reference: object, where: str) -> bytes:
        """The bytes that a URL stands for: data:, file:, or http(s).

        Args:
            reference: what the client gave.
            where: what it is called in a message, "messages[0].content[1]".

        Raises:
            RequestRefusedError: 400 for what is no picture or may not be read, 413 for one beyond a cap.
        """
        if not isinstance(reference, str):
            raise RequestRefusedError(f"{where} must name a picture by a text: a data: URL with base64", 400)
        scheme = reference[:8].partition(":")[0].lower()
        if scheme == "data":
            return self.from_data_url(reference, where)
        if scheme == "file":
            return await self.from_file(path_of(reference, where), where)
        if scheme in ("http", "https"):
            if self.fetcher is None:
                raise RequestRefusedError(
                    f"{where} names an address, and none are fetched here (whoever started this can allow it with "
                    "--fetch); send the picture itself, as data:image/...;base64,...",
                    400,
                )
            return self._checked(await self.fetcher.fetch(reference, where), where)
        raise RequestRefusedError(
            f"{where} is no data:, file:, http: or https: URL; send a picture as data:image/...;base64,...", 400
        )

    def from_data_url(self, url: str, where: str) -> bytes:
        """The bytes in a data: URL. Raises as ``read``."""
        head, comma, content = url.partition(",")
        if not comma or len(head) > 200 or not re.fullmatch(r"(?i)data:[^,]*;\s*base64\s*", head):
            raise RequestRefusedError(f"{where} must be a data: URL of the form data:image/png;base64,...", 400)
        return self.from_base64(content, where)

    def from_base64(self, content: object, where: str) -> bytes:
        """The bytes that a base64 text stands for; white space in it is ignored. Raises as ``read``."""
        if not isinstance(content, str):
            raise RequestRefusedError(f"{where} must hold a picture in base64, as a text", 400)
        most = self.limits.bytes
        if len(content) // 4 * 3 > most + 3 + most // 16:  # line ends are a 77th of it
            raise self._too_large(where)
        try:
            encoded = content.encode("ascii")
            if not encoded.isalnum() and re.search(rb"\s", encoded):
                encoded = b"".join(encoded.split())
            data = binascii.a2b_base64(encoded, strict_mode=True)
        except (ValueError, UnicodeEncodeError):
            raise RequestRefusedError(f"{where} is not in base64", 400) from None
        return self._checked(data, where)

    async def from_file(self, name: str, where: str) -> bytes:
        """The bytes of a file under one of the roots, by its path there or its full path. Raises as ``read``."""
        data = await asyncio.to_thread(self.roots.read, name, self.limits.bytes)
        if data is None or format_of(data) is None:
            may = "there is no picture that may be read under that name" if self.roots else _NO_FILES
            raise RequestRefusedError(f"{where}: {may}", 400)
        if len(data) > self.limits.bytes:
            raise self._too_large(where)
        return data

    def _checked(self, data: bytes, where: str) -> bytes:
        if len(data) > self.limits.bytes:
            raise self._too_large(where)
        if format_of(data) is None:
            raise RequestRefusedError(f"{where} is not a picture of a kind that is read here: {_KINDS}", 400)
        return data

    def _too_large(self, where: str) -> RequestRefusedError:
        return RequestRefusedError(
            f"{where} is larger than the {self.limits.bytes:,} bytes that a picture may have", 413
        )


_NO_FILES = "no files are read here (whoever started this can allow a folder with --root)"
_KINDS = "JPEG, PNG, WEBP, GIF, BMP, TIFF or PPM"


def path_of(url: str, where: str) -> str:
    """The path in a file: URL: ``file:///photos/a.jpg``, ``file:a.jpg``.

    Raises:
        RequestRefusedError: it names another machine.
    """
    rest = url[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise RequestRefusedError(f"{where} names a file of another machine; file:///PATH names one of this", 400)
        rest = slash + path
    return urllib.parse.unquote(rest, errors="surrogateescape")
