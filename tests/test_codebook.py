"""Codebook: folder, checks, projection, nearest words; and the packaged one."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from icl_vision.codebook import CODEBOOK_FILE, DEFAULT_CODEBOOK, Codebook, normalise, packaged_codebooks
from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.files.storage import sha256_file
from icl_vision.screening import screen
from icl_vision.vocabulary import Vocabulary


def small(projected=True, words=6, source=8, dimension=3):
    generator = np.random.default_rng(0)
    projection = np.linalg.qr(generator.normal(size=(source, dimension)))[0].astype(np.float32)
    vectors = normalise(generator.normal(size=(words, dimension)).astype(np.float32))
    extra = (projection, np.full(source, 0.1, np.float32)) if projected else ()
    return Codebook(Vocabulary([f"w{i}" for i in range(words)]), vectors, *extra, name="small")


def test_save_and_load(tmp_path):
    book = small()
    saved = book.save(tmp_path / "book", card={"licence": "CC0", "size": 1})
    assert sorted(path.name for path in (tmp_path / "book").iterdir()) == [
        "card.json",
        "codebook.safetensors",
        "words.txt",
    ]
    loaded = Codebook.load(tmp_path / "book")
    assert loaded.vocabulary == book.vocabulary and loaded.name == "small" and len(loaded) == 6
    assert loaded.vectors.dtype == np.float32 and np.array_equal(loaded.vectors, saved.vectors)
    np.testing.assert_array_equal(loaded.vectors, book.vectors.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(loaded.projection, book.projection)
    assert loaded.hash == sha256_file(tmp_path / "book" / CODEBOOK_FILE) == loaded.card["codebook_hash"]
    assert loaded.card["licence"] == "CC0" and loaded.card["size"] == 6
    assert load_file(tmp_path / "book" / CODEBOOK_FILE)["codebook"].dtype == np.float16
    assert Vocabulary.load(tmp_path / "book") == book.vocabulary
    assert "words=6" in repr(loaded) and loaded.dimension == 3 and loaded.source_dimension == 8
    assert book.save(tmp_path / "book").hash == loaded.hash  # the same bytes again


def test_read_only_and_own_copy():
    vectors = np.ones((2, 2), np.float32)
    book = Codebook(Vocabulary(["a", "b"]), vectors)
    vectors[:] = 7
    assert book.vectors.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        book.vectors[0] = 0
    with pytest.raises(AttributeError):
        book.name = "other"


def test_project():
    book = small()
    given = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    expected = normalise((given - 0.1) @ book.projection)
    np.testing.assert_allclose(book.project(given), expected, atol=1e-6)
    np.testing.assert_allclose(book.project(given[0]), expected[0], atol=1e-6)
    assert book.project(given).dtype == np.float32
    plain = small(projected=False)
    np.testing.assert_allclose(np.linalg.norm(plain.project(given[:, :3] * 5), axis=1), 1, atol=1e-6)
    assert plain.project(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_nearest_agrees_with_a_full_sort(chunk):
    book = small(words=50)
    queries = np.random.default_rng(2).normal(size=(10, 3)).astype(np.float32)
    ids, similarities = book.nearest(queries, 7, chunk=chunk)
    full = normalise(queries) @ book.vectors.T
    expected = np.argsort(-full, axis=1, kind="stable")[:, :7]
    assert ids.dtype == np.int32 and similarities.dtype == np.float32
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(similarities, np.take_along_axis(full, expected, axis=1), atol=1e-6)
    assert book.nearest(queries[0], 1)[0].shape == (1, 1)
    assert book.nearest(queries, 50)[0].shape == (10, 50)


def test_nearest_keeps_ties_in_id_order():
    book = Codebook(Vocabulary(list("abcd")), np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32))
    assert book.nearest(np.array([[2.0, 0.0]]), 2)[0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda book: book.nearest(np.ones((1, 3)), 0), "k must be 1 to 6, the number of words; got 0"),
        (lambda book: book.nearest(np.ones((1, 3)), 7), "k must be 1 to 6"),
        (lambda book: book.nearest(np.ones((1, 3)), 1, chunk=0), "chunk must be 1 or more; got 0"),
        (lambda book: book.nearest(np.ones((1, 8)), 1), r"\[N, 3\], of the codebook's space; got shape \[1, 8\]"),
        (lambda book: book.nearest(np.array([[1, 2, np.nan]])), "must be finite"),
        (lambda book: book.project(np.ones((1, 3))), r"\[N, 8\], of the source space; got shape \[1, 3\]"),
        (lambda book: Codebook(book.vocabulary, np.ones((5, 3))), r"got shape \[5, 3\] for 6 words"),
        (lambda book: Codebook(book.vocabulary, np.full((6, 3), np.inf)), "vectors must be finite"),
        (lambda book: Codebook(book.vocabulary, book.vectors, book.projection), "belong together"),
        (
            lambda book: Codebook(book.vocabulary, book.vectors, np.ones((8, 2)), np.ones(8)),
            r"projection must be \[D, 3\] and mean \[D\]: got \[8, 2\] and \[8\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UsageError, match=message):
        call(small())


def _rewrite(folder, tensors):
    """Another, well-formed tensor file with a card that agrees with it."""
    save_file(tensors, folder / CODEBOOK_FILE)
    card = json.loads((folder / "card.json").read_text())
    card["codebook_hash"] = sha256_file(folder / CODEBOOK_FILE)
    (folder / "card.json").write_text(json.dumps(card))


def _damage(folder, kind):
    file = folder / CODEBOOK_FILE
    if kind == "no tensors":
        file.unlink()
    elif kind == "flipped":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    elif kind == "not safetensors":
        file.write_bytes(b"junk")
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | {"codebook_hash": sha256_file(file)}))
    elif kind == "other name":
        _rewrite(folder, {"vectors": np.ones((6, 3), np.float16)})
    elif kind == "other shape":
        _rewrite(folder, {"codebook": np.ones((5, 3), np.float16)})
    elif kind == "not finite":
        _rewrite(folder, {"codebook": np.full((6, 3), np.nan, np.float16)})
    elif kind == "other words":
        (folder / "words.txt").write_text("a\nb\n")
    elif kind == "no card":
        (folder / "card.json").unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no tensors", "has no codebook.safetensors"),
        ("flipped", "codebook.safetensors in .* is not the file its card describes: its sha256 is"),
        ("cut", "is not the file its card describes"),
        ("folder", "codebook.safetensors in .* cannot be read"),
        ("not safetensors", "is not a safetensors file"),
        ("other name", "holds no tensor 'codebook'"),
        ("other shape", r"does not fit its words: .* got shape \[5, 3\] for 6 words"),
        ("not finite", "does not fit its words: vectors must be finite"),
        ("other words", "words.txt in .* is not the list its card describes"),
        ("no card", "has no card.json"),
    ],
)
def test_damage_is_named(tmp_path, kind, message):
    small().save(tmp_path)
    _damage(tmp_path, kind)
    with pytest.raises(ArtefactDamagedError, match=message):
        Codebook.load(tmp_path)


def test_unknown_name():
    with pytest.raises(ArtefactNotFoundError, match=rf"no codebook 'nothing'.*{DEFAULT_CODEBOOK}"):
        Codebook.load("nothing")


def test_bare_vocabulary_is_no_codebook(tmp_path):
    Vocabulary(["a"]).save(tmp_path)
    with pytest.raises(ArtefactDamagedError, match="has no codebook.safetensors"):
        Codebook.load(tmp_path)


# -- the packaged codebook


@pytest.fixture(scope="module")
def packaged():
    return Codebook.load()


def test_packaged_card_and_size(packaged):
    assert DEFAULT_CODEBOOK in packaged_codebooks()
    assert packaged.card["size"] == len(packaged) == len(packaged.vocabulary) > 14_000
    assert packaged.dimension == 128 and packaged.source_dimension == 384
    assert packaged.card["licence"] == "Apache-2.0"
    assert {trip["tokenizer"] for trip in packaged.card["tokenizers"]} == {
        "SmolLM2",
        "o200k_base",
        "cl100k_base",
        "Gemma 3",
    }
    assert all(trip["tokens"] == trip["words"] == len(packaged) for trip in packaged.card["tokenizers"])
    np.testing.assert_allclose(np.linalg.norm(packaged.vectors, axis=1), 1, atol=2e-3)


def test_packaged_words_are_screened_and_describe_pictures(packaged):
    assert screen(packaged.vocabulary.words, english=lambda _: True).kept == packaged.vocabulary.words
    for (
        word
    ) in "dog dogs cat horse bird red blue striped round metal wooden sky grass car guitar pizza grey tv".split():
        assert word in packaged.vocabulary, word
    for junk in "ing tion str divor kwargs numpy".split():
        assert junk not in packaged.vocabulary, junk


def test_packaged_neighbours_make_sense(packaged):
    vocabulary = packaged.vocabulary
    ids, similarities = packaged.nearest(packaged.vectors[vocabulary.ids(["dog", "guitar"])], 6)
    assert [vocabulary.word(row[0]) for row in ids] == ["dog", "guitar"]
    assert {"dogs", "puppy", "canine"} & {vocabulary.word(i) for i in ids[0]}
    assert np.all(np.diff(similarities, axis=1) <= 0)
