"""What the types cannot see: contradictions between parameters, found before the first stage runs."""

from collections.abc import Iterator
from pathlib import Path

from iddpm.checks.cascades import check_cascade, check_reconstruction
from iddpm.checks.datasets import check_dataset
from iddpm.checks.files import missing_files
from iddpm.checks.models import check_import, check_mixture, check_model, check_surrogate
from iddpm.checks.references import MODEL_GROUPS, SAMPLE_GROUPS
from iddpm.checks.report import check_report
from iddpm.checks.uses import check_evaluation, check_gradient_noise, check_likelihood, check_sampling
from iddpm.errors import UserError
from iddpm.params import Params, read_params


def load_params(path: Path) -> Params:
    """Read, type-check and cross-check a parameter file; UserError lists every problem with its key."""
    params = read_params(path)
    _refuse(path, contradictions(params))
    return params


def check_project(root: Path) -> Params:
    """`load_params` of a project's params.yaml; UserError also lists files that its stages will miss."""
    path = root / "params.yaml"
    params = load_params(path)
    _refuse(path, missing_files(params, root))
    return params


def _refuse(path: Path, problems: Iterator[str]) -> None:
    if lines := [f"{path}: {problem}" for problem in problems]:
        raise UserError("\n".join(lines))


def contradictions(params: Params) -> Iterator[str]:
    """One line per contradiction, beginning with the path of the wrong key."""
    for name, dataset in params.datasets.items():
        yield from check_dataset(f"datasets.{name}", dataset)
    for name, surrogate in params.surrogates.items():
        yield from check_surrogate(f"surrogates.{name}", surrogate, params)
    for name, model in params.models.items():
        yield from check_model(f"models.{name}", model, params)
    for name, entry in params.imports.items():
        yield from check_import(f"imports.{name}", entry)
    for name, mixture in params.mixtures.items():
        yield from check_mixture(f"mixtures.{name}", mixture, params)
    for group in ("samplings", "surrogate_samplings"):
        for name, sampling in getattr(params, group).items():
            yield from check_sampling(f"{group}.{name}", sampling, params)
    for name, cascade in params.cascades.items():
        yield from check_cascade(name, cascade, params)
    for name, reconstruction in params.reconstructions.items():
        yield from check_reconstruction(f"reconstructions.{name}", reconstruction, params)
    yield from _names_taken(params, "runs/samples", *SAMPLE_GROUPS)
    yield from _names_taken(params, "runs/models", *MODEL_GROUPS)
    for name, evaluation in params.evaluations.items():
        yield from check_evaluation(f"evaluations.{name}", evaluation, params)
    for name, likelihood in params.likelihoods.items():
        yield from check_likelihood(f"likelihoods.{name}", likelihood, params)
    for name, gradient_noise in params.gradient_noises.items():
        yield from check_gradient_noise(f"gradient_noises.{name}", gradient_noise, params)
    yield from check_report("report", params)


def _names_taken(params: Params, folder: str, *groups: str) -> Iterator[str]:
    taken: dict[str, str] = {}
    for group in groups:
        for name in getattr(params, group):
            if name in taken:
                yield f"{group}.{name}: the name is taken by {taken[name]}.{name}; both write {folder}/{name}"
            taken.setdefault(name, group)
