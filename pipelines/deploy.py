"""A Prefect deployment for every preset, named like it: `python -m pipelines.deploy`, part of `make prefect`.

Any worker of the work pool can take a run: it works in the checkout in which that worker was started. What the user
set in the UI (parameters, schedules, pauses) is kept.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from prefect import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.exceptions import ObjectNotFound

from pipelines.flow import pipeline

WORK_POOL = "local"
EMBEDDED = {"digits", "photos"}  # sources that come with the package
QUEUEING = "A checkout runs one pipeline at a time; a run that waits for its turn is shown as Late."


def kind(parameters: dict[str, Any]) -> str:
    """The tag of a preset: import, small (data that comes with the package) or full."""
    if parameters.get("imports"):
        return "import"
    sources = {dataset["source"] for dataset in parameters.get("datasets", {}).values()}
    return "small" if sources <= EMBEDDED else "full"


def deploy() -> list[str]:
    """Make or update the deployments; their names."""
    paths = sorted(Path("presets").glob("*.yaml"))
    with get_client(sync_client=True) as client:
        flow = client.create_flow(pipeline)
        for path in paths:
            text = path.read_text()
            try:
                preset = yaml.safe_load(text)
            except yaml.YAMLError as error:
                sys.exit(f"{path}: not valid YAML: {' '.join(str(error).split())}")
            settings: dict[str, Any] = {
                "description": f"{text.splitlines()[0].lstrip('# ')}\n\n{QUEUEING}",
                "tags": [kind(preset)],
                "work_pool_name": WORK_POOL,
                "job_variables": {"working_dir": "."},  # the worker's
                "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}],
                "entrypoint": "pipelines/flow.py:pipeline",
                "parameter_openapi_schema": pipeline.parameters.model_dump(),
                "enforce_parameter_schema": True,
            }
            try:
                known = client.read_deployment_by_name(f"{pipeline.name}/{path.stem}")
            except ObjectNotFound:
                client.create_deployment(flow, path.stem, parameters={"preset": path.stem}, **settings)
            else:
                client.update_deployment(known.id, DeploymentUpdate(**settings))
    return [path.stem for path in paths]


if __name__ == "__main__":
    print(f"{len(deploy())} deployments, one for each preset")
