"""The Prefect flow over DVC's graph. `dvc repro` needs none of this."""

import os

# Read by Prefect when it is imported, so they are set before any module of this package can import it.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# A cold start of the temporary server takes longer than Prefect's 20 s on a small machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", "true")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
