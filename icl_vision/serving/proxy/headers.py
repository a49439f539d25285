"""Which headers go on, to the LLM's server and back to the client.

What belongs to one connection (RFC 9110, 7.6.1) is made anew for the next; cookies and what proxies say of a client end
here; the key is the client's own, or the one named at start, and the token of this server goes nowhere.

Knows: names of headers. Refuses to know: bodies, addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from icl_vision.llms.redaction import Secret
from icl_vision.serving.hosts import TOKEN_HEADER, Access, Headers

_OF_ONE_CONNECTION = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer trailers "
    b"transfer-encoding upgrade http2-settings expect host content-length".split()
)
_OF_CLIENTS = frozenset([b"cookie", b"forwarded", b"x-real-ip", b"via", TOKEN_HEADER.encode()])
_OF_SERVERS = frozenset([b"set-cookie", b"set-cookie2", b"alt-svc", b"strict-transport-security", b"x-icl-vision"])
_KEYS = frozenset([b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])


@dataclass(frozen=True, slots=True)
class Keys:
    """What opens the LLM's server.

    access: who may ask, with this server's own token. upstream: a key used in place of the clients'; None passes
    theirs on.
    """

    access: Access
    upstream: Secret | None = None

    def onward(self, headers: Headers, path: str) -> Headers:
        """The headers of a request as they go on."""
        dropped = _OF_ONE_CONNECTION | _OF_CLIENTS | _connected(headers)
        kept: Headers = []
        shown_as = b"x-api-key" if path.startswith("/v1/messages") else b"authorization"
        for name, value in headers:
            key = name.lower()
            if key in dropped or key.startswith(b"x-forwarded-"):
                continue
            if key in _KEYS:
                own = self.access.is_token(_credential(value))
                if own:
                    shown_as = key
                if own or self.upstream is not None:
                    continue
            kept.append((key, value))
        if self.upstream is not None:
            # An error may repeat the key, which nobody could find in it where it is compressed.
            kept = [(name, value) for name, value in kept if name != b"accept-encoding"]
            kept.append((b"accept-encoding", b"identity"))
            revealed = self.upstream.reveal().encode("latin-1")
            kept.append((shown_as, b"Bearer " + revealed if shown_as == b"authorization" else revealed))
        return kept

    def back(self, headers: Headers) -> Headers:
        """The headers of an answer as they go back; its length among them, where it has one."""
        dropped = (_OF_ONE_CONNECTION - {b"content-length"}) | _OF_SERVERS | _connected(headers)
        return [
            (name.lower(), self.hidden(value))
            for name, value in headers
            if name.lower() not in dropped and not name.lower().startswith(b"access-control-")
        ]

    def hidden(self, content: bytes) -> bytes:
        """The same without the key that clients do not have."""
        return content if self.upstream is None else content.replace(self.upstream.reveal().encode("latin-1"), b"***")


def _connected(headers: Headers) -> frozenset[bytes]:
    """Names that a Connection header says are its own."""
    return frozenset(
        name.strip().lower() for key, value in headers if key.lower() == b"connection" for name in value.split(b",")
    )


def _credential(value: bytes) -> str:
    text = value.decode("latin-1").strip()
    return text[7:].strip() if text[:7].lower() == "bearer " else text
