"""ImageTokenizer: what the base class does for every tokenizer, shown on two small ones."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from icl_vision.errors import ImageEmptyError, PyramidError, UnknownWordError, UsageError, VocabularyError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.testing import Check, check_tokenizer, sample_images, tokenizer_checks
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.vocabulary import Vocabulary

GREYS = Vocabulary([f"grey{level}" for level in range(256)], name="greys")
LAYOUT = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))


class Greys(ImageTokenizer):
    """A pyramid of mean greys; decodes and embeds."""

    name = "greys"
    can_decode = True
    can_embed = True
    embedding_width = 16

    def __init__(self) -> None:
        self.batches: list[int] = []

    @property
    def layout(self) -> PyramidLayout:
        return LAYOUT

    @property
    def vocabulary(self) -> Vocabulary | None:
        return GREYS

    @property
    def codebook(self) -> npt.NDArray[np.float32]:
        return np.arange(256, dtype=np.float32)[:, None]

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        assert all(image.mode == "RGB" for image in images)
        self.batches.append(len(images))
        layout = LAYOUT if k is None else self.layout_for(k)
        return [
            TokenPyramid(
                tuple(np.asarray(image.convert("L").resize(grid[::-1], 4), dtype=int) for grid in layout.grids),
                layout,
                GREYS,
            )
            for image in images
        ]

    def _decode(self, pyramids: list[TokenPyramid]) -> list[Image.Image]:
        self.batches.append(len(pyramids))
        return [Image.fromarray(pyramid.ids[-1].astype(np.uint8)).convert("RGB") for pyramid in pyramids]

    def _embed(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
        return np.stack(
            [np.asarray(image.convert("L").resize((4, 4), 4), dtype=np.float32).ravel() for image in images]
        )


class FlatGreys(ImageTokenizer):
    """Any number of words in a row, like words-photo."""

    name = "flat-greys"

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(5)

    @property
    def vocabulary(self) -> Vocabulary | None:
        return GREYS

    def layout_for(self, k: int) -> PyramidLayout:
        if k > 256:
            raise PyramidError(f"k={k} words were asked for; there are 256")
        return PyramidLayout.flat(k)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        layout = PyramidLayout.flat(5 if k is None else k)
        greys = [np.asarray(image.convert("L").resize((16, 16), 4), dtype=int).ravel() for image in images]
        return [TokenPyramid((grey[None, : layout.counts[0]],), layout, GREYS) for grey in greys]


@pytest.mark.parametrize("check", tokenizer_checks(Greys), ids=str)
def test_contract_of_a_pyramid(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", tokenizer_checks(FlatGreys, ks=[1, 3, 5, 21]), ids=str)
def test_contract_of_a_flat_list(check: Check) -> None:
    check()


class TestTheContractSuiteItself:
    def test_a_good_tokenizer_passes_in_one_call(self) -> None:
        check_tokenizer(lambda: AsciiTokenizer(4, 4))

    def test_broken_promises_are_found(self) -> None:
        class Random(FlatGreys):
            def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
                ids = np.random.default_rng().integers(0, 256, (len(images), 1, k or 5))
                return [TokenPyramid((row,), PyramidLayout.flat(k or 5), GREYS) for row in ids]

        class Neighbourly(FlatGreys):
            def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
                return super()._encode([images[0]] * len(images), k)

        class BadVectors(Greys):
            def _embed(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
                return super()._embed(images) * np.nan

        for factory, broken in (
            (Random, "determinism"),
            (Neighbourly, "batch_size_changes_nothing"),
            (BadVectors, "embed"),
        ):
            failed = []
            for check in tokenizer_checks(factory):
                try:
                    check()
                except AssertionError:
                    failed.append(check.name)
            assert broken in failed

    def test_too_few_images(self) -> None:
        with pytest.raises(AssertionError, match="three images or more; got 1"):
            tokenizer_checks(Greys, images=sample_images()[:1])


class TestEncode:
    def test_a_long_list_is_loaded_a_batch_at_a_time(self, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        Image.new("RGB", (4, 4)).save(path)
        asked = 0

        def paths() -> Iterator[Path]:
            nonlocal asked
            for _ in range(100):
                asked += 1
                yield path

        class Watched(Greys):
            def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
                assert asked <= sum(self.batches) + len(images)
                return super()._encode(images, k)

        tokenizer = Watched()
        assert len(tokenizer.encode(paths())) == 100
        assert tokenizer.batches == [32, 32, 32, 4]
        tokenizer.batches.clear()
        tokenizer.batch_size = 60
        tokenizer.decode(tokenizer.encode(paths() if not (asked := 0) else []))
        assert tokenizer.batches == [60, 40, 60, 40]

    def test_images_are_shrunk_before_the_batch_is_complete(self) -> None:
        class Small(FlatGreys):
            def _shrink(self, image: Image.Image) -> Image.Image:
                return image.resize((16, 16))

            def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
                assert {image.size for image in images} == {(16, 16)}
                return super()._encode(images, k)

        assert len(Small().encode(sample_images())) == 5

    def test_an_error_names_the_index_in_the_whole_list(self) -> None:
        tokenizer = Greys()
        tokenizer.batch_size = 2
        with pytest.raises(ImageEmptyError, match=r"^images\[4\]: the image buffer is empty"):
            tokenizer.encode([*sample_images()[:4], b""])
        with pytest.raises(ImageEmptyError, match=r"^the image buffer is empty"):
            tokenizer.encode(b"")
        with pytest.raises(ImageEmptyError, match=r"^images\[1\]: "):
            tokenizer.embed([sample_images()[0], b""])

    def test_an_array_of_paths_is_a_batch(self, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        Image.new("RGB", (4, 4)).save(path)
        assert len(Greys().encode(np.array([str(path)] * 3))) == 3
        assert len(Greys().encode(np.array([path] * 3, dtype=object))) == 3

    def test_k_of_a_pyramid(self) -> None:
        tokenizer = Greys()
        assert [tokenizer.encode(sample_images()[0], k)[0].k for k in (1, 5, 21, 37, None)] == [1, 5, 21, 37, 37]
        with pytest.raises(PyramidError, match="k=6 words do not fill whole layers.*1, 5, 21, 37"):
            tokenizer.encode(sample_images(), 6)

    @pytest.mark.parametrize("k", [True, 2.0, "5", [5]])
    def test_k_of_another_type(self, k: Any) -> None:
        with pytest.raises(UsageError, match="k counts words per image and must be a whole number or None; got"):
            Greys().encode(sample_images(), k)

    def test_k_below_one(self) -> None:
        with pytest.raises(PyramidError, match="must be 1 or more; got 0"):
            FlatGreys().encode(sample_images(), 0)

    @pytest.mark.parametrize("images", [None, 5, {"a": b""}, {1, 2}])
    def test_no_images_at_all(self, images: Any) -> None:
        with pytest.raises(UsageError, match="images must be one image or a sequence of images; got"):
            Greys().encode(images)

    @pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
    def test_batch_size(self, size: Any) -> None:
        tokenizer = Greys()
        tokenizer.batch_size = size
        with pytest.raises(UsageError, match="batch_size must be a whole number of 1 or more; got"):
            tokenizer.encode(sample_images())
        with pytest.raises(UsageError, match="batch_size must be"):
            tokenizer.decode([])

    def test_a_subclass_that_gives_too_few(self) -> None:
        class Lazy(Greys):
            def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
                return super()._encode(images[:1], k)

        with pytest.raises(PyramidError, match="Lazy._encode must give 5 pyramids on 1x1"):
            Lazy().encode(sample_images())


class TestDecodeAndText:
    def test_decode_refuses_what_it_cannot_have_made(self) -> None:
        tokenizer = Greys()
        with pytest.raises(UsageError, match="expected a TokenPyramid; got str"):
            tokenizer.decode(["words"])  # type: ignore[list-item]  # wrong on purpose
        with pytest.raises(VocabularyError, match="words are characters; the tokenizer .greys. uses .greys."):
            tokenizer.decode(AsciiTokenizer().encode(sample_images()))
        flat = FlatGreys().encode(sample_images()[0], 5)
        with pytest.raises(PyramidError, match="layout is 1x5; the tokenizer 'greys' has 1x1 . 2x2"):
            tokenizer.decode(flat)

    def test_cannot_decode_or_embed(self) -> None:
        tokenizer = FlatGreys()
        with pytest.raises(UsageError, match="'flat-greys' cannot decode, only encode"):
            tokenizer.decode(tokenizer.encode(sample_images()))
        with pytest.raises(UsageError, match="'flat-greys' has no image vectors; it cannot embed"):
            tokenizer.embed(sample_images())

    def test_text_with_other_white_space(self) -> None:
        tokenizer = FlatGreys()
        assert tokenizer.from_text("  grey1\ngrey2\t grey3 ").words() == ["grey1", "grey2", "grey3"]

    def test_text_of_a_pyramid_fills_its_layers(self) -> None:
        pyramid = Greys().from_text("grey9 grey1 grey2 grey3 grey4")
        assert pyramid.words(1) == ["grey9"]
        assert pyramid.ids[1].tolist() == [[1, 2], [3, 4]]
        assert pyramid.layout == LAYOUT.truncate(2)

    def test_text_refused(self) -> None:
        with pytest.raises(PyramidError, match="the text holds no words"):
            Greys().from_text(" \n ")
        with pytest.raises(PyramidError, match="k=2 words do not fill whole layers"):
            Greys().from_text("grey1 grey2")
        with pytest.raises(UnknownWordError, match="purple"):
            Greys().from_text("purple")
        with pytest.raises(UsageError, match="text must be a str; got bytes"):
            Greys().from_text(b"grey1")  # type: ignore[arg-type]  # wrong on purpose

    def test_more_words_than_there_are(self) -> None:
        tokenizer = FlatGreys()
        with pytest.raises(PyramidError, match="k=21 words were asked of a pyramid that holds 5"):
            tokenizer.to_text(tokenizer.encode(sample_images()[0])[0], 21)


class TestFromPretrained:
    @pytest.fixture
    def zoo(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, dict[str, Any]]]:
        calls: list[tuple[str, bool, dict[str, Any]]] = []

        def load(name: str, *, strict: bool = False, **options: Any) -> ImageTokenizer:
            calls.append((name, strict, options))
            return Greys()

        module = types.ModuleType("icl_vision.tokenizers.zoo")
        module.load = load  # type: ignore[attr-defined]  # a module made here
        monkeypatch.setitem(sys.modules, "icl_vision.tokenizers.zoo", module)
        monkeypatch.setattr("icl_vision.tokenizers.zoo", module, raising=False)
        return calls

    def test_the_zoo_is_asked(self, zoo: list[tuple[str, bool, dict[str, Any]]]) -> None:
        assert isinstance(ImageTokenizer.from_pretrained("greys", strict=True, providers=["cpu"]), Greys)
        assert isinstance(Greys.from_pretrained("greys"), Greys)
        assert zoo == [("greys", True, {"providers": ["cpu"]}), ("greys", False, {})]

    def test_another_kind_than_asked(self, zoo: object) -> None:
        with pytest.raises(UsageError, match="'greys' is a Greys, not a AsciiTokenizer; use ImageTokenizer"):
            AsciiTokenizer.from_pretrained("greys")
