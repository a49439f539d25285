"""Tools for LangChain agents: a task as a ``StructuredTool`` that answers the model in words and the program in full.

    tool = clf.as_tool("classify_image", "Which animal an image shows.", images=registry)
    agent = langchain.agents.create_agent(model, [tool])

Every tool here has ``response_format="content_and_artifact"``: the content is a short text for the model, the artifact
the whole result for code. A mistake in the model's arguments becomes a tool message it can act on; a failure that is
not the model's (no connection, a timeout, a spent budget) is raised, so that retries and middleware see it.

``task_tool`` is the seam for anything; a task of this library says itself what it is to an agent
(``icl_vision.tasks.tools``), and ``tool_of`` makes the LangChain tool of that. For ``|`` no bridge is needed: LangChain
takes a task object, which is a callable, on either side of a Runnable.

Knows: LangChain's tools. Refuses to know: how a task finds its answer and tells it, and which images exist
(``registry``).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from icl_vision.errors import IclVisionError, MissingExtraError, PromptError, UsageError
from icl_vision.images import ImageSource
from icl_vision.integrations.registry import ImageAccess, ImageRegistry
from icl_vision.tasks import tools
from icl_vision.tasks.tools import Argument, Classifier, Generator, Tool

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
    "tool_of",
]


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


def tool_of(
    tool: Tool,
    name: str | None = None,
    description: str | None = None,
    *,
    images: Mapping[str, ImageSource] | None = None,
    root: str | os.PathLike[str] | None = None,
    allow_paths: bool = False,
) -> TaskTool:
    """A task's own tool as LangChain's; the arguments are those of ``as_tool``.

    Raises:
        UsageError: a name that providers refuse, a root that is no folder or is not for this task, or ``images`` that
            pictures cannot be added to, where the task makes some.
    """
    if tool.makes:
        images = ImageRegistry() if images is None else images
        if not isinstance(images, ImageRegistry):
            raise UsageError(
                f"images must be an ImageRegistry, to which pictures are added; got {type(images).__name__}"
            )
    access = ImageAccess(images, root=root, allow_paths=allow_paths)
    if (root is not None or allow_paths) and all(argument.text is not None for argument in tool.arguments):
        raise UsageError(f"root and allow_paths say which images may be named; {tool.name} takes a text, and no image")
    registry = access.images
    title = "".join(part.capitalize() for part in tool.name.split("_"))
    fields: Any = {  # their names are known at run time only
        argument.name: (str, Field(description=str(access) if argument.text is None else argument.text))
        for argument in tool.arguments
    }
    schema: type[BaseModel] = create_model(title, **fields)

    def keep(picture: Any) -> str:
        assert isinstance(registry, ImageRegistry)  # asked for only where the task makes pictures
        return registry.add(picture)

    def read(argument: Argument, given: str) -> Any:
        return access.find(given) if argument.text is None else argument.read(given)

    def asked(given: Mapping[str, str]) -> list[list[Any]]:
        try:
            return [[read(argument, given[argument.name])] for argument in tool.arguments]
        except (UsageError, PromptError) as error:
            raise ToolException(str(error)) from None

    def refused(error: Exception, given: Mapping[str, str]) -> Exception:
        text = tool.refusal(error, given[tool.arguments[0].name])
        return error if text is None else ToolException(text)

    def told(result: Any, given: Mapping[str, str]) -> tuple[str, Any]:
        if result.error is not None:  # the task was told to return errors in place
            raise refused(result.error, given) from result.error
        return tool.tell(result, keep)

    def run(**given: str) -> tuple[str, Any]:
        query = asked(given)
        try:
            (result,) = tool.ask(*query)
        except IclVisionError as error:
            raise refused(error, given) from error
        return told(result, given)

    async def arun(**given: str) -> tuple[str, Any]:
        query = asked(given)
        try:
            (result,) = await tool.aask(*query)
        except IclVisionError as error:
            raise refused(error, given) from error
        return told(result, given)

    named = tool.name if name is None else name
    about = tool.description if description is None else description
    return task_tool(named, about, run, arun, schema, images=registry)


def classifier_tool(
    classifier: Classifier,
    name: str | None = None,
    description: str | None = None,
    *,
    images: Mapping[str, ImageSource] | None = None,
    root: str | os.PathLike[str] | None = None,
    allow_paths: bool = False,
) -> TaskTool:
    """Any fitted classifier as a tool with one argument, ``image``; see ``FewShotClassifier.as_tool``."""
    tool = tools.classifying(classifier)
    return tool_of(tool, name, description, images=images, root=root, allow_paths=allow_paths)


def generator_tool(
    generator: Generator,
    name: str | None = None,
    description: str | None = None,
    *,
    images: Mapping[str, ImageSource] | None = None,
) -> TaskTool:
    """Any fitted generator as a tool with one argument, ``text``; see ``ImageGenerator.as_tool``."""
    return tool_of(tools.drawing(generator), name, description, images=images)


def as_runnable(task: Callable[[Any], Any], *, name: str | None = None) -> RunnableLambda[Any, Any]:
    """A task object as a Runnable.

    Needed only where no neighbour in a chain is a Runnable yet (``as_runnable(first) | second``); next to a Runnable, a
    task takes part in ``|`` as it is.
    """
    return RunnableLambda(task, name=name or type(task).__name__)
