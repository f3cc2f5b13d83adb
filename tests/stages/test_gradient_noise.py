"""The gradient noise scale: right on a known problem, measured on real snapshots, refused where it has no meaning."""

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from iddpm.data import ShardFolder, open_source, write_shards
from iddpm.errors import UserError
from iddpm.params import Device, DigitsDataset, Model, Source
from iddpm.stages import gradient_noise
from iddpm.stages.gradient_noise import NoiseScale, gradient_noise_scale
from iddpm.stages.run import run_stage
from iddpm.training.loop import DiffusionTraining

from ..conftest import Project, assert_checked, make_project, tiny_params


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    dataset = DigitsDataset(source=Source.DIGITS)
    list(write_shards(open_source(dataset, Path("data/raw")), dataset, folder))
    return folder


def training_of(shards: Path, **settings: Any) -> DiffusionTraining:
    model = tiny_params()["models"]["digits"]
    model["training"] |= {"objective": "vlb"} | settings
    return DiffusionTraining(Model.model_validate_json(json.dumps(model)), shards, Device.CPU)


class KnownGradient:
    """Stands for a training whose sample gradients are N(0.1, 0.5^2) in each of 400 parameters."""

    def __init__(self, batch_size: int) -> None:
        self.training = SimpleNamespace(steps=0, batch_size=batch_size)
        self.stream = SimpleNamespace(epoch_size=1000)
        self.device = torch.device("cpu")
        self.network = torch.nn.Linear(400, 1, bias=False)

    def accumulate_gradient(self, step: int) -> None:
        noise = torch.randn(self.training.batch_size, 400, generator=torch.Generator().manual_seed(step))
        self.network.weight.grad = (0.1 + 0.5 * noise).mean(0, keepdim=True)


def measure(training: Any, batches: int) -> NoiseScale:
    *_, result = gradient_noise_scale(training, batches)
    assert result is not None
    return result


@pytest.mark.parametrize("batch_size", [1, 16])
def test_known_noise_scale_at_any_batch_size(batch_size: int) -> None:
    result = measure(KnownGradient(batch_size), 200)
    assert result.gradient_variance == pytest.approx(400 * 0.25, rel=0.05)
    assert result.squared_gradient == pytest.approx(400 * 0.01, rel=0.15)
    assert abs(result.noise_scale - 25) < 4 * result.standard_error
    assert 0 < result.standard_error < 5


class FewImages(KnownGradient):
    """40 images, whose gradients scatter so much that the noise scale is ten times their number."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.stream = SimpleNamespace(epoch_size=40)
        self.images = 0.05 + torch.randn(40, 400, generator=torch.Generator().manual_seed(0))
        self.images += 0.05 - self.images.mean(0)

    def accumulate_gradient(self, step: int) -> None:
        positions = [divmod(position, 40) for position in range(step * 8, step * 8 + 8)]
        orders = {epoch: torch.randperm(40, generator=torch.Generator().manual_seed(epoch)) for epoch, _ in positions}
        rows = torch.stack([orders[epoch][offset] for epoch, offset in positions])
        self.network.weight.grad = self.images[rows].mean(0, keepdim=True)


def test_few_images_hide_no_gradient() -> None:
    training = FewImages(8)
    scales = []
    for start in range(0, 100_000, 1000):
        training.training.steps = start
        scales.append(measure(training, 25))
    variance = 400 * float(training.images.var(0).mean()) * (1 - 8 / 40)  # batches without an image twice
    assert np.mean([scale.gradient_variance for scale in scales]) == pytest.approx(variance, rel=0.03)
    assert np.mean([scale.squared_gradient for scale in scales]) == pytest.approx(400 * 0.05**2, abs=1)


def test_too_few_batches() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        list(gradient_noise_scale(KnownGradient(1), 9))  # type: ignore[arg-type]


def test_a_model_has_one_scale_whatever_its_accumulation(shards: Path) -> None:
    scales = [measure(training_of(shards, microbatches=parts), 20) for parts in (1, 4)]
    assert scales[0].noise_scale == pytest.approx(scales[1].noise_scale, rel=1e-3)
    assert scales[0].gradient_variance > 0


def test_extra_measurements_are_not_paid_for(shards: Path) -> None:
    resampled = training_of(shards, timestep_sampling="loss_second_moment", extra_measurements=2)
    passes: list[int] = []
    resampled.network.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    measure(resampled, 10)
    assert passes == [16] * 10


NOISE = {"model": "digits", "dataset": "digits", "batches": 10}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The noise scale of the tiny model after 2 and after 4 steps."""
    project = make_project(tmp_path_factory.mktemp("noise") / "project")
    params = tiny_params()
    params["models"]["digits"]["training"]["snapshot_every"] = 2
    params["gradient_noises"] = {"vlb": NOISE}
    params["datasets"]["digits"]["images_per_shard"] = 100  # more shards than the training order holds at once
    project.write(params)
    for stage in ("shard digits", "train digits", "gradient-noise vlb"):
        run_stage(*stage.split(), project.root)
    return project


