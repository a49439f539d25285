"""What a transformers image processor does to a picture, repeated by our own preprocessing or refused.

Every field of the processor is either repeated (size, crop, filter, rescaling, normalisation), known to change nothing
for one RGB picture, or refused by its name: a field that is passed over gives other features without a word. What was
read is then held against the processor itself, on pictures (``agreement``).

Knows: the fields of CLIP's, SigLIP's and similar processors. Refuses to know: models, graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.errors import ArtefactError, UsageError
from icl_vision.tokenizers.pixels import Preprocessing

LEAST_COSINE: Final = 0.97
"""Of features by our pixels with those by the processor's own: the crops differ by parts of a pixel, no more."""

_FILTERS: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # transformers writes Pillow's numbers
_REPEATED: Final = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize "
    "image_mean image_std".split()
)
_NEUTRAL: Final = frozenset(
    "image_processor_type feature_extractor_type processor_class _processor_class do_convert_rgb return_tensors "
    "data_format input_data_format device disable_grouping model_input_names default_to_square use_fast "
    "_valid_processor_keys backend".split()
)


@dataclass(frozen=True)
class PixelRule:
    """How a model wants its pixels. preprocessing: to the square. mean, std: of pixels in [0, 1], three numbers each;
    whatever rescaling the processor does is folded into them: ``(pixels / 255 - mean) / std`` is the model's input."""

    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def input(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
        """float32 [B, 3, S, S], as the graph computes it."""
        pixels = self.preprocessing.batch(images).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        mean, std = (np.asarray(value, dtype=np.float32).reshape(1, 3, 1, 1) for value in (self.mean, self.std))
        return np.asarray((pixels - mean) / std, dtype=np.float32)


def read_processor(name: str, processor: Any) -> PixelRule:
    """The rule of an image processor.

    name: the model's, for messages.

    Raises:
        UsageError: a field with a value that is not repeated here; the message names it.
    """
    fields = dict(processor.to_dict())
    kind = type(processor).__name__

    def refused(field: str, why: str) -> UsageError:
        return UsageError(
            f"the image processor of {name!r} ({kind}) has {field}={fields.get(field)!r}, {why}: what it does is "
            "neither a square resize nor a resize of the short side and a centre crop, scaled and normalised; save the "
            "model with such a processor"
        )

    for field, value in fields.items():
        # False and nothing say that something is not done; that is so here as well.
        if field not in _REPEATED | _NEUTRAL and value not in (None, False, {}, []):
            raise refused(field, "which is not repeated here")
    if not fields.get("do_resize", True):
        raise refused("do_resize", "and without it pictures keep sizes of their own")
    preprocessing = _square(fields, refused)
    factor = fields.get("rescale_factor") if fields.get("do_rescale", True) else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not (math.isfinite(factor) and factor > 0):
        raise refused("rescale_factor", "which must be a number above 0")
    mean, std = (0.0,) * 3, (1.0,) * 3
    if fields.get("do_normalize", True):
        mean, std = (_three(fields, field, refused) for field in ("image_mean", "image_std"))
        if not all(std):
            raise refused("image_std", "by which nothing can be divided")
    # The processor computes (pixels * factor - mean) / std; for pixels in [0, 1] that is this mean and std.
    whole = 255 * factor
    return PixelRule(preprocessing, tuple(value / whole for value in mean), tuple(value / whole for value in std))


def _square(fields: Mapping[str, Any], refused: Callable[[str, str], UsageError]) -> Preprocessing:
    size = _plain(fields.get("size"))
    number = _whole(fields.get("resample"))
    filter = None if number is None else _FILTERS.get(number)
    if filter is None:
        raise refused("resample", f"which is none of {', '.join(f'{n} ({one})' for n, one in _FILTERS.items())}")
    crop = _plain(fields.get("crop_size")) if fields.get("do_center_crop", False) else None
    side = None
    if crop is not None:
        side = _whole(crop.get("height"))
        if set(crop) != {"height", "width"} or side is None or side != _whole(crop.get("width")):
            raise refused("crop_size", "which is no square of whole pixels")
    if set(size) == {"shortest_edge"}:
        short = _whole(size["shortest_edge"])
        if short is None:
            raise refused("size", "which is no whole number of pixels")
        if side is None:
            raise refused("size", "and without a centre crop pictures keep shapes of their own")
        if side > short:
            raise refused("crop_size", f"which is larger than the resized picture ({short}) and would be padded")
        return Preprocessing(side, "crop", filter, short=short)
    height = _whole(size.get("height"))
    if set(size) != {"height", "width"} or height is None or height != _whole(size.get("width")):
        raise refused("size", "which is neither a square {height, width} nor a {shortest_edge}")
    if side is not None and side != height:
        raise refused("crop_size", f"a part of a picture squashed to {height} pixels")
    return Preprocessing(height, "squash", filter)


def agreement(rule: PixelRule, processor: Any, features: Callable[[npt.NDArray[np.float32]], Any]) -> float:
    """The least cosine of features by our pixels with features by the processor's own, over pictures of several shapes.

    features: float32 [B, 3, S, S] -> [B, D].

    Raises:
        ArtefactError: it is below ``LEAST_COSINE``: something is done that no field says.
    """
    pictures = _pictures()
    theirs = np.concatenate(
        [np.asarray(processor(images=picture, return_tensors="np")["pixel_values"]) for picture in pictures]
    )
    ours = rule.input(pictures)
    if theirs.shape != ours.shape:
        raise ArtefactError(
            f"the image processor {type(processor).__name__} gives pixels {list(theirs.shape)} where "
            f"{list(ours.shape)} were read from its fields; this model cannot be built on"
        )
    own, other = (np.asarray(features(values), dtype=np.float64) for values in (ours, theirs.astype(np.float32)))
    cosine = (own * other).sum(1) / (np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1))
    least = float(cosine.min())
    if not least >= LEAST_COSINE:
        raise ArtefactError(
            f"features by the image processor {type(processor).__name__} itself and by what was read from its fields "
            f"agree to a cosine of {least:.3f} only, below {LEAST_COSINE}; this model cannot be built on"
        )
    return least


def _pictures() -> list[Image.Image]:
    """Smooth pictures, wide, tall and square, large and small."""
    pictures = []
    for number, (width, height) in enumerate([(96, 64), (300, 500), (640, 360), (40, 40)]):
        coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pictures.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return pictures


def _plain(value: Any) -> dict[str, Any]:
    """A processor's size as a dict of what it says; {} where it says nothing of that form."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"height": value, "width": value}
    try:
        return {key: one for key, one in dict(value or {}).items() if one is not None}
    except (TypeError, ValueError):
        return {}


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 and value % 1 == 0):
        return None
    return int(value)


def _three(
    fields: Mapping[str, Any], field: str, refused: Callable[[str, str], UsageError]
) -> tuple[float, float, float]:
    value = fields.get(field)
    numbers = [value] * 3 if isinstance(value, int | float) else list(value or ())
    if len(numbers) != 3 or not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        raise refused(field, "which must be three numbers")
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))
