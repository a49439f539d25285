"""Digits drawn by a diffusion model from many captions, by every row from the same noise, and read by a judge.

Knows: which rows draw what, how settings are chosen on validation captions, run folders. Refuses to know: what makes a
row's pictures (torch, LLMs; ``text_to_image.rows`` has those), pages, how results are summed up.

Guidance, sampler and steps are chosen first: every candidate draws the validation captions by one row, and the one of
which most is read right is used by all rows on all sets. Validation captions are in no set. A batch of drawings is kept
as one picture in the run folder before it is journalled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from icl_vision import checks
from icl_vision.errors import RunError, UsageError
from icl_vision.files.storage import atomic_path

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.evaluation.kit.digit_reader import Reader
    from icl_vision.files.runs import Run

BATCH = 20
"""Drawings of one journalled item."""
VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A caption and the digit that it means, "0" to "9"."""

    text: str
    digit: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How pictures are sampled. guidance: 1 and below is none. sampler: as the pipeline names it. steps: of it."""

    guidance: float
    sampler: str
    steps: int

    def __str__(self) -> str:
        return f"{self.sampler}-{self.steps}-{self.guidance:g}"


class Draw(Protocol):
    """Draws texts, each from the noise of its seed."""

    def __call__(self, texts: Sequence[str], seeds: Sequence[int], settings: Settings) -> list[Image.Image]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One way from a text to a picture.

    name: in tables, letters, digits and spaces. meaning: in a line. draw: see ``Draw``. shuffled: it is given the
    captions of its set dealt out at random, so that they mean nothing.
    """

    name: str
    meaning: str
    draw: Draw
    shuffled: bool = False


@dataclass(frozen=True, slots=True)
class TextToImageConfig:
    """What is drawn.

    sets: captions by the name of what they try. validation: captions to choose settings with. candidates: settings to
    choose from; one alone is used as it is. choose_by: the row that draws the validation captions. seed: of noise and
    of shuffling.
    """

    sets: Mapping[str, tuple[Wanted, ...]]
    validation: tuple[Wanted, ...]
    candidates: tuple[Settings, ...]
    choose_by: str
    seed: int = 0

    def __post_init__(self) -> None:
        checks.count("seed", self.seed, least=0)
        if not self.candidates:
            raise UsageError("there must be at least one guidance and one sampler to draw with")
        for name, captions in self.sets.items():
            if not captions or "/" in name:
                raise UsageError(f"a set has captions, and a name without a slash; got {len(captions)} of {name!r}")
        met = {caption.text for captions in self.sets.values() for caption in captions}
        shared = next((caption.text for caption in self.validation if caption.text in met), None)
        if shared is not None:
            raise UsageError(f"settings would be chosen on a caption that is measured, {shared!r}: leave it out of one")


