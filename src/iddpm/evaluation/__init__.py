"""Scores of image sets, and figures."""

from iddpm.evaluation.classifier import label_accuracy
from iddpm.evaluation.scores import score_images

__all__ = ["label_accuracy", "score_images"]
