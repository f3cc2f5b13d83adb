"""Scores of image sets, and figures."""

from iddpm.evaluation.nearest import Nearest, nearest_figure
from iddpm.evaluation.scores import ScoredSet, Scores, score

__all__ = ["Nearest", "ScoredSet", "Scores", "nearest_figure", "score"]
