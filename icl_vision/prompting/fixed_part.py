"""The part of a prompt that all queries share, rendered once; each query adds what changes.

Knows: that everything but the query block is the same for every query, byte for byte, so that prefix caches hit.
Refuses to know: what the variables mean; a task's own builder does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from icl_vision.contracts import Prompt
from icl_vision.prompting.templates import PromptTemplate


@dataclass(frozen=True, slots=True)
class FixedPart:
    """Instruction and context of a prompt, with what its queries are rendered from.

    Attributes:
        instruction, context: as in every prompt, byte for byte.
        template: of all three blocks.
        variables: of every block.
        max_chars: longest rendered part.
    """

    instruction: str
    context: str
    template: PromptTemplate = field(repr=False)
    variables: dict[str, Any] = field(repr=False)
    max_chars: int = field(repr=False)

    def prompt(self, asked: Mapping[str, Any]) -> Prompt:
        """The whole prompt of the query with these further variables.

        Raises:
            TemplateError: the query block fails.
        """
        variables = {**_fresh(self.variables), **asked}
        return Prompt(
            self.instruction, self.context, self.template.render("query", variables, max_chars=self.max_chars)
        )


class Rendered(NamedTuple):
    """The two blocks that do not change."""

    instruction: str
    context: str


def render_fixed(
    template: PromptTemplate, variables: dict[str, Any], shown: Mapping[str, Any], *, max_chars: int
) -> Rendered:
    """The instruction, and the context with the examples it shows (``shown``: its further variables).

    Raises:
        TemplateError: a block fails, or the text is longer than ``max_chars``.
    """
    instruction = template.render("instruction", _fresh(variables), max_chars=max_chars)
    context = template.render("context", {**_fresh(variables), **shown}, max_chars=max_chars)
    return Rendered(instruction, context)


def _fresh(variables: dict[str, Any]) -> dict[str, Any]:
    """A copy for one rendering, so that no rendering can change what another sees."""
    return {name: list(value) if isinstance(value, list) else value for name, value in variables.items()}
