"""processor.py: every field of an image processor is repeated, or refused by its name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from icl_vision.errors import ArtefactError, UsageError
from icl_vision.models.words.clip_words import load_clip
from icl_vision.models.words.processor import PixelRule, agreement, read_processor

SMALL = importlib.util.spec_from_file_location(
    "saved_clips", Path(__file__).parents[2] / "exporters" / "test_words_clip.py"
)
assert SMALL is not None and SMALL.loader is not None
saved_clips = importlib.util.module_from_spec(SMALL)
SMALL.loader.exec_module(saved_clips)

CLIP = transformers.CLIPImageProcessorPil
SIGLIP = transformers.SiglipImageProcessorPil
SIZES: dict[str, Any] = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}


def photo(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    wave = np.stack([np.sin(x / 17), np.cos(y / 11), np.sin((x + y) / 23)], axis=2)
    return Image.fromarray(((wave + 1) * 127).astype(np.uint8))


def difference(processor: Any, rule: PixelRule, picture: Image.Image) -> float:
    """The mean difference of the model's input, in its own standard deviations."""
    theirs = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"])
    ours = rule.input([picture])
    assert theirs.shape == ours.shape
    return float(np.abs(theirs - ours).mean() / theirs.std())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
        {"rescale_factor": 1.0},
        {"do_rescale": False},
        {"do_rescale": False, "rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"image_mean": [0.1, 0.5, 0.9], "image_std": [0.5, 0.2, 1.0]},
        {"do_convert_rgb": False},
        {"resample": 2},
        {"resample": 1},
        {"resample": 0},
        {"size": {"shortest_edge": 32}},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False},
        {"size": {"height": 32, "width": 32}},
    ],
    ids=str,
)
def test_every_field_is_repeated(options: dict[str, Any]) -> None:
    processor = CLIP(**{**SIZES, **options})
    rule = read_processor("mine", processor)
    exact = processor.size.get("height") is not None
    for picture in (photo(64, 64), photo(90, 60), photo(60, 90), photo(33, 200)):
        # A crop is cut from where it is, not from a picture resized to whole pixels first.
        assert difference(processor, rule, picture) < (0.02 if exact or picture.width == picture.height else 0.2), (
            picture.size
        )


def test_siglip() -> None:
    for options in ({}, {"rescale_factor": 1 / 127.5}, {"do_normalize": False}, {"resample": 2}):
        processor = SIGLIP(size={"height": 32, "width": 32}, **options)
        rule = read_processor("mine", processor)
        assert difference(processor, rule, photo(90, 60)) < 0.01


def test_the_usual_processor_is_as_it_was() -> None:
    rule = read_processor("mine", CLIP())
    assert (rule.preprocessing.size, rule.preprocessing.short, rule.preprocessing.resize) == (224, 224, "crop")
    assert rule.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073), rel=1e-12)
    assert rule.std == pytest.approx((0.26862954, 0.26130258, 0.27577711), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"do_resize": False}, "do_resize=False"),
        ({"resample": 4}, "resample=.*4"),
        ({"resample": 5}, "resample=.*5"),
        ({"resample": "bicubic"}, "resample='bicubic', which is none of"),
        ({"resample": None}, "resample=None"),
        ({"rescale_factor": 0}, "rescale_factor=0"),
        ({"rescale_factor": "1/255"}, "rescale_factor='1/255', which must be a number"),
        ({"size": {"shortest_edge": float("nan")}}, "size=.*no whole number"),
        ({"size": {"height": float("inf"), "width": 32}}, "size=.*neither a square"),
        ({"rescale_factor": -1.0}, "rescale_factor=-1"),
        ({"image_mean": [0.5]}, r"image_mean=\[0.5\]"),
        ({"image_std": [1, 0, 1]}, "image_std="),
        ({"image_std": [1, float("nan"), 1]}, "image_std="),
        ({"do_center_crop": False}, "size=.*40.*without a centre crop"),
        ({"crop_size": {"height": 32, "width": 20}}, "crop_size=.*no square"),
        ({"crop_size": {"height": 64, "width": 64}}, "crop_size=.*larger than the resized picture"),
        ({"size": {"height": 40, "width": 40}}, "crop_size=.*a part of a picture squashed to 40"),
        ({"size": {"height": 40, "width": 30}}, "size="),
        ({"size": {"shortest_edge": 40, "longest_edge": 80}}, "size=.*neither"),
        ({"size": {"longest_edge": 80}}, "size=.*neither"),
        ({"do_pad": True}, "do_pad=True, which is not repeated here"),
        ({"pad_size": {"height": 64, "width": 64}}, "pad_size="),
        ({"do_flip_channel_order": True}, "do_flip_channel_order=True"),
        ({"crop_pct": 0.875}, "crop_pct=0.875"),
        ({"do_thumbnail": True}, "do_thumbnail=True"),
        ({"something_new": "yes"}, "something_new='yes'"),
    ],
    ids=str,
)
def test_what_is_not_repeated_is_refused_by_its_name(options: dict[str, Any], field: str) -> None:
    class Processor:
        def to_dict(self) -> dict[str, Any]:
            return {**CLIP(**SIZES).to_dict(), **options}

    with pytest.raises(UsageError, match=f"the image processor of 'mine' .Processor. has {field}"):
        read_processor("mine", Processor())


@pytest.mark.parametrize("field", ["do_pad", "do_flip_channel_order", "do_thumbnail"])
def test_what_is_switched_off_is_no_reason_to_refuse(field: str) -> None:
    class Processor:
        def to_dict(self) -> dict[str, Any]:
            return {**CLIP(**SIZES).to_dict(), field: False, "pad_size": None}

    assert read_processor("mine", Processor()).preprocessing.size == 32


@pytest.mark.parametrize("save", [saved_clips._save_clip, saved_clips._save_siglip])
@pytest.mark.parametrize("factor", [1 / 255, 1 / 127.5, 1.0])
def test_features_are_those_of_the_processor_itself(tmp_path: Path, save: Any, factor: float) -> None:
    save(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    processor.rescale_factor = factor
    processor.save_pretrained(tmp_path)
    parts = load_clip(tmp_path)
    rule = PixelRule(parts.preprocessing, parts.mean, parts.std)
    theirs = processor(images=photo(48, 48), return_tensors="np")["pixel_values"]
    assert np.allclose(rule.input([photo(48, 48)]), theirs, rtol=0, atol=np.abs(theirs).max() * 0.02)


def test_a_processor_that_does_what_no_field_says_is_refused(tmp_path: Path) -> None:
    rule = read_processor("mine", CLIP(**SIZES))

    class Inverts(CLIP):  # type: ignore[misc, valid-type]  # the package has no types
        def __call__(self, *args: Any, **options: Any) -> Any:
            found = super().__call__(*args, **options)
            found["pixel_values"] = -found["pixel_values"]
            return found

    flat = lambda pixels: pixels.reshape(len(pixels), -1)  # noqa: E731  # a name for one line, used in this test alone
    assert agreement(rule, CLIP(**SIZES), flat) > 0.97
    with pytest.raises(ArtefactError, match="agree to a cosine of -.* only, below 0.97"):
        agreement(rule, Inverts(**SIZES), flat)
    with pytest.raises(ArtefactError, match=r"gives pixels \[4, 3, 64, 64\]"):
        agreement(rule, CLIP(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}), flat)
