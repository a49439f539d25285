"""Sets of episodes: drawn from class folders or read from a file of an earlier run; on disk one JSON file.

So that another run, tokenizer or LLM can be asked the very same things.

Knows: the file's format, how to write and read it one episode at a time, series of episodes, one for each number of
ways, and that their images are still the same files. Refuses to know: how episodes are drawn, what is asked about them.

A series of 2 ways and one of 5 are drawn separately. One drawn episode serves every number of shots: fewer shots are
the first images of more.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder
from icl_vision.files.reading import MOST_WEIGHTS, loads, opened
from icl_vision.files.storage import atomic_path, sha256_file
from icl_vision.files.trust import Reader

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


@dataclass(frozen=True, slots=True)
class EpisodeSet:
    """A file of episodes and the folder of their images.

    path: the episode file. root: where its images lie. sizes: ways -> (episodes, fewest shots). digest: hex sha256 of
    the episodes and of every image's hash; the same digest asks the very same things. hashes: path -> hex sha256.
    """

    path: Path
    root: Path
    sizes: Mapping[int, tuple[int, int]]
    digest: str
    hashes: Mapping[str, str]

    def series(self, ways: int, count: int) -> Iterator[Episode]:
        """The first ``count`` episodes of so many ways, read one at a time."""
        return islice((episode for episode in stream_episodes(self.path) if episode.ways == ways), count)

    def image(self, path: str) -> str:
        """Where an image of an episode lies on disk."""
        return str(self.root / path)

    def save(self, target: Path) -> EpisodeSet:
        """The same episodes from a copy of the file."""
        save_episodes(target, stream_episodes(self.path), root=self.root, hashes=self.hashes)
        return EpisodeSet(target, self.root, self.sizes, self.digest, self.hashes)

    def require(self, ways: int, *, shots: int, episodes: int) -> None:
        """Raise UsageError where there are too few episodes of these ways, or too few shots in them."""
        count, fewest = self.sizes.get(ways, (0, 0))
        if not count:
            there = ", ".join(map(str, self.sizes))
            raise UsageError(
                f"{str(self.path)!r} holds no episodes of {ways} ways, only of {there}: change ways (--ways), or draw "
                "new ones from a folder"
            )
        if count < episodes:
            raise UsageError(
                f"{str(self.path)!r} holds {count} episodes of {ways} ways; {episodes} are needed: ask for fewer, or "
                "draw new ones from a folder"
            )
        if fewest < shots:
            raise UsageError(
                f"the {ways}-way episodes of {str(self.path)!r} have {fewest} shots; a setting with {shots} inner "
                "shots cannot be made of them"
            )


def draw(folder: ImageFolder, target: Path, *, shots: Mapping[int, int], episodes: int, seed: int = 0) -> EpisodeSet:
    """Draw a series for each number of ways and write them to ``target``.

    Args:
        folder: the images.
        target: the episode file to write.
        shots: ways -> support images of each class.
        episodes: how many of each series, 1 or more.
        seed: names the series; the same seed draws the same episodes from the same folder.

    Raises:
        UsageError: too few classes or images (see ``ImageFolder.sample``), or too few episodes asked for.
    """
    episodes = checks.count("the number of episodes", episodes)
    hashes: dict[str, str] = {}

    def drawn() -> Iterator[Episode]:
        for ways, most in shots.items():
            for number in range(episodes):
                episode = folder.sample(number, ways=ways, shots=most, queries=1, seed=_series_seed(seed, ways))
                for item in (*episode.support, *episode.queries):
                    if item.path not in hashes:
                        hashes[item.path] = sha256_file(folder.path(item))
                yield episode

    save_episodes(target, drawn(), root=folder.root.resolve(), hashes=hashes)
    sizes = {ways: (episodes, most) for ways, most in shots.items()}
    return EpisodeSet(target, folder.root, sizes, _digest(stream_episodes(target), hashes), hashes)


def read(source: str | Path, images: str | Path | None = None, *, trust: bool = False) -> EpisodeSet:
    """The episodes of a file, whose images are all there and unchanged.

    Args:
        source: a file that ``draw`` or ``save_episodes`` wrote.
        images: the folder its images lie in; None where they lie beside the file.
        trust: follow the file's own names: the folder that it says its images lie in, and images outside that.

    Raises:
        UntrustedNameError: the file names a folder, or an image outside the folder given.
        UsageError: not an episode file; an image is missing or is another file than the episodes were drawn with.
    """
    path = Path(source)
    info = read_episode_file(path)
    if not info.sizes:
        raise UsageError(f"the episode file {str(source)!r} holds no episodes")
    reader = Reader(str(source), trust, "trust=True (--trust)")
    root = Path(images) if images is not None else _root(info.root, path, reader)
    if not os.path.isdir(root):
        raise UsageError(
            f"the images of {str(source)!r} should lie in {str(root)!r}, which is no folder; say where they are with "
            "images= (--images DIR)"
        )
    hashes = dict(info.hashes)
    for episode in stream_episodes(path):
        for item in (*episode.support, *episode.queries):
            reader.inside("image", item.path, "another episode file")
            if item.path not in hashes:  # a file without hashes: from now on they are known
                hashes[item.path] = _hash(root, item.path, source)
    for name, expected in info.hashes.items():
        reader.inside("image", name, "another episode file")
        if _hash(root, name, source) != expected:
            raise UsageError(
                f"the image {name!r} in {str(root)!r} is not the file that the episodes in {str(source)!r} were drawn "
                "with (its sha256 differs): restore it, point images= (--images DIR) elsewhere, or draw new episodes"
            )
    return EpisodeSet(path, root, info.sizes, _digest(stream_episodes(path), hashes), hashes)


def _root(named: str | None, file: Path, reader: Reader) -> Path:
    """The folder that a file names; one that the file itself lies in may be named by anybody."""
    if not named or Path(named).resolve() == file.parent.resolve():
        return file.parent
    return Path(reader.place("folder of images", named, "images= (--images DIR)"))


def _hash(root: Path, name: str, source: str | Path) -> str:
    try:
        return sha256_file(root / name)
    except OSError as error:
        raise UsageError(
            f"the image {name!r} of the episodes in {str(source)!r} cannot be read in {str(root)!r} "
            f"({error.strerror}); say where the images are with images= (--images DIR)"
        ) from error


def _digest(episodes: Iterable[Episode], hashes: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(json.dumps(episode.to_dict(), sort_keys=True, ensure_ascii=False).encode() + b"\n")
    for path, value in sorted(hashes.items()):
        digest.update(f"{path}\x1f{value}\n".encode())
    return digest.hexdigest()


def _series_seed(seed: int, ways: int) -> int:
    """A seed of its own for each number of ways, so that one series is not the beginning of another's classes."""
    return int.from_bytes(hashlib.sha256(f"series/{seed}/{ways}".encode()).digest()[:4], "big")
