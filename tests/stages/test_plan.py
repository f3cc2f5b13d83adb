"""`iddpm plan`: arithmetic, memory, time and disk before anything runs, held against what then runs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from iddpm.checks import load_params
from iddpm.data import ShardFolder, known_card, open_source, write_shards
from iddpm.diffusion import Objective
from iddpm.params import Device, Params, Precision
from iddpm.stages.context import GROUPS
from iddpm.stages.plan import Gpus, plan
from iddpm.stages.plan.demands import DEMANDS, demands_of
from iddpm.stages.plan.known import Demand, Known
from iddpm.stages.plan.measure import FLOPS_AT_ONCE, Stopwatch
from iddpm.stages.plan.memory import memory_of
from iddpm.stages.plan.operations import FeaturePass, NetworkPass, Operation, Scoring, TrainingStep
from iddpm.stages.plan.schedule import critical_path, side_by_side
from iddpm.stages.plan.storage import shard_bytes, training_bytes
from iddpm.training.checkpoint import write_checkpoint
from iddpm.training.loop import DiffusionTraining

from ..conftest import PEAK_KIB, ROOT, Project, tiny_params, write_tiny_params

MACHINE = Gpus(count=2, tflops=100.0, utilisation=0.5)
RICH = """
surrogates:
  low: {kind: low_resolution, dataset: digits, size: 4, network: &network {width: 16, channel_mult: [1, 2], blocks: 1},
        diffusion: &diffusion {timesteps: 20}, training: &training {steps: 4, batch_size: 16, learning_rate: 1.0e-3}}
models:
  digits: {dataset: digits, network: *network, diffusion: *diffusion, training: {<<: *training, snapshot_every: 1}}
  other: {dataset: digits, network: *network, diffusion: *diffusion, training: {<<: *training, objective: vlb}}
  resampled: {dataset: digits, network: *network, diffusion: *diffusion, training: {<<: *training, snapshot_every: 2,
              timestep_sampling: loss_second_moment, extra_measurements: 1}}
  up: {dataset: digits, network: *network, diffusion: *diffusion, training: *training, upsampling: {low_size: 4}}
  small: {dataset: digits, network: *network, diffusion: *diffusion, training: *training, size: 4}
mixtures:
  both: {middle: digits, ends: other, within: 2}
samplings:
  plain: {model: digits, steps: 5, count: 20, batch_size: 8}
  mixed: {model: both, steps: 10, count: 10}
  small: {model: small, steps: 5, count: 12}
surrogate_samplings:
  low-10: {model: digits, surrogate: low, t_mid: 10, steps: 4, surrogate_steps: 6, count: 20}
cascades:
  large: {samples: small, upsampler: up, steps: 3}
reconstructions:
  real: {dataset: digits, upsampler: up, images: 6, features: pixels, steps: 2}
evaluations:
  plain: &evaluation {samples: plain, dataset: digits, features: pixels, kid_subset_size: 10, inception_splits: 2}
  again: {<<: *evaluation, samples: low-10}
  large: {<<: *evaluation, samples: large}
likelihoods:
  all: {model: digits, dataset: digits, split: both, checkpoints: all, images: 10, steps: 5}
gradient_noises:
  vlb: {model: resampled, dataset: digits, batches: 15}
