"""Every error this library raises on purpose, in one tree.

Knows: names and messages. Refuses to know: where they are raised.

Each message names the bad value and says what to do about it. Errors that
answer to a builtin (``ValueError``, ``FileNotFoundError`` ...) inherit from it
too, so generic handlers keep working.

    IclVisionError
    ├── UsageError (ValueError)            an argument has a value that cannot work
    │   ├── NotFittedError (AttributeError)  predict/save before fit, or an attribute that fit makes
    │   └── UntrustedNameError             a file names something that only its reader may
    ├── MissingExtraError (ImportError)    an optional dependency is not installed
    ├── PluginError                        another package's LLM provider or tokenizer cannot be loaded or used
    ├── ImageError (ValueError)            one image, or clip, cannot be used
    │   ├── ImageNotFoundError (FileNotFoundError)
    │   ├── ImageEmptyError                zero bytes
    │   ├── ImageTruncatedError            cut off or damaged inside
    │   ├── ImageFormatError               not an image, or a format not allowed
    │   ├── ImageTooLargeError             more pixels or bytes than the cap
    │   ├── ImageArrayError                wrong dtype, shape, range, or NaN
    │   └── ClipError                      a clip cannot be used, though its pictures could
    │       └── ClipTooLongError           more frames or seconds than the cap
    ├── VocabularyError (ValueError)
    │   ├── UnknownWordError               a word (or id) outside the vocabulary
    │   └── RoundTripError                 text does not survive an LLM tokenizer
    ├── PyramidError (ValueError)          grids, ids or layer numbers do not fit
    ├── ArtefactError                      a tokenizer folder cannot be used
    │   ├── ArtefactNotFoundError
    │   └── ArtefactDamagedError           wrong hash, wrong file, missing part
    ├── ProviderError                      the asked execution provider is not in use
    ├── PromptError (ValueError)
    │   ├── TemplateError                  a jinja template cannot be loaded or rendered
    │   ├── LabelError                     a label that must not enter a prompt
    │   └── PromptTooLongError             more tokens than the LLM's window
    ├── LLMError                           the LLM could not answer
    │   ├── LLMSpecError (ValueError)      a connect() string that names nothing
    │   ├── LLMUnavailableError            cannot be reached or started
    │   ├── LLMTimeoutError (TimeoutError)
    │   ├── LLMStatusError                 the provider answered with an error status
    │   ├── LLMResponseError               the answer has an unexpected form
    │   │   ├── LLMNoAnswerError           it was answered, but with nothing: empty, withheld, or only thoughts
    │   │   └── LLMGarbledError            not even JSON: an error page, half a body; asked again
    │   ├── BudgetExceededError            the next request would go over a budget
    │   └── CapabilityError                asked for something this LLM cannot do
    ├── UnknownAnswerError                 the answer is none of the labels, on_unknown="raise"
    ├── AnswerRefusedError                 an answer that cannot be read as the words asked for, or repaired into them
    ├── TrainingError                      a training run must stop; its last good checkpoint is kept
    ├── RequestRefusedError (ValueError)   a client asked the proxy or the MCP server for what they do not give
    ├── StorageError                       a file or cache of ours cannot be read or written
    │   └── UnwritableError (OSError)      a full or read-only disk, a place that is no file
    └── RunError                           a run folder cannot be used
        ├── RunMismatchError               resumed with another configuration, or not meant to be resumed
        └── RunLockedError                 another process is writing to it

Two warnings stand beside it: DroppedGuaranteeWarning (UserWarning), something asked for that is not to be had as it
seems: an LLM does not promise it, or a template of one's own leaves it out; and
DataLeftOutWarning (UserWarning), files that may have been meant and were not taken.
"""

from __future__ import annotations

import copy
from typing import Any


