"""Keys and addresses that must not show: how they are kept, and how they are blotted out of others' words.

Knows: secrets, URLs with a password or a query. Refuses to know: where the text goes.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from icl_vision.errors import UsageError

MAX_QUOTED = 400
"""Characters of a provider's message that are quoted in ours."""


class Secret:
    """A key (or a URL that may hold one) that does not show in a repr, a debugger's variables or a pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: str | Callable[[], str]) -> None:
        self._value = value

    @property
    def is_function(self) -> bool:
        """Whether the value is asked for anew each time."""
        return not isinstance(self._value, str)

    def reveal(self) -> str:
        """The value itself, asked for anew where it is a function."""
        return self._value if isinstance(self._value, str) else self._value()

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> Any:
        raise TypeError("a key is not pickled; connect() again where it is needed")


def redact(text: str, secrets: Sequence[str]) -> str:
    """The text with every secret blotted out; secrets below four characters are left, they are words like any other."""
    for secret in sorted((one for one in secrets if len(one) >= 4), key=len, reverse=True):
        text = text.replace(secret, "***").replace(urllib.parse.quote(secret, safe=""), "***")
    return text


def quote(text: str | bytes, secrets: Sequence[str]) -> str:
    """A provider's words for a message of ours: without secrets, on one line, not endless."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    text = " ".join(redact(text, secrets).split())
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + " ..."


def url_secrets(url: str) -> list[str]:
    """The parts of a URL that must not show."""
    parts = urllib.parse.urlsplit(url)
    values = [value for _, value in urllib.parse.parse_qsl(parts.query)]
    user = [parts.password or "", parts.username or ""]
    hidden = [*user, *map(urllib.parse.unquote, user), parts.query, *values]
    return [url, *hidden] if any(hidden) else []


def check_url(url: str) -> str:
    """A base URL that can be used, or UsageError that does not show a password in it."""
    parts = None
    if isinstance(url, str) and not any(character.isspace() for character in url):
        try:
            parts = urllib.parse.urlsplit(url)
            _ = parts.port
        except ValueError:
            parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"base_url must be http://HOST... or https://HOST...; got {redacted_url(url)!r}")
    return url


def shown_url(url: str) -> str:
    """A URL without user, password and query: fit for messages and cache keys."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def redacted_url(url: object) -> str:
    """What can be shown of something that should have been a URL."""
    return re.sub(r"//.*@", "//***@", str(url).partition("?")[0], flags=re.DOTALL)
