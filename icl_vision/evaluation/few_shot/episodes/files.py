"""Episodes on disk: one JSON file, so that another run, tokenizer or LLM can be asked the very same questions.

Knows: the file's form, and whether the images are still those the episodes were drawn from (sha256).
Refuses to know: how episodes are drawn, and what is asked.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import Episode
from icl_vision.files.reading import MOST_WEIGHTS, loads, opened
from icl_vision.files.storage import atomic_path

FORMAT_VERSION = 1


def save_episodes(
    target: str | Path,
    episodes: Iterable[Episode],
    *,
    root: str | Path | None = None,
    hashes: Mapping[str, str] | None = None,
) -> None:
    """Write episodes as one JSON file (atomically), so that another run can ask the very same questions.

    One episode and one hash a line, so that ``stream_episodes`` can read a file of any length in little memory.

    Args:
        episodes: consumed one at a time.
        root: the folder the images lie in, for whoever reads the file on the same machine.
        hashes: path -> hex sha256 of the image file; looked up when all episodes are written.
    """
    with atomic_path(Path(target)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(f'{{\n"format_version": {FORMAT_VERSION},\n')
        handle.write(f'"root": {json.dumps(None if root is None else str(root), ensure_ascii=False)},\n')
        handle.write(_OPENING)
        separator = ""
        for episode in episodes:
            handle.write(separator + json.dumps(episode.to_dict(), ensure_ascii=False))
            separator = ",\n"
        handle.write(("\n" if separator else "") + _MIDDLE)
        known = sorted((hashes or {}).items())
        handle.write(",\n".join(f"{json.dumps(path, ensure_ascii=False)}: {json.dumps(sha)}" for path, sha in known))
        handle.write("\n}\n}\n")


_OPENING = '"episodes": [\n'
_MIDDLE = '],\n"images": {\n'


def load_episodes(source: str | Path) -> list[Episode]:
    """Read a file of ``save_episodes``.

    Raises:
        UsageError: no such file, not JSON, or of another form or version.
    """
    return [Episode.from_dict(row) for row in _document(source).get("episodes", [])]


def stream_episodes(source: str | Path) -> Iterator[Episode]:
    """``load_episodes``, one at a time: memory does not grow with the file.

    A file of another layout (re-indented by hand, say) is read whole.
    """
    with _opened(source) as handle:
        head = [handle.readline() for _ in range(4)]
        streamed = head[0] == "{\n" and head[3] == _OPENING
        for line in handle if streamed else ():
            if line == "],\n":
                return
            try:
                row = loads(line.rstrip(",\n"))
            except ValueError as error:
                raise UsageError(f"the episode file {str(source)!r} cannot be read: {error}") from error
            yield Episode.from_dict(row)
    if not streamed:
        yield from load_episodes(source)


class EpisodeFileInfo(NamedTuple):
    """What an episode file says beside its episodes.

    root: the folder its images lay in, None where it does not say. hashes: path -> hex sha256 of the image file, {} in
    a file without. sizes: ways -> (episodes, fewest shots among them).
    """

    root: str | None
    hashes: Mapping[str, str]
    sizes: Mapping[int, tuple[int, int]]


def read_episode_file(source: str | Path) -> EpisodeFileInfo:
    """The head and the hashes of an episode file, every episode checked in passing.

    Raises:
        UsageError: as ``load_episodes``; or hashes that are none.
    """
    with _opened(source) as handle:
        head = [handle.readline() for _ in range(4)]
        if head[0] == "{\n" and head[3] == _OPENING:
            # The same document without its episodes, which are checked one by one below.
            for line in handle:
                if line == "],\n":
                    break
            text = "".join([*head, "],\n", handle.read()])
        else:
            text = "".join([*head, handle.read()])
    document = _parsed(text, source)
    root, hashes = document.get("root"), document.get("images", {})
    if not isinstance(hashes, dict) or not all(isinstance(digest, str) for digest in hashes.values()):
        raise UsageError(f'the episode file {str(source)!r} has no usable "images": it must map paths to sha256 hashes')
    sizes: dict[int, tuple[int, int]] = {}
    for episode in stream_episodes(source):
        count, shots = sizes.get(episode.ways, (0, episode.shots))
        sizes[episode.ways] = (count + 1, min(shots, episode.shots))
    return EpisodeFileInfo(root if isinstance(root, str) else None, hashes, sizes)


@contextlib.contextmanager
def _opened(source: str | Path) -> Iterator[TextIO]:
    try:
        with opened(source, most=MOST_WEIGHTS) as handle, io.TextIOWrapper(handle, encoding="utf-8") as text:
            yield text
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the episode file {str(source)!r} cannot be read: {error}") from error


def _document(source: str | Path) -> dict[str, Any]:
    with _opened(source) as handle:
        return _parsed(handle.read(), source)


def _parsed(text: str, source: str | Path) -> dict[str, Any]:
    try:
        document = loads(text)
    except ValueError as error:
        raise UsageError(f"the episode file {str(source)!r} cannot be read: {error}") from error
    known = isinstance(document, dict) and document.get("format_version") == FORMAT_VERSION
    if not isinstance(document, dict) or not known or not isinstance(document.get("episodes"), list):
        raise UsageError(
            f"{str(source)!r} is not an episode file of format version {FORMAT_VERSION}; those are the episodes.json "
            "of a run and what --save-episodes writes"
        )
    return document