"""


def rich_params() -> dict:
    return tiny_params() | yaml.safe_load(RICH)


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    path = tmp_path_factory.mktemp("rich") / "params.yaml"
    path.write_text(yaml.safe_dump(rich_params(), sort_keys=False))
    return load_params(path)


@pytest.fixture(scope="module")
def demands(params: Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Demand]:
    found, notes = demands_of(params, tmp_path_factory.mktemp("empty"))
    assert not notes
    return {demand.address: demand for demand in found}


def passes(demand: Demand) -> float:
    """Images through a network, each evaluation counted."""
    return sum(op.images * times for op, times in demand.operations if isinstance(op, NetworkPass))


def test_every_kind_of_stage_is_planned(demands: dict[str, Demand]) -> None:
    assert set(DEMANDS) == set(GROUPS)
    assert list(demands)[-1] == "report" and set(demands["report"].needs) == set(demands) - {"report"}


def test_network_evaluations(demands: dict[str, Demand]) -> None:
    assert passes(demands["sample@plain"]) == 20 * 5
    assert passes(demands["surrogate-sample@low-10"]) == 20 * (6 + 4)
    assert passes(demands["cascade@large"]) == 12 * 3
    assert passes(demands["reconstruct@real"]) == 6 * 2
    # of T = 20: 5 strided timesteps and the first 4, of which they share the first; both splits, 3 snapshots + the end
    assert passes(demands["likelihood@all"]) == 2 * 10 * 4 * 8
    middle, ends = (op.images * times for op, times in demands["sample@mixed"].operations)
    assert (middle, ends) == (pytest.approx(80), pytest.approx(20))  # 2 timesteps at either end of 20


def test_gradient_noise_is_planned_as_steps_at_every_snapshot(demands: dict[str, Demand], params: Params) -> None:
    noise, train = demands["gradient-noise@vlb"], demands["train@resampled"]
    assert noise.flops == 2 * 15 * noise.multiply_adds * 2 * 3 * 16  # its extra measurements are not made
    assert (noise.work, noise.workers) == ("2 x 15 x 16", 1)
    assert sum(noise.memory.values()) == sum(train.memory.values()) + 2 * 4 * noise.parameters
    assert noise.host_memory == 15 * 16 * (8 * 8 + 8)  # images and labels, read once for all snapshots

    on_two = params.model_copy(update={"compute": params.compute.model_copy(update={"workers": 2})})
    known, train = Known(on_two, Path()), on_two.models["resampled"]
    noise = DEMANDS["gradient-noise"]("noise", on_two.gradient_noises["vlb"], known)
    assert (
        noise.memory["activations"] == DEMANDS["train"]("train", train, known).memory["activations"]
    )  # as many images


def test_features_of_the_reference_are_computed_once(demands: dict[str, Demand]) -> None:
    numbers = 64 * 4
    assert demands["evaluate@plain"].disk == (20 + 1498) * numbers
    assert demands["evaluate@again"].disk == 20 * numbers
    assert demands["evaluate@large"].disk == 12 * numbers


def test_images_of_a_cascade_are_in_host_memory_and_in_work_until_all_are_drawn(demands: dict[str, Demand]) -> None:
    large, small, label = 8 * 8, 4 * 4, 8
    drawn = demands["cascade@large"]
    assert drawn.host_memory == 12 * (large + label) + 12 * (small + label)
    assert drawn.running_disk == drawn.disk == 12 * (large + label)


def test_training_compute_is_the_papers(demands: dict[str, Demand], params: Params) -> None:
    train = demands["train@digits"]
    assert train.paper_flops == train.multiply_adds * 2 * 3 * 4 * 16 == train.flops
    ((step, _),) = train.operations
    assert isinstance(step, TrainingStep)

    def flops(**changes: object) -> float:
        return replace(step, training=step.training.model_copy(update=changes)).flops / step.flops

    assert flops(noise_draws=3) == 3
    assert flops(extra_measurements=2) == pytest.approx(5 / 3)
    assert flops(noise_draws=4, draws_at_once=2, objective=Objective.IWDIFF) == pytest.approx(4 * 4 / 3)
    assert flops(noise_draws=4, draws_at_once=2) == 4


@pytest.mark.tools
def test_stages_depend_on_each_other_as_dvc_says(
    project: Project, demands: dict[str, Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.plan import stage_graph

    project.write(rich_params())
    monkeypatch.chdir(project.root)
    graph = stage_graph([])
    assert {address: sorted(set(demand.needs)) for address, demand in demands.items()} == graph


# --- memory ---

REAL_STEP = (
    PEAK_KIB
    + """
import sys
import psutil
from iddpm.checks import load_params
from iddpm.params import Device
from iddpm.training.loop import DiffusionTraining
folder = Path(sys.argv[1])
model = load_params(folder / "params.yaml").models["digits"]
small = model.model_copy(update={"training": model.training.model_copy(update={"batch_size": 2})})
DiffusionTraining(small, folder / "shards", Device.CPU).training_step(0)  # what the first step loads for good
before = psutil.Process().memory_info().rss
training = DiffusionTraining(model, folder / "shards", Device.CPU)
for step in range(2):
    training.training_step(step)
