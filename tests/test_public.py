"""The public face: exported names, what importing costs, and which module may import which."""

from __future__ import annotations

import ast
import importlib
import itertools
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import icl_vision
from icl_vision.errors import MissingExtraError

PACKAGE = Path(icl_vision.__file__).parent
HEAVY = ("torch", "openai", "anthropic", "langchain", "langchain_core", "sklearn", "onnxruntime", "transformers", "PIL")

# Lowest first, as docs/architecture.md has it; a module imports its own group and groups to its left.
ORDER: tuple[frozenset[str], ...] = tuple(
    frozenset(group.split())
    for group in (
        "_version errors cores spelling wording",
        "checks",
        "contracts",
        "forks images clips vocabulary codebook portable screening files plugins",
        "pyramid image_words",
        "tokenizers llms",
        "prompting",
        "asking",
        "drawing",
        "probabilities",
        "tasks",
        "viz",
        "evaluation integrations serving testing",
        "cli",
        "__main__",
    )
)
RANK = {group: rank for rank, groups in enumerate(ORDER) for group in groups}
# Neighbours of one rank that must not import each other.
APART = {"tokenizers", "llms", "evaluation", "integrations", "serving"}
TORCH = {"models", "training", "exporters", "text_to_image"}
# Public conveniences that reach to the right, each inside one function: (group it reaches, function names).
LAZY_EXCEPTIONS = {"viz": {"show", "_repr_html_"}, "integrations": {"as_tool"}}


