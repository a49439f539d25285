"""Words chosen one after the other by an LLM's probabilities, where writing them in one answer does not do.

With guidance, by what the condition changes in those probabilities:

    log q(w)  =  log p(w | no condition)  +  g * ( log p(w | u)  -  log p(w | no condition) )

Classifier-free guidance for language models (Sanchez et al., arXiv 2306.17806): g = 1 is the LLM's own distribution;
more than 1 turns away from what the LLM would write whatever is asked for, such as the word of the background. "No
condition" is the same prompt, examples and all, whose query line has none.

A word that the LLM holds impossible after u (log-probability -inf) is impossible for q, whatever it would be without u:
q has g of the one to none of the other. Where a word is impossible without the condition alone, its ratio has no bound:
it then counts as likely there as the least likely word that is possible, so that it cannot become certain by that.

With a limit to how often a word may be written, by the LLM's own distribution among the words that are left.

Knows: probabilities of the words allowed at a place, for several prompts. Refuses to know: pyramids, templates, repair.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Prompt, Scores, TextLLM, Usage
from icl_vision.drawing.repair import unused
from icl_vision.errors import LLMResponseError
from icl_vision.llms.scores import all_impossible, checked_logprobs
from icl_vision.spelling import composed

_Key = tuple[str, tuple[str, ...]]
"""A prompt's text and the words allowed after it."""

_KEPT = 4096
"""Distributions remembered: queries of one call ask for the same ones."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """How to choose. weight: g. temperature: 0 takes the likeliest word of q; else q, divided by it, is sampled.
    most_uses: so often a word may be written; None for any number."""

    weight: float = 1.0
    temperature: float = 0.0
    most_uses: int | None = None


@dataclass(slots=True)
class WordByWordWriter:
    """Writes words, place by place.

    llm: one that scores text. A distribution that was asked for once is not asked for again.
    """

    llm: TextLLM
    _known: dict[_Key, npt.NDArray[np.float64]] = field(default_factory=dict)
    _asking: dict[_Key, asyncio.Future[None]] = field(default_factory=dict)

    async def write(
        self,
        prompt: Prompt,
        against: Prompt | None,
        places: Sequence[tuple[str, ...]],
        guidance: Guidance,
        seed: int,
        *,
        used: Mapping[str, int] | None = None,
        known: Collection[int] = (),
    ) -> tuple[tuple[str, ...], Usage]:
        """A word for each place, and what it took.

        Args:
            prompt: with the condition u; it ends where the first word begins.
            against: the same prompt without it; None without guidance.
            places: the words allowed at each place; a place with a single word is not asked about.
            guidance: how to choose.
            seed: for sampling.
            used: how often words were written before, for ``most_uses``. known: places of ``places`` that do not count.

        Raises:
            LLMError, PromptTooLongError: the LLM cannot answer.
            LLMResponseError: it holds every word allowed at a place impossible.
        """
        generator = np.random.default_rng(seed)
        words: list[str] = []
        spent, uses = Usage(), Counter(used or {})
        for place, allowed in enumerate(places):
            left = allowed if guidance.most_uses is None else unused(allowed, uses, guidance.most_uses)
            if len(left) == 1:
                words.append(left[0])
                uses[left[0]] += place not in known
                continue
            guided, usage = await self._logs(_after(prompt, words), allowed)
            spent += usage
            if against is not None:
                without, usage = await self._logs(_after(against, words), allowed)
                spent += usage
                guided = _guided(guided, without, guidance.weight)
            if len(left) < len(allowed):
                # Words that are possible go before those that were written less often.
                able = tuple(word for word, log in zip(allowed, guided.tolist(), strict=True) if log > -np.inf)
                left = left if set(left) & set(able) else unused(able, uses, guidance.most_uses or 1)
                guided = np.where(np.isin(allowed, left), guided, -np.inf)
            words.append(allowed[_choose(guided, guidance.temperature, generator)])
            uses[words[-1]] += 1
        return tuple(words), spent

    async def _logs(self, prompt: Prompt, allowed: tuple[str, ...]) -> tuple[npt.NDArray[np.float64], Usage]:
        """log p of each word among those allowed; -inf where it is impossible, but not for all of them."""
        key = (prompt.text, allowed)
        # Queries are asked about side by side: who comes second waits for what the first is asking.
        while key not in self._known and (asking := self._asking.get(key)) is not None:
            if asking.get_loop() is not asyncio.get_running_loop():
                break
            await asyncio.wait((asking,))
        known = self._known.get(key)
        if known is not None:
            return known, Usage()
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._ask(prompt, allowed)
        finally:
            # Also where it failed: the next one then asks for itself.
            asking.set_result(None)
            if self._asking.get(key) is asking:
                del self._asking[key]

    async def _ask(self, prompt: Prompt, allowed: tuple[str, ...]) -> tuple[npt.NDArray[np.float64], Usage]:
        key = (prompt.text, allowed)
        words = [composed(word) for word in allowed]  # as the prompts hold them
        if getattr(self.llm, "tells_shares", False):
            scores: Scores = await self.llm.share_words(prompt, words)  # type: ignore[attr-defined]  # it says so
        else:
            scores = await self.llm.score([(prompt, " " + word) for word in words], terminator="")
        logs = np.asarray(checked_logprobs(scores, len(allowed), self.llm.profile.name), dtype=np.float64)
        if all_impossible(scores.logprobs):
            raise LLMResponseError(
                f"{self.llm.profile.name!r} holds each of {len(allowed)} allowed words impossible after "
                f"{prompt.query[-60:]!r} (log-probability -inf): {', '.join(map(repr, allowed[:5]))}"
                f"{' ...' if len(allowed) > 5 else ''}; allow other words"
            )
        logs = logs - np.logaddexp.reduce(logs)
        if len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[key] = logs
        return logs, scores.usage


def _after(prompt: Prompt, words: Sequence[str]) -> Prompt:
    return replace(prompt, query=" ".join([prompt.query, *map(composed, words)])) if words else prompt


def _guided(given: npt.NDArray[np.float64], without: npt.NDArray[np.float64], weight: float) -> npt.NDArray[np.float64]:
    """log q, up to a constant, of log p with the condition and without it; one at least is finite."""
    if not weight:
        return without
    floor = np.maximum(without, without[np.isfinite(without)].min())
    possible = np.isfinite(given)
    mixed = floor[possible] + weight * (given[possible] - floor[possible])
    guided = np.full_like(given, -np.inf)
    guided[possible] = mixed
    return guided


def _choose(logs: npt.NDArray[np.float64], temperature: float, generator: np.random.Generator) -> int:
    if not temperature:
        return int(np.argmax(logs))
    # Gumbel's trick: one draw a word, so that the choice depends on nothing but the seed and the place.
    # From the likeliest down, which a division by a very small temperature leaves where it is.
    with np.errstate(over="ignore"):
        return int(np.argmax((logs - logs.max()) / temperature + generator.gumbel(size=len(logs))))
