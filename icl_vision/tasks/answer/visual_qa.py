"""Questions about pictures, answered by a frozen text LLM after a few answered ones (SPAE, section 4.3).

Knows: what a user may set and ask. Refuses to know: how any one step works (``task``, ``fitted``, ``scoring``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, get_args

from icl_vision import checks
from icl_vision.asking.inquiries import Inquiry
from icl_vision.asking.plan import Plan
from icl_vision.contracts import Answer, TextLLM, Tokenizer
from icl_vision.errors import UsageError
from icl_vision.images import ImageSource
from icl_vision.llms import Budget
from icl_vision.llms.cost import PriceTable
from icl_vision.tasks.answer import calibrating
from icl_vision.tasks.answer.answered import MOST_ANSWER, Asked, as_queries, most_usual
from icl_vision.tasks.answer.pictures import Source
from icl_vision.tasks.answer.prompts import ANSWERING
from icl_vision.tasks.answer.scoring import AnswerScoring
from icl_vision.tasks.answer.task import AnsweringTask
from icl_vision.tasks.saving import SavedForm
from icl_vision.tasks.tools import Tool, asking
from icl_vision.wording import counted

Picture = Source | Sequence[Source]
"""One picture, or the several of one query in a list; an empty list asks without any."""

VISION_WEIGHT = 1.5
"""How much what the picture's words say counts beside what the LLM says (docs/design/answering.md)."""

MAX_TOKENS = 8


