"""The log-probability of a continuation from a completion that echoes its prompt.

Knows: the ``logprobs`` object of OpenAI's completions, and how its tokens lie in the text. Refuses to know: servers,
requests.

Tokens are pieces of the text's bytes, but are shown as text: a piece of a character is shown as nothing, as a
replacement character or as "bytes:\\xe7", and a server may count offsets over what it shows. So nothing is believed
before it was compared with the text, and what cannot be placed with certainty is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from icl_vision.llms.scores import is_logprob

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_ESCAPED = re.compile(r"bytes:( ?)((?:\\x[0-9a-fA-F]{2})+)")

_LOOK_AHEAD = 8
"""Tokens behind a run of pieces that must follow it in the text."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Tokens from ``first`` to before ``last``, and the characters of the text that they are: ``start`` to ``end``."""

    first: int
    last: int
    start: int
    end: int


def echoed_logprob(logprobs: Any, prompt_length: int, whole: str) -> float | None:
    """Sum of the log-probabilities of the tokens of ``whole`` that end after its first ``prompt_length`` characters.

    A token that spans the end of the prompt counts with the continuation, as in ``local.scoring``, and so does one
    without width there: it is the first piece of a character. Tokens that the server puts before the text (a start
    token) or after it (what it generated) are left out.

    Returns:
        None where the server echoed nothing.

    Raises:
        ValueError: an echo that does not match the text, whose tokens cannot be placed in it, or that has gaps.
    """
    if not isinstance(logprobs, dict):
        return None
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return None
    if len(tokens) <= 1:
        return None  # what was generated, and nothing of the prompt
    if not all(isinstance(token, str) for token in tokens):
        raise ValueError("has tokens that are no text")
    spans = _by_bytes(tokens, whole)
    if spans is None:
        spans = _by_offsets(tokens, logprobs.get("text_offset"), whole)
    if spans is None:
        spans = _by_text(tokens, whole)
    if spans is None:
        raise ValueError(
            "does not match the text that was sent: neither its tokens nor its offsets can be placed in it, so it is "
            "not known which of them are the continuation's"
        )
    total, counted = 0.0, 0
    for span in spans:
        if span.start >= len(whole) or span.end < prompt_length:
            continue
        if span.end == prompt_length and (span.start < span.end or _of_the_last_character(whole, prompt_length)):
            continue
        if span.start < prompt_length < span.end and span.last - span.first > 1:
            raise ValueError("has pieces of characters on both sides of the prompt's end, which cannot be told apart")
        for index in range(span.first, span.last):
            value = values[index]
            if not is_logprob(value):
                raise ValueError(f"has no log-probability for the token at character {span.start}, but {value!r}")
            total += min(value, 0.0)
            counted += 1
    if not counted:
        raise ValueError("has no tokens for the continuation")
    return total


def _of_the_last_character(whole: str, prompt_length: int) -> bool:
    """Whether a token without width at the end of the prompt is a piece of the character before it: only that has
    pieces."""
    return whole[prompt_length : prompt_length + 1].isascii() and not whole[prompt_length - 1 : prompt_length].isascii()


def _by_bytes(tokens: Sequence[str], whole: str) -> list[_Span] | None:
    """Where the tokens, put together, are the text: then each one's bytes are known."""
    pieces = [_bytes_of(token) for token in tokens]
    joined, text = b"".join(pieces), whole.encode()
    shift = joined.find(text)
    if shift < 0:
        # Without a start token nothing precedes the first of the text, and some servers leave that one out.
        missing = len(text) - len(joined)
        if not (joined and 0 < missing and text.endswith(joined)):
            return None
        shift = -missing
    # Characters before each byte of the text; a byte within a character belongs to that.
    before = [0] * (len(text) + 1)
    at = 0
    for number, character in enumerate(whole):
        size = len(character.encode())
        before[at : at + size] = [number] * size
        at += size
    before[len(text)] = len(whole)
    spans, at = [], -shift
    for index, piece in enumerate(pieces):
        start, end = at, at + len(piece)
        at = end
        if end < 0 or (end == 0 and start < 0):
            continue
        first = before[min(max(start, 0), len(text))]
        # A token that ends within a character reaches into it.
        last = before[min(end, len(text))] + (0 < end < len(text) and _within(text, end))
        spans.append(_Span(index, index + 1, first, max(first, last)))
    return spans


