"""Anything a user calls an image becomes RGB: opened with suspicion, of any depth, alone or in a folder.

Knows: which names are public. Refuses to know: how any of it works.
"""

from icl_vision.images.folders import IMAGE_SUFFIXES, list_images
from icl_vision.images.opening import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    ImageSource,
    is_image_source,
    iter_images,
    load_image,
    load_images,
)

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageSource",
    "is_image_source",
    "iter_images",
    "list_images",
    "load_image",
    "load_images",
]
