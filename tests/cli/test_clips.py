"""The commands that take clips: show, reconstruct, tokenize, classify; and the tokenizer where none is named."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("onnx")

import tiny_clips

from icl_vision.cli import main
from icl_vision.cli.options import common
from icl_vision.clips import ClipLimits, load_clip, moves, save_clip, seconds_of
from icl_vision.tokenizers import zoo


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_clips.make(tmp_path_factory.mktemp("tiny") / "tiny"))


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(save_clip(tiny_clips.square(16, step=1), tmp_path / "square.webp", ms=50))


def run(*words: str | Path, ok: bool = True) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert (result.exit_code == 0) == ok, result.output
    return result


def test_show_makes_a_page_that_moves(tiny: str, clip: str, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = run("show", clip, "--tokenizer", tiny, "--out", out, "--json")
    (record,) = json.loads(result.stdout)["images"]
    assert record["k"] == 293 and [len(layer) for layer in record["words"]] == [1, 4, 32, 256]
    assert len(record["psnr"]) == 4 and [len(layer) for layer in record["similarity"]] == [1, 4, 32, 256]
    page = out.read_text()
    assert "Frame by frame" in page and f"icl-vision show square.webp --tokenizer {Path(tiny).name}" in page


def test_reconstruct_says_why_nothing_moves(clip: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.webp"
    broken.write_bytes(Path(clip).read_bytes()[:200])
    for source, options, why in (
        (broken, (), "is cut off or damaged"),
        (clip, ("--tokenizer", "spae-digits-32"), "takes images; for clips take --tokenizer spae-clips-64"),
    ):
        told = run("reconstruct", source, *options, "--out", tmp_path / "again.webp", ok=False).stderr
        assert "again.webp' must end in .png: " in told and why in told


def test_show_makes_a_sheet(tiny: str, clip: str, tmp_path: Path) -> None:
    run("show", clip, "--tokenizer", tiny, "--out", tmp_path / "sheet.png", "-k", "5")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 3 * 122 + 4


def test_show_goes_on_past_a_bad_clip(tiny: str, clip: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    result = run("show", clip, tmp_path / "photo.jpg", "--tokenizer", tiny, "--out", tmp_path / "p.html", ok=False)
    assert "photo.jpg' is a still picture (JPEG)" in result.stderr and (tmp_path / "p.html").exists()
    result = run("show", clip, "--tokenizer", tiny, "--about", "who?", "--out", tmp_path / "q.html", ok=False)
    assert "can_focus=False" in result.stderr


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png", ".apng"])
def test_reconstruct_writes_a_clip_by_its_suffix(tiny: str, tmp_path: Path, suffix: str) -> None:
    wide = tiny_clips.square(16, step=1).repeat(2, axis=2)
    source = save_clip(wide, tmp_path / "wide.gif", ms=50)
    out = tmp_path / f"again{suffix}"
    result = run("reconstruct", source, "--tokenizer", tiny, "--out", out, "--json")
    said = json.loads(result.stdout)
    assert said["k"] == 293 and said["psnr"] > 15
    assert load_clip(out, frames=8).shape == (8, 32, 64, 3)  # in its own shape
    assert load_clip(out, frames=None, rate=10).shape[0] == 8  # and as long as it was


def test_reconstruct_refuses(tiny: str, clip: str, tmp_path: Path) -> None:
    result = run("reconstruct", clip, "--tokenizer", tiny, "--out", tmp_path / "a.jpg", ok=False)
    assert "must end in .gif or .webp or .png or .apng" in result.stderr
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    result = run("reconstruct", tmp_path / "photo.jpg", "--tokenizer", tiny, "--out", tmp_path / "a.webp", ok=False)
    assert "is a still picture" in result.stderr and not (tmp_path / "a.webp").exists()


def test_tokenize_takes_folders_of_clips_and_of_frames(tiny: str, clip: str, tmp_path: Path) -> None:
    for number, frame in enumerate(tiny_clips.square(8)):
        (tmp_path / "home" / "frames").mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "home" / "frames" / f"{number}.png")
    save_clip(tiny_clips.square(8), tmp_path / "home" / "same.png")
    result = run("tokenize", tmp_path / "home", clip, "--tokenizer", tiny, "-k", "5", "--json")
    rows = json.loads(result.stdout)
    assert [Path(row["image"]).name for row in rows] == ["frames", "same.png", "square.webp"]
    assert rows[0]["words"] == rows[1]["words"] and [len(layer) for layer in rows[0]["words"]] == [1, 4]
    out = tmp_path / "words.jsonl"
    result = run("tokenize", tmp_path / "home", "--tokenizer", tiny, "--out", out)
    assert "2 clips written to" in result.stderr and len(out.read_text().splitlines()) == 2
    (tmp_path / "none").mkdir()
    result = run("tokenize", tmp_path / "none", "--tokenizer", tiny, ok=False)
    assert "holds no clip" in result.stderr


def test_classify_clips(tiny: str, clip: str, tmp_path: Path) -> None:
    for label, step in (("slow", 1), ("fast", 3)):
        save_clip(tiny_clips.square(8, step=step), tmp_path / "support" / label / "a.webp")
    result = run("classify", clip, "--support", tmp_path / "support", "--llm", "fake", "--tokenizer", tiny, "-k", "5",
                 "--shots", "1")  # fmt: skip
    assert "square.webp" in result.stdout


@pytest.mark.parametrize("command", [("caption",), ("answer", "--question", "Who is it?")])
def test_clips_are_not_set_beside_the_packaged_photographs(tiny: str, clip: str, command: tuple[str, ...]) -> None:
    result = run(*command, clip, "--llm", "fake", "--tokenizer", tiny, ok=False)
    assert "the packaged examples are photographs" in result.stderr and "--support" in result.stderr


def test_a_clip_is_asked_about_by_some_of_its_frames(tiny: str, clip: str, tmp_path: Path) -> None:
    """Of a tokenizer of images the first frame, which is said, or so many frames as pictures of one question."""
    asked = ("answer", clip, "--question", "Who is it?", "--llm", "fake", "--tokenizer", "words-photo", "--zero-shot")
    first = run(*asked, "--json")
    assert f"seen by the first frame only: {clip}; --frames 4 takes so many of its frames" in first.stderr
    assert len(json.loads(first.stdout)[0]["words"]) == 1
    page = tmp_path / "page.html"
    some = run(*asked, "--json", "--frames", "3", "--report", page)
    assert "first frame" not in some.stderr and page.exists()
    assert len(json.loads(some.stdout)[0]["words"]) == 3 and json.loads(some.stdout)[0]["image"] == clip
    told = run(*asked, "--frames", "17", ok=False).stderr
    assert "--frames 17 would ask about 17 pictures together, and a question may have 16" in told
    own = run("answer", clip, "--question", "Who?", "--llm", "fake", "--tokenizer", tiny, "--zero-shot", "-k", "5",
              "--frames", "3", "--json")  # fmt: skip
    assert [len(layer) for layer in json.loads(own.stdout)[0]["words"]] == [1, 4]  # the clip's own words


def test_a_clip_in_memory_is_asked_about(tiny: str, clip: str) -> None:
    from icl_vision import VisualQA
    from icl_vision.clips import key_frames
    from icl_vision.errors import ImageError

    frames = load_clip(clip)
    qa = VisualQA("fake", tiny, 5).fit()
    (as_file, as_array) = (qa.answers([source], ["Who is it?"])[0] for source in (clip, frames))
    assert as_file.words == as_array.words
    assert qa.answer(frames, "Who is it?") == as_file.text
    pictures = key_frames(clip, 4)
    assert [np.asarray(picture).tolist() for picture in pictures] == frames[[2, 6, 10, 14]].tolist()
    assert len(VisualQA("fake", "words-photo").fit().answers([pictures], ["Who is it?"])[0].words) == 4
    with pytest.raises(ImageError, match="if it is a clip"):
        VisualQA("fake", "words-photo").fit().answer(frames, "Who is it?")


def test_the_tokenizer_of_clips_is_taken_for_clips(
    tiny: str, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, available = zoo.find, zoo.available

    def found(name: Any, **options: Any) -> Path:
        return Path(tiny) if name == common.OF_CLIPS else find(name, **options)

    monkeypatch.setattr(zoo, "find", found)
    monkeypatch.setattr(zoo, "available", lambda: [*available(), common.OF_CLIPS])
    run("reconstruct", clip, "--out", tmp_path / "a.webp")
    assert moves(tmp_path / "a.webp")
    run("show", clip, "--out", tmp_path / "a.html")
    assert "tiny-clips" in (tmp_path / "a.html").read_text()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "digit.png")
    result = run("reconstruct", tmp_path / "digit.png", "--out", tmp_path / "b.png", "--json")
    assert json.loads(result.stdout)["tokenizer"] == "spae-digits-32"


def test_clips_and_stills_are_not_shown_by_one_tokenizer_unsaid(
    tiny: str, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, available = zoo.find, zoo.available

    def found(name: Any, **options: Any) -> Path:
        return Path(tiny) if name == common.OF_CLIPS else find(name, **options)

    monkeypatch.setattr(zoo, "find", found)
    monkeypatch.setattr(zoo, "available", lambda: [*available(), common.OF_CLIPS])
    still, out = tmp_path / "still.png", tmp_path / "page.html"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(still)
    for order in ((still, clip), (clip, still)):
        told = run("show", *order, "--out", out, ok=False).stderr
        assert "square.webp' is a clip and" in told and "still.png' is a still picture" in told, told
        assert "one call for each kind" in told and not out.exists()
    for order in ((tmp_path / "none.png", clip), (clip, tmp_path / "none.png")):  # a bad file decides nothing
        told = run("show", *order, "--out", out, "--force", ok=False).stderr
        assert "ImageNotFoundError" in told and "tiny-clips" in out.read_text()
    named = ("show", still, clip, "--tokenizer", "spae-digits-32", "--out", out, "--force")
    assert "shown by the first frame only: " + clip in run(*named).stderr
    assert "first frame" not in run(*named, "--quiet").stderr
    assert "first frame" not in run("show", still, "--out", out, "--force").stderr


@pytest.mark.parametrize("command", ["show", "tokenize"])
def test_a_cap_is_told_without_arguments_that_only_python_has(
    tiny: str, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("icl_vision.clips.opening.LIMITS", ClipLimits(frames=15))
    out = ("--out", str(tmp_path / "a.html")) if command == "show" else ()
    result = run(command, clip, "--tokenizer", tiny, *out, "--json", ok=False)
    printed = json.loads(result.stdout)
    (record,) = printed["images"] if command == "show" else printed
    for told in (result.stderr.strip(), record["error"]):
        assert told.startswith("ClipTooLongError: ") and told.endswith("more frames than the cap of 15; cut it"), told


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_left_out_of_a_folder_is_a_remark(tiny: str, tmp_path: Path, quiet: bool) -> None:
    save_clip(tiny_clips.square(8), tmp_path / "home" / "same.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "home" / "photo.jpg")
    show = warnings.showwarning
    result = run("tokenize", tmp_path / "home", "--tokenizer", tiny, *(["--quiet"] if quiet else []))
    said = f"left out of '{tmp_path / 'home'}': pictures that do not move: 1 ('photo.jpg')\n"
    assert result.stderr == ("" if quiet else said)
    assert warnings.showwarning is show


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    for name, step in (("running dog", 3), ("sleeping_cat", 1)):
        for number in range(2):
            made = tiny_clips.square(8, step=step)[:: 1 if number else -1]
            save_clip(made, tmp_path / "kinds" / name / f"{number}.webp")
    return tmp_path / "kinds"


def test_generate_draws_clips(tiny: str, kinds: Path, tmp_path: Path) -> None:
    drawn = ("generate", "--examples", kinds, "--tokenizer", tiny, "--llm", "fake", "--passes", "par", "--stride", "99")
    query = "an animation of running dog"
    run(*drawn, "--query", query, "--out", tmp_path / "dog.gif")
    with Image.open(tmp_path / "dog.gif") as made:  # all the fake LLM's words are one word, so nothing moves in it
        assert (made.format, made.size) == ("GIF", (16, 16))
    result = run(*drawn, "--query", query, "--query", "a cat", "--out", tmp_path / "all", "--json")
    rows = json.loads(result.stdout)["images"]
    assert [Path(row["file"]).name for row in rows] == ["an-animation-of-running-dog.webp", "a-cat.webp"]
    for row in rows:
        with Image.open(row["file"]) as made:
            assert made.format == "WEBP"
    page = (tmp_path / "all" / "drawings.html").read_text()
    assert page.count("data:image/gif") == 2 and "MNIST" not in page
    assert sorted(path.name for path in (tmp_path / "all").glob("*.gif")) == []  # the .webp is what moves
    result = run("generate", "--examples", "digits", "--tokenizer", tiny, "--llm", "fake", "--query", query,
                 "--out", tmp_path / "b.webp", ok=False)  # fmt: skip
    assert "the packaged digits stand still; pass a folder of clips" in result.stderr


def test_the_generator_gives_frames(tiny: str, kinds: Path) -> None:
    from icl_vision import ImageGenerator
    from icl_vision.tasks.draw.examples import TEXT_OF_CLIPS, read_examples
    from icl_vision.tokenizers.taking import TakesClips

    pairs = read_examples(kinds, TEXT_OF_CLIPS, TakesClips(8))
    assert {pair.text for pair in pairs} == {"an animation of running dog", "an animation of sleeping cat"}
    generator = ImageGenerator("fake", tiny, passes="par", stride="all")
    generator.fit([pair.path for pair in pairs], [pair.text for pair in pairs])
    (made,) = generator.generate("an animation of running dog")
    assert made.frames[4] is made.image and len(made.frames) == 8
    assert len(generator("an animation of running dog")) == 8
    seen = []
    generator.generate("an animation of running dog", watch=seen.append)
    assert seen and all(len(preview.frames) == 8 for preview in seen)


def test_clips_with_captions_and_by_their_own_names(tmp_path: Path) -> None:
    from icl_vision.tasks.draw.examples import read_examples
    from icl_vision.tokenizers.taking import TakesClips

    for number, frame in enumerate(tiny_clips.square(4)):
        (tmp_path / "red_square").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "red_square" / f"{number}.png")
    save_clip(tiny_clips.square(4), tmp_path / "a wave 2.gif")
    by_name = read_examples(tmp_path, "{}", TakesClips(8))
    assert [pair.text for pair in by_name] == ["a wave", "red square"]
    (tmp_path / "captions.jsonl").write_text('{"file": "red_square", "text": "it goes right"}\n')
    assert [pair.text for pair in read_examples(tmp_path, "{}", TakesClips(8))] == ["it goes right"]


def test_rate_and_frames_say_what_of_a_clip_is_read(tiny: str, tmp_path: Path) -> None:
    """Of 40 frames of 50 ms, each brighter than the last: the first layer's word is the mean colour of what is read."""
    grown = np.broadcast_to(np.arange(0, 240, 6, dtype=np.uint8)[:, None, None, None], (40, 16, 16, 3))
    source = save_clip(grown, tmp_path / "grown.png", ms=50)

    def read(*options: str) -> Any:
        (row,) = json.loads(run("tokenize", source, "--tokenizer", tiny, *options, "--json").stdout)
        return row["words"]

    def expected(numbers: list[int]) -> Any:
        from icl_vision import ImageTokenizer

        (pyramid,) = ImageTokenizer.from_pretrained(tiny).encode([grown[numbers]])
        return [pyramid.words(layer) for layer in range(1, 5)]

    assert read() == expected([2, 7, 12, 17, 22, 27, 32, 37])
    assert read("--rate", "20") == expected(list(range(8)))  # the first eight
    assert read("--rate", "20", "--frames", "16") == expected(list(range(1, 16, 2)))  # every second of the first 16
    assert read("--frames", "2") == expected([10] * 4 + [30] * 4)
    out = tmp_path / "again.webp"
    run("reconstruct", source, "--tokenizer", tiny, "--rate", "10", "--out", out)
    assert seconds_of(out) == pytest.approx(0.8)  # a tenth of a second each, and not a quarter
    run("show", source, "--tokenizer", tiny, "--rate", "10", "--frames", "4", "--out", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "8 frames over 0.4 s" in page and "--rate 10 --frames 4" in page


def test_rate_and_frames_are_refused_where_they_say_nothing(tiny: str, clip: str, tmp_path: Path) -> None:
    for number, frame in enumerate(tiny_clips.square(8)):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    told = run("tokenize", clip, "--rate", "8", ok=False).stderr
    assert "--rate 8 says which frames of a clip are read, and the tokenizer 'words-photo' takes images" in told
    told = run("reconstruct", tmp_path / "frames", "--tokenizer", tiny, "--rate", "8",
               "--out", tmp_path / "a.webp", ok=False).stderr  # fmt: skip
    assert "nothing says how long the frames of the folder" in told and "with --frames instead" in told
    assert "0" in run("tokenize", clip, "--tokenizer", tiny, "--rate", "0", ok=False).stderr


def test_a_tokenizer_of_clips_that_reads_otherwise_is_another_one(tiny: str, clip: str) -> None:
    import copy

    from icl_vision import ImageTokenizer
    from icl_vision.errors import UsageError
    from icl_vision.tokenizers.wrapping import WrappedTokenizer, fingerprint

    plain, slow = ImageTokenizer.from_pretrained(tiny), ImageTokenizer.from_pretrained(tiny, rate=10, reads=4)
    assert len({fingerprint(plain), fingerprint(slow), fingerprint(ImageTokenizer.from_pretrained(tiny, rate=10))}) == 3
    assert copy.deepcopy(slow).takes == slow.takes == WrappedTokenizer(slow).takes
    (words,) = slow.encode(clip)
    assert slow.encode([slow.takes.load(clip)]) == [words]  # what was chosen once is not chosen from again
    with pytest.raises(UsageError, match="'spae-digits-32' takes images"):
        ImageTokenizer.from_pretrained("spae-digits-32", rate=8)
    with pytest.raises(UsageError, match="rate must be"):
        ImageTokenizer.from_pretrained(tiny, rate=-1)
