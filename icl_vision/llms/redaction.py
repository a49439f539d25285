"""Keys and addresses that must not show: how they are kept, and how they are blotted out of others' words.

Knows: secrets, URLs with a password or a query. Refuses to know: where the text goes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from icl_vision.errors import UsageError

MAX_QUOTED = 400
"""Characters of a provider's message that are quoted in ours."""


_ENCODINGS = (base64.b64encode, base64.urlsafe_b64encode)


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

    @property
    def source(self) -> str | Callable[[], str]:
        """The value, or the function that gives it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> Any:
        raise TypeError("a key is not pickled; connect() again where it is needed")


_USER = re.compile(r"(?<=://)[^/\s\"'<>]+@")
_QUERY = re.compile(r"(://[^\s?#\"'<>]+)[?#][^\s\"'<>]+")
_BEARER = re.compile(r"(?i:\bbearer)\s+[\w.~+/=-]{16,}")
_BASIC = re.compile(r"(?i:\bbasic)\s+(?P<token>[A-Za-z0-9+/_-]{4,}={0,2})")


def without_secrets(spec: str) -> str:
    """A connect string, or a text with addresses in it, without their users, passwords and queries."""
    return _QUERY.sub(r"\1", _USER.sub("", spec))


def _basic(match: re.Match[str]) -> str:
    # "Basic dXNlcjpwYXNz" holds a user and a password; "Basic authentication" does not.
    token = match["token"]
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_" if set(token) & {"-", "_"} else None)
    except ValueError:
        return match[0]
    return "Basic ***" if b":" in decoded else match[0]


def redact(text: str, secrets: Sequence[str]) -> str:
    """The text with every secret blotted out, and the forms in which headers and addresses hold one.

    Secrets below four characters are left where they stand alone: they are words like any other.
    """
    text = _BASIC.sub(_basic, _BEARER.sub("Bearer ***", _USER.sub("***@", text)))
    for secret in sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True):
        for form in _forms(secret):
            text = text.replace(form, "***")
    return text


def _forms(secret: str) -> list[str]:
    """A secret as it stands in texts, addresses, JSON (some escape the slash) and HTML; the longest first."""
    quoted = urllib.parse.quote(secret, safe="")
    lower = re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    escaped = json.dumps(secret)[1:-1]
    forms = {secret, quoted, lower, escaped, escaped.replace("/", "\\/"), html.escape(secret)}
    return sorted(forms, key=len, reverse=True)


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
    if not any(hidden):
        return []
    # As a header holds them: "Basic" and this.
    names = {f"{parts.username or ''}:{parts.password or ''}", f"{hidden[3]}:{hidden[2]}"} - {":"}
    tokens = [encode(name.encode()).decode() for name in names for encode in _ENCODINGS]
    return [url, *hidden, *tokens, *(token.rstrip("=") for token in tokens)]


def without_login(url: str) -> tuple[str, Secret | None]:
    """An address without its user and password, and these as the value of an Authorization header (None for none): so
    no address that a client, its log or its errors show holds a password."""
    parts = urllib.parse.urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, None
    plain = urllib.parse.urlunsplit(parts._replace(netloc=place))
    name, _, password = user.partition(":")
    login = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}"
    return plain, Secret("Basic " + base64.b64encode(login.encode()).decode()) if login != ":" else None


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
    host = url_host(parts.hostname or "")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def url_host(host: str) -> str:
    """A host as it stands in a URL and in a Host header: an address of version 6 in brackets."""
    return f"[{host}]" if ":" in host else host


_SECRET_NAME = re.compile(r"key|token|secret|passw|pwd|auth|sig|cred|code|session", re.IGNORECASE)


def query_mark(url: str) -> str:
    """What tells an address's query from another one, for a cache's key; "" where there is none. Fields that by their
    names hold a secret decide no answer and are left out, the others do not show either."""
    query = urllib.parse.urlsplit(url).query
    fields = [
        pair for pair in urllib.parse.parse_qsl(query, keep_blank_values=True) if not _SECRET_NAME.search(pair[0])
    ]
    if not fields:
        return ""
    return "?" + hashlib.sha256(urllib.parse.urlencode(sorted(fields)).encode()).hexdigest()[:12]


def redacted_url(url: object) -> str:
    """What can be shown of something that should have been a URL."""
    text = str(url).partition("?")[0]
    if "//" not in text:  # MODEL@USER:PASSWORD@HOST, whose scheme was forgotten
        return re.sub(r"(?<=[/@])[^/@\s]*:[^@\s]*@", "***@", text)
    return re.sub(r"//.*@", "//***@", text, flags=re.DOTALL)
