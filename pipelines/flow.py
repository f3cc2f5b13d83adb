"""One Prefect flow over DVC's graph: a task per stage, independent stages side by side.

`python -m pipelines.flow` runs it, on a temporary server unless PREFECT_API_URL names one; the deployment in
prefect.yaml runs it from the Prefect UI. It works on the repository of the current directory.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager, nullcontext
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

import httpx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from pipelines.stages import Stages, Stopped

GPU_GROUPS = {"surrogate", "train", "sample", "surrogate-sample", "cascade", "likelihood", "evaluate"}
GPU_LIMIT = "gpu"
REPORT = Path("runs/report")
POLL_SECONDS = 3.0
