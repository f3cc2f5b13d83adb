"""Of the report: what it sets beside published results."""

from collections.abc import Iterator

from iddpm.checks.references import reference
from iddpm.errors import UserError
from iddpm.evaluation.published import published_result
from iddpm.params import Params


def check_report(path: str, params: Params) -> Iterator[str]:
    """Each pair joins an evaluation or likelihood of this file to a published result with a score of its kind."""
    for name, result in params.report.published.items():
        key = f"{path}.published.{name}"
        yield from reference(key, name, params, "evaluations", "likelihoods")
        try:
            scores = published_result(result).scores
        except UserError as error:
            yield f"{key}: {error}"
            continue
        if name in params.likelihoods and name not in params.evaluations and "nll" not in scores:
            yield f"{key}: {result} has no bits/dim to compare a likelihood with"
