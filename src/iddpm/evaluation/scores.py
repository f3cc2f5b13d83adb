"""Distance, KID, inception score, precision and recall of one set of images against another."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iddpm.data import Card
from iddpm.evaluation.classifier import class_probabilities, pixel_features
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


def score_images(
    images: Images, reference: Images, reference_labels: Labels, card: Card, evaluation: Evaluation
) -> dict[str, float]:
    """Scores of uint8 images [N, H, W, C] against a reference [M, H, W, C] in the evaluation's feature space.

    frechet_distance (float64, covariance with ddof 1; of pixels, so never to be called FID), kid and its
    standard deviation over subsets, precision, recall, and the inception score where the data has labels.
    """
    samples, real = (torch.from_numpy(pixel_features(array)) for array in (images, reference))
    scores = {"frechet_distance": frechet_distance(samples, real)}
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws subsets and splits from the global generator
        torch.manual_seed(evaluation.seed)
        scores["kid"], scores["kid_std"] = kernel_distance(
            samples, real, evaluation.kid_subsets, evaluation.kid_subset_size
        )
        if card.classes:
            probabilities = class_probabilities(images, reference, reference_labels)
            scores["inception_score"], scores["inception_score_std"] = inception_score(
                torch.from_numpy(probabilities), evaluation.inception_splits
            )
    scores["precision"], scores["recall"] = precision_recall(samples, real, evaluation.neighbours)
    return scores


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
