"""Where a masked language model's weights are, what they are called there, and what is taken of them.

    shape, weights = read_model("minilm", layers=3, words=["cat", "dog"])

Knows: the folders that transformers saves (BERT, MiniLM, RoBERTa, DistilBERT and models of their make), the names of
their tensors, which piece of a tokenizer a word is. Refuses to know: what is computed (``masked_lm.py``), pictures.

Weights are read from ``model.safetensors`` only: a ``pytorch_model.bin`` is a pickle, and opening one may run code.
Nothing is downloaded unless the source is a hub name.

Letters in shapes: T words, c width, N positions, I inner width of the MLP.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from icl_vision.checks import choice, count, number
from icl_vision.errors import (
    ArtefactDamagedError,
    ArtefactNotFoundError,
    MissingExtraError,
    UsageError,
    VocabularyError,
)
from icl_vision.files.reading import MOST_CARD, read_json
from icl_vision.files.typed import check_fields
from icl_vision.models.words.text_embedding import minilm_folder

Activation = Literal["gelu", "gelu_tanh", "relu"]

MINILM = "minilm"
"""The source that stands for the installed all-MiniLM-L6-v2 (which has no head)."""

ALL_ROWS = "all"
"""What a codebook's card says of ``rows`` where it holds the whole table, in its order: its words are then the names of
the tokenizer's pieces, not words to be looked up as one."""

WEIGHTS_FILE = "model.safetensors"
_CONFIG_FILE = "config.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SHOWN = 8  # words in a message


@dataclass(frozen=True)
class TextShape:
    """Everything that a text encoder is made of but its weights; ``to_plain`` and ``from_plain`` store it.

    width: c. layers: of the encoder, 0 for its embeddings alone. heads: of the attention, a divisor of c. inner: I.
    positions: N, the most words in a row. activation: of the MLPs. eps: of the layer norms. head: whether it has its
    masked-word head. tied: whether that head's matrix is the words' table.
    """

    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    activation: Activation = "gelu"
    eps: float = 1e-12
    head: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("width", "heads", "inner", "positions"):
            count(name, getattr(self, name))
        count("layers", self.layers, least=0)
        choice("activation", self.activation, get_args(Activation))
        number("eps", self.eps, least=0)
        if self.width % self.heads:
            raise UsageError(f"heads must divide the width {self.width}; got {self.heads}")

    def first(self, layers: int | None) -> TextShape:
        """The same with its first ``layers`` layers; None is all. Fewer leave no head, which reads the last's states.

        Raises UsageError where there are not as many.
        """
        if layers is None:
            return self
        count("layers", layers, least=0, most=self.layers, of=f" (the text encoder has {self.layers})")
        return replace(self, layers=layers, head=self.head and layers == self.layers)


@dataclass(frozen=True)
class _Known:
    """What is known of a published model without any file of it: enough to build it with random weights."""

    shape: TextShape
    vocabulary: int
    mask: int


_BASE = TextShape(768, 12, 12, 3072, 512, head=True)
_ROBERTA = _Known(replace(_BASE, eps=1e-5), 50265, 50264)
_KNOWN = {
    "roberta-base": _ROBERTA,
    "FacebookAI/roberta-base": _ROBERTA,
    "bert-base-uncased": _Known(_BASE, 30522, 103),
    "google-bert/bert-base-uncased": _Known(_BASE, 30522, 103),
    "distilbert-base-uncased": _Known(replace(_BASE, layers=6), 30522, 103),
    "distilbert/distilbert-base-uncased": _Known(replace(_BASE, layers=6), 30522, 103),
}


@dataclass(frozen=True, eq=False)
class TextWeights:
    """What is taken of a model. table: fp32 [T, c], the drawn words' rows. tensors: by the names of
    ``MaskedTextEncoder.state_dict()``; None where the weights are to be random."""

    table: Tensor
    tensors: dict[str, Tensor] | None


@dataclass(frozen=True)
class _Kind:
    """One make of model. keys: in config.json, of width, layers, heads, inner width, activation. prefix: before all
    names but the head's. special: positions that no word has, at the start of the table of positions."""

    keys: tuple[str, str, str, str, str]
    prefix: str
    embeddings: str
    layer: str
    parts: Mapping[str, str]
    head: Mapping[str, str]
    types: bool = True
    special: Callable[[Mapping[str, Any]], int] = lambda config: 0


