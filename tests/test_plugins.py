"""What other packages offer by entry points: listed without an import, made when asked for, errors in our tree."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from icl_vision import ImageTokenizer, plugins
from icl_vision.cli import main
from icl_vision.errors import ArtefactNotFoundError, PluginError, UsageError
from icl_vision.tokenizers import AsciiTokenizer

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with entry points where Python finds it, as an installer does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(package: str, source: str, tokenizers: str = "", llms: str = "") -> None:
        (tmp_path / f"{package}.py").write_text(source)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        groups = {plugins.TOKENIZERS: tokenizers, plugins.LLMS: llms}
        text = "".join(f"[{group}]\n{lines}\n" for group, lines in groups.items() if lines)
        (info / "entry_points.txt").write_text(text)

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("plugged"):
            del sys.modules[name]


def test_names_are_listed_without_an_import(install: Install) -> None:
    install("plugged", "raise SystemExit", tokenizers="b = plugged:B\na = plugged:A", llms="echo = plugged:E")
    assert plugins.offered(plugins.TOKENIZERS) == {"a": "plugged", "b": "plugged"}
    assert plugins.offered(plugins.LLMS) == {"echo": "plugged"}
    assert "plugged" not in sys.modules


def test_a_class_or_function_is_called_with_what_was_given(install: Install) -> None:
    install("plugged", "def make(model, *, size=1): return model, size", llms="echo = plugged:make")
    assert plugins.make(plugins.LLMS, "echo", "m", size=3) == ("m", 3)


def test_options_that_it_does_not_take_are_refused_before_it_is_called(install: Install) -> None:
    install("plugged", "def make(*, size=1): raise SystemExit", tokenizers="a = plugged:make")
    with pytest.raises(UsageError, match=r"the tokenizer 'a' of plugged .*'colour'.*it takes \(\*, size=1\)"):
        plugins.make(plugins.TOKENIZERS, "a", colour=1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("def make(): raise SystemExit(3)", "failed: SystemExit: 3"),
        ("pass", "cannot be loaded: AttributeError"),
        ("make = 3", "is of type int: it must be a class or a function"),
        ("def make(): raise KeyError('x')", "failed: KeyError: 'x'"),
    ],
)
def test_what_goes_wrong_is_in_our_tree_and_names_the_package(install: Install, source: str, message: str) -> None:
    install("plugged", source, tokenizers="a = plugged:make")
    with pytest.raises(PluginError) as caught:
        plugins.make(plugins.TOKENIZERS, "a")
    assert str(caught.value).startswith("the tokenizer 'a' of plugged (plugged:make) ") and message in str(caught.value)


def test_errors_of_our_own_tree_come_through_as_they_are(install: Install) -> None:
    source = "from icl_vision.errors import CapabilityError\ndef make(): raise CapabilityError('no')"
    install("plugged", source, tokenizers="a = plugged:make")
    with pytest.raises(Exception, match="^no$") as caught:
        plugins.make(plugins.TOKENIZERS, "a")
    assert type(caught.value).__name__ == "CapabilityError"


def test_a_name_that_two_packages_offer_is_nobodys(install: Install) -> None:
    install("plugged", "A = dict", tokenizers="a = plugged:A")
    install("plugged_too", "A = dict", tokenizers="a = plugged_too:A\nb = plugged_too:A")
    assert set(plugins.offered(plugins.TOKENIZERS)["a"].split(" and ")) == {"plugged", "plugged_too"}
    with pytest.raises(PluginError, match="as well .*: uninstall one"):
        plugins.make(plugins.TOKENIZERS, "a")
    assert plugins.make(plugins.TOKENIZERS, "b") == {}


# Tokenizers -----------------------------------------------------------------------------------------------------------

ROWS = "from icl_vision.tokenizers import AsciiTokenizer\nclass Rows(AsciiTokenizer): name = 'rows'"


def test_a_tokenizer_of_another_package_is_found_by_its_name(install: Install) -> None:
    install("plugged", ROWS, tokenizers="rows = plugged:Rows")
    tokenizer = ImageTokenizer.from_pretrained("rows", rows=3)
    assert (tokenizer.name, type(tokenizer).__module__, tokenizer.layout.counts) == ("rows", "plugged", (3 * 16,))
    with pytest.raises(UsageError, match="'threads'"):
        ImageTokenizer.from_pretrained("rows", threads=2)
    with pytest.raises(UsageError, match="'strict'"):
        ImageTokenizer.from_pretrained("rows", strict=True)


def test_a_packaged_name_is_ours_whoever_offers_it(install: Install) -> None:
    install("plugged", "raise SystemExit", tokenizers="ascii = plugged:A\nwords-photo = plugged:A")
    assert type(ImageTokenizer.from_pretrained("ascii")) is AsciiTokenizer
    assert ImageTokenizer.from_pretrained("words-photo").card["files"]


def test_a_folder_of_the_same_name_is_to_be_had_by_its_path(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("plugged", ROWS, tokenizers="rows = plugged:Rows")
    (tmp_path / "here" / "rows").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert ImageTokenizer.from_pretrained("rows").name == "rows"
    with pytest.raises(Exception, match=r"card\.json"):
        ImageTokenizer.from_pretrained("./rows")


def test_what_is_no_tokenizer_is_refused(install: Install) -> None:
    install("plugged", "Rows = dict", tokenizers="rows = plugged:Rows")
    with pytest.raises(PluginError, match="'rows' of plugged is of type dict: it must be an icl_vision"):
        ImageTokenizer.from_pretrained("rows")


def test_an_unknown_name_tells_of_those_that_packages_offer(install: Install) -> None:
    install("plugged", "raise SystemExit", tokenizers="rows = plugged:Rows")
    with pytest.raises(ArtefactNotFoundError, match="words-photo, rows, or an artefact folder.*did you mean 'rows'"):
        ImageTokenizer.from_pretrained("row")


def test_the_list_of_models_names_them_and_imports_none(install: Install) -> None:
    offered = {"tokenizers": "rows = plugged:Rows\nascii = plugged:A", "llms": "echo = plugged:E\nlocal = plugged:L"}
    install("plugged", "raise SystemExit", **offered)
    listed = CliRunner().invoke(main, ["models", "list"])
    assert listed.exit_code == 0
    assert "  rows\n      Of the installed package plugged.\n" in listed.stdout
    assert "  echo:MODEL\n      Of the installed package plugged.\n" in listed.stdout
    document = json.loads(CliRunner().invoke(main, ["models", "list", "--json"]).stdout)
    assert document["tokenizers"][-1] == {"name": "rows", "package": "plugged"}
    assert document["llms"][-1] == {"spec": "echo:MODEL", "package": "plugged"}
    assert [row["name"] for row in document["tokenizers"]].count("ascii") == 1
    assert "plugged" not in sys.modules


def test_its_card_is_shown_when_it_is_asked_for(install: Install) -> None:
    install("plugged", ROWS, tokenizers="rows = plugged:Rows")
    shown = CliRunner().invoke(main, ["models", "info", "rows", "--json"])
    assert json.loads(shown.stdout)["name"] == "rows"
