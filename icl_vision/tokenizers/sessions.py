"""onnxruntime sessions that say where they run.

Knows: execution providers, what onnxruntime prints and hides, its errors. Refuses to know: tokenizers, images, cards.

onnxruntime falls back to the CPU without an exception, and lists providers that cannot work on this machine. So the
NVIDIA driver is asked first (no driver: CUDA is never tried, nothing is printed), and a finished session is asked
what it runs on. ``providers=None`` means: CUDA where there is a usable device, else the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.cores import usable_cores
from icl_vision.errors import ArtefactDamagedError, ArtefactError, MissingExtraError, ProviderError, UsageError
from icl_vision.tokenizers.graphs import reads_beside

logger = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SHORT = {"cpu": CPU, "cuda": CUDA}
_NVIDIA = {CUDA, "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"}
_QUIET = 4  # onnxruntime's "fatal only"
_NUMPY_OF = {"tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(float)": np.float32}
_warned: set[str] = set()


class GraphSession:
    """One graph, ready to run.

    Args:
        model: the ONNX file's bytes (already checked against their hash); a graph that would read anything else is
            refused, see ``graphs.py``.
        name: for messages.
        constants: inputs that never change, by name; held on the device for the life of the session.
        providers: None, "cpu", "cuda", an onnxruntime provider name, or a sequence of these, best first.
        strict: raise instead of warning where the session runs on another provider than the first one asked for.
        threads: CPU threads within one operator; None takes the cores that this process may use, see ``cpu_settings``.
        fixed_batch: on CUDA, capture the graph at this batch size and replay it (a CUDA graph); smaller batches are
            filled up with zeros, and runs of several threads wait for each other. None, or another provider: as usual.
        arena: let onnxruntime keep memory for the next run; False for inputs of many sizes, of which it would keep
            what the largest took.

    Raises:
        ProviderError: ``strict`` and another provider in use.
        UsageError: a provider onnxruntime does not know, or ``threads`` below 1.
        ArtefactDamagedError: onnxruntime cannot read the graph, or the graph would read other files.
    """

    def __init__(
        self,
        model: bytes,
        name: str,
        *,
        constants: Mapping[str, npt.NDArray[Any]] | None = None,
        providers: str | Sequence[str] | None = None,
        strict: bool = False,
        threads: int | None = None,
        fixed_batch: int | None = None,
        arena: bool = True,
    ) -> None:
        ort = _onnxruntime()
        wanted = resolve_providers(providers)
        settings = cpu_settings(threads)
        settings.enable_cpu_mem_arena = arena
        # Threads that wait for work do so asleep: by default they burn their core between operators and for a while
        # after a run, which those who decode the next images or run the LLM then lack.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.name = name
        usable = _usable(wanted)
        # use_tf32=0: words must not differ between CPU and GPU because convolutions were rounded to 10 bits
        capture = {"enable_cuda_graph": "1"} if fixed_batch is not None and CUDA in usable else {}
        options = [{"use_tf32": "0", **capture} if provider == CUDA else {} for provider in usable]
        _check_whole(ort, model, name)
        settings.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            with _quiet(ort) if usable != [CPU] else contextlib.nullcontext():
                self._session = ort.InferenceSession(model, settings, providers=usable, provider_options=options)
        except _errors(ort) as error:
            raise _unreadable(ort, name, error) from error
        self._run_errors: tuple[type[Exception], ...] = (ValueError, RuntimeError, *_errors(ort))
        self.provider = str(self._session.get_providers()[0])
        self._report(wanted, asked=providers is not None, strict=strict)
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())
        device = "cuda" if self.provider == CUDA else "cpu"
        self._constants: dict[str, Any] = {
            key: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), device, 0)
            for key, value in (constants or {}).items()
        }
        self._replay = None
        if fixed_batch is not None and self.provider == CUDA:
            self._replay = _Replay(ort, self._session, self._constants, fixed_batch)
        elif fixed_batch is not None:
            logger.info("%s runs on %s: there is no CUDA graph to capture", self.name, self.provider)

    @property
    def raw(self) -> Any:
        """The ``onnxruntime.InferenceSession`` itself, for a library that wants one."""
        return self._session

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Run the graph; safe to call from several threads at once.

        Args:
            feeds: arrays for the inputs that are not constants.
            outputs: which outputs to return.

        Raises:
            ArtefactError: onnxruntime fails while running (wrong inputs, no memory ...).
        """
        held = {key: np.ascontiguousarray(value) for key, value in feeds.items()}  # alive until the run is over
        try:
            if self._replay is not None:
                return self._replay.run(held, outputs)
            binding = self._session.io_binding()
            for key, constant in self._constants.items():
                binding.bind_ortvalue_input(key, constant)
            for key, value in held.items():
                binding.bind_cpu_input(key, value)
            for key in outputs:
                binding.bind_output(key, "cpu")
            self._session.run_with_iobinding(binding)
            return list(binding.copy_outputs_to_cpu())
        except self._run_errors as error:
            raise ArtefactError(f"onnxruntime failed while running {self.name!r}: {_first_line(error)}") from error

    def _report(self, wanted: list[str], *, asked: bool, strict: bool) -> None:
        """Warn once, or raise where strict, if the session does not run on the first provider wanted."""
        if self.provider == wanted[0]:
            logger.debug("%s runs on %s", self.name, self.provider)
            return
        why = "was asked for" if asked else "has a device here"
        message = (
            f"{wanted[0]} {why} but onnxruntime runs {self.name!r} on {self.provider}: "
            + ("no NVIDIA driver or device was found; " if wanted[0] in _NVIDIA and cuda_devices() == 0 else "")
            + "pass providers='cpu' to choose the CPU, or install what the provider needs "
            "(CUDA: pip install 'onnxruntime-gpu[cuda,cudnn]')"
        )
        if strict:
            raise ProviderError(message)
        if message not in _warned:
            _warned.add(message)
            warnings.warn(message, RuntimeWarning, stacklevel=2)


