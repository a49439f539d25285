"""How good is it: episodes, accuracies with their intervals, baselines.

Knows: measuring. Refuses to know: commands and pages of others.
"""

from icl_vision.evaluation.episodes import Episode, ImageFolder, Item, load_episodes, save_episodes
from icl_vision.evaluation.metrics import Accuracy, exact_match, prefix_match, substring_match, wilson_interval

__all__ = [
    "Accuracy",
    "Episode",
    "ImageFolder",
    "Item",
    "exact_match",
    "load_episodes",
    "prefix_match",
    "save_episodes",
    "substring_match",
    "wilson_interval",
]
