"""What a task is to an agent: its arguments, a result told in words, and what of its failures a model can mend.

An agent's framework (``icl_vision.integrations``) makes its own kind of tool of a ``Tool``; a task says what it is by
giving one from ``_tool``.

Knows: what a model may hand in, what it is told. Refuses to know: frameworks, and how a task finds its answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from icl_vision.contracts import Answer, Classification
from icl_vision.errors import (
    AnswerRefusedError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTruncatedError,
    LLMNoAnswerError,
    UnknownAnswerError,
    UsageError,
)
from icl_vision.image_words import TEXT
from icl_vision.tasks.answer.pictures import read_text
from icl_vision.tasks.draw.examples import TEXT_CHARACTERS

WORDS_SHOWN = 32
"""An image of more words is shown to the model by its first ones; the artifact holds them all."""

NAMES_SHOWN = 30
"""Labels, or texts, that a description names."""

# What the model is told about an image that cannot be used. Never the error's own message: it may hold the full path of
# a file, or its first bytes.
_IMAGE_PROBLEMS: tuple[tuple[type[ImageError], str], ...] = (
    (ImageNotFoundError, "it does not exist any more"),
    (ImageEmptyError, "it is empty"),
    (ImageTruncatedError, "it is damaged"),
    (ImageFormatError, "it is not an image of a known format"),
    (ImageTooLargeError, "it is too large"),
)

Keep = Callable[[Any], str]
"""Takes a picture that was made and gives the id under which the agent can name it."""


@dataclass(frozen=True)
class Argument:
    """One argument of a tool; a model writes it as a string.

    name: what it is called. text: what it is, where it is a text; None where it names an image. read: of a text, what
    is asked; UsageError or PromptError in words for the model.
    """

    name: str
    text: str | None = None
    read: Callable[[str], Any] = str


IMAGE = Argument("image")


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One task as a tool.

    name, description: for the model, unless its user says otherwise. arguments: what it takes, in order. makes: whether
    its results are pictures, which ``tell`` keeps. ask, aask: the task and its coroutine twin; they get a list of one
    for each argument and give a list of one result, which has an ``error``. tell: (result, keep) -> (text for the
    model, artifact for the program, plain data, since a checkpointer stores it). refusal: (error, first argument) ->
    what the model is told where it can mend that; None for a failure that is not its own.
    """

    name: str
    description: str
    arguments: tuple[Argument, ...]
    makes: bool = False
    ask: Callable[..., Sequence[Any]]
    aask: Callable[..., Awaitable[Sequence[Any]]]
    tell: Callable[[Any, Keep], tuple[str, Any]]
    refusal: Callable[[Exception, str], str | None]


class Classifier(Protocol):
    """What ``classifying`` needs: ``FewShotClassifier`` has it."""

    @property
    def classes_(self) -> Any: ...
    def classify(self, images: Any) -> list[Classification]: ...
    async def aclassify(self, images: Any) -> list[Classification]: ...


class Generator(Protocol):
    """What ``drawing`` needs: ``ImageGenerator`` has it."""

    @property
    def texts_(self) -> list[str]: ...
    def generate(self, queries: Any) -> list[Any]: ...
    async def agenerate(self, queries: Any) -> list[Any]: ...


class Denoiser(Protocol):
    """What ``restoring`` needs: ``ImageDenoiser`` has it."""

    @property
    def task_(self) -> Any: ...
    def denoise(self, images: Any) -> list[Any]: ...
    async def adenoise(self, images: Any) -> list[Any]: ...


class Answerer(Protocol):
    """What ``asking`` needs: ``VisualQA`` has it."""

    def answers(self, images: Any, questions: Any) -> list[Answer]: ...
    async def aanswers(self, images: Any, questions: Any) -> list[Answer]: ...


class CaptionWriter(Protocol):
    """What ``captioning`` needs: ``Captioner`` has it."""

    def caption(self, images: Any) -> list[Answer]: ...
    async def acaption(self, images: Any) -> list[Answer]: ...


def classifying(classifier: Classifier) -> Tool:
    """A fitted classifier: an image, told by its label."""
    names = [str(label) for label in classifier.classes_]

    def tell(result: Classification, keep: Keep) -> tuple[str, Classification]:
        if result.label is None:
            text = f"none of the known labels fits ({shortened(names, NAMES_SHOWN)})"
        elif result.probabilities is not None:
            # An LLM's own shares are mostly far too sure, and the model that reads this should know which they are.
            raw = "" if result.calibrated else ", not calibrated"
            text = f"{result.label} (confidence {result.probabilities[result.label]:.2f}{raw})"
        else:
            text = result.label
        return f"{text}\nwords for the image: {_words(result.words)}", result

    def refusal(error: Exception, image: str) -> str | None:
        if isinstance(error, UnknownAnswerError):
            return "none of the known labels fits this image"
        return image_problem(error, image)

    return Tool(
        name="classify_image",
        description=f"Says which of these an image shows: {shortened(names, NAMES_SHOWN)}.",
        arguments=(IMAGE,),
        ask=classifier.classify,
        aask=classifier.aclassify,
        tell=tell,
        refusal=refusal,
    )


