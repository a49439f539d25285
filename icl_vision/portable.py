"""Words that cost exactly one token in several LLMs at once, and the proof that they survive the way there and back.

Knows: LLM tokenizers, behind one small protocol, and what "portable" means: the
word with its leading space is ONE token wherever it is encoded. Being listed in a
tokenizer's vocabulary is not enough (its merges may never reach the entry), so
every word is really encoded. Refuses to know: which words are good
(``screening.py``) and what they mean (``codebook.py``).
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from icl_vision.errors import (
    ArtefactNotFoundError,
    MissingExtraError,
    RoundTripError,
    UnknownWordError,
    UsageError,
    VocabularyError,
)
from icl_vision.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

_LINE_WORDS = 50
_PROPOSAL = re.compile(r" [a-z]+")


@runtime_checkable
class WordTokenizer(Protocol):
    """An LLM's tokenizer, as far as portable words need it. No markers (BOS ...) are added or expected."""

    @property
    def name(self) -> str:
        """For messages and cards."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; text that looks like a control token is plain text too."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids. A leading space may be lost (some tokenizers drop it)."""

    def pieces(self) -> list[str]:
        """The text of every vocabulary entry that is text on its own, leading space as a space; any order."""


class BPETokenizer:
    """A byte-pair encoding as ``tiktoken`` and ``bpe_openai`` offer it.

    Args:
        encoding: an encoding object with ``encode_ordinary`` and ``decode``, or a name such as "o200k_base".
            A name is looked up in ``bpe_openai`` first, which holds its vocabularies and needs no network.

    Raises:
        UsageError: neither package knows the name.
    """

    def __init__(self, encoding: Any) -> None:
        self._encoding = _encoding(encoding) if isinstance(encoding, str) else encoding
        self.name = str(self._encoding.name)

    def encode(self, text: str) -> list[int]:
        return list(self._encoding.encode_ordinary(text))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._encoding.decode(list(ids)))

    def pieces(self) -> list[str]:
        return [text for value in self._encoding.token_byte_values() if (text := _text(bytes(value))) is not None]


class TransformersTokenizer:
    """A transformers tokenizer: a local folder (or an object that ``AutoTokenizer`` returned).

    Raises:
        MissingExtraError: transformers is not installed.
        ArtefactNotFoundError: no such folder. Nothing is downloaded.
    """

    def __init__(self, tokenizer: Any, *, name: str | None = None) -> None:
        if isinstance(tokenizer, str | os.PathLike):
            folder = Path(tokenizer)
            if not folder.is_dir():
                raise ArtefactNotFoundError(f"there is no tokenizer folder {str(folder)!r}")
            try:
                from transformers import AutoTokenizer
            except ImportError as error:
                raise MissingExtraError("transformers tokenizers", "train") from error
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            name = name or folder.name
        self._tokenizer = tokenizer
        self.name = name or Path(str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)).name

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def pieces(self) -> list[str]:
        # Only entries of letters matter here, and those are spelled alike in every byte or piece alphabet.
        return [_spaced(entry) for entry in self._tokenizer.get_vocab()]


