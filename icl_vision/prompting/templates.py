"""Finding, checking, loading and rendering prompt templates.

Knows: where templates lie (packaged ones, and a user's folder that overrides them by name), their limits, and how three
blocks become a prompt of which all but the query is rendered once, so that prefix caches hit. Refuses to know: what the
variables mean, and any task; which variables there are, a task's declaration says.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from icl_vision.contracts import Prompt
from icl_vision.errors import TemplateError
from icl_vision.files.reading import opened
from icl_vision.prompting.labels import forbidden_character
from icl_vision.spelling import composed

if TYPE_CHECKING:
    import jinja2

    from icl_vision.prompting.declarations import Declaration, Twin
    from icl_vision.prompting.faults import Inspection

logger = logging.getLogger(__name__)

MAX_TEMPLATE_BYTES = 64 * 1024
"""Largest template file."""
MAX_RENDERED_CHARS = 1_000_000
"""Longest rendered part of a prompt, unless the caller sets another limit."""
SUFFIX = ".jinja"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEADER = re.compile(r"\s*\{#-?(.*?)-?#\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """Where a template lies. origin: "packaged" or "folder"; overrides: it hides a packaged one of that name."""

    name: str
    path: Path
    origin: Literal["packaged", "folder"]
    overrides: bool = False

    def read(self) -> str:
        """The file's text, with its size and encoding checked.

        Raises:
            TemplateError: unreadable, larger than ``MAX_TEMPLATE_BYTES``, or not UTF-8.
        """
        try:
            with opened(self.path, most=2**63) as handle:
                raw = handle.read(MAX_TEMPLATE_BYTES + 1) or b""
        except OSError as error:
            raise TemplateError(f"{self.path}: the template cannot be read ({error.strerror})") from error
        if len(raw) > MAX_TEMPLATE_BYTES:
            raise TemplateError(
                f"{self.path}: the template is larger than {MAX_TEMPLATE_BYTES // 1024} KB; shorten it "
                "(examples belong into the support set, not into the template)"
            )
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise TemplateError(
                f"{self.path}: the template is not UTF-8 (byte {error.start}); save it as UTF-8"
            ) from error

    def description(self) -> str:
        """The first line of the comment at the top of the file, or ""."""
        header = _HEADER.match(self.read())
        return next((line.strip() for line in header[1].splitlines() if line.strip()), "") if header else ""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template that passed every check. kind: what its query asks for, one of its declaration's kinds. literals: its
    fixed words, which a label must not contain."""

    info: TemplateInfo
    source: str = field(repr=False)
    declaration: Declaration = field(repr=False)
    kind: str
    literals: tuple[str, ...]
    compiled: jinja2.Template = field(repr=False)

    def render(self, block: str, variables: Mapping[str, Any], *, max_chars: int = MAX_RENDERED_CHARS) -> str:
        """One block as text, without newlines at its ends; the query also without spaces at its end. In composed
        characters throughout, however variables and template spell theirs: an LLM reads another spelling as another
        text.

        Raises:
            TemplateError: a variable or attribute is undefined, the sandbox refuses something, the text is
                longer than ``max_chars`` or holds a control character. Names file and line.
        """
        from icl_vision.prompting.sandbox import render_block

        try:
            text = render_block(self.compiled, block, _composed_values(variables), max_chars)
            text = text if text.isascii() else composed(text)
        except Exception as error:  # whatever a template's expression raised is the template's fault
            line = _line_of(error.__traceback__)
            raise TemplateError(f"{_place(self.info.path, line)}: the {block} block fails: {error}") from error
        character = forbidden_character(text)
        if character:
            raise TemplateError(f"{self.info.path}: the {block} block renders {character}; remove it from the template")
        text = text.strip("\n")
        return text.rstrip() if block == "query" else text


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


def packaged_folder() -> Path:
    """The folder of the packaged templates."""
    return Path(str(importlib.resources.files("icl_vision.prompts")))


