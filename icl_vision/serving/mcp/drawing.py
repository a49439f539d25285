"""draw_image: a text LLM draws a small picture, segment by segment.

Knows: progress after each segment, the picture as a PNG file. Refuses to know: how it is drawn (``tasks.draw``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icl_vision.errors import AnswerRefusedError, RequestRefusedError, UsageError
from icl_vision.serving.mcp.given import Later, in_thread
from icl_vision.serving.mcp.tool import Argument, Call, McpTool, Told
from icl_vision.tasks.draw.examples import TEXT_CHARACTERS
from icl_vision.tasks.tools import NAMES_SHOWN, shortened
from icl_vision.wording import counted

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.tasks.draw.generator import ImageGenerator
    from icl_vision.tasks.draw.session import Preview


def drawing(generator: Later[ImageGenerator], texts: Sequence[str]) -> McpTool:
    """Pictures from texts.

    generator: made at the first call. texts: of its examples, for the description.
    """

    async def run(call: Call, given: Mapping[str, Any]) -> Told:
        task = await generator.get()
        text = given["text"].strip()
        try:
            segments = len(await in_thread(lambda: task.plan([text]).passes))
            last = await _drawn(task, text, call, segments)
        except UsageError as error:
            raise RequestRefusedError(f"text: {error}") from error
        except AnswerRefusedError as error:
            raise RequestRefusedError(f"{text[:80]!r} could not be drawn; try another text") from error
        picture = await in_thread(_png, last.image)
        data = {
            "text": text,
            "width": last.image.width,
            "height": last.image.height,
            "changes": len(last.segment.drawing.changes),
        }
        told = f"drawn: {text} ({last.image.width}x{last.image.height} pixels)"
        if data["changes"]:
            told += f"; {counted(data['changes'], 'word')} of the LLM's answers repaired"
        return Told(text=told, data=data, picture=picture)

    known = shortened([repr(text) for text in texts], NAMES_SHOWN)
    return McpTool(
        name="draw_image",
        title="Draw a small picture",
        description=f"Draws a small picture, word by word, from a text like these: {known}. Other texts seldom give "
        "anything that can be recognised. It takes from seconds to minutes, tells its progress and can be cancelled.",
        arguments=(Argument(name="text", text="What to draw, one line.", required=True, longest=TEXT_CHARACTERS),),
        output={
            "text": {"type": "string"},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "changes": {"type": "integer", "description": "Words of the LLM's answers that had to be repaired."},
        },
        run=run,
    )


async def _drawn(task: ImageGenerator, text: str, call: Call, segments: int) -> Preview:
    """The last preview, which is the picture. Who is cancelled ends the request that is under way at the LLM."""
    last: Preview | None = None
    done = 0
    async with contextlib.aclosing(task.astream([text])) as previews:  # type: ignore[type-var]  # it is a generator
        async for preview in previews:
            last = preview
            done += 1
            await call.progress(done, segments, f"segment {done} of {segments}")
    if last is None or not last.done:
        raise AnswerRefusedError(f"the drawing of {text!r} ended before it was whole")
    return last


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
