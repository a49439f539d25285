"""Small copies of many images for a page, each once, within a size that a page can carry.

Knows: where images lie under a folder, how small a copy has to be. Refuses to know: what they show.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from icl_vision.errors import ImageError
from icl_vision.viz.page import thumbnail

logger = logging.getLogger(__name__)

# (at most so many images, longer side in pixels, WebP quality): together they stay near 6 MB on the page.
SIZES: tuple[tuple[int, int, int], ...] = ((600, 112, 72), (2000, 80, 66), (5000, 64, 55), (12000, 48, 45))
SMALLEST = (40, 35)


def size_for(count: int) -> tuple[int, int]:
    """(longer side in pixels, WebP quality) for a page with ``count`` images."""
    return next(((side, quality) for most, side, quality in SIZES if count <= most), SMALLEST)


def thumbnails(folder: Path | None, names: Sequence[str]) -> Iterator[str]:
    """A small WebP copy of each image as base64, "" where there is none to show.

    Args:
        folder: where the images lie; None = nowhere.
        names: paths inside ``folder``. One that leads out of it is not followed: a run folder may come from others.

    Yields:
        One string per name, in order; one image is in memory at a time.
    """
    side, quality = size_for(len(names))
    missing = 0
    for name in names:
        path = None if folder is None else _inside(folder, name)
        try:
            if path is None:
                raise ImageError(f"{name!r} is no path inside the image folder")
            yield thumbnail(path, side, quality=quality).partition(",")[2]
        except ImageError as error:
            missing += 1
            logger.debug("no thumbnail: %s", error)
            yield ""
    if missing:
        logger.warning(
            "%d of %d images were not found or cannot be read; the page shows their words", missing, len(names)
        )


def _inside(folder: Path, name: str) -> Path | None:
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        return None
    return folder / name
