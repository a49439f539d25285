"""From a configuration to a model, of whatever family, and a trained model back from a run folder.

Knows: codebooks, what a model starts from. Refuses to know: how a family builds its model and losses (``spae.py``),
steps, data, files of checkpoints (``checkpoint``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import StorageError
from icl_vision.files.trust import Reader
from icl_vision.models.interface import WordAutoencoder
from icl_vision.training.checkpoint import STATE_FILE, Checkpoint, latest_checkpoint, read_checkpoint
from icl_vision.training.config import TrainConfig
from icl_vision.training.families import family_named
from icl_vision.training.seeds import WEIGHTS, kept_generators, seed_globally


def load_codebook(config: TrainConfig) -> Codebook | None:
    """The codebook that the configuration names; None where it names none.

    Raises ArtefactError where there is no such codebook, UsageError where the model cannot be made with it.
    """
    codebook = None if config.codebook is None else Codebook.load(config.codebook)
    config.check_codebook(codebook)
    return codebook


def build_model(config: TrainConfig, codebook: Codebook | None) -> WordAutoencoder:
    """A model to train: fresh, with weights that the seed decides (frozen parts get their published ones), or that of
    ``config.init``.

    Raises StorageError where ``config.init`` is no checkpoint or does not fit; UsageError or ArtefactError where
    parts do not fit or cannot be found.
    """
    family = family_named(config.family)
    with kept_generators():
        seed_globally(config.seed, WEIGHTS)
        model: WordAutoencoder = family.build_model(config, codebook)
    if config.init is None:
        family.start(config, model)
        return model
    beginning = find_checkpoint(config.init)
    _check_codebook(beginning.state.get("codebook"), codebook, beginning.folder)
    with _fits(beginning, name := _averaged(beginning)):
        model.warm_start(beginning.tensors(name))
    return model


def codebook_entry(codebook: Codebook | None) -> dict[str, str] | None:
    """What a checkpoint remembers of its codebook."""
    return None if codebook is None else {"name": codebook.name, "hash": codebook.hash}


def load_model(
    folder: str | os.PathLike[str],
    *,
    ema: bool = True,
    codebook: str | os.PathLike[str] | None = None,
    trust: bool = False,
) -> WordAutoencoder:
    """The trained model of a run folder (its newest whole checkpoint) or of one checkpoint folder.

    ema: the averaged weights, where the run kept them; they are what validation measured.
    codebook, trust: see ``saved_config``.

    Returns the model on the CPU, in evaluation mode.

    Raises:
        StorageError: no checkpoint, or a damaged one. UsageError: its configuration is of another version.
        ArtefactError: its codebook is gone, or is another one by now.
    """
    checkpoint = find_checkpoint(folder)
    config = saved_config(checkpoint, codebook=codebook, trust=trust)
    words = load_codebook(config)
    _check_codebook(checkpoint.state.get("codebook"), words, checkpoint.folder)
    with kept_generators():
        model: WordAutoencoder = family_named(config.family).build_model(config, words)
    restore(model, checkpoint, _averaged(checkpoint) if ema else "model")
    return model.eval()


def find_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in ``folder``, or the newest whole one of the run in ``folder``. Raises StorageError for none."""
    path = Path(folder)
    if (path / STATE_FILE).is_file():
        return read_checkpoint(path)
    checkpoint = latest_checkpoint(path)
    if checkpoint is None:
        raise StorageError(f"{str(folder)!r} is neither a checkpoint nor a training run with one in checkpoints/")
    return checkpoint


def saved_config(
    checkpoint: Checkpoint, *, codebook: str | os.PathLike[str] | None = None, trust: bool = False
) -> TrainConfig:
    """The configuration that a checkpoint was trained with.

    codebook: where its codebook is, instead of where it was. trust: take a codebook that is not packaged from the
    folder that the checkpoint names.

    Raises UntrustedNameError where neither is given and the codebook is not packaged.
    """
    document = checkpoint.state.get("config")
    if not isinstance(document, Mapping):
        raise StorageError(f"{str(checkpoint.folder / STATE_FILE)!r} holds no config")
    config = TrainConfig.from_dict(document)
    if codebook is not None:
        return replace(config, codebook=os.fspath(codebook))
    if config.codebook is not None:
        reader = Reader(str(checkpoint.folder), trust, "trust=True (--trust)")
        reader.packaged("codebook", config.codebook, packaged_codebooks(), "codebook= (--codebook FOLDER)")
    return config


def restore(module: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load a checkpoint's tensors into a module. Raises StorageError where they do not fit."""
    with _fits(checkpoint, name):
        module.load_state_dict(checkpoint.tensors(name))


def _averaged(checkpoint: Checkpoint) -> str:
    return "ema" if "ema" in checkpoint else "model"


@contextmanager
def _fits(checkpoint: Checkpoint, name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's word for missing, unexpected or misshapen tensors
        raise StorageError(
            f"{name} of the checkpoint {str(checkpoint.folder)!r} does not fit the model: {error}"
        ) from error


def _check_codebook(entry: Any, codebook: Codebook | None, folder: Path) -> None:
    if entry != codebook_entry(codebook):
        own = "none" if codebook is None else f"{codebook.name!r} with sha256 {codebook.hash[:12]}..."
        raise StorageError(f"the checkpoint {str(folder)!r} was trained with the codebook {entry}; found is {own}")
