"""Tokenizers of clips: the contract, what a card must say, words of folders and streams of clips, refusals of the other
modality."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

import tiny_clips

from icl_vision.clips import list_clips, save_clip
from icl_vision.errors import (
    ArtefactDamagedError,
    ClipError,
    DataLeftOutWarning,
    ImageArrayError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    UsageError,
)
from icl_vision.pyramid import PyramidLayout
from icl_vision.testing import Check, check_tokenizer, tokenizer_checks
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.bulk.encoding import encode_files
from icl_vision.tokenizers.bulk.files import tokenize_files
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.taking import TakesClips, TakesImages, taken_by
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache
from icl_vision.tokenizers.wrapping import WrappedTokenizer

FOLDER = Path()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clips.make(tmp_path_factory.mktemp("tiny") / "tiny-clips")


@pytest.fixture
def tokenizer(folder: Path) -> OnnxTokenizer:
    return OnnxTokenizer(folder, providers="cpu", threads=1)


def pixels(frames: Any) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(frame) for frame in frames])


def _checks() -> list[Check]:
    def factory() -> ImageTokenizer:
        return ImageTokenizer.from_pretrained(str(FOLDER), providers="cpu", threads=1)

    return tokenizer_checks(factory)


@pytest.mark.parametrize("check", _checks(), ids=lambda check: check.name)
def test_contract(check: Check, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FOLDER", folder)
    check()


def test_wrappers_keep_the_contract(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    cached = CachedTokenizer(tokenizer, WordsCache(tmp_path / "words.sqlite"))
    for wrapper in (WrappedTokenizer(tokenizer), cached):
        assert (wrapper.modality, wrapper.frames, wrapper.takes) == ("clip", 8, TakesClips(8))
    clips = [tiny_clips.square(), tiny_clips.square(step=1)]
    assert cached.encode(clips) == tokenizer.encode(clips)


def test_words_are_the_colours_and_decode_gives_frames(tokenizer: OnnxTokenizer) -> None:
    assert (tokenizer.modality, tokenizer.frames) == ("clip", 8)
    assert tokenizer.layout == PyramidLayout(tiny_clips.GRIDS)
    clip = np.zeros((8, 16, 16, 3), np.uint8)
    clip[:4] = (255, 0, 0)
    clip[4:] = (0, 0, 255)
    (words,) = tokenizer.encode(clip)
    assert [ids.shape for ids in words.ids] == list(tiny_clips.GRIDS)
    first, second = words.ids[2]  # two spans of time
    assert len(set(first.ravel())) == len(set(second.ravel())) == 1 and first.ravel()[0] != second.ravel()[0]
    (made,) = tokenizer.decode(words)
    assert isinstance(made, list) and all(isinstance(frame, Image.Image) for frame in made)
    assert np.array_equal(pixels(made), clip)
    (coarse,) = tokenizer.decode(words.truncate(1))
    assert len(coarse) == 8 and len(np.unique(pixels(coarse).reshape(-1, 3), axis=0)) == 1


def test_frames_are_sampled_and_resized(tokenizer: OnnxTokenizer) -> None:
    small = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.full((8, 16, 16, 3), 30, np.uint8)
    large = small.repeat(3, 0).repeat(2, 1).repeat(3, 2)
    assert tokenizer.encode(large) == tokenizer.encode(small)


def test_embed(tokenizer: OnnxTokenizer) -> None:
    vectors = tokenizer.embed([tiny_clips.square(), tiny_clips.square(step=0)])
    assert vectors.shape == (2, 3) and np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_identity_and_pickle(tokenizer: OnnxTokenizer, folder: Path, tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  # our own bytes
    assert again.encode(tiny_clips.square()) == tokenizer.encode(tiny_clips.square())
    other = tiny_clips.make(tmp_path / "other", change={"frames": 4})
    assert OnnxTokenizer(other, providers="cpu").identity != tokenizer.identity
    assert tokenizer.card["modality"] == "clip"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "sound"}, "of the modality 'sound', this icl-vision reads 'image' and 'clip'"),
        ({"modality": "image"}, "grids of 3 axes, which only those of clips have"),
        ({"frames": None}, "frames = None, which must be a whole number from 1 to 256"),
        ({"frames": 10**6}, "frames = 1000000"),
        ({"layout": {"grids": [[1, 1], [16, 16]]}}, "grids of 2 axes; those of clips have three, time first"),
    ],
)
def test_a_damaged_card(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny_clips.make(tmp_path / "made", change=change)
    with pytest.raises(ArtefactDamagedError, match=message):
        OnnxTokenizer(tmp_path / "made", providers="cpu")


def test_a_graph_that_gives_other_frames_than_its_card_says(tmp_path: Path) -> None:
    tokenizer = OnnxTokenizer(tiny_clips.make(tmp_path / "made"), providers="cpu")
    (words,) = tokenizer.encode(tiny_clips.square())
    tokenizer.frames = 4
    with pytest.raises(ArtefactDamagedError, match=r"gives pixels as uint8 \[1, 8, 16, 16, 3\], not as uint8 \[1, 4"):
        tokenizer.decode(words)


# The wrong modality


def test_a_tokenizer_of_images_says_who_takes_clips() -> None:
    images = ImageTokenizer.from_pretrained("ascii")
    clip = tiny_clips.square()
    taker = r"taken by a tokenizer of the modality 'clip' \(--tokenizer spae-clips-64\)"
    with pytest.raises(ImageFormatError, match=rf"images\[0\].*a list of frames is a clip: clips are {taker}"):
        images.encode([list(clip)])  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(ImageArrayError, match=taker):
        images.encode(clip[None])
    with pytest.raises(ImageArrayError, match=taker):
        images.encode([clip])
    with pytest.raises(ImageFormatError, match=rf"a video \(MP4 or MOV\).*{taker}"):
        images.encode(b"\0\0\0\x18ftypmp42" + bytes(20))
    assert taken_by(images) == TakesImages()


def test_a_tokenizer_of_clips_refuses_pictures(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    with pytest.raises(ClipError, match=r"photo.jpg' is a still picture \(JPEG\); a clip is an animated GIF"):
        tokenizer.encode(tmp_path / "photo.jpg")
    with pytest.raises(ClipError, match=r"^clips\[1\]: .*photo.jpg"):
        tokenizer.encode([tiny_clips.square(), tmp_path / "photo.jpg"])


# Many clips


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    home = tmp_path / "clips"
    for number in range(5):
        save_clip(tiny_clips.square(step=number % 3 + 1), home / f"clip{number}.{('webp', 'gif', 'png')[number % 3]}")
    for number in range(12):
        (home / "deep" / "frames").mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny_clips.square(12)[number]).save(home / "deep" / "frames" / f"{number}.png")
    (home / "bad.gif").write_bytes(b"GIF89a and then nothing")
    return home


def test_clips_of_a_folder_are_files_that_move_and_folders_of_frames(clips: Path) -> None:
    names = [path.relative_to(clips).as_posix() for path in list_clips(clips)]
    assert names == ["bad.gif", "clip0.webp", "clip1.gif", "clip2.png", "clip3.webp", "clip4.gif", "deep/frames"]
    assert list_clips(clips / "deep" / "frames") == [clips / "deep" / "frames"]
    Image.new("RGB", (4, 4)).save(clips / "still.png")
    with pytest.warns(DataLeftOutWarning, match=r"pictures that do not move: 1 \('still.png'\)"):
        assert clips / "still.png" not in list_clips(clips)
    with pytest.raises(ImageNotFoundError, match="is not a folder"):
        list_clips(clips / "still.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_bulk(tokenizer: OnnxTokenizer, clips: Path, workers: int) -> None:
    paths = [str(path) for path in list_clips(clips)]
    results = dict(encode_files(tokenizer, paths, workers=workers))
    bad = [path for path, result in results.items() if isinstance(result, ImageError)]
    assert bad == [str(clips / "bad.gif")]
    for path in paths[1:]:
        assert [results[path]] == tokenizer.encode(path)


def test_a_file_of_words_and_the_cache(
    tokenizer: OnnxTokenizer, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = list_clips(clips)
    report = tokenize_files(tokenizer, paths, tmp_path / "words.jsonl", k=5)
    assert (report.images, report.bad) == (6, 1)
    rows = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text().splitlines()]
    assert [len(layer) for layer in rows[0]["words"]] == [1, 4]

    cached = CachedTokenizer(tokenizer, WordsCache(tmp_path / "words.sqlite"))
    expected = tokenizer.encode(paths[1:])
    assert cached.encode(paths[1:]) == expected
    monkeypatch.setattr(OnnxTokenizer, "_encode", lambda *_: pytest.fail("encoded again"))
    assert cached.encode(paths[1:]) == expected
    with pytest.raises(ImageError, match=r"^clips\[1\]: "):
        cached.encode([paths[1], paths[0]])


def test_memory_does_not_grow_with_the_number_of_clips(tokenizer: OnnxTokenizer) -> None:
    def stream(number: int) -> Any:
        return (tiny_clips.square(16, side=64, step=index % 3) for index in range(number))

    def peak(number: int) -> int:
        tracemalloc.start()
        tokenizer.encode(stream(number), k=1)
        (_, most), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
        return most

    peak(4)
    assert peak(60) < peak(10) + 16 * 64 * 64 * 3  # less than one clip more


def test_check_tokenizer_tells_a_broken_one(tokenizer: OnnxTokenizer, folder: Path) -> None:
    class Short(OnnxTokenizer):
        def _decode(self, pyramids: Any) -> Any:
            return [frames[:3] for frames in super()._decode(pyramids)]

    with pytest.raises(AssertionError, match="decode must give 8 frames a clip; got 3"):
        check_tokenizer(lambda: Short(folder, providers="cpu", threads=1))


# In a task


def test_few_shot_classification_of_clips(folder: Path, tmp_path: Path) -> None:
    from icl_vision import FewShotClassifier
    from icl_vision.llms.fake import FakeLLM

    home = tmp_path / "support"
    for number in range(2):
        save_clip(tiny_clips.square(step=2 + number), home / "right" / f"{number}.webp")
        save_clip(tiny_clips.square(step=2 + number)[::-1], home / "left" / f"{number}.gif")
    frames = [Image.fromarray(frame) for frame in tiny_clips.square(step=3)]
    classifier = FewShotClassifier(FakeLLM(), str(folder), 5, shots=1)
    classifier.fit(home)
    assert classifier.classes_ == ["left", "right"]
    for one in (frames, tiny_clips.square(), home / "left" / "0.gif"):
        assert classifier(one) in ("left", "right")  # type: ignore[arg-type]  # clips are none of the types of images
    assert len(classifier.predict([frames, tiny_clips.square()])) == 2  # type: ignore[list-item]  # as above
    assert len(classifier.predict(home)) == 4
    with pytest.raises(ImageError, match=r"^clips\[1\]: .*still picture"):
        Image.new("RGB", (4, 4)).save(tmp_path / "still.png")
        classifier.predict([tiny_clips.square(), tmp_path / "still.png"])
    with pytest.raises(UsageError, match="clips must be a sequence of clips, one per label; got one clip"):
        classifier.fit(tiny_clips.square(), ["left"])
    with pytest.raises(UsageError, match="has no clips for 'none'"):
        (home / "none").mkdir()
        classifier.fit(home)
