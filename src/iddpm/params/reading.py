"""params.yaml as a whole: reading it, with every problem named by its key."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from iddpm.errors import UserError
from iddpm.params.base import Compute, Name, Section
from iddpm.params.datasets import Dataset
from iddpm.params.models import Import, Mixture, Model, Surrogate
from iddpm.params.runs import (
    Cascade,
    Evaluation,
    GradientNoise,
    Likelihood,
    Reconstruction,
    Report,
    Sampling,
    SurrogateSampling,
)


class Params(Section):
    """params.yaml: groups are dictionaries, every entry one chain of stages. DVC needs all of them, if empty."""

    compute: Compute = Compute()
    datasets: dict[Name, Dataset]
    surrogates: dict[Name, Surrogate]
    models: dict[Name, Model]
    imports: dict[Name, Import]
    mixtures: dict[Name, Mixture]
    samplings: dict[Name, Sampling]
    surrogate_samplings: dict[Name, SurrogateSampling]
    cascades: dict[Name, Cascade]
    reconstructions: dict[Name, Reconstruction]
    evaluations: dict[Name, Evaluation]
    likelihoods: dict[Name, Likelihood]
    gradient_noises: dict[Name, GradientNoise]
    report: Report


def read_params(path: Path) -> Params:
    """Parse and type-check a parameter file. UserError lists every problem as "file: key: what is wrong"."""
    try:
        data = YAML(typ="safe").load(path)  # as DVC reads it: 1e-4 is a number, a key given twice is refused
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run in the project's folder, or choose a preset") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: must hold a dictionary of sections")
    try:
        return Params.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {_describe(problem, data)}" for problem in error.errors())) from None
    except TypeError as error:  # a date, say: YAML knows more types than JSON
        raise UserError(f"{path}: {error}") from None


def _describe(problem: Any, data: Any) -> str:
    path = ".".join(_keys(problem["loc"], data))
    if problem["type"] == "missing":
        path = f"{path}.{problem['loc'][-1]}".lstrip(".")
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown parameter"
    if problem["type"] == "missing":
        return f"{path}: is missing" + ("" if "." in path else f"; write {path}: {{}} for none")
    if problem["type"].startswith("union_tag"):
        key = problem["ctx"]["discriminator"].strip("'()")  # 'kind', or source() where a function chooses
        if problem["type"] == "union_tag_not_found":
            return f"{path}.{key}: is missing"
        *others, last = re.findall(r"'([^']+)'", problem["ctx"]["expected_tags"])
        return f"{path}.{key}: choose {', '.join(others)} or {last}, not {problem['ctx']['tag']!r}"
    return f"{path}: {refusal(problem)}"


def refusal(problem: Any) -> str:
    """What pydantic says of a value, in lower case, with the value."""
    value, message = problem["input"], problem["msg"]
    shown = f", not {value!r}" if not isinstance(value, dict) else ""
    return f"{message[0].lower()}{message[1:]}{shown}"


def _keys(location: tuple[str | int, ...], data: Any) -> Iterator[str]:
    """The path as the file has it: without the names of types that pydantic adds where there is a choice of them."""
    for part in location:
        if isinstance(data, dict) and isinstance(part, str) and part != "[key]":
            if part in data:
                yield part
                data = data[part]
        elif isinstance(data, list) and isinstance(part, int):
            yield str(part)
            data = data[part]
