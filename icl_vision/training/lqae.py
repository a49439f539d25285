"""How an LQAE is trained: its configuration, how it is built, and what a step of it computes.

Knows: which parts an LQAE's configuration asks for. Refuses to know: the loop, data, files of checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.models.losses.lqae import LqaeLossConfig, lqae_loss
from icl_vision.models.lqae import LQAE
from icl_vision.models.lqae_config import LqaeConfig
from icl_vision.models.words.masked_lm import MaskedTextEncoder
from icl_vision.models.words.masked_lm_files import ALL_ROWS, MINILM
from icl_vision.training.config import TrainConfig
from icl_vision.training.families import Family, register
from icl_vision.training.photo import check_remember, measure_latents, taef2_folder
from icl_vision.training.step import TOTAL, TrainingStep

logger = logging.getLogger(__name__)

_HALF = 1e-3
"""How far a codebook's numbers, stored in half precision, may be from the table's, and how far in relation to them."""


@dataclass(frozen=True)
class LqaeTrainConfig(TrainConfig):
    """A whole run of LQAE; see ``TrainConfig`` for what is not named here.

    model, loss: see ``LqaeConfig`` and ``LqaeLossConfig``. codebook: the words' rows of the text encoder's table; null
    only for a learned one. text_encoder: where the weights of ``model.text`` come from, "minilm" (the installed one),
    a folder that transformers saved, or a hub name; null leaves them random. past_text: so many first steps leave the
    text encoder out and hide nothing (through its layers, a fresh decoder learns next to nothing). pretrained,
    remember: for a "photo" net.
    """

    family: ClassVar[str] = "lqae"
    paths: ClassVar[Mapping[str, Callable[[], Collection[str]]]] = {
        **TrainConfig.paths,
        "text_encoder": lambda: (MINILM,),
    }

    model: LqaeConfig = field(default_factory=LqaeConfig)
    loss: LqaeLossConfig = field(default_factory=LqaeLossConfig)
    text_encoder: str | None = None
    past_text: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        count("past_text", self.past_text, least=0)
        check_remember(self, photo=self.model.net == "photo")
        text = self.model.text
        if self.loss.mlm and (text is None or not text.head):
            raise UsageError(
                f"loss.mlm {self.loss.mlm:g} needs a text encoder with its masked-word head (model.text.head): set "
                "loss.mlm to 0"
            )
        if not self.loss.pixel and not self.loss.direct:
            raise UsageError(
                "loss.pixel and loss.direct are both 0: nothing teaches the decoder what a picture looks like; give "
                "one of them a weight above 0"
            )
        if self.text_encoder is not None and text is None:
            raise UsageError("text_encoder gives weights to model.text, which is null: set model.text too, or neither")
        if self.loss.even and self.model.train_on != "latents":
            raise UsageError(
                f"loss.even {self.loss.even:g} weighs latents, which model.train_on {self.model.train_on} does not "
                "compare: set it to 0, or model.train_on to latents"
            )
        if self.past_text and text is None:
            raise UsageError("past_text leaves out a text encoder, and model.text is null: set past_text to 0")

    def check_codebook(self, codebook: Codebook | None) -> None:
        if codebook is None:
            if not self.model.learned:
                raise UsageError(
                    "codebook is null: name a codebook with the rows of the text encoder's table; only a learned one "
                    "(model.learned, model.words) needs none"
                )
            return
        self.check_width(codebook, self.model.dim)


class LqaeStep(TrainingStep):
    """The autoencoder with its loss. past_text: how many steps leave the text encoder out."""

    model: LQAE

    def __init__(self, model: LQAE, loss: LqaeLossConfig, past_text: int) -> None:
        super().__init__(model)
        self.loss = loss
        self.past_text = past_text

    def forward(
        self, images: Tensor, labels: Tensor | None, step: int, frozen: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        output = self.model(images, frozen, past_text=step < self.past_text, direct=self.loss.direct > 0)
        self.ids = (output.ids,)
        report = lqae_loss(self.loss, images, output, self.model)
        return {**report.parts, TOTAL: report.total}

    def measure(self, images: Tensor) -> None:
        if self.model.config.train_on == "latents":
            measure_latents(self.model.encoder, self.model.decoder, images, self.loss.even)


def build_model(config: LqaeTrainConfig, codebook: Codebook | None) -> LQAE:
    """An LQAE with fresh weights; its frozen parts are random until ``start``."""
    return LQAE(config.model, None if codebook is None else torch.tensor(codebook.vectors))


def start(config: LqaeTrainConfig, model: LQAE) -> None:
    """The published weights of the text encoder, and of TAEF2 for a "photo" net.

    Raises UsageError or ArtefactError where they are not there or have another shape.
    """
    if config.model.net == "photo":
        folder = taef2_folder(config.pretrained)
        model.encoder.load_pretrained(folder)
        model.decoder.load_pretrained(folder)
    if model.text is None:
        return
    if config.text_encoder is None:
        logger.warning("text_encoder is null: the text encoder keeps random weights")
        return
    assert config.codebook is not None  # a text encoder goes with a frozen codebook, and check_codebook asked for it
    book = Codebook.load(config.codebook)
    # The whole table's words are called as the tokenizer spells its pieces: they are its rows, not words to look up.
    words = None if book.card.get("rows") == ALL_ROWS else tuple(book.vocabulary)
    published = MaskedTextEncoder.load(config.text_encoder, layers=model.text.shape.layers, words=words)
    if published.shape != model.text.shape:
        raise UsageError(
            f"model.text says {model.text.shape}, and {config.text_encoder!r} is {published.shape}: write that into "
            "model.text"
        )
    same = published.table.shape == model.codebook.shape
    if not same or not torch.allclose(published.table, model.codebook, atol=_HALF, rtol=_HALF):
        raise UsageError(
            f"the codebook {config.codebook!r} does not hold the rows of the table of {config.text_encoder!r}: its "
            "words would mean nothing to that text encoder; build one of it"
        )
    model.text.load_state_dict(published.state_dict())


def build_step(config: LqaeTrainConfig, model: LQAE, codebook: Codebook | None, classes: Sequence[str]) -> LqaeStep:
    """The model with its losses."""
    return LqaeStep(model, config.loss, config.past_text)


FAMILY = register(
    Family("lqae", LqaeTrainConfig, build_model, build_step, "icl_vision.exporters.lqae:export_lqae", start)
)
