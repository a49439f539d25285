"""Where the vectors of words can come from: an LLM's input embeddings, or a service that embeds texts.

Knows: how words are looked up in a GGUF file, a transformers model and an embeddings endpoint.
Refuses to know: what is made of the vectors (``exporters/word_codebook.py``), which words there are.

An LLM's own vector of a word is the row of its input embedding for the token " word", with its leading space, as the
word stands in a text. A word of several tokens has no such row: it is refused, or gets the mean of its tokens' rows.
The mean is a compromise: an LLM reads several tokens, not their mean, and an image's words then cost more tokens.

Only the rows asked for are read from a GGUF file, so a large model needs little memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from icl_vision.errors import ArtefactNotFoundError, LLMResponseError, MissingExtraError, UsageError, VocabularyError

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    from icl_vision.portable import WordTokenizer

    Vectors = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

Several = Literal["refuse", "mean"]

LOCAL_USE = (
    "Made from the weights of the model named under 'provenance': for use on this machine. Pass it on only where that "
    "model's licence allows it."
)

_INPUT_EMBEDDINGS = "token_embd.weight"


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Vectors of words, and what a card says about them.

    vectors: float32 [T, D], row t for word t, finite, as the source has them (not normalised). several: how many words
    are the mean of several tokens. provenance, licence, use: for the card.
    """

    vectors: Vectors
    provenance: dict[str, Any]
    licence: str
    several: int = 0
    use: str = ""


def gguf_vectors(
    path: str | os.PathLike[str],
    words: Sequence[str],
    *,
    several: Several = "refuse",
    tokenizer: WordTokenizer | None = None,
) -> WordVectors:
    """The input embeddings of words from a GGUF file of any type that the package ``gguf`` can dequantise.

    Args:
        path: the GGUF file.
        words: T words.
        several: what becomes of words of several tokens: "refuse" or "mean".
        tokenizer: the file's; None applies it through llama.cpp, which loads the whole model once.

    Raises:
        ArtefactNotFoundError: no such file.
        LLMUnavailableError: not a GGUF file, or a damaged one.
        MissingExtraError: ``gguf`` (or, without a tokenizer, ``xllamacpp``) is not installed.
        UsageError: the file has no input embeddings, or of a type that cannot be dequantised.
        VocabularyError: words of several tokens, with "refuse".
    """
    from icl_vision.files.storage import sha256_file
    from icl_vision.llms.local.gguf import read_info
    from icl_vision.portable import GGUFTokenizer

    file = Path(path)
    if not file.is_file():
        raise ArtefactNotFoundError(f"there is no GGUF file {str(file)!r}")
    info = read_info(file)
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("reading a GGUF file's weights (gguf)", "train") from error
    reader = gguf.GGUFReader(str(file))
    tensor = next((entry for entry in reader.tensors if entry.name == _INPUT_EMBEDDINGS), None)
    if tensor is None:
        raise UsageError(f"the GGUF file {file.name!r} has no tensor {_INPUT_EMBEDDINGS!r}; name that of a text LLM")
    kind = tensor.tensor_type

    def rows(ids: list[int]) -> Vectors:
        try:
            rows = gguf.quants.dequantize(np.ascontiguousarray(tensor.data[ids]), kind)
        except NotImplementedError as error:
            raise UsageError(
                f"the input embeddings of {file.name!r} are stored as {kind.name}, which the installed package gguf "
                "cannot dequantise; take a file of another type (F16, Q8_0, Q6_K ...)"
            ) from error
        return np.asarray(rows, dtype=np.float32)

    if tokenizer is None:
        with GGUFTokenizer(file) as own:
            pieces = _pieces(words, own.encode, several, file.name)
    else:
        pieces = _pieces(words, tokenizer.encode, several, file.name)
    licence = reader.get_field("general.license")
    return WordVectors(
        _mean_rows(pieces, rows, len(tensor.data), file.name),
        {"gguf": file.name, "model": info.name, "sha256": sha256_file(file), "stored_as": kind.name},
        str(licence.contents()) if licence is not None else "unknown",
        sum(len(word) > 1 for word in pieces),
        LOCAL_USE,
    )


