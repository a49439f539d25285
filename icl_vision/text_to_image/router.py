"""The router: whether a line wants a picture or an answer in words, with a probability that means what it says.

    router = Router.packaged()
    router.route("Zeichne mir einen Fuchs").name              # "draw"
    router.route("What does a picture of a fox show?").name   # "text"

Multinomial naive Bayes over words and characters (the report "Beyond CLIP" has a naive Bayes router over "hundreds" of
instructions, and gives neither features nor threshold). Between two thresholds it abstains; then the chat LLM is asked
where there is one, and the line is answered in text where there is none, or its answer names no route.

Knows: counts, thresholds, the router's file. Refuses to know: torch, scikit-learn (which fits one:
``routing.fitting``), and what a picture or an answer is made by.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.contracts import TextLLM
from icl_vision.errors import StorageError, UsageError
from icl_vision.files.reading import read_json
from icl_vision.files.storage import json_text, write_text
from icl_vision.tasks.routing import RouteName, ask_route, route_prompt
from icl_vision.text_to_image.routing.features import MOST_FEATURE, features, readable

FORMAT = "icl_vision router"
FORMAT_VERSION = 1
ROUTER_FILE = "router.json"
PACKAGED = "router"
"""The router that comes with the library; its folder holds the instructions it was fitted to."""

MOST_BYTES = 64 * 2**20
"""Of a router's file."""
MOST_FEATURES = 500_000
MOST_COUNT = 10**9
LENGTH_POWER = 0.5
"""A line's log-odds are divided by its weight to this power: its features are no independent witnesses."""

