"""How tokenizers are trained: configuration, data, the loop, checkpoints.

    from icl_vision.training import load_config, load_model, train

    result = train(load_config("spae-digits-32", ["data.path=mnist.npz"]), "run")
    model = load_model("run")

Knows: data, the loop, configurations. Refuses to know: the nets, which are in ``models``.
"""

from icl_vision.training.building import load_model
from icl_vision.training.config import TrainConfig, load_config, shipped_configs
from icl_vision.training.families import Family, register
from icl_vision.training.launch import train
from icl_vision.training.loop import TrainResult
from icl_vision.training.step import Adversary, TrainingStep

__all__ = [
    "Adversary",
    "Family",
    "TrainConfig",
    "TrainResult",
    "TrainingStep",
    "load_config",
    "load_model",
    "register",
    "shipped_configs",
    "train",
]
