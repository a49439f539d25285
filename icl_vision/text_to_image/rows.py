"""The rows of an evaluation: from a text to the states that a diffusion model draws from, in several ways.

The text encoder (what the diffusion model was trained with, a ceiling for plain captions), the mapped LLM with its
adapters and without, a mapper that was never trained, and what needs no LLM: the training caption that is nearest by
its characters, by the text encoder, or by the mapped states.

Knows: states and captions. Refuses to know: what is measured (``evaluation.text_to_image``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.evaluation.text_to_image.evaluation import Row, Settings
from icl_vision.text_to_image.captions import Caption, fold
from icl_vision.text_to_image.denoisers.samplers import demonstration_sampler, pipeline_sampler
from icl_vision.text_to_image.mapper import Mapper
from icl_vision.text_to_image.pipeline import LLMTextToImage
from icl_vision.text_to_image.text_encoder import TextEncoder

if TYPE_CHECKING:
    from PIL import Image

ENCODER: Final = "text encoder"
STAGE1: Final = "stage 1"
STAGE2: Final = "stage 2"
RANDOM: Final = "random mapper"
NEAREST_CHARACTERS: Final = "nearest by characters"
NEAREST_ENCODER: Final = "nearest by text encoder"
NEAREST_MAPPED: Final = "nearest mapped"
SHUFFLED: Final = "shuffled prompts"
ROWS: Final = (
    ENCODER, STAGE1, STAGE2, RANDOM, NEAREST_CHARACTERS, NEAREST_ENCODER, NEAREST_MAPPED, SHUFFLED,
)  # fmt: skip
"""All rows that a system gives, in the order of tables."""
MEANINGS: Final = {
    ENCODER: "the text encoder's own states: what the diffusion model was trained with",
    STAGE1: "the LLM's states through the mapper, adapters off",
    STAGE2: "the LLM's states through the mapper, adapters at work",
    RANDOM: "the LLM's states through a mapper that was never trained; its mean state is the trained one's",
    NEAREST_CHARACTERS: "no LLM: the text encoder's states of the training caption with the most characters in common",
    NEAREST_ENCODER: "no LLM: the text encoder's states of the training caption that it holds nearest",
    NEAREST_MAPPED: "the text encoder's states of the training caption that is nearest to the mapped states",
    SHUFFLED: "control: as the system draws, with the captions dealt out at random",
}
_GRAMS: Final = (2, 3)


class SystemRows:
    """The rows of one system.

    Args:
        system: opened.
        encoder: the text encoder that its diffusion model was trained with; None where rows do without.
        captions: what the system was trained on, for the nearest ones.
        seed: of the mapper that was never trained.
    """

    def __init__(
        self,
        system: LLMTextToImage,
        encoder: TextEncoder | None = None,
        captions: Sequence[Caption] = (),
        *,
        seed: int = 0,
    ) -> None:
        self.system = system
        self.encoder = encoder
        self.captions = list(captions)
        self.seed = seed
        self._kept: dict[str, Any] = {}

    def names(self) -> tuple[str, ...]:
        """The rows that this system can give."""
        left_out: set[str] = set() if self.system.adapters else {STAGE2}
        if self.encoder is None:
            left_out |= {ENCODER, NEAREST_CHARACTERS, NEAREST_ENCODER, NEAREST_MAPPED}
        if not self.captions:
            left_out |= {NEAREST_CHARACTERS, NEAREST_ENCODER, NEAREST_MAPPED}
        return tuple(name for name in ROWS if name not in left_out)

    def row(self, name: str) -> Row:
        """One row. Raises UsageError where this system has none of that name."""
        if name not in self.names():
            raise UsageError(f"there is no row {name!r} here; there are {', '.join(self.names())}")
        makers: dict[str, Callable[[Sequence[str]], Tensor]] = {
            ENCODER: self._encoded,
            STAGE1: self._stage1,
            STAGE2: self.system.states,
            RANDOM: self._random,
            NEAREST_CHARACTERS: self._nearest_by_characters,
            NEAREST_ENCODER: self._nearest_by_encoder,
            NEAREST_MAPPED: self._nearest_mapped,
            SHUFFLED: self.system.states,
        }
        # What is drawn away from comes from where the states come from.
        own = name in (ENCODER, NEAREST_CHARACTERS, NEAREST_ENCODER, NEAREST_MAPPED)
        return Row(name, MEANINGS[name], self._drawing(makers[name], encoded=own), shuffled=name == SHUFFLED)

    def _drawing(self, states_of: Callable[[Sequence[str]], Tensor], *, encoded: bool) -> Any:
        def draw(texts: Sequence[str], seeds: Sequence[int], settings: Settings) -> list[Image.Image]:
            system = self.system
            use_sampler(system, settings.sampler)
            states = states_of(texts)
            away = self._no_caption() if encoded else system.mapper.null
            return system.draw_states(
                states, away.to(states), seed=list(seeds), guidance=settings.guidance, steps=settings.steps
            )

        return draw

    # ---- states ----

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        assert self.encoder is not None  # names() leaves such rows out
        return self.encoder.encode(list(texts))

    def _no_caption(self) -> Tensor:
        null: Tensor = self._once("null", lambda: self._encoded([""])[0])
        return null

    def _stage1(self, texts: Sequence[str]) -> Tensor:
        with self.system.unadapted():
            return self.system.states(texts)

    def _random(self, texts: Sequence[str]) -> Tensor:
        mapper = self._once("random", self._untrained)
        with self.system.unadapted(), torch.inference_mode():
            found = self.system.understood(texts)
            states: Tensor = mapper(found.values, found.mask)
        return states.float()

    def _untrained(self) -> Mapper:
        trained = self.system.mapper
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            mapper = Mapper(trained.config, inputs=trained.inputs, length=trained.length, outputs=trained.outputs)
        mapper.mean.copy_(trained.mean)
        mapper.null.copy_(trained.null)
        return mapper.eval().requires_grad_(False).to(trained.mean.device)

    # ---- the nearest training caption ----

    def _nearest_by_characters(self, texts: Sequence[str]) -> Tensor:
        known = self._once("grams", lambda: [_grams(caption.text) for caption in self.captions])
        return self._encoded([self.captions[_most_alike(_grams(text), known)].english for text in texts])

    def _nearest_by_encoder(self, texts: Sequence[str]) -> Tensor:
        known = self._once("encoded", lambda: _directions(self._encoded([one.text for one in self.captions])))
        best = (_directions(self._encoded(texts)) @ known.T).argmax(1)
        return self._encoded([self.captions[int(place)].english for place in best])

    def _nearest_mapped(self, texts: Sequence[str]) -> Tensor:
        targets = self._once("targets", self._targets)
        mapped = self.system.states(texts).cpu().flatten(1)
        # |a - b|^2 without a tensor of every pair: |a|^2 is the same for all candidates of a text.
        distance = targets.square().sum(1) - 2 * mapped @ targets.T
        english = self._once("english", lambda: list(dict.fromkeys(one.english for one in self.captions)))
        return self._encoded([english[int(place)] for place in distance.argmin(1)])

    def _targets(self) -> Tensor:
        return self._encoded(list(dict.fromkeys(one.english for one in self.captions))).flatten(1)

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


class OtherSystems:
    """Rows of further folders of parts, of which one at a time is in memory.

    Args:
        open: makes the system of a folder.
    """

    def __init__(self, open: Callable[[Path], LLMTextToImage]) -> None:
        self._open = open
        self._name: Path | None = None
        self._rows: SystemRows | None = None

    def row(self, name: str, folder: Path, kind: str = STAGE2, encoder: TextEncoder | None = None) -> Row:
        """A row of this name: how the system in a folder draws. kind: a name of ``ROWS``; stage 2 is stage 1 where it
        has no adapters."""

        def draw(texts: Sequence[str], seeds: Sequence[int], settings: Settings) -> list[Image.Image]:
            rows = self._opened(folder, encoder)
            own = STAGE1 if kind == STAGE2 and STAGE2 not in rows.names() else kind
            return rows.row(own).draw(texts, seeds, settings)

        return Row(name, f"the parts in {folder.name}, as the row {kind}", draw)

    def _opened(self, folder: Path, encoder: TextEncoder | None) -> SystemRows:
        if self._rows is None or self._name != folder:
            self._rows = None  # its memory first
            self._rows, self._name = SystemRows(self._open(folder)), folder
        # The same parts may stand in a row that reads the text encoder and in one that does not.
        self._rows.encoder = encoder
        return self._rows


def use_sampler(system: LLMTextToImage, name: str) -> None:
    """Have a system draw with another sampler. Raises UsageError for a name that is none."""
    if system.demonstration:
        system.pipeline.scheduler = demonstration_sampler(name)
    else:
        system.pipeline.scheduler = pipeline_sampler(name, system.pipeline.scheduler)


def _grams(text: str) -> Counter[str]:
    """Runs of two and three characters of each word, edges included."""
    words = [f" {word} " for word in fold(text).split()]
    return Counter(
        word[place : place + length] for word in words for length in _GRAMS for place in range(len(word) - length + 1)
    )


def _most_alike(wanted: Counter[str], known: Sequence[Counter[str]]) -> int:
    """The place of the set with the largest share in common (Dice), the first of several."""
    size = sum(wanted.values())
    shares = [2 * sum((wanted & one).values()) / max(1, size + sum(one.values())) for one in known]
    return max(range(len(shares)), key=shares.__getitem__)


def _directions(states: Tensor) -> Tensor:
    """The mean state of each text over its tokens, as a direction, [B, e]; places without a token are 0."""
    tokens = states.abs().sum(-1, keepdim=True) > 0
    mean = (states * tokens).sum(1) / tokens.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)