print(peak_kib() * 1024 - before)
"""
)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_is_that_of_a_real_step(tmp_path: Path, precision: str) -> None:
    """Within 10 % of what a process grows by at a step's peak, when its allocator keeps no holes between tensors."""
    network = {"width": 32, "channel_mult": [1, 2], "blocks": 1, "attention_sizes": [4]}
    network |= {"dropout": 0.1, "conditioning": "class"}
    changes = {"models.digits.network": network, "models.digits.training.batch_size": 512}
    path = write_tiny_params(tmp_path, changes | {"models.digits.training.precision": precision})
    params = load_params(path)
    write_digits(params, tmp_path / "shards")
    parts = {demand.address: demand for demand in demands_of(params, tmp_path)[0]}["train@digits"].memory
    assert sum(parts.values()) > 200e6
    command = [sys.executable, "-c", REAL_STEP, str(tmp_path)]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}
    printed = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    assert sum(parts.values()) == pytest.approx(float(printed), rel=0.1)


def write_digits(params: Params, folder: Path) -> None:
    dataset = params.datasets["digits"]
    list(write_shards(open_source(dataset, Path()), dataset, folder))


def test_memory_of_a_network_takes_none(params: Params) -> None:
    """The 273M-parameter network of 64 pixels, at the batch of its preset on 8 GPUs."""
    preset = load_params(ROOT / "presets" / "imagenet64_cond_270M_250K.yaml")
    found = {demand.address: demand for demand in demands_of(preset, Path())[0]}
    drawn = next(demand for address, demand in found.items() if address.startswith("sample@"))
    assert drawn.memory["weights"] == drawn.parameters * 4 == 273_049_350 * 4
    assert 1e9 < drawn.memory["activations"] < 20e9


def test_memory_by_workers_microbatches_and_draws(demands: dict[str, Demand]) -> None:
    ((step, _),) = demands["train@digits"].operations
    assert isinstance(step, TrainingStep)

    def activations(workers: int = 1, **changes: object) -> int:
        changed = replace(step, training=step.training.model_copy(update={"batch_size": 64, **changes}))
        return memory_of(changed, workers)["activations"]

    whole = activations()
    assert activations(workers=2) == activations(microbatches=2) < 0.6 * whole
    assert activations(noise_draws=2) == activations(noise_draws=4, draws_at_once=2) > 1.8 * whole
    assert activations(precision=Precision.BFLOAT16) < whole
    assert "buckets" in memory_of(step, 2) and "buckets" not in memory_of(step, 1)


# --- disk ---


@pytest.mark.parametrize(
    "dataset",
    [
        {"source": "digits", "images_per_block": 64, "images_per_shard": 300},
        {"source": "photos", "size": 9, "train_crops": 130, "test_crops": 7, "images_per_block": 1},
    ],
)
def test_bytes_of_shards_are_exact(tmp_path: Path, dataset: dict) -> None:
    parsed = Params.model_validate_json(json.dumps(tiny_params() | {"datasets": {"d": dataset}})).datasets["d"]
    list(write_shards(open_source(parsed, Path()), parsed, tmp_path / "shards"))
    card = known_card(parsed)
    written = sum(shard.bytes for shards in ShardFolder(tmp_path / "shards").splits.values() for shard in shards)
    assert shard_bytes(parsed, card, card.counts) == written


def test_bytes_of_a_trained_model(tmp_path: Path) -> None:
    network = {"width": 32, "channel_mult": [1, 2], "blocks": 1, "conditioning": "class"}
    changes = {"models.digits.network": network, "models.digits.training.snapshot_every": 4}
    params = load_params(write_tiny_params(tmp_path, changes))
    write_digits(params, tmp_path / "shards")
    training = DiffusionTraining(params.models["digits"], tmp_path / "shards", Device.CPU)
    training.training_step(0)
    write_checkpoint(tmp_path / "model", training.about(), training.weights())
    write_checkpoint(tmp_path / "model" / "snapshots" / "step", training.about(), training.weights(), training.state())
    written = sum(file.stat().st_size for file in (tmp_path / "model").rglob("*") if file.is_file())
    parameters = sum(parameter.numel() for parameter in training.network.parameters())
    assert training_bytes(parameters, params.models["digits"].training) == pytest.approx(written, rel=0.05)


