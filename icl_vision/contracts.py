"""The value objects and protocols that the parts of the line exchange.

Knows: names, fields and what they mean. Refuses to know: any implementation.
A leaf: imports nothing of ours but errors (other types only for type checkers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from icl_vision.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from icl_vision.pyramid import PyramidLayout, TokenPyramid
    from icl_vision.vocabulary import Vocabulary

ScoringMethod = Literal["channel", "direct", "constrained", "parse"]
"""How a label was chosen: noisy channel, direct likelihood, constrained output, tolerant parse."""

AnswerMethod = Literal["fused", "read", "choices", "constrained", "parsed", "greedy"]
"""How an answer was found: by what the LLM and the picture's words say of each candidate together; taken from the text
that was read in the picture; by the LLM's scores of given choices; written by an LLM that could write nothing but a
choice; a choice looked for in what it wrote; written freely, up to the line's end."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an LLM is asked: a fixed part (instruction, context) and the query.

    ``instruction`` and ``context`` are byte-identical for every query of an
    episode, so a provider's prefix cache can reuse them. The query ends without
    a trailing space; a continuation begins with one.
    """

    instruction: str
    context: str
    query: str

    @classmethod
    def of(cls, prompt: Prompt | str) -> Prompt:
        """A plain string is a prompt with only a query."""
        return cls("", "", prompt) if isinstance(prompt, str) else prompt

    @property
    def prefix(self) -> str:
        """Instruction and context as they begin ``text``: each non-empty part ends in exactly one newline."""
        return "".join(part + "\n" for part in (self.instruction, self.context) if part)

    @property
    def text(self) -> str:
        """The whole prompt as one string, exactly one newline between non-empty parts."""
        return self.prefix + self.query


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens spent; sums with ``+``.

    ``prompt_tokens`` counts every token of the prompts, ``cached_tokens`` the part of them read from a provider's
    cache and ``cache_write_tokens`` the part written to it, whatever each provider's own bill calls them.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    def to_dict(self) -> dict[str, int]:
        """JSON-ready form, a key per field."""
        return {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "cache_write_tokens": self.cache_write_tokens,
        }


@dataclass(frozen=True, slots=True)
class Completion:
    """An LLM's answer.

    finish_reason: "stop", "length" or the provider's own word. raw: the provider's whole answer. logprob: the
    natural-log probability of ``text`` after its prompt, as the LLM itself holds it (before temperature), up to 0; None
    where it is unknown. It is asked for: see ``Profile.logprobs``.
    """

    text: str
    finish_reason: str
    usage: Usage = field(default_factory=Usage)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Natural-log probabilities of whole continuations (terminator included), in the order asked."""

    logprobs: tuple[float, ...]
    usage: Usage = field(default_factory=Usage)
    method: str = ""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer may consist of: ``allowed`` strings, ``count`` of them in a row separated by one space.

    For labels: ``Constraint(allowed=labels, count=1)``. For drawing: the words of a segment and its length.

    Two spellings of the same characters ("é" as one, or as an "e" and an accent) count as one string: LLMs of this
    library are shown the composed one and what they answer comes back as it is spelled here.

    ``places`` narrows it further, a tuple of allowed strings for each of the ``count`` in turn, all of them in
    ``allowed``. An adapter that cannot tell places apart keeps to ``allowed`` (the embedded LLM can, hosted ones
    cannot), so who gives places checks the answer.
    """

    allowed: tuple[str, ...]
    count: int = 1
    places: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def at_places(cls, places: Sequence[Sequence[str]]) -> Constraint:
        """A constraint with a set of its own for each place; ``allowed`` is all of them, in order of appearance."""
        allowed = tuple(dict.fromkeys(word for place in places for word in place))
        return cls(allowed, len(places), tuple(tuple(place) for place in places))

    def to_list(self) -> list[Any]:
        """JSON-ready form: allowed, count, and places only where there are any."""
        form: list[Any] = [list(self.allowed), self.count]
        return [*form, [list(place) for place in self.places]] if self.places else form

    @classmethod
    def from_list(cls, form: Sequence[Any]) -> Constraint:
        """The constraint of ``to_list``. Raises KeyError, TypeError, ValueError or IndexError on anything else."""
        places = tuple(tuple(place) for place in form[2]) if len(form) > 2 else ()
        return cls(tuple(form[0]), form[1], places)

    def __post_init__(self) -> None:
        if not self.allowed:
            raise UsageError("a Constraint needs at least one allowed string; got none")
        if self.count < 1:
            raise UsageError(f"a Constraint's count must be 1 or more; got {self.count}")
        if not self.places:
            return
        if len(self.places) != self.count:
            raise UsageError(
                f"a Constraint's places must be as many as its count, {self.count}; got {len(self.places)}"
            )
        known = set(self.allowed)
        for number, place in enumerate(self.places, start=1):
            if not place:
                raise UsageError(f"place {number} of a Constraint allows nothing; give it at least one string")
            stray = next((token for token in place if token not in known), None)
            if stray is not None:
                raise UsageError(f"place {number} of a Constraint allows {stray!r}, which is not among its allowed")


MANY_STRINGS = 250
"""Providers bear fewer characters in a constraint of more strings than so many; see ``Profile``."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What an LLM can do, as data.

    name: as given to ``connect``. context_window: tokens a prompt may have, None when unknown.
    api: which endpoint it answers on. scores_text: log-probabilities of a given
    continuation can be had (what direct and channel scoring need). constraint:
    how an answer can be restricted, None when it cannot. seed: a seed is honoured.
    prefix_cache: a repeated prompt prefix is reused by the provider. scores_bags: log-probabilities of many words after
    one prompt cost little more than that of one (they are read from one evaluation, not sent one by one). embedded: it
    runs on this machine, in a server of this library's own, so that requests at once only share its cores. logprobs:
    ``complete`` takes ``logprobs=True`` and then tells how likely the text is that it wrote (``Completion.logprob``),
    without a further request; an LLM that does not say so is not given the argument.

    Remote providers need to know more, and adapters may ignore what does not concern them. constraint_limit: allowed
    strings a constraint may hold, None for no known limit. temperature: the provider takes one (while it does not
    reason). stop_strings: how many the provider stops at; the adapter cuts at the others. batch: there is a batch
    endpoint. prompt_cache: how the fixed prefix is pointed out to the provider: "automatic" (it is not), "key" (a cache
    key), "breakpoints" (a key and marked blocks), "cache_control" (marked blocks), None where there is no cache.
    prompt_cache_minimum: tokens below which a prefix is not cached. reasoning: whether it thinks before it answers:
    "never", "optional" or "always". least_reasoning: the provider's word for the least of it, None to say nothing.
    tokenizer: tiktoken's name of its tokenizer, None when unknown. constraint_characters: characters that the allowed
    strings of a constraint may have together, constraint_characters_many: the same where there are more than
    ``MANY_STRINGS`` of them; None for no known limit.
    """

    name: str
    context_window: int | None = None
    api: Literal["completions", "chat", "responses"] = "chat"
    scores_text: bool = False
    constraint: Literal["logit_bias", "grammar", "json_schema", "choice"] | None = None
    seed: bool = False
    prefix_cache: bool = False
    constraint_limit: int | None = None
    scores_bags: bool = False
    temperature: bool = True
    stop_strings: int = 0
    batch: bool = False
    prompt_cache: Literal["automatic", "key", "breakpoints", "cache_control"] | None = None
    prompt_cache_minimum: int = 0
    reasoning: Literal["never", "optional", "always"] = "never"
    least_reasoning: str | None = None
    tokenizer: str | None = None
    constraint_characters: int | None = None
    constraint_characters_many: int | None = None
    embedded: bool = False
    logprobs: bool = False

    def too_much(self, allowed: Sequence[str]) -> str:
        """Why a constraint cannot allow these strings: which limit they pass, in words; "" where they pass none."""
        strings = list(dict.fromkeys(allowed))
        if self.constraint_limit is not None and len(strings) > self.constraint_limit:
            return f"{self.constraint_limit} allowed strings in a constraint; got {len(strings)}"
        characters = sum(map(len, strings))
        if self.constraint_characters is not None and characters > self.constraint_characters:
            return f"{self.constraint_characters:,} characters in a constraint's allowed strings; got {characters:,}"
        most = self.constraint_characters_many
        if most is not None and len(strings) > MANY_STRINGS and characters > most:
            return (
                f"{most:,} characters in a constraint's allowed strings where there are more than {MANY_STRINGS}; got "
                f"{characters:,} in {len(strings)}"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Classification:
    """One classified image.

    label: None where it abstains. probabilities: over the known labels, None when
    the method gives none. words: the image's words, a list per layer. method: the
    rung of the scoring ladder that answered. text: the raw answer (parse,
    constrained) or "". error: the exception, where ``errors="return"``.
    calibrated: whether the probabilities went through a calibrated map, or are
    the LLM's own (raw), which are mostly too sure.
    """

    label: str | None
    probabilities: Mapping[str, float] | None
    words: tuple[tuple[str, ...], ...]
    method: ScoringMethod | None
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    error: Exception | None = None
    calibrated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: label, probabilities, calibrated, words (a list per layer), method, text, usage, error."""
        return {
            "label": self.label,
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
            "calibrated": self.calibrated,
            "words": [list(layer) for layer in self.words],
            "method": self.method,
            "text": self.text,
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }

    def _repr_html_(self) -> str:
        from icl_vision.viz.notebook import classification_html  # the named lazy exception: what is shown is viz's

        return classification_html(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to a question about a picture, or its caption.

    text: the answer, one line; "" where there is none. words: the picture's words as the LLM could be shown them, a
    tuple per part (a pyramid's parts are its layers), of several pictures one after the other. probability: that the
    answer is right, among everything that could have been answered; None where the method gives none. method: how it
    was found. examples: which of the fitted examples were shown, by their index, in the order shown (of several
    prompts one after the other). raw: what the LLM wrote, "" where it only scored. error: the exception, where
    ``errors="return"``. calibrated: whether the probability went through a calibrated map, or is raw. probabilities:
    of the likeliest things that could have been answered, the likeliest first; of given choices all of them. note:
    what else a reader should know, such as how many of several prompts agreed. parts: the names of the parts that
    ``words`` has, text read in a picture ("text") among them; () where a tokenizer's words have no parts.
    """

    text: str
    words: tuple[tuple[str, ...], ...]
    probability: float | None
    method: AnswerMethod | None
    examples: tuple[int, ...] = ()
    raw: str = ""
    usage: Usage = field(default_factory=Usage)
    error: Exception | None = None
    calibrated: bool = False
    probabilities: Mapping[str, float] | None = None
    note: str = ""
    parts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: a key per field; words as a list per part, the error as its kind and message."""
        return {
            "text": self.text,
            "parts": list(self.parts),
            "words": [list(part) for part in self.words],
            "probability": self.probability,
            "calibrated": self.calibrated,
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
            "method": self.method,
            "examples": list(self.examples),
            "raw": self.raw,
            "note": self.note,
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }


@runtime_checkable
class Tokenizer(Protocol):
    """Turns images into words (and back, where ``can_decode``). See ``icl_vision.tokenizers.ImageTokenizer``."""

    name: str
    can_decode: bool
    can_embed: bool

    @property
    def layout(self) -> PyramidLayout: ...
    @property
    def vocabulary(self) -> Vocabulary | None: ...
    @property
    def codebook(self) -> npt.NDArray[np.float32] | None: ...
    @property
    def card(self) -> Mapping[str, Any]: ...
    def encode(self, images: Sequence[Any], k: int | None = None) -> list[TokenPyramid]: ...
    def decode(self, pyramids: Sequence[TokenPyramid]) -> list[Image.Image]: ...
    def embed(self, images: Sequence[Any]) -> npt.NDArray[np.float32]: ...
    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str: ...
    def from_text(self, text: str) -> TokenPyramid: ...


@runtime_checkable
class TextLLM(Protocol):
    """A text-only LLM. ``complete`` and ``score`` are coroutines; the ``_sync`` twins work anywhere."""

    @property
    def profile(self) -> Profile: ...

    async def complete(
        self,
        prompt: Prompt | str,
        *,
        max_tokens: int = 16,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
    ) -> Completion: ...

    async def score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores: ...

    async def count_tokens(self, text: str) -> int: ...

    def complete_sync(
        self,
        prompt: Prompt | str,
        *,
        max_tokens: int = 16,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
    ) -> Completion: ...

    def score_sync(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores: ...

    def count_tokens_sync(self, text: str) -> int: ...


@runtime_checkable
class Guide(Protocol):
    """Guidance for the semantic loss: how well each vocabulary word fits each image.

    ``similarity(images)``: float32 [N, |T|], on any scale; the loss min-max normalises it per image (SPAE eq. 6).
    """

    def similarity(self, images: Any) -> Any: ...
