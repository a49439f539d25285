"""Faults of a template that can be seen without rendering it, each with its line.

Knows: the three blocks and the syntax a prompt may use; which variables there are, a declaration says. Refuses to know:
tasks, files, folders and rendering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateSyntaxError, meta, nodes

from icl_vision.prompting.declarations import BLOCKS, Declaration

if TYPE_CHECKING:
    from icl_vision.prompting.sandbox import PromptEnvironment

_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Include: "{% include %}",
    nodes.Import: "{% import %}",
    nodes.FromImport: "{% from ... import %}",
    nodes.Extends: "{% extends %}",
    nodes.Macro: "{% macro %}",
    nodes.CallBlock: "{% call %}",
    nodes.FilterBlock: "{% filter %}",
    nodes.AssignBlock: "{% set %} with a body",
    nodes.NSRef: "{% set name.attribute %}",
    nodes.ScopedEvalContextModifier: "{% autoescape %}",
    nodes.EvalContextModifier: "{% autoescape %}",
}
_ALLOWED = (
    nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign, nodes.With, nodes.Expr, nodes.Operand,
    nodes.Pair, nodes.Keyword,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a template: what, and the line it stands on (1 for the file as a whole)."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a template's text says about itself.

    declaration: the task whose variables it uses; None where it cannot be read. faults: empty when the template can be
    used, in the order of their lines. kind: one of the declaration's; None when the query block leaves it open.
    literals: the fixed words around examples and query, which a label must not contain ("###", "Input:", ...).
    """

    declaration: Declaration | None
    faults: tuple[Fault, ...]
    kind: str | None = None
    literals: tuple[str, ...] = ()


def inspect(environment: PromptEnvironment, source: str, declared: Sequence[Declaration]) -> Inspection:
    """Every fault of ``source`` that shows without rendering, its kind and its fixed words.

    declared: of the tasks that it may belong to; it belongs to the one that lacks the fewest of its variables, the
    first of several.
    """
    try:
        return _inspect(environment, environment.parse(source), declared)
    except TemplateSyntaxError as error:
        return Inspection(None, (Fault(error.lineno, f"jinja cannot read it: {error.message}"),))
    except (RecursionError, MemoryError):
        return Inspection(None, (Fault(1, "it is nested too deeply"),))


def _inspect(environment: PromptEnvironment, tree: nodes.Template, declared: Sequence[Declaration]) -> Inspection:
    blocks = {block.name: block for block in tree.body if isinstance(block, nodes.Block)}
    faults = [*_layout_faults(tree, blocks), *_syntax_faults(environment, tree)]
    known = {name for declaration in declared for block in BLOCKS for name in declaration.variables(block)}
    used = {name: _undeclared(environment, blocks[name], known) for name in BLOCKS if name in blocks}
    own = min(
        declared, key=lambda task: sum(len(names.difference(task.variables(name))) for name, names in used.items())
    )
    for name, names in used.items():
        faults.extend(_variable_faults(blocks[name], names, own.variables(name)))
    kind = None
    if "query" in blocks:
        kind = own.kind(used["query"])
        if kind is None:
            faults.append(Fault(blocks["query"].lineno, _asks_with(own, used["query"])))
    if "context" in blocks:
        faults.extend(
            Fault(blocks["context"].lineno, f"the context block never uses `{name}`: the LLM would not see them")
            for name in own.context
            if name not in used["context"]
        )
    unique = sorted(dict.fromkeys(faults), key=lambda fault: fault.line)
    literals = _literals([blocks[name] for name in ("context", "query") if name in blocks])
    return Inspection(own, tuple(unique), kind, literals)


def _asks_with(own: Declaration, used: set[str]) -> str:
    """Why a query block asks for nothing, or for two things at once."""
    names = [f"`{name}`" for name in own.asks.values()]
    if len(names) == 1:
        return f"the query block never uses {names[0]}: the LLM would not see what it is asked about"
    some = any(name in used for name in own.asks.values())
    which = f"uses both {' and '.join(names)}" if some else f"uses neither {' nor '.join(names)}"
    each = ", ".join(
        f"a {kind} template `{name}`" if number else f"a {kind} template uses `{name}`"
        for number, (kind, name) in enumerate(own.asks.items())
    )
    return f"the query block {which}; {each}"


