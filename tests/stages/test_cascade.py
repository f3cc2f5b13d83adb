"""Cascades and reconstructions: what upsamplers make of samples and of real images."""

import csv
import json
import re
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iddpm.data import ShardFolder
from iddpm.diffusion import Sampler
from iddpm.errors import UserError
from iddpm.evaluation.fidelity import fidelity
from iddpm.evaluation.grid import enlarged
from iddpm.evaluation.kernel import paired_kernel_distance
from iddpm.params import Weights
from iddpm.randomness import PositionalRandom
from iddpm.stages import draw as drawing
from iddpm.stages.draw import LowResolution, draw
from iddpm.stages.models import DiffusionModel, Images
from iddpm.stages.publish import register_model
from iddpm.stages.run import run_stage

from ..conftest import Project, make_project, tiny_params
from .test_draw import write_model
from .test_pipeline import repro, run_here, would_run

COUNT, LEVEL = 7, 0.25
LABELS = np.arange(COUNT, dtype=np.int64)
LOW_RES = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def upsampler(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    upsampling = {"low_size": 4, "noise_augmentation": 0.5}
    return DiffusionModel(write_model(tmp_path_factory.mktemp("models") / "up", {"upsampling": upsampling}, seed=1))


def upsampled(
    model: DiffusionModel, images: Images = LOW_RES, labels: Any = LABELS, level: float = LEVEL, **settings: Any
) -> Any:
    low_res = LowResolution(images, level)
    return draw(model, len(images), steps="3", labels=labels, low_res=low_res, **settings).images.astype(int)


@pytest.mark.parametrize("level", [0.0, LEVEL])
@pytest.mark.parametrize("sampler", Sampler)
def test_an_upsampled_image_depends_on_its_own_alone(upsampler: DiffusionModel, sampler: Sampler, level: float) -> None:
    """Its low-resolution image, its label and its index; not on the other images, nor on the batch size."""
    settings = {"sampler": sampler, "level": level}
    together = upsampled(upsampler, **settings)
    others, other_labels = 255 - LOW_RES, (LABELS + 1) % 10
    others[3], other_labels[3] = LOW_RES[3], LABELS[3]
    for same in (
        upsampled(upsampler, batch_size=2, **settings)[3],
        upsampled(upsampler, LOW_RES[:4], LABELS[:4], **settings)[3],
        upsampled(upsampler, others, other_labels, **settings)[3],
    ):
        assert np.abs(together[3] - same).max() <= 1  # a batch's arithmetic may round differently
    for other in (
        upsampled(upsampler, others, LABELS, **settings)[2],
        upsampled(upsampler, LOW_RES, other_labels, **settings)[2],
        upsampled(upsampler, seed=1, **settings)[2],
    ):
        assert np.abs(together[2] - other).max() > 1
    alike = upsampled(upsampler, LOW_RES[:1].repeat(3, 0), LABELS[:1].repeat(3, 0), **settings)
    assert len(np.unique(alike.reshape(3, -1), axis=0)) == 3


def test_the_network_is_shown_noise_as_in_training(upsampler: DiffusionModel) -> None:
    """Of the standard deviation that it is told; the noise of the chain is not that of a sampling of the same seed."""
    images = np.full((500, 4, 4, 1), 128, dtype=np.uint8)
    seen: list[dict[str, Tensor]] = []
    hook = upsampler.network.register_forward_pre_hook(
        lambda network, inputs, told: seen.append({"x": inputs[0], **told}), with_kwargs=True
    )
    for level in (LEVEL, 0.0):
        upsampled(upsampler, images, np.zeros(500, dtype=np.int64), level, batch_size=500)
    hook.remove()
    augmented, plain = seen[0], seen[-1]
    assert plain["noise_level"] is None and augmented["noise_level"].unique().tolist() == [LEVEL]
    noise = augmented["low_res"] - plain["low_res"]
    assert noise.std().item() == pytest.approx(LEVEL, rel=0.05) and abs(noise.mean().item()) < LEVEL / 20
    assert torch.equal(seen[1]["low_res"], augmented["low_res"])  # one draw for all steps
    start = PositionalRandom(0, "sampling/start").normal(torch.arange(500), (1, 8, 8))
    assert abs(torch.corrcoef(torch.stack([augmented["x"].flatten(), start.flatten()]))[0, 1].item()) < 0.05


def test_what_cannot_be_upsampled_is_named(upsampler: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="up: upsamples 4x4 pixels and 1 channels; these images have 8x8 and 1"):
        upsampled(upsampler, enlarged(LOW_RES, 8))
    with pytest.raises(UserError, match="plain: no upsampler"):
        upsampled(DiffusionModel(write_model(tmp_path / "plain")))


def test_pixels_are_repeated_as_evenly_as_they_can_be() -> None:
    images = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert enlarged(images, 4)[0, :, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert enlarged(images, 3)[0, :, :, 0].tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3]]


