"""What OnnxTokenizer says about folders that are not what they should be. A copy of words-photo is damaged in turn."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import icl_vision
from icl_vision.codebook import Codebook
from icl_vision.errors import ArtefactDamagedError, ArtefactError, ArtefactNotFoundError, UsageError
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.parts import whole_graph
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import GraphSession
from icl_vision.vocabulary import Vocabulary, hash_words, read_card

PACKAGED = Path(icl_vision.__file__).parent / "artefacts"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED / "tokenizers/words-photo", tmp_path / "mine"))


def made_whole(folder: Path) -> Path:
    """The folder as it was stored before there were parts: its graph whole, and nothing of parts on its card."""
    card = read_card(folder)
    data = whole_graph(folder, card, "encoder.onnx")
    (folder / "encoder.onnx").write_bytes(data)
    del card["parts"]
    card["files"]["encoder.onnx"] = card.pop("whole")["encoder.onnx"]
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ArtefactDamagedError, match=match):
        OnnxTokenizer(folder)


def test_a_copy_elsewhere_works(folder: Path) -> None:
    assert OnnxTokenizer(folder).vocabulary.words


def test_no_folder_no_card(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFoundError, match="there is no folder"):
        OnnxTokenizer(tmp_path / "none")
    refused(tmp_path, "has no card.json")


def test_missing_changed_and_truncated_files(folder: Path) -> None:
    data = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.onnx").write_bytes(data[:-1000])
    refused(folder, r"encoder.onnx in .* is not the file its card describes: its sha256 is")
    (folder / "encoder.onnx").unlink()
    refused(folder, r"has no encoder.onnx; fetch or build the folder again")
    (folder / "encoder.onnx").write_bytes(data)
    (folder / "classes.txt").write_text("cat\n")
    refused(folder, "classes.txt in .* is not the file its card describes")


def test_a_file_changed_after_it_was_checked(folder: Path) -> None:
    tokenizer = OnnxTokenizer(folder)
    (folder / "encoder.onnx").write_bytes(b"other")
    with pytest.raises(ArtefactDamagedError, match="encoder.onnx was changed since it was checked"):
        _ = tokenizer.provider


def test_files_outside_the_folder_are_refused(folder: Path) -> None:
    edit(folder, lambda card: card["files"].update({"../secret": "0" * 64}))
    refused(folder, "lists '../secret', which is no plain file name")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda card: card.update(kind="decoder"), "its card is of kind 'decoder'"),
        (lambda card: card.update(format_version=99), "has format 99"),
        (lambda card: card.update(opset=99), "its graph has opset 99; this icl-vision reads 13 to 23"),
        (lambda card: card.pop("vocabulary"), "its card lacks vocabulary"),
        (lambda card: card.update(k_max=0), "its card says k_max = 0"),
        (lambda card: card.update(files=[]), "must list encoder.onnx with its sha256"),
        (lambda card: card.update(preprocessing="squash"), "preprocessing must be an object with a size"),
        (lambda card: card["preprocessing"].update(size=10**9), "size must be a whole number from 1 to 4,096"),
        (lambda card: card["preprocessing"].update(resize="pad"), "resize must be one of 'squash', 'crop'; got 'pad'"),
        (lambda card: card["preprocessing"].update(filter="magic"), "filter must be one of 'nearest', 'bilinear'"),
        (lambda card: card["codebook"].update(name="../x"), "must name its codebook and the codebook's hash"),
        (lambda card: card["codebook"].update(name="none"), "no such folder inside or beside it, nor in the package"),
        (lambda card: card["codebook"].update(hash="0" * 64), "'portable-minilm-128' has [0-9a-f]{12}"),
        (lambda card: card.update(vocabulary="0" * 64), "has other words than it was built with"),
    ],
)
def test_cards_that_do_not_fit(folder: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    edit(folder, change)
    refused(folder, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda card: card.update(name=["a"]), "its card's name must be a string of 1 to 200 characters"),
        (lambda card: card.update(name="x" * 10_000), "its card's name must be"),
        (lambda card: card.update(k_max=10**30), "k_max = 1000000.*whole number from 1 to"),
        (lambda card: card.update(default_k=10**30), "default_k = 1000000"),
        (lambda card: card.update(default_k=65), "default_k = 65, which must be a whole number from 1 to 64"),
        (lambda card: card.update(k_max=5.0), "k_max = 5.0"),
        (lambda card: card.update(features=10**18), "features = 10000"),
        (lambda card: card.update(features="many"), "features = 'many'"),
        (lambda card: card.update(opset=[17]), r"its graph has opset \[17\]"),
        (lambda card: card.update(kind={"a": 1}), "its card is of kind {'a': 1}"),
        (lambda card: card.update(vocabulary=5), "has other words"),
        (lambda card: card.update(codebook=[]), "must name its codebook"),
        (lambda card: card["preprocessing"].update(filter=["bilinear"]), "filter must be one of"),
        (lambda card: card["preprocessing"].update(filter={}), "filter must be one of"),
        (lambda card: card["preprocessing"].update(resize=["crop"]), "resize must be"),
        (lambda card: card["preprocessing"].update(size=1e300), "size must be"),
        (lambda card: card["preprocessing"].update(short=10**30, resize="crop"), "needs short"),
        (lambda card: card["files"].update({"a\0b": "0" * 64}), "its path holds a null character"),
        (lambda card: card["files"].update({"\ud800": "0" * 64}), "its path holds a character"),
        (lambda card: card["files"].update({"..": "0" * 64}), "cannot be read|no plain file name"),
        (lambda card: card["files"].update({"": "0" * 64}), "cannot be read|no plain file name"),
        (lambda card: card["files"].update({"encoder.onnx": None}), "the card says None"),
        (lambda card: card.update(format_version=[1]), r"has format \[1\]"),
    ],
)
def test_cards_with_values_that_cannot_be(folder: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    edit(folder, change)
    refused(folder, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[" * 200_000, "is not valid JSON"),
        ('{"a":' * 500 + "1" + "}" * 500, "is not valid JSON .it nests more than 64 levels deep"),
        ('{"name": NaN}', "is not valid JSON .it holds NaN"),
        ('{"kind": "words", "kind": "pyramid"}', "is not valid JSON .it says the key 'kind' twice"),
        ('{"k_max": 1e999}', "is not valid JSON .it holds the number 1e999"),
        ('{"k_max": ' + "9" * 5000 + "}", "is not valid JSON"),
        ("[]", "must hold a JSON object; got list"),
        ("\ud800".encode("utf-8", "surrogatepass"), "is not valid JSON"),
    ],
)
def test_cards_that_are_hardly_json(folder: Path, text: str | bytes, match: str) -> None:
    (folder / "card.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(folder, match)


LAYOUTS: list[tuple[Any, str]] = [
    ([[1, 1]] * 100_000, "a layout may have 256 layers; got 100,000 grids"),
    ([[10**6, 10**6]], "a grid may have 4,194,304 cells; layer 1"),
    ([[1, 10**200]], "a grid may have 4,194,304 cells"),
    ([[1, 1], [1]], "two or three sizes"),
    ([[1, 1.5]], "must be a whole number"),
    ([[1, -1]], "sizes of 1 or more"),
    ([["a", "b"]], "must be a whole number"),
    ([], "at least one layer"),
    ("grids", "must be a sequence of grids"),
    ({"a": 1}, "must be a sequence of grids"),
    (5, "must be a sequence of grids"),
    ([None], "must be"),
]


@pytest.mark.parametrize(("grids", "match"), LAYOUTS)
def test_layouts_that_cannot_be(tmp_path: Path, grids: Any, match: str) -> None:
    folder = Path(shutil.copytree(PACKAGED / "tokenizers/spae-digits-32", tmp_path / "mine"))
    edit(folder, lambda card: card.update(layout={"grids": grids}))
    refused(folder, match)
    if grids:  # (an empty one is the same as none)
        edit(folder, lambda card: card.update(layout={"grids": [[1, 1]], "finest": grids}))
        with pytest.raises(ArtefactDamagedError):
            OnnxTokenizer(folder)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(2**42)


@pytest.mark.parametrize(
    ("put", "match"),
    [
        (pipe, "it is a pipe"),
        (huge, "it has more than"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a link that leads out"),
        (lambda path: path.symlink_to("/etc/passwd"), "it is a link that leads out"),
        (lambda path: path.symlink_to(path), "Too many levels"),
    ],
)
@pytest.mark.parametrize("name", ["card.json", "encoder.onnx", "classes.txt"])
def test_things_in_place_of_files(folder: Path, name: str, put: Callable[[Path], Any], match: str) -> None:
    (folder / name).unlink()
    put(folder / name)
    refused(folder, f"{name} in .* cannot be read .{match}")


@pytest.mark.parametrize(
    ("put", "match"),
    [(pipe, "it is a pipe"), (huge, "it has more than"), (lambda path: path.symlink_to("/etc/passwd"), "leads out")],
)
@pytest.mark.parametrize("name", ["card.json", "words.txt", "codebook.safetensors"])
def test_things_in_place_of_a_codebooks_files(
    tmp_path: Path, name: str, put: Callable[[Path], Any], match: str
) -> None:
    book = Path(shutil.copytree(PACKAGED / "codebooks/portable-minilm-128", tmp_path / "book"))
    (book / name).unlink()
    put(book / name)
    with pytest.raises(ArtefactDamagedError, match=f"{name} in .* cannot be read .*{match}"):
        Codebook.load(book)


@pytest.mark.parametrize("words", ["a b", "", "x" * 1000, "a\u200bb"])
def test_words_that_cannot_be_though_their_hash_is_right(tmp_path: Path, words: str) -> None:
    book = Path(shutil.copytree(PACKAGED / "codebooks/portable-minilm-128", tmp_path / "book"))
    (book / "words.txt").write_text(f"one\n{words}\ntwo\n")
    edit(book, lambda card: card.update(vocabulary_hash=hash_words(["one", words, "two"])))
    with pytest.raises(ArtefactDamagedError, match="words.txt in .* is no list of words: word 1"):
        Codebook.load(book)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"codebook": np.full((3, 4), np.nan, np.float16)}, "hold NaN or infinity"),
        ({"codebook": np.zeros((3, 4), np.int32)}, "as int32, not as float16 or float32"),
        ({"codebook": np.zeros((2, 4), np.float16)}, "one row a word"),
        ({"codebook": np.zeros(3, np.float16)}, "one row a word"),
        ({"other": np.zeros((3, 4), np.float16)}, "holds no tensor 'codebook'"),
        ({"codebook": np.zeros((3, 4), np.float16), "mean": np.zeros(4, np.float32)}, "belong together"),
    ],
)
def test_vectors_that_cannot_be_though_their_hash_is_right(tmp_path: Path, tensors: dict[str, Any], match: str) -> None:
    from safetensors.numpy import save_file

    Codebook(Vocabulary(["one", "two", "three"]), np.eye(3, 4)).save(tmp_path / "book")
    save_file(tensors, str(tmp_path / "book" / "codebook.safetensors"))
    digest = hashlib.sha256((tmp_path / "book" / "codebook.safetensors").read_bytes()).hexdigest()
    edit(tmp_path / "book", lambda card: card.update(codebook_hash=digest))
    with pytest.raises(ArtefactDamagedError, match=match):
        Codebook.load(tmp_path / "book")


def test_files_that_no_card_lists_are_not_read(folder: Path) -> None:
    for name in ("decoder.onnx", "secret.bin", "extra.txt"):
        os.mkfifo(folder / name)  # opening one would never return
    tokenizer = OnnxTokenizer(folder, providers="cpu")
    assert not tokenizer.can_decode
    assert tokenizer.provider


def test_a_graph_whose_outputs_are_not_the_cards(tmp_path: Path, photo: np.ndarray[Any, Any]) -> None:
    onnx = pytest.importorskip("onnx")
    folder = made_whole(Path(shutil.copytree(PACKAGED / "tokenizers/words-photo", tmp_path / "mine")))
    whole = onnx.load(folder / "encoder.onnx")
    for change, match in [
        (("Cast", {"to": onnx.TensorProto.FLOAT}), r"gives ids as float32 \[1, 64\], not as whole numbers"),
        (("Neg", {}), "gives ids from -"),
        (("Transpose", {"perm": [1, 0]}), r"gives ids as int32 \[64, 1\]"),
    ]:
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        node = next(one for one in model.graph.node if "ids" in one.output)
        node.output[list(node.output).index("ids")] = "ids_before"
        model.graph.node.append(onnx.helper.make_node(change[0], ["ids_before"], ["ids"], **change[1]))
        for value in model.graph.output:
            if value.name == "ids":
                value.type.tensor_type.elem_type = 1 if change[0] == "Cast" else 6
                value.type.tensor_type.ClearField("shape")
        data = model.SerializeToString()
        (folder / "encoder.onnx").write_bytes(data)
        edit(folder, lambda card, data=data: card["files"].update({"encoder.onnx": hashlib.sha256(data).hexdigest()}))
        with pytest.raises(ArtefactDamagedError, match=match):
            OnnxTokenizer(folder, providers="cpu").encode(photo)


def test_own_codebook_beside_the_folder_wins_by_hash(folder: Path) -> None:
    beside = shutil.copytree(PACKAGED / "codebooks/portable-minilm-128", folder.parent / "portable-minilm-128")
    assert OnnxTokenizer(folder).vocabulary
    (beside / "codebook.safetensors").write_bytes(b"broken")
    refused(folder, "codebook.safetensors in .* is not the file its card describes")


def test_a_graph_onnxruntime_cannot_read(folder: Path) -> None:
    made_whole(folder)
    (folder / "encoder.onnx").write_bytes(b"not a graph")
    digest = hashlib.sha256(b"not a graph").hexdigest()
    edit(folder, lambda card: card["files"].update({"encoder.onnx": digest}))
    with pytest.raises(ArtefactDamagedError, match=r"onnxruntime [\d.]+ cannot read the graph of 'words-photo'"):
        _ = OnnxTokenizer(folder).provider


def test_wrong_inputs_at_run_time_are_wrapped() -> None:
    packaged = PACKAGED / "tokenizers/words-photo"
    data = whole_graph(packaged, read_card(packaged), "encoder.onnx")
    session = GraphSession(data, "words-photo", providers="cpu")
    with pytest.raises(ArtefactError, match="onnxruntime failed while running 'words-photo'"):
        session.run({}, ["ids"])


def test_a_library_that_wants_onnxruntimes_own_session_gets_it() -> None:
    packaged = PACKAGED / "tokenizers/words-photo"
    data = whole_graph(packaged, read_card(packaged), "encoder.onnx")
    usual, lean = (
        GraphSession(data, "words-photo", providers="cpu", threads=1, arena=arena) for arena in (True, False)
    )
    assert [one.raw.get_session_options().enable_cpu_mem_arena for one in (usual, lean)] == [True, False]
    assert lean.raw.get_session_options().intra_op_num_threads == 1


def test_tokenizer_without_classes_cannot_withhold(folder: Path) -> None:
    (folder / "classes.txt").unlink()
    edit(folder, lambda card: card["files"].pop("classes.txt"))
    with pytest.raises(UsageError, match="recognises no fixed classes, so none can be withheld"):
        OnnxTokenizer(folder, withhold=["cat"])


def test_crop_takes_the_centre_and_squash_takes_all() -> None:
    from PIL import Image

    wide = Image.new("RGB", (90, 30), "blue")
    wide.paste("red", (30, 0, 60, 30))
    crop = Preprocessing(16, "crop", "nearest", short=16).apply(wide)
    assert crop.getcolors() == [(256, (255, 0, 0))]
    squash = Preprocessing(18, "squash", "nearest").apply(wide)
    assert sorted(squash.getcolors() or []) == [(108, (255, 0, 0)), (216, (0, 0, 255))]
    with pytest.raises(ArtefactDamagedError, match="a crop of 32 needs short"):
        Preprocessing(32, "crop", "nearest", short=16)
