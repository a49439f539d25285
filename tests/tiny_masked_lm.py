"""Tiny masked language models of transformers with random weights, saved to disk with a tokenizer of a few words.

Their tables have 60 rows, more than the tokenizers have pieces, as published ones may.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

transformers: Any = pytest.importorskip("transformers")
tokenizers: Any = pytest.importorskip("tokenizers")

PLAIN = ["cat", "dog", "red", "blue", "tree", "car"]
KINDS = ["bert", "roberta", "distilbert"]


def _bert_tokenizer(folder: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PLAIN, "##s"]
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(folder)


def _roberta_tokenizer(folder: Path) -> None:
    letters = sorted({letter for word in PLAIN for letter in word} | {"Ġ"})
    merges, pieces = [], ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    for word in PLAIN:
        grown = "Ġ"
        for letter in word:
            if grown + letter not in pieces:
                merges.append((grown, letter))
                pieces.append(grown + letter)
            grown += letter
    model = tokenizers.Tokenizer(tokenizers.models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(folder)


def model_of(kind: str, **options: Any) -> Any:
    """transformers' model of a kind: three layers, width 16, 60 rows, 20 places, with its head."""
    torch.manual_seed(3)
    if kind == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=60, dim=16, n_layers=3, n_heads=2, hidden_dim=24, max_position_embeddings=20, **options
        )
        return transformers.DistilBertForMaskedLM(config).eval()
    shape = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    shape["intermediate_size"] = 24
    if kind == "roberta":
        config = transformers.RobertaConfig(**shape, max_position_embeddings=22, pad_token_id=1, **options)
        return transformers.RobertaForMaskedLM(config).eval()
    return transformers.BertForMaskedLM(transformers.BertConfig(**shape, max_position_embeddings=20, **options)).eval()


def stir(model: Any) -> None:
    """Biases and norms away from zero and one, where they would hide what was mixed up."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def saved(folder: Path, kind: str, **options: Any) -> Any:
    """The same, stirred, saved with its tokenizer into a folder."""
    model = model_of(kind, **options)
    stir(model)
    model.save_pretrained(folder)
    _roberta_tokenizer(folder) if kind == "roberta" else _bert_tokenizer(folder)
    return model
