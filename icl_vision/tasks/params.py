"""scikit-learn's manners for constructor arguments, without scikit-learn.

Knows: names and defaults of a class's arguments. Refuses to know: what they mean; ``fit`` checks them.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

from icl_vision.errors import UsageError
from icl_vision.llms.remote.langchain.forms import secrets_around
from icl_vision.llms.remote.langchain.llm import is_langchain_model
from icl_vision.llms.remote.redaction import without_secrets


def hidden(value: Any) -> Any:
    """A value, or all values of a mapping, with connect strings that show no user, password or query.

    Raises:
        TypeError: a LangChain model that holds a key or a password, and would take it along.
    """
    if isinstance(value, str):
        return without_secrets(value) if "://" in value else value
    if type(value) is dict:
        return {name: hidden(one) for name, one in value.items()}
    if is_langchain_model(value) and secrets_around(value):
        raise TypeError(
            f"this {type(value).__name__} holds a key or a password, and those are not pickled: make the model where "
            "it is used, or give its name as llm='langchain:PROVIDER:MODEL'"
        )
    return value


def shown(value: Any) -> str:
    """A value's repr, without users, passwords and queries of addresses in it."""
    text = repr(value)
    return without_secrets(text) if "://" in text else text


class Parameters:
    """Base of objects whose constructor stores its arguments, unchanged, under their own names."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        signature = inspect.signature(cls.__init__)
        return {name: one.default for name, one in signature.parameters.items() if name != "self"}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name. ``deep`` is accepted for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments by name; they are checked at the next ``fit``.

        Raises:
            UsageError: no such argument; nothing is changed.
        """
        names = self._defaults()
        for name in params:
            if name not in names:
                raise UsageError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(names)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> Self:
        # Objects among the arguments are shared, not copied: an LLM or a tokenizer holds connections and sessions.
        return type(self)(**self.get_params())

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the password of an address stays here; where it is needed it is given again."""
        state: dict[str, Any] = hidden(dict(self.__dict__))
        return state

    def __repr__(self) -> str:
        changed = [
            f"{name}={shown(getattr(self, name))}"
            for name, default in self._defaults().items()
            if getattr(self, name) is not default and repr(getattr(self, name)) != repr(default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"
