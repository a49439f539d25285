"""Restoring pictures with a frozen text LLM: the denoising of SPAE (section 4.3), with and without its leak.

Knows: the order of the line (pictures, degraded pictures, words, examples, segments, picture) and what a user may set.
Refuses to know: how a segment is asked for (``drawing``), what a task does to pixels (``denoise.tasks``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np

from icl_vision.codebook import Codebook
from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.drawing.corruption import PAPER_RATES, check_rates
from icl_vision.drawing.drawing import Drawing, Pair
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.drawing.stages import Allowed, Decoding
from icl_vision.drawing.work import SegmentDrawn
from icl_vision.errors import NotFittedError, UsageError
from icl_vision.images import ImageSource
from icl_vision.llms import Budget, connect
from icl_vision.llms.loop import hop, run_sync
from icl_vision.tasks.checks import as_sources, check_choice, check_count, check_flag, check_number
from icl_vision.tasks.denoise.alignment import Alignment
from icl_vision.tasks.denoise.defaults import Defaults
from icl_vision.tasks.denoise.plan import DenoisingPlan, DenoisingStages, Refine, decided_by, denoising_stages
from icl_vision.tasks.denoise.puzzles import Puzzle, PuzzleMaker, number_of, pixels_and_sizes, pixels_of
from icl_vision.tasks.denoise.results import DenoisedImage
from icl_vision.tasks.denoise.tasks import DenoisingTask, find_task
from icl_vision.tasks.draw.checks import drawing_tokenizer
from icl_vision.tasks.params import Parameters
from icl_vision.tokenizers.wrapping import whole

Protocol = Literal["leak-free", "paper"]
PROTOCOLS = ("leak-free", "paper")


class ImageDenoiser(Parameters):
    """Restores pictures by showing an LLM degraded and intact ones, all as words.

    Args:
        llm: what answers: a ``connect`` string or any ``TextLLM``.
        tokenizer: one that decodes: a name or folder, as for ``ImageTokenizer.from_pretrained``, or a tokenizer.
        task: "outpainting", "inpainting", "deblurring", "translation", "rotation" or "reconstruction".
        protocol: "leak-free" shows other pictures. "paper" shows corrupted copies of the query's own target, so that
            the answer stands in the prompt; results carry ``leaking=True``.
        layers: that the LLM decides with the condition; None for those of the first 85 words. See ``refine``.
        stride: words asked for at a time there; None for a row of the layer's grid.
        window: what those prompts show: "near" or "all"; see ``denoising_stages``.
        refine: the deeper layers: "agnostic", "task" or "none"; see ``denoising_stages``. For None, here and below, see
            ``denoise.defaults``.
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
        single_pass: ask for all words of the first stage at once (the baseline that the papers report to fail).
        shuffled: a control: each layer of every example's target in random order.

    The constructor only stores; ``fit`` checks. After ``fit``: ``task_``, ``tokenizer_``, ``llm_``, ``parts_``,
    ``alignment_``.
    """

    task_: DenoisingTask
    tokenizer_: Tokenizer
    llm_: TextLLM
    parts_: DenoisingStages
    alignment_: Alignment

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "spae-photo-128",
        task: str = "outpainting",
        *,
        protocol: Protocol = "leak-free",
        layers: int | None = None,
        stride: int | None = None,
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
        single_pass: bool = False,
        shuffled: bool = False,
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
        self.single_pass = single_pass
        self.shuffled = shuffled

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
        task = self._check()
        sources = as_sources(images, single=False)
        tokenizer, llm = drawing_tokenizer(self.tokenizer), connect(self.llm)
        chosen = self._chosen(task, tokenizer, llm)
        parts = denoising_stages(
            tokenizer.layout,
            layers=self.layers,
            stride=self.stride,
            window=self.window,
            refine=chosen.refine,
            allowed=chosen.allowed,
            decoding=Decoding(
                self.temperature,
                self.seed,
                self.longest_run,
                guidance=chosen.guidance,
                most_uses=chosen.most_uses,
            ),
            single_pass=self.single_pass,
        )
        self._pictures = pixels_of(tokenizer, [] if self.leaking else self._drawn(sources))
        self.alignment_ = Alignment()
        square = all(rows == columns for rows, columns in tokenizer.layout.grids)
        if self.align and square and not self._keeps(task):
            self.alignment_ = Alignment.of([task.degrade(picture) for picture in self._pictures], self._pictures)
        self.llm_, self.task_, self.tokenizer_, self.parts_ = llm, task, tokenizer, parts
        self._pairs = self._maker.leak_free_pairs(self._pictures)
        self._fitted = self.get_params()
        return self

    @property
    def pairs_(self) -> list[Pair]:
        """The leak-free examples, in the order shown; their corruption falls."""
        self._check_fitted()
        return list(self._pairs)

    # Restoring.

    def puzzles(self, images: ImageSource | Iterable[ImageSource], names: Sequence[str] | None = None) -> list[Puzzle]:
        """What would be asked about each picture: its condition, its words, the known ones.

        names: for reports and run folders; None numbers the pictures.

        Raises:
            NotFittedError, ImageError.
            UsageError: names that do not fit, or a picture that is in the context too (leak-free).
        """
        self._check_fitted()
        found = pixels_and_sizes(self.tokenizer_, as_sources(images, single=True))
        pictures, sizes = [pixels for pixels, _ in found], [size for _, size in found]
        return self._maker.puzzles(pictures, names, self._pictures, sizes)

    def plan(self, images: ImageSource | Iterable[ImageSource], names: Sequence[str] | None = None) -> DenoisingPlan:
        """What ``denoise`` would send and cost, and who decides which words; nothing is asked.

        Raises:
            As ``puzzles``; UsageError for no images.
        """
        return self.plan_of(self.puzzles(images, names))

    def plan_of(self, puzzles: Sequence[Puzzle]) -> DenoisingPlan:
        """``plan`` of puzzles that are made already."""
        if not puzzles:
            raise UsageError("there is nothing to restore: give at least one image")
        decoder = self._decoder()
        parts = tuple(decoder.plan(pairs, [one.query for one in some]) for pairs, some in self._jobs(puzzles))
        decided = decided_by(self.parts_, puzzles[0].query, len(self.tokenizer_.layout))
        return DenoisingPlan(self.task_.name, self.protocol, self.leaking, parts, decided, self.max_tokens)

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
        self._check_fitted()
        return run_sync(self._denoise(puzzles, out, resume, watch))

    @property
    def leaking(self) -> bool:
        """Whether the context holds the answer."""
        return self.protocol == "paper"

    def pairs_for(self, puzzle: Puzzle) -> list[Pair]:
        """The examples that a puzzle is shown, in order."""
        if not self.leaking:
            return list(self._pairs)
        return self._maker.leaking_pairs(puzzle, self.context or 1)

    # Steps.

    @property
    def _maker(self) -> PuzzleMaker:
        return PuzzleMaker(
            self.task_,
            self.tokenizer_,
            self.parts_,
            corruption=check_rates(self.corruption),
            alignment=self.alignment_,
            keep_known=self._keeps(self.task_),
            own=self.own,
            degrade=self.degrade,
            shuffled=self.shuffled,
            seed=self.seed,
        )

    def _check(self) -> DenoisingTask:
        task = find_task(self.task)
        check_choice("protocol", self.protocol, PROTOCOLS)
        check_choice("errors", self.errors, ("raise", "return"))
        check_count("context", self.context, least=1, none="all context images")
        check_count("seed", self.seed, least=0)
        if self.stride is not None and not (type(self.stride) is int and self.stride >= 1):
            raise UsageError(f"stride must be 1 or more words, or None for rows; got {self.stride!r}")
        check_count("concurrency", self.concurrency, least=1, none="as many as the LLM bears")
        check_number("temperature", self.temperature)
        check_number("guidance", self.guidance, none="as the task needs")
        check_count("max_tokens", self.max_tokens, least=1, none="no limit")
        check_flag("keep_known", self.keep_known, none=True)
        check_flag("own", self.own)
        check_flag("align", self.align)
        check_flag("degrade", self.degrade)
        check_flag("single_pass", self.single_pass)
        check_flag("shuffled", self.shuffled)
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
        return task

    def _chosen(self, task: DenoisingTask, tokenizer: Tokenizer, llm: TextLLM) -> Defaults:
        """What was asked for, and what to do where nothing was."""
        found = Defaults.of(
            task,
            words=0 if tokenizer.vocabulary is None else len(tokenizer.vocabulary),
            own=self.own,
            leaking=self.leaking,
            whole=self.window == "all",
            scores=llm.profile.scores_text and self.constrain != "never",
        )
        asked = {name: getattr(self, name) for name in ("allowed", "refine", "guidance", "most_uses")}
        return replace(found, **{name: value for name, value in asked.items() if value is not None})

    def _keeps(self, task: DenoisingTask) -> bool:
        return task.keep_known if self.keep_known is None else self.keep_known

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
        places = np.random.default_rng([self.seed, 1]).permutation(len(sources))[:wanted]
        return [sources[place] for place in sorted(places.tolist())]

    def _jobs(self, puzzles: Sequence[Puzzle]) -> list[tuple[list[Pair], list[Puzzle]]]:
        """Puzzles that share their examples."""
        if not self.leaking:
            return [(list(self._pairs), list(puzzles))]
        return [(self.pairs_for(puzzle), [puzzle]) for puzzle in puzzles]

    def _decoder(self) -> ProgressiveDecoder:
        tokenizer = self.tokenizer_
        book = None
        if tokenizer.codebook is not None and tokenizer.vocabulary is not None:
            book = Codebook(tokenizer.vocabulary, tokenizer.codebook, name=tokenizer.name)
        return ProgressiveDecoder(
            self.llm_,
            self.parts_.stages,
            constrain=self.constrain,
            codebook=book,
            concurrency=self.concurrency,
            errors=self.errors,
            budget=None if self.max_tokens is None else Budget(tokens=self.max_tokens),
        )

    async def _denoise(
        self,
        puzzles: Sequence[Puzzle],
        out: str | os.PathLike[str] | None,
        resume: bool,
        watch: Callable[[SegmentDrawn], object] | None = None,
    ) -> list[DenoisedImage]:
        if not puzzles:
            return []
        decoder = await asyncio.to_thread(self._planned, puzzles, resume)
        if out is not None and resume:
            # Before the first request: with protocol "paper" every picture has a folder of its own, and pictures that
            # are not asked for now have used some of the budget too.
            await asyncio.to_thread(decoder.count_spent, out, "words*")
        drawings: list[tuple[Puzzle, Drawing]] = []
        for pairs, some in await asyncio.to_thread(self._jobs, puzzles):
            queries = [one.query for one in some]
            if out is None:
                found = await decoder.decode(pairs, queries, on_segment=watch)
            else:
                folder = Path(out) / ("words" if not self.leaking else f"words-{number_of(some[0].name):08x}")
                run = await asyncio.to_thread(decoder.open_run, folder, pairs, resume=resume)
                try:
                    found = await decoder.decode(pairs, queries, run=run, on_segment=watch)
                finally:
                    await asyncio.shield(asyncio.to_thread(run.close))
            drawings += zip(some, found, strict=True)
        return await asyncio.to_thread(self._finish, drawings)

    def _planned(self, puzzles: Sequence[Puzzle], resume: bool) -> ProgressiveDecoder:
        """What draws, once the plan is known to keep to its limit."""
        if self.max_tokens is not None and not resume:
            self.plan_of(puzzles).check()
        return self._decoder()

    def _finish(self, drawings: Sequence[tuple[Puzzle, Drawing]]) -> list[DenoisedImage]:
        """Decode what has all its words."""
        layers = len(self.tokenizer_.layout)
        done = []
        for puzzle, drawing in drawings:
            decided = decided_by(self.parts_, puzzle.query, layers)
            one = DenoisedImage(
                puzzle,
                self.task_.name,
                self.protocol,
                None,
                None,
                drawing,
                decided,
                self.leaking,
                drawing.error,
                whole(self.tokenizer_).preprocessing,
            )
            if drawing.error is None:
                pyramid = drawing.pyramid
                decoded = self.tokenizer_.decode([pyramid])[0]
                one = replace(one, decoded=decoded, pyramid=pyramid)
            done.append(one)
        return done

    def _check_fitted(self) -> None:
        if not hasattr(self, "parts_"):
            raise NotFittedError("call fit(context_images) first (without images for protocol='paper')")
        changed = [
            name
            for name, value in self.get_params().items()
            if name not in ("max_tokens", "errors", "concurrency")
            and value is not self._fitted[name]
            and value != self._fitted[name]
        ]
        if changed:
            raise UsageError(f"set_params changed {', '.join(changed)} of this ImageDenoiser after fit; call fit again")
