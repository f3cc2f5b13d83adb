"""MLflow beside the pipeline: stages write run directories, deliveries bring them there when they can.

Nothing here is needed for a result, and nothing MLflow does can change one.
"""

from iddpm.tracking.connection import tracking_uri
from iddpm.tracking.courier import Courier
from iddpm.tracking.delivery import deliver, deliver_pending
from iddpm.tracking.record import Pipeline, RunRecord
from iddpm.tracking.registry import (
    HIGHER_IS_BETTER,
    Lineage,
    Package,
    copy_model,
    load,
    predict,
    register,
)
from iddpm.tracking.results import Measured, Result, Score, entry_alias, register_results

__all__ = [
    "HIGHER_IS_BETTER",
    "Courier",
    "Lineage",
    "Measured",
    "Package",
    "Pipeline",
    "Result",
    "RunRecord",
    "Score",
    "copy_model",
    "deliver",
    "deliver_pending",
    "entry_alias",
    "load",
    "predict",
    "register",
    "register_results",
    "tracking_uri",
]
