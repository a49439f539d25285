"""How good is it: episodes, accuracies with their intervals, baselines, the few-shot benchmark.

Knows: measuring. Refuses to know: commands and pages of others.
"""

from icl_vision.evaluation.benchmark import FewShotBenchmark
from icl_vision.evaluation.benchmark_config import BenchmarkConfig, Estimate
from icl_vision.evaluation.episode_files import load_episodes, save_episodes
from icl_vision.evaluation.episodes import Episode, ImageFolder, Item
from icl_vision.evaluation.metrics import Accuracy, exact_match, prefix_match, substring_match, wilson_interval
from icl_vision.evaluation.settings import SETTINGS, Setting, parse_settings

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
