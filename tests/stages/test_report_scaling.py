"""Scaling studies in the report: points from results, compute as counted, fits, figure, and what is refused."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iddpm.checks import load_params
from iddpm.data import known_card
from iddpm.errors import UserError
from iddpm.params import Architecture
from iddpm.stages.context import Stage
from iddpm.stages.inspect import inspect
from iddpm.stages.report.gather import gather
from iddpm.stages.report.scaling import scaling_blocks
from iddpm.stages.report.scaling_points import studied

from ..conftest import tiny_params, write_tiny_params
from .test_report import Report, Results

WIDTHS = {"small": 8, "middle": 16, "big": 32, "huge": 64}
STEPS, EVERY, BATCH = 800, 100, 16
SECONDS = 0.25
"""Of a training step."""
LIKELIHOOD = {"dataset": "digits", "images": 10, "checkpoints": "all"}
EVALUATION = {"dataset": "digits", "features": "pixels", "kid_subset_size": 10, "inception_splits": 2}


Bits = Callable[[float, float], float]
"""Of parameters and images."""


def nll(parameters: float, images: float) -> float:
    """With a constant."""
    return 3.4 + (parameters / 1e3) ** -0.3 + (images / 1e2) ** -0.4


def straight(compute: float) -> float:
    return float((2.5e-9 * compute) ** -0.22)


def model(width: int, **training: Any) -> dict[str, Any]:
    tiny = tiny_params()["models"]["digits"]
    settings = {"steps": STEPS, "batch_size": BATCH, "snapshot_every": EVERY, "checkpoint_every": 100}
    return tiny | {"network": tiny["network"] | {"width": width}, "training": tiny["training"] | settings | training}


def studies(**scaling: dict[str, Any]) -> dict[str, Any]:
    """Four models; bits/dim of every snapshot of each, and a distance of the finished ones and of one snapshot."""
    sampling = {"steps": 5, "count": 256}
    checkpoints = {"small-100": {"model": "small", "checkpoint": 100}, "huge-1": {"model": "huge", "seed": 1}}
    samplings = {name: {"model": name} for name in WIDTHS} | checkpoints
    return {
        "models": {name: model(width) for name, width in WIDTHS.items()},
        "samplings": {name: sampling | entry for name, entry in samplings.items()},
        "surrogate_samplings": {},
        "surrogates": {},
        "evaluations": {name: EVALUATION | {"samples": name} for name in samplings},
        "likelihoods": {name: LIKELIHOOD | {"model": name} for name in WIDTHS},
        "report.scaling": {
            name: {"metric": "bits_per_dim", "points": list(WIDTHS), "bootstrap": 20} | study
            for name, study in scaling.items()
        },
    }


class Scaled(Results):
    """Results of `studies` whose values are functions of training compute."""

    def __init__(
        self, root: Path, bits: Bits = nll, changes: dict[str, Any] | None = None, **scaling: dict[str, Any]
    ) -> None:
        super().__init__(root, **studies(**scaling) | (changes or {}))
        counts = {one["path"]: one for one in json.loads(inspect(root, None, None, as_json=True))}
        self.multiply_adds = {name: counts[f"models.{name}"]["multiply_adds"] for name in WIDTHS}
        self.parameters = {name: counts[f"models.{name}"]["parameters"] for name in WIDTHS}
        for name, entry in self.params.models.items():
            about = {"architecture": entry.model_dump(mode="json", include=set(Architecture.model_fields))}
            about |= {"kind": "diffusion", "card": known_card(self.params.datasets["digits"]).as_json()}
            self.trained(f"runs/models/{name}", about | {"params": entry.model_dump(mode="json")})
            self.timed(f"runs/models/{name}", SECONDS)
        for name, likelihood in self.params.likelihoods.items():
            self.snapshots(name, likelihood.model, bits)
        for name, entry in self.params.samplings.items():
            compute = self.compute(entry.model, entry.checkpoint or STEPS)
            scores = {"frechet_distance": straight(compute), "frechet_distance_infinity": straight(compute) / 2}
            self.evaluated(name, scores)

    def compute(self, name: str, step: int) -> float:
        """The paper's: forward and backward pass as three forward passes of two operations a multiply-add."""
        return self.multiply_adds[name] * 2 * 3 * BATCH * step

    def snapshots(self, name: str, model: str, bits: Bits) -> None:
        rows = ["step,split,bits_per_dim,standard_error"]
        values = {step: bits(self.parameters[model], BATCH * step) for step in range(EVERY, STEPS + 1, EVERY)}
        rows += [f"{step},test,{value:.12g},0.001" for step, value in values.items()]
        (self.root / f"runs/likelihoods/{name}/checkpoints.csv").write_text("\n".join(rows) + "\n")

    def points(self, report: Report) -> list[dict[str, str]]:
        with open(report.folder / "scaling.csv", newline="") as stream:
            return list(csv.DictReader(stream))


