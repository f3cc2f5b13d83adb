"""Distance, KID, inception score, precision and recall of one set of images against another."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iddpm.evaluation.classifier import class_probabilities, label_accuracy, pixel_features
from iddpm.evaluation.manifold import precision_recall
from iddpm.params import Evaluation

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class _Given(nn.Module):
    """Stands where torchmetrics expects a feature network: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def score_images(images: Images, reference: Images, evaluation: Evaluation) -> dict[str, float]:
    """Scores of uint8 images [N, H, W, C] against a reference [M, H, W, C] in the evaluation's feature space.

    frechet_distance (float64, covariance with ddof 1; of pixels, so never to be called FID), kid and its
    standard deviation over subsets, precision and recall.
    """
    samples, real = (torch.from_numpy(pixel_features(array)) for array in (images, reference))
    kid, kid_std = _seeded(
        evaluation.seed, kernel_distance, samples, real, evaluation.kid_subsets, evaluation.kid_subset_size
    )
    precision, recall = precision_recall(samples, real, evaluation.neighbours)
    return {
        "frechet_distance": frechet_distance(samples, real),
        "kid": kid,
        "kid_std": kid_std,
        "precision": precision,
        "recall": recall,
    }


def score_classes(
    images: Images, asked: Labels | None, real_images: Images, real_labels: Labels, evaluation: Evaluation
) -> dict[str, float]:
    """Scores by a classifier of the real training split: inception score and, if labels were asked for, accuracy."""
    probabilities = torch.from_numpy(class_probabilities(images, real_images, real_labels))
    score, deviation = _seeded(evaluation.seed, inception_score, probabilities, evaluation.inception_splits)
    scores = {"inception_score": score, "inception_score_std": deviation}
    if asked is not None:
        scores["label_accuracy"] = label_accuracy(images, asked, real_images, real_labels)
    return scores


def _seeded(seed: int, score: Callable[..., tuple[float, float]], *arguments: Any) -> tuple[float, float]:
    """torchmetrics draws subsets and splits from the global generator."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        torch.manual_seed(seed)
        return score(*arguments)


def frechet_distance(samples: Tensor, reference: Tensor) -> float:
    """Frechet distance of Gaussians fitted to float64 features [N, D] and [M, D]."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(samples.shape[1])).set_dtype(torch.float64)
    metric.update(reference, real=True)
    metric.update(samples, real=False)
    return float(metric.compute())


def kernel_distance(samples: Tensor, reference: Tensor, subsets: int, subset_size: int) -> tuple[float, float]:
    """KID (cubic polynomial kernel) as mean and standard deviation over random subsets."""
    from torchmetrics.image.kid import KernelInceptionDistance

    metric = KernelInceptionDistance(feature=_Given(samples.shape[1]), subsets=subsets, subset_size=subset_size)
    metric.set_dtype(torch.float64)
    metric.update(reference, real=True)
    metric.update(samples, real=False)
    mean, deviation = metric.compute()
    return float(mean), float(deviation)


def inception_score(probabilities: Tensor, splits: int) -> tuple[float, float]:
    """exp of the mean KL between p(y | x) [N, classes] and its average, mean and standard deviation over splits."""
    from torchmetrics.image.inception import InceptionScore

    metric = InceptionScore(feature=_Given(probabilities.shape[1]), splits=splits)
    metric.update(torch.log(probabilities.clamp(min=1e-12)))
    mean, deviation = metric.compute()
    return float(mean), float(deviation)