def drawing(generator: Generator) -> Tool:
    """A fitted generator: a text, told by the id of its picture."""

    def read(text: str) -> str:
        if not text.strip() or not text.isprintable() or len(text) > TEXT_CHARACTERS:
            raise UsageError(f"the text must be one line of 1 to {TEXT_CHARACTERS} printable characters")
        return text.strip()

    def refusal(error: Exception, text: str) -> str | None:
        if isinstance(error, AnswerRefusedError):
            return f"{text[:80]!r} could not be drawn; try another text"
        return None

    known = shortened([repr(text) for text in generator.texts_], NAMES_SHOWN)
    return Tool(
        name="draw_image",
        description=f"Draws a small picture from a text like these: {known}.",
        arguments=(Argument("text", "what to draw, one line", read),),
        makes=True,
        ask=generator.generate,
        aask=generator.agenerate,
        tell=lambda drawn, keep: _picture("drawn", drawn, keep),
        refusal=refusal,
    )


def restoring(denoiser: Denoiser) -> Tool:
    """A fitted denoiser: an image, told by the id of the restored one."""

    def refusal(error: Exception, image: str) -> str | None:
        if isinstance(error, AnswerRefusedError):
            return f"the image {image!r} could not be restored; try another image"
        return image_problem(error, image)

    return Tool(
        name="restore_image",
        description=f"Restores an image where {denoiser.task_.what}, and gives the id of the restored one.",
        arguments=(IMAGE,),
        makes=True,
        ask=denoiser.denoise,
        aask=denoiser.adenoise,
        tell=lambda restored, keep: _picture("restored", restored, keep),
        refusal=refusal,
    )


def asking(answerer: Answerer, question: Callable[[str], Any], choices: Sequence[str] | None = None) -> Tool:
    """A fitted question answerer: an image and a question, told by the answer.

    question: reads one, and refuses what must not enter a prompt. choices: what may be answered, where that is fixed.
    """

    def refusal(error: Exception, image: str) -> str | None:
        if isinstance(error, LLMNoAnswerError):
            return f"no answer was found to this question about {image!r}; word it otherwise"
        return image_problem(error, image)

    among = "in a word or two" if choices is None else f"with one of: {shortened(list(choices), NAMES_SHOWN)}"
    return Tool(
        name="ask_image",
        description=f"Answers a question about an image {among}.",
        arguments=(IMAGE, Argument("question", "a question about the image, one line", question)),
        ask=answerer.answers,
        aask=answerer.aanswers,
        tell=_answer,
        refusal=refusal,
    )


def captioning(writer: CaptionWriter) -> Tool:
    """A fitted captioner: an image, told by its caption."""

    def refusal(error: Exception, image: str) -> str | None:
        if isinstance(error, LLMNoAnswerError):
            return f"no caption was found for the image {image!r}"
        return image_problem(error, image)

    return Tool(
        name="caption_image",
        description="Says in one sentence what an image shows.",
        arguments=(IMAGE,),
        ask=writer.caption,
        aask=writer.acaption,
        tell=_answer,
        refusal=refusal,
    )


def image_problem(error: Exception, image: str) -> str | None:
    """What the model is told about an image that cannot be used; None for another error."""
    return f"the image {image!r} cannot be used: {image_fault(error)}" if isinstance(error, ImageError) else None


def image_fault(error: ImageError) -> str:
    """What is wrong with an image, in words for a model."""
    return next((text for kind, text in _IMAGE_PROBLEMS if isinstance(error, kind)), "it cannot be read as an image")


def shortened(texts: Sequence[str], most: int) -> str:
    """The first ``most`` texts, and how many more there are."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _words(layers: Sequence[Sequence[str]]) -> str:
    return shortened([word for layer in layers for word in layer], WORDS_SHOWN)


def _answer(answer: Answer, keep: Keep) -> tuple[str, dict[str, Any]]:
    text = read_text([answer.text])[0] if answer.method == "read" else answer.text
    if answer.probability is not None:
        raw = "" if answer.calibrated else ", not calibrated"
        text += f" (confidence {answer.probability:.2f}{raw})"
    # Text that somebody wrote into a picture is no word of ours: it is told apart, quoted and named, as in a prompt.
    named = (
        list(zip(answer.parts, answer.words, strict=True)) if answer.parts else [("", part) for part in answer.words]
    )
    lines = [f"words for the image: {_words([part for name, part in named if name != TEXT])}"]
    lines += read_text([string for name, part in named if name == TEXT for string in part])
    return "\n".join([text, *lines]), answer.to_dict()


def _picture(done: str, result: Any, keep: Keep) -> tuple[str, Any]:
    # Data only: a checkpointer stores messages, and the pixels are in the registry under the id.
    id, document = keep(result.image), result.to_dict()
    return f"{done}; the picture has the id {id!r}\nwords: {_words(document['words'])}", {"id": id, **document}
