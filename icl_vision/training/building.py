"""From a configuration to nets: the model, what its losses need, and a trained model back from a run folder.

Knows: which part is built from which keys. Refuses to know: steps, data, files of checkpoints (``checkpoint``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import StorageError, UsageError
from icl_vision.files.trust import Reader
from icl_vision.models.losses.discriminator import Discriminator
from icl_vision.models.losses.spae import SpaeLoss
from icl_vision.models.spae import SPAE
from icl_vision.training.checkpoint import STATE_FILE, Checkpoint, latest_checkpoint, read_checkpoint
from icl_vision.training.config import GuideConfig, TrainConfig
from icl_vision.training.seeds import WEIGHTS, kept_generators, seed_globally

if TYPE_CHECKING:
    from icl_vision.models.words.guidance import Guide

logger = logging.getLogger(__name__)

_DIGITS = tuple("0123456789")


def load_codebook(config: TrainConfig) -> Codebook | None:
    """The codebook that the configuration names; None for one that is drawn at random and learned.

    Raises ArtefactError where there is no such codebook, UsageError where it has another width than the model.
    """
    if config.codebook is None:
        if config.model.words is None:
            raise UsageError(
                "codebook is null: name a packaged codebook (portable-minilm-128, with model.dim 128) or the folder of "
                f"one with {config.model.dim} dimensions (icl-vision build codebook); only a learned one of "
                "model.words words needs none"
            )
        return None
    codebook = Codebook.load(config.codebook)
    width = codebook.vectors.shape[1]
    if width != config.model.dim:
        raise UsageError(
            f"the codebook {config.codebook!r} has {width} dimensions and model.dim is {config.model.dim}: set "
            "model.dim to the codebook's, or name another codebook"
        )
    return codebook


def build_model(config: TrainConfig, codebook: Codebook | None) -> SPAE:
    """A model to train: fresh, with weights that the seed decides (the frozen parts of a "photo" net get their
    published ones), or that of ``config.init``.

    Raises StorageError where ``config.init`` is no checkpoint or does not fit; UsageError or ArtefactError where
    parts do not fit or cannot be found.
    """
    with kept_generators():
        seed_globally(config.seed, WEIGHTS)
        model = SPAE(config.model, None if codebook is None else torch.tensor(codebook.vectors))
    if config.init is not None:
        start = find_checkpoint(config.init)
        _check_codebook(start.state.get("codebook"), codebook, start.folder)
        restore(model, start, "ema" if "ema" in start else "model")
    elif config.model.net == "photo":
        if config.pretrained is None:
            raise UsageError(
                "a photo net stands on the TAEF2 autoencoder: name the folder of its two weight files with pretrained "
                "(--set pretrained=FOLDER)"
            )
        model.load_pretrained(config.pretrained)
    return model


def build_loss(config: TrainConfig, model: SPAE, codebook: Codebook | None, classes: Sequence[str]) -> SpaeLoss:
    """The losses with all that they need. classes: names of the data's classes, in label order.

    Raises UsageError or ArtefactError where a part cannot be had.
    """
    guide = perceptual = discriminator = None
    if config.loss.needs_guide:
        guide = _guide(config.guide, codebook, classes)
    if config.loss.needs_perceptual:
        from icl_vision.models.losses.perceptual import load_lpips

        perceptual = load_lpips(config.lpips)
    if config.loss.needs_discriminator:
        with kept_generators():
            seed_globally(config.seed, WEIGHTS, 1)
            discriminator = Discriminator(
                config.loss.discriminator, channels=config.model.channels, side=config.model.side
            )
    return SpaeLoss(config.loss, model.quantizer.codebook, guide, perceptual, discriminator)


def _guide(config: GuideConfig, codebook: Codebook | None, classes: Sequence[str]) -> Guide:
    from icl_vision.models.words.guidance import DIGIT_NAMES, CLIPGuide, ConSEGuide, LabelGuide

    if codebook is None:
        raise UsageError("loss.semantic needs words, and the codebook is drawn at random: set loss.semantic to 0")
    if config.kind == "clip":
        return CLIPGuide.load(config.encoder, codebook.vocabulary)
    if config.kind == "conse":
        return ConSEGuide.load(codebook)
    names = config.names
    if names is None:
        if not classes:
            raise UsageError(
                "guide.kind 'labels' needs classes: class folders, an npz file with y_train, or another kind"
            )
        names = DIGIT_NAMES if tuple(classes) == _DIGITS else tuple(classes)
    if classes and len(names) != len(classes):
        raise UsageError(f"guide.names lists {len(names)} names and the data has {len(classes)} classes")
    return LabelGuide.load(codebook, names)


def codebook_entry(codebook: Codebook | None) -> dict[str, str] | None:
    """What a checkpoint remembers of its codebook."""
    return None if codebook is None else {"name": codebook.name, "hash": codebook.hash}


def load_model(
    folder: str | os.PathLike[str],
    *,
    ema: bool = True,
    codebook: str | os.PathLike[str] | None = None,
    trust: bool = False,
) -> SPAE:
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
        model = SPAE(config.model, None if words is None else torch.tensor(words.vectors))
    restore(model, checkpoint, "ema" if ema and "ema" in checkpoint else "model")
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
    try:
        module.load_state_dict(checkpoint.tensors(name))
    except RuntimeError as error:  # torch's word for missing, unexpected or misshapen tensors
        raise StorageError(
            f"{name} of the checkpoint {str(checkpoint.folder)!r} does not fit the model: {error}"
        ) from error


def _check_codebook(entry: Any, codebook: Codebook | None, folder: Path) -> None:
    if entry != codebook_entry(codebook):
        found = "none" if codebook is None else f"{codebook.name!r} with sha256 {codebook.hash[:12]}..."
        raise StorageError(f"the checkpoint {str(folder)!r} was trained with the codebook {entry}; found is {found}")
