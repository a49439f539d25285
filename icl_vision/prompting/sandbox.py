"""The jinja environment in which prompt templates run: immutable, without side doors, bounded.

Knows: which syntax, filters, tests, functions and methods a prompt may use, and how much it may
compute: how long strings, lists and numbers may become, and how much work one rendering may do in all. Refuses to know:
where templates lie and what their blocks are called.

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

import contextlib
import contextvars
import functools
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any, TypeVar, cast

from jinja2 import StrictUndefined, Template, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

# What a prompt may use ------------------------------------------------------------------------------------------------

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

# What one rendering may use up ----------------------------------------------------------------------------------------

MAX_ITEMS = 1_000_000
"""Items of all lists that one rendering makes, together."""
MAX_MADE = 32
"""Characters of all strings that one rendering makes, as a multiple of the characters it may print."""
MAX_ROUNDS = 200_000
"""Loop rounds of one rendering, all loops together."""
MAX_CPU_SECONDS = 2.0
"""CPU time of one rendering; an honest template needs milliseconds."""
MAX_INT = 10**18
"""Largest whole number that a template may compute."""


Made = TypeVar("Made")
"""What a template made: a text, a list, or anything else."""


class Budget:
    """What one rendering has used up: characters printed and made, list items, loop rounds, CPU time."""

    def __init__(self, max_chars: int) -> None:
        self.max_chars = max_chars
        self.chars = self.made = self.items = self.rounds = 0
        self.deadline = time.thread_time() + MAX_CPU_SECONDS

    def emit(self, chars: int) -> None:
        """Count characters of output."""
        self.chars += chars
        if self.chars > self.max_chars:
            raise SecurityError(f"its text grows beyond {self.max_chars:,} characters")

    def spend(self, chars: int = 0, items: int = 0) -> None:
        """Count a string or list that the template is about to make."""
        self.made += max(0, chars)
        self.items += max(0, items)
        if chars > self.max_chars or self.made > MAX_MADE * self.max_chars:
            raise SecurityError(f"it makes a text of more than {self.max_chars:,} characters, or too many of them")
        if self.items > MAX_ITEMS:
            raise SecurityError(f"it makes lists of more than {MAX_ITEMS:,} items in all")
        self.check_time()

    def round(self) -> None:
        """Count one round of a loop."""
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise SecurityError(f"its loops run more than {MAX_ROUNDS:,} rounds in all")
        self.check_time()

    def check_time(self) -> None:
        if time.thread_time() > self.deadline:
            raise SecurityError(f"it computes for more than {MAX_CPU_SECONDS:g} seconds")


_budget: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("icl_vision_prompt_budget", default=None)


@contextlib.contextmanager
def limited(max_chars: int) -> Iterator[Budget]:
    """The budget of one rendering (or compilation), in force in the ``with`` block, for this thread or task alone."""
    token = _budget.set(Budget(max_chars))
    try:
        yield _current()
    finally:
        _budget.reset(token)


def _current() -> Budget:
    budget = _budget.get()
    if budget is None:
        raise RuntimeError("a prompt template runs outside limited()")
    return budget


# Operations, with a check before each ---------------------------------------------------------------------------------


def charge(value: Made) -> Made:
    """Count a string or list that was just made; gives it back."""
    if isinstance(value, str):
        _current().spend(chars=len(value))
    elif isinstance(value, list | tuple):
        _current().spend(items=len(value))
    return value


def charged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is counted. ``wraps`` keeps jinja's marks (pass_environment ...) on it."""

    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        return charge(function(*args, **kwargs))

    return charged


def _number(value: float) -> float:
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise SecurityError(f"it computes a whole number beyond {MAX_INT:,}")
    return value


def scalar(value: Any) -> Any:
    """What may become text: strings and numbers, so that no list or ``None`` slips into a prompt by mistake."""
    if isinstance(value, Undefined):
        return value  # StrictUndefined raises by itself, with the variable's name
    if value is None or not isinstance(value, str | int | float):
        raise TypeError(
            f"{{{{ ... }}}} must be text or a number, not {type(value).__name__}; join a list, or loop over it"
        )
    return value


def concatenated(*values: Any) -> str:
    """The ``~`` operator."""
    texts = [str(scalar(value)) for value in values]
    _current().spend(chars=sum(map(len, texts)))
    return "".join(texts)


