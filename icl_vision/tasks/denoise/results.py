"""What restoring gives: a picture, its words, and whose words they are.

Knows: a result's parts and plain form. Refuses to know: how it comes to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.contracts import Usage
from icl_vision.drawing.drawing import Drawing
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.puzzles import Puzzle
from icl_vision.tasks.denoise.tasks import find_task

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.tokenizers.pixels import Preprocessing

LEAK = "the context holds corrupted copies of the answer itself (the papers' protocol)"


@dataclass(frozen=True, slots=True)
class DenoisedImage:
    """One restored picture.

    ``image``, ``condition`` and ``merged`` have the photograph's own shape, whatever square the tokenizer took it as.

    decoded: from ``pyramid``, as the tokenizer makes it; None where ``error`` says why. puzzle: what was asked.
    drawing: every segment's words, changes and usage. decided: by layer, whose words they are. leaking: the context
    held the answer. preprocessing: how the tokenizer took the photograph, None where it does not say.
    """

    puzzle: Puzzle
    task: str
    protocol: str
    decoded: Image.Image | None
    pyramid: TokenPyramid | None
    drawing: Drawing
    decided: tuple[str, ...]
    leaking: bool
    error: Exception | None = None
    preprocessing: Preprocessing | None = None

    @property
    def image(self) -> Image.Image | None:
        """The restored picture; None where ``error`` says why."""
        return None if self.decoded is None else self._in_shape(self.decoded)

    @property
    def condition(self) -> Image.Image:
        """What the LLM was shown, as a picture."""
        from PIL import Image

        return self._in_shape(Image.fromarray(self.puzzle.shown))

    @property
    def merged(self) -> Image.Image | None:
        """The condition with its unknown region taken from ``image``; ``image`` itself where all is unknown."""
        if self.decoded is None:
            return None
        from PIL import Image

        made, pixels = self.puzzle.shown.copy(), np.asarray(self.decoded)
        region = find_task(self.task).pixels(made.shape[0])
        made[region] = pixels[region]
        return self._in_shape(Image.fromarray(made))

    def _in_shape(self, picture: Image.Image) -> Image.Image:
        if self.preprocessing is None or self.puzzle.size is None:
            return picture
        restore = getattr(self.preprocessing, "restore", None)  # a tokenizer of a user's may have a rule of its own
        return picture if restore is None else restore(picture, self.puzzle.size)

    @property
    def usage(self) -> Usage:
        """Requests and tokens."""
        return self.drawing.usage

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without pixels."""
        return {
            "name": self.puzzle.name,
            "task": self.task,
            "protocol": self.protocol,
            "leaking": self.leaking,
            "words": None if self.pyramid is None else [self.pyramid.words(n + 1) for n in range(self.pyramid.layers)],
            "kept_words": len(self.puzzle.query.known),
            "decided": list(self.decided),
            "constrained": self.drawing.constrained,
            "changes": [change.to_dict() for change in self.drawing.changes],
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }
