"""Scores hold no second copy of the features: those of a large reference take most of the memory there is."""

import os
import subprocess
import sys

import pytest

from ..conftest import PEAK_KIB

SCORE = (
    PEAK_KIB
    + """
import sys
import numpy as np
import torch
import torchmetrics.image.kid
from iddpm.evaluation import ScoredSet, score
from iddpm.evaluation.images import ArrayImages
from iddpm.params import ScoreSettings

def drawn(count):
    images = ArrayImages(np.zeros((count, 1, 1, 1), np.uint8))
    return ScoredSet(torch.randn(count, 256), None, None, images)


settings = ScoreSettings(features="module/x", manifold_reference=50, kid_subset_size=20, bootstrap=100)
score(drawn(100), drawn(100), settings)  # what libraries take once
samples, reference = drawn(100), drawn(int(sys.argv[1]))
before = peak_kib()
score(samples, reference, settings)
print((peak_kib() - before) / 2**10)
"""
)


@pytest.mark.tools
@pytest.mark.skipif(sys.platform != "linux", reason="counts the kernel's way")
def test_memory_beside_the_features_is_a_fraction_of_them() -> None:
    images = 150_000
    # what is freed is given back, so that the peak is what is held at once
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCORE, str(images)]
    ended = subprocess.run(command, env=given_back, capture_output=True, text=True, check=True)
    features = images * 256 * 4 / 2**20
    assert float(ended.stdout) < features / 2
