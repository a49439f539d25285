"""Where what a provider said becomes an answer or a named error: one place for all adapters, batches and recordings.

Knows: providers' words for how an answer ended, marks around thoughts, stop strings, how likely a text is whose tokens
are told, spellings of what was allowed, what counts as an answer and what may be kept. Refuses to know: where these
stand in a provider's JSON (each adapter reads its own), requests.

An answer is text that somebody can read and that nobody withheld. Everything else raises ``LLMNoAnswerError``: an empty
text, nothing but thoughts, a refusal, a content filter, a call of a tool, an answer that the provider broke off. So it
is an error in its place, is journalled as one and asked again, and never passes for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Profile, Usage
from icl_vision.errors import LLMNoAnswerError
from icl_vision.llms.redaction import quote
from icl_vision.llms.scores import is_logprob
from icl_vision.spelling import composed

REASONING_ROOM = 4096
"""Tokens a reasoning model may think before it answers, beside ``max_tokens``; only what is used is billed."""

RAISE_ROOM = "raise reasoning_room (max_tokens where there is none), or have it think less"

Ending = Literal["stop", "length", "withheld", "failed", "tools", "other"]

# Words of OpenAI (both endpoints), Anthropic, Google, Cohere, Mistral, DeepSeek, Bedrock, Azure, vLLM, TGI, llama.cpp,
# Ollama and LangChain's packages for them.
_ENDINGS: dict[str, Ending] = {
    **dict.fromkeys(
        (
            *("stop", "end_turn", "stop_sequence", "stop_token", "eos", "eos_token", "end_of_text", "endoftext"),
            *("complete", "completed", "finished", "finish", "done", "end", "word", "finish_reason_stop"),
        ),
        "stop",
    ),
    **dict.fromkeys(
        (
            *("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length"),
            *("model_length", "model_context_window_exceeded", "context_length_exceeded", "limit"),
            *("finish_reason_max_tokens", "finish_reason_length", "token_limit", "max_tokens_reached"),
        ),
        "length",
    ),
    **dict.fromkeys(
        (
            *("refusal", "content_filter", "content_filtered", "content_filter_applied", "safety", "recitation"),
            *("blocklist", "prohibited_content", "spii", "blocked", "guardrail_intervened", "guardrails", "sensitive"),
            *("error_toxic", "language", "image_safety", "moderation", "finish_reason_safety", "policy"),
        ),
        "withheld",
    ),
    **dict.fromkeys(
        (
            *("error", "failed", "failure", "abort", "aborted", "cancelled", "canceled", "timeout", "user_cancel"),
            *("insufficient_system_resource", "network_error", "server_error", "engine_error", "overloaded"),
            *("in_progress", "queued", "expired"),
        ),
        "failed",
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call"), "tools"),
}


Written = tuple[tuple[bytes, float], ...]
"""The tokens of an answer, each with its log-probability."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one answer of a provider says, taken out of its JSON.

    finish: the provider's own word, None where it gives none. refusal: its text, where there is one apart. thoughts:
    there is reasoning beside the text. tools: a tool was called. stopped: the stop string that it says it met. written:
    the text's tokens, where they were asked for.
    """

    text: str
    finish: str | None = None
    usage: Usage = field(default_factory=Usage)
    refusal: str = ""
    thoughts: bool = False
    tools: bool = False
    stopped: object = None
    written: Written = ()


def ending(word: str | None) -> Ending:
    """What a provider's word for the end of an answer means; none at all is taken for "stop"."""
    return "stop" if not word else _ENDINGS.get(word.strip().lower(), "other")


def read(
    said: Said,
    name: str,
    raw: Mapping[str, Any] | None = None,
    *,
    stops: Sequence[str] = (),
    secrets: Sequence[str] = (),
    room: str = RAISE_ROOM,
) -> Completion:
    """The answer, its thoughts taken off and nothing cut yet.

    Args:
        said: what the provider answered. name: the LLM's, for messages. raw: the provider's whole answer.
        stops: the stop strings asked for. secrets: what must not show in a message.
        room: what to do where the thoughts used up the tokens.

    Raises:
        LLMNoAnswerError: there is no answer in it.
    """
    how = ending(said.finish)
    if said.refusal.strip():
        raise no_answer(f"{name!r} refused to answer: {quote(said.refusal, secrets)}", "withheld", said.usage)
    if how == "withheld":
        raise no_answer(f"{name!r} withheld its answer ({said.finish})", "withheld", said.usage)
    if how == "failed":
        raise no_answer(f"{name!r} broke off its answer ({said.finish}); ask again", "failed", said.usage)
    text, thoughts = without_thoughts(said.text)
    if is_blank(text):
        # A stop string that the text would have begun with leaves nothing, and that is an answer.
        if isinstance(said.stopped, str) and said.stopped in stops and how == "stop" and thoughts == "none":
            return Completion("", "stop", said.usage, raw or {})
        raise _nothing(said, name, how, thoughts != "none" or said.thoughts, room)
    finish = how if how in ("stop", "length") else str(said.finish)
    return Completion(text, finish, said.usage, raw or {})


