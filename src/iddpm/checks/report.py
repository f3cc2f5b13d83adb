"""Of the report: what it sets beside published results, and the points of its scaling studies."""

from collections.abc import Iterator
from typing import Any

from iddpm.checks.references import SAMPLE_GROUPS, named_model, reference
from iddpm.errors import UserError
from iddpm.evaluation.frechet import SAMPLES_PER_DIMENSION
from iddpm.evaluation.published import published_result, published_results
from iddpm.evaluation.scaling import FEWEST_MODELS, FEWEST_POINTS
from iddpm.params import (
    FREE_AMONG_SEEDS,
    FREE_AMONG_TRAINING_SEEDS,
    OF_EVALUATION,
    OF_LIKELIHOOD,
    OF_SAMPLING,
    Checkpoints,
    Params,
    ScalingMetric,
    ScalingStudy,
    Splits,
)

DIMENSIONS = {"lite0": 1280, "inception": 2048}
"""Features of an image, of the embedded networks."""


def check_report(path: str, params: Params) -> Iterator[str]:
    """Of what stands beside published results, and of scaling studies."""
    yield from _check_published(f"{path}.published", params)
    for name, study in params.report.scaling.items():
        yield from _check_scaling(f"{path}.scaling.{name}", study, params)


def _check_published(path: str, params: Params) -> Iterator[str]:
    """Each pair joins an evaluation or likelihood of this file to a published result with a score of its kind."""
    for name, result in params.report.published.items():
        key = f"{path}.{name}"
        yield from reference(key, name, params, "evaluations", "likelihoods")
        try:
            scores = published_result(result).scores
        except UserError as error:
            yield f"{key}: {error}"
            continue
        if name in params.likelihoods and name not in params.evaluations and "nll" not in scores:
            yield f"{key}: {result} has no bits/dim to compare a likelihood with"
    yield from _check_relative_to(path, params)


def _check_relative_to(path: str, params: Params) -> Iterator[str]:
    """A complaint where results that are no seeds of one thing stand beside the row of 1.00: which would ours be?"""
    published = {name: row for name, row in params.report.published.items() if name in params.evaluations}
    known = [published_results()[row] for row in published.values() if row in published_results()]
    for row in dict.fromkeys(one.relative_to for one in known if one.relative_to):
        names = [name for name, of in published.items() if of == row]
        samples = [_all_but_seeds(params.evaluations[name].samples, params) for name in names]
        if others := [name for name, made in zip(names, samples, strict=True) if made != samples[0]]:
            yield (
                f"{path}: {names[0]} and {', '.join(others)} stand beside {row}, which relative numbers are ratios to, "
                "and differ in more than their seed; leave one there"
            )


