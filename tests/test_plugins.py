"""What other packages offer by entry points: listed without an import, made when asked for, errors in our tree."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from icl_vision import plugins
from icl_vision.errors import PluginError, UsageError

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