_BERT_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "norm": "output.LayerNorm",
}
_BERT = _Kind(
    ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    "bert.",
    "embeddings.",
    "encoder.layer.{}.",
    _BERT_LAYER,
    {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "decoder": "cls.predictions.decoder.weight",
        "bias": "cls.predictions.bias",
    },
)
_ROBERTA_KIND = replace(
    _BERT,
    prefix="roberta.",
    head={
        "dense": "lm_head.dense",
        "norm": "lm_head.layer_norm",
        "decoder": "lm_head.decoder.weight",
        "bias": "lm_head.bias",
    },
    # Its positions start behind the padding's: transformers counts them so, of all that is not padding.
    special=lambda config: _stated(config, "pad_token_id", 1) + 1,
)
_KINDS = {
    "bert": _BERT,
    "roberta": _ROBERTA_KIND,
    "xlm-roberta": _ROBERTA_KIND,
    "camembert": _ROBERTA_KIND,
    "distilbert": _Kind(
        ("dim", "n_layers", "n_heads", "hidden_dim", "activation"),
        "distilbert.",
        "embeddings.",
        "transformer.layer.{}.",
        {
            "attention.query": "attention.q_lin",
            "attention.key": "attention.k_lin",
            "attention.value": "attention.v_lin",
            "attention.out": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "inner": "ffn.lin1",
            "outer": "ffn.lin2",
            "norm": "output_layer_norm",
        },
        {
            "dense": "vocab_transform",
            "norm": "vocab_layer_norm",
            "decoder": "vocab_projector.weight",
            "bias": "vocab_projector.bias",
        },
        types=False,
    ),
}
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def read_model(
    source: str | os.PathLike[str],
    *,
    layers: int | None = None,
    random: bool = False,
    words: Sequence[str] | None = None,
) -> tuple[TextShape, TextWeights]:
    """Shape and weights of a masked language model; arguments and errors as of ``MaskedTextEncoder.load``."""
    name = os.fspath(source)
    if random and name in _KNOWN and not Path(name).is_dir():
        return _from_thin_air(_KNOWN[name], layers, words)
    config_file = _file(name, _CONFIG_FILE)
    try:
        config = read_json(config_file, most=MOST_CARD)
    except (OSError, ValueError) as error:
        raise ArtefactDamagedError(f"{str(config_file)!r} cannot be read: {error}") from error
    kind = _KINDS.get(str(config.get("model_type", ""))) if isinstance(config, Mapping) else None
    if kind is None:
        found = config.get("model_type") if isinstance(config, Mapping) else config
        raise UsageError(f"{name!r} is a model of type {found!r}; a text encoder is one of {', '.join(_KINDS)}")
    weights_file = _weights_file(name)
    try:
        with safe_open(weights_file, "pt") as opened:
            stored = {_modern(key): key for key in opened.keys()}
            read = _Reading(name, kind, stored, opened.get_tensor)
            whole = _shape(name, kind, config, read)
            shape = whole.first(layers)
            chosen, mask = _pieces(name, words)
            return shape, read.weights(shape, chosen, mask, kind.special(config), random)
    except (SafetensorError, OSError) as error:
        raise ArtefactDamagedError(
            f"{str(weights_file)!r} is not a safetensors file that can be read ({error})"
        ) from error


