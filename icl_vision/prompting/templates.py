"""Finding, checking, loading and rendering prompt templates.

Knows: where templates lie (packaged ones, and a user's folder that overrides them by name), their
limits, and how three blocks become three strings. Refuses to know: what the variables mean and
which examples are shown in which order (``builder``).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from icl_vision.errors import TemplateError
from icl_vision.files.reading import opened
from icl_vision.prompting.labels import forbidden_character
from icl_vision.spelling import composed

if TYPE_CHECKING:
    import jinja2

    from icl_vision.prompting.checks import Inspection, Kind

logger = logging.getLogger(__name__)

MAX_TEMPLATE_BYTES = 64 * 1024
"""Largest template file."""
MAX_RENDERED_CHARS = 1_000_000
"""Longest rendered part of a prompt, unless the caller sets another limit."""
SUFFIX = ".jinja"
CHANNEL_SUFFIX = "_channel"
"""A template's twin for noisy-channel scoring has this at the end of its name."""

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
    """A template that passed every check. literals: its fixed words, which a label must not contain."""

    info: TemplateInfo
    source: str = field(repr=False)
    kind: Kind
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
            text = composed(render_block(self.compiled, block, _composed_values(variables), max_chars))
        except Exception as error:  # whatever a template's expression raised is the template's fault
            line = _line_of(error.__traceback__)
            raise TemplateError(f"{_place(self.info.path, line)}: the {block} block fails: {error}") from error
        found = forbidden_character(text)
        if found:
            raise TemplateError(f"{self.info.path}: the {block} block renders {found}; remove it from the template")
        text = text.strip("\n")
        return text.rstrip() if block == "query" else text


def packaged_folder() -> Path:
    """The folder of the packaged templates."""
    return Path(str(importlib.resources.files("icl_vision.prompts")))


def list_templates(folder: str | os.PathLike[str] | None = None) -> list[TemplateInfo]:
    """Every template that can be asked for by name, sorted; those of ``folder`` hide packaged ones of the same name.

    Raises:
        TemplateError: ``folder`` is no folder.
    """
    found = {path.stem: TemplateInfo(path.stem, path, "packaged") for path in _files(packaged_folder())}
    if folder is not None:
        for path in _files(_checked_folder(folder)):
            found[path.stem] = TemplateInfo(path.stem, path, "folder", overrides=path.stem in found)
    return [found[name] for name in sorted(found)]


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


def find_twin(info: TemplateInfo, folder: str | os.PathLike[str] | None = None) -> TemplateInfo | None:
    """The noisy-channel twin of a template, or None.

    It lies in the same folder as the template, or in the user's folder. A packaged twin of a template that
    the user overrides does not count: it would not say what the user's template says.
    """
    name = info.name + CHANNEL_SUFFIX
    if info.name.endswith(CHANNEL_SUFFIX) or not _NAME.fullmatch(name):
        return None
    twin = next((other for other in list_templates(folder) if other.name == name), None)
    if twin is None or (info.origin == "folder" and twin.origin == "packaged"):
        return None
    return twin


def template_hashes(name: str, folder: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Hex sha256 of what a template says, and its noisy-channel twin where it has one, by name.

    Raises:
        TemplateError: as ``find_template``, or a file that cannot be read.
    """
    info = find_template(name, folder)
    twin = find_twin(info, folder)
    return {
        one.name: hashlib.sha256(one.read().encode()).hexdigest() for one in (info, *(() if twin is None else (twin,)))
    }


def lost_twin(info: TemplateInfo, folder: str | os.PathLike[str] | None = None) -> str | None:
    """What is lost where a user's template hides a packaged one with a noisy-channel twin; None where nothing is."""
    if not info.overrides or info.name.endswith(CHANNEL_SUFFIX) or find_twin(info, folder) is not None:
        return None
    if find_twin(find_template(info.name)) is None:
        return None
    return (
        f"{info.path} overrides the packaged template, whose channel twin no longer counts: labels are not scored by "
        f"noisy channel, the best way with an LLM that scores text; add {info.name}{CHANNEL_SUFFIX}{SUFFIX} beside it "
        f"(`icl-vision prompts show {info.name}{CHANNEL_SUFFIX} --source` prints the packaged one)"
    )


def load_template(info: TemplateInfo) -> PromptTemplate:
    """Read, check and compile a template.

    Raises:
        TemplateError: naming the file and every fault with its line.
    """
    return _loaded(info, info.read())


@functools.lru_cache(maxsize=64)
def _loaded(info: TemplateInfo, source: str) -> PromptTemplate:
    """``load_template``, once for each text: compiling takes ten times as long as a prompt."""
    inspection = _inspected(source)
    if inspection.faults or inspection.kind is None:
        faults = "; ".join(_place(None, fault.line) + f": {fault.message}" for fault in inspection.faults)
        raise TemplateError(f"{info.path}, {faults}")
    if info.name.endswith(CHANNEL_SUFFIX) != (inspection.kind == "channel"):
        wanted, name = ("label", "has") if info.name.endswith(CHANNEL_SUFFIX) else ("words", "lacks")
        raise TemplateError(
            f"{info.path}: the name {name} the ending {CHANNEL_SUFFIX!r}, so its query block must use `{wanted}`"
        )
    return PromptTemplate(info, source, inspection.kind, inspection.literals, _compile(info, source))


def template_faults(info: TemplateInfo) -> list[str]:
    """Every fault that shows without rendering, one line each naming file and line; [] when there is none."""
    try:
        inspection = _inspected(info.read())
        if inspection.faults:
            return [f"{_place(info.path, fault.line)}: {fault.message}" for fault in inspection.faults]
        load_template(info)
    except TemplateError as error:
        return [str(error)]
    return []


def _inspected(source: str) -> Inspection:
    # These modules import jinja2; so it is loaded only once a template is wanted.
    from icl_vision.prompting import bounds
    from icl_vision.prompting.checks import inspect
    from icl_vision.prompting.sandbox import PromptEnvironment

    with bounds.limited(MAX_RENDERED_CHARS):  # jinja computes constant expressions while it compiles
        return inspect(PromptEnvironment(), source)


def _compile(info: TemplateInfo, source: str) -> jinja2.Template:
    import jinja2

    from icl_vision.prompting import bounds
    from icl_vision.prompting.sandbox import PromptEnvironment

    environment = PromptEnvironment()
    try:
        with bounds.limited(MAX_RENDERED_CHARS):
            code = environment.compile(environment.bounded(environment.parse(source)), info.name, str(info.path))
        return jinja2.Template.from_code(environment, code, environment.globals)
    except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise TemplateError(f"{info.path}: the template cannot be compiled: {error}") from error


def _composed_values(value: Any) -> Any:
    """Variables whose texts are in composed characters, so that what a template counts or cuts is the same too."""
    if isinstance(value, str):
        return composed(value)
    if isinstance(value, Mapping):
        return {name: _composed_values(one) for name, one in value.items()}
    return [_composed_values(one) for one in value] if isinstance(value, list) else value


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
