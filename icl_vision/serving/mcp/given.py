"""The arguments that several tools share: a picture, given as base64 or named as a file, and work off the event loop.

Knows: two ways to give one picture, threads. Refuses to know: what is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio.to_thread

from icl_vision.errors import RequestRefusedError
from icl_vision.forks import ForkLock
from icl_vision.images import load_image
from icl_vision.serving.mcp.tool import Argument, Call

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.serving.pictures import Pictures

T = TypeVar("T")

IMAGE, PATH = "image", "path"


def picture_arguments(pictures: Pictures) -> tuple[Argument, ...]:
    """How a call gives one picture; files only where there are folders to read."""
    image = Argument(
        name=IMAGE,
        text="The picture itself, in base64 or as a data: URL: JPEG, PNG, WEBP, GIF, BMP, TIFF or PPM, "
        f"at most {pictures.limits.bytes:,} bytes and {pictures.limits.pixels:,} pixels.",
        # base64 with line ends, and the head of a data: URL.
        longest=pictures.limits.bytes * 4 // 3 + pictures.limits.bytes // 24 + 1000,
        lines=True,
    )
    if not pictures.roots:
        return (image,)
    path = Argument(
        name=PATH,
        text="Instead of image: a picture file, by its path below one of the folders that this server may read.",
    )
    return (path, image)


async def picture_of(call: Call, given: Mapping[str, Any]) -> bytes:
    """The bytes of the one picture that a call gives.

    Raises:
        RequestRefusedError: none, or two; what is given is no picture, or may not be read.
    """
    if (IMAGE in given) == (PATH in given):
        ways = f"{IMAGE} (base64) or {PATH} (a file)" if call.pictures.roots else f"{IMAGE} (base64)"
        raise RequestRefusedError(f"give one picture, as {ways}; got {'both' if IMAGE in given else 'none'}")
    if PATH in given:
        return await call.pictures.from_file(given[PATH], PATH)
    text = given[IMAGE].strip()
    read = call.pictures.from_data_url if text[:5].lower() == "data:" else call.pictures.from_base64
    return await in_thread(read, text, IMAGE)


async def pixels_of(call: Call, data: bytes) -> Image.Image:
    """The RGB image that bytes hold. Raises ImageError where they hold none, or one that is too large."""
    limits = call.pictures.limits
    return await in_thread(lambda: load_image(data, max_pixels=limits.pixels, max_bytes=limits.bytes))


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)`` in a thread of its own, for whatever computes or reads files.

    Who is cancelled waits until it ends, so that no work goes on that nobody counts: it must be short, or call
    ``anyio.from_thread.check_cancelled`` now and then.
    """
    return await anyio.to_thread.run_sync(function, *arguments)


class Later(Generic[T]):
    """Something that takes seconds to make, made when it is first wanted, once."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = ForkLock()
        self._made: list[T] = []

    async def get(self) -> T:
        """It. Raises whatever its making raises, each time."""
        return self._made[0] if self._made else await in_thread(self._once)

    def _once(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]
