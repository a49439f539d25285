"""What every task is: inert parameters, one frozen snapshot of what it was fitted with, one form of saved file.

A new task is a class below ``Task`` that writes no more than

- its parameters: an ``__init__`` that stores each under its own name, and ``_check`` for what is right among them;
- what it fits: ``fit`` finds out what is worth keeping (words of its examples, never images), and ``_assembled`` makes
  of that, an LLM and a tokenizer the snapshot that is asked from;
- its document: ``form``, ``_kept_to_dict`` and ``_kept_from_dict``;
- its query and how a reply is read: its own methods, on what ``ready`` gives, and ``_tool``, the same for an agent.

Parameters in ``CALL_OPTIONS`` are read at each call, by whatever task has them. All others belong to the snapshot: what
they are set to after ``fit`` holds from the next ``fit`` on, and a fitted task goes on as it was fitted.

Knows: how the three states of a task (told, fitted, saved) follow from each other. Refuses to know: what is asked.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from icl_vision import checks
from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.errors import IclVisionError, NotFittedError, UsageError
from icl_vision.images import ImageSource
from icl_vision.llms import Budget, connect
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.redaction import without_secrets
from icl_vision.llms.remote.langchain.forms import secrets_around
from icl_vision.llms.remote.langchain.llm import is_langchain_model
from icl_vision.prompting import Twin, template_hashes
from icl_vision.tasks.inputs import check_kind
from icl_vision.tasks.saving import (
    JUDGED_APART,
    Explained,
    SavedForm,
    allowed_names,
    check_same_templates,
    check_same_tokenizer,
    plain,
)
from icl_vision.tasks.tools import Tool
from icl_vision.tokenizers.taking import IMAGES, Taking, taken_by, taken_by_card
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.integrations.langchain import TaskTool


def hidden(value: Any) -> Any:
    """A value, or all values of a mapping, with connect strings that show no user, password or query.

    Raises:
        TypeError: a LangChain model that holds a key or a password, and would take it along.
    """
    if isinstance(value, str):
        return without_secrets(value) if "://" in value else value
    if type(value) is dict:
        return {name: hidden(entry) for name, entry in value.items()}
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
    """Base of objects whose constructor stores its arguments, unchanged, under their own names: scikit-learn's manners
    without scikit-learn."""

    _own_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        signature = inspect.signature(cls.__init__)
        cls._own_defaults = MappingProxyType({
            name: parameter.default for name, parameter in signature.parameters.items() if name != "self"
        })  # fmt: skip

    @classmethod
    def _defaults(cls) -> Mapping[str, Any]:
        return cls._own_defaults

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name. ``deep`` is accepted for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments by name; they are checked at the next ``fit``, options of a call at the next call.

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


CALL_OPTIONS: Mapping[str, Callable[[str, object], object]] = {
    "errors": partial(checks.choice, choices=("raise", "return")),
    "on_unknown": partial(checks.choice, choices=("abstain", "raise")),
    "probabilities": partial(checks.choice, choices=("calibrated", "raw")),
    "batch_size": checks.count,
    "concurrency": checks.count,
    "progress": partial(checks.flag, none=True),
    "max_tokens": partial(checks.count, none="no limit"),
    "budget": lambda name, value: check_kind(name, value, Budget, "Budget(requests=100)"),
    "prices": lambda name, value: check_kind(name, value, PriceTable, "PriceTable.load('prices.yaml')"),
}
"""Parameters that every call reads as they are then, in whatever task has them, and how each is checked."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a task was fitted with; never changed, only replaced by the next ``fit``.

    params: the arguments as they were. llm, tokenizer: connected. kept: what ``fit`` found out and a file keeps.
    """

    params: Mapping[str, Any]
    llm: TextLLM
    tokenizer: Tokenizer
    kept: Any


F = TypeVar("F", bound=Fitted)


class Task(Parameters, Generic[F]):
    """Base of the tasks. What it wants of a subclass stands at the head of this module."""

    form: ClassVar[SavedForm]
    how_to_fit: ClassVar[str] = "fit(images, labels)"
    twin: ClassVar[Twin | None] = None
    """The second template that goes with its first, if any."""
    decodes: ClassVar[bool] = False
    """Whether its tokenizer must make pictures of words."""

    llm: str | TextLLM
    tokenizer: str | os.PathLike[str] | Tokenizer

    _fitted: F | None = None

    # What a task writes itself.

    def _check(self) -> None:
        """Refuse values of the snapshot's parameters that cannot work."""
        raise NotImplementedError

    def _assembled(self, llm: TextLLM, tokenizer: Tokenizer, kept: Any) -> F:
        """The snapshot of the parameters as they are and what was kept, from a fit or a file; refuses what cannot be
        asked."""
        raise NotImplementedError

    def _kept_to_dict(self) -> dict[str, Any]:
        """What ``fit`` found out, as plain JSON: the parts of a file that are this task's own."""
        raise NotImplementedError

    @classmethod
    def _kept_from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Any:
        """The way back. Raises whatever comes of a damaged document."""
        raise NotImplementedError

    @classmethod
    def _params_of(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that a file means; for a task whose older files knew less."""
        return dict(params)

    @classmethod
    def _template_hashes(cls, params: Mapping[str, Any]) -> dict[str, str]:
        """By name, what the templates in use say now, so that a file is not read with others."""
        return template_hashes(params["template"], params["templates"], cls.twin)

    def _tool(self) -> Tool:
        """What it is to an agent."""
        raise NotImplementedError

    # Told, fitted.

    @property
    def fitted(self) -> F:
        """What it was fitted with.

        Raises:
            NotFittedError: before ``fit``.
        """
        if self._fitted is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call {self.how_to_fit} first")
        return self._fitted

    @property
    def llm_(self) -> TextLLM:
        """What is asked."""
        return self.fitted.llm

    @property
    def tokenizer_(self) -> Tokenizer:
        """What makes words of images."""
        return self.fitted.tokenizer

    def ready(self) -> F:
        """What it was fitted with, once the options of this call are checked.

        Raises:
            NotFittedError: before ``fit``. UsageError: such an option has a value that cannot work.
        """
        fitted = self.fitted
        self._check_call_options()
        return fitted

    def check(self) -> None:
        """Refuse parameters that cannot work; ``fit`` does it first.

        Raises:
            UsageError: naming the parameter, its value and what it must be.
        """
        self._check()
        self._check_call_options()

    def quietly(self) -> Self:
        """The same task, fitted as it is, that returns errors in place and shows no progress of its own."""
        twin = copy.copy(self)
        return twin.set_params(**{
            name: value for name, value in {"errors": "return", "progress": False}.items() if name in self._defaults()
        })  # fmt: skip

    def _check_call_options(self) -> None:
        for name, default in self._own_defaults.items():
            value = getattr(self, name)
            # (What is as the task itself has it needs no look, at each call.)
            if value is not default and name in CALL_OPTIONS:
                CALL_OPTIONS[name](name, value)

    def _params_now(self) -> Mapping[str, Any]:
        """The parameters, for a snapshot: lists among them are copies, so that nobody changes them from outside."""
        params = self.get_params()
        return MappingProxyType({
            name: copy.copy(value) if isinstance(value, list) else value for name, value in params.items()
        })  # fmt: skip

    def _connect_llm(self) -> TextLLM:
        return connect(self.llm)

    def _takes(self) -> Taking:
        """What the tokenizer takes (images, or clips), without starting it. What is wrong with it is said later."""
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, str | os.PathLike):
            return taken_by(tokenizer)
        from icl_vision.tokenizers import zoo

        try:
            return taken_by_card(zoo.card(tokenizer))
        except IclVisionError:  # which is said when the tokenizer is made
            return IMAGES

    def _connect_tokenizer(self) -> Tokenizer:
        """The tokenizer of that name, or the one given.

        Raises:
            UsageError: it is none, or cannot do what the task needs. ArtefactNotFoundError: there is none of that name.
        """
        tokenizer = self.tokenizer
        if isinstance(tokenizer, str | os.PathLike):
            from icl_vision.tokenizers import ImageTokenizer

            tokenizer = ImageTokenizer.from_pretrained(os.fspath(tokenizer))
        # Not isinstance(..., Tokenizer): that would look at every property, and a codebook may be slow to load.
        if isinstance(tokenizer, type) or not all(
            callable(getattr(tokenizer, name, None)) for name in ("encode", "to_text")
        ):
            raise UsageError(f"tokenizer must be a name, a folder or an ImageTokenizer; got {type(tokenizer).__name__}")
        if self.decodes and (not tokenizer.can_decode or tokenizer.vocabulary is None):
            raise UsageError(
                f"the tokenizer {tokenizer.name!r} cannot decode words into pictures; use spae-digits-32 for digits, "
                "spae-photo-128 for photographs"
            )
        return tokenizer

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    def as_tool(
        self,
        name: str | None = None,
        description: str | None = None,
        *,
        images: Mapping[str, ImageSource] | None = None,
        root: str | os.PathLike[str] | None = None,
        allow_paths: bool = False,
    ) -> TaskTool:
        """This task as a LangChain tool: an answer in words, and the result as artifact.

        A classifier is asked about an ``image`` and its artifact is a ``Classification``; a ``VisualQA`` takes an
        ``image`` and a ``question``, a ``Captioner`` an ``image``, and theirs is what ``Answer.to_dict`` gives; a
        denoiser restores an ``image``, a generator draws a ``text``, and theirs is what ``to_dict`` of their results
        gives, with the ``id`` of the picture in ``images``.

        What an ``image`` may name is decided here, since a language model writes it: ids of ``images``; with ``root``,
        image files in that folder too; with ``allow_paths``, any file. Everything else is refused, in words the model
        can act on, as is an image that cannot be used. An LLM that fails is raised.

        Args:
            name, description: what the agent's model reads; None: the task's own, which names its labels or texts.
            images: an ``icl_vision.integrations.langchain.ImageRegistry``, to which pictures that are made are added,
                so that other tools can name them; for a classifier any mapping of ids to images. None makes an empty
                registry, to be filled through the tool's ``images``.
            root: a folder; its files are named by their path relative to it.
            allow_paths: let the model open any image file that this process can read.

        Raises:
            NotFittedError: before ``fit``. MissingExtraError: LangChain is not installed.
            UsageError: a name that providers refuse, a root that is no folder, or what this task does not take.
        """
        from icl_vision.integrations.langchain import tool_of

        self.ready()
        return tool_of(self._tool(), name, description, images=images, root=root, allow_paths=allow_paths)

    # Copied.

    def __getstate__(self) -> dict[str, Any]:
        """For pickle (joblib, processes): parameters and words; connections and sessions are made anew."""
        if self._fitted is None:
            return super().__getstate__()
        state = {"told": self.get_params(), "fitted": dict(self._fitted.params), "kept": self._fitted.kept}
        return {name: hidden(value) for name, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "kept" not in state:
            self.__dict__.update(state)
            return
        self.__dict__.update(state["told"])
        # As it was fitted, not as set_params may have left it since.
        as_fitted = type(self)(**state["fitted"])
        self._fitted = as_fitted._assembled(as_fitted._connect_llm(), as_fitted._connect_tokenizer(), state["kept"])

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # An LLM and a tokenizer are shared, as by scikit-learn's clone; nothing fitted is ever changed in place.
        return self.__copy__()

    # Saved.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the options and the words of the examples to a JSON file (no images, no keys), whole or not at all.

        An LLM or tokenizer given as an object is written by its name; see ``load``.

        Raises:
            NotFittedError: before ``fit``. StorageError: the file cannot be written.
        """
        self.form.write(path, self.to_document())

    def to_document(self) -> dict[str, Any]:
        """What ``save`` writes, as plain JSON: as it was fitted, and the options of a call as they are now.

        Raises:
            NotFittedError: before ``fit``.
        """
        fitted = self.ready()
        llm, tokenizer = fitted.params["llm"], fitted.params["tokenizer"]
        named = isinstance(tokenizer, str | os.PathLike)
        return {
            **self.form.head(),
            "params": {
                name: plain(getattr(self, name) if name in CALL_OPTIONS else value)
                for name, value in fitted.params.items()
                if name not in JUDGED_APART
            },
            "llm": {
                "spec": without_secrets(llm if isinstance(llm, str) else fitted.llm.profile.name),
                "object": not isinstance(llm, str),
            },
            "tokenizer": {
                "spec": os.fspath(tokenizer) if named else fitted.tokenizer.name,
                "object": not named,
                "name": fitted.tokenizer.name,
                "hash": fingerprint(fitted.tokenizer),
            },
            "templates": self._template_hashes(fitted.params),
            **self._kept_to_dict(),
        }

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        llm: str | TextLLM | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        templates: str | os.PathLike[str] | None = None,
        trust: bool = False,
    ) -> Self:
        """The task that ``save`` wrote, fitted.

        Args:
            llm, tokenizer: used instead of those written; needed where they were objects that a name cannot bring back.
            templates: a folder of templates, used instead of the one written, whatever its texts say.
            trust: follow the file's names wherever they lead. Without it only packaged things, ``openai:MODEL`` and
                ``anthropic:MODEL`` are taken from the file; a server, a LangChain model, a path or a hub id is yours
                to pass, since a file from somebody else could name any.

        Raises:
            UntrustedNameError: the file names something that leads elsewhere.
            TemplateError: a template says something else than when the file was saved.
            StorageError: no such file, damaged, of another task, or of a version this library does not read.
            ArtefactError: the tokenizer is not the one that made the words (by hash).
        """
        return cls.from_document(
            cls.form.read(path),
            source=os.fspath(path),
            llm=llm,
            tokenizer=tokenizer,
            templates=templates,
            trust=trust,
        )

    @classmethod
    def from_document(
        cls,
        document: Mapping[str, Any],
        *,
        source: str = "the document",
        llm: str | TextLLM | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        templates: str | os.PathLike[str] | None = None,
        trust: bool = False,
    ) -> Self:
        """The task of a document as ``to_document`` gives it. source: what messages call it; all else as in ``load``.

        Raises:
            As ``load``.
        """
        form = cls.form
        document = form.checked(document, source)
        if templates is not None and "templates" not in cls._defaults():
            raise UsageError(f"{cls.__name__} takes no folder of templates; got templates={templates!r}")
        names = allowed_names(source, document, llm=llm, tokenizer=tokenizer, templates=templates, trust=trust)
        task = cls(names.llm, names.tokenizer)  # type: ignore[call-arg]  # every task's first two
        try:
            task.set_params(**cls._params_of(document["params"]))
            if "templates" in cls._defaults():
                task.set_params(templates=names.templates)
            task.check()
        except (UsageError, TypeError) as error:
            raise form.damaged(source, str(error)) from error
        if templates is None:
            check_same_templates(source, document, cls._template_hashes(task.get_params()), names.templates)
        with Explained(document, "llm", llm is None):
            connected = task._connect_llm()
        with Explained(document, "tokenizer", tokenizer is None):
            words = task._connect_tokenizer()
        check_same_tokenizer(source, document, words, otherwise=form.otherwise)
        try:
            kept = cls._kept_from_dict(document, words)
        except (IclVisionError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise form.damaged(source, f"{type(error).__name__}: {error}") from error
        task._fitted = task._assembled(connected, words, kept)
        return task