class _Reading:
    """The tensors of one file under the names of transformers today, whatever they are called in it."""

    def __init__(self, name: str, kind: _Kind, stored: Mapping[str, str], get: Callable[[str], Tensor]) -> None:
        self._name, self._kind, self._stored, self._get = name, kind, stored, get

    def has(self, key: str) -> bool:
        return key in self._stored

    @property
    def head_bias(self) -> str | None:
        """The name of the head's bias; of two, as in a file of an untied head, the one that its matrix is used with."""
        names = (self._kind.head["decoder"].removesuffix("weight") + "bias", self._kind.head["bias"])
        return next((name for name in names if self.has(name)), None)

    def tensor(self, key: str) -> Tensor:
        """fp32. The encoder's own names may lack their prefix, as where only the encoder was saved."""
        for candidate in (key, key.removeprefix(self._kind.prefix)):
            if candidate in self._stored:
                return self._get(self._stored[candidate]).float()
        raise ArtefactDamagedError(f"the weights of {self._name!r} lack the tensor {key!r}: they are not of its config")

    def weights(self, shape: TextShape, chosen: list[int] | None, mask: int, special: int, random: bool) -> TextWeights:
        kind = self._kind
        embeddings = kind.prefix + kind.embeddings
        rows = self.tensor(embeddings + "word_embeddings.weight")
        ids = list(range(len(rows))) if chosen is None else chosen
        if max([*ids, mask]) >= len(rows):
            raise ArtefactDamagedError(
                f"the tokenizer of {self._name!r} has the token {max([*ids, mask])}, its table has {len(rows)} rows: "
                "they do not belong together"
            )
        if rows.ndim != 2 or rows.shape[1] != shape.width:
            raise ArtefactDamagedError(
                f"the table of {self._name!r} is {list(rows.shape)}, and its config says a width of {shape.width}: "
                "they do not belong together"
            )
        table = rows[ids].clone()
        if random:
            return TextWeights(table, None)
        positions = self.tensor(embeddings + "position_embeddings.weight")[special:]
        if kind.types:  # all words are of the first type, so that its vector belongs to every place
            positions = positions + self.tensor(embeddings + "token_type_embeddings.weight")[0]
        tensors = {"positions": positions.clone(), "mask": rows[mask].clone()}
        for part in ("weight", "bias"):
            tensors[f"norm.{part}"] = self.tensor(f"{embeddings}LayerNorm.{part}")
            for index in range(shape.layers):
                for ours, theirs in kind.parts.items():
                    key = kind.prefix + kind.layer.format(index) + theirs
                    tensors[f"layers.{index}.{ours}.{part}"] = self.tensor(f"{key}.{part}")
        if shape.head:
            for part in ("weight", "bias"):
                tensors[f"head.dense.{part}"] = self.tensor(f"{kind.head['dense']}.{part}")
                tensors[f"head.norm.{part}"] = self.tensor(f"{kind.head['norm']}.{part}")
            tensors["head.bias"] = self.tensor(self.head_bias or kind.head["bias"])[ids]
            if not shape.tied:
                tensors["head.decoder"] = self.tensor(kind.head["decoder"])[ids]
        return TextWeights(table, tensors)


def _shape(name: str, kind: _Kind, config: Mapping[str, Any], read: _Reading) -> TextShape:
    """What config.json says, and whether the weights have the head."""
    missing = [key for key in (*kind.keys, "max_position_embeddings") if key not in config]
    if missing:
        raise ArtefactDamagedError(f"the config of {name!r} lacks {', '.join(missing)}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UsageError(
            f"{name!r} has positions of type {config['position_embedding_type']!r}; only 'absolute' ones are known here"
        )
    width, layers, heads, inner, activation = (config[key] for key in kind.keys)
    known = ["gelu"] if kind is _ROBERTA_KIND else list(_ACTIVATIONS)  # RoBERTa's head always has GELU
    if activation not in known:
        raise UsageError(f"{name!r} has the activation {activation!r}; known are {', '.join(known)}")
    return TextShape(
        width,
        layers,
        heads,
        inner,
        _stated(config, "max_position_embeddings") - kind.special(config),
        _ACTIVATIONS[activation],
        float(_stated(config, "layer_norm_eps", 1e-12, float)),
        head=read.head_bias is not None and read.has(kind.head["dense"] + ".weight"),
        tied=bool(config.get("tie_word_embeddings", True)) or not read.has(kind.head["decoder"]),
    )


def _stated(config: Mapping[str, Any], key: str, default: Any = None, kind: type[int] | type[float] = int) -> Any:
    """A number of config.json. Raises ArtefactDamagedError where it is none."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        expected = "a whole number" if kind is int else "a number"
        raise ArtefactDamagedError(f"the text encoder's config says {key} {value!r}; {expected} belongs there")
    return value


def _from_thin_air(known: _Known, layers: int | None, words: Sequence[str] | None) -> tuple[TextShape, TextWeights]:
    """Random words: where no file is had, not even the table is."""
    rows = known.vocabulary if words is None else len(words)
    return known.shape.first(layers), TextWeights(0.02 * torch.randn(rows, known.shape.width), None)


def _modern(key: str) -> str:
    """The name a tensor has since TensorFlow's names of layer norms went out of use."""
    return re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", key)) if "LayerNorm" in key else key


