"""Finding tokenizers: packaged, "ascii", of another package, a folder, or a hub repository; in this order.

Knows: which names exist and where their folders lie. Refuses to know: how a tokenizer works, and the network,
unless a download is asked for in so many words.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_vision import plugins
from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, PluginError, UsageError
from icl_vision.tokenizers.ascii import AsciiTokenizer
from icl_vision.tokenizers.base import ImageTokenizer
from icl_vision.tokenizers.describe.tokenizer import DescribePhoto
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.vocabulary import CARD_FILE, read_card

logger = logging.getLogger(__name__)

ASCII = "ascii"
_PACKAGED = Path(__file__).parent.parent / "artefacts" / "tokenizers"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*card.json", "*.onnx", "*.txt", "*.safetensors"]  # never code, never pickles


def available() -> list[str]:
    """The names that work without anything else: packaged tokenizers and "ascii", sorted."""
    return sorted([*(entry.parent.name for entry in _PACKAGED.glob(f"*/{CARD_FILE}")), ASCII])


def load(name: str | os.PathLike[str], *, strict: bool = False, **options: Any) -> ImageTokenizer:
    """The tokenizer of that name; ``ImageTokenizer.from_pretrained`` is the public way here.

    Args:
        name: a name of ``available()``, one that an installed package offers (see ``plugins``), an artefact folder, or
            a hub id "org/name". A hub id is looked up in the local hub cache; only ``download=True`` goes to the
            network (needs huggingface_hub). A folder that is named as another package's tokenizer is "./NAME".
        strict: as for ``OnnxTokenizer``; "ascii" has no provider to be strict about. Another package's tokenizer is
            given it only where it is True.
        **options: keyword arguments of ``OnnxTokenizer``, ``DescribePhoto``, ``AsciiTokenizer`` or the other package's,
            and ``download``.

    Raises:
        ArtefactNotFoundError: nothing of that name; the message lists what exists.
        ArtefactDamagedError: a file is not the one its card describes.
        PluginError: another package's tokenizer cannot be loaded, or is none.
        MissingExtraError: a download without huggingface_hub.
        UsageError: an option that this tokenizer does not have.
    """
    download = options.pop("download", False)
    if name == ASCII:
        _check_options(AsciiTokenizer, name, options)
        return AsciiTokenizer(**options)
    if _is_plugin(name):
        return _from_plugin(str(name), strict, options)
    folder = find(name, download=download)
    kind = read_card(folder).get("kind")
    if kind in ("codebook", "part"):
        names = ", ".join(available())
        what = "a codebook" if kind == "codebook" else "a part of tokenizers"
        raise ArtefactNotFoundError(f"{str(folder)!r} is {what}, not a tokenizer; available are {names}")
    reader: type[OnnxTokenizer] = DescribePhoto if kind in DescribePhoto.kinds else OnnxTokenizer
    if kind not in reader.kinds:
        logger.debug("%s has the kind %r; its reader will say more", folder, kind)
    _check_options(reader, str(name), options)
    return reader(folder, strict=strict, **options)


def find(name: str | os.PathLike[str], *, download: bool = False) -> Path:
    """The artefact folder of a packaged name, a folder or a hub id. Raises as ``load`` does."""
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise UsageError(f"a tokenizer is named by a string or a path; got {name!r}")
    text = os.fspath(name)
    if text in available() and text != ASCII:
        return _PACKAGED / text
    path = Path(text).expanduser()
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        hint = f"; did you mean its folder, {str(path.parent)!r}?" if (path.parent / CARD_FILE).is_file() else ""
        raise ArtefactNotFoundError(f"a tokenizer is a folder, and {text!r} is a file{hint}")
    if _HUB_ID.fullmatch(text):
        return _from_hub(text, download)
    raise ArtefactNotFoundError(_unknown(text))


def card(name: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The card of a tokenizer, without starting it (another package's is made). Raises as ``load`` does."""
    if name == ASCII:
        return AsciiTokenizer().card
    return load(name).card if _is_plugin(name) else read_card(find(name))


def _is_plugin(name: object) -> bool:
    return isinstance(name, str) and name not in available() and name in plugins.offered(plugins.TOKENIZERS)


def _from_plugin(name: str, strict: bool, options: Mapping[str, Any]) -> ImageTokenizer:
    tokenizer = plugins.make(plugins.TOKENIZERS, name, **options, **({"strict": True} if strict else {}))
    if not isinstance(tokenizer, ImageTokenizer):
        offered = plugins.offered(plugins.TOKENIZERS)[name]
        raise PluginError(
            f"the tokenizer {name!r} of {offered} is of type {type(tokenizer).__name__}: it must be an "
            "icl_vision.tokenizers.ImageTokenizer"
        )
    return tokenizer


def _unknown(name: str) -> str:
    known = [*available(), *plugins.offered(plugins.TOKENIZERS)]
    names = ", ".join(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no tokenizer {name!r}: available are {names}, or an artefact folder (one with a {CARD_FILE}){hint}"


def _check_options(kind: type[ImageTokenizer], name: object, options: Mapping[str, Any]) -> None:
    known = [option for option in inspect.signature(kind).parameters if option not in ("folder", "strict")]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise UsageError(f"the tokenizer {name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")


def _from_hub(repository: str, download: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        if download:
            raise MissingExtraError(f"downloading {repository!r} (huggingface_hub)", "train") from error
        raise ArtefactNotFoundError(_unknown(repository)) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES, local_files_only=not download))
    except LocalEntryNotFoundError as error:
        what = "cannot be downloaded" if download else "is not in the local hub cache; pass download=True to fetch it"
        raise ArtefactNotFoundError(f"{_unknown(repository)}. As a hub id it {what}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtefactNotFoundError(f"{_unknown(repository)}. As a hub id it cannot be downloaded ({first})") from error
