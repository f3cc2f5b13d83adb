"""The classifier embedded for small labelled datasets: a support vector machine on pixels."""

from typing import Any

import numpy as np
import numpy.typing as npt

CLASSIFIED_SOURCES = ("digits",)
"""Sources whose images this classifier tells apart well enough to judge samples by it."""

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def pixel_features(images: Images) -> npt.NDArray[np.float64]:
    """Grey levels in [0, 1], flattened: float64 [N, H * W * C]."""
    return images.reshape(len(images), -1).astype(np.float64) / 255.0


def label_accuracy(images: Images, asked: Labels, real_images: Images, real_labels: Labels) -> float:
    """Fraction of images that get the label they were asked for from an SVC trained on the real training split."""
    classifier = _svc().fit(pixel_features(real_images), real_labels)
    return float((classifier.predict(pixel_features(images)) == asked).mean())


def class_probabilities(images: Images, real_images: Images, real_labels: Labels) -> npt.NDArray[np.float64]:
    """p(y | x) float64 [N, classes] of the SVC, calibrated by cross-validation on the real images."""
    from sklearn.calibration import CalibratedClassifierCV

    classifier = CalibratedClassifierCV(_svc(), ensemble=False).fit(pixel_features(real_images), real_labels)
    probabilities: npt.NDArray[np.float64] = classifier.predict_proba(pixel_features(images))
    return probabilities


def _svc() -> Any:
    from sklearn.svm import SVC

    # gamma 0.001 on grey levels 0..16, scikit-learn's example for its digits, is 0.256 on [0, 1]
    return SVC(gamma=0.256, C=10.0)
