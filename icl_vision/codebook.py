"""A vocabulary with one vector a word, as a folder: words.txt, codebook.safetensors, card.json.

Knows: how such a folder is written, checked and read, how other vectors of the
same text space are projected beside the words, and which words lie nearest.
Refuses to know: which model made the vectors (its card says), and images.
Needs numpy and safetensors only, so it works on the runtime line.

Distance is the dot product of unit vectors (cosine), in the codebook's own
space: vectors of the source space go through :meth:`Codebook.project` first.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.files.reading import MOST_WEIGHTS, checked_path, member, read_bytes
from icl_vision.files.storage import atomic_path, sha256_file, write_json, write_text, written
from icl_vision.vocabulary import CARD_FILE, FORMAT_VERSION, WORDS_FILE, Vocabulary, read_card

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

CODEBOOK_FILE = "codebook.safetensors"
DEFAULT_CODEBOOK = "portable-minilm-128"
"""The packaged codebook that ``words-photo`` and others share."""

_PACKAGED = Path(__file__).parent / "artefacts" / "codebooks"


def packaged_codebooks() -> list[str]:
    """The names of the codebooks inside the package, sorted."""
    return sorted(entry.parent.name for entry in _PACKAGED.glob(f"*/{CARD_FILE}"))


@dataclass(frozen=True, eq=False, repr=False)
class Codebook:
    """Words and their vectors. Read-only.

    vocabulary: T words. vectors: float32 [T, c], unit length (up to the rounding of the
    stored fp16), row t belongs to word t. projection: float32 [D, c] and mean: float32 [D]
    take a vector of the source space (D dimensions) into this one, see :meth:`project`;
    None when the words were not projected. hash: sha256 of ``codebook.safetensors``, in hex
    ("" for a codebook that was never a file). card: what the folder's card says.
    """

    vocabulary: Vocabulary
    vectors: npt.NDArray[np.float32]
    projection: npt.NDArray[np.float32] | None = None
    mean: npt.NDArray[np.float32] | None = None
    name: str = "custom"
    hash: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vectors = _read_only(self.vectors, "vectors")
        if vectors.ndim != 2 or vectors.shape[0] != len(self.vocabulary) or vectors.shape[1] < 1:
            raise UsageError(
                f"vectors must be [T, c] with one row a word: got shape {list(vectors.shape)} "
                f"for {len(self.vocabulary)} words"
            )
        object.__setattr__(self, "vectors", vectors)
        if (self.projection is None) != (self.mean is None):
            raise UsageError("projection and mean belong together: give both or neither")
        if self.projection is not None and self.mean is not None:
            projection, mean = _read_only(self.projection, "projection"), _read_only(self.mean, "mean")
            if projection.ndim != 2 or projection.shape[1] != vectors.shape[1] or mean.shape != projection.shape[:1]:
                raise UsageError(
                    f"projection must be [D, {vectors.shape[1]}] and mean [D]: got {list(projection.shape)} "
                    f"and {list(mean.shape)}"
                )
            object.__setattr__(self, "projection", projection)
            object.__setattr__(self, "mean", mean)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __repr__(self) -> str:
        return f"Codebook(name={self.name!r}, words={len(self)}, dimension={self.dimension}, hash={self.hash[:12]!r})"

    @property
    def dimension(self) -> int:
        """c, the length of a word's vector."""
        return int(self.vectors.shape[1])

    @property
    def source_dimension(self) -> int:
        """D, the length of the vectors that :meth:`project` takes."""
        return self.dimension if self.projection is None else int(self.projection.shape[0])

    def project(self, vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Bring vectors of the source space beside the words: ``normalise((v - mean) @ projection)``.

        Args:
            vectors: [N, D] or [D], finite. Without a projection, D is c and they are only normalised.

        Returns:
            Unit vectors, float32 [N, c] or [c]; a vector that vanishes stays zero.
        """
        given = _queries(vectors, self.source_dimension, "the source space")
        if self.projection is not None and self.mean is not None:
            given = np.asarray((given - self.mean) @ self.projection, dtype=np.float32)
        return normalise(given)

    def nearest(
        self, vectors: npt.ArrayLike, k: int = 1, *, chunk: int = 1024
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The k nearest words of each vector, best first; equal similarities in id order.

        Args:
            vectors: [N, c], in the codebook's space (see :meth:`project`), finite; need not be unit.
            k: how many words, 1 to T.
            chunk: vectors compared at a time; bounds memory to ``chunk * T`` floats.

        Returns:
            ids int32 [N, k] and cosine similarities float32 [N, k].
        """
        if not 1 <= k <= len(self):
            raise UsageError(f"k must be 1 to {len(self)}, the number of words; got {k}")
        if chunk < 1:
            raise UsageError(f"chunk must be 1 or more; got {chunk}")
        queries = np.atleast_2d(normalise(_queries(vectors, self.dimension, "the codebook's space")))
        ids = np.empty((len(queries), k), dtype=np.int32)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        for start in range(0, len(queries), chunk):
            scores = queries[start : start + chunk] @ self.vectors.T
            # The k-th best score is a threshold; a stable sort of what reaches it keeps ties in id order.
            threshold = np.partition(scores, -k, axis=1)[:, -k]
            for row, (line, least) in enumerate(zip(scores, threshold, strict=True)):
                among = np.flatnonzero(line >= least)
                best = among[np.argsort(-line[among], kind="stable")[:k]]
                ids[start + row] = best
                similarities[start + row] = line[best]
        return ids, similarities

    # -- files

    def save(self, folder: str | os.PathLike[str], *, card: Mapping[str, Any] | None = None) -> Codebook:
        """Write the codebook folder (made if missing) and return the codebook as read back from it.

        Vectors, projection and mean are stored as fp16, fp32 and fp32. The card is written last, so a
        kill in between leaves a folder that :meth:`load` refuses, never a wrong one.

        Args:
            folder: where to write; files of the same names are replaced.
            card: further entries for the card (licence, provenance, metrics ...); they cannot replace ours.
        """
        from safetensors.numpy import save_file

        path = Path(folder)
        tensors: dict[str, Any] = {"codebook": self.vectors.astype(np.float16)}
        if self.projection is not None and self.mean is not None:
            tensors |= {"projection": np.ascontiguousarray(self.projection), "mean": np.ascontiguousarray(self.mean)}
        with written(folder):
            checked_path(path / CARD_FILE).unlink(missing_ok=True)
            write_text(path / WORDS_FILE, "\n".join(self.vocabulary.words) + "\n")
            with atomic_path(path / CODEBOOK_FILE) as temporary:
                save_file(tensors, str(temporary))
        own = {
            "format_version": FORMAT_VERSION,
            "kind": "codebook",
            "name": self.name,
            "size": len(self),
            "dimension": self.dimension,
            "source_dimension": self.source_dimension,
            "dtype": "float16",
            "vocabulary_name": self.vocabulary.name,
            "vocabulary_hash": self.vocabulary.hash,
            "codebook_hash": sha256_file(path / CODEBOOK_FILE),
        }
        own["files"] = {WORDS_FILE: sha256_file(path / WORDS_FILE), CODEBOOK_FILE: own["codebook_hash"]}
        with written(folder):
            write_json(path / CARD_FILE, own | {key: value for key, value in (card or {}).items() if key not in own})
        return Codebook.load(path)

    @classmethod
    def load(cls, source: str | os.PathLike[str] = DEFAULT_CODEBOOK) -> Codebook:
        """Read a packaged codebook by name, or any codebook folder.

        Every file is checked against the card's sha256.

        Raises:
            ArtefactNotFoundError: neither a packaged name nor a folder.
            ArtefactDamagedError: a file is missing, is not the one the card describes, or does not fit the words.
        """
        path = Path(source)
        if isinstance(source, str) and source in packaged_codebooks():
            path = _PACKAGED / source
        elif not os.path.isdir(path):
            raise ArtefactNotFoundError(
                f"no codebook {str(source)!r}: neither a folder nor one of the packaged {packaged_codebooks()}"
            )
        card = read_card(path)
        vocabulary = Vocabulary.load(path)
        tensors = _read_tensors(path, str(card.get("codebook_hash")))
        if "codebook" not in tensors:
            raise ArtefactDamagedError(f"{CODEBOOK_FILE} in {str(path)!r} holds no tensor 'codebook'")
        try:
            loaded = cls(
                vocabulary,
                tensors["codebook"],
                tensors.get("projection"),
                tensors.get("mean"),
                name=str(card.get("name", path.name)),
                hash=str(card["codebook_hash"]),
                card=card,
            )
        except UsageError as error:
            raise ArtefactDamagedError(f"{CODEBOOK_FILE} in {str(path)!r} does not fit its words: {error}") from error
        logger.debug("loaded %r from %s", loaded, path)
        return loaded


def normalise(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Vectors divided by their length along the last axis, float32; zero vectors stay zero."""
    given = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(given, axis=-1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(given, length, out=np.zeros_like(given), where=length > 0)
    return unit


def _read_tensors(path: Path, expected: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = read_bytes(member(path, CODEBOOK_FILE), most=MOST_WEIGHTS)
    except FileNotFoundError:
        raise ArtefactDamagedError(f"{str(path)!r} has no {CODEBOOK_FILE}; fetch or build the folder again") from None
    except OSError as error:
        raise ArtefactDamagedError(f"{CODEBOOK_FILE} in {str(path)!r} cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise ArtefactDamagedError(
            f"{CODEBOOK_FILE} in {str(path)!r} is not the file its card describes: its sha256 is {digest[:12]}..., "
            f"the card says {expected[:12]}...; fetch or build the folder again"
        )
    try:
        tensors: dict[str, Any] = load(data)
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise ArtefactDamagedError(f"{CODEBOOK_FILE} in {str(path)!r} is not a safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.float16, np.float32):
            raise ArtefactDamagedError(
                f"{CODEBOOK_FILE} in {str(path)!r} holds {name!r} as {tensor.dtype}, not as float16 or float32"
            )
    return tensors


def _read_only(array: npt.ArrayLike, what: str) -> npt.NDArray[np.float32]:
    result = np.array(array, dtype=np.float32, order="C")  # a copy: nobody else can write into it
    if not np.isfinite(result).all():
        raise UsageError(f"{what} must be finite; they hold NaN or infinity")
    result.setflags(write=False)
    return result


def _queries(vectors: npt.ArrayLike, dimension: int, space: str) -> npt.NDArray[np.float32]:
    given = np.asarray(vectors, dtype=np.float32)
    if given.ndim not in (1, 2) or given.shape[-1] != dimension:
        raise UsageError(f"vectors must be [N, {dimension}], of {space}; got shape {list(given.shape)}")
    if not np.isfinite(given).all():
        raise UsageError("vectors must be finite; they hold NaN or infinity")
    return given
