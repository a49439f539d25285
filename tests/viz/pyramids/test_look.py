"""What is gathered of an image before it is drawn: frames, similarities, reconstructions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from pyramid_fakes import LAYOUT, VECTORS, Elsewhere, Flat, NoVectors, SixLayers, Video, picture

from icl_vision.errors import ImageError, PyramidError
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.viz.pyramids.look import Similarity, beginning, command_line, decibels, frame, gist, look, measure
from icl_vision.viz.pyramids.marks import INKS, SHADES, cells, cloud, cuts, width
from icl_vision.viz.pyramids.page import render_pyramid_page
from icl_vision.viz.pyramids.picture import draw_pyramid


def test_similarity_is_the_cosine_with_the_images_own_vector() -> None:
    tokenizer = SixLayers()
    shown = look(picture(), tokenizer)
    assert shown.similarity is not None and shown.similarity.reference == "the image's own vector"
    target = tokenizer.embed(picture())[0]
    vectors = VECTORS[shown.pyramid.ids[2]]
    expected = vectors @ target / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(target)
    np.testing.assert_allclose(shown.similarity.layers[2], expected, rtol=1e-5)
    assert [layer.shape for layer in shown.similarity.layers] == list(LAYOUT.grids)


def test_without_an_image_vector_in_the_words_space_the_coarsest_words_stand_in() -> None:
    shown = look(picture(), Elsewhere())
    assert shown.similarity is not None
    assert shown.similarity.reference == "the mean vector of the 5 words of layers 1 to 2"
    one = look(picture(), Elsewhere(), k=1).similarity
    assert one is not None and one.reference == "the mean vector of the 1 word of layer 1"
    np.testing.assert_allclose(one.layers[0], [[1.0]], rtol=1e-5)
    flat = look(picture(), Flat()).similarity
    assert flat is not None and flat.reference == "the mean vector of the first 5 words"
    single = look(picture(), Flat(), k=1).similarity
    assert single is not None and single.reference == "the mean vector of the first word"
    own = SixLayers()
    without = measure(own.encode(picture())[0], own, None)
    assert without is not None and "the 5 words" in without.reference


def test_no_vectors_no_similarity() -> None:
    assert look(picture(), NoVectors()).similarity is None
    assert look(picture(), AsciiTokenizer(4, 4)).similarity is None


def test_reconstructions_are_one_a_layer() -> None:
    tokenizer = SixLayers()
    shown = look(picture(), tokenizer)
    assert len(shown.decoded) == 6
    (two,) = tokenizer.decode(shown.pyramid.truncate(2))
    assert np.array_equal(np.asarray(shown.decoded[1]), np.asarray(two))
    assert len(look(picture(), tokenizer, k=21).decoded) == 3
    assert look(picture(), NoVectors()).decoded == ()


def test_the_frame_is_the_tokenizers() -> None:
    tokenizer = SixLayers()
    seen, backdrop, said = frame(picture(48, 32), tokenizer)
    assert seen.size == (16, 16) and backdrop.size == (48, 32)
    assert said == "as the tokenizer takes it: the whole picture squeezed into 16 x 16 pixels, drawn in its own shape"
    assert frame(picture(2000, 1000), tokenizer)[1].size == (640, 320)
    assert frame(picture(200, 2), tokenizer)[1].size == (200, 80)  # a strip is drawn broad enough for words
    assert frame(picture(2, 200), tokenizer)[1].size == (120, 200)
    assert frame(picture(2, 200), tokenizer)[2].endswith("drawn nearer to its own shape")
    assert "scaled to 16 x 16" in frame(picture(40, 40), tokenizer)[2]
    same = frame(picture(16, 16), tokenizer)
    assert same[1] is same[0]
    tokenizer.preprocessing = Preprocessing(16, resize="crop", short=20)
    seen, backdrop, said = frame(picture(100, 60), tokenizer)
    assert seen.size == (16, 16) and backdrop.size == (48, 48) and "the middle of the picture" in said
    tokenizer.preprocessing = Preprocessing(16, margin=2)
    seen, backdrop, said = frame(picture(40, 40), tokenizer)
    assert backdrop.size == (48, 48) and backdrop.getpixel((5, 20)) == (0, 0, 0) and "border" in said
    assert frame(picture(1000, 500), AsciiTokenizer())[1].size == (640, 320)
    assert frame(picture(), None)[2] == "48 x 32 pixels"


def test_what_cannot_be_looked_at() -> None:
    with pytest.raises(PyramidError, match=r"'six-layers' has grids of 3 axes \(1x1x1\).*frames side by side"):
        look(picture(), Video())
    with pytest.raises(PyramidError, match="k must be one of 1, 5, 21"):
        look(picture(), SixLayers(), k=6)
    with pytest.raises(ImageError, match="there is no file 'nowhere.png'"):
        look("nowhere.png", SixLayers())


def test_the_digits_tokenizer_has_vectors_in_its_words_space() -> None:
    shown = look(Image.new("L", (28, 28)), ImageTokenizer.from_pretrained("spae-digits-32", providers="cpu", threads=1))
    assert shown.similarity is not None and shown.similarity.reference == "the image's own vector"
    assert shown.seen.size == (32, 32) and len(shown.decoded) == 4


def test_the_command_names_everything_and_quotes_it() -> None:
    shown = look(picture(), Flat(), name="my photo.jpg")
    assert command_line([shown], out="a.html") == "icl-vision show 'my photo.jpg' --tokenizer flat --out a.html"
    assert command_line([shown, shown], k=5, tokenizer="folder", out="a.html").endswith(
        "--tokenizer folder -k 5 --out a.html"
    )


# Marks ----------------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_can_be_read_on_every_shade() -> None:
    for shade, ink in zip(SHADES, INKS, strict=True):
        low, high = sorted((luminance(shade), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (shade, ink)


def test_cells_say_where_they_are() -> None:
    shown = look(picture(), SixLayers())
    found = cells(shown.pyramid, 2, shown.similarity)
    assert [(cell.row, cell.column) for cell in found] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [cell.word for cell in found] == shown.pyramid.words(2)
    assert shown.similarity is not None
    cosine = float(shown.similarity.layers[1][1, 0])
    assert found[2].describe() == f"{found[2].word}: layer 2, row 2, column 1, similarity {cosine:.3f}"
    assert found[2].describe(flat=True).startswith(f"{found[2].word}: rank 1, ")
    everywhere = [cell for layer in range(1, 7) for cell in cells(shown.pyramid, layer, shown.similarity)]
    assert {0, len(SHADES) - 1} <= {cell.shade for cell in everywhere}  # the scale spans the whole pyramid
    pyramid = look(picture(), NoVectors()).pyramid
    assert "similarity" not in cells(pyramid, 1, None)[0].describe()


def test_a_cloud_counts_and_sorts() -> None:
    shown = look(picture(), SixLayers())
    found = cells(shown.pyramid, 5, shown.similarity)
    words = cloud(found)
    assert sum(word.count for word in words) == 256
    assert [word.count for word in words] == sorted((word.count for word in words), reverse=True)
    assert words[0].size == 1.0 and all(0 <= word.size <= 1 for word in words)
    assert f"{words[0].count} of 256 cells (row " in words[0].describe(256) and " more)" in words[0].describe(256)
    assert {word.size for word in cloud(found[:1])} == {0.4}


def test_words_are_cut_whole_and_in_order() -> None:
    for word in ("a", "ab", "whale", "incomprehensible"):
        for lines in cuts(word):
            assert "".join(lines) == word and len(lines) <= 3
    assert list(cuts("abcdef")) == [["abcdef"], ["abc", "def"]] and list(cuts("abcd")) == [["abcd"]]
    assert list(cuts("abcdefghi"))[2] == ["abc", "def", "ghi"]
    assert width("mm") > width("aa") > width("ii") and width("\u4e00") > width("a")


def test_a_layer_is_compared_with_words_picked_at_random() -> None:
    vocabulary = np.linspace(-1, 1, 101, dtype=np.float32)
    near, far = np.full((2, 2), 0.9, np.float32), np.array([[0.0, 0.1], [-0.1, 0.2]], np.float32)
    similarity = Similarity((near, far), "the image's own vector", vocabulary)
    assert similarity.chance == pytest.approx(0, abs=1e-6)
    assert similarity.rank(1) == pytest.approx(0.95, abs=0.02) and similarity.rank(2) == pytest.approx(0.53, abs=0.02)
    assert similarity.verdict(1) == "nearer to the image than 94% of all words"
    assert similarity.verdict(2).startswith("no nearer to the image than words picked at random")
    own = Similarity((near, far), "the mean vector of the 4 words of layer 1", vocabulary, own=1)
    assert own.verdict(1).startswith("nearer to their own mean than 94% of all words: how much alike")
    assert own.verdict(2) == similarity.verdict(2)
    shown = look(picture(), SixLayers())
    assert shown.similarity is not None and shown.similarity.own == 0
    elsewhere = look(picture(), Elsewhere())
    assert elsewhere.similarity is not None and elsewhere.similarity.own == 2  # 1 + 4 words, see COARSEST
    assert shown.similarity.vocabulary.shape == (len(VECTORS),)
    assert (np.diff(shown.similarity.vocabulary) >= 0).all()


def test_the_gist_is_the_coarsest_words() -> None:
    pyramid = look(picture(), SixLayers()).pyramid
    lines, left = gist(pyramid)
    assert [len(line) for line in lines] == [1, 4, 16, 39] and left == 597 - 60
    assert lines[2] == pyramid.words(3)
    assert gist(pyramid.truncate(1)) == ([pyramid.words(1)], 0)


def test_decibels_are_said_where_they_were_measured() -> None:
    shown = look(picture(), SixLayers(), k=5)
    assert decibels(shown, 1) == ""
    measured = dataclasses.replace(shown, psnr=(7.25, float("inf")))
    assert decibels(measured, 1) == "7.2 dB" and decibels(measured, 2) == "no difference"


class NamesFirst(SixLayers):
    """Its first three layers only name."""

    @property
    def card(self) -> dict[str, object]:
        return {**super().card, "draws_from": 4}


def test_layers_that_only_name_are_not_drawn() -> None:
    shown = look(picture(), NamesFirst())
    assert len(shown.decoded) == 3
    assert beginning(shown) == "Fewer than 4 layers name what is seen and draw nothing."
    measured = dataclasses.replace(shown, psnr=(10.0, 11.0, 12.5))
    assert decibels(measured, 6) == "12.5 dB"
    assert look(picture(), NamesFirst(), k=21).decoded == ()
    assert beginning(look(picture(), SixLayers())) == ""
    page, drawn = render_pyramid_page([measured]), draw_pyramid(measured)
    assert "draw nothing" in page and "<b>85 words</b> 4 layers" in page and "<b>21 words</b>" not in page
    assert drawn.width == 1400