@pytest.fixture
def scaled(tmp_path: Path) -> Callable[..., Scaled]:
    return lambda bits=nll, **given: Scaled(tmp_path / "project", bits, **given)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scaled, Report]:
    """Both metrics, a study each."""
    distance = {"metric": "frechet_distance", "points": [*WIDTHS, "small-100", "huge-1"], "held_out": "middle"}
    root = tmp_path_factory.mktemp("scaling") / "project"
    results = Scaled(root, nll={}, distance=distance)
    return results, results.report(whole_stage=True)


def test_points_have_the_compute_that_the_paper_counts(made: tuple[Scaled, Report]) -> None:
    results, report = made
    points = [point for point in results.points(report) if point["study"] == "nll"]
    assert len(points) == len(WIDTHS) * STEPS // EVERY
    for point in points:
        compute = results.compute(point["model"], int(point["step"]))
        assert float(point["compute"]) == pytest.approx(compute, rel=1e-5)
        assert int(point["multiply_adds"]) == results.multiply_adds[point["model"]]
        parameters, images = results.parameters[point["model"]], BATCH * int(point["step"])
        assert (int(point["parameters"]), int(point["images"])) == (parameters, images) and point[
            "metric"
        ] == "bits/dim"
        assert float(point["value"]) == pytest.approx(nll(parameters, images))
        assert float(point["standard_error"]) == 0.001
        assert float(point["training_seconds"]) == SECONDS * int(point["step"])
        assert int(point["width"]) == WIDTHS[point["model"]]
    assert {point["model"] for point in points if point["held_out"] == "1"} == {"huge"}


def test_a_sampling_of_a_snapshot_is_a_point_and_seeds_are_one(made: tuple[Scaled, Report]) -> None:
    results, report = made
    points = [point for point in results.points(report) if point["study"] == "distance"]
    assert sorted((point["model"], int(point["step"])) for point in points) == [
        ("big", 800), ("huge", 800), ("middle", 800), ("small", 100), ("small", 800),
    ]  # fmt: skip
    errors = {point["model"]: float(point["standard_error"]) for point in points}
    assert errors["huge"] == pytest.approx(errors["big"] / 2**0.5, rel=1e-4)


def tables(report: Report, first: str) -> list[dict[str, dict[str, str]]]:
    """Those whose first column has this title: the rows by their names."""
    found = [table for table in report.tables() if table[0][0] == first]
    return [{row[0]: dict(zip(header, row, strict=True)) for row in rows} for header, *rows in found]


def test_the_page_has_the_constants_and_what_the_data_support(made: tuple[Scaled, Report]) -> None:
    _, report = made
    assert "## Scaling\n" in report.markdown and 'id="scaling"' in report.html
    (law,) = (table["With a constant"] for table in tables(report, "joint law"))
    bent, _ = (table["With a constant"] for table in tables(report, "envelope"))
    assert re.fullmatch(r"(\S+) \(\S+ to \S+\)", bent["exponent b"]) and " to " in bent["constant c"]
    assert law["constant c"] == "3.4 (3.4 to 3.4)" and law["its error"].startswith("0.00 % too")
    assert law["exponent a"].startswith("0.3 (0.3") and law["exponent b"].startswith("0.4 (")
    _, falling = tables(report, "envelope")
    law = falling["Without a constant"]
    assert law["exponent b"].startswith("0.22") and law["a"].startswith("2.5e-9")
    assert law["constant c"].strip() == "(none)"
    assert "The data support a law with a constant: the constant lies between 3.4 and 3.4." in report.markdown
    assert "Held out: huge, its last is" in report.markdown
    assert "cannot tell whether there is a constant: the joint law needs 3 numbers of parameters" in report.markdown