By = Literal["counts", "llm", "unsure"]
"""Who decided: the counts; the LLM that was asked; nobody, and so the line is answered in text."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a line goes.

    Attributes:
        name: "draw" or "text".
        probability: that a picture is wanted, by the counts, whoever decided.
        by: "counts", "llm" or "unsure".
        reply: what the LLM said, where it was asked.
    """

    name: RouteName
    probability: float
    by: By
    reply: str | None = None

    @property
    def draw(self) -> bool | None:
        """Whether a picture is wanted; None where nobody was sure."""
        return None if self.by == "unsure" else self.name == "draw"

    @property
    def confidence(self) -> float:
        """The probability, by the counts, of the route taken."""
        return self.probability if self.name == "draw" else 1.0 - self.probability

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "route": self.name,
            "probability": self.probability,
            "confidence": self.confidence,
            "by": self.by,
            "reply": self.reply,
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a line's log-odds to a probability, and where the router abstains.

    slope, offset: of the logistic curve (Platt 1999), fitted to templates that the counts did not see.
    draw_from: the least probability at which a line is drawn. text_below: below it, a line is answered in text.
    """

    slope: float
    offset: float
    draw_from: float
    text_below: float

    def __post_init__(self) -> None:
        for name in ("slope", "offset", "draw_from", "text_below"):
            checks.number(name, getattr(self, name), error=StorageError)
        if self.slope <= 0 or not 0 <= self.text_below <= self.draw_from <= 1:
            raise StorageError(
                "a router's slope must be above 0 and its thresholds must be 0 <= text_below <= draw_from <= 1; got "
                f"{self.slope:g}, {self.text_below:g} and {self.draw_from:g}"
            )


class Router:
    """Naive Bayes over the features of a line. Made by ``packaged``, ``load`` or ``fit``; nothing of it changes.

    Args:
        names: the features, each once.
        counts: how often each was met on lines of [draw, text], [2, features], whole numbers.
        smoothing: what is added to every count, above 0.
        calibration: see there.
        facts: whatever is to be kept with it: what it was fitted to, what was measured. JSON-ready.

    Raises:
        StorageError: parts that do not fit together.
    """

    def __init__(
        self,
        names: Sequence[str],
        counts: npt.NDArray[np.int64],
        *,
        smoothing: float,
        calibration: Calibration,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.counts = np.array(counts, dtype=np.int64)
        self.counts.flags.writeable = False
        self.smoothing = checks.number("smoothing", smoothing, above=0, most=1e6, error=StorageError)
        self.calibration = calibration
        self.facts = dict(facts or {})
        self._places = {name: place for place, name in enumerate(self.names)}
        if self.counts.shape != (2, len(self.names)) or len(self._places) != len(self.names) or not self.names:
            raise StorageError(
                f"a router needs two counts for each of its features, which must differ; got {len(self.names):,} "
                f"features, {len(self._places):,} of them different, and counts of shape {self.counts.shape}"
            )
        if self.counts.min() < 0 or self.counts.max() > MOST_COUNT:
            raise StorageError(f"a router's counts must be whole numbers from 0 to {MOST_COUNT:,}")
        smoothed = np.log(self.counts + self.smoothing) - np.log(
            (self.counts + self.smoothing).sum(axis=1, keepdims=True)
        )
        self._odds: npt.NDArray[np.float64] = smoothed[0] - smoothed[1]

    def __repr__(self) -> str:
        return f"<Router: {len(self.names):,} features, {self.facts.get('templates', '?')} templates>"

    # ---- made ----

    @classmethod
    def packaged(cls) -> Router:
        """The router that comes with the library: twelve languages (docs/text-to-image.md has its figures)."""
        return _packaged()

    @classmethod
    def fit(cls, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, seed: int = 0) -> Router:
        """A router fitted to the lines of a file, or of several (``routing.lines`` says their form).

        Args:
            path: one file or several. ``icl_vision.text_to_image.router.packaged_lines()`` is the packaged one.
            seed: of the folds by which it is calibrated.

        Raises:
            UsageError: lines that cannot be read, or too few of them.
            MissingExtraError: without scikit-learn.
        """
        from icl_vision.text_to_image.routing.fitting import fit_router
        from icl_vision.text_to_image.routing.lines import read_instructions

        paths = [path] if isinstance(path, str | os.PathLike) else list(path)
        return fit_router([one for each in paths for one in read_instructions(each)], seed=seed)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Router:
        """The router of a file that ``save`` wrote.

        Raises:
            StorageError: no such file, or no router in it.
        """
        source = os.fspath(path)
        try:
            document = read_json(path, most=MOST_BYTES)
        except FileNotFoundError as error:
            raise StorageError(f"there is no file {source!r}") from error
        except OSError as error:
            raise StorageError(f"{source!r} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise StorageError(f"{source!r} is no router: {error}") from error
        try:
            return cls._from_document(document)
        except StorageError as error:
            raise StorageError(f"{source!r} is no router that can be used: {error}") from error

    @classmethod
    def _from_document(cls, document: object) -> Router:
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise StorageError(f"it does not say that its format is {FORMAT!r}")
        version = document.get("format_version")
        if version != FORMAT_VERSION:
            raise StorageError(f"its format version is {checks.shown(version)}; this version reads {FORMAT_VERSION}")
        names, draw, text = (_listed(document, name) for name in ("features", "draw", "text"))
        if not all(isinstance(name, str) and 0 < len(name) <= MOST_FEATURE for name in names):
            raise StorageError(f"its features must be texts of 1 to {MOST_FEATURE} characters")
        for column in (draw, text):
            if not all(type(count) is int and 0 <= count <= MOST_COUNT for count in column):
                raise StorageError(f"its counts must be whole numbers from 0 to {MOST_COUNT:,}")
        if not len(names) == len(draw) == len(text):
            raise StorageError(f"it has {len(names)} features, but {len(draw)} and {len(text)} counts")
        calibration, facts = document.get("calibration"), document.get("facts", {})
        if not isinstance(calibration, dict) or set(calibration) != set(Calibration.__slots__):
            raise StorageError(f"its calibration must have {', '.join(Calibration.__slots__)}")
        if not isinstance(facts, dict):
            raise StorageError("its facts must be an object")
        return cls(
            names,
            np.array([draw, text], dtype=np.int64),
            smoothing=document.get("smoothing"),  # type: ignore[arg-type]  # __init__ refuses what is no number
            calibration=Calibration(**calibration),
            facts=facts,
        )

    def to_document(self) -> dict[str, Any]:
        """What ``save`` writes."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "smoothing": self.smoothing,
            "calibration": {name: getattr(self.calibration, name) for name in Calibration.__slots__},
            "facts": self.facts,
            "features": list(self.names),
            "draw": self.counts[0].tolist(),
            "text": self.counts[1].tolist(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all. Raises UnwritableError."""
        write_text(Path(path), json_text(self.to_document(), separators=(",", ":")) + "\n")

    # ---- used ----

    def log_odds(self, line: str) -> float:
        """log P(line | draw) - log P(line | text), over the line's weight to ``LENGTH_POWER``; 0 where nothing of the
        line is known. Raises UsageError where it is no text."""
        if not isinstance(line, str):
            raise UsageError(f"a line must be a text; got {checks.shown(line)} ({type(line).__name__})")
        known = [(self._places[name], weight) for name, weight in features(line).items() if name in self._places]
        if not known:
            return 0.0
        total = sum(weight for _, weight in known)
        return float(sum(self._odds[place] * weight for place, weight in known)) / float(total**LENGTH_POWER)

    def probability(self, line: str) -> float:
        """How likely it is that a line wants a picture, 0 to 1. Raises UsageError where it is no text."""
        raised = self.calibration.slope * self.log_odds(line) + self.calibration.offset
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, raised))))

    def route(
        self,
        line: str,
        llm: TextLLM | None = None,
        *,
        template: str = "route",
        templates: str | os.PathLike[str] | None = None,
    ) -> Route:
        """Where a line goes.

        Args:
            line: what a user wrote; anything, of any length. Of a long one its beginning and end are read.
            llm: asked where the router is not sure; None: such lines are answered in text.
            template: the template by which it is asked.
            templates: a folder of your own templates.

        Raises:
            UsageError: ``line`` is no text.
            TemplateError: no such template.
            LLMError: the LLM had to be asked and could not answer.
        """
        probability = self.probability(line)
        asked = readable(line)
        if not asked:
            return Route("text", probability, "unsure")
        if probability >= self.calibration.draw_from:
            return Route("draw", probability, "counts")
        if probability < self.calibration.text_below:
            return Route("text", probability, "counts")
        if llm is None:
            return Route("text", probability, "unsure")
        name, reply = ask_route(llm, route_prompt(asked, template=template, folder=templates))
        return Route("text", probability, "unsure", reply) if name is None else Route(name, probability, "llm", reply)


def packaged_lines() -> Path:
    """The file of instructions that the packaged router was fitted to."""
    return _folder() / "instructions.jsonl"


def _folder() -> Path:
    return Path(str(files("icl_vision") / "artefacts" / "text_to_image" / PACKAGED))


@functools.cache
def _packaged() -> Router:
    return Router.load(_folder() / ROUTER_FILE)


def _listed(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list) or len(value) > MOST_FEATURES:
        raise StorageError(f"its {name} must be a list of at most {MOST_FEATURES:,}")
    return value
