"""The maps that come with the library: for which LLM, prompt, tokenizer and rule, and what lies between.

Knows: the artefact folder of maps, interpolation. Refuses to know: how one was fitted (``benchmarks/probabilities.py``
did, on training classes only; the folder's card says on which), and what is asked of whom.

A map is a temperature for each measured (words, ways, shots). In between, its logarithm is interpolated linearly in
their logarithms. Ways and shots beyond those measured take the nearest measured ones, which the map's note says; other
numbers of words have no map, since their scores are sums of another length.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from icl_vision.errors import ArtefactDamagedError, UsageError
from icl_vision.files.reading import MOST_CARD, read_json
from icl_vision.probabilities.maps import ProbabilityMap
from icl_vision.tokenizers.artefact import read_file, verify_files
from icl_vision.vocabulary import CARD_FILE

MAPS_FILE = "maps.json"
FORMAT_VERSION = 1
AXES = ("words", "ways", "shots")


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides how sure an LLM's scores look.

    llm: its identity. prompt: digest of what the template writes (see ``tasks.calibrating``). tokenizer: fingerprint of
    the tokenizer. method, ensemble, contextual: the rule. words: words of an image. ways: labels. shots: examples of
    each, on average.
    """

    llm: str
    prompt: str
    tokenizer: str
    method: str
    ensemble: bool
    contextual: bool
    words: float
    ways: int
    shots: float


@dataclass(frozen=True, slots=True)
class Grid:
    """Temperatures of one rule by words, ways and shots.

    axes: the measured numbers, rising, in the order of ``AXES``. temperatures: (words, ways, shots) -> temperature, for
    every combination. n: answers that all of them were fitted on.
    """

    axes: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    temperatures: Mapping[tuple[float, float, float], float]
    n: int

    def at(self, words: float, ways: float, shots: float) -> ProbabilityMap | None:
        """The map between the measured ones; None where ``words`` lies beyond them."""
        if not self.axes[0][0] <= words <= self.axes[0][-1]:
            return None
        notes = []
        sides = []
        for name, axis, value in zip(AXES, self.axes, (words, ways, shots), strict=True):
            inside = min(max(float(value), axis[0]), axis[-1])
            if inside != value:
                notes.append(f"{value:g} {name} taken as {inside:g}, the nearest measured")
            sides.append(_neighbours(axis, inside))
        total = 0.0
        for corner in itertools.product(*sides):
            weight = math.prod(share for _, share in corner)
            word, way, shot = (point for point, _ in corner)
            total += weight * math.log(self.temperatures[word, way, shot])
        return ProbabilityMap(round(math.exp(total), 4), "packaged", self.n, "; ".join(notes))


def _neighbours(axis: Sequence[float], value: float) -> list[tuple[float, float]]:
    """The measured numbers around a value, with their weights (linear in the logarithm)."""
    above = next(place for place, point in enumerate(axis) if point >= value)
    if axis[above] == value or above == 0:
        return [(axis[above], 1.0)]
    low, high = axis[above - 1], axis[above]
    share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return [(low, 1 - share), (high, share)]


@dataclass(frozen=True, slots=True)
class MapFolder:
    """The maps of one LLM. llm: its identity, to which an adapter may add options. grids: by rule."""

    llm: str
    grids: Mapping[tuple[str, str, str, bool, bool], Grid]
    card: Mapping[str, Any]

    def find(self, situation: Situation) -> ProbabilityMap | None:
        """The map for a situation, None where none was measured."""
        if not is_same_llm(situation.llm, self.llm):
            return None
        grid = self.grids.get(
            (situation.tokenizer, situation.prompt, situation.method, situation.ensemble, situation.contextual)
        )
        return None if grid is None else grid.at(situation.words, situation.ways, situation.shots)

    @classmethod
    def load(cls, folder: Path) -> MapFolder:
        """Read a folder of maps, checked against the hashes of its card.

        Raises:
            ArtefactDamagedError: a file is missing, is another one, or says something that is no map.
        """
        try:
            card = read_json(folder / CARD_FILE, most=MOST_CARD)
        except (OSError, ValueError) as error:
            raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} cannot be read ({error})") from error
        if not isinstance(card, dict) or card.get("kind") != "probability maps" or card.get("format_version") != 1:
            raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} describes no probability maps of format 1")
        verify_files(folder, card, required=MAPS_FILE)
        try:
            document = json.loads(read_file(folder, card, MAPS_FILE))
            return cls(str(card["llm"]), dict(map(_grid, document["rules"])), card)
        except (ValueError, KeyError, TypeError, IndexError, UsageError) as error:
            raise ArtefactDamagedError(
                f"{MAPS_FILE} in {str(folder)!r} holds no probability maps: {type(error).__name__}: {error}"
            ) from error


def _grid(rule: Mapping[str, Any]) -> tuple[tuple[str, str, str, bool, bool], Grid]:
    words, ways, shots = (tuple(float(point) for point in rule["axes"][name]) for name in AXES)
    axes = (words, ways, shots)
    if any(not axis or list(axis) != sorted(set(axis)) or axis[0] <= 0 for axis in axes):
        raise ValueError(f"axes must rise from above 0; got {rule['axes']}")
    temperatures = {
        (word, way, shot): ProbabilityMap(rule["temperatures"][i][j][k]).temperature
        for i, word in enumerate(words)
        for j, way in enumerate(ways)
        for k, shot in enumerate(shots)
    }
    key = (
        str(rule["tokenizer_hash"]),
        str(rule["prompt"]),
        str(rule["method"]),
        bool(rule["ensemble"]),
        bool(rule["contextual"]),
    )
    return key, Grid(axes, temperatures, int(rule["n"]))


def is_same_llm(identity: str, known: str) -> bool:
    """Whether an LLM's identity is the known one, with or without options of its adapter after another bar."""
    return identity == known or identity.startswith(known + "|")


@functools.cache
def packaged_maps() -> tuple[MapFolder, ...]:
    """All folders of maps that come with the library."""
    top = Path(str(files("icl_vision"))) / "artefacts" / "probabilities"
    if not top.is_dir():
        return ()
    return tuple(MapFolder.load(folder) for folder in sorted(top.iterdir()) if (folder / CARD_FILE).is_file())


def find_map(situation: Situation) -> ProbabilityMap | None:
    """The packaged map for a situation, None where none is known."""
    candidates = (maps.find(situation) for maps in packaged_maps())
    return next((fitted for fitted in candidates if fitted is not None), None)


def knows_llm(identity: str) -> bool:
    """Whether any packaged map is for this LLM."""
    return any(is_same_llm(identity, maps.llm) for maps in packaged_maps())
