"""What is asked of a finished model, checked like an entry of params.yaml before anything is drawn."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from iddpm.checks.chains import check_augmentation, check_eta, check_skipping
from iddpm.errors import UserError
from iddpm.params import Cascade, Sampling, Section, refusal
from iddpm.stages.draw import Start, plan_chains
from iddpm.stages.models import DiffusionModel

Entry = TypeVar("Entry", bound=Section)


def parse_entry(kind: type[Entry], values: Mapping[str, Any], prefix: str = "") -> Entry:
    """An entry from JSON values; UserError names the first that it cannot have, with `prefix` before its key."""
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"{prefix}{problem['loc'][0]}: {refusal(problem)}") from None


def adapt_entry(entry: Entry, changes: Mapping[str, Any], prefix: str = "") -> Entry:
    """The entry with what a request wants otherwise. UserError as of `parse_entry`."""
    return parse_entry(type(entry), entry.model_dump(mode="json") | dict(changes), prefix)


def refuse_unfit(
    entry: Sampling | Cascade, model: DiffusionModel, start: Start | None = None, prefix: str = ""
) -> None:
    """UserError when the model cannot draw as the entry says; `prefix` stands before the name of the setting."""
    for problem in _problems(entry, model, start, prefix):
        raise UserError(problem)


def _problems(entry: Sampling | Cascade, model: DiffusionModel, start: Start | None, prefix: str) -> Iterator[str]:
    yield from check_eta(f"{prefix}eta", entry)
    process, upsampling = model.process, model.architecture.upsampling
    try:
        chain = plan_chains(model, str(entry.steps), start).lower
    except ValueError as error:
        yield f"{prefix}steps: {error}"
    else:
        if chain is not None:
            spanned = start.t_mid if start else process.timesteps
            yield from check_skipping(f"{prefix}steps", process.variance, chain.timesteps, spanned, entry.sampler)
    if isinstance(entry, Cascade) and upsampling is not None:
        yield from check_augmentation(f"{prefix}augmentation", entry, upsampling)
