"""What a denoiser does where it is not told: by the size of the tokenizer's vocabulary.

In a vocabulary of thousands hardly a word of one photograph stands in another one, and within a photograph hardly a
word stands twice (spae-photo-128: 97 of 100 words of a layer are different ones). What other pictures have at a place
then says nothing, and the only words to be had are the condition's own. A vocabulary of dozens, as the digits' 64
patterns, is shared by all pictures, and places say much.

Knows: numbers of words, tasks, protocols. Refuses to know: pictures, LLM clients.
"""

from __future__ import annotations

from dataclasses import dataclass

from icl_vision.drawing.stages import Allowed
from icl_vision.tasks.denoise.plan import Refine
from icl_vision.tasks.denoise.tasks import WHOLE, DenoisingTask

LARGE = 1000
"""Words; see above."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values for the arguments of ``ImageDenoiser`` of the same names that were left at None."""

    allowed: Allowed
    refine: Refine
    guidance: float
    most_uses: int | None

    @classmethod
    def of(cls, task: DenoisingTask, *, words: int, own: bool, leaking: bool, whole: bool, scores: bool) -> Defaults:
        """The defaults.

        Args:
            words: of the tokenizer's vocabulary.
            own: whether the condition's words may be answered.
            leaking: whether the examples are copies of the query's target, whose words they then share.
            whole: whether prompts show the whole condition.
            scores: whether the LLM gives log-probabilities, which guidance needs.
        """
        if words < LARGE or leaking or not own:
            return cls("place", "agnostic", task.guidance if scores else 1.0, None)
        # Where a part is missing it is continued from the others; else each place has a word of the condition.
        partial = task.box != WHOLE
        return cls("own" if partial else "shown", "agnostic" if partial or whole else "task", 1.0, 1)
