"""A denoiser as it was fitted: what is decoded how, which examples a puzzle is shown, how a call goes, what it gives.

What is not told is decided by the size of the tokenizer's vocabulary. In a vocabulary of thousands hardly a word of one
photograph stands in another one, and within a photograph hardly a word stands twice (spae-photo-128: 97 of 100 words of
a layer are different ones). What other pictures have at a place then says nothing, and the only words to be had are the
condition's own. A vocabulary of dozens, as the digits' 64 patterns, is shared by all pictures, and places say much.

Knows: options, words of examples, run folders of a call. Refuses to know: how pictures are handed in and degraded
(``denoise.puzzles``), how a segment is asked for (``drawing``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from icl_vision.asking.plan import Plan
from icl_vision.codebook import Codebook
from icl_vision.contracts import TextLLM, Tokenizer, Usage
from icl_vision.drawing.corruption import check_rates
from icl_vision.drawing.drawing import Drawing, Pair, SegmentDrawn
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.drawing.stages import Allowed, Decoding
from icl_vision.errors import UsageError
from icl_vision.llms import Budget
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.base import Fitted
from icl_vision.tasks.denoise.clip_tasks import any_task, task_for
from icl_vision.tasks.denoise.plan import DenoisingStages, Refine, decided_by, denoising_plan, denoising_stages
from icl_vision.tasks.denoise.puzzles import Context, Puzzle, PuzzleMaker, number_of, pixels_of_decoded
from icl_vision.tasks.denoise.tasks import Alignment, DenoisingTask, Pixels
from icl_vision.tokenizers.taking import takes_clips
from icl_vision.tokenizers.wrapping import whole

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.tokenizers.pixels import Preprocessing

LARGE = 1000
"""Words; see above."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values for the arguments of ``ImageDenoiser`` of the same names that were left at None."""

    allowed: Allowed
    refine: Refine
    guidance: float
    most_uses: int | None

    @classmethod
    def of(cls, task: DenoisingTask, *, words: int, own: bool, leaking: bool, whole: bool, scores: bool) -> Defaults:
        """The defaults.

        Args:
            words: of the tokenizer's vocabulary.
            own: whether the condition's words may be answered.
            leaking: whether the examples are copies of the query's target, whose words they then share.
            whole: whether prompts show the whole condition.
            scores: whether the LLM gives log-probabilities, which guidance needs.
        """
        if words < LARGE or leaking or not own:
            return cls("place", "agnostic", task.guidance if scores else 1.0, None)
        # Where a part is missing it is continued from the others; else each place has a word of the condition.
        partial = task.partial
        return cls("own" if partial else "shown", "agnostic" if partial or whole else "task", 1.0, 1)


def parts_of(
    params: Mapping[str, Any], llm: TextLLM, tokenizer: Tokenizer, *, single_pass: bool = False
) -> DenoisingStages:
    """What is decoded how: as was asked for, and by ``Defaults`` where nothing was."""
    defaults = Defaults.of(
        task_for(params["task"], clips=takes_clips(tokenizer)),
        words=0 if tokenizer.vocabulary is None else len(tokenizer.vocabulary),
        own=params["own"],
        leaking=params["protocol"] == "paper",
        whole=params["window"] == "all",
        scores=llm.profile.scores_text and params["constrain"] != "never",
    )
    asked = {name: params[name] for name in ("allowed", "refine", "guidance", "most_uses")}
    chosen = replace(defaults, **{name: value for name, value in asked.items() if value is not None})
    return denoising_stages(
        tokenizer.layout,
        layers=params["layers"],
        stride=params["stride"],
        window=params["window"],
        refine=chosen.refine,
        allowed=chosen.allowed,
        decoding=Decoding(
            params["temperature"],
            params["seed"],
            params["longest_run"],
            guidance=chosen.guidance,
            most_uses=chosen.most_uses,
        ),
        single_pass=single_pass,
    )


def keeps_known(params: Mapping[str, Any]) -> bool:
    """Whether words that stand for known pixels only are kept."""
    told = params["keep_known"]
    return bool(any_task(params["task"]).keep_known if told is None else told)


def maker_of(
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    parts: DenoisingStages,
    alignment: Alignment,
    *,
    shuffled: bool = False,
) -> PuzzleMaker:
    """What makes puzzles and their examples."""
    return PuzzleMaker(
        task_for(params["task"], clips=takes_clips(tokenizer)),
        tokenizer,
        parts,
        corruption=check_rates(params["corruption"]),
        alignment=alignment,
        keep_known=keeps_known(params),
        own=params["own"],
        degrade=params["degrade"],
        shuffled=shuffled,
        seed=params["seed"],
    )


LEAK = "the context holds corrupted copies of the answer itself (the papers' protocol)"


