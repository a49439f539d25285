"""Probabilities that mean what they say: maps from an LLM's scores to calibrated probabilities, fitted, kept, measured.

Knows: scores of labels, maps that keep their order, how well shares fit outcomes. Refuses to know: images, prompts,
how an LLM is asked.
"""

from icl_vision.probabilities.fitting import fit_map, fit_outcomes
from icl_vision.probabilities.maps import ProbabilityMap
from icl_vision.probabilities.measuring import Reliability, brier_score, reliability

__all__ = ["ProbabilityMap", "Reliability", "brier_score", "fit_map", "fit_outcomes", "reliability"]
