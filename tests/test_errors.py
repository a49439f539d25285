"""The error tree: every error of it goes through a pickle and a copy as it is."""

import concurrent.futures
import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil

import pytest

import icl_vision
from icl_vision import errors
from icl_vision.errors import IclVisionError, LLMStatusError, MissingExtraError, PromptTooLongError, UsageError


def tree():
    """Every class of the tree, those that live beside what raises them among them."""
    for found in pkgutil.walk_packages(icl_vision.__path__, "icl_vision."):
        if found.name.startswith(("icl_vision.training", "icl_vision.llms", "icl_vision.tasks", "icl_vision.drawing")):
            importlib.import_module(found.name)
    kinds, todo = [], [IclVisionError]
    while todo:
        kind = todo.pop()
        kinds.append(kind)
        todo += [one for one in kind.__subclasses__() if one.__module__.startswith("icl_vision")]
    return sorted(set(kinds), key=lambda kind: kind.__name__)


VALUES = {
    "str": "words",
    "int": 429,
    "float": 1.5,
    "str | None": "code",
    "float | None": 2.5,
    "int | None": 3,
    "dict[str, Any]": {"n": 1},
}


def example(kind):
    """An error of the kind, with a value of its own for everything that its constructor takes."""
    own = next(one for one in kind.__mro__ if "__init__" in vars(one) or one is IclVisionError)
    if own is IclVisionError:
        return kind("the value 'x' cannot work: use 'y'")
    args, options = [], {}
    for name, one in list(inspect.signature(own.__init__).parameters.items())[1:]:
        value = VALUES[one.annotation]
        if one.kind is one.KEYWORD_ONLY:
            options[name] = value
        else:
            args.append(value)
    return kind(*args, **options)


def facts(error):
    return (type(error), error.args, str(error), vars(error))


def through_pickle(error, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes of a moment ago


WAYS = {
    "pickle": through_pickle,
    "pickle protocol 3": lambda error: through_pickle(error, 3),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_error_comes_out_of_a_pickle_and_a_copy_as_it_was(way):
    kinds = tree()
    assert {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, IclVisionError)} <= set(
        kinds
    )
    for kind in kinds:
        error = example(kind)
        error.add_note("tried three times")
        error.extra_fact = {"a": 1}
        error.__cause__ = LLMStatusError("busy", 429, code="rate", retry_after=2.0)
        error.__cause__.__cause__ = ValueError("deep")
        error.__context__ = TimeoutError("before")
        back = WAYS[way](error)
        assert facts(back) == facts(error)
        assert back.__notes__ == ["tried three times"]
        assert facts(back.__cause__) == facts(error.__cause__)
        assert back.__cause__.retry_after == 2.0
        assert (type(back.__cause__.__cause__), str(back.__cause__.__cause__)) == (ValueError, "deep")
        assert (type(back.__context__), str(back.__context__)) == (TimeoutError, "before")
        assert back.__suppress_context__ is error.__suppress_context__ is True


def test_what_builtin_ancestors_keep_survives():
    found = errors.ImageNotFoundError(2, "gone", "dog.png")
    back = through_pickle(found)
    assert (back.errno, back.strerror, back.filename) == (found.errno, found.strerror, found.filename)
    extra = through_pickle(MissingExtraError("'local'", "local"))
    assert extra.extra == "local" and "pip install 'icl-vision[local]'" in str(extra)
    long = copy.deepcopy(PromptTooLongError(9, 8, "fewer shots"))
    assert (long.tokens, long.window) == (9, 8)
    assert str(long) == "the prompt has 9 tokens but the LLM's window holds 8: fewer shots"


def test_a_users_own_subclass_with_another_constructor():
    assert (back := through_pickle(Mine(3, why="late"))).why == "late" and back.args == ("3 times",)


class Mine(UsageError):
    def __init__(self, times, *, why):
        super().__init__(f"{times} times")
        self.why = why


class Foreign(Exception):
    """As SDKs' errors are: it holds the request with its key, and cannot be read back."""

    def __init__(self, message, *, response):
        super().__init__(message)
        self.response = response


def test_the_cause_of_another_library_is_quoted_and_not_kept():
    error = LLMStatusError("busy", 429)
    error.__cause__ = Foreign("status 429", response={"authorization": "Bearer sk-verysecret"})
    document = pickle.dumps(error)
    assert b"sk-verysecret" not in document
    back = through_pickle(error)
    assert type(back.__cause__) is Exception and str(back.__cause__).endswith("Foreign: status 429")
    # A copy stays in this process and shares it.
    assert copy.deepcopy(error).__cause__ is error.__cause__
    # A builtin that something unreadable was hung on.
    error.__cause__ = ValueError("odd")
    error.__cause__.response = lambda: None
    assert str(through_pickle(error).__cause__) == "builtins.ValueError: odd"


def test_causes_that_go_in_a_circle():
    one, other = UsageError("one"), UsageError("other")
    one.__context__, other.__context__ = other, one
    assert str(through_pickle(one).__context__.__context__) == "one"


FAIL = """
from icl_vision.errors import LLMStatusError
try:
    raise KeyError("deep")
except KeyError as error:
    raise LLMStatusError("busy", 429, code="rate", retry_after=1.5) from error
"""


def test_a_process_pool_hands_an_error_on_and_lives():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for _ in range(2):
            with pytest.raises(LLMStatusError, match="busy") as raised:
                pool.submit(exec, FAIL).result()
            assert (raised.value.status, raised.value.code, raised.value.retry_after) == (429, "rate", 1.5)