def run(code: str) -> str:
    """What a fresh interpreter prints; warnings are errors there too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Names ----------------------------------------------------------------------------------------------------------------


def test_all_is_sorted_and_every_name_is_there():
    assert sorted(icl_vision.__all__) == icl_vision.__all__
    for name in icl_vision.__all__:
        assert getattr(icl_vision, name) is not None
    assert set(icl_vision.__all__) <= set(dir(icl_vision))


LISTING = sorted(path for path in PACKAGE.rglob("*.py") if "\n__all__ = [" in path.read_text(encoding="utf-8"))


def listed(path: Path) -> str:
    """A module's name from its path."""
    return ".".join(("icl_vision", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def loaded(path: Path) -> types.ModuleType:
    """A module of ours; the test skips where the module needs an extra that is not installed."""
    try:
        return importlib.import_module(listed(path))
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("path", LISTING, ids=listed)
def test_a_package_lists_its_public_names(path: Path):
    module, tree = loaded(path), ast.parse(path.read_text(encoding="utf-8"))
    names = module.__all__
    kind = {name: 0 if name.isupper() else 1 if name[0].isupper() else 2 for name in names}
    assert names == sorted(dict.fromkeys(names), key=lambda name: (kind[name], name)) or names == sorted(names)
    # What a package imports from its own modules, for its users or for type checkers, it offers.
    offered = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("icl_vision.")
        for alias in node.names
    }
    if path.name == "__init__.py":
        modules = {name for name in names if isinstance(getattr(module, name), types.ModuleType)}
        assert {name for name in offered if not name.startswith("_")} == set(names) - {"__version__"} - modules
    for name in names:
        assert getattr(module, name) is not None


def explained(folder: Path) -> set[str]:
    """Constants and other names of a folder's modules that have a text below them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, following in itertools.pairwise(body):
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("path", LISTING, ids=listed)
def test_every_public_name_says_what_it_is(path: Path):
    module, constants = loaded(path), explained(path.parent)
    for name in set(module.__all__) - {"__version__", "errors"}:  # the version, and a module
        value = getattr(module, name)
        own = value.__dict__.get("__doc__") if isinstance(value, type) else getattr(value, "__doc__", None)
        plain = isinstance(value, int | str | tuple | frozenset) or not (isinstance(value, type) or callable(value))
        assert (not plain and own) or name in constants, f"{listed(path)}.{name} has no docstring, nor a text below it"


def test_all_holds_every_public_name():
    public = run(
        """
        import icl_vision
        [getattr(icl_vision, name) for name in icl_vision.__all__]
        import types
        names = [n for n, v in vars(icl_vision).items()
                 if not n.startswith("_") and n != "annotations"
                 and not (isinstance(v, types.ModuleType) and n not in icl_vision.__all__)]
        print(*sorted({*names, "__version__"} - {"TYPE_CHECKING", "Any"}))
        """
    )
    assert public.split() == sorted(icl_vision.__all__)


def test_the_names_that_users_rely_on():
    promised = {
        "Classification", "FewShotClassifier", "IclVisionError", "ImageDenoiser", "ImageTokenizer", "Prompt",
        "PromptBuilder", "PyramidLayout", "TokenPyramid", "Vocabulary", "__version__", "connect", "errors",
    }  # fmt: skip
    assert promised <= set(icl_vision.__all__)


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(AttributeError, match="no attribute 'FewShot'; public are Answer, "):
        _ = icl_vision.FewShot
    with pytest.raises(ImportError, match="cannot import name 'FewShot'"):
        exec("from icl_vision import FewShot")


def test_type_checkers_see_the_names_that_are_loaded_lazily():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in block.body for alias in node.names}
    assert seen == set(icl_vision.__all__) - {"__version__"}


@pytest.mark.parametrize(
    "package", ["drawing", "images", "llms", "prompting", "tasks", "tokenizers", "tokenizers.bulk", "training"]
)
def test_all_of_each_package_is_complete(package):
    module = importlib.import_module(f"icl_vision.{package}")
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None


# What importing costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "cheap"),
    [
        ("import icl_vision", (*HEAVY, "numpy", "jinja2", "tiktoken", "tqdm", "click")),
        ("from icl_vision import connect", (*HEAVY, "jinja2", "tiktoken", "tqdm", "click")),
        ("from icl_vision import FewShotClassifier", (*HEAVY[:-1], "jinja2", "tiktoken", "tqdm", "click")),
        ("from icl_vision import Example, PromptBuilder", (*HEAVY, "numpy", "jinja2", "tiktoken", "tqdm", "click")),
        ("from icl_vision import ImageTokenizer, PromptBuilder", (*HEAVY[:-1], "jinja2", "tiktoken", "tqdm")),
    ],
)
def test_imports_are_lazy(line, cheap):
    loaded = run(f"{line}\nimport sys\nprint(*[name for name in {cheap!r} if name in sys.modules])")
    assert loaded == ""


def test_the_command_line_starts_without_anything_heavy():
    heavy = (*HEAVY, "numpy", "jinja2", "tqdm")
    code = f"""
        import sys
        from icl_vision.cli import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        print("LOADED", *[name for name in {heavy!r} if name in sys.modules])
    """
    assert run(code).splitlines()[-1] == "LOADED"


LINE = """
    import sys
    import numpy as np
    from icl_vision import FewShotClassifier
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    clf = FewShotClassifier("fake", {tokenizer!r}, {k}).fit(images, ["a", "a", "b", "b"])
    assert len(clf.predict(images)) == 4 and clf.words_of(images[0])
    print(*[name for name in ("torch", "transformers", "openai", "anthropic", "sklearn") if name in sys.modules])
"""


@pytest.mark.parametrize(("tokenizer", "k"), [("ascii", None), ("words-photo", 5)])
def test_the_runtime_line_never_imports_torch(tokenizer, k):
    assert run(LINE.format(tokenizer=tokenizer, k=k)) == ""


# Import order ---------------------------------------------------------------------------------------------------------


def modules() -> list[tuple[str, Path]]:
    files = [(path.relative_to(PACKAGE.parent), path) for path in PACKAGE.rglob("*.py")]
    return [(".".join(name.with_suffix("").parts).removesuffix(".__init__"), path) for name, path in sorted(files)]


def imports(name: str, path: Path) -> list[tuple[str, tuple[str, ...], int]]:
    """(imported module of ours, functions it is imported in, line), imports for type checkers left out."""
    found: list[tuple[str, tuple[str, ...], int]] = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, inside: tuple[str, ...]) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child, inside)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*inside, node.name)
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            # "from icl_vision import errors" imports a module of ours as well.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "icl_vision" else [base]
            found.extend((one, inside, node.lineno) for one in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            if isinstance(node.args[0], ast.Constant):
                found.append((str(node.args[0].value), inside, node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), ())
    return [one for one in found if one[0].split(".")[0] == "icl_vision" and "." in one[0]]


def fault(name: str, imported: str, inside: tuple[str, ...]) -> str | None:
    group, other = name.split(".")[1], imported.split(".")[1]
    if group == other or other == "_version":
        return None
    if other in TORCH:
        if group in TORCH:
            return None
        if group == "cli":
            return None if inside else "only inside the command that needs it"
        return f"{other} may be imported by cli only"
    if group in TORCH:
        return "only cli imports cli" if other == "cli" else None
    if other == "prompts" or group == "prompts":
        return None
    if group not in RANK or other not in RANK:
        return f"neither ORDER nor TORCH lists {group if group not in RANK else other!r}"
    if RANK[group] > RANK[other] or (RANK[group] == RANK[other] and not {group, other} <= APART):
        return None
    if other in LAZY_EXCEPTIONS and LAZY_EXCEPTIONS[other] & set(inside):
        return None
    return f"{group} lies left of (or beside) {other}"


def test_modules_import_only_to_their_left():
    faults = []
    for name, path in modules():
        if name.count(".") == 0:
            continue  # the package itself names everything, lazily: see above
        for imported, inside, line in imports(name, path):
            why = fault(name, imported, inside)
            if why:
                faults.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {name} imports {imported}: {why}")
    assert faults == []


def test_the_import_check_sees_what_it_should():
    assert fault("icl_vision.images", "icl_vision.errors", ()) is None
    assert fault("icl_vision.pyramid", "icl_vision.viz.pyramids.notebook", ("show",)) is None
    assert fault("icl_vision.pyramid", "icl_vision.viz.pyramids.notebook", ()) is not None
    assert fault("icl_vision.llms.base", "icl_vision.tokenizers", ()) is not None
    assert fault("icl_vision.tasks.classify.classifier", "icl_vision.cli.options.common", ()) is not None
    assert fault("icl_vision.tokenizers.zoo", "icl_vision.models.nets.efficientnet", ("load",)) is not None
    assert fault("icl_vision.cli.build", "icl_vision.models.nets.efficientnet", ("command",)) is None
    assert fault("icl_vision.cli.build", "icl_vision.models.nets.efficientnet", ()) is not None
    assert fault("icl_vision.brand_new", "icl_vision.errors", ()) is not None
