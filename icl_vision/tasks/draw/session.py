"""One call of an image generator: its queries decoded, kept in a run folder, and turned into pictures as they come.

Knows: a decoder, a run folder, pictures finished and on their way, with their plain form. Refuses to know: options, how
queries and examples are chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Tokenizer, Usage
from icl_vision.drawing.drawing import Drawing, Pair, Query, SegmentDrawn
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.drawing.repair import Change
from icl_vision.pyramid import TokenPyramid

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One drawn picture.

    text: what was asked for. number: from 1, among several pictures of one text. image: decoded from ``pyramid``; both
    None where ``error`` says why. drawing: every segment's words, repairs and usage. frames: of a clip, all of them;
    ``image`` is then the middle one.
    """

    text: str
    number: int
    image: Image.Image | None
    pyramid: TokenPyramid | None
    drawing: Drawing
    error: Exception | None = None
    frames: tuple[Image.Image, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """The repair report: everything that was done to the LLM's answers."""
        return self.drawing.changes

    @property
    def usage(self) -> Usage:
        """Requests and tokens."""
        return self.drawing.usage

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without pixels; ``words`` holds a list per layer."""
        pyramid = self.pyramid
        return {
            "text": self.text,
            "number": self.number,
            "words": None if pyramid is None else [pyramid.words(layer + 1) for layer in range(pyramid.layers)],
            "constrained": self.drawing.constrained,
            "changes": [change.to_dict() for change in self.changes],
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture on its way. query: its place among all that are drawn, from 0. text, number: as in GeneratedImage.
    segment: the one that has just got its words. image: what there is; places without a word show the coarser word
    over them, or the most frequent word of the examples. done: nothing is missing. frames: as in GeneratedImage."""

    query: int
    text: str
    number: int
    segment: SegmentDrawn
    image: Image.Image
    done: bool
    frames: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawingSession:
    """What is drawn, by what. filling: for previews, a word for each place that has none yet."""

    decoder: ProgressiveDecoder
    tokenizer: Tokenizer
    pairs: list[Pair]
    queries: list[Query]
    filling: Sequence[str]

    async def generate(
        self, out: str | os.PathLike[str] | None, resume: bool, watch: Callable[[Preview], None] | None
    ) -> list[GeneratedImage]:
        """Draw everything; see ``ImageGenerator.generate``."""

        on_segment = None if watch is None else lambda drawn: watch(self._preview(drawn))
        if out is None:
            drawings = await self.decoder.decode(self.pairs, self.queries, on_segment=on_segment)
        else:
            run = await asyncio.to_thread(self.decoder.open_run, out, self.pairs, resume=resume)
            try:
                drawings = await self.decoder.decode(self.pairs, self.queries, run=run, on_segment=on_segment)
            finally:
                await asyncio.shield(asyncio.to_thread(run.close))
        return await asyncio.to_thread(self._images, drawings)

    async def stream(self, out: str | os.PathLike[str] | None, resume: bool) -> AsyncGenerator[Preview]:
        """A preview after every segment; see ``ImageGenerator.stream``."""
        run = None
        if out is not None:
            run = await asyncio.to_thread(self.decoder.open_run, out, self.pairs, resume=resume)
        try:
            async with contextlib.aclosing(self.decoder.stream(self.pairs, self.queries, run=run)) as segments:
                async for drawn in segments:
                    yield await asyncio.to_thread(self._preview, drawn)
        finally:
            if run is not None:
                await asyncio.shield(asyncio.to_thread(run.close))

    def _preview(self, drawn: SegmentDrawn) -> Preview:
        shown = drawn.drawing.preview(self.filling)
        assert shown is not None  # every place can be filled
        image, frames = _image_of(self.tokenizer.decode([shown])[0])
        text, number = named(self.queries[drawn.query])
        return Preview(drawn.query, text, number, drawn, image, drawn.drawing.complete, frames)

    def _images(self, drawings: Sequence[Drawing]) -> list[GeneratedImage]:
        whole = [drawing for drawing in drawings if drawing.complete and drawing.error is None]
        decoded = iter(self.tokenizer.decode([drawing.pyramid for drawing in whole]) if whole else [])
        pictures = []
        for drawing in drawings:
            text, number = named(drawing.query)
            if drawing.complete and drawing.error is None:
                image, frames = _image_of(next(decoded))
                pictures.append(GeneratedImage(text, number, image, drawing.pyramid, drawing, frames=frames))
            else:
                pictures.append(GeneratedImage(text, number, None, None, drawing, drawing.error))
        return pictures


def _image_of(decoded: Any) -> tuple[Image.Image, tuple[Image.Image, ...]]:
    """What was decoded, as ``image`` and ``frames``: an image, or a clip as a list of frames."""
    return (decoded[len(decoded) // 2], tuple(decoded)) if isinstance(decoded, list) else (decoded, ())


def named(query: Query) -> tuple[str, int]:
    """The text and the number that a query's name holds."""
    return str(query.condition), int(query.name.rpartition("#")[2])


async def next_of(steps: AsyncGenerator[Preview]) -> Preview:
    """The next preview, as a coroutine that another event loop can wait for."""
    return await steps.__anext__()


async def close(steps: AsyncGenerator[Preview]) -> None:
    """End what is under way."""
    await steps.aclose()