class GGUFTokenizer:
    """The tokenizer of a GGUF file, as llama.cpp itself applies it (through ``xllamacpp``, on the loopback interface).

    The whole model is loaded, once, at the first ``encode``; use it as a context manager, or call ``close``.

    Args:
        path: the GGUF file.
        name: for messages and cards; None takes the file's name.

    Raises:
        ArtefactNotFoundError: no such file.
        MissingExtraError: at first use, when ``xllamacpp`` (encode, decode) or ``gguf`` (pieces) is missing.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ArtefactNotFoundError(f"there is no GGUF file {str(self.path)!r}")
        self.name = name or self.path.stem
        self._server: Any = None
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> GGUFTokenizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server. The next ``encode`` starts another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._server = None

    def encode(self, text: str) -> list[int]:
        answer = self._ask("/tokenize", {"content": text, "add_special": False, "parse_special": False})
        return [int(token) for token in answer["tokens"]]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._ask("/detokenize", {"tokens": [int(token) for token in ids]})["content"])

    def pieces(self) -> list[str]:
        try:
            import gguf
        except ImportError as error:
            raise MissingExtraError("reading a GGUF vocabulary (gguf)", "train") from error
        field = gguf.GGUFReader(str(self.path)).get_field("tokenizer.ggml.tokens")
        if field is None:
            raise VocabularyError(f"the GGUF file {str(self.path)!r} holds no tokenizer vocabulary")
        entries = (bytes(field.parts[place]).decode("utf-8", errors="replace") for place in field.data)
        return [_spaced(entry) for entry in entries]

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body)
        try:
            response, answer = self._post(path, data)
        except (http.client.HTTPException, ConnectionError):
            # The server hangs up on a connection that was idle for some seconds: once more, on a fresh one.
            if self._connection is not None:
                self._connection.close()
            response, answer = self._post(path, data)
        if response.status != 200:
            raise VocabularyError(
                f"llama.cpp refused {path} for {self.path.name!r} with status {response.status}: {answer[:200]!r}"
            )
        return json.loads(answer)

    def _post(self, path: str, data: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connect()
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response, response.read()

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            try:
                import xllamacpp
            except ImportError as error:
                raise MissingExtraError("applying a GGUF file's tokenizer (xllamacpp)", "local") from error
            params = xllamacpp.CommonParams()
            params.model.path = str(self.path)
            # Nothing is ever generated: the smallest context, no warm-up run.
            params.n_ctx, params.n_parallel, params.verbosity, params.warmup = 256, 1, -1, False
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
            started = time.monotonic()
            self._server = xllamacpp.Server(params)
            logger.info("loaded the tokenizer of %s in %.1f s", self.path.name, time.monotonic() - started)
            address = urlsplit(self._server.listening_address)
            self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        return self._connection


def is_single_token(word: str, tokenizer: WordTokenizer) -> bool:
    """Whether " word" is one token of this tokenizer and that token reads back as the word."""
    ids = tokenizer.encode(" " + word)
    return len(ids) == 1 and tokenizer.decode(ids).strip() == word


def portable_words(tokenizers: Sequence[WordTokenizer], *, candidates: Iterable[str] | None = None) -> list[str]:
    """The words that are one token, with their leading space, in every tokenizer given; sorted.

    Args:
        tokenizers: one or more.
        candidates: the words to try; None takes every lower-case a-z word that the first tokenizer's vocabulary
            lists with a leading space (put the tokenizer with the smallest vocabulary first: it is quickest).

    Raises:
        UsageError: no tokenizer.
        VocabularyError: no word is portable.
    """
    if not tokenizers:
        raise UsageError("portable words need at least one tokenizer; got none")
    if candidates is None:
        candidates = (piece[1:] for piece in tokenizers[0].pieces() if _PROPOSAL.fullmatch(piece))
    words = sorted(set(candidates))
    for tokenizer in tokenizers:
        tried = len(words)
        words = [word for word in words if is_single_token(word, tokenizer)]
        logger.info("%s: %d of %d words are one token", tokenizer.name, len(words), tried)
    if not words:
        names = ", ".join(tokenizer.name for tokenizer in tokenizers)
        raise VocabularyError(f"no word is a single token in all of {names}; check the candidates and the tokenizers")
    return words


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What :func:`prove_round_trip` proved: so many words, on so many lines, became so many tokens and came back."""

    tokenizer: str
    separator: str
    words: int
    lines: int
    tokens: int

    @property
    def tokens_per_word(self) -> float:
        return self.tokens / self.words

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for cards."""
        return asdict(self) | {"tokens_per_word": self.tokens_per_word}


def prove_round_trip(
    vocabulary: Vocabulary,
    tokenizer: WordTokenizer,
    *,
    separator: str = " ",
    sample: int | None = None,
    seed: int = 0,
) -> RoundTrip:
    """Prove that lines of words pass through an LLM's tokenizer without loss.

    Words are drawn without repetition, in random order, onto lines of 50. Each line (with a leading space)
    must decode to the same words and, when the separator is one space, cost exactly one token a word.

    Args:
        vocabulary: whose words are tried.
        tokenizer: the LLM's.
        separator: what stands between two words in a prompt.
        sample: how many words to try, chosen by ``seed``; None tries all of them.
        seed: of the order (and of the sample).

    Raises:
        RoundTripError: names the first word that breaks.
        UsageError: ``sample`` is not between 1 and the number of words.
    """
    count = len(vocabulary) if sample is None else sample
    if not 1 <= count <= len(vocabulary):
        raise UsageError(f"sample must be 1 to {len(vocabulary)}, the number of words; got {sample}")
    order = random.Random(seed).sample(range(len(vocabulary)), count)
    tokens = lines = 0
    for start in range(0, count, _LINE_WORDS):
        line = order[start : start + _LINE_WORDS]
        spent = _line_cost(vocabulary, tokenizer, line, separator)
        if spent is None:
            raise RoundTripError(_first_offence(vocabulary, tokenizer, line, separator))
        tokens += spent
        lines += 1
    return RoundTrip(tokenizer.name, separator, count, lines, tokens)


def _line_cost(vocabulary: Vocabulary, tokenizer: WordTokenizer, line: Sequence[int], separator: str) -> int | None:
    """Tokens of a line of words, or None where the line does not pass."""
    encoded = tokenizer.encode(" " + vocabulary.to_text(line, separator=separator))
    if separator == " " and len(encoded) != len(line):
        return None
    try:
        same = vocabulary.from_text(tokenizer.decode(encoded), separator=separator).tolist() == list(line)
    except UnknownWordError:
        return None
    return len(encoded) if same else None


def _first_offence(vocabulary: Vocabulary, tokenizer: WordTokenizer, line: Sequence[int], separator: str) -> str:
    """Grow a line that does not pass word by word; the message names the word at which it breaks."""
    for length in range(1, len(line) + 1):
        if _line_cost(vocabulary, tokenizer, line[:length], separator) is None:
            break
    word = vocabulary.word(line[length - 1])
    ids = tokenizer.encode(" " + vocabulary.to_text(line[:length], separator=separator))
    return (
        f"{word!r} does not survive {tokenizer.name}: {length} words became {len(ids)} tokens and came back as "
        f"{tokenizer.decode(ids)[-60:]!r}; leave the word out of the vocabulary or choose another separator"
    )


def _encoding(name: str) -> Any:
    problems = []
    for module in ("bpe_openai", "tiktoken"):
        try:
            package = __import__(module)
        except ImportError:
            problems.append(f"{module} is not installed")
            continue
        try:
            return package.get_encoding(name)
        # Both raise their own errors for unknown names, tiktoken also network errors: the message says which.
        except Exception as error:
            problems.append(f"{module}: {error}")
    raise UsageError(f"no encoding {name!r} can be had offline ({'; '.join(problems)})")


def _text(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _spaced(entry: str) -> str:
    """A vocabulary entry with its leading-space sign (sentencepiece or byte-level BPE) as a space."""
    return " " + entry[1:] if entry[:1] in ("\u2581", "\u0120") else entry
