"""The log-probability of a continuation from a completion that echoes its prompt.

Knows: the ``logprobs`` object of OpenAI's completions. Refuses to know: servers, requests.
"""

from __future__ import annotations

from typing import Any


def echoed_logprob(logprobs: Any, prompt_length: int, whole: str) -> float | None:
    """Sum of the log-probabilities of the tokens of ``whole`` that end after its first ``prompt_length`` characters.

    A token that spans the end of the prompt counts with the continuation, as in
    ``llama_scoring``. Tokens the server puts before the text (a start token) or
    after it (what it generated) are left out.

    Returns:
        None where the server echoed nothing.

    Raises:
        ValueError: an echo that does not match the text, or has gaps.
    """
    if not isinstance(logprobs, dict):
        return None
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return None
    starts = _starts(tokens, logprobs.get("text_offset"), whole)
    if starts is None:
        return None
    ends = [*starts[1:], len(whole)]
    total, counted = 0.0, 0
    for start, end, value in zip(starts, ends, values, strict=True):
        if start < 0 or start >= len(whole) or end <= prompt_length:
            continue
        if not isinstance(value, (int, float)):
            raise ValueError(f"has no log-probability for the token at character {start}")
        total += value
        counted += 1
    if not counted:
        raise ValueError("has no tokens for the continuation")
    return total


def _starts(tokens: list[Any], offsets: Any, whole: str) -> list[int] | None:
    """Where each token begins in ``whole``; negative before it. None where the text is not there."""
    if all(isinstance(token, str) for token in tokens):
        joined = "".join(tokens)
        shift = joined.find(whole)
        if shift >= 0:
            starts, at = [], -shift
            for token in tokens:
                starts.append(at)
                at += len(token)
            return starts
    # Tokens that are pieces of characters do not join to the text; the server's own offsets then have to do.
    if isinstance(offsets, list) and len(offsets) == len(tokens) and all(isinstance(one, int) for one in offsets):
        if len(tokens) > 2 and offsets[0] == 0 and offsets[-1] >= len(whole) - 1:
            return offsets
    return None
