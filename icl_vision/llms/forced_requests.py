"""How many requests llama.cpp takes to score given texts, as ``local.scoring`` asks them, without asking any.

Knows: tries of tokens, and what the slot's cache held before. Refuses to know: where tokens come from, answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

SIBLINGS = 3
"""From so many tokens after one prefix it pays to ask for all together."""

Lead = Literal["held", "unknown", "always"]
"""When what all texts of a call share is read by a request of its own: "held" where the last call did not leave it in
the slot's cache, "unknown" in every call that goes on from more than one prompt, "always" in each call."""

START = "<start>"
"""What every prompt begins with, whatever it says."""


@dataclass(slots=True)
class ForcedTokens:
    """The calls of one run, in their order; tokens are texts, any cut of them will do. lead: see ``Lead``."""

    lead: Lead = "held"
    _held: list[str] = field(default_factory=list)

    def hold(self, prompt: Sequence[str]) -> None:
        """Note that the cache was left with these tokens."""
        self._held = list(prompt)

    def requests(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> tuple[int, Counter[tuple[str, ...]]]:
        """Of one call: the tokens that are read by a request of their own first (0 for no such request), and how many
        requests each further prompt takes.

        pairs: tokens of a prompt and of what is scored after it; neither empty.
        """
        nodes: dict[tuple[str, ...], set[str]] = {}
        for prompt, continuation in pairs:
            for place, token in enumerate(continuation):
                nodes.setdefault((*prompt, *continuation[:place]), set()).add(token)
        order = sorted(nodes)
        # In their order, the first and the last share no more than all of them do.
        shared = list(order[0][: common_prefix(order[0], order[-1])])
        known = common_prefix(self._held, shared) if self.lead == "held" else 0
        led = self.lead == "always" or (len(order) > 1 and known < len(shared))
        self._held = list(order[-1])
        asks = Counter({prefix: 2 if len(tokens) >= SIBLINGS else len(tokens) for prefix, tokens in nodes.items()})
        return (len(shared) if led else 0), asks


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading items two sequences share."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    low = 0
    while a[low] == b[low]:
        low += 1
    return low
