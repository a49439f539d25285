"""Drawing with a frozen text LLM: pictures from texts, through words (SPAE, section 4.3).

Knows: the order of the line (examples, words, passes, words, picture) and what a user may set.
Refuses to know: how a segment is asked for (``drawing``), where examples come from (``draw.examples``).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.drawing.drawing import Pair, Query, plurality
from icl_vision.drawing.planning import DrawingPlan
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.drawing.segments import Strides
from icl_vision.drawing.stages import Allowed, Decoding
from icl_vision.errors import NotFittedError, UsageError
from icl_vision.files.runs import Run
from icl_vision.images import ImageSource
from icl_vision.llms import Budget, connect
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.loop import hop, run_sync
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.checks import (
    as_sources,
    check_choice,
    check_count,
    check_flag,
    check_folder,
    check_kind,
    check_name,
    check_number,
)
from icl_vision.tasks.draw.checks import as_texts, drawing_tokenizer, is_list_of_pyramids
from icl_vision.tasks.draw.examples import choose
from icl_vision.tasks.draw.results import GeneratedImage, Preview
from icl_vision.tasks.draw.session import DrawingSession, close, next_of
from icl_vision.tasks.draw.stages import TEMPLATE, Passes, drawing_stages
from icl_vision.tasks.params import Parameters

if TYPE_CHECKING:
    from icl_vision.integrations.langchain import TaskTool

GUIDANCE = 2.0
"""Weight of what the text changes, where it can be had. In trials on other draws, greedy: 75% of 20 digits read right
with 1, 95% with 1.5 to 3, 90% with 5; sampled at 0.5, 85% of 400, 93, 95, 93 and 88%."""


class ImageGenerator(Parameters):
    """Draws pictures from texts by showing an LLM a few pictures with their texts, as words.

    Args:
        llm: what draws: a ``connect`` string ("local", "openai-compatible:MODEL@URL" ...) or any ``TextLLM``.
        tokenizer: one that decodes: a name or folder, as for ``ImageTokenizer.from_pretrained``, or a tokenizer.
        shots: so many examples of each text are shown, drawn by ``seed`` before any query is known; None shows all.
        passes, stride, upper: see ``generation_stages.drawing_stages``. stride=None takes whole layers.
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

    The constructor only stores; ``fit`` checks, and what is changed after it asks for another ``fit``.

    After ``fit``: ``pairs_`` (the examples shown, in order), ``texts_``
    (their distinct texts, sorted), ``llm_``, ``tokenizer_``.

    >>> generator = ImageGenerator().fit(images, texts)  # doctest: +SKIP
    >>> generator.generate(["an image of 3"])[0].image.save("three.png")  # doctest: +SKIP
    """

    pairs_: list[Pair]
    texts_: list[str]
    llm_: TextLLM
    tokenizer_: Tokenizer

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
            images: pictures (paths, bytes, PIL images, arrays), or their words; not both.
            texts: what each is of, one line; pictures of the same text count as examples of the same thing.

        Raises:
            UsageError: an argument (here or in the constructor) that cannot work; the message says which would.
            ImageError: a picture that cannot be used.
            CapabilityError: the LLM cannot do what was asked for.
            ArtefactNotFoundError, LLMSpecError: no such tokenizer or LLM.
        """
        self._check()
        sources = list(images) if is_list_of_pyramids(images) else as_sources(images, single=False)
        names = as_texts(texts)
        if len(sources) != len(names) or not sources:
            raise UsageError(
                f"give one text for each example, and at least one example; got {len(sources)} images and "
                f"{len(names)} texts"
            )
        chosen = choose(names, self.shots, self.seed)
        tokenizer = self._connect_tokenizer()
        some = [sources[place] for place in chosen]
        pyramids = (
            [one for one in some if isinstance(one, TokenPyramid)]
            if isinstance(sources[0], TokenPyramid)
            else tokenizer.encode([one for one in some if not isinstance(one, TokenPyramid)])
        )
        if len(pyramids) != len(some):
            raise UsageError("examples must be all pictures or all words (TokenPyramid); got both")
        self._finish(
            [Pair(names[place], pyramid) for place, pyramid in zip(chosen, pyramids, strict=True)],
            tokenizer,
            self._connect_llm(),
        )
        return self

    def _finish(self, pairs: list[Pair], tokenizer: Tokenizer, llm: TextLLM) -> None:
        layout = pairs[0].target.layout
        if layout != tokenizer.layout or pairs[0].target.vocabulary != tokenizer.vocabulary:
            raise UsageError(
                f"the examples' words ({layout}) are not those of the tokenizer {tokenizer.name!r} ({tokenizer.layout})"
            )
        self._decoder(layout, llm).plan(pairs, [Query(str(pairs[0].condition))])  # refuses what cannot work
        self.pairs_, self.tokenizer_, self.llm_ = pairs, tokenizer, llm
        # Each in the spelling in which it was given first.
        texts = {composed(text): text for text in reversed([str(pair.condition) for pair in pairs])}
        self.texts_ = [texts[one] for one in sorted(texts)]
        self._filling = plurality([pair.target for pair in pairs])
        self._fitted = self.get_params()

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

    def plan(self, queries: str | Iterable[str], n: int = 1, *, run: Run | None = None) -> DrawingPlan:
        """What ``generate`` would send and cost; nothing is asked. run: open; what it has does not count."""
        found = self._queries(queries, n)
        return self._own_decoder().plan(self.pairs_, found, run=run)

    def prompt_for(self, text: str, segment: int = 1) -> str:
        """The prompt of one segment (from 1) of a text; words that are not there yet are the first example's."""
        (query,) = self._queries(text, 1)
        return self._own_decoder().prompt(self.pairs_, query, segment).text

    def __call__(self, queries: str | Iterable[str]) -> Any:
        """The image of one text, or a list of images for several."""
        images = [one.image for one in self.generate(queries)]
        return images[0] if isinstance(queries, str) else images

    def as_tool(
        self,
        name: str = "draw_image",
        description: str | None = None,
        *,
        images: Mapping[str, ImageSource] | None = None,
    ) -> TaskTool:
        """This generator as a LangChain tool: one argument ``text``, an answer in words, and as artifact what
        ``GeneratedImage.to_dict`` gives, with the ``id`` of the picture in ``images``.

        Args:
            name, description: what the agent's model reads; None describes the task by the texts of the examples.
            images: an ``ImageRegistry`` to which each picture is added, so that other tools can name it; None makes
                one.

        Raises:
            NotFittedError: before ``fit``. MissingExtraError: LangChain is not installed.
        """
        from icl_vision.integrations.langchain import generator_tool

        self._check_fitted()
        return generator_tool(self, name, description, images=images)

    # Keeping it.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the options and the examples' words to a JSON file (no images, no keys), whole or not at all.

        Raises:
            NotFittedError: before ``fit``. StorageError: the file cannot be written.
        """
        from icl_vision.tasks.draw.saving import save

        self._check_fitted()
        save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        llm: str | TextLLM | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        templates: str | os.PathLike[str] | None = None,
        trust: bool = False,
    ) -> Self:
        """The generator that ``save`` wrote, fitted.

        Args:
            llm, tokenizer: used instead of those written; needed where they were objects that a name cannot bring back.
            templates: a folder of templates, used instead of the one written, whatever its texts say.
            trust: follow the file's names wherever they lead. Without it only packaged things, ``openai:MODEL`` and
                ``anthropic:MODEL`` are taken from the file; a server, a LangChain model, a path or a hub id is yours
                to pass, since a file from somebody else could name any.

        Raises:
            UntrustedNameError: the file names something that leads elsewhere.
            TemplateError: a template says something else than when the file was saved.
            StorageError: no such file, damaged, or of a version this library does not read.
            ArtefactError: the tokenizer is not the one that made the words (by hash).
        """
        from icl_vision.tasks.draw.saving import load

        return load(cls, path, llm=llm, tokenizer=tokenizer, templates=templates, trust=trust)

    # Steps.

    def _check(self) -> None:
        check_count("shots", self.shots, least=1, none="all examples")
        check_count("upper", self.upper, least=1)
        check_count("seed", self.seed, least=0)
        check_flag("induction", self.induction, none=True)
        check_choice("errors", self.errors, ("raise", "return"))
        check_number("temperature", self.temperature)
        check_number("guidance", self.guidance, auto=True)
        check_count("concurrency", self.concurrency, least=1, none="as many as the LLM bears")
        check_name("template", self.template, "a segment template")
        check_folder("templates", self.templates)
        check_kind("budget", self.budget, Budget, "Budget(requests=100)")
        check_kind("prices", self.prices, PriceTable, "PriceTable.load('prices.yaml')")

    def _decoder(self, layout: Any, llm: TextLLM) -> ProgressiveDecoder:
        stages = drawing_stages(
            layout,
            passes=self.passes,
            stride=self.stride,
            upper=self.upper,
            allowed=self.allowed,
            decoding=Decoding(
                self.temperature, self.seed, self.longest_run, best_of=self.best_of, guidance=self._guidance(llm)
            ),
            template=self.template,
            induction=llm.profile.api != "completions" if self.induction is None else self.induction,
        )
        return ProgressiveDecoder(
            llm,
            stages,
            constrain=self.constrain,
            asks=self.asks,
            fill=self.fill,
            templates=self.templates,
            concurrency=self.concurrency,
            errors=self.errors,
            budget=self.budget,
            prices=self.prices,
        )

    def _connect_llm(self) -> TextLLM:
        return connect(self.llm)

    def _connect_tokenizer(self) -> Tokenizer:
        return drawing_tokenizer(self.tokenizer)

    def _guidance(self, llm: TextLLM) -> float:
        if self.guidance == "auto":
            return GUIDANCE if llm.profile.scores_text and self.constrain != "never" else 1.0
        if isinstance(self.guidance, bool) or not isinstance(self.guidance, int | float):
            raise UsageError(f"guidance must be 'auto' or a number of 0 or more; got {self.guidance!r}")
        return float(self.guidance)

    def _own_decoder(self) -> ProgressiveDecoder:
        self._check_fitted()
        return self._decoder(self.tokenizer_.layout, self.llm_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "pairs_"):
            raise NotFittedError("this ImageGenerator is not fitted yet; call fit(images, texts) first")
        if self.get_params() != self._fitted:
            raise UsageError("set_params changed this ImageGenerator after fit; call fit again")

    def _queries(self, queries: str | Iterable[str], n: int) -> list[Query]:
        """What is asked of the decoder; named by text, so that a picture depends on no other query."""
        self._check_fitted()
        check_count("n", n, least=1)
        if n > 1 and not self.temperature:
            raise UsageError(f"n={n} pictures of one text need a temperature above 0, else all are the same; try 0.5")
        texts = as_texts([queries] if isinstance(queries, str) else queries)
        same = [composed(text) for text in texts]
        twice = next((text for text in texts if same.count(composed(text)) > 1), None)
        if twice is not None:
            raise UsageError(f"the query {twice!r} is given twice; use n=2 for two pictures of it")
        return [Query(text, name=f"{text} #{number}") for text in texts for number in range(1, n + 1)]

    def _session(self, queries: list[Query]) -> DrawingSession:
        return DrawingSession(self._own_decoder(), self.tokenizer_, self.pairs_, queries, self._filling)
