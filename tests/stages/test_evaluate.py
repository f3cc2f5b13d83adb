"""What an evaluation compares: images of one size, or a reference averaged to it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from iddpm.data import Card
from iddpm.errors import UserError
from iddpm.stages.evaluate import averaged, refuse_other_images
from iddpm.stages.run import run_stage

from ..conftest import Project, write_tiny_params


def test_averages_are_on_grey_levels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 8, 8, 1), dtype=np.uint8)
    small = averaged(images, 4)
    means = images.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
    assert small.shape == (5000, 4, 4, 1) and small.dtype == np.uint8
    assert np.abs(small - means).max() <= 0.5
    assert averaged(images, 8) is images


@pytest.mark.parametrize("shape", [(2, 3, 3, 1), (2, 16, 16, 1), (2, 8, 8, 3), (2, 4, 8, 1)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    card = Card(source="digits", description="", channels=1, size=8, classes=0, counts={})
    with pytest.raises(UserError, match=r"evaluations.x.samples: images of \dx?.* cannot be compared with 8x8 and 1"):
        refuse_other_images("evaluations.x.samples", np.zeros(shape, np.uint8), card)


@pytest.mark.tools
@pytest.mark.timeout(600)
def test_a_smaller_model_is_scored_against_its_dataset_averaged(project: Project) -> None:
    changes = {
        "models.digits.size": 4,
        "models.digits.network.attention_sizes": [],
        "surrogate_samplings": {},
        "evaluations.digits": {"samples": "ancestral", "dataset": "digits", "kid_subset_size": 10},
    }
    path = write_tiny_params(project.root, changes)
    params = yaml.safe_load(path.read_text())
    del params["evaluations"]["ancestral"], params["evaluations"]["sngan-10"]
    params["likelihoods"] = {}
    project.write(params)
    for stage in ("shard digits", "train digits", "surrogate sngan", "sample ancestral", "evaluate digits", "report"):
        run_stage(*(stage + " ").split(" ")[:2], project.root)
    protocol = json.loads((project.root / "runs/metrics/digits.protocol.json").read_text())
    assert protocol["resize"] == "area average 8 -> 4" and protocol["reference"]["images"] == 1498
    scores = json.loads((project.root / "runs/metrics/digits.json").read_text())
    assert {"inception_score", "label_accuracy", "frechet_distance"} <= scores.keys()
    report = Path(project.root / "runs/report/report.md").read_text()
    assert "network evaluations" in report and not re.search("surrogate evaluations", report)
