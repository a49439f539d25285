"""Tools for LangChain agents: a task as a ``StructuredTool`` that answers the model in words and the program in full.

    tool = clf.as_tool("classify_image", "Which animal an image shows.", images=registry)
    agent = langchain.agents.create_agent(model, [tool])

Every tool here has ``response_format="content_and_artifact"``: the content is a short text for the model, the artifact
the whole result for code. A mistake in the model's arguments becomes a tool message it can act on; a failure that is
not the model's (no connection, a timeout, a spent budget) is raised, so that retries and middleware see it.

``task_tool`` is the seam for any task; ``classifier_tool`` puts a classifier behind it, ``generator_tool`` one that
draws. For ``|`` no bridge is needed: LangChain takes a task object, which is a callable, on either side of a Runnable.

Knows: LangChain's tools. Refuses to know: how a task finds its answer, and which images exist (``registry``).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from icl_vision.contracts import Classification
from icl_vision.errors import (
    AnswerRefusedError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTruncatedError,
    MissingExtraError,
    UnknownAnswerError,
    UsageError,
)
from icl_vision.images import ImageSource
from icl_vision.integrations.registry import ImageAccess, ImageRegistry
from icl_vision.tasks.draw.examples import TEXT_CHARACTERS

try:
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import StructuredTool, ToolException
    from pydantic import BaseModel, Field, create_model
except ImportError as error:
    raise MissingExtraError("a LangChain tool", "langchain") from error

__all__ = [
    "ImageAccess",
    "ImageRegistry",
    "TaskTool",
    "as_runnable",
    "classifier_tool",
    "generator_tool",
    "task_tool",
]

_WORDS_SHOWN = 32
"""An image of more words is shown to the model by its first ones; the artifact holds them all."""

_LABELS_SHOWN = 30

# What the model is told about an image that cannot be used. Never the error's own message: it may hold the full path of
# a file, or its first bytes.
_IMAGE_PROBLEMS: tuple[tuple[type[ImageError], str], ...] = (
    (ImageNotFoundError, "it does not exist any more"),
    (ImageEmptyError, "it is empty"),
    (ImageTruncatedError, "it is damaged"),
    (ImageFormatError, "it is not an image of a known format"),
    (ImageTooLargeError, "it is too large"),
)


class Classifier(Protocol):
    """What ``classifier_tool`` needs of a classifier: ``FewShotClassifier`` has it."""

    @property
    def classes_(self) -> Any: ...
    def classify(self, images: Any) -> list[Classification]: ...
    async def aclassify(self, images: Any) -> list[Classification]: ...


class Generator(Protocol):
    """What ``generator_tool`` needs of one that draws: ``ImageGenerator`` has it."""

    @property
    def texts_(self) -> list[str]: ...
    def generate(self, queries: Any) -> list[Any]: ...
    async def agenerate(self, queries: Any) -> list[Any]: ...


class TaskTool(StructuredTool):
    """A ``StructuredTool`` that knows its images. images: the mapping of ids to images that its arguments may name."""

    # Neither serialised nor shown: traces and checkpoints hold tools, and an image has no place there.
    images: Any = Field(default=None, exclude=True, repr=False)


def task_tool(
    name: str,
    description: str,
    run: Callable[..., tuple[str, Any]],
    arun: Callable[..., Awaitable[tuple[str, Any]]],
    args_schema: type[BaseModel],
    *,
    images: Mapping[str, ImageSource] | None = None,
) -> TaskTool:
    """A task as a LangChain tool, called alike from sync and async agents.

    Args:
        name: what the model calls: letters, digits, "_" and "-", at most 64 (the providers' common rule).
        description: tells the model what the tool is for.
        run, arun: the task and its coroutine twin. They get the arguments by name and return (text for the model,
            artifact for the program: plain data, since a checkpointer stores it). ``ToolException`` is for what the
            model can mend; its message goes to the model.
        args_schema: a pydantic model of the arguments: strings and numbers, since a language model writes them.
        images: kept as the tool's ``images``, for the caller to fill (and for a task that draws, to add to).

    Raises:
        UsageError: a name or description that a provider would refuse.
    """
    fit = isinstance(name, str) and 0 < len(name) <= 64 and name.isascii()
    if not fit or not all(character.isalnum() or character in "_-" for character in name):
        raise UsageError(f"a tool's name must be 1 to 64 letters, digits, '_' and '-'; got {name!r}")
    if not isinstance(description, str) or not description.strip():
        raise UsageError(f"a tool's description tells the model what the tool is for; got {description!r}")
    arguments = ", ".join(f"{key!r} ({field.description})" for key, field in args_schema.model_fields.items())

    def explain(problem: Any) -> str:
        return f"wrong arguments; this tool takes {arguments}"

    tool = TaskTool.from_function(
        func=run,
        coroutine=arun,
        name=name,
        description=description,
        args_schema=args_schema,
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=explain,
        images=images,
    )
    assert isinstance(tool, TaskTool)
    return tool


def classifier_tool(
    classifier: Classifier,
    name: str = "classify_image",
    description: str | None = None,
    *,
    images: Mapping[str, ImageSource] | None = None,
    root: str | os.PathLike[str] | None = None,
    allow_paths: bool = False,
) -> TaskTool:
    """A fitted classifier as a tool with one argument, ``image``; see ``FewShotClassifier.as_tool``."""
    access = ImageAccess(images, root=root, allow_paths=allow_paths)
    labels = [str(label) for label in classifier.classes_]
    if description is None:
        description = f"Says which of these an image shows: {_shortened(labels, _LABELS_SHOWN)}."
    schema = create_model("ClassifyImage", image=(str, Field(description=str(access))))

    def find(image: str) -> ImageSource:
        try:
            return access.find(image)
        except UsageError as error:
            raise ToolException(str(error)) from None

    def run(image: str) -> tuple[str, Classification]:
        source = find(image)
        try:
            (classification,) = classifier.classify([source])
        except (ImageError, UnknownAnswerError) as error:
            raise _for_the_model(error, image) from error
        return _report(classification, image, labels)

    async def arun(image: str) -> tuple[str, Classification]:
        source = find(image)
        try:
            (classification,) = await classifier.aclassify([source])
        except (ImageError, UnknownAnswerError) as error:
            raise _for_the_model(error, image) from error
        return _report(classification, image, labels)

    return task_tool(name, description, run, arun, schema, images=access.images)


def generator_tool(
    generator: Generator,
    name: str = "draw_image",
    description: str | None = None,
    *,
    images: Mapping[str, ImageSource] | None = None,
) -> TaskTool:
    """A fitted generator as a tool with one argument, ``text``; see ``ImageGenerator.as_tool``.

    What it draws is added to ``images``, under an id that the model is told. The artifact is what
    ``GeneratedImage.to_dict`` gives, with that ``id``.

    Raises:
        UsageError: ``images`` cannot be added to.
    """
    registry = ImageRegistry() if images is None else images
    if not isinstance(registry, ImageRegistry):
        raise UsageError(f"images must be an ImageRegistry, to which pictures are added; got {type(images).__name__}")
    known = _shortened([repr(text) for text in generator.texts_], _LABELS_SHOWN)
    if description is None:
        description = f"Draws a small picture from a text like these: {known}."
    schema = create_model("DrawImage", text=(str, Field(description="what to draw, one line")))

    def told(drawn: Any) -> tuple[str, Any]:
        if drawn.error is not None:  # the generator was told to return errors in place
            if isinstance(drawn.error, AnswerRefusedError):
                raise _not_drawn(drawn.text) from drawn.error
            raise drawn.error
        id = registry.add(drawn.image)
        words = [word for layer in drawn.to_dict()["words"] for word in layer]
        # Data only: a checkpointer stores messages, and the pixels are in the registry under the id.
        return f"drawn; the picture has the id {id!r}\nwords: {_shortened(words, _WORDS_SHOWN)}", {
            "id": id,
            **drawn.to_dict(),
        }

    def run(text: str) -> tuple[str, Any]:
        try:
            (drawn,) = generator.generate([_drawable(text)])
        except AnswerRefusedError as error:
            raise _not_drawn(text) from error
        return told(drawn)

    async def arun(text: str) -> tuple[str, Any]:
        try:
            (drawn,) = await generator.agenerate([_drawable(text)])
        except AnswerRefusedError as error:
            raise _not_drawn(text) from error
        return told(drawn)

    return task_tool(name, description, run, arun, schema, images=registry)


def _drawable(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > TEXT_CHARACTERS:
        raise ToolException(f"the text must be one line of 1 to {TEXT_CHARACTERS} printable characters")
    return text.strip()


def _not_drawn(text: str) -> ToolException:
    return ToolException(f"{text[:80]!r} could not be drawn; try another text")


def as_runnable(task: Callable[[Any], Any], *, name: str | None = None) -> RunnableLambda[Any, Any]:
    """A task object as a Runnable.

    Needed only where no neighbour in a chain is a Runnable yet (``as_runnable(first) | second``); next to a Runnable, a
    task takes part in ``|`` as it is.
    """
    return RunnableLambda(task, name=name or type(task).__name__)


def _report(classification: Classification, image: str, labels: Sequence[str]) -> tuple[str, Classification]:
    if classification.error is not None:  # the classifier was told to return errors in place
        if isinstance(classification.error, ImageError | UnknownAnswerError):
            raise _for_the_model(classification.error, image) from classification.error
        raise classification.error
    if classification.label is None:
        text = f"none of the known labels fits ({_shortened(labels, _LABELS_SHOWN)})"
    elif classification.probabilities is not None:
        # An LLM's own shares are mostly far too sure, and the model that reads this should know which they are.
        raw = "" if classification.calibrated else ", not calibrated"
        text = f"{classification.label} (confidence {classification.probabilities[classification.label]:.2f}{raw})"
    else:
        text = classification.label
    words = [word for layer in classification.words for word in layer]
    return f"{text}\nwords for the image: {_shortened(words, _WORDS_SHOWN)}", classification


def _for_the_model(error: Exception, image: str) -> ToolException:
    if isinstance(error, UnknownAnswerError):
        return ToolException("none of the known labels fits this image")
    why = next((text for kind, text in _IMAGE_PROBLEMS if isinstance(error, kind)), "it cannot be read as an image")
    return ToolException(f"the image {image!r} cannot be used: {why}")


def _shortened(texts: Sequence[str], most: int) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
