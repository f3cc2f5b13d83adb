"""A model or a cascade as MLflow serves it, which runs this file: one row of the input is one image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,unused-ignore]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from iddpm.errors import UserError

UNCHOSEN = -1  # the label of a row that leaves the class to the model


class ServedModel(PythonModel):  # type: ignore[misc,unused-ignore]
    """Draws images: uint8 [N, H, W, C] for a table of N rows with the column `label` (-1: any class)."""

    def load_context(self, context: Any) -> None:
        if "cascade" in context.artifacts:
            from iddpm.stages.cascade_model import CascadeModel

            self._draw: Callable[..., Any] = CascadeModel(Path(context.artifacts["cascade"])).draw
        else:
            from iddpm.stages.single_model import SingleModel

            self._draw = SingleModel(Path(context.artifacts["model"])).draw

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        labels = model_input["label"].to_numpy(np.int64)
        try:
            return self._draw(None if (labels == UNCHOSEN).all() else labels, count=len(model_input), **(params or {}))
        except UserError as error:  # answered with status 400 instead of 500
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(ServedModel())