class VisualQA(AnsweringTask):
    """Answers questions about pictures by showing an LLM a few answered ones, all as words.

    Args:
        llm: what answers: a ``connect`` string ("local", "openai-compatible:MODEL@URL" ...) or any ``TextLLM``.
        tokenizer: what turns images into words: a name or folder, as for ``ImageTokenizer.from_pretrained``, or a
            tokenizer.
        k: most words a prompt shows of a picture (of each part, where the words have parts); None for the tokenizer's
            default.
        shots: so many examples are shown in all, or of each distinct answer where ``ways`` is given; None for all.
        ways: so many distinct answers among the examples shown (the papers' 10-way 1-shot: ``ways=10, shots=1``);
            None for any.
        repeats: how many times more each example is shown.
        selection: which examples are shown: "nearest" (for each query, those whose question and picture are closest,
            the closest last) or "random" (a draw by ``order_seed``, the same for every query, so that an LLM's prefix
            cache helps).
        induction: begin the prompt with a line that says what is wanted (task induction).
        prompts: ask each question with so many prompts of different examples, and take the answer with the highest
            mean log-probability, or the one most of them gave, where the LLM tells none.
        choices: what may be answered; None leaves that open. A call may give others.
        scoring: how an answer is found: "auto", the best available, or a rung of the ladder in
            ``icl_vision.tasks.answer.scoring``: "fused", "greedy", and among choices "direct", "constrained", "parse".
            ``Answer.method`` says which it was.
        vision_weight: of what the pictures' words say of an answer, beside the LLM's log-probability; for "fused".
        show_words: whether prompts show the pictures' words; None: all but those of "fused", into which the words
            come by their weight.
        focus: show of a picture those words that bear on the question, where the tokenizer can tell (``can_focus``).
        probabilities: "calibrated": as sure as they turn out right, where a map is known, or "raw".
            ``Answer.calibrated`` says which they are. Read at each call.
        order_seed: of the draw of "random" and of orders; None keeps the order given.
        max_tokens: tokens an answer may have; None: up to the line's end. Read at each call.
        template, templates: prompt template by name (``icl-vision prompts list``), a folder of your own.
        errors: a question that cannot be answered: "raise", or "return" an ``Answer`` with its ``error`` in place.
        batch_size: images held in memory at once while they become words.
        concurrency: requests to the LLM at the same time.
        progress: show a progress bar on stderr; None only at a terminal.
        budget, prices: limits for one call, and what models cost.

    The constructor only stores; ``fit`` checks. What is changed afterwards holds from the next ``fit`` on, but for
    ``errors``, ``probabilities``, ``max_tokens``, ``batch_size``, ``concurrency``, ``progress``, ``budget`` and
    ``prices``, which each call reads.

    Attributes after ``fit``: ``examples_`` (as words, in the order given), ``llm_``, ``tokenizer_``,
    ``probability_map_``.

    >>> qa = VisualQA().fit(images, questions, answers)  # doctest: +SKIP
    >>> qa.answer("photo.jpg", "what animal is this?")  # doctest: +SKIP
    'dog'
    """

    form = SavedForm("icl_vision.VisualQA", 1, {"examples": list}, "question answerer", "not be comparable")
    how_to_fit = "fit(images, questions, answers), or fit() to answer without examples,"
    declaration = ANSWERING
    wording = ("an answer", MOST_ANSWER)
    short = True

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "describe-photo",
        k: int | None = None,
        *,
        shots: int | None = 8,
        ways: int | None = None,
        repeats: int = 0,
        selection: Literal["nearest", "random"] = "nearest",
        induction: bool = True,
        prompts: int = 1,
        choices: Sequence[str] | None = None,
        scoring: AnswerScoring = "auto",
        vision_weight: float = VISION_WEIGHT,
        show_words: bool | None = None,
        focus: bool = True,
        probabilities: Literal["calibrated", "raw"] = "calibrated",
        order_seed: int | None = 0,
        max_tokens: int | None = MAX_TOKENS,
        template: str = "answer",
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
        self.ways = ways
        self.repeats = repeats
        self.selection = selection
        self.induction = induction
        self.prompts = prompts
        self.choices = choices
        self.scoring = scoring
        self.vision_weight = vision_weight
        self.show_words = show_words
        self.focus = focus
        self.probabilities = probabilities
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

    def _check(self) -> None:
        super()._check()
        checks.count("ways", self.ways, none="any answers")
        checks.choice("scoring", self.scoring, get_args(AnswerScoring))
        checks.number("vision_weight", self.vision_weight, least=0.0)
        checks.flag("show_words", self.show_words, none=True)
        checks.flag("focus", self.focus)
        if self.choices is not None and not isinstance(self.choices, list | tuple):
            raise UsageError(f"choices must be a list of texts, or None for any answer; got {self.choices!r}")
        self._wording().choices(self.choices)

    def fit(
        self,
        images: Iterable[Picture] | None = None,
        questions: Iterable[str | None] | str | None = None,
        answers: Iterable[str | int | Sequence[str]] | None = None,
    ) -> Self:
        """Turn answered examples into words, once, and make sure that they fit the LLM's window.

        Args:
            images: an entry for each example: one image (path, bytes, file object, PIL image, array), its words
                (``TokenPyramid``, ``ImageWords``), a text in its place (``Described``), or several of these in a list.
            questions: one for each example; None for an example without one, a single text for all.
            answers: one for each example, or several references in a list, of which the most usual is shown.

        ``fit()`` answers without examples.

        Raises:
            UsageError: an argument (here or in the constructor) that cannot work; the message says which would.
            PromptError: a question or answer that must not enter a prompt.
            ImageError: an image that cannot be used (whatever ``errors`` says: examples are not guessed).
            CapabilityError, TemplateError: ``scoring`` asks what the LLM or the template does not offer.
            PromptTooLongError: the examples do not fit the LLM's window.
        """
        return self._fit(images, questions, answers, most_usual)

    def answer(self, image: Picture, question: str | None = None, *, choices: Sequence[str] | None = None) -> str:
        """The answer to one question about one picture (or several, in a list).

        Args:
            question: None for none: what the examples answer is then asked of the picture.
            choices: what may be answered here, in place of the constructor's.

        Raises:
            As ``answers``; also where ``errors="return"``, since a text has no place for an error.
        """
        return _text(self._asked(self._one(image, question, choices)))

    async def aanswer(
        self, image: Picture, question: str | None = None, *, choices: Sequence[str] | None = None
    ) -> str:
        """``answer`` as a coroutine."""
        return _text(await self._aasked(self._one(image, question, choices)))

    def answers(
        self,
        images: Picture | Iterable[Picture],
        questions: Iterable[str | None] | str | None = None,
        *,
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
    ) -> list[Answer]:
        """Answers with everything known about each.

        Args:
            images: an entry for each question, as for ``fit``; or one image for all questions. It becomes words once,
                however many questions are asked about it.
            questions: one for each image, or one for all.
            choices: what may be answered, one list for all questions or one for each; None: the constructor's.

        Raises:
            NotFittedError: before ``fit``.
            ImageError, PromptError, LLMError, PromptTooLongError: unless ``errors="return"``.
        """
        return self._asked(self._many(images, questions, choices))

    async def aanswers(
        self,
        images: Picture | Iterable[Picture],
        questions: Iterable[str | None] | str | None = None,
        *,
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
    ) -> list[Answer]:
        """``answers`` as a coroutine: images become words in a thread, questions run on the library's event loop."""
        return await self._aasked(self._many(images, questions, choices))

    def plan(
        self,
        images: Picture | Iterable[Picture],
        questions: Iterable[str | None] | str | None = None,
        prices: PriceTable | None = None,
        *,
        choices: Sequence[str] | Sequence[Sequence[str]] | None = None,
    ) -> Plan:
        """What ``answers`` would send and cost, without asking anything; arguments as there.

        Tokens are estimated, and on the high side. prices: of models, by name; None: the constructor's.

        Raises:
            NotFittedError: before ``fit``.
            UsageError: this was fitted with another LLM than a ``DryLLM``; that nothing can be asked by mistake.
        """
        return self._plan(self._many(images, questions, choices), prices)

    def calibrate_probabilities(
        self,
        images: Picture | Iterable[Picture],
        questions: Iterable[str | None] | str | None,
        answers: Iterable[str | int | Sequence[str]],
    ) -> Self:
        """Fit the map from this task's scores to probabilities to questions of one's own whose answers are known.

        They are asked as by ``answers``, and answers stay as they were. The map is kept by ``save`` until the next
        ``fit``; ``probability_map_.measured`` says what it does on questions it was not fitted to, by
        cross-validation.

        Args:
            images, questions: as for ``answers``, at least 50, none of them among the examples.
            answers: one for each question, or several that are all right in a list.

        Raises:
            NotFittedError: before ``fit``. UsageError: too few questions, or another number of answers.
            CapabilityError: the way in use gives no probabilities.
            ImageError, LLMError: a question that fails; the map stays as it was.
        """
        asked, wording = self._many(images, questions, None), self._fitted_wording()
        references = [wording.references(given, index) for index, given in enumerate(answers)]
        if len(references) != len(asked):
            raise UsageError(
                f"answers must be one for each question; got {counted(len(asked), 'question')} and "
                f"{counted(len(references), 'answer')}"
            )
        calibrating.check_questions(len(asked))
        twin = copy.copy(self).set_params(probabilities="raw", errors="raise")
        twin._tells_all = True
        own = calibrating.map_of(twin._asked(asked), references, self.fitted.llm)
        self._fitted = replace(self.fitted, kept=replace(self.fitted.kept, own_map=own), probability_map=own)
        return self

    def prompt_for(
        self, image: Picture, question: str | None = None, *, choices: Sequence[str] | None = None
    ) -> Inquiry:
        """What would be put to the LLM first about this question; ``print`` shows it. Nothing is sent."""
        return self._prompt_for(self._one(image, question, choices))

    def __call__(self, image: ImageSource, question: str | None = None) -> str:
        """``answer``."""
        return self.answer(image, question)

    def _tool(self) -> Tool:
        return asking(self, self._fitted_wording().question, self.fitted.params.get("choices"))

    def _one(self, image: Any, question: str | None, choices: Sequence[str] | None) -> list[Asked]:
        self.ready()
        return as_queries([image], [question], choices, self._fitted_wording())

    def _many(self, images: Any, questions: Any, choices: Any) -> list[Asked]:
        self.ready()
        keep_errors = self.errors == "return"
        return as_queries(images, questions, choices, self._fitted_wording(), keep_errors=keep_errors)


def _text(answers: Sequence[Answer]) -> str:
    (answer,) = answers
    if answer.error is not None:
        raise answer.error
    return answer.text