def _layout_faults(tree: nodes.Template, blocks: dict[str, nodes.Block]) -> Iterator[Fault]:
    for name in BLOCKS:
        if name not in blocks:
            yield Fault(1, f"the block {name!r} is missing; a template has exactly the blocks {', '.join(BLOCKS)}")
    for node in tree.body:
        if isinstance(node, nodes.Block):
            if node.name not in BLOCKS:
                yield Fault(
                    node.lineno,
                    f"the block {node.name!r} is one too many; a template has exactly the blocks {', '.join(BLOCKS)}",
                )
            for inner in node.find_all(nodes.Block):
                yield Fault(inner.lineno, f"the block {inner.name!r} lies inside the block {node.name!r}")
        elif isinstance(node, nodes.Output):
            for part in node.nodes:
                if not isinstance(part, nodes.TemplateData) or part.data.strip():
                    yield Fault(_text_line(part), "there is text outside the three blocks; it would never be shown")
                    break
        elif type(node) not in _REFUSED:  # those get a message of their own
            yield Fault(node.lineno, "there are statements outside the three blocks; they would have no effect")


def _text_line(node: nodes.Node) -> int:
    """The line of the first visible character of a piece of text."""
    if not isinstance(node, nodes.TemplateData):
        return node.lineno
    return node.lineno + node.data[: len(node.data) - len(node.data.lstrip())].count("\n")


def _syntax_faults(environment: PromptEnvironment, tree: nodes.Template) -> Iterator[Fault]:
    for node in tree.find_all(nodes.Node):
        refused = next((text for kind, text in _REFUSED.items() if isinstance(node, kind)), None)
        if refused:
            yield Fault(node.lineno, f"{refused} is not allowed in a prompt template")
        elif isinstance(node, nodes.Block):
            continue
        elif isinstance(node, nodes.For) and node.recursive:
            yield Fault(node.lineno, "a recursive {% for %} is not allowed in a prompt template")
        elif isinstance(node, nodes.Filter) and node.name not in environment.filters:
            names = ", ".join(environment.filters)
            yield Fault(node.lineno, f"there is no filter {node.name!r} here; there are {names}")
        elif isinstance(node, nodes.Test) and node.name not in environment.tests:
            names = ", ".join(environment.tests)
            yield Fault(node.lineno, f"there is no test {node.name!r} here; there are {names}")
        elif isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            yield Fault(node.lineno, f"the attribute {node.attr!r} is private and cannot be reached from a template")
        elif not isinstance(node, _ALLOWED):
            yield Fault(node.lineno, f"{type(node).__name__} is not allowed in a prompt template")


def _undeclared(environment: PromptEnvironment, block: nodes.Block, known: set[str]) -> set[str]:
    alone = nodes.Template(block.body, lineno=block.lineno)
    alone.set_environment(environment)
    try:
        # jinja declares `self` and `super` by itself; both reach other blocks.
        own = {node.name for node in block.find_all(nodes.Name)} & {"self", "super"}
        return meta.find_undeclared_variables(alone) | own
    except TemplateSyntaxError:
        # An unknown filter or test, reported by name elsewhere, stops jinja's own analysis.
        names = {node.name for node in block.find_all(nodes.Name) if node.ctx == "load"}
        return names & known


def _variable_faults(block: nodes.Block, used: set[str], variables: tuple[str, ...]) -> Iterator[Fault]:
    for name in sorted(used.difference(variables)):
        line = min((node.lineno for node in block.find_all(nodes.Name) if node.name == name), default=block.lineno)
        yield Fault(line, f"the {block.name} block has no variable {name!r}; it has {', '.join(variables)}")


def _literals(blocks: list[nodes.Block]) -> tuple[str, ...]:
    """Fixed text of the blocks, piece by piece between variables and line ends.

    Single characters and single plain words ("The") are left out: they separate nothing, and labels hold them.
    """
    pieces: dict[str, None] = {}
    for block in blocks:
        for text in block.find_all(nodes.TemplateData):
            for line in text.data.splitlines():
                piece = line.strip()
                if len(piece) >= 2 and not piece.isalnum():
                    pieces[piece] = None
    return tuple(pieces)