def _nothing(said: Said, name: str, how: Ending, thoughts: bool, room: str) -> LLMNoAnswerError:
    spent = f"its {said.usage.completion_tokens} tokens" if said.usage.completion_tokens else "its tokens"
    if how == "length" and (thoughts or not said.text):
        return no_answer(f"{name!r} used up {spent} thinking and wrote no answer; {room}", "thoughts", said.usage)
    if thoughts:
        return no_answer(f"{name!r} wrote nothing but thoughts, and no answer; {room}", "thoughts", said.usage)
    if said.tools or how == "tools":
        return no_answer(f"{name!r} called a tool instead of answering; it was offered none", "tools", said.usage)
    if how == "length":
        return no_answer(f"{name!r} used up {spent} on white space; {room}", "empty", said.usage)
    return no_answer(
        f"{name!r} answered with nothing (finish reason {said.finish or 'not given'}); ask again", "empty", said.usage
    )


def no_answer(message: str, reason: str, usage: Usage) -> LLMNoAnswerError:
    """The error for an answer without an answer, and what it cost."""
    return LLMNoAnswerError(
        message,
        reason,
        requests=usage.requests,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def check(answer: Completion, name: str) -> Completion:
    """The same answer, where it is one: for answers of LLMs that are not this library's, and of recordings.

    Raises:
        LLMNoAnswerError: it is empty, was withheld, or broken off.
    """
    how = ending(answer.finish_reason)
    if how in ("withheld", "failed") or is_blank(answer.text):
        read(Said(answer.text, answer.finish_reason, answer.usage), name)
    return answer


def may_be_kept(text: object, finish: object) -> bool:
    """Whether an answer may be stored and given again: readable, and ended by itself or by the limit of tokens."""
    return isinstance(text, str) and not is_blank(text) and finish in ("stop", "length")


def reasoning_room_of(room: int | None, profile: Profile) -> int:
    """Tokens of thinking to allow beside the answer's own.

    room: as the user gave it; None is ``REASONING_ROOM`` where the profile says that the model reasons, else 0.

    Raises:
        UsageError: no whole number from 0.
    """
    if room is None:
        return REASONING_ROOM if profile.reasoning != "never" else 0
    return checks.count("reasoning_room", room, least=0, of="tokens")


# ---- what can be seen ----

# White space, controls, and the characters of no width with which models and servers begin: byte order marks, zero
# width spaces and joiners, marks of direction.
_INVISIBLE = re.compile(r"[\s\x00-\x1f\x7f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*")


def _shown_from(text: str) -> int:
    """Where the first character stands that somebody can see; the text's length where there is none."""
    invisible = _INVISIBLE.match(text)
    return invisible.end() if invisible is not None else 0


def is_blank(text: str) -> bool:
    """Whether nobody sees anything in a text."""
    return _shown_from(text) == len(text)


# ---- stop strings ----


def sent_stops(stops: Sequence[str], most: int) -> list[str]:
    """The stop strings that a provider is told.

    Never those of white space only: it would stop at the line ends that many models begin with, before any answer.
    They, and those beyond ``most``, are cut here.
    """
    return [stop for stop in stops if not is_blank(stop)][:most]


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one.

    Stop strings of white space only count from the first visible character on, and where they stand before it they are
    left out with what is before them.
    """
    shown = _shown_from(text)
    if shown == len(text):
        return text, False
    blank = [stop for stop in stops if is_blank(stop)]
    places = [text.find(stop, shown if stop in blank else 0) for stop in stops]
    places = [place for place in places if place >= 0]
    end = min(places) if places else len(text)
    if places and text.startswith("\r\n", end - 1) and any(text.startswith(stop, end) for stop in blank):
        end -= 1  # a line that ends in the two characters of some servers
    lead = text[:shown]
    start = max((lead.rfind(stop) + len(stop) for stop in blank if stop in lead), default=0)
    return text[start:end], bool(places)


def cut(answer: Completion, stops: Sequence[str], said: Said | None = None) -> Completion:
    """The answer up to the first stop string; see ``cut_at_stop``.

    said: what ``read`` made the answer of; where that tells its tokens, their log-probability goes into the answer.
    """
    text, ended = cut_at_stop(answer.text, stops)
    logprob = None if said is None else _logprob_of(text, answer.text, said)
    return replace(answer, text=text, finish_reason="stop" if ended else answer.finish_reason, logprob=logprob)


def tokens_told(entries: object) -> Written:
    """The tokens in a list of entries as OpenAI's endpoints and llama.cpp have them; none where one cannot be read."""
    tokens: list[tuple[bytes, float]] = []
    for entry in entries if isinstance(entries, list) else ():
        token, raw, logprob = (
            map(entry.get, ("token", "bytes", "logprob")) if isinstance(entry, Mapping) else (None,) * 3
        )
        if not is_logprob(logprob):
            return ()
        # A token may be a part of a character, which only its bytes show.
        if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in raw):
            tokens.append((bytes(raw), float(logprob)))
        elif isinstance(token, str):
            tokens.append((token.encode("utf-8", "surrogatepass"), float(logprob)))
        else:
            return ()
    return tuple(tokens)