# --- time ---


def chain(*demands: tuple[str, list[str], int, float]) -> tuple[list[Demand], dict[str, float]]:
    return [Demand(address, needs, workers) for address, needs, workers, _ in demands], {d[0]: d[3] for d in demands}


def test_stages_side_by_side() -> None:
    stages, seconds = chain(
        ("shard", [], 0, 1.0),
        ("a", ["shard"], 2, 10.0),
        ("b", ["shard"], 1, 4.0),
        ("c", ["shard"], 1, 3.0),
        ("report", ["a", "b", "c"], 0, 0.5),
    )
    assert side_by_side(stages, seconds, gpus=2) == 1 + 10 + 4 + 0.5
    assert side_by_side(stages, seconds, gpus=3) == 1 + 10 + 0.5  # b, then c, on the third
    assert critical_path(stages, seconds) == ["shard", "a", "report"]


def test_seconds_on_gpus(demands: dict[str, Demand]) -> None:
    train = demands["train@digits"]
    seconds_in_bfloat16 = train.flops / (100e12 * 0.5)
    assert 2 < MACHINE.seconds(train) / seconds_in_bfloat16 < 4  # float32: most of it at half the rate
    assert MACHINE.seconds(replace(train, workers=2)) == pytest.approx(MACHINE.seconds(train) / 2)
    assert MACHINE.seconds(demands["report"]) == 0
    ((step, times),) = train.operations
    assert isinstance(step, TrainingStep)
    reduced = replace(step, training=step.training.model_copy(update={"precision": Precision.BFLOAT16}))
    assert MACHINE.seconds(replace(train, operations=[(reduced, times)])) == pytest.approx(seconds_in_bfloat16)


def test_float32_is_counted_as_torch_computes_it() -> None:
    """Convolutions in TF32, half the rate of bfloat16; matrix products and feature networks without, a sixteenth."""
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    network = Known(load_params(ROOT / "presets" / "cifar10.yaml"), Path()).named("hybrid")
    drawn, seen = NetworkPass(network, images=10), FeaturePass("lite0", (8, 8, 1), multiply_adds=1000)
    in_attention = 0.0306  # of the multiply-adds, with the linear layers
    in_bfloat16 = drawn.flops / (100e12 * 0.5)
    slowdown = 2 * (1 - in_attention) + 16 * in_attention
    assert MACHINE.seconds(Demand("sample", operations=[(drawn, 1)])) == pytest.approx(slowdown * in_bfloat16, rel=1e-3)
    in_bfloat16 = seen.flops / (100e12 * 0.5)
    assert MACHINE.seconds(Demand("evaluate", operations=[(seen, 1)])) == pytest.approx(16 * in_bfloat16)


