"""Scores of image sets, and figures."""

from iddpm.evaluation.classifier import CLASSIFIED_SOURCES, label_accuracy
from iddpm.evaluation.scores import score_classes, score_images

__all__ = ["CLASSIFIED_SOURCES", "label_accuracy", "score_classes", "score_images"]