def _within(text: bytes, index: int) -> bool:
    return text[index] & 0xC0 == 0x80


def _bytes_of(token: str) -> bytes:
    escaped = _ESCAPED.fullmatch(token)
    if escaped is None:
        return token.encode("utf-8", "surrogatepass")
    return escaped[1].encode() + bytes.fromhex(escaped[2].replace("\\x", ""))


def _clean(token: str) -> bool:
    """Whether a token is shown as what it is."""
    return bool(token) and REPLACEMENT not in token and not _ESCAPED.fullmatch(token)


def _by_offsets(tokens: Sequence[str], offsets: Any, whole: str) -> list[_Span] | None:
    """Where the server's offsets agree with the text, in every token that is shown as it is."""
    if not isinstance(offsets, list) or len(offsets) != len(tokens):
        return None
    if not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in offsets):
        return None
    if offsets != sorted(offsets) or offsets[0] != 0:
        return None
    size = len(whole)
    # One token is generated, and stands behind the text; more there would be tokens of the text, counted too far.
    inside = [index for index, offset in enumerate(offsets) if offset < size]
    behind = len(tokens) - len(inside)
    if not inside or behind > 1:
        return None
    spans = []
    for index in inside:
        start = offsets[index]
        end = offsets[index + 1] if index + 1 < len(tokens) else size
        token = tokens[index]
        if _clean(token):
            # A start token is shown, too, and has no width.
            if whole[start : start + len(token)] != token and not (end == start == 0):
                return None
            if end > start and end - start != len(token) and end <= size:
                return None
        elif not token and end > start:
            return None
        spans.append(_Span(index, index + 1, start, min(end, size)))
    return spans if spans[-1].end == size or behind else None


def _by_text(tokens: Sequence[str], whole: str) -> list[_Span] | None:
    """Tokens that are shown as they are found in the text one after the other; those between are pieces of characters.

    Such a run of pieces stands for at most as many characters as it shows, none of them ASCII unless it shows that. It
    is one span: which piece is which nobody can tell.
    """
    # A start token stands before the text and is in it nowhere.
    for skipped in range(min(2, len(tokens) - 1) + 1):
        aligned = _aligned(tokens, skipped, whole)
        if aligned is not None:
            return aligned
    return None


def _aligned(tokens: Sequence[str], skipped: int, whole: str) -> list[_Span] | None:
    spans: list[_Span] = []
    at, index = 0, skipped
    while index < len(tokens) and at < len(whole):
        if _clean(tokens[index]):
            token = tokens[index]
            if not whole.startswith(token, at):
                return None
            spans.append(_Span(index, index + 1, at, at + len(token)))
            at += len(token)
            index += 1
            continue
        run = index
        while run < len(tokens) and not _clean(tokens[run]):
            run += 1
        if run == len(tokens):
            return None  # whether the last piece was generated is not known
        end = _end_of_run(tokens[index:run], at, whole, _shown_after(tokens, run))
        if end is None:
            return None
        spans.append(_Span(index, run, at, end))
        at, index = end, run
    return spans if at == len(whole) and len(tokens) - index <= 1 else None


def _shown_after(tokens: Sequence[str], index: int) -> str:
    """The text of the next tokens that are shown as they are."""
    shown = []
    for token in tokens[index : index + _LOOK_AHEAD]:
        if not _clean(token):
            break
        shown.append(token)
    return "".join(shown)


def _end_of_run(pieces: Sequence[str], at: int, whole: str, after: str) -> int | None:
    """Where in the text a run of pieces ends; None where that is nowhere, or in several places."""
    shown = "".join(pieces)
    plain = [character for character in shown if character.isascii()]
    ends: list[int] = []
    if not shown and whole.startswith(after, at):
        return at  # the character is shown with its last piece
    for end in range(at + 1, min(len(whole), at + max(len(shown), len(pieces))) + 1):
        rest = whole[end:]
        follows = rest.startswith(after) if len(after) <= len(rest) else after.startswith(rest)
        if follows and [character for character in whole[at:end] if character.isascii()] == plain:
            ends.append(end)
    return ends[0] if len(ends) == 1 else None
