"""Files that parameters name: a missing one would end a pipeline hours after its start."""

from collections.abc import Iterator
from pathlib import Path

from iddpm.errors import UserError
from iddpm.evaluation.features import FEATURE_NETWORKS, find_files
from iddpm.params import Params


def missing_files(params: Params, root: Path) -> Iterator[str]:
    """One line per evaluation whose feature network lacks a file in the project's data/raw/features."""
    for name, evaluation in params.evaluations.items():
        try:
            find_files(evaluation.features, root / FEATURE_NETWORKS)
        except UserError as error:
            yield f"evaluations.{name}.features: {error}"
