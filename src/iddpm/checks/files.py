"""Files that parameters name: a missing one would end a pipeline hours after its start."""

from collections.abc import Iterator
from pathlib import Path

from iddpm.errors import UserError
from iddpm.evaluation.features import FEATURE_NETWORKS, find_files
from iddpm.params import Params


def missing_files(params: Params, root: Path) -> Iterator[str]:
    """One line per use of a feature network that lacks a file in the project's data/raw/features."""
    uses = {f"evaluations.{name}": evaluation.features for name, evaluation in params.evaluations.items()}
    uses |= {f"reconstructions.{name}": entry.features for name, entry in params.reconstructions.items()}
    for path, features in uses.items():
        try:
            find_files(features, root / FEATURE_NETWORKS)
        except UserError as error:
            yield f"{path}.features: {error}"