class _Replay:
    """A CUDA graph: buffers on the device at fixed addresses, filled, replayed and read, one run at a time.

    The first run with a set of outputs captures; a graph that was captured for some outputs writes only those, so
    all outputs are always bound.
    """

    def __init__(self, ort: Any, session: Any, constants: Mapping[str, Any], batch: int) -> None:
        self._ort, self._session, self._constants, self._batch = ort, session, constants, batch
        self._lock = threading.Lock()
        self._binding: Any = None
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        rows = max(len(value) for value in feeds.values())
        if rows > self._batch:
            raise ValueError(f"a batch of {rows} does not fit the captured batch of {self._batch}")
        with self._lock:
            filled = {key: self._filled(value, rows) for key, value in feeds.items()}
            if self._binding is None:
                self._bind(filled)
            for key, value in filled.items():
                self._inputs[key].update_inplace(value)
            self._session.run_with_iobinding(self._binding)
            return [np.asarray(self._outputs[key].numpy())[:rows] for key in outputs]

    def _filled(self, value: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
        if len(value) != rows or rows == self._batch:  # not by image (a count of layers), or full already
            return value
        return np.concatenate([value, np.zeros((self._batch - rows, *value.shape[1:]), value.dtype)])

    def _bind(self, filled: Mapping[str, npt.NDArray[Any]]) -> None:
        make = self._ort.OrtValue
        self._binding = self._session.io_binding()
        for key, constant in self._constants.items():
            self._binding.bind_ortvalue_input(key, constant)
        for key, value in filled.items():
            self._inputs[key] = make.ortvalue_from_numpy(value, "cuda", 0)
            self._binding.bind_ortvalue_input(key, self._inputs[key])
        for output in self._session.get_outputs():
            shape = [self._batch if isinstance(side, str) else side for side in output.shape]
            kind = _NUMPY_OF[output.type]
            self._outputs[output.name] = make.ortvalue_from_shape_and_type(shape, kind, "cuda", 0)
            self._binding.bind_ortvalue_output(output.name, self._outputs[output.name])


def resolve_providers(providers: str | Sequence[str] | None) -> list[str]:
    """Full provider names, best first, the CPU always last.

    Raises:
        UsageError: nothing in the sequence, or a name that this onnxruntime does not know.
    """
    ort = _onnxruntime()
    known = ort.get_all_providers()
    if providers is None:
        return [CUDA, CPU] if CUDA in ort.get_available_providers() and cuda_devices() > 0 else [CPU]
    names = [providers] if isinstance(providers, str) else list(providers)
    wanted = [_SHORT.get(name.lower(), name) if isinstance(name, str) else name for name in names]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise UsageError(
            f"providers must name execution providers of onnxruntime; got {providers!r}. "
            f"Use 'cpu', 'cuda' or one of {', '.join(ort.get_available_providers())}"
        )
    return list(dict.fromkeys([*wanted, CPU]))


def cpu_settings(threads: int | None = None) -> Any:
    """``SessionOptions`` whose pool of threads fits the cores that this process may use.

    threads: None leaves their number to onnxruntime (one for each physical core, pinned to it) where the process may
    use the whole machine. Where it may not, onnxruntime would still make a pool for the machine's cores.
    """
    settings = _onnxruntime().SessionOptions()
    settings.log_severity_level = 3
    if (chosen := checked_threads(threads)) is not None:
        settings.intra_op_num_threads = chosen
    elif (cores := usable_cores()) < (os.cpu_count() or 1):
        settings.intra_op_num_threads = cores
    return settings


def worth_trying(wanted: list[str]) -> list[str]:
    """Those of ``resolve_providers`` that this build of onnxruntime has, and that have a device where they need one of
    NVIDIA's; best first, the CPU always last."""
    available = _onnxruntime().get_available_providers()
    return [name for name in wanted if name in available and (name not in _NVIDIA or cuda_devices() > 0)]


def _usable(wanted: list[str]) -> list[str]:
    """``worth_trying``, ready to be tried."""
    usable = worth_trying(wanted)
    if any(name in _NVIDIA for name in usable):
        _preload_cuda()
    return usable


def checked_threads(threads: object) -> int | None:
    """``threads`` as a whole number of 1 or more, or None; else UsageError."""
    return checks.count("threads", threads, none="the cores that this process may use")


@functools.cache
def cuda_devices() -> int:
    """How many CUDA devices the NVIDIA driver offers; 0 without a driver. Asks the driver itself: onnxruntime's list
    of available providers says what it was built with, not what works."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("running a tokenizer (onnxruntime; reinstall icl-vision)", "all") from error
    return onnxruntime


def _errors(ort: Any) -> tuple[type[Exception], ...]:
    """onnxruntime's own exceptions; they share no base class but Exception."""
    state = ort.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException", "InvalidProtobuf",
             "ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail")  # fmt: skip
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _unreadable(ort: Any, name: str, error: Exception) -> ArtefactDamagedError:
    return ArtefactDamagedError(
        f"onnxruntime {ort.__version__} cannot read the graph of {name!r} ({_first_line(error)}); "
        "fetch or build it again, or upgrade onnxruntime if the graph is newer"
    )


def _check_whole(ort: Any, model: bytes, name: str) -> None:
    """Refuse a graph that would read other files: nobody checked those, and they may be the user's own."""
    try:
        read = reads_beside(model)
    except ValueError as error:
        raise _unreadable(ort, name, error) from error
    if read is not None:
        raise ArtefactDamagedError(
            f"the graph of {name!r} would read {read} (external data), and only files that a card lists are read; "
            "build it again with everything inside the one .onnx file"
        )


def _preload_cuda() -> None:
    """Let onnxruntime find CUDA and cuDNN inside installed nvidia-* packages; it prints where it does not, so hush."""
    ort = _onnxruntime()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls()
        if said.getvalue():
            logger.debug("onnxruntime.preload_dlls: %s", said.getvalue().strip())


@contextlib.contextmanager
def _quiet(ort: Any) -> Iterator[None]:
    """No red lines from C++ while a provider is tried; the result is checked afterwards anyway."""
    ort.set_default_logger_severity(_QUIET)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # onnxruntime's default; it offers no way to read the setting
