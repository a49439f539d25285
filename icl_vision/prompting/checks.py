"""Faults of a template that can be seen without rendering it, each with its line.

Knows: the three blocks, their variables and the syntax a prompt may use. Refuses to know: files,
folders and rendering.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateSyntaxError, meta, nodes

if TYPE_CHECKING:
    from icl_vision.prompting.sandbox import PromptEnvironment

BLOCKS = ("instruction", "context", "query")
FIXED_VARIABLES = ("labels", "induction", "ways", "shots", "repeats")
"""Variables of every block; together with ``examples`` the same for every query of an episode."""
VARIABLES = {
    "instruction": FIXED_VARIABLES,
    "context": (*FIXED_VARIABLES, "examples"),
    "query": (*FIXED_VARIABLES, "words", "label"),
}
SEGMENT_VARIABLES = ("induction", "count", "layer", "layers", "first", "size", "segment", "segments")
"""Variables of every block of a segment template, the same for every query of one segment."""
SEGMENT_BLOCKS = {
    "instruction": SEGMENT_VARIABLES,
    "context": (*SEGMENT_VARIABLES, "examples"),
    "query": (*SEGMENT_VARIABLES, "condition", "words"),
}
_ONLY_SEGMENT = frozenset(SEGMENT_BLOCKS["query"]) - {*VARIABLES["context"], *VARIABLES["query"]}
Kind = Literal["direct", "channel", "segment"]
"""direct: the query holds the image's words and asks for the label; channel: the other way round; segment: the query
holds a condition and the words so far, and asks for the next words of a picture (``prompting.segment_prompts``)."""

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

    faults: empty when the template can be used, in the order of their lines. kind: None when the
    query block leaves it open. literals: the fixed words around examples and query, which a label
    must not contain ("###", "Input:", ...).
    """

    faults: tuple[Fault, ...]
    kind: Kind | None = None
    literals: tuple[str, ...] = ()


def inspect(environment: PromptEnvironment, source: str) -> Inspection:
    """Every fault of ``source`` that shows without rendering, its kind and its fixed words."""
    try:
        return _inspect(environment, environment.parse(source))
    except TemplateSyntaxError as error:
        return Inspection((Fault(error.lineno, f"jinja cannot read it: {error.message}"),))
    except (RecursionError, MemoryError):
        return Inspection((Fault(1, "it is nested too deeply"),))


def _inspect(environment: PromptEnvironment, tree: nodes.Template) -> Inspection:
    blocks = {block.name: block for block in tree.body if isinstance(block, nodes.Block)}
    faults = [*_layout_faults(tree, blocks), *_syntax_faults(environment, tree)]
    used = {name: _undeclared(environment, blocks[name]) for name in BLOCKS if name in blocks}
    drawing = any(names & _ONLY_SEGMENT for names in used.values())
    for name, names in used.items():
        faults.extend(_variable_faults(blocks[name], names, SEGMENT_BLOCKS if drawing else VARIABLES))
    kind: Kind | None = None
    if drawing:
        kind = "segment"
        if "query" in blocks and "words" not in used["query"]:
            line = blocks["query"].lineno
            faults.append(Fault(line, "the query block never uses `words`: the LLM would not see what is there so far"))
    elif "query" in blocks:
        wanted = used["query"] & {"words", "label"}
        if len(wanted) == 1:
            kind = "direct" if wanted == {"words"} else "channel"
        else:
            both = "uses both `words` and `label`" if wanted else "uses neither `words` nor `label`"
            faults.append(
                Fault(
                    blocks["query"].lineno,
                    f"the query block {both}; a direct template uses `words`, a channel template `label`",
                )
            )
    if "context" in blocks and "examples" not in used["context"]:
        faults.append(
            Fault(blocks["context"].lineno, "the context block never uses `examples`: the LLM would not see them")
        )
    unique = sorted(dict.fromkeys(faults), key=lambda fault: fault.line)
    return Inspection(tuple(unique), kind, _literals([blocks[name] for name in ("context", "query") if name in blocks]))


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


def _undeclared(environment: PromptEnvironment, block: nodes.Block) -> set[str]:
    alone = nodes.Template(block.body, lineno=block.lineno)
    alone.set_environment(environment)
    try:
        # jinja declares `self` and `super` by itself; both reach other blocks.
        own = {node.name for node in block.find_all(nodes.Name)} & {"self", "super"}
        return meta.find_undeclared_variables(alone) | own
    except TemplateSyntaxError:
        # An unknown filter or test, reported by name elsewhere, stops jinja's own analysis.
        names = {node.name for node in block.find_all(nodes.Name) if node.ctx == "load"}
        return names & {*VARIABLES["context"], *VARIABLES["query"], *SEGMENT_BLOCKS["query"]}


def _variable_faults(block: nodes.Block, used: set[str], variables: Mapping[str, tuple[str, ...]]) -> Iterator[Fault]:
    for name in sorted(used.difference(variables[block.name])):
        line = min((node.lineno for node in block.find_all(nodes.Name) if node.name == name), default=block.lineno)
        yield Fault(
            line,
            f"the {block.name} block has no variable {name!r}; it has {', '.join(variables[block.name])}",
        )


def _literals(blocks: list[nodes.Block]) -> tuple[str, ...]:
    """Fixed text of the blocks, piece by piece between variables and line ends.

    Single characters and single plain words ("The") are left out: they separate nothing, and labels hold them.
    """
    found: dict[str, None] = {}
    for block in blocks:
        for text in block.find_all(nodes.TemplateData):
            for line in text.data.splitlines():
                piece = line.strip()
                if len(piece) >= 2 and not piece.isalnum():
                    found[piece] = None
    return tuple(found)
