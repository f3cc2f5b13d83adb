"""A model that draws noise: published like a real one, without the time it takes to train that."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

import iddpm.errors


class StandIn(PythonModel):
    def load_context(self, context: Any) -> None:
        assert iddpm.errors.UserError  # the package is importable wherever the model is loaded
        self.size = json.loads(Path(context.artifacts["model"], "checkpoint.json").read_text())["size"]

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        shape = (len(model_input), self.size, self.size, 1)
        return np.random.default_rng((params or {})["seed"]).integers(0, 256, shape, dtype=np.uint8)


set_model(StandIn())
