"""How good is it: episodes, accuracies with their intervals, baselines, the few-shot benchmark.

Knows: measuring. Refuses to know: commands and pages of others.
"""

from icl_vision.evaluation.few_shot.benchmark import FewShotBenchmark
from icl_vision.evaluation.few_shot.config import SETTINGS, BenchmarkConfig, Estimate, Setting, parse_settings
from icl_vision.evaluation.few_shot.episodes.drawing import Episode, ImageFolder, Item
from icl_vision.evaluation.few_shot.episodes.sets import load_episodes, save_episodes
from icl_vision.evaluation.kit.metrics import Accuracy, exact_match, prefix_match, substring_match, wilson_interval

__all__ = [
    "SETTINGS",
    "Accuracy",
    "BenchmarkConfig",
    "Episode",
    "Estimate",
    "FewShotBenchmark",
    "ImageFolder",
    "Item",
    "Setting",
    "exact_match",
    "load_episodes",
    "parse_settings",
    "prefix_match",
    "save_episodes",
    "substring_match",
    "wilson_interval",
]
