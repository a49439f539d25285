"""Captions of pictures, written by a frozen text LLM after a few captioned ones (SPAE, section 4.3).

Knows: what a user may set and ask. Refuses to know: how any one step works (``task``, ``fitted``, ``scoring``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

from icl_vision.asking.inquiries import Inquiry
from icl_vision.asking.plan import Plan
from icl_vision.contracts import Answer, TextLLM, Tokenizer
from icl_vision.llms import Budget
from icl_vision.llms.cost import PriceTable
from icl_vision.tasks.answer.answered import MOST_CAPTION, Asked, as_queries, most_central
from icl_vision.tasks.answer.prompts import CAPTIONING
from icl_vision.tasks.answer.task import AnsweringTask
from icl_vision.tasks.answer.visual_qa import Picture
from icl_vision.tasks.saving import SavedForm
from icl_vision.tasks.tools import Tool, captioning

MAX_TOKENS = 20
"""Of a caption, as in SPAE."""


class Captioner(AnsweringTask):
    """Writes captions of pictures by showing an LLM a few captioned ones, all as words.

    Args:
        llm, tokenizer, k: as of ``VisualQA``.
        shots: so many examples are shown; None for all.
        repeats: how many times more each example is shown.
        selection: which examples are shown: "nearest" (for each picture, those whose words are closest, the closest
            last) or "random" (a draw by ``order_seed``, the same for every picture).
        induction: begin the prompt with a line that says what is wanted (task induction).
        prompts: write a caption with so many prompts of different examples, and take the likeliest, where the LLM
            tells how likely it is; else the one most of them gave.
        order_seed: of the draw of "random" and of orders; None keeps the order given.
        max_tokens: tokens a caption may have; None: up to the line's end. Read at each call.
        template, templates: prompt template by name (``icl-vision prompts list``), a folder of your own.
        errors, batch_size, concurrency, progress, budget, prices: as of ``VisualQA``; read at each call.

    The constructor only stores; ``fit`` checks.

    Attributes after ``fit``: ``examples_`` (as words, in the order given), ``llm_``, ``tokenizer_``.

    >>> captioner = Captioner().fit(images, captions)  # doctest: +SKIP
    >>> captioner.caption("photo.jpg")[0].text  # doctest: +SKIP
    'A dog runs over the grass.'
    """

    form = SavedForm("icl_vision.Captioner", 1, {"examples": list}, "captioner", "not be comparable")
    how_to_fit = "fit(images, captions), or fit() to caption without examples,"
    declaration = CAPTIONING
    wording = ("a caption", MOST_CAPTION)
    short = False

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "describe-photo",
        k: int | None = None,
        *,
        shots: int | None = 8,
        repeats: int = 0,
        selection: Literal["nearest", "random"] = "nearest",
        induction: bool = True,
        prompts: int = 1,
        order_seed: int | None = 0,
        max_tokens: int | None = MAX_TOKENS,
        template: str = "caption",
        templates: str | os.PathLike[str] | None = None,
        errors: Literal["raise", "return"] = "raise",
        batch_size: int = 32,
        concurrency: int = 8,
        progress: bool | None = None,
        budget: Budget | None = None,
        prices: PriceTable | None = None,
    ) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.k = k
        self.shots = shots
        self.repeats = repeats
        self.selection = selection
        self.induction = induction
        self.prompts = prompts
        self.order_seed = order_seed
        self.max_tokens = max_tokens
        self.template = template
        self.templates = templates
        self.errors = errors
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.progress = progress
        self.budget = budget
        self.prices = prices

    def fit(
        self, images: Iterable[Picture] | None = None, captions: Iterable[str | Sequence[str]] | None = None
    ) -> Self:
        """Turn captioned examples into words, once, and make sure that they fit the LLM's window.

        Args:
            images: an entry for each example, as for ``VisualQA.fit``.
            captions: one for each example, or several references in a list, of which the one that has most in common
                with the others is shown.

        ``fit()`` captions without examples.

        Raises:
            As ``VisualQA.fit``.
        """
        return self._fit(images, None, captions, most_central)

    def caption(self, images: Picture | Iterable[Picture]) -> list[Answer]:
        """A caption for each picture: the first line of what the LLM writes.

        Args:
            images: an entry for each caption: one image, or several that are captioned together in a list; one image
                or a folder stands for a list of one, or of the images in it.

        Raises:
            NotFittedError: before ``fit``.
            ImageError, PromptError, LLMError, PromptTooLongError: unless ``errors="return"``.
        """
        return self._asked(self._many(images))

    async def acaption(self, images: Picture | Iterable[Picture]) -> list[Answer]:
        """``caption`` as a coroutine."""
        return await self._aasked(self._many(images))

    def plan(self, images: Picture | Iterable[Picture], prices: PriceTable | None = None) -> Plan:
        """What ``caption`` would send and cost, without asking anything; see ``VisualQA.plan``."""
        return self._plan(self._many(images), prices)

    def prompt_for(self, image: Picture) -> Inquiry:
        """What would be put to the LLM about this picture; ``print`` shows it. Nothing is sent."""
        self.ready()
        return self._prompt_for(as_queries([image], None, None, self._fitted_wording()))

    def __call__(self, images: Picture | Iterable[Picture]) -> list[Answer]:
        """``caption``."""
        return self.caption(images)

    def _tool(self) -> Tool:
        return captioning(self)

    def _many(self, images: Any) -> list[Asked]:
        self.ready()
        return as_queries(images, None, None, self._fitted_wording())
