"""The base class of every LLM: argument checks in one place, sync twins, work done on the background loop.

Knows: the TextLLM contract. Refuses to know: any provider.

An adapter writes ``_complete`` and, where it can, ``_score`` and
``_count_tokens``. These always run on the background loop (``llms.loop``), so an
adapter needs no locks of its own and its clients may be shared by all threads.

What a user asks is checked once, by the outermost LLM: one around another hands it on by ``completed``, ``scored``,
``learnt`` and ``shared``, which go straight to the inner LLM's own coroutine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NotRequired, TypedDict, TypeVar, Unpack, cast

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import CapabilityError, LLMResponseError, UsageError
from icl_vision.llms.answers import composed_constraint, respelled
from icl_vision.llms.loop import hop, run_sync
from icl_vision.llms.scores import PartialScores, attach, checked_logprobs, is_logprob

MAX_PROMPT_CHARACTERS = 4_000_000
"""A longer prompt is a mistake for every LLM of today and would only cost memory."""

Self = TypeVar("Self", bound="BaseLLM")


class Settings(TypedDict):
    """How an answer is to be written, checked: the keyword arguments of ``_complete``.

    logprobs: there only where it is asked for, of an LLM that says in its profile that it takes it.
    """

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    seed: int | None
    constraint: Constraint | None
    logprobs: NotRequired[bool]


def document_of(settings: Settings) -> dict[str, Any]:
    """The settings in their JSON-ready form: what goes into keys, and reads the same in every version."""
    constraint = settings["constraint"]
    form = None if constraint is None else constraint.to_list()
    return {**settings, "stop": list(settings["stop"]), "constraint": form}


class BaseLLM(ABC):
    """A text-only LLM. See ``icl_vision.contracts.TextLLM`` for what the methods mean.

    ``complete``, ``score`` and ``count_tokens`` are coroutines for any event
    loop; ``complete_sync``, ``score_sync`` and ``count_tokens_sync`` work
    anywhere else, inside a running loop and from many threads too.
    """

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """What this LLM can do."""

    @property
    def identity(self) -> str:
        """What decides the answers beside prompt and decoding settings, for a cache's keys. Never holds a key."""
        return self.profile.name

    # ---- for adapters ----

    @abstractmethod
    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        """The answer. An LLM whose profile has ``logprobs`` takes ``logprobs: bool = False`` besides, and fills
        ``Completion.logprob`` where it is true; it is never true together with a constraint."""

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        raise CapabilityError(f"{self.profile.name!r} gives no log-probabilities of a given text")

    async def _count_tokens(self, text: str) -> int:
        raise CapabilityError(f"{self.profile.name!r} cannot count tokens")

    async def _share_words(self, prompt: Prompt, words: Sequence[str]) -> Scores:
        return await self._score([(prompt, " " + word) for word in words], terminator="")

    async def _learn_words(self, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None]) -> Usage:
        return Usage()

    async def _close(self) -> None:  # noqa: B027 - most adapters hold nothing
        """Free what the adapter holds; must bear being called twice."""

    # ---- for users ----

    async def complete(
        self,
        prompt: Prompt | str,
        *,
        max_tokens: int = 16,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
        logprobs: bool = False,
    ) -> Completion:
        """The LLM's continuation of (or answer to) a prompt.

        Args:
            prompt: a ``Prompt``, or a string, which is a prompt with only a query.
            max_tokens: tokens to write at most, from 1.
            stop: strings at which to stop; they are not part of the answer. One string stands for itself.
            temperature: 0 for the likeliest token each time, more for sampling.
            seed: for sampling, where the profile says a seed is honoured.
            constraint: what the answer may consist of, where the profile names a kind; an allowed string comes back
                as it is spelled there, in whichever characters the LLM writes it.
            logprobs: have ``Completion.logprob`` say how likely the text is, where the profile has ``logprobs`` and
                nothing constrains the answer; elsewhere it is None. Asked with it and without it are two questions for
                caches and recordings.

        Raises:
            UsageError: an argument that cannot work.
            PromptTooLongError: more tokens than the window holds.
            CapabilityError: a constraint this LLM cannot keep.
            LLMNoAnswerError: the LLM answered with nothing, only with thoughts, or withheld its answer.
            LLMError: the LLM could not answer.
        """
        prompt = check_prompt(prompt)
        settings = check_settings(
            self.profile, max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed, constraint=constraint
        )
        if logprobs is not False:
            checks.flag("logprobs", logprobs)
        if logprobs and self.profile.logprobs and constraint is None:
            settings["logprobs"] = True
        answer = await hop(self._complete(prompt, **cast(dict[str, Any], settings)))
        return answer if constraint is None else respelled(answer, constraint)

    async def score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores:
        """Natural-log probability of each whole continuation plus its terminator, given its prompt.

        Args:
            pairs: (prompt, continuation); each is scored by itself. A continuation begins with its own space.
            terminator: the text that ends a continuation, so that "car" has no advantage over "car park"; may be "".

        Raises:
            UsageError: an empty list, an empty continuation, or something that is not a pair.
            CapabilityError: this LLM gives no log-probabilities of given text (see ``profile.scores_text``).
            PromptTooLongError: a prompt with its continuation does not fit the window.
            LLMResponseError: the LLM gave another number of scores, or one that is no log-probability.
            LLMError: the LLM could not answer.
        """
        checked = _check_pairs(pairs)
        if not isinstance(terminator, str):
            raise UsageError(f"terminator must be a string; got {terminator!r}")
        return await hop(self._checked_scores(checked, terminator))

    async def _checked_scores(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Scores:
        scores = await self._score(pairs, terminator=terminator)
        try:
            logprobs = checked_logprobs(scores, len(pairs), self.profile.name)
        except LLMResponseError as error:
            # Of another number of scores nobody knows which is whose.
            whole = len(scores.logprobs) == len(pairs)
            good = {
                index: logprob
                for index, logprob in enumerate(scores.logprobs)
                if whole and is_logprob(logprob, scores.method)
            }
            attach(error, PartialScores(good, scores.usage, scores.method))
            raise
        return scores if logprobs == scores.logprobs else replace(scores, logprobs=logprobs)

    async def count_tokens(self, text: str) -> int:
        """How many tokens a text has for this LLM, without any start token.

        Raises:
            CapabilityError: this LLM cannot count.
        """
        if not isinstance(text, str):
            raise UsageError(f"count_tokens needs a string; got {type(text).__name__}")
        return await hop(self._count_tokens(text))

    @property
    def tells_shares(self) -> bool:
        """Whether ``share_words`` takes a single request."""
        return False

    async def share_words(self, prompt: Prompt | str, words: Sequence[str]) -> Scores:
        """How likely each of these words is as the next one, among themselves: what choosing between them needs.

        Log-probabilities up to a constant, of words without their leading space. An LLM that ``tells_shares`` takes one
        request where ``score`` takes two; any other scores them.

        Raises:
            UsageError, CapabilityError, PromptTooLongError, LLMError: as ``score``.
        """
        checked = _check_pairs([(prompt, " " + word) for word in words])
        return await hop(self._share_words(checked[0][0], [continuation[1:] for _, continuation in checked]))

    @property
    def learns_words(self) -> bool:
        """Whether ``learn_words`` keeps anything: what stays right only where the model cannot change unseen."""
        return False

    async def learn_words(
        self, prompts: Sequence[Prompt | str], words: Sequence[str], *, done: Callable[[int], None] | None = None
    ) -> Usage:
        """Keep the log-probabilities of words (without their leading space) as the next one after each prompt.

        ``score`` with ``terminator=""`` then answers them without a request. What is kept already is not asked again,
        and what cannot be kept (a word of several tokens, a prompt too long) is left out: ``score`` asks for it.

        Args:
            prompts, words: every word after every prompt.
            done: told how many prompts are finished, as they are.

        Returns:
            What it took; nothing where ``learns_words`` is false.

        Raises:
            UsageError: a prompt or a word that cannot be asked. LLMError: the LLM could not answer.
        """
        checked = [check_prompt(prompt) for prompt in prompts]
        for word in words:
            if not isinstance(word, str) or not word:
                raise UsageError(f"a word to learn must be a string that is not empty; got {word!r}")
            _check_text("a word", word)
        return await hop(self._learn_words(checked, list(dict.fromkeys(words)), done or _nobody))

    def complete_sync(
        self,
        prompt: Prompt | str,
        *,
        max_tokens: int = 16,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
        logprobs: bool = False,
    ) -> Completion:
        """``complete`` for code that does not await."""
        return run_sync(
            self.complete(
                prompt,
                max_tokens=max_tokens,
                stop=stop,
                temperature=temperature,
                seed=seed,
                constraint=constraint,
                logprobs=logprobs,
            )
        )

    def score_sync(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores:
        """``score`` for code that does not await."""
        return run_sync(self.score(pairs, terminator=terminator))

    def count_tokens_sync(self, text: str) -> int:
        """``count_tokens`` for code that does not await."""
        return run_sync(self.count_tokens(text))

    async def aclose(self) -> None:
        """Free connections and servers. Closing twice is fine."""
        await hop(self._close())

    def close(self) -> None:
        """``aclose`` for code that does not await."""
        run_sync(self.aclose())

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # A copy of a connection is the connection: scikit-learn's clone() copies constructor arguments deeply.
    def __copy__(self: Self) -> Self:
        return self

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.profile.name!r}>"


def _nobody(count: int) -> None:
    """Whom nobody listens to."""


# ---- one LLM asking another: what it was asked itself has been checked, on the background loop ----


def _takes_checked(llm: TextLLM, method: str) -> bool:
    """Whether nothing but the checks of this module stands between a public method and the LLM's own coroutine."""
    return isinstance(llm, BaseLLM) and getattr(getattr(llm, method), "__func__", None) is getattr(BaseLLM, method)


async def completed(llm: TextLLM, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
    """What ``llm.complete`` answers to a request that is checked already."""
    handed = cast(dict[str, Any], settings)
    if _takes_checked(llm, "complete"):
        return await cast(BaseLLM, llm)._complete(prompt, **handed)
    return await llm.complete(prompt, **handed)


async def scored(llm: TextLLM, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
    """What ``llm.score`` answers to pairs that are checked already."""
    if _takes_checked(llm, "score"):
        return await cast(BaseLLM, llm)._checked_scores(pairs, terminator)
    return await llm.score(pairs, terminator=terminator)


async def shared(llm: BaseLLM, prompt: Prompt, words: Sequence[str]) -> Scores:
    """What ``llm.share_words`` answers to words that are checked already."""
    if _takes_checked(llm, "share_words"):
        return await llm._share_words(prompt, words)
    return await llm.share_words(prompt, words)


async def learnt(llm: BaseLLM, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None]) -> Usage:
    """What ``llm.learn_words`` does with words that are checked already."""
    if _takes_checked(llm, "learn_words"):
        return await llm._learn_words(prompts, words, done)
    return await llm.learn_words(prompts, words, done=done)


# ---- checks ----


def check_prompt(prompt: Prompt | str) -> Prompt:
    """A prompt fit to be sent, or UsageError."""
    if not isinstance(prompt, (Prompt, str)):
        raise UsageError(f"a prompt must be a string or an icl_vision Prompt; got {type(prompt).__name__}")
    prompt = Prompt.of(prompt)
    text = prompt.text
    if not text.strip():
        raise UsageError("the prompt is empty; give it at least a query")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise UsageError(
            f"the prompt has {len(text):,} characters, more than the cap of {MAX_PROMPT_CHARACTERS:,}; "
            "use fewer examples or fewer words per image"
        )
    _check_text("the prompt", text)
    return prompt


def check_settings(
    profile: Profile,
    *,
    max_tokens: int,
    stop: Sequence[str],
    temperature: float,
    seed: int | None,
    constraint: Constraint | None,
) -> Settings:
    """The settings of ``complete`` in the form that adapters are given.

    Raises:
        UsageError, CapabilityError: one that cannot work.
    """
    settings: Settings = {
        "max_tokens": checks.count("max_tokens", max_tokens),
        "stop": _check_stop(stop),
        "temperature": checks.number("temperature", temperature, least=0),
        "seed": None if seed is None else checks.count("seed", seed, least=0, most=2**31 - 1),
        "constraint": None,
    }
    if constraint is not None:
        if not isinstance(constraint, Constraint):
            raise UsageError(f"constraint must be an icl_vision Constraint or None; got {type(constraint).__name__}")
        if profile.constraint is None:
            raise CapabilityError(
                f"{profile.name!r} cannot restrict its answers; leave constraint out and parse the answer"
            )
        settings["constraint"] = composed_constraint(constraint)
    return settings


def _check_text(what: str, text: str) -> None:
    if "\x00" in text:
        raise UsageError(f"{what} holds a NUL character at position {text.index(chr(0))}; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{what} is not valid Unicode at position {error.start} (a lone surrogate); remove it"
        ) from None


def _check_stop(stop: Sequence[str]) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise UsageError(f"every stop must be a string that is not empty; got {text!r}")
        _check_text("a stop string", text)
    return stops


def _check_pairs(pairs: Sequence[tuple[Prompt | str, str]]) -> list[tuple[Prompt, str]]:
    checked: list[tuple[Prompt, str]] = []
    last: object = checked  # no prompt yet
    for index, pair in enumerate(pairs):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise UsageError(f"score needs (prompt, continuation) pairs; item {index} is {pair!r}")
        prompt, continuation = pair
        if not isinstance(continuation, str) or not continuation:
            raise UsageError(
                f"the continuation of item {index} must be a string that is not empty; got {continuation!r}"
            )
        _check_text(f"the continuation of item {index}", continuation)
        # The labels of one image come after one another, with the same prompt.
        checked.append((checked[-1][0] if prompt is last else check_prompt(prompt), continuation))
        last = prompt
    if not checked:
        raise UsageError("score needs at least one (prompt, continuation) pair; got none")
    return checked