@dataclass(slots=True)
class TextToImageEvaluation:
    """Draws, reads and keeps everything.

    Args:
        rows: in the order in which they are drawn.
        reader: reads digits on drawings.
        config: what is drawn.
    """

    rows: Sequence[Row]
    reader: Reader
    config: TextToImageConfig

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names) or any("/" in name for name in names):
            raise UsageError(f"rows must have different names, without slashes; got {', '.join(names)}")
        if len(self.config.candidates) > 1 and (self.config.choose_by not in names or not self.config.validation):
            raise UsageError(
                f"settings are chosen by a row that is drawn, on validation captions; got {self.config.choose_by!r}, "
                f"{len(self.config.validation)} captions and the rows {', '.join(names)}"
            )

    @property
    def total(self) -> int:
        """How many items there are."""
        return sum(1 for _ in self._trials()) + sum(1 for _ in self._items())

    def draw(self, run: Run, *, done: Callable[[], object] | None = None) -> Settings:
        """Draw and journal everything that the run does not hold yet; the settings that were chosen.

        Raises:
            IclVisionError: what a row raises; what was drawn is kept.
            RunError: a picture of the run's folder is gone.
        """
        by_name = {row.name: row for row in self.rows}
        for settings, number, wanted in self._trials():
            self._do(
                run, f"{VALIDATION}/{settings}/{number:03d}", by_name[self.config.choose_by], wanted, settings, done
            )
        chosen = self.chosen(run)
        for row, name, number, wanted in self._items():
            self._do(run, f"{name}/{row.name}/{number:03d}", row, wanted, chosen, done)
        return chosen

    def chosen(self, run: Run) -> Settings:
        """The candidate of which most validation captions were read right; of several, the fewest steps, then the least
        guidance, then the first."""
        right = {str(settings): 0 for settings in self.config.candidates}
        for item, result in run.results():
            kind, name, _ = item.split("/")
            if kind == VALIDATION:
                right[name] += sum(drawing["right"] for drawing in result["drawings"])
        order = sorted(self.config.candidates, key=lambda one: (-right[str(one)], one.steps, one.guidance))
        return order[0]

    def _trials(self) -> Iterator[tuple[Settings, int, list[tuple[int, Wanted, str]]]]:
        if len(self.config.candidates) == 1:
            return
        for settings in self.config.candidates:
            yield from ((settings, number, part) for number, part in _parts(self.config.validation, None))

    def _items(self) -> Iterator[tuple[Row, str, int, list[tuple[int, Wanted, str]]]]:
        # Row by row: what a row needs (an LLM of its own, say) is in memory once.
        for row in self.rows:
            for name, captions in self.config.sets.items():
                order = np.random.default_rng([self.config.seed, 23]).permutation(len(captions))
                for number, part in _parts(captions, order if row.shuffled else None):
                    yield row, name, number, part

    def _do(
        self,
        run: Run,
        item: str,
        row: Row,
        wanted: Sequence[tuple[int, Wanted, str]],
        settings: Settings,
        done: Callable[[], object] | None,
    ) -> None:
        if item in run.done:
            return
        began = time.monotonic()
        seeds = [self.config.seed * 1_000_003 + place for place, _, _ in wanted]
        images = row.draw([text for _, _, text in wanted], seeds, settings)
        seconds = time.monotonic() - began
        read = self.reader.read(images)
        _keep(sheet_path(run.folder, item), images)
        drawings = [
            {
                "text": one.text,
                "shown": text,
                "digit": one.digit,
                "seed": seed,
                "read": said,
                "right": said == one.digit,
            }
            for (_, one, text), seed, said in zip(wanted, seeds, read, strict=True)
        ]
        run.record(item, {"drawings": drawings, "settings": asdict(settings), "seconds": seconds})
        if done is not None:
            done()


def sheet_path(folder: Path, item: str) -> Path:
    """Where the pictures of an item lie, side by side."""
    return folder / "drawn" / f"{item.replace(' ', '-')}.png"


def pictures_of(folder: Path, item: str, number: int) -> list[Image.Image]:
    """The drawings of an item. Raises RunError where they are gone."""
    from icl_vision.images import load_image

    path = sheet_path(folder, item)
    if not path.is_file():
        raise RunError(f"{str(path)!r} is gone, which the run in {str(folder)!r} drew: draw into another folder")
    sheet = load_image(path)
    side = sheet.width // number
    return [sheet.crop((place * side, 0, (place + 1) * side, sheet.height)) for place in range(number)]


def _parts(
    captions: Sequence[Wanted], order: Sequence[int] | Any | None
) -> Iterator[tuple[int, list[tuple[int, Wanted, str]]]]:
    """Batches of (place, caption, the text that is shown)."""
    whole = [
        (place, caption, captions[place if order is None else int(order[place])].text)
        for place, caption in enumerate(captions)
    ]
    for number, start in enumerate(range(0, len(whole), BATCH)):
        yield number, whole[start : start + BATCH]


def _keep(path: Path, images: Sequence[Image.Image]) -> None:
    from PIL import Image

    width, height = images[0].size
    sheet = Image.new(images[0].mode, (width * len(images), height))
    for place, image in enumerate(images):
        sheet.paste(image, (place * width, 0))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