def list_templates(folder: str | os.PathLike[str] | None = None) -> list[TemplateInfo]:
    """Every template that can be asked for by name, sorted; those of ``folder`` hide packaged ones of the same name.

    Raises:
        TemplateError: ``folder`` is no folder.
    """
    infos = {path.stem: TemplateInfo(path.stem, path, "packaged") for path in _files(packaged_folder())}
    if folder is not None:
        for path in _files(_checked_folder(folder)):
            infos[path.stem] = TemplateInfo(path.stem, path, "folder", overrides=path.stem in infos)
    return [infos[name] for name in sorted(infos)]


def misnamed_files(folder: str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """Files of ``folder`` that end in ``.jinja`` but cannot be asked for by name, each with the reason."""
    return [
        (path, f"{path}: {path.stem!r} is no template name; use letters, digits, '-' and '_' only")
        for path in sorted(_checked_folder(folder).iterdir())
        if path.suffix == SUFFIX and path.is_file() and not _NAME.fullmatch(path.stem)
    ]


def find_template(name: object, folder: str | os.PathLike[str] | None = None) -> TemplateInfo:
    """Where the template ``name`` lies: in ``folder`` if it is there, else among the packaged ones.

    Raises:
        TemplateError: ``name`` is no plain name (a path, ``..`` ...), ``folder`` is no folder, or there is
            no such template.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TemplateError(
            f"{name!r} is no template name: use letters, digits, '-' and '_' (up to 64, no path, no {SUFFIX!r}); "
            "to use a file of your own give its folder as folder="
        )
    for info in list_templates(folder):
        if info.name == name:
            return info
    places = "the packaged templates" if folder is None else f"{os.fspath(folder)!r} and the packaged templates"
    names = ", ".join(info.name for info in list_templates(folder))
    raise TemplateError(f"there is no template {name!r} in {places}; there are {names}")


def find_twin(
    info: TemplateInfo, twin: Twin | None, folder: str | os.PathLike[str] | None = None
) -> TemplateInfo | None:
    """The twin of a template that its task declares, or None.

    It lies in the same folder as the template, or in the user's folder. A packaged twin of a template that
    the user overrides does not count: it would not say what the user's template says.
    """
    if twin is None or info.name.endswith(twin.suffix) or not _NAME.fullmatch(info.name + twin.suffix):
        return None
    other = next((other for other in list_templates(folder) if other.name == info.name + twin.suffix), None)
    if other is None or (info.origin == "folder" and other.origin == "packaged"):
        return None
    return other


def template_hashes(
    name: str, folder: str | os.PathLike[str] | None = None, twin: Twin | None = None
) -> dict[str, str]:
    """Hex sha256 of what a template says, and its twin where it has one, by name.

    Raises:
        TemplateError: as ``find_template``, or a file that cannot be read.
    """
    info = find_template(name, folder)
    other = find_twin(info, twin, folder)
    texts = [info] if other is None else [info, other]
    return {text.name: hashlib.sha256(text.read().encode()).hexdigest() for text in texts}


def lost_twin(info: TemplateInfo, twin: Twin | None, folder: str | os.PathLike[str] | None = None) -> str | None:
    """What is lost where a user's template hides a packaged one that has a twin; None where nothing is."""
    if twin is None or not info.overrides or info.name.endswith(twin.suffix):
        return None
    if find_twin(info, twin, folder) is not None or find_twin(find_template(info.name), twin) is None:
        return None
    return (
        f"{info.path} overrides the packaged template, whose {twin.kind} twin no longer counts: {twin.lost}; add "
        f"{info.name}{twin.suffix}{SUFFIX} beside it "
        f"(`icl-vision prompts show {info.name}{twin.suffix} --source` prints the packaged one)"
    )


def load_template(info: TemplateInfo, declared: Sequence[Declaration]) -> PromptTemplate:
    """Read, check and compile a template.

    Args:
        info: where it lies.
        declared: of the tasks it may belong to; see ``declarations``.

    Raises:
        TemplateError: naming the file, the task and every fault with its line.
    """
    return _loaded(info, info.read(), tuple(declared))


@functools.lru_cache(maxsize=64)
def _loaded(info: TemplateInfo, source: str, declared: tuple[Declaration, ...]) -> PromptTemplate:
    """``load_template``, once for each text: compiling takes ten times as long as a prompt."""
    inspection = _inspected(source, declared)
    own = inspection.declaration
    if inspection.faults or inspection.kind is None or own is None:
        faults = "; ".join(_place(None, fault.line) + f": {fault.message}" for fault in inspection.faults)
        # One task alone was meant, and this may be the template of another.
        meant = f" (a template of {own.task} {own.purpose})" if own is not None and len(declared) == 1 else ""
        raise TemplateError(f"{info.path}, {faults}{meant}")
    if own.twin is not None and info.name.endswith(own.twin.suffix) != (inspection.kind == own.twin.kind):
        has = info.name.endswith(own.twin.suffix)
        wanted = " or ".join(f"`{name}`" for kind, name in own.asks.items() if (kind == own.twin.kind) == has)
        raise TemplateError(
            f"{info.path}: the name {'has' if has else 'lacks'} the ending {own.twin.suffix!r}, so its query block "
            f"must use {wanted}"
        )
    return PromptTemplate(info, source, own, inspection.kind, inspection.literals, _compile(info, source))


def template_faults(info: TemplateInfo, declared: Sequence[Declaration]) -> list[str]:
    """Every fault that shows without rendering, one line each naming file and line; [] when there is none."""
    try:
        inspection = _inspected(info.read(), declared)
        if inspection.faults:
            return [f"{_place(info.path, fault.line)}: {fault.message}" for fault in inspection.faults]
        load_template(info, declared)
    except TemplateError as error:
        return [str(error)]
    return []


def _inspected(source: str, declared: Sequence[Declaration]) -> Inspection:
    # These modules import jinja2; so it is loaded only once a template is wanted.
    from icl_vision.prompting.faults import inspect
    from icl_vision.prompting.sandbox import PromptEnvironment, limited

    with limited(MAX_RENDERED_CHARS):  # jinja computes constant expressions while it compiles
        return inspect(PromptEnvironment(), source, declared)


def _compile(info: TemplateInfo, source: str) -> jinja2.Template:
    import jinja2

    from icl_vision.prompting.sandbox import PromptEnvironment, limited

    environment = PromptEnvironment()
    try:
        with limited(MAX_RENDERED_CHARS):
            code = environment.compile(environment.bounded(environment.parse(source)), info.name, str(info.path))
        return jinja2.Template.from_code(environment, code, environment.globals)
    except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise TemplateError(f"{info.path}: the template cannot be compiled: {error}") from error


def _composed_values(value: Any) -> Any:
    """Variables whose texts are in composed characters, so that what a template counts or cuts is the same too."""
    if isinstance(value, str):
        return value if value.isascii() else composed(value)
    if isinstance(value, Mapping):
        return {name: _composed_values(item) for name, item in value.items()}
    return [_composed_values(item) for item in value] if isinstance(value, list) else value


def _files(folder: Path) -> list[Path]:
    try:
        return [
            path for path in folder.iterdir() if path.suffix == SUFFIX and _NAME.fullmatch(path.stem) and path.is_file()
        ]
    except OSError as error:
        raise TemplateError(f"the template folder {str(folder)!r} cannot be read ({error.strerror})") from error


def _checked_folder(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise TemplateError(f"the template folder {str(path)!r} does not exist or is not a folder")
    return path


def _place(path: Path | None, line: int | None) -> str:
    parts = [str(path)] if path is not None else []
    return ", ".join([*parts, f"line {line}"] if line else parts)


def _line_of(traceback: TracebackType | None) -> int | None:
    """The line of the template in which an exception arose: its innermost frame that belongs to a template."""
    line = None
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        elif traceback.tb_frame.f_code.co_filename.endswith(SUFFIX):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
