"""The jinja environment in which prompt templates run: immutable, without side doors, bounded.

Knows: which syntax, filters, tests, functions and methods a prompt may use, and how much it may
compute. Refuses to know: where templates lie and what their blocks are called.

What is stopped, and how:

- Python internals, ``str.format``, the ``attr`` filter, mutation of lists and dicts: only listed
  filters, tests and methods exist here, on top of jinja2's ``ImmutableSandboxedEnvironment``.
- Reading other files: ``include``, ``import`` and ``extends`` are refused and there is no loader.
- Huge strings, lists and numbers (``"a" * 10**9``, ``x ~ x`` again and again, ``**``): operators,
  filters and functions whose result can be longer than their input are checked before they run,
  and all that one rendering makes is added up against a limit.
- Lists within lists, made by a template: comparing ``[[x, x], [x, x]] ...`` takes exponential time,
  so lists, tuples and dicts written in a template hold text and numbers only.
- Endless work (nested loops): all loops of one rendering share a number of rounds, and the CPU
  time of the thread is limited. Macros and recursive loops are refused.
- Long output: characters are counted while the template streams.

What jinja2's own sandbox stops is left to it: private attributes, ``str.format`` with attributes, changing a list or
dict, and ``range`` of more than 100,000 numbers.

What is not stopped: one step between two checks runs to its end (a sort of the longest list
allowed takes some milliseconds), so a hostile template can still use some tens of megabytes and
a few seconds of one core, and it can of course word a prompt that misleads the LLM.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any, cast

from jinja2 import StrictUndefined, Template, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from icl_vision.prompting import bounds

FILTERS = (
    "capitalize", "count", "d", "default", "dictsort", "first", "int", "items", "join", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "select", "selectattr", "sort",
    "title", "trim", "unique", "upper", "wordcount",
)  # fmt: skip
TESTS = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "ge", "greaterthan", "gt", "in", "integer",
    "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sameas", "sequence",
    "string", "true", "undefined", "upper", "==", "!=", "<", "<=", ">", ">=",
)  # fmt: skip
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset({
        "capitalize", "count", "endswith", "find", "isalpha", "isdigit", "islower", "isupper", "lower", "lstrip",
        "removeprefix", "removesuffix", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title",
        "upper",
    }),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}  # fmt: skip
LOOP_METHODS = frozenset({"changed", "cycle"})
_FUNCTIONS = (
    safe_range, bounds.counted, bounds.concatenated, bounds.sliced, bounds.listed, bounds.mapped,
)  # fmt: skip


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox, cut down to what a prompt needs and bounded as the module says."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            autoescape=False,  # plain text, not HTML
            finalize=bounds.scalar,
            loader=None,
        )
        self.globals.clear()
        self.globals["range"] = safe_range  # jinja2's own: at most MAX_RANGE numbers
        known = self.filters
        self.filters = {name: bounds.charged(known[name]) for name in FILTERS}
        self.filters.update(join=bounds.filter_join, replace=bounds.filter_replace, list=bounds.filter_list)
        self.tests = {name: self.tests[name] for name in TESTS}
        self.binop_table.update({"+": bounds.plus, "*": bounds.times, "**": bounds.power, "%": bounds.modulo})
        # Reached from compiled templates through the nodes that ``bounded`` inserts.
        self.counted, self.concatenated, self.sliced = bounds.counted, bounds.concatenated, bounds.sliced
        self.listed, self.mapped = bounds.listed, bounds.mapped

    def is_safe_callable(self, obj: Any) -> bool:
        """Only the listed functions and methods may be called."""
        if any(obj is allowed for allowed in _FUNCTIONS):
            return True
        if isinstance(obj, MethodType):
            return isinstance(obj.__self__, LoopContext) and obj.__name__ in LOOP_METHODS
        if isinstance(obj, BuiltinMethodType):
            return obj.__name__ in METHODS.get(type(obj.__self__), ())
        return False

    def call(self, _context: Context, _function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a listed function or method; anything else is refused by name."""
        if isinstance(_function, Undefined):
            _function()  # StrictUndefined raises, with the name or attribute that is missing or unsafe
        if self.is_safe_callable(_function):
            return bounds.charge(super().call(_context, _function, *args, **kwargs))
        name = getattr(_function, "__qualname__", type(_function).__name__)
        raise SecurityError(f"{name!r} may not be called in a prompt")

    def bounded(self, tree: nodes.Template) -> nodes.Template:
        """Make loops count their rounds, ``~``, slices and literals check their results (changes and returns ``tree``).

        jinja compiles these without asking the sandbox, so they become calls that it does see.
        """
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = self._call("counted", [loop.iter], loop.lineno)
        self._replace_in(tree)
        return tree

    def _replace_in(self, node: nodes.Node) -> None:
        for field, value in node.iter_fields():
            if isinstance(value, list):
                value[:] = [self._replaced(item) for item in value]
            else:
                setattr(node, field, self._replaced(value))
        for child in node.iter_child_nodes():
            self._replace_in(child)

    def _replaced(self, node: Any) -> Any:
        if isinstance(node, nodes.Concat):
            return self._call("concatenated", node.nodes, node.lineno)
        if isinstance(node, nodes.List) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return self._call("listed", node.items, node.lineno)
        if isinstance(node, nodes.Dict):
            return self._call("mapped", [part for pair in node.items for part in (pair.key, pair.value)], node.lineno)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            ends = (node.arg.start, node.arg.stop, node.arg.step)
            return self._call("sliced", [node.node, *(end or nodes.Const(None) for end in ends)], node.lineno)
        return node

    def _call(self, attribute: str, args: list[Any], line: int) -> nodes.Call:
        call = nodes.Call(nodes.EnvironmentAttribute(attribute), args, [], None, None)
        call.set_lineno(line, override=False).set_environment(self)
        return call


def render_block(template: Template, block: str, variables: Mapping[str, Any], max_chars: int) -> str:
    """One block of a compiled template as text; raises whatever the template raises."""
    with bounds.limited(max_chars) as budget:
        stream = cast("Generator[str, None, None]", template.blocks[block](template.new_context(dict(variables))))
        parts: list[str] = []
        for part in stream:
            try:
                budget.emit(len(part))
            except SecurityError as error:
                stream.throw(error)  # raised inside the template, so that the error knows its line
            parts.append(part)
        return "".join(parts)