def test_the_published_laws_of_other_data_are_never_comparable(made: tuple[Scaled, Report]) -> None:
    _, report = made
    bits, distance = (
        next(row for name, row in table.items() if name.startswith("Published, other data"))
        for table in tables(report, "envelope")
    )
    assert "figure 10" in bits["envelope"] and "Published<" not in report.html
    assumed = "(assumed, not fitted)"
    assert [bits[key] for key in ("a", "exponent b", "constant c")] == ["3e-15", "0.17", f"3.40 {assumed}"]
    assert [distance[key] for key in ("a", "exponent b", "constant c")] == ["2.5e-25", "0.22", f"4.00 {assumed}"]
    assert report.markdown.count("The paper assumed its constants: for FID") == 2
    assert report.markdown.count("of downsampled ImageNet at 64 pixels and does not compare with these") == 2


def test_the_published_law_of_the_same_data_may_compare(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    results = scaled(nll={})
    path = results.root / "data/shards/digits/card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": "images/imagenet64", "size": 64}))
    written = section(results, tmp_path / "out")
    assert (
        "text='Published'" in written and "compare at most with a fit to downsampled ImageNet, measured as" in written
    )


def test_a_distance_of_finite_samples_is_said_to_be_biased(made: tuple[Scaled, Report]) -> None:
    _, report = made
    assert report.markdown.count("its constant holds the bias of so few samples") == 1


def test_errors_are_the_points_own_only_if_each_has_a_seed_of_its_own(
    scaled: Callable[..., Scaled], tmp_path: Path
) -> None:
    names = ["small", "small-100", "middle", "big", "huge"]
    results = scaled(distance=DISTANCE | {"points": names}, nll={})
    stage, entries = Stage("report", "", results.root), results.params.report.scaling
    shares = {name: studied(stage, gather(stage), name, entry).study.shared_errors for name, entry in entries.items()}
    assert shares == {"distance": True, "nll": True}
    for seed, name in enumerate(names):
        path = results.root / f"runs/evaluations/{name}/protocol.json"
        about = json.loads(path.read_text())
        about["samples"]["params"]["seed"] = seed
        path.write_text(json.dumps(about))
    assert not studied(stage, gather(stage), "distance", entries["distance"]).study.shared_errors


def test_the_figure_names_models_by_width_and_parameters(made: tuple[Scaled, Report]) -> None:
    _, report = made
    drawn = (report.folder / "scaling_nll.svg").read_text()
    texts = set(re.findall(r"<!-- (.+?) -->", drawn))
    assert {"envelope", "held out", "bits/dim", "training compute (operations)"} <= texts
    assert any(re.fullmatch(r"huge: width 64, \S+ [MK] parameters", text) for text in texts)
    with Image.open(report.folder / "scaling_nll.png") as image:
        assert image.width > 900
    assert "![`nll`: bits/dim against training compute](scaling_nll.png)" in report.markdown


def section(results: Scaled, folder: Path) -> str:
    """The texts of the report's part alone."""
    folder.mkdir()
    stage = Stage("report", "", results.root)
    return repr(scaling_blocks(stage, gather(stage), folder))


