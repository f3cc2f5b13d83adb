"""What every section of params.yaml shares, and the names of choices that are not the mathematics' own."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
"""Of a dictionary's entry: letters, digits, '-' and '_', since it names folders, DVC stages and MLflow runs."""


def _section_counts(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


Steps = Annotated[
    Annotated[int | str, Field(union_mode="left_to_right")],
    BeforeValidator(_section_counts),
    Field(
        description="Reverse steps: a count (100), section counts ('10,8,6' or [10, 8, 6], the first nearest to the "
        "data), or 'ddimN' for one integer stride."
    ),
]


class Section(BaseModel):
    """Frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Conditioning(StrEnum):
    """What a network is told besides the image and the timestep."""

    NONE = "none"
    CLASS = "class"


class Weights(StrEnum):
    """Which of a checkpoint's weights are used."""

    EMA = "ema"
    RAW = "raw"


class Device(StrEnum):
    """Where tensors live; auto takes the GPU when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Split(StrEnum):
    """A part of a dataset."""

    TRAIN = "train"
    TEST = "test"


class Compute(Section):
    """Where stages run. Not part of any stage's hash: results change by rounding at most."""

    workers: int = Field(0, ge=0, description="Training processes: 0 in the stage's own process, N Ray workers.")
    device: Device = Field(Device.AUTO, description="auto, cpu or cuda.")