@dataclass(frozen=True, slots=True)
class DenoisedImage:
    """One restored picture.

    ``image``, ``condition`` and ``merged`` have the photograph's own shape where the tokenizer squashed it into a
    square; of a tokenizer that crops they are the middle that it took.

    decoded: from ``pyramid``, as the tokenizer makes it (of a clip: its frames); None where ``error`` says why. puzzle:
    what was asked. drawing: every segment's words, changes and usage. decided: by layer, whose words they are. leaking:
    the context held the answer. preprocessing: how the tokenizer took the photograph, None where it does not say.

    Of a clip ``clip``, ``clip_condition`` and ``clip_merged`` are the frames; it has no ``image``.
    """

    puzzle: Puzzle
    task: str
    protocol: str
    decoded: Image.Image | list[Image.Image] | None
    pyramid: TokenPyramid | None
    drawing: Drawing
    decided: tuple[str, ...]
    leaking: bool
    error: Exception | None = None
    preprocessing: Preprocessing | None = None

    @property
    def is_clip(self) -> bool:
        """Whether a clip was restored."""
        return self.puzzle.shown.ndim == 4

    @property
    def image(self) -> Image.Image | None:
        """The restored picture; None where ``error`` says why. Raises UsageError for a clip."""
        return None if self.decoded is None else self._picture(pixels_of_decoded(self.decoded))

    @property
    def condition(self) -> Image.Image:
        """What the LLM was shown, as a picture. Raises UsageError for a clip."""
        return self._picture(self.puzzle.shown)

    @property
    def merged(self) -> Image.Image | None:
        """The condition with its unknown region taken from ``image``; ``image`` itself where all is unknown. Raises
        UsageError for a clip."""
        pixels = self._merged()
        return None if pixels is None else self._picture(pixels)

    @property
    def clip(self) -> list[Image.Image] | None:
        """The restored clip, frame by frame; None where ``error`` says why. Raises UsageError for a picture."""
        return None if self.decoded is None else self._frames(pixels_of_decoded(self.decoded))

    @property
    def clip_condition(self) -> list[Image.Image]:
        """What the LLM was shown, frame by frame. Raises UsageError for a picture."""
        return self._frames(self.puzzle.shown)

    @property
    def clip_merged(self) -> list[Image.Image] | None:
        """As ``merged``, of a clip."""
        pixels = self._merged()
        return None if pixels is None else self._frames(pixels)

    def _merged(self) -> Pixels | None:
        if self.decoded is None:
            return None
        merged, pixels = self.puzzle.shown.copy(), pixels_of_decoded(self.decoded)
        region = task_for(self.task, clips=self.is_clip).region(merged.shape)
        merged[region] = pixels[region]
        return merged

    def _picture(self, pixels: Pixels) -> Image.Image:
        from PIL import Image

        if self.is_clip:
            raise UsageError("this is a clip, which has no one image; take clip, clip_condition or clip_merged")
        return self._in_shape(Image.fromarray(pixels))

    def _frames(self, pixels: Pixels) -> list[Image.Image]:
        from PIL import Image

        if not self.is_clip:
            raise UsageError("this is a picture, not a clip; take image, condition or merged")
        return [self._in_shape(Image.fromarray(frame)) for frame in pixels]

    def _in_shape(self, picture: Image.Image) -> Image.Image:
        if self.preprocessing is None or self.puzzle.size is None:
            return picture
        restore = getattr(self.preprocessing, "restore", None)  # a tokenizer of a user's may have a rule of its own
        return picture if restore is None else restore(picture, self.puzzle.size)

    @property
    def usage(self) -> Usage:
        """Requests and tokens."""
        return self.drawing.usage

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without pixels."""
        return {
            "name": self.puzzle.name,
            "task": self.task,
            "protocol": self.protocol,
            "leaking": self.leaking,
            "words": None if self.pyramid is None else [self.pyramid.words(n + 1) for n in range(self.pyramid.layers)],
            "kept_words": len(self.puzzle.query.known),
            "decided": list(self.decided),
            "constrained": self.drawing.constrained,
            "changes": [change.to_dict() for change in self.drawing.changes],
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }


@dataclass(frozen=True, kw_only=True)
class FittedDenoiser(Fitted):
    """What an ``ImageDenoiser`` was fitted with. parts: how words are asked for. maker: makes puzzles and examples."""

    kept: Context
    parts: DenoisingStages
    maker: PuzzleMaker

    @classmethod
    def of(
        cls,
        params: Mapping[str, Any],
        llm: TextLLM,
        tokenizer: Tokenizer,
        context: Context,
        *,
        single_pass: bool = False,
        shuffled: bool = False,
    ) -> Self:
        """The denoiser of these options and this context. single_pass, shuffled: see ``ImageDenoiser``.

        Raises:
            UsageError: a context whose words are not those that these options ask for.
        """
        parts = parts_of(params, llm, tokenizer, single_pass=single_pass)
        wanted = parts.layout, tokenizer.layout.truncate(parts.layers) if parts.whole else tokenizer.layout
        for pair in context.pairs:
            assert isinstance(pair.condition, TokenPyramid)
            if (pair.target.layout, pair.condition.layout) != wanted:
                raise UsageError(
                    f"the examples' words ({pair.condition.layout}, {pair.target.layout}) are not those that these "
                    f"options ask for ({wanted[1]}, {wanted[0]})"
                )
        if not context.pairs and params["protocol"] != "paper":
            raise UsageError("leak-free denoising needs context images; there are none")
        maker = maker_of(params, tokenizer, parts, context.alignment, shuffled=shuffled)
        return cls(params=params, llm=llm, tokenizer=tokenizer, kept=context, parts=parts, maker=maker)

    @property
    def leaking(self) -> bool:
        """Whether the examples hold the answer."""
        return bool(self.params["protocol"] == "paper")

    def pairs_for(self, puzzle: Puzzle) -> list[Pair]:
        """The examples that a puzzle is shown, in order."""
        return self.maker.leaking_pairs(puzzle, self.params["context"]) if self.leaking else list(self.kept.pairs)

    def decoder(self, *, max_tokens: int | None, **options: Any) -> ProgressiveDecoder:
        """What draws in one call. options: those of ``ProgressiveDecoder`` that the call decides."""
        tokenizer, book = self.tokenizer, None
        if tokenizer.codebook is not None and tokenizer.vocabulary is not None:
            book = Codebook(tokenizer.vocabulary, tokenizer.codebook, name=tokenizer.name)
        return ProgressiveDecoder(
            self.llm,
            self.parts.stages,
            constrain=self.params["constrain"],
            codebook=book,
            budget=None if max_tokens is None else Budget(tokens=max_tokens),
            **options,
        )

    def plan(self, decoder: ProgressiveDecoder, puzzles: Sequence[Puzzle], max_tokens: int | None) -> Plan:
        """What restoring these would send; at least one."""
        return denoising_plan(
            [decoder.plan(pairs, [puzzle.query for puzzle in some]) for pairs, some in self._shared(puzzles)],
            task=self.maker.task.name,
            protocol=self.params["protocol"],
            leaking=self.leaking,
            decided=self._decided(puzzles[0]),
            max_tokens=max_tokens,
        )

    async def restore(
        self,
        decoder: ProgressiveDecoder,
        puzzles: Sequence[Puzzle],
        out: str | os.PathLike[str] | None,
        resume: bool,
        watch: Callable[[SegmentDrawn], object] | None,
    ) -> list[DenoisedImage]:
        """Restore these; see ``ImageDenoiser.denoise`` and ``solve``."""
        if out is not None and resume:
            # Before the first request: with protocol "paper" every picture has a folder of its own, and pictures that
            # are not asked for now have used some of the budget too.
            await asyncio.to_thread(decoder.count_spent, out, "words*")
        drawn: list[tuple[Puzzle, Drawing]] = []
        for pairs, some in await asyncio.to_thread(self._shared, puzzles):
            queries = [puzzle.query for puzzle in some]
            if out is None:
                drawings = await decoder.decode(pairs, queries, on_segment=watch)
            else:
                folder = Path(out) / (f"words-{number_of(some[0].name):08x}" if self.leaking else "words")
                run = await asyncio.to_thread(decoder.open_run, folder, pairs, resume=resume)
                try:
                    drawings = await decoder.decode(pairs, queries, run=run, on_segment=watch)
                finally:
                    await asyncio.shield(asyncio.to_thread(run.close))
            drawn += zip(some, drawings, strict=True)
        return await asyncio.to_thread(lambda: [self._restored(puzzle, drawing) for puzzle, drawing in drawn])

    def _shared(self, puzzles: Sequence[Puzzle]) -> list[tuple[list[Pair], list[Puzzle]]]:
        """Puzzles by the examples they share."""
        if not self.leaking:
            return [(list(self.kept.pairs), list(puzzles))]
        return [(self.pairs_for(puzzle), [puzzle]) for puzzle in puzzles]

    def _decided(self, puzzle: Puzzle) -> tuple[str, ...]:
        return decided_by(self.parts, puzzle.query, len(self.tokenizer.layout))

    def _restored(self, puzzle: Puzzle, drawing: Drawing) -> DenoisedImage:
        """The picture of a drawing that has all its words, or its error."""
        restored = DenoisedImage(
            puzzle,
            self.maker.task.name,
            self.params["protocol"],
            None,
            None,
            drawing,
            self._decided(puzzle),
            self.leaking,
            drawing.error,
            whole(self.tokenizer).preprocessing,
        )
        if drawing.error is not None:
            return restored
        pyramid = drawing.pyramid
        return replace(restored, decoded=self.tokenizer.decode([pyramid])[0], pyramid=pyramid)
