"""Restoring pictures with a frozen text LLM: the denoising of SPAE (section 4.3), with and without its leak.

Knows: the order of the line (pictures, degraded pictures, words, examples, segments, picture) and what a user may set.
Refuses to know: how a segment is asked for (``drawing``), what a task does to pixels (``denoise.tasks``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from icl_vision.asking.plan import Plan
from icl_vision.checks import choice, count, flag, number
from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.drawing.corruption import PAPER_RATES, check_rates
from icl_vision.drawing.drawing import Pair, SegmentDrawn
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.drawing.stages import Allowed, Stride
from icl_vision.errors import UsageError
from icl_vision.images import ImageSource
from icl_vision.llms import Budget
from icl_vision.llms.loop import hop, run_sync
from icl_vision.prompting import template_hashes
from icl_vision.tasks.base import Task
from icl_vision.tasks.denoise.clip_tasks import any_task, task_for
from icl_vision.tasks.denoise.fitted import DenoisedImage, FittedDenoiser, keeps_known, maker_of, parts_of
from icl_vision.tasks.denoise.plan import (
    DenoisingStages,
    Refine,
    check_stride,
)
from icl_vision.tasks.denoise.puzzles import (
    Context,
    Puzzle,
    clip_sources,
    digest_of,
    pixels_and_sizes,
    pixels_of,
)
from icl_vision.tasks.denoise.tasks import Alignment, DenoisingTask
from icl_vision.tasks.inputs import as_sources
from icl_vision.tasks.saving import SavedForm
from icl_vision.tasks.tools import Tool, restoring
from icl_vision.tokenizers.taking import takes_clips

Protocol = Literal["leak-free", "paper"]
PROTOCOLS = ("leak-free", "paper")
TEMPLATES = ("progressive", "refinement")
"""Those that its stages ask with."""


class ImageDenoiser(Task[FittedDenoiser]):
    """Restores pictures by showing an LLM degraded and intact ones, all as words.

    Args:
        llm: what answers: a ``connect`` string or any ``TextLLM``.
        tokenizer: one that decodes: a name or folder, as for ``ImageTokenizer.from_pretrained``, or a tokenizer.
        task: "outpainting", "inpainting", "deblurring", "translation", "rotation" or "reconstruction"; of clips
            "prediction", "filling", "outpainting", "inpainting", "deblurring" or "reconstruction".
        protocol: "leak-free" shows other pictures. "paper" shows corrupted copies of the query's own target, so that
            the answer stands in the prompt; results carry ``leaking=True``.
        layers: that the LLM decides with the condition; None for those of the first 85 words. See ``refine``.
        stride: words asked for at a time there; "rows" for a row of the layer's grid, None for a whole layer.
        window: what those prompts show: "near" or "all"; see ``denoising_stages``.
        refine: the deeper layers: "agnostic", "task" or "none"; see ``denoising_stages``. For None, here and below, see
            ``denoise.fitted``.
        context: examples in each prompt. Of more context pictures so many are drawn by ``seed``; None shows all.
        corruption: share of random words in the first and the last example's condition (in its target, with
            protocol "paper"). The query of "reconstruction" has the last rate.
        keep_known: keep the condition's words wherever they stand for known pixels only. None: True for outpainting
            and inpainting, where part of the picture is intact; False elsewhere.
        allowed: words that may be answered: those of the condition that the segment is "shown", all of the query's
            "own" on that layer (the known ones, where some are), or those the examples have at that "place", on that
            "layer", anywhere ("context"), or the whole "vocabulary". For the deeper layers "place" is widened to
            "layer": a request then asks for a row, not for a word.
        own: with "place", "layer" and "context", allow the query's own too.
        align: show a condition's words where they belong in the intact picture, by the turn, mirroring and shift under
            which the context pictures' degraded and intact forms agree (leak-free, from four pictures on, and where no
            words are kept).
        degrade: images given to ``denoise`` are intact and the task is done to them first; False: they are degraded
            already (leak-free only, and not for "reconstruction").
        guidance: weight of what the condition changes in the LLM's probabilities in the first stage; 1 takes them as
            they are, more makes the condition count for more at several times the requests (log-probabilities are
            needed).
        most_uses: so often the LLM may write one word on a layer, in a segment and those it is shown.
        temperature, longest_run: see ``icl_vision.drawing.Decoding``.
        constrain: see ``ProgressiveDecoder``.
        max_tokens: stop before more prompt and answer tokens than this, for one call of ``denoise``.
        concurrency: requests at the same time; None leaves it to the LLM.
        errors: a picture whose words cannot be read: "raise", or "return" it with its ``error``.
        seed: of corruption, draws and sampling.

    The constructor only stores; ``fit`` checks. What is changed afterwards holds from the next ``fit`` on, but for
    ``concurrency``, ``errors`` and ``max_tokens``, which each call reads.

    After ``fit``: ``pairs_``, ``task_``, ``tokenizer_``, ``llm_``, ``parts_``, ``alignment_``.
    """

    form = SavedForm(
        "icl_vision.ImageDenoiser",
        1,
        {"examples": list, "pictures": list, "alignment": dict},
        "denoiser",
        otherwise="restore something else",
    )
    how_to_fit = "fit(context_images), without images for protocol='paper',"
    decodes = True

    # Controls, which are no way to restore: what is measured sets them in a class of its own.
    _single_pass: ClassVar[bool] = False
    """Ask for all words of the first stage at once (the baseline that the papers report to fail)."""
    _shuffled: ClassVar[bool] = False
    """Put each layer of every example's target in random order."""

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "spae-photo-128",
        task: str = "outpainting",
        *,
        protocol: Protocol = "leak-free",
        layers: int | None = None,
        stride: Stride = "rows",
        window: Literal["near", "all"] = "near",
        refine: Refine | None = None,
        context: int | None = 10,
        corruption: tuple[float, float] = PAPER_RATES,
        keep_known: bool | None = None,
        allowed: Allowed | None = None,
        own: bool = True,
        align: bool = True,
        degrade: bool = True,
        guidance: float | None = None,
        temperature: float = 0.0,
        longest_run: int | None = None,
        most_uses: int | None = None,
        constrain: Literal["auto", "always", "never"] = "auto",
        max_tokens: int | None = None,
        concurrency: int | None = None,
        errors: Literal["raise", "return"] = "raise",
        seed: int = 0,
    ) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.task = task
        self.protocol = protocol
        self.layers = layers
        self.stride = stride
        self.window = window
        self.refine = refine
        self.context = context
        self.corruption = corruption
        self.keep_known = keep_known
        self.allowed = allowed
        self.own = own
        self.align = align
        self.degrade = degrade
        self.guidance = guidance
        self.temperature = temperature
        self.longest_run = longest_run
        self.most_uses = most_uses
        self.constrain = constrain
        self.max_tokens = max_tokens
        self.concurrency = concurrency
        self.errors = errors
        self.seed = seed

    # The context.

    def fit(self, images: Iterable[ImageSource] = ()) -> Self:
        """Choose the context pictures and turn them into words, once.

        Args:
            images: intact pictures; for protocol "paper" none are needed and none are used.

        Raises:
            UsageError: an argument (here or in the constructor) that cannot work.
            ImageError: a picture that cannot be used.
            ArtefactNotFoundError, LLMSpecError: no such tokenizer or LLM.
        """
        self.check()
        llm, tokenizer, params = self._connect_llm(), self._connect_tokenizer(), self.get_params()
        sources = clip_sources(images) if takes_clips(tokenizer) else as_sources(images, single=False)
        parts = parts_of(params, llm, tokenizer, single_pass=self._single_pass)
        context = Context()
        if self.protocol != "paper":
            pictures = pixels_of(tokenizer, self._drawn(sources))
            alignment, task = Alignment(), task_for(self.task, clips=takes_clips(tokenizer))
            square = all(len(grid) == 2 and grid[0] == grid[1] for grid in tokenizer.layout.grids)
            if self.align and square and not keeps_known(params):
                alignment = Alignment.of([task.degrade(picture) for picture in pictures], pictures)
            maker = maker_of(params, tokenizer, parts, alignment, shuffled=self._shuffled)
            context = Context(tuple(maker.leak_free_pairs(pictures)), tuple(map(digest_of, pictures)), alignment)
        self._fitted = self._assembled(llm, tokenizer, context)
        return self

    def _assembled(self, llm: TextLLM, tokenizer: Tokenizer, kept: Context) -> FittedDenoiser:
        controls = {"single_pass": self._single_pass, "shuffled": self._shuffled}
        return FittedDenoiser.of(self._params_now(), llm, tokenizer, kept, **controls)

    @property
    def pairs_(self) -> list[Pair]:
        """The leak-free examples, in the order shown; their corruption falls."""
        return list(self.fitted.kept.pairs)

    @property
    def task_(self) -> DenoisingTask:
        """What is undone."""
        return self.fitted.maker.task

    @property
    def parts_(self) -> DenoisingStages:
        """What is decoded how."""
        return self.fitted.parts

    @property
    def alignment_(self) -> Alignment:
        """How the task moves pictures, as learned from the context."""
        return self.fitted.kept.alignment

    # Restoring.

    def puzzles(self, images: ImageSource | Iterable[ImageSource], names: Sequence[str] | None = None) -> list[Puzzle]:
        """What would be asked about each picture: its condition, its words, the known ones.

        names: for reports and run folders; None numbers the pictures.

        Raises:
            NotFittedError, ImageError.
            UsageError: names that do not fit, or a picture that is in the context too (leak-free).
        """
        fitted = self.ready()
        clips = takes_clips(fitted.tokenizer)
        measured = pixels_and_sizes(
            fitted.tokenizer, clip_sources(images) if clips else as_sources(images, single=True)
        )
        pictures, sizes = [pixels for pixels, _ in measured], [size for _, size in measured]
        return fitted.maker.puzzles(pictures, names, fitted.kept.pictures, sizes)

    def plan(self, images: ImageSource | Iterable[ImageSource], names: Sequence[str] | None = None) -> Plan:
        """What ``denoise`` would send and cost, and who decides which words; nothing is asked.

        Raises:
            As ``puzzles``; UsageError for no images.
        """
        return self.plan_of(self.puzzles(images, names))

    def plan_of(self, puzzles: Sequence[Puzzle]) -> Plan:
        """``plan`` of puzzles that are made already."""
        if not puzzles:
            raise UsageError("there is nothing to restore: give at least one image")
        fitted = self.ready()
        return fitted.plan(self._decoder(fitted), puzzles, self.max_tokens)

    def denoise(
        self,
        images: ImageSource | Iterable[ImageSource],
        names: Sequence[str] | None = None,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> list[DenoisedImage]:
        """Restore pictures.

        Args:
            images: one or several, see ``degrade``.
            names: for reports and run folders; None numbers them.
            out: a folder that keeps every segment as soon as it is answered.
            resume: go on with what is there; nothing answered is asked again.

        Raises:
            NotFittedError: before ``fit``. UsageError: as ``puzzles``. RunError: the folder cannot be used.
            BudgetExceededError: ``max_tokens`` does not allow it (before anything is asked) or the next request.
            PromptTooLongError, LLMError: the LLM cannot answer.
            AnswerRefusedError: words could not be read, with ``errors="raise"``.
        """
        return run_sync(self._denoise(self.puzzles(images, names), out, resume))

    async def adenoise(
        self,
        images: ImageSource | Iterable[ImageSource],
        names: Sequence[str] | None = None,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> list[DenoisedImage]:
        """``denoise`` as a coroutine, for any event loop."""
        puzzles = await asyncio.to_thread(self.puzzles, images, names)
        return await hop(self._denoise(puzzles, out, resume))

    def solve(
        self,
        puzzles: Sequence[Puzzle],
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        watch: Callable[[SegmentDrawn], object] | None = None,
    ) -> list[DenoisedImage]:
        """``denoise`` of puzzles that are made already. watch: called after every segment, for a progress bar."""
        self.ready()
        return run_sync(self._denoise(puzzles, out, resume, watch))

    @property
    def leaking(self) -> bool:
        """Whether the context holds the answer: as fitted, and before that, as it is set."""
        return self.protocol == "paper" if self._fitted is None else self._fitted.leaking

    def pairs_for(self, puzzle: Puzzle) -> list[Pair]:
        """The examples that a puzzle is shown, in order."""
        return self.fitted.pairs_for(puzzle)

    # Keeping it: how is ``Task``'s, what is here.

    def _tool(self) -> Tool:
        return restoring(self)

    def _kept_to_dict(self) -> dict[str, Any]:
        return self.fitted.kept.to_dict()

    @classmethod
    def _kept_from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Context:
        return Context.from_dict(document, tokenizer)

    @classmethod
    def _params_of(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        # JSON has lists only: as it was told, so that what is loaded reads, and is written, like what was saved.
        rates = params.get("corruption")
        return {**params, "corruption": tuple(rates)} if isinstance(rates, list) else dict(params)

    @classmethod
    def _template_hashes(cls, params: Mapping[str, Any]) -> dict[str, str]:
        return {name: digest for template in TEMPLATES for name, digest in template_hashes(template).items()}

    # Steps.

    def _check(self) -> None:
        task = any_task(self.task)
        choice("protocol", self.protocol, PROTOCOLS)
        count("context", self.context, none="all context images")
        count("seed", self.seed, least=0)
        check_stride(self.stride)
        number("temperature", self.temperature)
        number("guidance", self.guidance, none="as the task needs")
        choice("constrain", self.constrain, ("auto", "always", "never"))
        flag("keep_known", self.keep_known, none=True)
        flag("own", self.own)
        flag("align", self.align)
        flag("degrade", self.degrade)
        check_rates(self.corruption)
        if self.protocol == "paper" and (not self.degrade or self.context is None):
            raise UsageError(
                "protocol='paper' shows corrupted copies of the answer: it needs intact images (degrade=True) and a "
                "number of copies (context=10)"
            )
        if self.allowed == "own" and not self.own:
            raise UsageError("allowed='own' allows nothing but the condition's own words, which own=False forbids")
        if task.in_words and not self.degrade:
            raise UsageError("task='reconstruction' adds noise to words; images cannot hold it already (degrade=False)")

    def _drawn(self, sources: Sequence[ImageSource]) -> list[ImageSource]:
        """The context pictures, in the order given."""
        if not sources:
            raise UsageError("leak-free denoising needs context images; fit() got none")
        wanted = len(sources) if self.context is None else int(self.context)
        if wanted > len(sources):
            raise UsageError(
                f"context={wanted} examples were asked for and {len(sources)} images given; give more, or set "
                f"context={len(sources)}"
            )
        drawn = np.random.default_rng([self.seed, 1]).permutation(len(sources))[:wanted]
        return [sources[index] for index in sorted(drawn.tolist())]

    def _decoder(self, fitted: FittedDenoiser) -> ProgressiveDecoder:
        return fitted.decoder(max_tokens=self.max_tokens, concurrency=self.concurrency, errors=self.errors)

    async def _denoise(
        self,
        puzzles: Sequence[Puzzle],
        out: str | os.PathLike[str] | None,
        resume: bool,
        watch: Callable[[SegmentDrawn], object] | None = None,
    ) -> list[DenoisedImage]:
        if not puzzles:
            return []
        fitted = self.fitted
        decoder = await asyncio.to_thread(self._decoder, fitted)
        if self.max_tokens is not None and not resume:
            plan = await asyncio.to_thread(fitted.plan, decoder, puzzles, self.max_tokens)
            plan.check(Budget(tokens=self.max_tokens))
        return await fitted.restore(decoder, puzzles, out, resume, watch)
