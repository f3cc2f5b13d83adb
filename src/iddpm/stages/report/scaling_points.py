"""The points of scaling studies: results of models and their snapshots with the training compute they took."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from iddpm.evaluation.confidence import NORMAL_REACH
from iddpm.evaluation.published import Protocol, PublishedResult, Score, comparable
from iddpm.evaluation.scaling import FEWEST_MODELS, FEWEST_POINTS, Study, scaling_study, training_compute
from iddpm.evaluation.scaling_laws import PowerLaw, ScalingPoint
from iddpm.params import OF_EVALUATION, OF_LIKELIHOOD, OF_SAMPLING, ScalingMetric, ScalingStudy
from iddpm.stages.context import Stage
from iddpm.stages.evaluated import Evaluated, Json
from iddpm.stages.report.gather import Likelihood, Results
from iddpm.stages.report.protocol import network_name
from iddpm.stages.report.sections import counted_network

CSV_COLUMNS = (
    "study", "metric", "model", "width", "parameters", "multiply_adds", "step", "images", "compute", "value",
    "standard_error", "training_seconds", "on_envelope", "held_out",
)  # fmt: skip
FIGURE_10 = PublishedResult(
    "figure 10", "Nichol & Dhariwal 2021, figure 10", {}, Protocol(dataset="downsampled ImageNet", size=64), None
)
PUBLISHED_LAWS: dict[Score, PowerLaw] = {
    "fid": PowerLaw(math.log10(2.5e-25), 0.22, 4.00),
    "nll": PowerLaw(math.log10(3.0e-15), 0.17, 3.40),
}
"""Those of FIGURE_10, whose caption says that the constants are not fitted but assumed."""


class Cost(NamedTuple):
    """What a model costs: multiply-adds of one forward pass of one image, images of a training step, and its time.

    `seconds_per_step` as measured, None for a training that logged fewer than three rows.
    """

    width: int
    parameters: int
    multiply_adds: int
    batch_size: int
    seconds_per_step: float | None

    def images(self, step: int) -> int:
        return self.batch_size * step

    def seconds(self, step: int) -> float | None:
        return None if self.seconds_per_step is None else self.seconds_per_step * step


class Measured(NamedTuple):
    """A metric of a model after a training step, with its standard error."""

    model: str
    step: int
    value: float
    error: float | None


class Source(NamedTuple):
    """What a study is of: `unit` names the metric, `data` what it was measured on, as `protocol` says.

    `settings` is what all points share and their values depend on. `without` says which points lack the metric, `bias`
    what a constant of the metric holds that no model can mend; `biased_by_samples` is the number of samples if their
    bias is in it. `shared_errors` as in `scaling_study`.
    """

    measured: list[Measured]
    unit: str
    data: str
    settings: Json
    bias: str
    biased_by_samples: int | None
    shared_errors: bool
    protocol: Protocol
    without: list[str]


@dataclass(frozen=True)
class Studied:
    """A scaling study of params.yaml with its result; `unit` to `biased_by_samples` are its Source's.

    `left_out` says which points are not in it, and why. `published` is the law of figure 10, `other_data` whether that
    is for certain of other data, or another metric.
    """

    name: str
    unit: str
    data: str
    settings: Json
    bias: str
    biased_by_samples: int | None
    left_out: list[str]
    published: PowerLaw
    other_data: bool
    costs: dict[str, Cost]
    study: Study


def studied(stage: Stage, results: Results, name: str, entry: ScalingStudy) -> Studied | str:
    """Its points from the results, and the fits; why there is no study, if too few points have a logarithm."""
    of_likelihoods = entry.metric is ScalingMetric.BITS_PER_DIM
    source = _likelihoods(results, entry) if of_likelihoods else _evaluations(results, entry)
    kept, left_out = [], source.without
    for one in source.measured:
        if 0 < one.value < math.inf:
            kept.append(one)
        else:
            left_out.append(
                f"{source.unit} of {one.model} at step {one.step:,} is {one.value:g}, out of a power law's reach: the "
                "point is left out."
            )
    models = dict.fromkeys(one.model for one in kept)
    steps = {(one.model, one.step) for one in kept}
    if len(models) < FEWEST_MODELS or len(steps) < FEWEST_POINTS or entry.held_out not in (None, *models):
        return f"`{name}`: no study, for too few of its points are left. {' '.join(left_out)}"
    costs = {model: _cost(stage, model, results.models[model]) for model in models}
    points = []
    for one in _over_seeds(kept):
        cost = costs[one.model]
        images = cost.images(one.step)
        compute = training_compute(cost.multiply_adds, images)
        points.append(ScalingPoint(one.model, one.step, cost.parameters, images, compute, one.value, one.error))
    study = scaling_study(points, entry.held_out, entry.bootstrap, entry.seed, shared_errors=source.shared_errors)
    score: Score = "nll" if of_likelihoods else "fid"
    other = comparable(score, FIGURE_10.differences(source.protocol, [score])) is False
    other = other or entry.metric is ScalingMetric.FRECHET_DISTANCE_INFINITY
    return Studied(
        name=name,
        unit=source.unit,
        data=source.data,
        settings=source.settings,
        bias=source.bias,
        biased_by_samples=source.biased_by_samples,
        left_out=left_out,
        published=PUBLISHED_LAWS[score],
        other_data=other,
        costs=costs,
        study=study,
    )


def _likelihoods(results: Results, entry: ScalingStudy) -> Source:
    likelihoods = [one for one in results.likelihoods if one.name in entry.points]
    first, measured = likelihoods[0], [row for one in likelihoods for row in _of_likelihood(results, one)]
    card = results.cards[first.dataset]
    size = results.models[first.model]["architecture"].get("size") or card["size"]
    asked = results.params.likelihoods[first.name]
    settings = {key: getattr(asked, key) for key in OF_LIKELIHOOD} | {"split": first.shown_split, "image size": size}
    return Source(
        measured=measured,
        unit="bits/dim",
        data=f"{first.shown_split} images of {first.dataset}",
        settings=settings,
        bias="",
        biased_by_samples=None,
        shared_errors=True,  # they are over images and noise that all models share
        protocol=Protocol(dataset=card["source"], size=size),
        without=[],
    )


def _evaluations(results: Results, entry: ScalingStudy) -> Source:
    evaluations = [one for one in results.evaluations if one.name in entry.points]
    measured = [_of_evaluation(results, one, entry.metric) for one in evaluations if entry.metric in one.scores]
    without = [
        f"runs/metrics/{one.name}.json has no {entry.metric}, which takes more samples: the point is left out."
        for one in evaluations
        if entry.metric not in one.scores
    ]
    about = evaluations[0].about
    unit, reference, card = about["distance"], about["reference"], results.cards[about["reference"]["dataset"]]
    size = reference.get("averaged_to") or card["size"]
    asked, sampled = results.params.evaluations[evaluations[0].name], evaluations[0].sampling
    settings = {key: getattr(asked, key) for key in OF_EVALUATION} | {key: sampled[key] for key in OF_SAMPLING}
    samples = None if entry.metric is ScalingMetric.FRECHET_DISTANCE_INFINITY else about["protocol"]["images"]
    seeds = [one.sampling["seed"] for one in evaluations]
    compared = f"{about['protocol']['reference']['images']:,} reference images"
    if samples is None:
        unit += "-infinity"
        bias = f"{unit} is extrapolated to unlimited samples; its constant still holds the bias of the {compared}."
    else:
        bias = (
            f"{unit} of {samples:,} samples is larger than that of unlimited ones would be: its "
            f"constant holds the bias of so few samples, and of the {compared}. `metric: frechet_distance_infinity` is "
            "without the samples' part."
        )
    return Source(
        measured=measured,
        unit=unit,
        data=f"{reference['split']} images of {reference['dataset']}",
        settings=settings | {"image size": size},
        bias=bias,
        biased_by_samples=samples,
        shared_errors=len(set(seeds)) < len(seeds),  # a seed's noise is the same for all models
        protocol=Protocol(dataset=card["source"], size=size, features=network_name(about)),
        without=without,
    )


def _of_evaluation(results: Results, one: Evaluated, metric: ScalingMetric) -> Measured:
    model = one.sampling["model"]
    step = one.sampling.get("checkpoint") or _last_step(results, model)
    value, error = one.scores[metric], None
    if interval := one.intervals.get(metric):
        error = (interval[1] - value) / NORMAL_REACH  # the lower end may have been cut off at 0
    return Measured(model, step, value, error)


def _of_likelihood(results: Results, one: Likelihood) -> Iterator[Measured]:
    """Of every snapshot, if they were asked for, else of the finished model."""
    if not one.checkpoints:
        error = one.values["bits_per_dim_standard_error"]
        yield Measured(one.model, _last_step(results, one.model), one.values["bits_per_dim"], error)
    for row in one.checkpoints:
        if row["split"] == one.shown_split:
            error = float(row["standard_error"])
            yield Measured(
                one.model, int(row["step"]), float(row["bits_per_dim"]), None if math.isnan(error) else error
            )


def _last_step(results: Results, model: str) -> int:
    steps: int = results.models[model]["params"]["training"]["steps"]
    return steps


def _over_seeds(measured: Sequence[Measured]) -> Iterator[Measured]:
    """One of each model and step: the mean where several seeds measured it, its error that of the mean."""
    same: dict[tuple[str, int], list[Measured]] = {}
    for one in measured:
        same.setdefault((one.model, one.step), []).append(one)
    for (model, step), several in same.items():
        errors = [one.error for one in several if one.error is not None]
        error = math.hypot(*errors) / len(several) if len(errors) == len(several) else None
        yield Measured(model, step, fmean(one.value for one in several), error)


def _cost(stage: Stage, model: str, about: Json) -> Cost:
    parameters, multiply_adds = counted_network(about["architecture"], about["card"])
    time = json.loads(stage.input(f"runs/times/models/{model}.json").read_text())
    return Cost(
        about["architecture"]["network"]["width"],
        parameters,
        multiply_adds,
        about["params"]["training"]["batch_size"],
        time["seconds_per_step"],
    )


def write_points(path: Path, studies: Sequence[Studied]) -> None:
    """A row for each point of each study."""
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        for one in studies:
            for point in one.study.points:
                cost = one.costs[point.model]
                about = [one.name, one.unit, point.model, cost.width, cost.parameters, cost.multiply_adds, point.step]
                about += [cost.images(point.step), f"{point.compute:.6g}", f"{point.value:.8g}"]
                known = ["" if value is None else f"{value:.6g}" for value in (point.error, cost.seconds(point.step))]
                marks = [int(point in one.study.envelope), int(point.model == one.study.held_out.model)]
                writer.writerow([*about, *known, *marks])