def listed(*items: Any) -> list[Any]:
    """A list or tuple written in the template."""
    return charge([_plain(item) for item in items])


def mapped(*items: Any) -> dict[Any, Any]:
    """A dict written in the template, keys and values in turn."""
    plain = listed(*items)
    return dict(zip(plain[::2], plain[1::2], strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | dict | range) or hasattr(value, "__next__"):
        raise SecurityError("it puts a list into another one; lists and dicts hold text and numbers only")
    return value


def counted(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a loop, each counted against the rendering's rounds."""
    budget = _current()
    for item in items:
        budget.round()
        yield item


def filter_join(value: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    """jinja's ``join`` for strings and numbers, with a cap."""
    budget, separator = _current(), str(scalar(separator))
    parts: list[str] = []
    length = 0
    for item in value:
        if attribute is not None:
            item = item[attribute]
        parts.append(str(scalar(item)))
        length += len(parts[-1]) + len(separator)
        budget.spend(items=1)
    budget.spend(chars=length)
    return separator.join(parts)


def filter_replace(value: str, old: str, new: str, count: int | None = None) -> str:
    """jinja's ``replace`` with a cap."""
    value = str(scalar(value))
    uses = value.count(old) if count is None else min(count, value.count(old))
    _current().spend(chars=len(value) + uses * (len(new) - len(old)))
    return value.replace(old, new, -1 if count is None else count)


def filter_list(value: Iterable[Any]) -> list[Any]:
    """jinja's ``list`` with a cap."""
    items: list[Any] = []
    iterator = iter(value)
    while block := list(itertools.islice(iterator, 1024)):
        _current().spend(items=len(block))
        items.extend(block)
    return items


def sliced(value: Any, start: int | None, stop: int | None, step: int | None) -> Any:
    """``value[start:stop:step]``."""
    return charge(value[start:stop:step])


def power(left: Any, right: Any) -> Any:
    """The ``**`` operator."""
    if not (isinstance(right, int) and 0 <= right <= 64):
        raise SecurityError(f"it computes a power with exponent {right!r}; 0 to 64 are allowed")
    return _number(_number(left) ** right)


def times(left: Any, right: Any) -> Any:
    """The ``*`` operator."""
    for sequence, factor in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(factor, int):
            length = len(sequence) * max(0, factor)
            _current().spend(chars=length) if isinstance(sequence, str) else _current().spend(items=length)
            return sequence * factor
    return _number(left * right)


def plus(left: Any, right: Any) -> Any:
    """The ``+`` operator."""
    if isinstance(left, str) and isinstance(right, str):
        _current().spend(chars=len(left) + len(right))
        return left + right
    if isinstance(left, list | tuple):
        _current().spend(items=len(left) + len(right))
        return left + right
    return _number(left + right)


def modulo(left: Any, right: Any) -> Any:
    """The ``%`` operator, for numbers."""
    if isinstance(left, str):
        raise SecurityError("it formats text with %; write {{ ... }} or the ~ operator")
    return left % right


# The environment ------------------------------------------------------------------------------------------------------

_FUNCTIONS = (
    safe_range, counted, concatenated, sliced, listed, mapped,
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
            finalize=scalar,
            loader=None,
        )
        self.globals.clear()
        self.globals["range"] = safe_range  # jinja2's own: at most MAX_RANGE numbers
        known = self.filters
        self.filters = {name: charged(known[name]) for name in FILTERS}
        self.filters.update(join=filter_join, replace=filter_replace, list=filter_list)
        self.tests = {name: self.tests[name] for name in TESTS}
        self.binop_table.update({"+": plus, "*": times, "**": power, "%": modulo})
        # Reached from compiled templates through the nodes that ``bounded`` inserts.
        self.counted, self.concatenated, self.sliced = counted, concatenated, sliced
        self.listed, self.mapped = listed, mapped

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
            return charge(super().call(_context, _function, *args, **kwargs))
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
    with limited(max_chars) as budget:
        stream = cast("Generator[str, None, None]", template.blocks[block](template.new_context(dict(variables))))
        parts: list[str] = []
        for part in stream:
            try:
                budget.emit(len(part))
            except SecurityError as error:
                stream.throw(error)  # raised inside the template, so that the error knows its line
            parts.append(part)
        return "".join(parts)