class IclVisionError(Exception):
    """Base of every error raised on purpose by icl_vision.

    Each of them survives a pickle, so that a process pool hands it on: message, attributes, notes and causes. A cause
    of another library comes out as a plain ``Exception`` that quotes it, since such an object may hold a request with
    its key, or be impossible to read back.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class again, as exceptions do by themselves: what its constructor takes is its own affair.
        links = (_portable(self.__cause__), _portable(self.__context__), self.__suppress_context__)
        return _revived, (type(self), self.args), (self._facts(), links)

    def __setstate__(self, state: Any) -> None:
        facts, (cause, context, suppressed) = state
        for name, value in facts.items():
            setattr(self, name, value)
        self.__cause__, self.__context__, self.__suppress_context__ = cause, context, suppressed

    def __copy__(self) -> IclVisionError:
        twin = _revived(type(self), self.args)
        twin.__setstate__((self._facts(), (self.__cause__, self.__context__, self.__suppress_context__)))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> IclVisionError:
        # Causes are shared: those of other libraries need not be such that they can be copied.
        twin = _revived(type(self), copy.deepcopy(self.args, memo))
        links = (self.__cause__, self.__context__, self.__suppress_context__)
        twin.__setstate__((copy.deepcopy(self._facts(), memo), links))
        return twin

    def _facts(self) -> dict[str, Any]:
        """Attributes: our own, notes, and those that a builtin ancestor keeps elsewhere (an ImportError its name)."""
        names = [name for kind, facts in _BUILTIN_FACTS.items() if isinstance(self, kind) for name in facts]
        kept = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in kept.items() if value is not None} | self.__dict__


_BUILTIN_FACTS: dict[type[Exception], tuple[str, ...]] = {
    ImportError: ("name", "path"),
    OSError: ("errno", "strerror", "filename", "filename2"),
}


def _revived(kind: type[IclVisionError], args: tuple[Any, ...]) -> IclVisionError:
    base: type = kind
    while base.__module__ != "builtins":  # whose object it is in memory; __new__ of another ancestor would refuse
        assert base.__base__ is not None
        base = base.__base__
    error: IclVisionError = base.__new__(kind, *args)
    error.args = args
    return error


def _portable(cause: BaseException | None) -> BaseException | None:
    if cause is None or isinstance(cause, IclVisionError):
        return cause
    known = type(cause).__module__ == "builtins" and not isinstance(cause, BaseExceptionGroup)
    if known and _plain(cause.args) and not set(vars(cause)) - {"__notes__"}:
        return cause
    return Exception(f"{type(cause).__module__}.{type(cause).__qualname__}: {cause}")


def _plain(args: tuple[Any, ...]) -> bool:
    return all(arg is None or isinstance(arg, str | bytes | int | float) for arg in args)


class UsageError(IclVisionError, ValueError):
    """An argument has a value that cannot work; the message says which would."""


class NotFittedError(UsageError, AttributeError):
    """A method or attribute that needs a fitted object was used before ``fit``."""


class UntrustedNameError(UsageError):
    """A file names a server, a package or a place on this machine, and its reader did not say that it may."""


class MissingExtraError(IclVisionError, ImportError):
    """An optional dependency is missing; the message holds the install command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra that is not installed: pip install 'icl-vision[{extra}]'")
        self.extra = extra


class PluginError(IclVisionError):
    """An LLM provider or tokenizer that another package offers (by an entry point) cannot be loaded, or fails."""


class ImageError(IclVisionError, ValueError):
    """One image cannot be used."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """The path names no readable file."""


class ImageEmptyError(ImageError):
    """The file or buffer holds zero bytes."""


class ImageTruncatedError(ImageError):
    """The image starts well but is cut off or damaged inside."""


class ImageFormatError(ImageError):
    """Not an image at all, or of a format outside the allow-list."""


class ImageTooLargeError(ImageError):
    """More pixels (or bytes) than the cap allows."""


class ImageArrayError(ImageError):
    """A numpy array of the wrong dtype, shape or range, or with NaN."""


class ClipError(ImageError):
    """A clip that is none, though its pictures could be read: one that stands still, frames of several sizes."""


class ClipTooLongError(ClipError):
    """More frames or seconds (or pixels in all frames together) than the cap allows."""


class VocabularyError(IclVisionError, ValueError):
    """A vocabulary cannot be built, loaded or used."""


class UnknownWordError(VocabularyError):
    """A word or id that the vocabulary does not hold."""


class RoundTripError(VocabularyError):
    """Words do not survive the way through an LLM tokenizer and back."""


class PyramidError(IclVisionError, ValueError):
    """Grids, ids or layer numbers that do not fit together."""


class ArtefactError(IclVisionError):
    """A tokenizer's artefact folder cannot be used."""


