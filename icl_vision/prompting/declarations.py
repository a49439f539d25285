"""What a task declares of its templates: which variables each block gets, and what its query must ask with.

Knows: the three blocks that every template has. Refuses to know: any task; each declares its own
(``tasks.classify.prompts``, ``drawing.prompts``), and ``tasks.templates`` lists them for who has to tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icl_vision.contracts import Prompt

BLOCKS = ("instruction", "context", "query")
"""The blocks of every template, each rendered by itself; the first two are the same for all queries."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A second template that belongs to a first, under the first one's name with an ending.

    suffix: the ending. kind: what its query asks for. lost: what is lost where it is missing, for a remark to the user.
    """

    suffix: str
    kind: str
    lost: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A template tried out on a small built-in example: the prompt, and what an LLM might continue with.

    scored: the continuation is scored rather than written.
    """

    prompt: Prompt
    continuation: str
    scored: bool = False


@dataclass(frozen=True, slots=True)
class Declaration:
    """The templates of one task.

    Attributes:
        task: its name, for messages ("classification").
        purpose: what its templates do, for messages ("asks for a label").
        fixed: variables of every block; the same for every query.
        asks: kind -> the variable its query asks with. A query uses exactly one of them, which decides the kind.
        sample: ``sample(name, folder, induction=, repeats=)`` tries a template out on a built-in example.
        context: further variables of the context block; it must use each.
        query: further variables of the query block; it may use each.
        twin: a second template that the task uses where it is there, or None.
    """

    task: str
    purpose: str
    fixed: tuple[str, ...]
    asks: Mapping[str, str]
    sample: Callable[..., Sample] = field(compare=False, repr=False)
    context: tuple[str, ...] = ("examples",)
    query: tuple[str, ...] = ()
    twin: Twin | None = None

    def variables(self, block: str) -> tuple[str, ...]:
        """The variables that a block gets, in the order in which messages list them."""
        own = {"context": self.context, "query": (*self.query, *self.asks.values())}
        return (*self.fixed, *own.get(block, ()))

    def kind(self, used: set[str]) -> str | None:
        """What a query that uses these variables asks for; None where it leaves that open."""
        kinds = [kind for kind, variable in self.asks.items() if variable in used]
        return kinds[0] if len(kinds) == 1 else None

    def __hash__(self) -> int:  # asks is a dict, which has no hash; a task has one declaration
        return hash((self.task, self.fixed))