def files_of(project: Project) -> dict[str, bytes]:
    folder = project.root / "runs/gradient-noise/vlb"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "record.json"}


@pytest.mark.tools
def test_an_interruption_among_snapshots_goes_on(measured: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    uninterrupted, begun = files_of(measured), list[int]()

    def second_is_interrupted(training: DiffusionTraining, batches: int) -> Any:
        begun.append(batches)
        if len(begun) == 2:
            signal.raise_signal(signal.SIGTERM)
        return gradient_noise_scale(training, batches)

    monkeypatch.setattr(gradient_noise, "gradient_noise_scale", second_is_interrupted)
    with pytest.raises(SystemExit):
        run_stage("gradient-noise", "vlb", measured.root)
    run_stage("gradient-noise", "vlb", measured.root)
    assert len(begun) == 3 and files_of(measured) == uninterrupted
    assert uninterrupted.keys() == {"gradient_noise.csv", "gradient_noise.png", "gradient_noise.svg"}


@pytest.mark.tools
def test_all_snapshots_share_one_reading(measured: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before, files, read = files_of(measured), list[str](), ShardFolder.read
    monkeypatch.setattr(ShardFolder, "read", lambda folder, shard: files.append(shard.file) or read(folder, shard))
    run_stage("gradient-noise", "vlb", measured.root)
    assert sorted(files) == [f"train-{number:05d}.tar" for number in range(15)]
    assert files_of(measured) == before


@pytest.mark.tools
def test_no_more_images_at_once_than_a_worker_of_the_training_has(
    measured: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, before = measured.root / "params.yaml", (measured.root / "params.yaml").read_text()
    parts: list[int] = []

    def noted(training: DiffusionTraining, batches: int) -> Any:
        parts.append(training.training.microbatches)
        return gradient_noise_scale(training, batches)

    monkeypatch.setattr(gradient_noise, "gradient_noise_scale", noted)
    params.write_text(before + "compute: {workers: 4}\n")
    run_stage("gradient-noise", "vlb", measured.root)
    params.write_text(before)
    assert parts == [4, 4]


@pytest.mark.tools
def test_what_the_snapshots_do_not_fit_is_refused(measured: Project, tmp_path: Path) -> None:
    params, before = measured.root / "params.yaml", (measured.root / "params.yaml").read_text()
    params.write_text(before.replace("width: 8", "width: 16"))
    with pytest.raises(
        UserError, match=r"^params.yaml: models.digits.network.width is 16, but runs/models/digits/snap"
    ):
        run_stage("gradient-noise", "vlb", measured.root)
    params.write_text(before)

    snapshot, shards = (measured.root / path for path in ("runs/models/digits/snapshots/step-000000002", "data/shards"))
    snapshot.rename(tmp_path / "aside")
    with pytest.raises(UserError, match=r"snapshots/step-000000002: missing; `dvc repro gradient-noise@vlb` makes it"):
        run_stage("gradient-noise", "vlb", measured.root)
    (tmp_path / "aside").rename(snapshot)

    shutil.copytree(shards, tmp_path / "shards")
    index = json.loads((shards / "digits/index.json").read_text())
    (shards / "digits/index.json").write_text(json.dumps(index, indent=1))
    with pytest.raises(UserError, match="data/shards/digits: not the images that runs/models/digits was trained on"):
        run_stage("gradient-noise", "vlb", measured.root)
    shutil.rmtree(shards)
    (tmp_path / "shards").rename(shards)


EVERY = {"models.digits.training.snapshot_every": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_noises.x": NOISE} | EVERY, None),
        ({"gradient_noises.x": NOISE, "models.digits.training.snapshot_every": 4}, None),
        ({"gradient_noises.x": NOISE},
         "gradient_noises.x.model: digits keeps no snapshots: set models.digits.training.snapshot_every"),
        ({"gradient_noises.x": NOISE | {"model": "none"}}, "gradient_noises.x.model: 'none' is not in models (digits)"),
        ({"gradient_noises.x": NOISE | {"model": "m"},
          "mixtures.m": {"middle": "digits", "ends": "digits", "within": 2}}, "noises.x.model: 'm' is not in models"),
        ({"gradient_noises.x": NOISE | {"dataset": "none"}} | EVERY, "noises.x.dataset: 'none' is not in data"),
        ({"gradient_noises.x": NOISE | {"dataset": "other"}, "datasets.other": {"source": "digits"}} | EVERY,
         "gradient_noises.x.dataset: other, but digits is trained on digits"),
        ({"gradient_noises.x": NOISE | {"batches": 5}} | EVERY, "noises.x.batches: input should be greater than"),
        ({"gradient_noises.x": NOISE | {"batches": 12}} | EVERY, "noises.x.batches: input should be a multiple"),
        ({"gradient_noises.x": NOISE | {"snapshots": 2}} | EVERY, "gradient_noises.x.snapshots: unknown parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_named(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    assert_checked(tmp_path, changes, message)
