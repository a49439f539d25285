"""Which images an agent may name: a registry of ids, a folder, or (on request) any path.

A tool's argument is written by a language model, and a language model repeats what a web page or a document told it to.
So nothing can be opened unless the caller said so beforehand, and what is refused is refused with the same words
whether it exists or not.

Knows: ids, folders, paths. Refuses to know: agents, tools, what an image shows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.forks import ForkLock
from icl_vision.images import ImageSource, is_image_source

MAX_NAME_CHARACTERS = 1000
"""A longer id or path is refused unread: longer than any real one, short enough to be harmless in a message."""

_SHOWN_IDS = 20


class ImageRegistry(Mapping[str, ImageSource]):
    """Images under short ids that fit into a conversation: ``registry.add(photo)`` gives ``"image-1"``.

    Args:
        images: what it holds at first, id -> image.

    Images are kept as they are given and opened only when they are used. Whoever can talk to an agent can name every id
    of its registry: give each conversation a registry of its own. Safe to use from several threads.
    """

    def __init__(self, images: Mapping[str, ImageSource] | None = None) -> None:
        self._images: dict[str, ImageSource] = {}
        self._lock = ForkLock()
        self._number = 0
        for name, image in (images or {}).items():
            self.add(image, name)

    def add(self, image: ImageSource, id: str | None = None) -> str:
        """Keep an image and return its id: the one given, or "image-1", "image-2" ... in order.

        Raises:
            UsageError: not an image (nor a path to one), an id that is taken, or one that is no plain line of text.
        """
        if not is_image_source(image):
            raise UsageError(f"an ImageRegistry holds images or paths to them; got a {type(image).__name__}")
        with self._lock:
            if id is None:
                id = self._next_id()
            elif not isinstance(id, str) or not id.strip() or not id.isprintable() or len(id) > MAX_NAME_CHARACTERS:
                raise UsageError(
                    f"an image id must be one line of 1 to {MAX_NAME_CHARACTERS} printable characters; got {id!r:.100}"
                )
            elif id in self._images:
                raise UsageError(f"the image id {id!r} is taken; remove it first, or give none to get a free one")
            self._images[id] = image
            return id

    def remove(self, id: str) -> None:
        """Forget an image; its number is not given again.

        Raises:
            UsageError: no such id.
        """
        with self._lock:
            if self._images.pop(id, None) is None:
                raise UsageError(f"no image has the id {id!r}; there are {_listed(list(self._images))}")

    def __getitem__(self, id: str) -> ImageSource:
        return self._images[id]

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._images))

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"ImageRegistry({_listed(list(self))})"

    def _next_id(self) -> str:
        while True:
            self._number += 1
            id = f"image-{self._number}"
            if id not in self._images:
                return id


class ImageAccess:
    """What a name written by a language model may open.

    Args:
        images: ids, and the images they stand for. Looked in first.
        root: a folder; image files inside it may be named by their path relative to it.
        allow_paths: any path on this machine may be named. For agents whose every input you trust.

    Raises:
        UsageError: ``root`` is no folder, or something given is of the wrong kind.
    """

    def __init__(
        self,
        images: Mapping[str, ImageSource] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        allow_paths: bool = False,
    ) -> None:
        if images is not None and not isinstance(images, Mapping):
            kind = type(images).__name__
            raise UsageError(f"images must be an ImageRegistry or a mapping of ids to images; got {kind}")
        checks.flag("allow_paths", allow_paths)
        if root is not None and not isinstance(root, str | os.PathLike):
            raise UsageError(f"root must be a folder; got a {type(root).__name__}")
        folder = None if root is None else Path(root).expanduser().resolve()
        if folder is not None and not os.path.isdir(folder):
            raise UsageError(f"root must be a folder that exists; got {str(root)!r}")
        self.images: Mapping[str, ImageSource] = ImageRegistry() if images is None else images
        self.root = folder
        self.allow_paths = allow_paths

    def __str__(self) -> str:
        """What may be named, for the description of a tool's argument."""
        ways = ["the id of an image"] if self.root is None and not self.allow_paths else ["an image id"]
        if self.root is not None:
            ways.append("the relative path of an image file in the image folder")
        if self.allow_paths:
            ways.append("the path of an image file")
        return " or ".join(ways)

    def find(self, name: str) -> ImageSource:
        """The image that a name stands for: an image of the registry, or the path of a file that exists.

        Raises:
            UsageError: it stands for none, or for one that may not be opened; the message is fit for the model: it
                says what can be named and nothing about what else there is.
        """
        if len(name) <= MAX_NAME_CHARACTERS and name in self.images:
            return self.images[name]
        path = self._path(name)
        if path is not None:
            return path
        shown = name if len(name) <= 80 else name[:77] + "..."
        message = f"there is no image {shown!r}; give {self}"
        known = list(self.images)
        if known:
            message += f" (ids: {_listed(known)})"
        elif self.root is None and not self.allow_paths:
            message += " (there are none yet)"
        raise UsageError(message)

    def _path(self, name: str) -> Path | None:
        if not name.strip() or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
            return None
        if self.root is not None:
            file = _file(self.root / name)
            # resolve() has followed every link and every "..": what is compared is what would be opened.
            if file is not None and file.is_relative_to(self.root):
                return file
        return _file(Path(name)) if self.allow_paths else None


def _file(path: Path) -> Path | None:
    """The file itself, links followed; None where there is none. Pipes and devices are no files: they may never end."""
    try:
        file = path.resolve(strict=True)
        return file if file.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _listed(ids: list[str]) -> str:
    shown = ", ".join(map(repr, ids[:_SHOWN_IDS])) or "none"
    return shown if len(ids) <= _SHOWN_IDS else f"{shown} and {len(ids) - _SHOWN_IDS} more"
