"""Whether a prompt fits an LLM's window, and what to change when it does not.

Knows: the options that make a prompt shorter. Refuses to know: how tokens are counted; the caller
gives a function (``llm.count_tokens_sync``) or the number itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icl_vision.contracts import Prompt
from icl_vision.errors import PromptTooLongError, UsageError


@dataclass(frozen=True, slots=True)
class PromptSize:
    """What a prompt's length comes from; None where the caller does not know.

    shots: examples of the largest class. k: words of one image. repeats: repeats in effect.
    selection: how the examples are chosen. examples: how many are shown, repeats included.
    """

    shots: int | None = None
    k: int | None = None
    repeats: int = 0
    selection: str = "all"
    examples: int | None = None

    def advice(self, tokens: int, window: int) -> str:
        """What would shrink this prompt, cheapest in accuracy first; options that would change nothing are left out."""
        options = []
        if self.repeats > 0:
            options.append(f"repeats=0 (now {self.repeats})")
        if self.shots is None:
            options.append("fewer shots=")
        elif self.shots > 1:
            options.append(f"fewer shots= (now {self.shots})")
        if self.k is None:
            options.append("a smaller k=")
        elif self.k > 1:
            options.append(f"a smaller k= (now {self.k})")
        if self.selection != "nearest" and (self.shots is None or self.shots > 1):
            options.append('selection="nearest" with shots=, which keeps the examples most like the query')
        options.append("an LLM with a larger window")
        fitting = ""
        if self.examples:
            # The examples are nearly all of a prompt too long for its window, so a plain proportion is close.
            fits = min(self.examples, self.examples * window // max(tokens, 1))
            fitting = f" (about {fits} of the {self.examples} examples shown would fit)"
        return "use " + ", ".join(options[:-1]) + (", or " if len(options) > 1 else "") + options[-1] + fitting


def check_tokens(tokens: int, window: int | None, *, reserve: int = 16, size: PromptSize | None = None) -> int:
    """``tokens``, if they and ``reserve`` fit ``window``.

    Args:
        tokens: tokens of the longest prompt of the episode.
        window: the LLM's context window, None when unknown (then nothing is refused).
        reserve: tokens kept free for the answer or the scored continuation.
        size: where the length comes from, for the advice.

    Raises:
        PromptTooLongError: naming tokens, window and the options that shrink the prompt.
        UsageError: a negative number.
    """
    if tokens < 0 or reserve < 0 or (window is not None and window < 1):
        raise UsageError(f"tokens, reserve and window must not be negative; got {tokens}, {reserve}, {window}")
    if window is not None and tokens + reserve > window:
        advice = (size or PromptSize()).advice(tokens + reserve, window)
        kept = f"{reserve} of the window are kept for the answer; " if reserve else ""
        raise PromptTooLongError(tokens, window, kept + advice)
    return tokens


def check_fits(
    prompt: Prompt | str,
    count_tokens: Callable[[str], int],
    window: int | None,
    *,
    reserve: int = 16,
    size: PromptSize | None = None,
) -> int:
    """Count a prompt's tokens and check that they fit; arguments, result and errors as in ``check_tokens``.

    ``count_tokens`` is ``llm.count_tokens_sync`` or any function from text to a number of tokens.
    """
    return check_tokens(count_tokens(Prompt.of(prompt).text), window, reserve=reserve, size=size)
