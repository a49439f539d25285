"""Image tokenizers at run time: numpy and onnxruntime, never torch."""

from icl_vision.tokenizers.ascii import AsciiTokenizer
from icl_vision.tokenizers.base import ImageTokenizer

__all__ = ["AsciiTokenizer", "ImageTokenizer"]
