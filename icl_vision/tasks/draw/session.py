"""One call of an image generator: its queries decoded, kept in a run folder, and turned into pictures as they come.

Knows: a decoder, a run folder, previews. Refuses to know: options, how queries and examples are chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from icl_vision.contracts import Tokenizer
from icl_vision.drawing.drawing import Drawing, Pair, Query, SegmentDrawn
from icl_vision.drawing.progressive import ProgressiveDecoder
from icl_vision.tasks.draw.results import GeneratedImage, Preview


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
        (image,) = self.tokenizer.decode([shown])
        text, number = named(self.queries[drawn.query])
        return Preview(drawn.query, text, number, drawn, image, drawn.drawing.complete)

    def _images(self, drawings: Sequence[Drawing]) -> list[GeneratedImage]:
        whole = [one for one in drawings if one.complete and one.error is None]
        decoded = iter(self.tokenizer.decode([one.pyramid for one in whole]) if whole else [])
        found = []
        for one in drawings:
            text, number = named(one.query)
            if one.complete and one.error is None:
                found.append(GeneratedImage(text, number, next(decoded), one.pyramid, one))
            else:
                found.append(GeneratedImage(text, number, None, None, one, one.error))
        return found


def named(query: Query) -> tuple[str, int]:
    """The text and the number that a query's name holds."""
    return str(query.condition), int(query.name.rpartition("#")[2])


async def next_of(steps: AsyncGenerator[Preview]) -> Preview:
    """The next preview, as a coroutine that another event loop can wait for."""
    return await steps.__anext__()


async def close(steps: AsyncGenerator[Preview]) -> None:
    """End what is under way."""
    await steps.aclose()