def _file(source: str, name: str) -> Path:
    """A file of a folder, of the installed MiniLM or of a hub model. Raises ArtefactNotFoundError."""
    folder = minilm_folder() if source == MINILM else Path(source)
    if folder.is_dir():
        if (folder / name).is_file():
            return folder / name
        raise ArtefactNotFoundError(f"{str(folder)!r} is no model folder that transformers saved: it has no {name}")
    if not _HUB_NAME.fullmatch(source):
        raise ArtefactNotFoundError(f"there is no folder {source!r}; name one that transformers saved, or {MINILM!r}")
    try:
        from transformers.utils.hub import cached_file
    except ImportError as error:
        raise MissingExtraError("a masked language model by its hub name (transformers)", "train") from error
    find: Any = cached_file
    try:
        return Path(find(source, name))
    except (OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtefactNotFoundError(
            f"no masked language model {source!r}: give a folder that transformers saved, {MINILM!r}, or a hub name "
            f"that can be downloaded ({lines[0]})"
        ) from error


def _weights_file(source: str) -> Path:
    folder = Path(source)
    pickled = [name for name in _PICKLES if (folder / name).is_file()]
    if pickled and not (folder / WEIGHTS_FILE).is_file():
        raise UsageError(
            f"{source!r} holds its weights as {pickled[0]}, a pickle, which can run code when it is opened; convert it "
            "once, where you trust it: AutoModelForMaskedLM.from_pretrained(FOLDER).save_pretrained(OUT)"
        )
    return _file(source, WEIGHTS_FILE)


def single_pieces(source: str | os.PathLike[str], words: Sequence[str]) -> dict[str, int]:
    """Those of the words that are a single piece of a model's tokenizer, and its token.

    source, errors: as of ``MaskedTextEncoder.load``.
    """
    return {word: ids[0] for word, ids in _tokens(os.fspath(source), words)[0] if len(ids) == 1}


def piece_names(source: str | os.PathLike[str]) -> dict[int, str]:
    """What a model's tokenizer calls each of its tokens, by number: pieces as it spells them (RoBERTa's begin with "Ġ"
    after a space, BERT's continuations with "##"), special ones too.

    source, errors: as of ``MaskedTextEncoder.load``.
    """
    return {int(number): str(piece) for piece, number in _tokenizer(os.fspath(source)).get_vocab().items()}


def _pieces(source: str, words: Sequence[str] | None) -> tuple[list[int] | None, int]:
    """The token of each word (None is all rows, as they are), and the mask's."""
    if words is not None and not words:
        raise VocabularyError("words must hold one word or more")
    found, mask = _tokens(source, words or ())
    if words is None:
        return None, mask
    bad = [word for word, ids in found if len(ids) != 1]
    if bad:
        raise VocabularyError(
            f"{len(bad)} of {len(words)} words are no single piece of the tokenizer of {source!r}: "
            f"{', '.join(map(repr, bad[:_SHOWN]))}{' ...' if len(bad) > _SHOWN else ''}; leave them out"
        )
    return [ids[0] for _, ids in found], mask


def _tokens(source: str, words: Sequence[str]) -> tuple[list[tuple[str, list[int]]], int]:
    """The tokens of each word, none where one of them is unknown, and the mask's.

    A word is looked up as it stands in a text, with a space before it, which BERT's tokenizers drop and RoBERTa's keep.
    """
    tokenizer = _tokenizer(source)
    mask = int(tokenizer.mask_token_id)
    if not words:
        return [], mask
    found = tokenizer([f" {word}" for word in words], add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    unknown = tokenizer.unk_token_id
    return [
        (word, [] if unknown in ids else [int(token) for token in ids]) for word, ids in zip(words, found, strict=True)
    ], mask


def _tokenizer(source: str) -> Any:
    """The tokenizer of a masked language model. Raises ArtefactNotFoundError, UsageError, MissingExtraError."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("the words of a masked language model (transformers)", "train") from error
    place = str(minilm_folder()) if source == MINILM else source
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(place, local_files_only=Path(place).is_dir())
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtefactNotFoundError(f"{source!r} has no tokenizer that transformers can read ({lines[0]})") from error
    if tokenizer.mask_token_id is None:
        raise UsageError(f"the tokenizer of {source!r} has no mask token: it is not that of a masked language model")
    return tokenizer
