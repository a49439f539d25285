"""Reading an artefact folder: is every file the one its card describes, and which codebook belongs to it.

Knows: ``card.json``, sha256, where codebooks lie. Refuses to know: graphs, sessions, how an artefact is written
(``exporters/artefact.py``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import ArtefactDamagedError
from icl_vision.files.reading import MOST_WEIGHTS, member, read_bytes
from icl_vision.files.storage import sha256_file
from icl_vision.vocabulary import CARD_FILE

ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"
CLASSES_FILE = "classes.txt"


def verify_files(folder: Path, card: Mapping[str, Any], *, required: str = ENCODER_FILE) -> None:
    """Check every file that a card lists under "files" against its sha256; ``required`` must be among them.

    Raises:
        ArtefactDamagedError: a file is missing, cannot be read or is another one; or the list itself is damaged.
    """
    files = card.get("files")
    if not isinstance(files, Mapping) or required not in files:
        raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} must list {required} with its sha256 under 'files'")
    for name, expected in files.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} lists {name!r}, which is no plain file name")
        try:
            digest = sha256_file(member(folder, name), most=MOST_WEIGHTS)
        except FileNotFoundError:
            raise ArtefactDamagedError(f"{str(folder)!r} has no {name}; fetch or build the folder again") from None
        except OSError as error:
            raise ArtefactDamagedError(f"{name} in {str(folder)!r} cannot be read ({error.strerror})") from error
        if digest != expected:
            raise ArtefactDamagedError(
                f"{name} in {str(folder)!r} is not the file its card describes: its sha256 is {digest[:12]}..., "
                f"the card says {str(expected)[:12]}...; fetch or build the folder again"
            )


def read_file(folder: Path, card: Mapping[str, Any], name: str, *, most: int = MOST_WEIGHTS) -> bytes:
    """The bytes of a file that a card lists, which must still be the one that ``verify_files`` has seen.

    most: bytes that a file of its kind may have; the default is a graph's.

    Raises:
        ArtefactDamagedError: it is not listed, cannot be read, has more bytes than that, or is another one.
    """
    files = card.get("files")
    expected = files.get(name) if isinstance(files, Mapping) else None
    try:
        data = read_bytes(member(folder, name), most=most)
    except OSError as error:
        raise ArtefactDamagedError(f"{name} in {str(folder)!r} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise ArtefactDamagedError(
            f"{str(folder)!r} cannot be used: {name} was changed since it was checked; fetch or build it again"
        )
    return data


def find_codebook(folder: Path, card: Mapping[str, Any]) -> Codebook:
    """The codebook a card names, from inside the artefact, beside it, or from the package; the sha256 decides.

    Raises:
        ArtefactDamagedError: none of that name, or only ones with another sha256.
    """
    entry = card.get("codebook")
    name, wanted = (entry.get("name"), entry.get("hash")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(name, str) or Path(name).name != name or not isinstance(wanted, str):
        raise ArtefactDamagedError(
            f"{CARD_FILE} in {str(folder)!r} must name its codebook and the codebook's hash; got {entry!r}"
        )
    folders: list[str | Path] = [folder / name, folder.parent / name]
    others = []
    for source in [*(path for path in folders if os.path.isdir(path)), *({name} & set(packaged_codebooks()))]:
        codebook = Codebook.load(source)
        if codebook.hash == wanted:
            return codebook
        others.append(f"{str(source)!r} has {codebook.hash[:12]}...")
    nowhere = f"no such folder inside or beside it, nor in the package {packaged_codebooks()}"
    raise ArtefactDamagedError(
        f"{str(folder)!r} needs the codebook {name!r} with sha256 {wanted[:12]}...: {', '.join(others) or nowhere}"
    )