def _logprob_of(text: str, answer: str, said: Said) -> float | None:
    """How likely ``text`` is, a piece of the ``answer`` in what was said: the sum over the tokens that it is made of.

    A token that reaches out of it counts whole. None where the tokens are not known, or are not those of the text.
    """
    whole = b"".join(token for token, _ in said.written)
    before = whole.find(said.text.encode("utf-8", "surrogatepass"))
    # The answer is the end of what was said, behind the thoughts.
    at, inside = said.text.rfind(answer), answer.find(text)
    if not text or not whole or min(before, at, inside) < 0:
        return None
    start = before + len(said.text[: at + inside].encode("utf-8", "surrogatepass"))
    end = start + len(text.encode("utf-8", "surrogatepass"))
    total, place = 0.0, 0
    for token, logprob in said.written:
        if place < end and place + len(token) > start:
            total += logprob
        place += len(token)
    return min(total, 0.0)


# ---- thoughts ----

_NAMES = r"(?:seed:)?think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|antthinking"
_OPEN = re.compile(
    rf"\s*(?:<(?:{_NAMES})(?:\s[^<>]*)?>|\[think\]|<\|begin_of_thought\|>|<\|start_thinking\|>|◁think▷"
    r"|(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>)",
    re.IGNORECASE,
)
_CLOSE = re.compile(rf"</(?:{_NAMES})\s*>|\[/think\]|<\|end_of_thought\|>|<\|end_thinking\|>|◁/think▷", re.IGNORECASE)
# gpt-oss writes its channels as text where a server does not take them apart; each ends before the next.
_CHANNEL_END = re.compile(r"<\|end\|>|(?=<\|start\|>)|(?=<\|channel\|>)")
_ANSWER_MARK = re.compile(
    r"\s*(?:(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>|<\|begin_of_solution\|>|<\|start_response\|>)",
    re.IGNORECASE,
)
_END_MARK = re.compile(r"\s*(?:<\|(?:end_of_solution|end_response|return|end)\|>)\s*$", re.IGNORECASE)

Thoughts = Literal["none", "closed", "open"]


def without_thoughts(text: str) -> tuple[str, Thoughts]:
    """The text behind the thoughts that it begins with, and whether there were any.

    "open": a block of thoughts that does not end, behind which there is nothing. A block may lack its beginning, since
    some templates put that into the prompt.
    """
    thoughts: Thoughts = "none"
    while True:
        opened = _OPEN.match(text)
        if opened is not None:
            closing = _CHANNEL_END if "channel" in opened[0].lower() else _CLOSE
            closed = closing.search(text, opened.end())
            if closed is None:
                return "", "open"
        else:
            closed = _CLOSE.search(text)
            if closed is None:
                break
        text = text[closed.end() :]
        thoughts = "closed"
    marked = _ANSWER_MARK.match(text)
    if marked is not None:
        text = _END_MARK.sub("", text[marked.end() :])
    return text.lstrip() if thoughts != "none" else text, thoughts


# ---- spellings of allowed strings ----

# An accent may be a character of its own or one with its letter (NFD, NFC); for an LLM, a grammar and a cache's key
# these are two texts, for whoever allows them one. So every LLM is shown the composed form, and answers come back in
# the given one.


def composed_constraint(constraint: Constraint) -> Constraint:
    """The constraint with every string in composed characters, each once."""
    if all(string.isascii() for string in constraint.allowed):
        return constraint
    allowed, *places = (
        tuple(dict.fromkeys(map(composed, strings))) for strings in (constraint.allowed, *constraint.places)
    )
    return Constraint(allowed, constraint.count, tuple(places))


def respelled(answer: Completion, constraint: Constraint) -> Completion:
    """An answer whose strings are spelled as the constraint has them; any other answer as it is."""
    if answer.text.isascii():
        return answer
    text = answer.text.strip()
    before, _, after = answer.text.partition(text)
    allowed = constraint.places or (constraint.allowed,) * constraint.count
    spelled = [{composed(string): string for string in reversed(strings)} for strings in allowed]
    words = _words(composed(text).split(" "), spelled)
    return answer if words is None else replace(answer, text=before + " ".join(words) + after)


def _words(pieces: Sequence[str], spelled: Sequence[Mapping[str, str]]) -> list[str] | None:
    """The strings that some pieces between spaces make up, one of each mapping in turn; fewer where they end early."""
    if len(pieces) == len(spelled) and all(piece in strings for piece, strings in zip(pieces, spelled, strict=True)):
        return [strings[piece] for piece, strings in zip(pieces, spelled, strict=True)]
    words: list[str] = []
    at = 0
    for strings in spelled:
        # An allowed string may hold spaces itself: the longest counts.
        end = next((end for end in range(len(pieces), at, -1) if " ".join(pieces[at:end]) in strings), None)
        if end is None:
            break
        words.append(strings[" ".join(pieces[at:end])])
        at = end
    return words if words and at == len(pieces) else None
