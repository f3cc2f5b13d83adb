"""Every mistake in params.yaml is named by its path before anything runs."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from iddpm.checks import check_project, load_params
from iddpm.errors import UserError

from .conftest import TINY, assert_checked, tiny_params, write_tiny_params


def complain(tmp_path: Path, params: Any) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(params if isinstance(params, str) else yaml.safe_dump(params))
    with pytest.raises(UserError) as error:
        load_params(path)
    return str(error.value)


def test_tiny_parameters_are_sound(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    assert load_params(tmp_path / "params.yaml").models["digits"].training.objective == "hybrid"


MINE = {"source": "images/mine", "size": 16}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("models.digits.training.learnin_rate", 1e-3, "models.digits.training.learnin_rate: unknown parameter"),
        ("modells", {}, "modells: unknown parameter"),
        (
            "models.digits.training.learning_rate",
            "fast",
            "models.digits.training.learning_rate: input should be a valid",
        ),
        ("models.digits.training.learning_rate", 0, "models.digits.training.learning_rate: input should be greater"),
        ("models.digits.training.steps", 2.5, "models.digits.training.steps: "),
        ("models.digits.training.steps", "many", "models.digits.training.steps: "),
        ("models.digits.training.batch_size", 1499, "1499 is more than the 1498 training images"),
        ("models.digits.training.batch_size", 15, None),
        ("models.digits.training.microbatches", 3, "training.batch_size: 16 does not divide"),
        ("models.digits.training.objective", "hybird", "models.digits.training.objective: "),
        ("models.digits.training.objective", "simple", "simple leaves variance learned_range untrained"),
        ("models.digits.diffusion.variance", "fixed_small", "hybrid trains a learned variance"),
        ("models.digits.diffusion.schedule", "linear", "models.digits.diffusion: betas from 0.005 to 1 do not lie"),
        ("models.digits.diffusion.beta_start", 0.1, "beta_start: needs beta_end"),
        ("models.digits.network.attention_sizes", [16], "attention_sizes: the network never reaches 16 pixels"),
        ("models.digits.network.channel_mult", [1] * 5, "5 levels cannot halve 8 pixels evenly"),
        ("models.digits.network.heads", 3, "network.heads: 3 do not divide the 8 channels"),
        ("models.digits.dataset", "cifar", "models.digits.dataset: 'cifar' is not in datasets (digits)"),
        ("samplings.ancestral.steps", 21, "samplings.ancestral.steps: '21': cannot take 21 steps"),
        ("samplings.ancestral.steps", [3, 2], None),
        ("samplings.ancestral.steps", [30, 2], "samplings.ancestral.steps: '30,2': cannot take 30 steps"),
        ("samplings.ancestral.steps", {"a": 1}, "samplings.ancestral.steps: input should be a valid integer"),
        ("models.digits.network.channel_mult", [1, "b"], "models.digits.network.channel_mult.1: input should be"),
        ("samplings.ancestral.steps", "ddim9", "samplings.ancestral.steps: 'ddim9': no integer stride"),
        ("samplings.ancestral.steps", "quick", "'quick' is neither a step count"),
        ("samplings.ancestral.eta", 0.5, "samplings.ancestral.eta: only the ddim sampler"),
        ("samplings.ancestral.model", "nobody", "samplings.ancestral.model: 'nobody' is not in models"),
        ("samplings.sngan-10", {"model": "digits", "steps": 5, "count": 2}, "the name is taken"),
        ("surrogate_samplings.sngan-10.t_mid", 21, "t_mid: 21 is more than the model's T = 20"),
        ("surrogate_samplings.sngan-10.steps", 11, "steps: '11': cannot take 11 steps"),
        ("surrogate_samplings.sngan-10.surrogate", "gan", "surrogate: 'gan' is not in surrogates"),
        ("surrogates.sngan.conditioning", "none", "labels would not match"),
        ("surrogates.sngan.batch_size", 2000, "surrogates.sngan.batch_size: 2000 is more than"),
        ("evaluations.ancestral.samples", "x", "evaluations.ancestral.samples: 'x' is not in"),
        ("evaluations.ancestral.neighbours", 20, "20 neighbours need more than the 20 samples"),
        ("evaluations.ancestral.kid_subset_size", 1499, "1499 is more than the 1498 train images of digits"),
        ("evaluations.ancestral.kid_subset_size", 21, "kid_subset_size: 21 is more than the 20"),
        ("evaluations.ancestral.manifold_reference", 1499, "1499 is more than the 1498 train images of digits"),
        ("evaluations.ancestral.manifold_reference", 3, "3 is not more than the neighbours"),
        ("evaluations.ancestral.bootstrap", 1, "evaluations.ancestral.bootstrap: choose 0, or 100 and more, not 1"),
        ("evaluations.ancestral.bootstrap", 99, "evaluations.ancestral.bootstrap: choose 0, or 100 and more, not 99"),
        ("evaluations.ancestral.bootstrap", 100, None),
        ("evaluations.ancestral.bootstrap", 0, None),
        (
            "evaluations.ancestral.features",
            "fid",
            "features: choose lite0, inception, pixels or module/NAME, not 'fid'",
        ),
        ("evaluations.ancestral.features", "module/..", "features: choose lite0, inception, pixels or module/NAME"),
        *[
            (
                "evaluations.ancestral.features",
                f"module/{name}",
                f"features: choose a NAME in module/NAME that is no embedded network's, not 'module/{name}'",
            )
            for name in ("lite0", "pixels", "inception")
        ],
        ("evaluations.ancestral.features", "module/lite01", None),
        ("evaluations.x", {"samples": "ancestral", "dataset": "digits"}, "evaluations.x.features: is missing"),
        ("evaluations.ancestral.inception_splits", 20, None),
        (
            "evaluations.ancestral.inception_splits",
            21,
            "inception_splits: the 20 samples of ancestral are too few for 21",
        ),
        (
            "evaluations.ancestral.inception_splits",
            11,
            "inception_splits: the 20 samples of ancestral are too few for 11",
        ),
        ("likelihoods.digits.images", 300, "likelihoods.digits.images: 300 is more than the 299 images"),
        ("datasets.bad name", {"source": "digits"}, "datasets.bad name: "),
        ("compute.workers", -1, "compute.workers: "),
        (
            "datasets.digits.source",
            "digitz",
            "datasets.digits.source: choose digits, photos, cifar10 or images/FOLDER, not 'digitz'",
        ),
        ("datasets.digits.size", 16, "datasets.digits.size: unknown parameter"),
        ("datasets.photos", {"source": "photos"}, "datasets.photos.size: is missing"),
        ("datasets.photos", {"size": 16}, "datasets.photos.source: is missing"),
        ("datasets.cifar", {"source": "cifar10", "size": 20}, "datasets.cifar.size: input should be 4, 8, 16 or 32"),
        ("datasets.mine", {"source": "images", "size": 16}, "datasets.mine.source: choose digits, photos, cifar10 or"),
        ("datasets.mine", MINE | {"source": "images/a/b"}, "datasets.mine.source: string should match"),
        ("datasets.mine", MINE | {"source": "images/.."}, "datasets.mine.source: string should match"),
        ("datasets.mine", MINE | {"folder": "a"}, "datasets.mine.folder: unknown parameter"),
        ("datasets.mine", MINE, None),
        ("datasets.mine", MINE | {"labels": "folders"}, "datasets.mine.classes: labels: folders needs the number of"),
        ("datasets.mine", MINE | {"labels": "file"}, "datasets.mine.classes: labels: file needs the number of"),
        ("datasets.mine", MINE | {"classes": 3}, "datasets.mine.classes: 3 classes need labels: folders or file"),
        ("surrogates.sngan.kind", "gan", "surrogates.sngan.kind: choose sngan or low_resolution, not 'gan'"),
        ("models.digits.size", 16, "models.digits.size: 16 pixels are more than the 8 of dataset digits"),
        ("models.digits.size", 2, "attention_sizes: the network never reaches 4 pixels, only [2, 1]"),
        ("models.digits.upsampling", {"low_size": 8}, "upsampling.low_size: 8 is not below the 8 pixels"),
        ("models.digits.upsampling", {"low_size": 4}, "samplings.ancestral.model: digits is an upsampler"),
        ("models.digits.network.block", "mbconv", "network.scale_shift: an mbconv block adds the embedding"),
        ("models.digits.network.scale_shift", False, "network.width: with 8 channels every channel is a norm group"),
        ("models.digits.training.noise_draws", 0, "models.digits.training.noise_draws: input should be greater"),
        ("models.digits.training.draws_at_once", 2, "draws_at_once: 2 is more than noise_draws = 1"),
        ("models.digits.training.iwdiff_reduction", "sum", "iwdiff_reduction: the objective is hybrid, not iwdiff"),
        ("models.digits.training.extra_measurements", 2, "extra_measurements: only loss_second_moment learns"),
        ("samplings.ancestral.handover", "x_t", "samplings.ancestral.handover: unknown parameter"),
        ("surrogate_samplings.sngan-10.handover", "x_t", "handover: an sngan has no x_t"),
        ("surrogate_samplings.sngan-10.surrogate_steps", 3, "surrogate_steps: an sngan takes no steps"),
        ("likelihoods.digits.steps", 21, "likelihoods.digits.steps: 21 is more than the model's T = 20"),
        ("mixtures.mixed", {"middle": "digits", "ends": "vlb"}, "mixtures.mixed.ends: 'vlb' is not in models"),
        ("mixtures.digits", {"middle": "digits", "ends": "digits", "within": 2}, "the name is taken by models.digits"),
        ("mixtures.mixed", {"middle": "digits", "ends": "digits", "within": 11}, "twice 11 is more than T = 20"),
        ("imports.x", {"weights": "x.ckpt", "flags": ""}, "imports.x.weights: string should match"),
        ("imports.x", {"weights": "x.pt", "flags": "--num_chanels 3"}, "imports.x.flags: "),
        ("models.digits.training.vlb_weight", 0, "training.vlb_weight: 0 leaves the learned variance untrained"),
        ("models.digits.training.snapshot_every", 5, "training.snapshot_every: 5 is more than the 4 steps"),
        ("models.digits.training.snapshot_every", 4, None),
        (
            "models.digits.diffusion.variance",
            "learned",
            "ancestral.steps: 5 of 20 with variance learned, whose log var",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, key: str, value: Any, message: str | None) -> None:
    params = tiny_params()
    *parents, last = key.split(".")
    section = params
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = value
    if message is None:
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        load_params(tmp_path / "params.yaml")
    else:
        assert message in complain(tmp_path, params)


LINEAR = "models.digits.diffusion.schedule", "models.digits.diffusion.beta_start", "models.digits.diffusion.beta_end"
RGB = {"source": "photos", "size": 8}
IMPORT = {
    "weights": "x.pt",
    "flags": "--image_size 32 --num_channels 32 --num_res_blocks 1 --diffusion_steps 20 --noise_schedule cosine",
}
TOLD_IMPORT = IMPORT | {"flags": IMPORT["flags"] + " --class_cond True"}
MODEL = tiny_params()["models"]["digits"]
UNTOLD = MODEL | {"network": MODEL["network"] | {"conditioning": "none"}}
HALF = MODEL | {"size": 4, "network": MODEL["network"] | {"attention_sizes": []}}
LEARNED = {"timesteps": 20, "variance": "learned"}
SAMPLING = {"model": "x", "steps": 5, "count": 20}
START = SAMPLING | {"surrogate": "sngan", "t_mid": 10}
BOUND = {"model": "x", "dataset": "digits"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(zip(LINEAR, ("linear", 0.2, 0.1), strict=True)), "beta_start = 0.2 is more than beta_end = 0.1"),
        (dict(zip(LINEAR, ("linear", 0.1, 0.2), strict=True)), None),
        ({LINEAR[0]: "linear"}, "T = 20 is too short without beta_start and beta_end; more than 20"),
        (
            {"models.digits.training.objective": "vlb", "models.digits.training.vlb_weight": 0.01},
            "training.vlb_weight: the objective is vlb, only hybrid has it",
        ),
        ({"models.digits.training.objective": "vlb", "models.digits.training.vlb_weight": 0.001}, None),
        # What is compared: images of one size and kind.
        ({"datasets.rgb": RGB, "evaluations.ancestral.dataset": "rgb"}, "8x8 pixels and 3 channels, the samples of"),
        (
            {"datasets.big": MINE | {"channels": 1}, "evaluations.ancestral.dataset": "big"},
            "evaluations.ancestral.dataset: images of 16x16 pixels and 1 channels, the samples of ancestral have 8x8",
        ),
        ({"models.x": HALF, "samplings.ancestral.model": "x"}, None),
        ({"models.x": HALF | {"size": 6}, "samplings.ancestral.model": "x"}, "no multiple of the 6 of the samples"),
        (
            {
                "datasets.more": {"source": "digits", "seed": 1},
                "models.x": HALF,
                "samplings.ancestral.model": "x",
                "evaluations.ancestral.dataset": "more",
            },
            "images of 8x8 pixels and 1 channels, the samples of ancestral have 4x4",
        ),
        (
            {
                "datasets.three": MINE | {"size": 8, "channels": 1, "labels": "folders", "classes": 3},
                "evaluations.ancestral.dataset": "three",
            },
            "evaluations.ancestral.dataset: has 3 classes, the samples of ancestral are of 10",
        ),
        (
            {
                "datasets.plain": MINE | {"size": 8, "channels": 1},
                "evaluations.ancestral.dataset": "plain",
                "evaluations.ancestral.inception_splits": 21,
            },
            None,
        ),
        *[
            ({"evaluations.ancestral.features": features, "evaluations.ancestral.inception_splits": 21}, found)
            for features, found in (
                ("module/mine", None),  # which may have no classes
                ("lite0", "evaluations.ancestral.inception_splits: the 20 samples of ancestral are too few for 21"),
            )
        ],
        # Starts of an imported model.
        (
            {"imports.x": TOLD_IMPORT, "surrogate_samplings.x": START},
            "was trained on images of 8x8 pixels and 1 channels, the model on 32x32 pixels and 3",
        ),
        (
            {
                "datasets.c": {"source": "cifar10"},
                "surrogates.c": {"kind": "sngan", "dataset": "c", "steps": 1},
                "imports.x": IMPORT,
                "surrogate_samplings.x": START | {"surrogate": "c"},
            },
            None,
        ),
        (
            {
                "datasets.c": {"source": "cifar10"},
                "surrogates.c": {"kind": "sngan", "dataset": "c", "steps": 1, "conditioning": "class"},
                "imports.x": TOLD_IMPORT,
                "surrogate_samplings.x": START | {"surrogate": "c"},
            },
            "surrogate_samplings.x.surrogate: has 10 classes, the model 1000",
        ),
        # Likelihoods of images that the model is told about otherwise.
        (
            {"datasets.plain": MINE | {"size": 8, "channels": 1}, "likelihoods.digits.dataset": "plain"},
            "likelihoods.digits.dataset: has no classes, the model is told one of 10",
        ),
        (
            {
                "datasets.plain": MINE | {"size": 8, "channels": 1},
                "models.x": UNTOLD,
                "likelihoods.x": BOUND | {"dataset": "plain"},
            },
            None,
        ),
        # Weights that an import does not have.
        ({"imports.x": IMPORT, "samplings.x": SAMPLING | {"weights": "raw"}}, "samplings.x.weights: x is an import"),
        (
            {"imports.i": IMPORT, "mixtures.x": {"middle": "i", "ends": "i", "within": 2},
             "datasets.c": {"source": "cifar10"}, "likelihoods.x": BOUND | {"dataset": "c", "weights": "raw"}},
            "likelihoods.x.weights: i is an import, which has no raw weights; use ema",
        ),
        ({"samplings.ancestral.weights": "raw"}, None),
        # A learned log variance is that of one step.
        ({"models.x": MODEL | {"diffusion": LEARNED}, "samplings.x": SAMPLING | {"steps": 20}}, None),
        ({"models.x": MODEL | {"diffusion": LEARNED}, "samplings.x": SAMPLING | {"sampler": "ddim"}}, None),
        ({"models.x": MODEL | {"diffusion": LEARNED}, "surrogate_samplings.x": START},
         "surrogate_samplings.x.steps: 5 of 10 with variance learned, whose log variances are those of single steps: "
         "take steps: 10 or the ddim sampler; variance: learned_range can skip steps"),
        ({"models.x": MODEL | {"diffusion": LEARNED}, "surrogate_samplings.x": START | {"steps": 10}}, None),
        (
            {"models.x": MODEL | {"diffusion": LEARNED}, "likelihoods.x": BOUND | {"steps": 5}},
            "likelihoods.x.steps: 8 of 20 with variance learned, whose log variances are those of single steps: "
            "take steps: 20; variance: learned_range can skip steps",
        ),
        ({"models.x": MODEL | {"diffusion": LEARNED}, "likelihoods.x": BOUND | {"steps": 20}}, None),
        # Models that do not mix.
        ({"models.x": MODEL | {"diffusion": LEARNED}, "mixtures.m": {"middle": "digits", "ends": "x", "within": 2}},
         "mixtures.m.ends: the process of x is not that of digits"),
        ({"models.x": HALF, "mixtures.m": {"middle": "digits", "ends": "x", "within": 2}}, "mixtures.m.ends: images"),
        ({"models.x": UNTOLD, "mixtures.m": {"middle": "digits", "ends": "x", "within": 2}}, "mixtures.m.ends: images"),
        ({"datasets.photos": RGB, "surrogates.odd": {"kind": "sngan", "dataset": "odd", "steps": 1},
          "datasets.odd": {"source": "photos", "size": 17}}, None),
    ],
)  # fmt: skip
def test_mistakes_across_sections_are_named(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    assert_checked(tmp_path, changes, message)


UP = MODEL | {"upsampling": {"low_size": 4, "noise_augmentation": 0.25}}
LARGE = {"samples": "large", "dataset": "digits", "features": "pixels", "kid_subset_size": 10}
CASCADE = {
    "models.low": HALF,
    "models.up": UP,
    "samplings.low": SAMPLING | {"model": "low"},
    "cascades.large": {"samples": "low", "upsampler": "up", "steps": 5},
    "reconstructions.real": {"upsampler": "up", "dataset": "digits", "images": 10, "features": "pixels", "steps": 5},
}
PLAIN = {"network": MODEL["network"] | {"conditioning": "none"}}
RELEASED = {"weights": "x.pt", "flags": "--large_size 64 --small_size 32 --num_channels 32 --diffusion_steps 20 "
            "--noise_schedule cosine"}  # fmt: skip
PUBLIC = {
    "datasets.photos": {"source": "photos", "size": 64},
    "imports.x": IMPORT,
    "imports.released": RELEASED,
    "samplings.x": SAMPLING,
    "cascades.large": {"samples": "x", "upsampler": "released", "steps": 5},
    "reconstructions.real": {
        "upsampler": "released",
        "dataset": "photos",
        "images": 10,
        "features": "lite0",
        "steps": 5,
    },
}
SMALL = HALF | {"size": 2, "network": HALF["network"] | {"channel_mult": [1]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"cascades.large.augmentation": 0.25, "reconstructions.real.augmentation": 0.25}, None),
        (PUBLIC, None),
        ({"cascades.large.samples": "lo"}, "large.samples: 'lo' is not in samplings or surrogate_samplings or casc"),
        ({"cascades.large.upsampler": "digits"}, "cascades.large.upsampler: digits has no upsampling"),
        ({"reconstructions.real.upsampler": "low"}, "reconstructions.real.upsampler: low has no upsampling"),
        ({"mixtures.m": {"middle": "up", "ends": "up", "within": 2}, "cascades.large.upsampler": "m"},
         "cascades.large.upsampler: 'm' is not in models or imports"),
        ({"cascades.large.samples": "ancestral"}, "large.samples: images of 8x8 pixels and 1 channels, up takes 4x4"),
        ({"cascades.large.samples": "large"}, "cascades.large.samples: large rests on large itself"),
        ({"models.low": HALF | {"network": HALF["network"] | {"conditioning": "none"}}},
         "cascades.large.samples: has labels of no classes, up is told one of 10"),
        ({"models.up": UP | PLAIN}, None),
        ({"cascades.large.augmentation": 0.3}, "cascades.large.augmentation: 0.3 is more than the 0.25 that up was"),
        ({"models.up.upsampling": {"low_size": 4}, "cascades.large.augmentation": 0.1},
         "cascades.large.augmentation: 0.1 is more than the 0.0 that up was trained with"),
        ({"cascades.large.steps": 21}, "cascades.large.steps: '21': cannot take 21 steps"),
        ({"models.up": UP | {"diffusion": LEARNED}, "cascades.large.sampler": "ddim"},
         "reconstructions.real.steps: 5 of 20 with variance learned"),
        ({"reconstructions.real.eta": 0.5}, "reconstructions.real.eta: only the ddim sampler has it"),
        (PUBLIC | {"cascades.large.weights": "raw"}, "cascades.large.weights: released is an import, which has no raw"),
        ({"cascades.ancestral": CASCADE["cascades.large"]}, "cascades.ancestral: the name is taken by samplings.anc"),
        ({"reconstructions.real.images": 300}, "reconstructions.real.images: 300 is more than the 299 test images of"),
        ({"reconstructions.real": CASCADE["reconstructions.real"] | {"images": 300, "split": "train"}}, None),
        ({"datasets.rgb": RGB, "reconstructions.real.dataset": "rgb"}, "real.dataset: images of 8x8 pixels and 3"),
        ({"datasets.plain": MINE | {"size": 8, "channels": 1}, "reconstructions.real.dataset": "plain"},
         "reconstructions.real.dataset: has no classes, the model is told one of 10"),
        ({"models.mid": SMALL | {"size": 4, "upsampling": {"low_size": 2}},
          "reconstructions.real.upsampler": "mid"}, "upsampler: makes 4 pixels; the window of SSIM needs 6"),
        # A cascade of two steps carries the labels of its first model.
        ({"models.low": SMALL, "models.mid": SMALL | PLAIN | {"size": 4, "upsampling": {"low_size": 2}},
          "cascades.mid": {"samples": "low", "upsampler": "mid", "steps": 5}, "cascades.large.samples": "mid",
          "evaluations.large": LARGE}, None),
        # An evaluation knows what a cascade holds.
        ({"evaluations.large": LARGE | {"kid_subset_size": 21}},
         "evaluations.large.kid_subset_size: 21 is more than the 20 samples of large"),
        ({"datasets.rgb": RGB, "evaluations.large": LARGE | {"dataset": "rgb"}},
         "3 channels, the samples of large have 8x8 pixels and 1 channels"),
        # Snapshots.
        ({"samplings.low.checkpoint": 2}, "samplings.low.checkpoint: low keeps no snapshots: set models.low.training"),
        ({"models.low.training.snapshot_every": 2, "samplings.low.checkpoint": 2}, None),
        ({"models.low.training.snapshot_every": 2, "samplings.low.checkpoint": 4}, None),
        ({"models.low.training.snapshot_every": 2, "samplings.low.checkpoint": 3},
         "samplings.low.checkpoint: low keeps no snapshot of step 3, only every 2 steps"),
        ({"models.low.training.snapshot_every": 2, "samplings.low.checkpoint": 6},
         "samplings.low.checkpoint: 6 is more than the 4 steps of low"),
        ({"samplings.low.checkpoint": 0}, "samplings.low.checkpoint: input should be greater than or equal to 1"),
        (PUBLIC | {"samplings.x": SAMPLING | {"checkpoint": 2}}, "samplings.x.checkpoint: only models have snapshots"),
    ],
)  # fmt: skip
def test_mistakes_in_cascades_are_named(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    assert_checked(tmp_path, deepcopy(CASCADE | changes), message)


def test_a_round_of_cascades_is_named(tmp_path: Path) -> None:
    up = {"upsampler": "up", "steps": 5}
    changes = {f"cascades.{name}": up | {"samples": below} for name, below in (("a", "b"), ("b", "c"), ("c", "b"))}
    with pytest.raises(UserError) as error:
        load_params(write_tiny_params(tmp_path, deepcopy(CASCADE | changes)))
    assert "cascades.b.samples: c rests on b itself" in str(error.value) and "cascades.a" not in str(error.value)


def test_a_learned_surrogate_takes_every_step(tmp_path: Path) -> None:
    learned = {"diffusion": LEARNED}
    params = low_resolution(**learned)
    complaint = complain(tmp_path, params)
    assert "low-10.surrogate_steps: 4 of 10 with variance learned, " in complaint
    assert ": take surrogate_steps: 10 or the ddim sampler; " in complaint
    params["surrogate_samplings"]["low-10"]["surrogate_steps"] = 10
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("features", "file", "mend"),
    [
        ("inception", "weights-inception-2015-12-05-6726825d.pth", "`iddpm download inception` fetches it"),
        ("module/mine", "network.py", "features: module/mine needs it"),
    ],
)
def test_a_missing_feature_network_is_found_before_anything_runs(
    tmp_path: Path, features: str, file: str, mend: str
) -> None:
    path = write_tiny_params(tmp_path, {"evaluations.ancestral.features": features})
    load_params(path)  # a preset is sound wherever its files are
    with pytest.raises(UserError) as error:
        check_project(tmp_path)
    place = tmp_path / "data" / "raw" / "features" / features / file
    message = str(error.value)
    assert (
        message.startswith(f"{path}: evaluations.ancestral.features: {place}: missing; {mend}") and "\n" not in message
    )
    place.parent.mkdir(parents=True)
    place.touch()
    assert check_project(tmp_path).evaluations["ancestral"].features == features


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    params = tiny_params()
    params["samplings"]["ancestral"]["steps"] = 99
    params["likelihoods"]["digits"]["model"] = "nobody"
    assert len(complain(tmp_path, params).splitlines()) == 2


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: 2020-01-01", ""])
def test_not_a_parameter_file(tmp_path: Path, text: str) -> None:
    assert str(tmp_path / "params.yaml") in complain(tmp_path, text)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TINY.replace("1.0e-3", "1e-3"))
    assert load_params(path).models["digits"].training.learning_rate == 0.001


LOW = {"kind": "low_resolution", "dataset": "digits", "size": 4}


def low_resolution(**changes: Any) -> dict[str, Any]:
    """The tiny parameters with a diffusion surrogate at 4 pixels that hands over at t_mid = 10."""
    params = tiny_params()
    model = params["models"]["digits"]
    params["surrogates"]["low"] = model | LOW | {"network": model["network"] | {"attention_sizes": []}} | changes
    start = params["surrogate_samplings"]["sngan-10"] | {"surrogate": "low", "surrogate_steps": 4}
    params["surrogate_samplings"]["low-10"] = start
    return params


def test_a_diffusion_surrogate_is_sound(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(low_resolution()))
    assert load_params(tmp_path / "params.yaml").surrogates["low"].size == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 8}, "surrogates.low.size: 8 is the dataset's own size"),
        ({"size": None}, "surrogates.low.size: input should be a valid integer"),
        ({"diffusion": {"timesteps": 40}}, "low-10.surrogate: its noise schedule is not the model's"),
        ({"upsampling": {"low_size": 2}}, "surrogates.low.upsampling: a surrogate starts from noise"),
        ({"learning_rate": 1}, "surrogates.low.learning_rate: unknown parameter"),
    ],
)
def test_mistakes_in_a_diffusion_surrogate_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in complain(tmp_path, low_resolution(**changes))


def test_a_low_resolution_chain_needs_as_many_steps_as_there_are(tmp_path: Path) -> None:
    params = low_resolution()
    params["surrogate_samplings"]["low-10"]["surrogate_steps"] = 11
    assert "low-10.surrogate_steps: '11': cannot take 11 steps" in complain(tmp_path, params)


def test_a_group_left_out_is_named_with_the_mend(tmp_path: Path) -> None:
    params = tiny_params()
    del params["imports"]
    assert "imports: is missing; write imports: {} for none" in complain(tmp_path, params)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "steps" in complain(tmp_path, TINY.replace("steps: 4,", "steps: 4, steps: 5,"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "params.yaml")
