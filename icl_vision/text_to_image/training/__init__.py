"""How the parts of text_to_image are trained: a denoiser, a mapper from an LLM to it, adapters in both.

    from icl_vision.text_to_image.training import load_config, train

    result = train(load_config("digits", data="mnist.npz"), "run")

Knows: configurations and stages. Refuses to know: drawing.
"""

from icl_vision.text_to_image.training.config import TextToImageConfig, load_config, shipped_configs
from icl_vision.text_to_image.training.launch import STAGES, TextToImageResult, train

__all__ = ["STAGES", "TextToImageConfig", "TextToImageResult", "load_config", "shipped_configs", "train"]
