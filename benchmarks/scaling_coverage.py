"""How often are scaling studies right? Simulated studies of known constants; docs/presets.md has the table.

    python benchmarks/scaling_coverage.py

Each has the widths of the paper's figure 10 and five budgets, on a joint law whose best value is 1 before chance. That
is normal in the logarithm: some of each point, some of each training, which moves all its points. Study k of a row has
seed k. Takes 3 minutes of one idle core.
"""

import argparse
import math
from collections.abc import Iterator

import numpy as np

from iddpm.evaluation.scaling import Study, scaling_study, training_compute
from iddpm.evaluation.scaling_laws import Form, JointLaw, ScalingPoint

MODELS = {"w64": (30_303_494, 10.04e9), "w96": (68_126_598, 22.43e9), "w128": (121_063_942, 39.74e9),
          "w192": (272_281_350, 89.09e9)}  # fmt: skip
"""Parameters and multiply-adds."""
STEPS = (100_000, 200_000, 400_000, 800_000, 1_500_000)
BATCH = 128
EXPONENT = 0.3
MODELS_PART = 0.3 / 1.3
"""Of what the best point has above the constant, that which more images would not take away."""
CHANCES = ((0.003, 0.0, True), (0.003, 0.003, True), (0.003, 0.01, True), (0.0005, 0.002, False), (0.003, 0.003, False))
"""Standard deviations of a point's own chance and of a training's, and whether the study is told the former."""
CONSTANTS = (0.0, 0.2, 0.66)
"""As shares of the best value."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=30, help="of each row")
    parser.add_argument("--bootstrap", type=int, default=40, help="redraws of a study")
    arguments = parser.parse_args()
    titles = ("chance a point", "a training", "errors", "constant", "described", "interval holds it", "right", "wrong")
    print(f"| {' | '.join(titles)} |\n{'| --- ' * len(titles)}|")
    for own, shared, known in CHANCES:
        for constant in CONSTANTS:
            points = (simulated(constant, own, shared, known, seed) for seed in range(arguments.studies))
            studies = [scaling_study(of_one, None, arguments.bootstrap, 0) for of_one in points]
            verdicts = [judged(constant, one) for one in studies]
            counts = " | ".join(str(sum(column)) for column in zip(*verdicts, strict=True))
            about = f"{100 * own:g} % | {100 * shared:g} % | {'known' if known else 'unknown'} | {100 * constant:g} %"
            print(f"| {about} | {counts} |", flush=True)


def simulated(constant: float, own: float, shared: float, known: bool, seed: int) -> list[ScalingPoint]:
    return list(_points(law_of(constant), own, shared, known, np.random.default_rng(seed)))


def law_of(constant: float) -> JointLaw:
    above, parameters, images = 1 - constant, max(MODELS.values())[0], BATCH * STEPS[-1]
    of_model, of_data = (
        math.log10(part * above) + EXPONENT * math.log10(count)
        for part, count in ((MODELS_PART, parameters), (1 - MODELS_PART, images))
    )
    return JointLaw(of_model, EXPONENT, of_data, EXPONENT, constant)


def _points(
    law: JointLaw, own: float, shared: float, known: bool, random: np.random.Generator
) -> Iterator[ScalingPoint]:
    for model, (parameters, multiply_adds) in MODELS.items():
        of_training = shared * random.standard_normal()
        for step in STEPS:
            images = BATCH * step
            value = float(law.at(parameters, images)) * math.exp(of_training + own * random.standard_normal())
            compute = training_compute(multiply_adds, images)
            yield ScalingPoint(model, step, parameters, images, compute, value, own * value if known else None)


def judged(constant: float, study: Study) -> tuple[bool, bool, bool, bool]:
    """Whether the joint law is said to describe, the interval holds the constant, the verdict is right, or wrong.

    Neither right nor wrong is a study that cannot tell.
    """
    low, high = study.constant_range or (math.nan, math.nan)
    right = Form.WITH_CONSTANT if constant else Form.WITHOUT_CONSTANT
    told = study.supported
    return study.joint_describes, low <= constant <= high, told is right, told not in (None, right)


if __name__ == "__main__":
    main()
