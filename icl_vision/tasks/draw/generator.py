"""Drawing with a frozen text LLM: pictures from texts, through words (SPAE, section 4.3).

Knows: the order of the line (examples, words, passes, words, picture) and what a user may set.
Refuses to know: how a segment is asked for (``drawing``), where examples come from (``draw.examples``).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from icl_vision.asking.plan import Plan
from icl_vision.checks import as_real, count, flag, number
from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.drawing.drawing import Pair, Query, plurality
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.drawing.stages import Allowed, Decoding, Passes, Stage, Strides, stages_of
from icl_vision.errors import UsageError
from icl_vision.files.runs import Run
from icl_vision.images import ImageSource
from icl_vision.llms import Budget
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.loop import hop, run_sync
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.base import Fitted, Task
from icl_vision.tasks.draw.examples import as_texts, choose
from icl_vision.tasks.draw.session import DrawingSession, GeneratedImage, Preview, close, next_of
from icl_vision.tasks.inputs import as_sources, check_folder, check_name
from icl_vision.tasks.saving import SavedForm
from icl_vision.tasks.tools import Tool, drawing

TEMPLATE = "text_to_image"

GUIDANCE = 2.0
"""Weight of what the text changes, where it can be had. In trials on other draws, greedy: 75% of 20 digits read right
with 1, 95% with 1.5 to 3, 90% with 5; sampled at 0.5, 85% of 400, 93, 95, 93 and 88%."""


@dataclass(frozen=True, kw_only=True)
class FittedGenerator(Fitted):
    """What an ``ImageGenerator`` was fitted with. kept: the examples shown, in order. stages: how words are asked for.
    filling: for previews, a word for each place that has none yet."""

    kept: tuple[Pair, ...]
    stages: tuple[Stage, ...]
    filling: tuple[str, ...]


class ImageGenerator(Task[FittedGenerator]):
    """Draws pictures from texts by showing an LLM a few pictures with their texts, as words.

    Args:
        llm: what draws: a ``connect`` string ("local", "openai-compatible:MODEL@URL" ...) or any ``TextLLM``.
        tokenizer: one that decodes: a name or folder, as for ``ImageTokenizer.from_pretrained``, or a tokenizer.
        shots: so many examples of each text are shown, drawn by ``seed`` before any query is known; None shows all.
        passes, stride, upper: see ``icl_vision.drawing.stages.stages_of``; a stride of None takes whole layers.
        allowed: words that may be answered: those the examples have at that "place" (whatever their text), on that
            "layer", anywhere ("context"), or the whole "vocabulary".
        temperature: 0 takes the likeliest words, so that a text always gives the same picture.
        guidance: 1 takes the LLM's probabilities as they are. More weighs what the text changes in them, against the
            same prompt without it; see ``icl_vision.drawing.word_by_word``. Needs an LLM that scores text. "auto" is 2
            for one that does (local) and 1 for others.
        best_of: answers sampled of which the likeliest is kept, segment by segment.
        longest_run: so many times one word may stand in a row; None for any length.
        template, templates: prompt template by name, a folder of your own.
        induction: give the template's instruction. None: to an LLM that chats, not to one that continues plain text,
            which follows the text better without.
        constrain, asks, fill: see ``ProgressiveDecoder``.
        seed: of the choice of examples and of sampling.
        concurrency: requests at the same time; None leaves it to the LLM.
        errors: a picture whose words cannot be read: "raise", or "return" it with its ``error``.
        budget, prices: limits for one call of ``generate``, and what models cost.

    The constructor only stores; ``fit`` checks. What is changed afterwards holds from the next ``fit`` on, but for
    ``concurrency``, ``errors``, ``budget`` and ``prices``, which each call reads.

    After ``fit``: ``pairs_`` (the examples shown, in order), ``texts_`` (their distinct texts, sorted), ``llm_``,
    ``tokenizer_``.

    >>> generator = ImageGenerator().fit(images, texts)  # doctest: +SKIP
    >>> generator.generate(["an image of 3"])[0].image.save("three.png")  # doctest: +SKIP
    """

    form = SavedForm("icl_vision.ImageGenerator", 1, {"examples": list}, "generator", otherwise="draw something else")
    how_to_fit = "fit(images, texts)"
    decodes = True

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "spae-digits-32",
        *,
        shots: int | None = 4,
        passes: Passes = "pnar",
        stride: Strides = 1,
        upper: int = 1,
        allowed: Allowed = "place",
        temperature: float = 0.0,
        guidance: float | Literal["auto"] = "auto",
        best_of: int = 1,
        longest_run: int | None = None,
        template: str = TEMPLATE,
        templates: str | os.PathLike[str] | None = None,
        induction: bool | None = None,
        constrain: Literal["auto", "always", "never"] = "auto",
        asks: int = 3,
        fill: bool = False,
        seed: int = 0,
        concurrency: int | None = None,
        errors: Literal["raise", "return"] = "raise",
        budget: Budget | None = None,
        prices: PriceTable | None = None,
    ) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.shots = shots
        self.passes = passes
        self.stride = stride
        self.upper = upper
        self.allowed = allowed
        self.temperature = temperature
        self.guidance = guidance
        self.best_of = best_of
        self.longest_run = longest_run
        self.template = template
        self.templates = templates
        self.induction = induction
        self.constrain = constrain
        self.asks = asks
        self.fill = fill
        self.seed = seed
        self.concurrency = concurrency
        self.errors = errors
        self.budget = budget
        self.prices = prices

    # The examples.

    def fit(self, images: Iterable[ImageSource | TokenPyramid], texts: Iterable[str]) -> Self:
        """Choose the examples and turn them into words, once.

        Args:
            images: pictures (paths, bytes, PIL images, arrays; clips for a tokenizer of clips), or their words; not
                both.
            texts: what each is of, one line; pictures of the same text count as examples of the same thing.

        Raises:
            UsageError: an argument (here or in the constructor) that cannot work; the message says which would.
            ImageError: a picture that cannot be used.
            CapabilityError: the LLM cannot do what was asked for.
            ArtefactNotFoundError, LLMSpecError: no such tokenizer or LLM.
        """
        self.check()
        takes = self._takes()
        sources = as_sources(images, single=False, takes=takes)
        words = [source for source in sources if isinstance(source, TokenPyramid)]
        names = as_texts(texts)
        if len(sources) != len(names) or not sources:
            raise UsageError(
                f"give one text for each example, and at least one example; got {len(sources)} images and "
                f"{len(names)} texts"
            )
        if words and len(words) != len(sources):
            raise UsageError("examples must be all pictures or all words (TokenPyramid); got both")
        chosen = choose(names, self.shots, self.seed)
        tokenizer = self._connect_tokenizer()
        pyramids = (
            [words[index] for index in chosen] if words else tokenizer.encode([sources[index] for index in chosen])
        )
        pairs = tuple(Pair(names[index], pyramid) for index, pyramid in zip(chosen, pyramids, strict=True))
        self._fitted = self._assembled(self._connect_llm(), tokenizer, pairs)
        return self

    def _check(self) -> None:
        count("shots", self.shots, none="all examples")
        count("upper", self.upper)
        count("seed", self.seed, least=0)
        flag("induction", self.induction, none=True)
        number("temperature", self.temperature)
        if not (isinstance(self.guidance, str) and self.guidance == "auto") and as_real(self.guidance) is None:
            raise UsageError(f"guidance must be 'auto' or a number of 0 or more; got {self.guidance!r}")
        check_name("template", self.template, "a segment template")
        check_folder("templates", self.templates)

    def _assembled(self, llm: TextLLM, tokenizer: Tokenizer, kept: tuple[Pair, ...]) -> FittedGenerator:
        layout = kept[0].target.layout
        if layout != tokenizer.layout or kept[0].target.vocabulary != tokenizer.vocabulary:
            raise UsageError(
                f"the examples' words ({layout}) are not those of the tokenizer {tokenizer.name!r} ({tokenizer.layout})"
            )
        stages = stages_of(
            "par" if self.passes == "two-stage" and len(layout) == 1 else self.passes,
            stride=self.stride,
            upper=self.upper,
            allowed=self.allowed,
            decoding=Decoding(
                self.temperature, self.seed, self.longest_run, best_of=self.best_of, guidance=self._guidance(llm)
            ),
            template=self.template,
            induction=llm.profile.api != "completions" if self.induction is None else self.induction,
        )
        fitted = FittedGenerator(
            params=self._params_now(),
            llm=llm,
            tokenizer=tokenizer,
            kept=kept,
            stages=stages,
            filling=tuple(plurality([pair.target for pair in kept])),
        )
        self._decoder(fitted).plan(list(kept), [Query(str(kept[0].condition))])  # refuses what cannot work
        return fitted

    def _guidance(self, llm: TextLLM) -> float:
        if self.guidance != "auto":
            return float(self.guidance)
        return GUIDANCE if llm.profile.scores_text and self.constrain != "never" else 1.0

    @property
    def pairs_(self) -> list[Pair]:
        """The examples shown, in order."""
        return list(self.fitted.kept)

    @property
    def texts_(self) -> list[str]:
        """The examples' distinct texts, sorted, each in the spelling in which it was given first."""
        texts = {composed(text): text for text in reversed([str(pair.condition) for pair in self.fitted.kept])}
        return [texts[text] for text in sorted(texts)]

    # Drawing.

    def generate(
        self,
        queries: str | Iterable[str],
        n: int = 1,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        watch: Callable[[Preview], None] | None = None,
    ) -> list[GeneratedImage]:
        """Draw pictures.

        Args:
            queries: texts, free ones; those of the examples are the safest.
            n: pictures of each, one after the other; more than one needs a temperature above 0.
            out: a run folder that keeps every segment as soon as it is answered.
            resume: go on with what is there; nothing answered is asked again.
            watch: called with a preview after every segment.

        Raises:
            NotFittedError: before ``fit``. UsageError: queries that cannot be asked.
            RunError: the folder cannot be used.
            BudgetExceededError: the plan does not keep to the budget, or the next request would not.
            PromptTooLongError, LLMError: the LLM cannot answer.
            AnswerRefusedError: words could not be read, with ``errors="raise"``.
        """
        return run_sync(self._session(self._queries(queries, n)).generate(out, resume, watch))

    async def agenerate(
        self,
        queries: str | Iterable[str],
        n: int = 1,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        watch: Callable[[Preview], None] | None = None,
    ) -> list[GeneratedImage]:
        """``generate`` as a coroutine, for any event loop."""
        return await hop(self._session(self._queries(queries, n)).generate(out, resume, watch))

    def stream(
        self,
        queries: str | Iterable[str],
        n: int = 1,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Iterator[Preview]:
        """A preview after every segment of every picture, in the order they come. Arguments as for ``generate``.

        A reader that stops early should close the iterator (``contextlib.closing``), which ends what is under way.
        """
        steps = self._session(self._queries(queries, n)).stream(out, resume)
        try:
            while True:
                try:
                    yield run_sync(next_of(steps))
                except StopAsyncIteration:
                    return
        finally:
            run_sync(close(steps))

    async def astream(
        self,
        queries: str | Iterable[str],
        n: int = 1,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> AsyncIterator[Preview]:
        """``stream`` as an asynchronous iterator, for any event loop."""
        steps = self._session(self._queries(queries, n)).stream(out, resume)
        try:
            while True:
                try:
                    yield await hop(next_of(steps))
                except StopAsyncIteration:
                    return
        finally:
            await hop(close(steps))

    def plan(self, queries: str | Iterable[str], n: int = 1, *, run: Run | None = None) -> Plan:
        """What ``generate`` would send and cost; nothing is asked. run: open; what it has does not count."""
        asked, fitted = self._queries(queries, n), self.fitted
        return self._decoder(fitted).plan(list(fitted.kept), asked, run=run)

    def prompt_for(self, text: str, segment: int = 1) -> str:
        """The prompt of one segment (from 1) of a text; words that are not there yet are the first example's."""
        (query,) = self._queries(text, 1)
        return self._decoder(self.fitted).prompt(self.pairs_, query, segment).text

    def __call__(self, queries: str | Iterable[str]) -> Any:
        """The image of one text (of a clip, the list of its frames), or a list of images for several."""
        images: list[Any] = [list(drawn.frames) or drawn.image for drawn in self.generate(queries)]
        return images[0] if isinstance(queries, str) else images

    # Keeping it: how is ``Task``'s, what is here.

    def _tool(self) -> Tool:
        return drawing(self)

    def _kept_to_dict(self) -> dict[str, Any]:
        return {
            "examples": [{"text": str(pair.condition), "words": pair.target.to_dict()} for pair in self.fitted.kept]
        }

    @classmethod
    def _kept_from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[Pair, ...]:
        pairs = tuple(
            Pair(str(example["text"]), TokenPyramid.from_dict(example["words"], tokenizer.vocabulary))
            for example in document["examples"]
        )
        if not pairs:
            raise ValueError("no examples")
        return pairs

    # Steps.

    def _decoder(self, fitted: FittedGenerator) -> ProgressiveDecoder:
        params = fitted.params
        return ProgressiveDecoder(
            fitted.llm,
            fitted.stages,
            constrain=params["constrain"],
            asks=params["asks"],
            fill=params["fill"],
            templates=params["templates"],
            concurrency=self.concurrency,
            errors=self.errors,
            budget=self.budget,
            prices=self.prices,
        )

    def _queries(self, queries: str | Iterable[str], n: int) -> list[Query]:
        """What is asked of the decoder; named by text, so that a picture depends on no other query."""
        temperature = self.ready().params["temperature"]
        count("n", n)
        if n > 1 and not temperature:
            raise UsageError(f"n={n} pictures of one text need a temperature above 0, else all are the same; try 0.5")
        texts = as_texts([queries] if isinstance(queries, str) else queries)
        same = [composed(text) for text in texts]
        twice = next((text for text in texts if same.count(composed(text)) > 1), None)
        if twice is not None:
            raise UsageError(f"the query {twice!r} is given twice; use n=2 for two pictures of it")
        return [Query(text, name=f"{text} #{number}") for text in texts for number in range(1, n + 1)]

    def _session(self, queries: list[Query]) -> DrawingSession:
        fitted = self.fitted
        return DrawingSession(self._decoder(fitted), fitted.tokenizer, list(fitted.kept), queries, fitted.filling)
