"""What is asked of a finished model, checked like an entry of params.yaml before anything is drawn."""

import json
from collections.abc import Iterable, Iterator, Mapping
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


def refuse_unknown(asked: Iterable[str], known: Iterable[str]) -> None:
    """UserError names the first setting of a request that is not `known`."""
    known = list(known)
    unknown = next((key for key in asked if key not in known), None)
    if unknown is not None:
        raise UserError(f"{unknown}: unknown parameter; a request may set {', '.join(known)}")


def adapt_entry(entry: Entry, changes: Mapping[str, Any], prefix: str = "") -> Entry:
    """The entry with what a request wants otherwise. UserError as of `parse_entry`."""
    return parse_entry(type(entry), entry.model_dump(mode="json") | dict(changes), prefix)


def refuse_unfit(
    entry: Sampling | Cascade, model: DiffusionModel, start: Start | None = None, prefix: str = ""
) -> None:
    """UserError when the model cannot draw as the entry says; `prefix` stands before the name of the setting."""
    problem = next(_problems(entry, model, start, prefix), None)
    if problem is not None:
        raise UserError(problem)


def _problems(entry: Sampling | Cascade, model: DiffusionModel, start: Start | None, prefix: str) -> Iterator[str]:
    yield from check_eta(f"{prefix}eta", entry)
    process, upsampling = model.process, model.architecture.upsampling
    try:
        chains = plan_chains(model, str(entry.steps), start)
    except ValueError as error:
        yield f"{prefix}steps: {error}"
    else:
        if chains.lower is not None:
            taken, spanned = chains.network_evaluations, start.t_mid if start else process.timesteps
            yield from check_skipping(f"{prefix}steps", process.variance, taken, spanned, entry.sampler)
        if chains.upper is not None and start is not None:
            taken, spanned = chains.surrogate_evaluations, process.timesteps - start.t_mid
            if any(check_skipping("surrogate_steps", chains.upper.variance, taken, spanned, entry.sampler)):
                yield (
                    f"{prefix}sampler: {entry.sampler} cannot take the surrogate's {taken} of {spanned} steps with "
                    "variance learned; use ddim"
                )
    if isinstance(entry, Cascade) and upsampling is not None:
        yield from check_augmentation(f"{prefix}augmentation", entry, upsampling)