class ArtefactNotFoundError(ArtefactError):
    """No packaged, local or hub tokenizer of that name."""


class ArtefactDamagedError(ArtefactError):
    """A file in the folder is missing or is not the one its card describes."""


class ProviderError(IclVisionError):
    """onnxruntime runs on another execution provider than the one asked for."""


class PromptError(IclVisionError, ValueError):
    """A prompt cannot be built."""


class TemplateError(PromptError):
    """A jinja template cannot be found, parsed or rendered."""


class LabelError(PromptError):
    """A label that must not enter a prompt (control characters, too long, empty ...)."""


class PromptTooLongError(PromptError):
    """The prompt has more tokens than the LLM's context window."""

    def __init__(self, tokens: int, window: int, advice: str) -> None:
        super().__init__(f"the prompt has {tokens} tokens but the LLM's window holds {window}: {advice}")
        self.tokens = tokens
        self.window = window


class LLMError(IclVisionError):
    """The LLM could not answer."""


class LLMSpecError(LLMError, ValueError):
    """A ``connect()`` string that names no LLM."""


class LLMUnavailableError(LLMError):
    """The LLM cannot be reached or started, or the connection to it was cut.

    sent: the request had been sent by then, so that it may have been answered, and billed.
    """

    sent: bool = False


class LLMTimeoutError(LLMError, TimeoutError):
    """No answer within the time limit."""


class LLMStatusError(LLMError):
    """The provider answered with an error status.

    status: the HTTP status. code: the provider's own error code, where it gives one.
    retry_after: seconds it asks to wait, where it does.
    """

    def __init__(self, message: str, status: int, *, code: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class LLMResponseError(LLMError):
    """The provider's answer does not have the expected form."""


class LLMNoAnswerError(LLMResponseError):
    """The provider answered, but what it said holds no answer; asked again later, it may give one.

    reason: "empty", "thoughts" (nothing but reasoning, or reasoning that used up the room), "withheld" (a refusal, a
    content filter), "tools" (a call of a tool instead of a text) or "failed" (the provider gave up half-way).
    requests, prompt_tokens, completion_tokens: what it cost all the same.
    """

    def __init__(
        self,
        message: str,
        reason: str = "empty",
        *,
        requests: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.requests = requests
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class LLMGarbledError(LLMResponseError):
    """What came back is not JSON: an error page, half a body, nothing; asked again, it may be whole."""


class CapabilityError(LLMError):
    """Something was asked for that this LLM cannot do; see its profile."""


class BudgetExceededError(LLMError):
    """The next request would go over a budget; everything answered so far is kept."""


class UnknownAnswerError(IclVisionError):
    """The LLM's answer is none of the labels and ``on_unknown="raise"``."""


class AnswerRefusedError(IclVisionError):
    """An LLM's answer cannot be read as the words asked for, nor repaired into them."""


class TrainingError(IclVisionError):
    """A training run must stop (numbers that are none, a collapsed codebook); the last good checkpoint is kept."""


class RequestRefusedError(IclVisionError, ValueError):
    """A client asked the proxy or the MCP server for what they do not give.

    status: the HTTP status that says so. The message goes to the client: it holds no key, no bytes of a picture and no
    path that the client did not name.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class StorageError(IclVisionError):
    """A file or cache of ours cannot be read or written."""


class UnwritableError(StorageError, OSError):
    """A file cannot be written: the disk is full or read-only, or the place is no file.

    ``errno`` and ``strerror`` are the system's, where it gave any.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class RunError(IclVisionError):
    """A run folder cannot be used."""


class RunMismatchError(RunError):
    """The folder holds a run of another configuration, or one that was not meant to be resumed."""


class RunLockedError(RunError):
    """Another process is writing to this run folder."""


class DroppedGuaranteeWarning(UserWarning):
    """An LLM does not keep something that was asked for (a seed, a constraint), or a template cannot give it.

    Said once per LLM object and guarantee; of a template, whenever a task is fitted with it.
    """


class DataLeftOutWarning(UserWarning):
    """Files of a folder or archive that may have been meant were not taken; the message counts and names them."""