def transformers_vectors(model: str, words: Sequence[str], *, several: Several = "refuse") -> WordVectors:
    """The input embeddings of words from a transformers model.

    Args:
        model: a folder that transformers saved (model and tokenizer), or a hub name, which transformers downloads.
        words, several: as for ``gguf_vectors``.

    Raises:
        MissingExtraError: transformers is not installed.
        ArtefactNotFoundError: no such folder, and nothing of that name that transformers can reach.
        VocabularyError: words of several tokens, with "refuse", or that the tokenizer does not know.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("a transformers model's embeddings (transformers)", "train") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        network: Any = AutoModel.from_pretrained(model, dtype="auto")
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtefactNotFoundError(
            f"no transformers model {model!r}: give a folder that transformers saved (model and tokenizer) or a hub "
            f"name that can be downloaded ({lines[0]})"
        ) from error
    weight = network.get_input_embeddings().weight.detach()
    name = Path(model).name
    pieces = _pieces(
        words,
        lambda text: list(tokenizer.encode(text, add_special_tokens=False)),
        several,
        name,
        unknown=tokenizer.unk_token_id,
    )
    return WordVectors(
        _mean_rows(pieces, lambda ids: np.asarray(weight[ids].float().cpu().numpy()), len(weight), name),
        {"transformers": name, "model_type": str(network.config.model_type), "stored_as": str(weight.dtype)},
        "unknown",
        sum(len(word) > 1 for word in pieces),
        LOCAL_USE,
    )


def embedding_vectors(
    model: str,
    words: Sequence[str],
    *,
    url: str | None = None,
    template: str = "{}",
    batch_size: int = 512,
    **options: Any,
) -> WordVectors:
    """The embeddings of words by an OpenAI-like embeddings endpoint, asked in batches.

    Args:
        model: its name for the provider.
        words: T words.
        url: a server's address up to and with the version; None is OpenAI's own (or OPENAI_BASE_URL). A server of
            one's own gets the key OPENAI_COMPATIBLE_API_KEY, OpenAI gets OPENAI_API_KEY; no key is ever shown.
        template: the text that is embedded, one ``{}`` standing for the word.
        batch_size: words a request, 1 to 2,048 (what OpenAI takes at most).
        options: ``api_key`` and the options of ``llms.remote.Transport`` (attempts, concurrency ...).

    Raises:
        UsageError: a template without ``{}``, a batch size out of range, a URL that is none.
        LLMError: the endpoint cannot be reached, refuses, or answers in another form.
    """
    from icl_vision.llms.loop import run_sync
    from icl_vision.llms.redaction import shown_url
    from icl_vision.llms.remote.openai.compatible import OpenAICompatibleLLM
    from icl_vision.llms.remote.openai.llm import OpenAILLM

    if template.count("{}") != 1:
        raise UsageError(f"template must hold one {{}} where the word goes; got {template!r}")
    if not 1 <= batch_size <= 2048:
        raise UsageError(f"batch_size must be 1 to 2048 words a request; got {batch_size}")
    llm = OpenAILLM(model, **options) if url is None else OpenAICompatibleLLM(model, url, **options)
    texts = [template.replace("{}", word) for word in words]

    async def ask(batch: list[str]) -> Vectors:
        async def attempt(client: Any) -> Vectors:
            # "float": not every server knows the SDK's default, base64. Raw: the SDK would pass on any JSON as it is.
            request = client.embeddings.with_raw_response.create
            answer = await request(model=model, input=batch, encoding_format="float")
            return _embeddings(bytes(answer.content), len(batch), llm.profile.name)

        return await llm.call(attempt)

    async def everything() -> list[Vectors]:
        starts = range(0, len(texts), batch_size)
        return list(await asyncio.gather(*(ask(texts[start : start + batch_size]) for start in starts)))

    with llm:
        parts = run_sync(everything())
    widths = {part.shape[1] for part in parts}
    if len(widths) != 1:
        raise LLMResponseError(f"{llm.profile.name!r} gave vectors of several lengths: {sorted(widths)}")
    logger.info("embedded %d words in %d requests with %s", len(words), len(parts), model)
    where = "" if url is None else shown_url(url)
    return WordVectors(
        np.concatenate(parts),
        {"embeddings": model, "template": template} | ({"server": where} if where else {}),
        "unknown",
        use="Made by an embeddings service: its terms say what may be done with the vectors.",
    )


def sentence_vectors(words: Sequence[str], *, template: str = "{}", embedder: Any = None) -> WordVectors:
    """The sentence embeddings of words by all-MiniLM-L6-v2, as in the packaged codebook.

    Args:
        words: T words.
        template: the text that is embedded, ``{}`` standing for the word.
        embedder: a ``SentenceEmbedder``; None takes the installed model.
    """
    from icl_vision.files.storage import sha256_file
    from icl_vision.models.words.text_embedding import MINILM_NAME, SentenceEmbedder

    embedder = embedder or SentenceEmbedder()
    provenance = {
        "sentence_model": MINILM_NAME,
        "model_sha256": sha256_file(embedder.folder / "model.safetensors"),
        "template": template,
    }
    return WordVectors(embedder.embed(words, template=template), provenance, "Apache-2.0")


def _pieces(
    words: Sequence[str],
    encode: Callable[[str], list[int]],
    several: Several,
    name: str,
    *,
    unknown: int | None = None,
) -> list[list[int]]:
    """The token ids of " word" for each word; VocabularyError where that is not allowed."""
    if several not in ("refuse", "mean"):
        raise UsageError(f"several must be 'refuse' or 'mean'; got {several!r}")
    pieces = [encode(" " + word) for word in words]
    lost = [word for word, ids in zip(words, pieces, strict=True) if not ids or unknown in ids]
    if lost:
        raise VocabularyError(
            f"{len(lost)} of {len(words)} words are unknown to the tokenizer of {name!r}: {_some(lost)}; leave them out"
        )
    split = [word for word, ids in zip(words, pieces, strict=True) if len(ids) > 1]
    if split and several == "refuse":
        raise VocabularyError(
            f"{len(split)} of {len(words)} words are several tokens for {name!r}: {_some(split)}; leave them out, or "
            "allow the mean of their tokens' vectors (--several-tokens mean)"
        )
    return pieces


def _some(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:8])) + (" ..." if len(words) > 8 else "")


def _mean_rows(pieces: Iterable[Sequence[int]], rows: Callable[[list[int]], Vectors], count: int, name: str) -> Vectors:
    """The mean of each word's rows, float32 [T, D]."""
    pieces = list(pieces)
    flat = [place for ids in pieces for place in ids]
    if max(flat) >= count:
        raise UsageError(
            f"the tokenizer of {name!r} has the token {max(flat)}, its input embedding has {count} rows only; "
            "tokenizer and model do not belong together"
        )
    starts = np.cumsum([0, *(len(ids) for ids in pieces[:-1])])
    lengths = np.array([[len(ids)] for ids in pieces], dtype=np.float32)
    return np.asarray(np.add.reduceat(rows(flat), starts, axis=0) / lengths, dtype=np.float32)


def _embeddings(content: bytes, count: int, name: str) -> Vectors:
    """The vectors of an answer's body in the order asked, whatever order they came in."""
    rows = 0
    vectors: Vectors = np.zeros((0, 0), dtype=np.float32)
    # What is not as it should be is told below: an exception's context would keep the body, with whatever it holds.
    with contextlib.suppress(KeyError, ValueError, TypeError, OverflowError, RecursionError):
        data = json.loads(content)["data"]
        by_index = {int(entry["index"]): entry["embedding"] for entry in data}
        vectors, rows = np.array([by_index[index] for index in range(count)], dtype=np.float32), len(data)
    if vectors.ndim != 2 or vectors.shape[1] < 1 or rows != count:
        raise LLMResponseError(f"{name!r} did not answer with one vector for each of {count} texts")
    if not np.isfinite(vectors).all():
        raise LLMResponseError(f"{name!r} answered with vectors that hold NaN or infinity")
    return vectors
