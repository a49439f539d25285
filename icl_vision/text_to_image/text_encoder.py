"""The text encoder that a diffusion model was trained with, as the target of a mapper.

Knows: MiniLM's token states, padded with zeros to a fixed length, and the states a Stable Diffusion pipeline makes.
Refuses to know: LLMs, mappers. Needed for training and for the text encoder's own row of an evaluation only.

Letters in shapes: B texts, N states, e their width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.errors import ArtefactNotFoundError, UsageError
from icl_vision.models.words.text_embedding import SentenceEmbedder

LENGTH: Final = 16


class TextEncoder(Protocol):
    """Turns texts into states. name: what a card calls it. length, width: N and e."""

    name: str

    @property
    def length(self) -> int: ...
    @property
    def width(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float [B, N, e], no gradients. The empty text is that of no caption."""
        ...


class SentenceStates(SentenceEmbedder):
    """Token states of a sentence encoder (all-MiniLM-L6-v2), zeros where a text has no token.

    folder: a transformers folder; None takes the installed MiniLM. length: N, 3 or more; or 1 for one state, the mean
    of a text's tokens.

    Raises what ``SentenceEmbedder`` raises.
    """

    name = "all-MiniLM-L6-v2"

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, length: int = LENGTH) -> None:
        self.pooled = length == 1
        super().__init__(folder, max_length=LENGTH if self.pooled else count("length", length, least=3))
        if folder is not None:
            self.name = self.folder.name

    @property
    def length(self) -> int:
        return 1 if self.pooled else self.max_length

    @property
    def width(self) -> int:
        return self.dimension

    def encode(self, texts: Sequence[str], *, batch: int = 128) -> Tensor:
        """float32 [B, N, e]. A text of more than N tokens (of more than 16, where N is 1) loses its end."""
        _check_texts(texts)
        out = torch.zeros(len(texts), self.length, self.width)
        for start in range(0, len(texts), batch):
            tokens = self._tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=self.length,
                return_tensors="pt",
            ).to(self.device)
            there = tokens["attention_mask"].unsqueeze(-1)
            with torch.inference_mode():
                states = self._model(**tokens).last_hidden_state * there
                if self.pooled:
                    states = states.sum(1, keepdim=True) / there.sum(1, keepdim=True)
            out[start : start + len(states), : states.shape[1]] = states.cpu()
        return out


class PipelineStates:
    """The states that a Stable Diffusion pipeline makes of prompts with its own text encoder.

    Raises UsageError where the pipeline has none.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        if getattr(pipeline, "text_encoder", None) is None or getattr(pipeline, "tokenizer", None) is None:
            raise UsageError(f"the pipeline {name!r} has no text encoder of its own to learn from")
        self.name = name
        self._pipeline = pipeline

    @property
    def length(self) -> int:
        return int(self._pipeline.tokenizer.model_max_length)

    @property
    def width(self) -> int:
        return int(self._pipeline.unet.config.cross_attention_dim)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, N, e]."""
        _check_texts(texts)
        with torch.inference_mode():
            states, _ = self._pipeline.encode_prompt(
                list(texts), device=self._pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        return torch.as_tensor(states).float().clone()


class ClipStates:
    """The same states as ``PipelineStates`` makes, by a pipeline's text encoder alone: its U-Net is not loaded.

    model: a CLIPTextModel. tokenizer: its own. name: what a card calls the pipeline.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.name = name

    @classmethod
    def open(cls, source: str | os.PathLike[str]) -> ClipStates:
        """Of a Stable Diffusion pipeline, by folder or hub name. Weights from safetensors only.

        Raises ArtefactNotFoundError where transformers cannot open its text encoder.
        """
        from transformers import CLIPTextModel, CLIPTokenizer

        from icl_vision.text_to_image.quiet import quiet_transformers

        where = os.fspath(source)
        try:
            with quiet_transformers():
                tokenizer: Any = CLIPTokenizer.from_pretrained(where, subfolder="tokenizer")
                # A pickle may run code when it is opened.
                model: Any = CLIPTextModel.from_pretrained(
                    where, subfolder="text_encoder", dtype=torch.float32, use_safetensors=True
                )
        except (OSError, ValueError) as error:
            raise ArtefactNotFoundError(
                f"transformers cannot open the text encoder of {where!r} (a CLIP in its folders text_encoder and "
                f"tokenizer): {error}"
            ) from error
        return cls(model, tokenizer, os.path.basename(where.rstrip("/")) if os.path.isdir(where) else where)

    @property
    def length(self) -> int:
        return int(self._tokenizer.model_max_length)

    @property
    def width(self) -> int:
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, N, e]. A text of more than N tokens loses its end."""
        _check_texts(texts)
        batch = self._tokenizer(
            list(texts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        # As diffusers does it: padding is attended to, unless the encoder's configuration says otherwise.
        mask = batch["attention_mask"] if getattr(self._model.config, "use_attention_mask", False) else None
        with torch.inference_mode():
            states: Tensor = self._model(batch["input_ids"], attention_mask=mask)[0]
        return states.float().clone()


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise UsageError(f"texts must be a sequence of strings, not one string: put {texts!r} in a list")
