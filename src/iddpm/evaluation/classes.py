"""Scores by class: the inception score, and whether an image shows the class that was asked for."""

import math
import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Labels = npt.NDArray[np.int64]

SMALL = 64
"""Grey levels of an image, as of scikit-learn's digits; the embedded classifier of pixels is for no more."""
FOLDS = 5


class _Given(nn.Module):
    """Stands where torchmetrics expects a network: its outputs are computed already."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs


def inception_score(probabilities: Tensor, splits: int, seed: int) -> tuple[float, float | None]:
    """exp of the mean KL between p(y | x) [N, classes] and its average (Salimans et al. 2016).

    Mean and standard deviation (ddof 0) over `splits` parts of a seeded permutation; no deviation of one part.
    ValueError when the images do not part into so many.
    """
    from torchmetrics.image.inception import InceptionScore

    if len(probabilities.chunk(splits)) < splits:
        raise ValueError(f"inception_splits: {len(probabilities)} images are too few for {splits} parts")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        warnings.filterwarnings("ignore", message=".*degrees of freedom")
        torch.default_generator.manual_seed(seed)  # torchmetrics permutes with it
        metric = InceptionScore(feature=_Given(), splits=splits)
        metric.update(_log(probabilities))
        mean, deviation = metric.compute()
    # torchmetrics' deviation has ddof 1
    return float(mean), float(deviation) * math.sqrt(1 - 1 / splits) if splits > 1 else None


def resampled_inception_score(probabilities: Tensor, counts: Tensor) -> Tensor:
    """The score without splits, [B], of resampled images: p(y | x) [N, classes], counts [B, N] that add up to N."""
    weights = counts / len(probabilities)
    average = weights @ probabilities.double()
    entropy = (probabilities * _log(probabilities)).sum(1)
    return (weights @ entropy - (average * _log(average)).sum(1)).exp()


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.double().clamp(min=1e-12).log()


def vote(neighbour_labels: Labels) -> Labels:
    """The most frequent of each row's labels [N, k], nearest first; of several, that of the nearest neighbour."""
    classes, codes = np.unique(neighbour_labels, return_inverse=True)
    votes = np.zeros((len(neighbour_labels), len(classes)))
    rows = np.arange(len(neighbour_labels))
    for rank, column in enumerate(codes.reshape(neighbour_labels.shape).T):
        votes[rows, column] += 1 + 2.0 ** -(rank + 2)  # what decides a tie adds up to less than a vote
    voted: Labels = classes[votes.argmax(axis=1)]
    return voted


def can_learn_classes(dimensions: int, labels: Labels | None) -> bool:
    """Whether `small_image_probabilities` has a classifier of images with so many values."""
    if labels is None or dimensions > SMALL:
        return False
    images_per_class = np.unique(labels, return_counts=True)[1]
    return len(images_per_class) > 1 and bool(images_per_class.min() >= FOLDS)


def small_image_probabilities(samples: Tensor, reference: Tensor, labels: Labels) -> Tensor | None:
    """p(y | x) float64 [N, classes] of images [N, D] under a support vector machine, trained on a labelled reference.

    Features are grey levels in [0, 1]; of scikit-learn's digits it gets 97 % right. Calibrated by cross-validation.
    None for more than SMALL features, or one class, or when a class has fewer images than there are folds.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    if not can_learn_classes(reference.shape[1], labels):
        return None
    # gamma 0.001 on grey levels 0..16, scikit-learn's example for its digits, is 0.256 on [0, 1]
    classifier = CalibratedClassifierCV(SVC(gamma=0.256, C=10.0), cv=FOLDS, ensemble=False)
    classifier.fit(reference.cpu().numpy(), labels)
    return torch.from_numpy(classifier.predict_proba(samples.cpu().numpy())).double().to(samples.device)