def _all_but_seeds(name: str, params: Params, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """What draws a set of samples but for seeds, those of trainings too; `above` are cascades upon it."""
    entry = next((getattr(params, group)[name] for group in SAMPLE_GROUPS if name in getattr(params, group)), None)
    if entry is None or name in above:
        return {"samples": name}  # is reported where it is named
    made: dict[str, Any] = entry.model_dump(exclude=set(FREE_AMONG_SEEDS))
    for key in {"model", "upsampler"} & made.keys():
        if model := params.models.get(made[key]):
            made[key] = model.model_dump(exclude={"training": set(FREE_AMONG_TRAINING_SEEDS)})
    return made | ({"samples": _all_but_seeds(made["samples"], params, (*above, name))} if "samples" in made else {})


def _check_scaling(path: str, study: ScalingStudy, params: Params) -> Iterator[str]:
    """Points of several models whose training compute is known, measured alike."""
    group = "likelihoods" if study.metric is ScalingMetric.BITS_PER_DIM else "evaluations"
    for name in study.points:
        yield from reference(f"{path}.points", name, params, group)
    known = [name for name in dict.fromkeys(study.points) if name in getattr(params, group)]
    trained: dict[str, set[int]] = {}
    for name in known:
        model = _model(name, study.metric, params)
        if problem := _no_compute(name, model, params):
            yield f"{path}.points: {problem}"
        elif model is not None and model in params.models:  # a missing model is reported where it is named
            trained.setdefault(model, set()).update(_steps(name, model, study.metric, params))
    settings = {name: _settings(name, study.metric, params) for name in known}
    yield from _check_alike(f"{path}.points", settings)
    yield from _check_once(f"{path}.points", settings, study.metric, params)
    if study.metric is ScalingMetric.FRECHET_DISTANCE_INFINITY:
        yield from _check_enough(f"{path}.metric", known, params)
    if not trained:
        return
    points = sum(map(len, trained.values()))
    if len(trained) < FEWEST_MODELS or points < FEWEST_POINTS:
        yield (
            f"{path}.points: {points} measured of {', '.join(trained)}: a study needs {FEWEST_POINTS} or more, of "
            f"{FEWEST_MODELS} models or more"
        )
    if study.held_out is not None and study.held_out not in trained:
        yield f"{path}.held_out: {study.held_out!r} is the model of none of its points ({', '.join(trained)})"


def _model(name: str, metric: ScalingMetric, params: Params) -> str | None:
    """Of a point; None for samples that a model did not draw from noise alone."""
    if metric is ScalingMetric.BITS_PER_DIM:
        return params.likelihoods[name].model
    sampling = params.samplings.get(params.evaluations[name].samples)
    return None if sampling is None else sampling.model


def _no_compute(name: str, model: str | None, params: Params) -> str:
    """Why a point has no training compute to be plotted against; "" if it has."""
    if model is None:
        return (
            f"{name} is of {params.evaluations[name].samples}, which is not in samplings: only images that a model "
            "draws from noise stand for its training alone"
        )
    if model in params.imports or model in params.mixtures:
        return f"{name} is of {model}, which is not in models: its training compute is not known"
    training = params.models[model].training if model in params.models else None
    if training is not None and (training.noise_draws > 1 or training.extra_measurements):
        return (
            f"{name} is of {model}, whose steps pass an image more than once (noise_draws, extra_measurements): the "
            "paper's count of compute does not hold for it"
        )
    return ""


def _steps(name: str, model: str, metric: ScalingMetric, params: Params) -> set[int]:
    """Training steps at which a point's key measures the model."""
    training = params.models[model].training
    if metric is not ScalingMetric.BITS_PER_DIM:
        return {params.samplings[params.evaluations[name].samples].checkpoint or training.steps}
    every = training.snapshot_every
    if params.likelihoods[name].checkpoints is Checkpoints.FINAL or every is None:
        return {training.steps}
    return {training.steps, *range(every, training.steps, every)}


def _check_alike(path: str, settings: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A complaint for each value of a setting that other points, the most of them, have otherwise."""
    for key in dict.fromkeys(key for of_point in settings.values() for key in of_point):
        names: dict[str, list[str]] = {}
        for name, of_point in settings.items():
            if key in of_point:
                names.setdefault(str(of_point[key]), []).append(name)
        usual = max(names, key=lambda value: len(names[value]))  # of as many the first
        first, *more = names.pop(usual)
        others = f"{first} and {len(more)} more" if more else first
        for value, odd in names.items():
            yield f"{path}: {key} is {value} for {', '.join(odd)}, {usual} for {others}: their values do not compare"


def _check_once(path: str, settings: dict[str, dict[str, Any]], metric: ScalingMetric, params: Params) -> Iterator[str]:
    """A complaint for each point that an earlier one is already: as a second seed it would feign certainty."""
    of_likelihoods = metric is ScalingMetric.BITS_PER_DIM
    same = "model, step and images" if of_likelihoods else "samples"
    seen: dict[tuple[Any, ...], str] = {}
    for name, of_point in settings.items():
        model = _model(name, metric, params)
        if model not in params.models:
            continue  # reported above
        seed = None if of_likelihoods else params.samplings[params.evaluations[name].samples].seed
        points = [(model, step, seed, str(of_point)) for step in sorted(_steps(name, model, metric, params))]
        if twins := [seen[point] for point in points if point in seen]:
            yield f"{path}: {name} is of the same {same} as {twins[0]}: they are one point, no two seeds; leave one out"
        seen |= dict.fromkeys(points, name)


def _check_enough(path: str, names: list[str], params: Params) -> Iterator[str]:
    """A complaint for each evaluation with too few samples for an extrapolation, as far as it is known."""
    for name in names:
        evaluation = params.evaluations[name]
        sampling = params.samplings.get(evaluation.samples)
        model = None if sampling is None else named_model(sampling.model, params)
        if sampling is None or model is None:
            continue
        pixels = {"pixels": model.size**2 * model.card.channels}
        needed = SAMPLES_PER_DIMENSION * (DIMENSIONS | pixels).get(evaluation.features, 0)
        if sampling.count < needed:
            yield (
                f"{path}: {name} has {sampling.count:,} samples, and frechet_distance_infinity needs {needed:,} of "
                f"features {evaluation.features}; draw more, or set frechet_distance"
            )


def _settings(name: str, metric: ScalingMetric, params: Params) -> dict[str, Any]:
    """What a point's value depends on besides the model's training, as far as it is known."""
    model = named_model(_model(name, metric, params) or "", params)
    size = {} if model is None else {"image size": model.size}
    if metric is ScalingMetric.BITS_PER_DIM:
        likelihood = params.likelihoods[name]
        settings = {key: getattr(likelihood, key) for key in OF_LIKELIHOOD} | size
        return settings | ({"split": Splits.TEST} if likelihood.split is Splits.BOTH else {})
    evaluation = params.evaluations[name]
    settings = {key: getattr(evaluation, key) for key in OF_EVALUATION} | size
    sampling = params.samplings.get(evaluation.samples)
    return settings | ({} if sampling is None else {key: getattr(sampling, key) for key in OF_SAMPLING})