def test_two_studies_of_one_metric_are_compared(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    smaller = {"held_out": "small"}
    distance = {"metric": "frechet_distance", "points": ["small", "small-100", "huge"]}
    written = section(scaled(widths=smaller, tuned={}, distance=distance), tmp_path / "out")
    ranges = "between 3.4 and 3.4 in `widths` and 3.4 and 3.4 in `tuned`"
    assert written.count(f"`widths` and `tuned`: both have a constant, {ranges}") == 1
    assert "`distance` and" not in written and "and `distance`" not in written


def test_what_studies_were_measured_with_is_that_of_their_points(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    strided = {f"{name}-strided": LIKELIHOOD | {"model": name, "steps": 5} for name in WIDTHS}
    changes = {f"likelihoods.{name}": entry for name, entry in strided.items()}
    distance = DISTANCE | {"points": ["small", "middle", "huge"]}
    results = scaled(changes=changes, full={}, strided={"points": list(strided)}, distance=distance)
    written = section(results, tmp_path / "out")
    assert "`full` and `strided` were measured differently (steps: all and 5): their constants do not" in written
    stage, entries = Stage("report", "", results.root), results.params.report.scaling
    found = {name: studied(stage, gather(stage), name, entry).settings for name, entry in entries.items()}
    assert found["strided"]["steps"] == 5 and found["strided"]["split"] == "test"
    assert found["distance"]["count"] == 256 and found["distance"]["features"] == "pixels"
    assert {one["image size"] for one in found.values()} == {8}


@pytest.mark.parametrize("bad", [math.nan, 0.0, -0.5])
def test_a_value_without_logarithm_is_left_out_and_named(
    scaled: Callable[..., Scaled], tmp_path: Path, bad: float
) -> None:
    results = scaled(lambda n, d: bad if d == EVERY * BATCH else nll(n, d), nll={})
    written = section(results, tmp_path / "out")
    assert f"bits/dim of small at step 100 is {bad:g}, out of a power law" in written
    assert "The data support a law with a constant" in written
    with open(tmp_path / "out/scaling.csv", newline="") as stream:
        steps = {row["step"] for row in csv.DictReader(stream) if row["model"] == "small"}
    assert "100" not in steps and "200" in steps


def test_a_study_without_points_is_a_line(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    results = scaled(lambda parameters, images: math.nan, nll={})
    written = section(results, tmp_path / "out")
    assert "`nll`: no study, for too few of its points are left. bits/dim of small at step 100 is nan" in written


def test_a_measured_time_stands_beside_counted_compute(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    results = scaled(nll={})
    results.timed("runs/models/huge", None)  # fewer than two rows logged
    written = section(results, tmp_path / "out")
    assert "training seconds" in written
    with open(tmp_path / "out/scaling.csv", newline="") as stream:
        seconds = {(row["model"], row["step"]): row["training_seconds"] for row in csv.DictReader(stream)}
    assert seconds["big", "200"] == "50" and seconds["huge", "200"] == ""
    (results.root / "runs/times/models/big.json").unlink()
    with pytest.raises(UserError, match=r"runs/times/models/big.json: missing; `dvc repro report` makes it first"):
        section(results, tmp_path / "again")


def test_the_distance_may_be_that_of_infinitely_many_samples(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    results = scaled(limit=DISTANCE | {"metric": "frechet_distance_infinity", "points": list(WIDTHS)})
    assert "fd-pixels-infinity" in section(results, tmp_path / "out")
    with open(tmp_path / "out/scaling.csv", newline="") as stream:
        values = {row["model"]: float(row["value"]) for row in csv.DictReader(stream)}
    assert values["big"] == pytest.approx(straight(results.compute("big", STEPS)) / 2)
    results.evaluated("big", {"frechet_distance": 1.0})
    written = section(results, tmp_path / "few")
    assert "runs/metrics/big.json has no frechet_distance_infinity, which takes more samples: the point is" in written


def test_the_same_results_give_the_same_bytes(scaled: Callable[..., Scaled], tmp_path: Path) -> None:
    results = scaled(lambda n, d: nll(n, d) * (1 + 0.003 * ((n * d // 7) % 3 - 1)), nll={})
    assert section(results, tmp_path / "first") == section(results, tmp_path / "second")
    for file in ("scaling.csv", "scaling_nll.png", "scaling_nll.svg"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


DISTANCE = {"metric": "frechet_distance", "points": ["small", "middle", "big"]}
TWICE = DISTANCE | {"points": ["small", "middle", "big", "again"]}


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        ({"points": ["small", "middle", "none"]}, {}, "points: 'none' is not in likelihoods (big, huge, "),
        (DISTANCE | {"points": ["small", "middle", "none"]}, {}, "points: 'none' is not in evaluations (big, huge, "),
        ({"bootstrap": 2}, {}, "bootstrap: "),
        (
            DISTANCE | {"metric": "frechet_distance_infinity"},
            {"samplings.big.count": 250},
            "metric: big has 250 samples, and frechet_distance_infinity needs 256 of features pixels; draw more",
        ),
        ({"held_out": "tiny"}, {}, "held_out: 'tiny' is the model of none of its points (small, middle, big, huge)"),
        (
            DISTANCE | {"points": ["huge", "huge-1", "huge"]},
            {},
            "points: 1 measured of huge: a study needs 3 or more, of 2 models or more",
        ),
        (
            DISTANCE,
            {"evaluations.big.features": "lite0"},
            "points: features is lite0 for big, pixels for small and 1 more: their values do not compare",
        ),
        (DISTANCE, {"samplings.big.steps": 4}, "points: steps is 4 for big, 5 for small and 1 more: their"),
        ({}, {"likelihoods.big.images": 9}, "points: images is 9 for big, 10 for small and 2 more: their"),
        (
            DISTANCE,
            {"models.big": model(32) | {"size": 4}},
            "points: image size is 4 for big, 8 for small and 1 more: their values do not compare",
        ),
        ({}, {"models.big": model(32) | {"size": 4}}, "points: image size is 4 for big, 8 for small and 2 more: their"),
        (
            TWICE,
            {"evaluations.again": EVALUATION | {"samples": "small", "kid_subset_size": 5}},
            "points: again is of the same samples as small: they are one point, no two seeds; leave one out",
        ),
        (
            TWICE,
            {"samplings.again": {"model": "small", "steps": 5, "count": 256, "batch_size": 2, "checkpoint": STEPS},
             "evaluations.again": EVALUATION | {"samples": "again"}},
            "points: again is of the same samples as small: ",
        ),
        (
            {"points": [*WIDTHS, "again"]},
            {"likelihoods.again": LIKELIHOOD | {"model": "big", "checkpoints": "final", "seed": 1}},
            "points: again is of the same model, step and images as big: they are one point, no two seeds; leave one",
        ),
        (
            DISTANCE,
            {"models.big": model(32, noise_draws=2)},
            "points: big is of big, whose steps pass an image more than once (noise_draws, extra_measurements)",
        ),
        (
            {},
            {"mixtures.mixed": {"middle": "big", "ends": "huge", "within": 2}, "likelihoods.big.model": "mixed",
             "likelihoods.big.checkpoints": "final"},
            "points: big is of mixed, which is not in models: its training compute is not known",
        ),
        (
            DISTANCE,
            {"surrogates": tiny_params()["surrogates"], "evaluations.big.samples": "started",
             "surrogate_samplings.started": {"model": "big", "surrogate": "sngan", "t_mid": 9, "steps": 3, "count": 9}},
            "points: big is of started, which is not in samplings",
        ),
    ],
)  # fmt: skip
def test_points_that_do_not_compare_are_refused(
    tmp_path: Path, study: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"report.scaling.nll.{message}")):
        load_params(write_tiny_params(tmp_path, studies(nll=study) | changes))


def test_snapshots_count_as_points(tmp_path: Path) -> None:
    study = {"points": ["small", "middle", "small"]}
    assert load_params(write_tiny_params(tmp_path, studies(nll=study))).report.scaling


def test_one_odd_point_is_one_line_and_blames_that_point(tmp_path: Path) -> None:
    """Even if it is the first."""
    names = ["small-100", *WIDTHS, "huge-1"]
    distance = DISTANCE | {"points": names}
    with pytest.raises(UserError) as refused:
        load_params(write_tiny_params(tmp_path, studies(nll=distance) | {"samplings.small-100.steps": 4}))
    (line,) = str(refused.value).splitlines()
    assert line.endswith(": steps is 4 for small-100, 5 for small and 4 more: their values do not compare")


def test_another_seed_is_another_point(tmp_path: Path) -> None:
    distance = DISTANCE | {"points": ["small", "small-100", "huge", "huge-1"]}
    assert load_params(write_tiny_params(tmp_path, studies(nll=distance))).report.scaling
