"""How well an LLM draws digits: drawings from many contexts, beside what needs no LLM, and controls.

Knows: which rows there are, what is measured of a drawing, run folders. Refuses to know: how an LLM is asked, pages.

From every context (``drawing.items``) one picture of each text is drawn by every row, so that rows can be
compared in pairs. A digit reader, trained on real digits only, says what each drawing looks like.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.contracts import Usage
from icl_vision.drawing.drawing import Pair
from icl_vision.errors import AnswerRefusedError, IclVisionError
from icl_vision.evaluation.drawing.items import Context, DigitPool, Wanted, contexts_for
from icl_vision.evaluation.drawing.rows import BASELINES
from icl_vision.files.runs import read_usage
from icl_vision.llms import connect
from icl_vision.llms.cost import Meter
from icl_vision.llms.wrappers.metered import MeteredLLM
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.draw.generator import ImageGenerator

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.evaluation.kit.digit_reader import Reader
    from icl_vision.files.runs import Run

LLM, SINGLE, SHUFFLED, CEILING = "llm", "single pass", "shuffled texts", "ceiling"
CONTROLS = (SINGLE, SHUFFLED)

COPY = 0.05
"""A drawing nearer than this to an example as the tokenizer draws it (root mean square difference of grey values from 0
to 1) counts as its copy: by eye no different; two words of 37 changed are more."""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """What is drawn.

    n: drawings of each row, a multiple of the texts. shots: examples of each digit. seed: of contexts and
    sampling. wanted: the texts to draw. controls: rows that ask the LLM again. control_n: drawings of each of them, the
    first ones; they cost as much as the LLM's own.
    """

    n: int
    wanted: tuple[Wanted, ...]
    shots: int = 5
    seed: int = 0
    controls: tuple[str, ...] = CONTROLS
    control_n: int = 50


@dataclass(slots=True)
class GenerationEvaluation:
    """Draws, and keeps every drawing.

    Args:
        generator: an ImageGenerator, not fitted; its ``shots`` and ``seed`` are set for each context.
        tokenizer: the one it uses.
        pool: digits to draw contexts from.
        reader: reads drawings.
        config: what is drawn.
    """

    generator: ImageGenerator
    tokenizer: Tokenizer
    pool: DigitPool
    reader: Reader
    config: GenerationConfig
    _contexts: dict[int, tuple[Context, list[Pair]]] = field(default_factory=dict)
    _llm: TextLLM | None = None

    @property
    def contexts(self) -> int:
        """How many contexts there are."""
        return contexts_for(self.config.n, self.config.wanted)

    def items(self) -> Iterator[tuple[str, int]]:
        """Every (row, context), the LLM's own before the controls."""
        for number in range(self.contexts):
            for row in (CEILING, *BASELINES, LLM):
                yield row, number
        for row in self.config.controls:
            for number in range(min(self.contexts, max(1, self.config.control_n // len(self.config.wanted)))):
                yield row, number

    def plan(self) -> tuple[Any, int]:
        """What one context of the LLM's row asks, and how many times that is asked in all, controls included."""
        _, pairs = self.context(0)
        asked = sum(row in (LLM, *self.config.controls) for row, _ in self.items())
        return self._fitted(LLM, 0, pairs).plan([wanted.text for wanted in self.config.wanted]), asked

    def draw(self, run: Run, *, done: Callable[[str, int], object] | None = None) -> None:
        """Draw and journal everything that the run does not hold yet; done: told of each (row, context)."""
        self._llm = self._metered(run)
        for row, number in self.items():
            item = f"{row}/{number:03d}"
            if item in run.done:
                continue
            try:
                result = self._drawn(row, number, run.folder)
            except IclVisionError as error:
                run.record_error(item, error)
                raise
            run.record(item, result)
            if done is not None:
                done(row, number)

    def _metered(self, run: Run) -> TextLLM | None:
        """The LLM behind the generator's budget, which is one for all contexts and for what earlier parts of the run
        used; None where there is none."""
        if self.generator.budget is None:
            return None
        meter = Meter(self.generator.prices, self.generator.budget)
        llm = MeteredLLM(connect(self.generator.llm), meter)
        for folder in sorted((run.folder / "drawn").glob("*")):
            meter.settle(llm.name, Usage(), read_usage(folder))
        return llm

    def context(self, number: int) -> tuple[Context, list[Pair]]:
        """A context and its examples as words, in the order of the digits."""
        known = self._contexts.get(number)
        if known is None:
            context = self.pool.context(number, self.config.shots, self.config.seed)
            pyramids = self.tokenizer.encode(context.images)
            known = context, [Pair(text, pyramid) for text, pyramid in zip(context.texts, pyramids, strict=True)]
            self._contexts = {number: known}  # one at a time is enough
        return known

    def _drawn(self, row: str, number: int, folder: Path) -> dict[str, Any]:
        context, pairs = self.context(number)
        started = time.monotonic()
        usage, errors, begun = Usage(), {}, False
        drawn: list[TokenPyramid | None]
        if row == CEILING:
            digits = [context.fresh[int(wanted.digit)] for wanted in self.config.wanted]
            drawn = [*self.tokenizer.encode(digits)]
        elif row in BASELINES:
            rule = BASELINES[row]
            drawn = [
                _pyramid(rule(pairs, wanted.text, [self.config.seed, number, index, 13]), self.tokenizer)
                for index, wanted in enumerate(self.config.wanted)
            ]
        else:
            generator = self._fitted(row, number, pairs)
            kept = folder / "drawn" / f"{row.replace(' ', '-')}-{number:03d}"
            begun = kept.exists()
            results = generator.generate([wanted.text for wanted in self.config.wanted], out=kept, resume=True)
            for image in results:
                if image.error is not None and not isinstance(image.error, AnswerRefusedError):
                    raise image.error  # no answer, not a bad one: to be asked again on resume
            drawn = [image.pyramid for image in results]
            usage = sum((image.usage for image in results), Usage())
            errors = {str(index): str(image.error) for index, image in enumerate(results) if image.error is not None}
        # Of a context that was begun before, only a part was timed.
        seconds = None if begun else time.monotonic() - started
        return {
            "drawings": self._measured(drawn, pairs),
            "usage": usage.to_dict(),
            "seconds": seconds,
            "errors": errors,
        }

    def _fitted(self, row: str, number: int, pairs: Sequence[Pair]) -> ImageGenerator:
        generator = type(self.generator)(**self.generator.get_params())
        generator.set_params(shots=None, seed=self.config.seed * 1000 + number, errors="return")
        if self._llm is not None:
            generator.set_params(llm=self._llm, budget=None)
        if row == SINGLE:
            generator.set_params(passes="single", guidance=1.0)
        texts = [str(pair.condition) for pair in pairs]
        if row == SHUFFLED:
            order = np.random.default_rng([self.config.seed, number, 17]).permutation(len(texts))
            texts = [texts[index] for index in order]
        return generator.fit([pair.target for pair in pairs], texts)

    def _measured(self, drawn: Sequence[TokenPyramid | None], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """Of each drawing: words, what is read, whether that is right, and the nearest example."""
        whole = [pyramid for pyramid in drawn if pyramid is not None]
        images = self.tokenizer.decode(whole) if whole else []
        read = iter(self.reader.read(images))
        pixels = iter(images)
        examples = np.stack([grey(image) for image in self.tokenizer.decode([pair.target for pair in pairs])])
        rows: list[dict[str, Any]] = []
        for wanted, pyramid in zip(self.config.wanted, drawn, strict=True):
            if pyramid is None:
                rows.append({"text": wanted.text, "digit": wanted.digit, "words": None, "read": None, "right": False})
                continue
            said, image = next(read), next(pixels)
            distances = np.sqrt(((examples - grey(image)) ** 2).mean(axis=(1, 2)))
            rows.append({
                "text": wanted.text, "digit": wanted.digit, "words": pyramid.words(), "read": said,
                "right": said == wanted.digit, "nearest": float(distances.min()),
                "same_words": max(_equal(pyramid, pair.target) for pair in pairs),
            })  # fmt: skip
        return rows


def grey(image: Image.Image) -> Any:
    """float64 [H, W], 0 to 1."""
    return np.asarray(image.convert("L"), dtype=np.float64) / 255


def images_of(tokenizer: Tokenizer, drawings: Sequence[Mapping[str, Any]]) -> list[Image.Image | None]:
    """The pictures of journalled drawings."""
    pyramids = [None if drawing["words"] is None else _pyramid(drawing["words"], tokenizer) for drawing in drawings]
    whole = [pyramid for pyramid in pyramids if pyramid is not None]
    images = iter(tokenizer.decode(whole) if whole else [])
    return [None if pyramid is None else next(images) for pyramid in pyramids]


def _pyramid(words: Sequence[str], tokenizer: Tokenizer) -> TokenPyramid:
    return tokenizer.from_text(" ".join(words))


def _equal(drawn: TokenPyramid, other: TokenPyramid) -> int:
    return sum(a == b for a, b in zip(drawn.words(), other.words(), strict=True))