def test_fidelity_of_known_images() -> None:
    random = np.random.default_rng(0)
    originals = random.integers(50, 200, (70, 16, 16, 3), dtype=np.uint8)  # more than are compared at once
    shifted = originals + 10
    shifted[0] = originals[0]
    same = fidelity(shifted, originals)
    assert same.psnr[0] == np.inf and same.ssim[0] == pytest.approx(1)
    assert same.psnr[1:] == pytest.approx(20 * np.log10(255 / 10)) and (same.ssim[1:] < 1).all()
    flat, other = (np.full((1, 16, 16, 1), grey, dtype=np.uint8) for grey in (100, 120))
    constant = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + constant) / (100**2 + 120**2 + constant)  # of images without structure
    assert fidelity(flat, other).ssim == pytest.approx([expected], rel=1e-6)
    noise = [
        np.clip(originals + random.normal(0, level, originals.shape), 0, 255).astype(np.uint8) for level in (5, 40)
    ]
    near, far = (fidelity(images, originals) for images in noise)
    assert (near.ssim > far.ssim).all() and (near.psnr > far.psnr).all()


IMAGES, SIZE_OF_BATCH, LEARNED = 30, 8, 100
NO_ATTENTION = {"attention_sizes": []}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A base model at 4 pixels, an upsampler to 8, and what is drawn from them, known to dvc."""
    project = make_project(tmp_path_factory.mktemp("cascade") / "project")
    project.write(cascade_params())
    assert run_here(project) == EVERYTHING
    return project


EVERYTHING = {
    "shard@digits", "train@base", "train@up", "sample@small", "cascade@large", "evaluate@large", "reconstruct@real",
    "report",
}  # fmt: skip


def cascade_params(**changes: Any) -> dict[str, Any]:
    """Changes by dotted key, with __ in the place of the dots."""
    params = tiny_params() | {group: {} for group in ("surrogates", "surrogate_samplings", "likelihoods")}
    digits = params["models"]["digits"]
    snapshots = digits["training"] | {"snapshot_every": 2, "ema_decay": 0.5}
    learning = digits["training"] | {"steps": LEARNED, "batch_size": 64, "learning_rate": 5.0e-3, "ema_decay": 0.9}
    learning["checkpoint_every"] = LEARNED  # each is synced to the disk
    diffusion = {"timesteps": 20, "mean": "x_start"}
    params["models"] = {
        "base": digits | {"size": 4, "network": digits["network"] | NO_ATTENTION, "training": snapshots},
        "up": digits
        | {
            "diffusion": diffusion,
            "upsampling": {"low_size": 4, "noise_augmentation": 0.25},
            "training": learning,
            "network": digits["network"] | NO_ATTENTION | {"width": 16},
        },
    }
    small = {"model": "base", "steps": 4, "count": IMAGES}
    params["samplings"] = {"small": small}
    up = {"upsampler": "up", "steps": 3, "batch_size": SIZE_OF_BATCH, "augmentation": 0.125}
    params["cascades"] = {"large": up | {"samples": "small"}}
    params["reconstructions"] = {"real": up | {"dataset": "digits", "images": IMAGES, "features": "pixels"}}
    params["evaluations"] = {"large": params["evaluations"]["ancestral"] | {"samples": "large"}}
    params = json.loads(json.dumps(params))
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    return params


def arrays(project: Project, path: str) -> dict[str, Any]:
    with np.load(project.root / "runs" / path / "samples.npz") as npz:
        return dict(npz)


def read_json(project: Project, path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project.root / "runs" / path).read_text())
    return content


class TestPipeline:
    """In a real DVC repository with tiny parameters."""

    pytestmark: ClassVar = [pytest.mark.tools, pytest.mark.timeout(600)]

    def test_a_cascade_keeps_order_and_labels_and_says_what_made_it(self, finished: Project) -> None:
        base, large = (arrays(finished, f"samples/{name}") for name in ("small", "large"))
        assert base["arr_0"].shape == (IMAGES, 4, 4, 1) and large["arr_0"].shape == (IMAGES, 8, 8, 1)
        assert np.array_equal(base["arr_1"], large["arr_1"])
        record = read_json(finished, "samples/large/record.json")
        assert record["base"] == read_json(finished, "samples/small/record.json")
        assert record["params"]["samples"] == "small" and record["params"]["augmentation"] == 0.125
        assert record.keys() - {"base"} == record["base"].keys()
        assert record["images"] == IMAGES and record["network_evaluations"] == 3 and record["training_step"] == LEARNED
        for picture in ("grid", "pairs", "denoising"):
            assert (finished.root / f"runs/samples/large/{picture}.png").stat().st_size > 500
        assert read_json(finished, "metrics/large.json")["frechet_distance"] > 0
        report = (finished.root / "runs/report/report.md").read_text()
        assert "from low-resolution small" in report and "## Cascades" in report
        assert re.search(r"`real`.* \| bilinear \| 4 → 8 \| digits, test \| 30 \|", report)
        with open(finished.root / "runs/report/scores.csv") as stream:
            (row,) = csv.DictReader(stream)
        assert (row["model"], row["start"]) == ("up", "low-resolution small")
        seconds = record["sampling_seconds"] + record["base"]["sampling_seconds"]
        assert float(row["seconds_per_image"]) == pytest.approx(seconds / IMAGES)

    def test_images_are_recognised_by_what_they_were_made_of(self, finished: Project) -> None:
        """Averaged down again, many times more than by chance are closest to their own low-resolution image."""
        made = {
            path: (arrays(finished, path)["arr_0"], below)
            for path, below in (
                ("samples/large", arrays(finished, "samples/small")["arr_0"]),
                ("reconstructions/real", low_resolution(finished)),
            )
        }
        for large, small in made.values():
            averaged = large.reshape(IMAGES, 4, 2, 4, 2, 1).mean((2, 4))
            distances = ((averaged[:, None] - small[None].astype(float)) ** 2).mean((2, 3, 4))
            assert (distances.argmin(1) == np.arange(IMAGES)).mean() > 5 / IMAGES
            assert distances.diagonal().mean() < 0.8 * distances.mean()

    def test_image_i_is_made_of_sample_i(self, finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        """A network that predicts its own low-resolution image gives it back, in place."""

        def copying(self: Any, labels: Any, low_res: Tensor, noise_level: Tensor | None = None) -> Any:
            image = F.interpolate(low_res, (8, 8), mode="nearest")
            assert noise_level is None
            return lambda x, timestep: torch.cat([image, torch.zeros_like(image)], dim=1)

        monkeypatch.setattr(DiffusionModel, "denoiser", copying)
        plain = {"sampler": "ddim", "augmentation": 0.0}
        changed = cascade_params()
        changed["cascades"]["large"] |= plain
        changed["reconstructions"]["real"] |= plain
        finished.write(changed)
        try:
            run_stage("cascade", "large", finished.root)
            run_stage("reconstruct", "real", finished.root)
            base, large = (arrays(finished, f"samples/{name}")["arr_0"] for name in ("small", "large"))
            assert np.array_equal(large, enlarged(base, 8))
            real = arrays(finished, "reconstructions/real")["arr_0"]
            assert np.array_equal(real, enlarged(low_resolution(finished), 8))
            scores = read_json(finished, "reconstructions/real/fidelity.json")
            assert scores["psnr"] == pytest.approx(direct_psnr(real, originals(finished)), abs=1e-3)
        finally:
            finished.write(cascade_params())
            finished.run("dvc", "checkout", "-f")

    def test_interpolations_are_measured_as_computed_by_hand(self, finished: Project) -> None:
        scores, known = read_json(finished, "reconstructions/real/fidelity.json"), originals(finished)
        expected = direct_psnr(bilinear(low_resolution(finished)), known)
        assert scores["bilinear_psnr"] == pytest.approx(expected, abs=0.02)  # ties may round to either side
        assert scores["bicubic_psnr"] != scores["bilinear_psnr"]
        pixels = [images.reshape(IMAGES, -1) / 255.0 for images in (bilinear(low_resolution(finished)), known)]
        own = ((pixels[0] - pixels[1]) ** 2).sum(1)
        assert scores["bilinear_feature_distance"] == pytest.approx(own.mean(), abs=1e-3)
        assert scores["bilinear_feature_distance_standard_error"] == pytest.approx(
            own.std(ddof=1) / IMAGES**0.5, rel=0.01
        )
        drawn = arrays(finished, "reconstructions/real")
        upsampled = torch.from_numpy(drawn["arr_0"].reshape(IMAGES, -1) / 255.0)
        interpolated, truth = map(torch.from_numpy, pixels)
        kids = {"bilinear_kid": paired_kernel_distance(interpolated, truth)}
        above = kids["bilinear_kid"].minus(paired_kernel_distance(upsampled, truth))
        for name, kid in (kids | {"bilinear_kid_above_upsampled": above}).items():
            assert [scores[name], scores[f"{name}_standard_error"]] == pytest.approx(
                [kid.value, kid.standard_error], rel=0.01, abs=1e-5
            )
        assert scores["psnr"] == pytest.approx(direct_psnr(drawn["arr_0"], known), abs=1e-3)
        _, labels = ShardFolder(finished.root / "data/shards/digits").read_split("test", IMAGES)
        assert np.array_equal(drawn["arr_1"], labels)
        assert 0 < scores["psnr_standard_error"] < 2 and 0 < scores["bilinear_ssim"] < 1 and scores["exact_copies"] == 0
        protocol = scores["protocol"]
        expected_protocol = {"images": IMAGES, "split": "test", "size": 8, "low_size": 4, "augmentation": 0.125}
        assert {key: protocol[key] for key in expected_protocol} == expected_protocol
        assert protocol["record"]["params"]["upsampler"] == "up"
        assert (finished.root / "runs/reconstructions/real/comparison.png").stat().st_size > 500

    @pytest.mark.parametrize(
        ("kind", "name", "output"), [("cascade", "large", "samples"), ("reconstruct", "real", "reconstructions")]
    )
    def test_an_interruption_goes_on_with_the_same_bytes(
        self, finished: Project, kind: str, name: str, output: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = finished.root / "runs" / output / name / "samples.npz"
        uninterrupted, chains, whole = file.read_bytes(), list[int](), drawing.reverse_chain
        after = 2

        def counted(*arguments: Any, **settings: Any) -> Any:
            if len(chains) == after:
                signal.raise_signal(signal.SIGTERM)
            chains.append(1)
            return whole(*arguments, **settings)

        monkeypatch.setattr(drawing, "reverse_chain", counted)
        said: list[str] = []
        monkeypatch.setattr("iddpm.stages.run.say", said.append)
        with pytest.raises(SystemExit):
            run_stage(kind, name, finished.root)
        assert len(chains) == 2 and "goes on after the last finished batch" in said[0]
        after = -1
        run_stage(kind, name, finished.root)
        assert len(chains) == -(-IMAGES // SIZE_OF_BATCH)
        assert file.read_bytes() == uninterrupted
        finished.run("dvc", "checkout", "-f")

    @pytest.mark.parametrize(
        ("change", "reruns"),
        [
            ({"samplings__small__seed": 1}, {"sample@small", "cascade@large", "evaluate@large"}),
            ({"models__up__training__seed": 1}, {"train@up", "cascade@large", "evaluate@large", "reconstruct@real"}),
        ],
        ids=["samples", "upsampler"],
    )
    def test_what_depends_runs_again(self, finished: Project, change: dict[str, Any], reruns: set[str]) -> None:
        finished.write(cascade_params(**change))
        assert would_run(finished) == reruns | {"report"}
        finished.write(cascade_params())

    def test_an_entry_concerns_its_own_stage(self, finished: Project) -> None:
        finished.write(cascade_params(cascades__large__seed=1))
        assert repro(finished, "--dry", "-s", *sorted(EVERYTHING - {"report"})) == {"cascade@large"}
        finished.write(cascade_params(reconstructions__real__images=5))
        assert repro(finished, "--dry", "-s", *sorted(EVERYTHING - {"report"})) == {"reconstruct@real"}
        finished.write(cascade_params())

    def test_a_cascade_that_is_gone_is_pruned(self, finished: Project) -> None:
        finished.write(cascade_params(cascades={}, evaluations={}, reconstructions={}))
        removed = finished.answer("prune").split()
        finished.write(cascade_params())
        finished.run("dvc", "checkout", "-f")
        assert {"runs/samples/large", "runs/reconstructions/real"} <= set(removed)

    @pytest.mark.parametrize("weights", Weights)
    def test_a_snapshot_is_drawn_from(self, finished: Project, weights: Weights) -> None:
        """Both weights are in it; the record says which step it was."""
        early = {"model": "base", "steps": 4, "count": IMAGES, "checkpoint": 2, "weights": weights.value}
        finished.write(cascade_params(samplings__early=early))
        run_stage("sample", "early", finished.root)
        drawn = arrays(finished, "samples/early")
        record = read_json(finished, "samples/early/record.json")
        finished.write(cascade_params())
        folder = finished.root / "runs/models/base"
        expected = {
            path: draw(DiffusionModel(path, weights), IMAGES, steps="4", labels=drawn["arr_1"]).images
            for path in (folder, folder / "snapshots/step-000000002")
        }
        assert np.array_equal(drawn["arr_0"], expected[folder / "snapshots/step-000000002"])
        assert not np.array_equal(drawn["arr_0"], expected[folder])
        assert record["training_step"] == 2 and record["params"]["checkpoint"] == 2
        assert "runs/models/base/snapshots/step-000000002" in record["inputs"]

    def test_samples_of_another_kind_are_refused(self, finished: Project) -> None:
        """By hand, without dvc: what lies there may be older than params.yaml."""
        path = finished.root / "runs/samples/small/samples.npz"
        samples = arrays(finished, "samples/small")
        for changed, message in (
            ({"arr_0": samples["arr_0"]}, "small/samples.npz: has no labels; .*up is told one of 10 classes"),
            (samples | {"arr_1": samples["arr_1"] + 1}, "small/samples.npz: has labels 1 to 10; "),
            (samples | {"arr_0": enlarged(samples["arr_0"], 8)}, "up: upsamples 4x4 pixels and 1 channels; these im"),
        ):
            path.unlink()  # a link into the cache
            np.savez(path, **changed)
            with pytest.raises(UserError, match=message):
                run_stage("cascade", "large", finished.root)
        finished.run("dvc", "checkout", "-f")

    def test_inspect_and_register_know_an_upsampler(self, finished: Project) -> None:
        assert "models.up" in finished.answer("inspect")
        version = register_model(finished.root, "up", "up", "champion", "large", "frechet_distance")
        assert version == "1"
        with pytest.raises(UserError, match="--evaluation large: scores model up, not base"):
            register_model(finished.root, "base", "base", "champion", "large", "frechet_distance")

    def test_images_of_a_folder_are_counted_when_they_are_read(
        self, finished: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = ShardFolder.read_split
        monkeypatch.setattr(ShardFolder, "read_split", lambda self, split, limit: whole(self, split, min(limit, 5)))
        with pytest.raises(UserError, match=r"reconstructions.real.images: 30 is more than the 5 test images of digi"):
            run_stage("reconstruct", "real", finished.root)


def originals(project: Project) -> Images:
    return ShardFolder(project.root / "data/shards/digits").read_split("test", IMAGES)[0]


def low_resolution(project: Project) -> Images:
    """Averages of 2 x 2 pixels, rounded as Python and torch do."""
    means = originals(project).reshape(IMAGES, 4, 2, 4, 2, 1).mean((2, 4))
    rounded: Images = np.round(means).astype(np.uint8)
    return rounded


def bilinear(images: Images) -> Images:
    """Twice as large: a pixel's centre lies a quarter of the way from its own to the next."""
    for axis in (1, 2):
        padded = np.concatenate([images.take([0], axis), images, images.take([-1], axis)], axis).astype(float)
        middle, before, after = (padded.take(range(first, first + images.shape[axis]), axis) for first in (1, 0, 2))
        both = np.stack([0.75 * middle + 0.25 * before, 0.75 * middle + 0.25 * after], axis + 1)
        shape = list(images.shape)
        shape[axis] *= 2
        images = both.reshape(shape)
    return np.round(images).astype(np.uint8)


def direct_psnr(images: Images, known: Images) -> float:
    squares = ((images.astype(float) - known) ** 2).mean((1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / squares)))
