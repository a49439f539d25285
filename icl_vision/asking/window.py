"""Whether what is to be sent fits an LLM's context window, found out before it is sent.

Knows: when a text has to be counted at all, and that an LLM may not be able to. Refuses to know: what makes a prompt
long, so what to advise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from icl_vision.contracts import TextLLM
from icl_vision.errors import CapabilityError
from icl_vision.llms.tokens import most_tokens

logger = logging.getLogger(__name__)


class Excess(NamedTuple):
    """What does not fit: tokens of the longest text, those kept free for an answer, and those of the window."""

    tokens: int
    room: int
    window: int


class Window:
    """The context window of one LLM."""

    def __init__(self, llm: TextLLM) -> None:
        self._llm = llm
        self._rooms: dict[str, int] = {}  # answers' tokens: the same few are asked for again and again

    @property
    def tokens(self) -> int | None:
        """Tokens that the LLM can read and write in one request; None where that is not known."""
        return self._llm.profile.context_window

    async def excess(self, texts: Iterable[str], *, room: int = 0, answers: Sequence[str] = ()) -> Excess | None:
        """What does not fit; None where all of it does.

        Also None where nothing is known: an LLM of unknown window, or one that cannot count and will have to refuse a
        long prompt itself.

        Args:
            texts: what would be sent, each by itself.
            room: tokens kept free for an answer.
            answers: what an answer may be, in place of ``room``: as much is kept free as the longest needs.
        """
        window = self.tokens
        if window is None:
            return None
        texts = dict.fromkeys(texts)
        longest = max(map(most_tokens, texts), default=0)
        if longest + max(map(most_tokens, answers), default=room) <= window:
            return None  # whatever they are written in
        if answers:
            counted = await self.most_counted(answers, self._rooms)
            if counted is None:
                return None
            room = counted
        tokens = await self.most_counted([text for text in texts if most_tokens(text) + room > window])
        return None if tokens is None or tokens + room <= window else Excess(tokens, room, window)

    async def most_counted(self, texts: Iterable[str], known: dict[str, int] | None = None) -> int | None:
        """Tokens of the text that has the most of them, which need not be the longest; None where the LLM cannot count.

        known: counts from before, to which these are added.
        """
        most = 0
        for text in sorted(dict.fromkeys(texts), key=most_tokens, reverse=True):
            if most_tokens(text) <= most:
                break  # neither this one nor a shorter one can have more
            tokens = None if known is None else known.get(text)
            if tokens is None:
                try:
                    tokens = await self._llm.count_tokens(text)
                except CapabilityError as error:
                    logger.debug("prompt length unchecked: %s", error)
                    return None
                if known is not None:
                    known[text] = tokens
            most = max(most, tokens)
        return most
