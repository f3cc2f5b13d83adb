"""Where MLflow is and how this project talks to it: briefly, and one process at a time."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:  # importing mlflow takes over a second: only functions that talk to it do
    from mlflow import MlflowClient

EXPERIMENT = "iddpm"
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # deliveries are repeated anyway; the default tries for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare_environment() -> None:
    """Settings mlflow takes from the environment, some at its import; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else the database embedded in the project at `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def shown_uri(root: Path) -> str:
    """The tracking URI without a user's name and password, for messages."""
    return re.sub(r"//[^/]*@", "//", tracking_uri(root))


def tracking_lock(root: Path) -> FileLock:
    """Held while talking to MLflow: a database that two processes create at once is broken, and looking for a
    run and creating it where it is missing must not interleave."""
    return FileLock(root / "work" / "mlflow.lock")


def connect(root: Path) -> "tuple[MlflowClient, str]":
    """A client and the id of our experiment, both created where missing. Call it holding `tracking_lock`."""
    prepare_environment()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(root))
    if experiment := client.get_experiment_by_name(EXPERIMENT):
        return client, experiment.experiment_id
    embedded = not os.environ.get("MLFLOW_TRACKING_URI")
    location = (root.resolve() / "mlruns").as_uri() if embedded else None  # a server chooses its own
    return client, client.create_experiment(EXPERIMENT, artifact_location=location)


def short_reason(error: BaseException) -> str:
    """The innermost cause in one line: MLflow wraps a refused connection into several hundred characters."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