def test_large_operations_are_extrapolated_on_a_line(
    demands: dict[str, Demand], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ((step, _),) = demands["train@digits"].operations
    assert isinstance(step, TrainingStep)
    large = replace(step, training=step.training.model_copy(update={"batch_size": 4096, "microbatches": 4}))
    monkeypatch.setitem(FLOPS_AT_ONCE, "cpu", large.flops / 100)
    stopwatch, sizes = Stopwatch(Device.CPU, tmp_path), list[int]()

    def timed(operation: Operation) -> float:
        assert isinstance(operation, TrainingStep)
        sizes.append(operation.training.batch_size)
        return 2.0 + 0.5 * sizes[-1]

    monkeypatch.setattr(stopwatch, "_timed", timed)
    assert stopwatch.seconds(large) == pytest.approx(2.0 + 0.5 * 4096)
    assert sizes == [20, 40]
    assert stopwatch.seconds(large) and len(sizes) == 2  # known by now


def test_every_operation_can_be_measured(
    demands: dict[str, Demand], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("iddpm.stages.plan.measure.AT_LEAST", 1)
    monkeypatch.setattr("iddpm.stages.plan.measure.LONG_ENOUGH_S", 0.0)
    monkeypatch.setattr("iddpm.stages.plan.measure.SCORED_AT_MOST", 60)
    stopwatch = Stopwatch(Device.CPU, tmp_path)
    tiny = load_params(write_tiny_params(tmp_path, {"evaluations.ancestral.features": "lite0"}))
    gan, lite0 = (
        {demand.address: demand for demand in demands_of(tiny, tmp_path)[0]}[address]
        for address in ("surrogate-sample@sngan-10", "evaluate@ancestral")
    )
    kinds = set()
    for demand in (*(demands[f"train@{name}"] for name in ("digits", "up")), *list(demands.values())[7:], gan, lite0):
        for operation, _ in demand.operations:
            kinds.add(type(operation))
            seconds = stopwatch.seconds(operation)
            assert seconds > 0 and stopwatch.seconds(operation) == seconds
    assert {"GanPass", "FeaturePass", "Scoring", "NetworkPass", "TrainingStep"} <= {kind.__name__ for kind in kinds}


def test_more_images_to_score_take_longer_by_their_operations(
    demands: dict[str, Demand], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopwatch = Stopwatch(Device.CPU, tmp_path)
    monkeypatch.setattr(stopwatch, "_timed", lambda operation: 1.0)
    scoring = next(op for op, _ in demands["evaluate@plain"].operations if isinstance(op, Scoring))
    assert stopwatch.seconds(scoring) == 1.0
    fewer = replace(scoring, samples=1500, reference=1500)
    more = replace(scoring, samples=6000, reference=6000)
    assert stopwatch.seconds(more) == pytest.approx(more.flops / fewer.flops) and more.flops > 10 * fewer.flops


# --- the command ---

Plan = Callable[..., str]


@pytest.fixture
def planned(project: Project, monkeypatch: pytest.MonkeyPatch) -> Plan:
    project.write(rich_params())

    def run(gpus: Gpus = MACHINE, **options: object) -> str:
        return plan(project.root, project.root / "params.yaml", gpus=gpus, **options)  # type: ignore[arg-type]

    return run


def test_table_fits_a_screen(planned: Plan, project: Project) -> None:
    params = rich_params()
    params["samplings"]["a-sampling-with-a-name-that-is-much-too-long-for-a-table-of-this-width-x"] = {
        "model": "digits", "steps": 1, "count": 2,
    }  # fmt: skip
    project.write(params)
    lines = planned().splitlines()
    assert max(map(len, lines)) <= 120
    table = lines[: lines.index("")]
    assert len(table) == 1 + 21 + 1 and table[-1].startswith("total ") and any("…" in line for line in table)
    (row,) = [line for line in table if line.startswith("train@digits ")]
    assert re.split(r" {2,}", row)[3] == "4 x 16"
    assert any(line.startswith("Longest chain, ") for line in lines)


def test_json_adds_up(planned: Plan) -> None:
    found = json.loads(planned(as_json=True))
    stages = {stage["address"]: stage for stage in found["stages"]}
    assert found["machine"] == {"gpus": 2, "tflops": 100.0, "utilisation": 0.5}
    for total in ("flops", "paper_flops", "disk", "running_disk"):
        assert found["total"][total] == pytest.approx(sum(stage[total] for stage in stages.values()))
    assert found["total"]["gpu_seconds"] == pytest.approx(sum(s["seconds"] * s["workers"] for s in stages.values()))
    assert found["critical_path"]["seconds"] <= found["total"]["seconds"]
    assert found["total"]["seconds"] <= found["total"]["seconds_one_after_another"]
    assert found["critical_path"]["stages"][0] == "shard@digits" and found["critical_path"]["stages"][-1] == "report"


def few_params() -> dict:
    """Of one network, which is counted quickly."""
    params = tiny_params() | {"surrogates": {}, "surrogate_samplings": {}}
    del params["evaluations"]["sngan-10"]
    return params


def test_unknown_numbers_of_images_are_said(planned: Plan, project: Project) -> None:
    params = few_params()
    params["datasets"]["birds"] = {"source": "images/birds", "size": 8, "channels": 1}
    project.write(params)
    text = planned()
    assert "? images" in text and "unknown until data/raw/images/birds is there" in " ".join(text.split())
    assert "add --images birds=IMAGES" in " ".join(text.split())


@pytest.mark.parametrize(("test_every", "told"), [(7, "birds=25"), (None, "birds=22,3")])
def test_numbers_of_images_that_are_told_count_as_the_files(
    planned: Plan, project: Project, test_every: int | None, told: str
) -> None:
    params = few_params()
    params["datasets"]["birds"] = {"source": "images/birds", "size": 8, "channels": 1, "test_every": test_every}
    for split in ("train", "test"):
        params["evaluations"][split] = params["evaluations"]["ancestral"] | {"dataset": "birds", "split": split}
    del params["models"]["digits"]["network"]["conditioning"]  # birds have no classes
    params["likelihoods"]["birds"] = {"model": "digits", "dataset": "birds"}
    project.write(params)
    before = json.loads(planned(images=[told], as_json=True))
    assert not before["notes"] and before != json.loads(planned(as_json=True))
    for number in range(25):
        file = project.root / "data/raw/images/birds" / ("train" if number < 22 else "test") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert json.loads(planned(as_json=True)) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "preset 'nobody': there is none of that name ("),
        (["--gpus", "1", "--workers", "4"], "compute.workers: 4 workers of a training need a GPU each, --gpus is 1"),
        (["--gpus", "8", "--workers", "3"], "training.batch_size: 16 does not divide into 3 workers"),
        (["--gpus", "1", "--measure"], "--measure: times this machine; leave --gpus out"),
        (
            ["--images", "birds=9"],
            "--images birds: no dataset has the source images/birds; no dataset is an image folder",
        ),
        (
            ["lsun", "--gpus", "8", "--images", "lsun=9"],
            "--images lsun: no dataset has the source images/lsun; only of lsun-bedroom",
        ),
        (
            ["lsun", "--gpus", "8", "--images", "lsun-bedroom=9"],
            "datasets.bedrooms.test_every is 60, so at least 60 images are needed",
        ),
        (["scaling", "--gpus", "8", "--images", "imagenet64=9"], "give both: --images imagenet64=TRAIN,TEST"),
        (
            ["scaling", "--gpus", "8", "--images", "imagenet64=9,0"],
            "--images imagenet64=9,0: give a folder of data/raw/images as FOLDER=",
        ),
        (
            ["scaling", "--gpus", "8", "--images", "imagenet"],
            "--images imagenet: give a folder of data/raw/images as FOLDER=",
        ),
    ],
)
def test_mistakes_are_one_line(project: Project, arguments: list[str], message: str) -> None:
    said = project.mistake("plan", *arguments)
    assert message in said and len(said.splitlines()) == 1


def test_a_preset_is_planned_without_being_chosen(project: Project) -> None:
    before = (project.root / "params.yaml").read_bytes()
    stages = json.loads(project.answer("plan", "digits-quick", "--json"))["stages"]
    assert "train@digits" in {stage["address"] for stage in stages}
    assert (project.root / "params.yaml").read_bytes() == before


@pytest.mark.tools
def test_this_machine_measured(project: Project) -> None:
    """A stage takes at least its start, and what is repeated more takes longer."""
    params = few_params() | {"evaluations": {}}
    params["models"]["digits"]["training"]["steps"] = 100_000
    project.write(params)
    found = json.loads(project.run("iddpm", "plan", "--measure", "--json").stdout)
    seconds = {stage["address"]: stage["seconds"] for stage in found["stages"]}
    startup = found["machine"]["startup_seconds"]
    assert all(seconds[address] >= startup[address.partition("@")[0]] > 0.1 for address in seconds)
    assert seconds["train@digits"] > 100 * seconds["sample@ancestral"] / 10
    assert found["total"]["seconds"] == pytest.approx(sum(seconds.values()))
    assert found["critical_path"]["seconds"] < found["total"]["seconds"]
    assert found["total"]["gpu_seconds"] is None and torch.get_num_threads() >= 1
