"""What scaling studies say: which law the data support, and whether two studies agree on it."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from iddpm.evaluation.scaling import Study
from iddpm.evaluation.scaling_laws import FEWEST_VALUES, Form, JointLaw
from iddpm.stages.report.blocks import joined, number
from iddpm.stages.report.scaling_points import Studied

ARTICLES = {form: f"a law {form}" for form in Form}


def verdict(study: Study, biased_by_samples: int | None = None) -> str:
    """Which form the data support, or why they cannot tell; `biased_by_samples` as in Source."""
    if not study.joint:
        return (
            "The data cannot tell whether there is a constant: the joint law needs "
            f"{FEWEST_VALUES} numbers of parameters, {FEWEST_VALUES} of images and {len(JointLaw._fields)} points."
        )
    errors = [f"{held_out_error(study, form)} by {ARTICLES[form]}" for form in Form]
    held_out = f"The held-out {study.held_out.model} is predicted {joined(errors)}."
    if any(study.error(form) is None for form in Form):
        held_out = f"The models besides {study.held_out.model} leave too few points to predict it."
    if study.supported is None:
        return f"The data cannot tell whether there is a constant: {joined(list(_doubts(study)))}. {held_out}"
    if study.supported is Form.WITH_CONSTANT:
        found = f"the constant lies between {_constant_range(study)}.{_whose_constant(biased_by_samples)}"
    else:
        found = f"no constant above {_most(study)} is shown."
    return f"The data support {ARTICLES[study.supported]}: {found} {held_out}"


def _whose_constant(biased_by_samples: int | None) -> str:
    """Of a constant that was found: a biased metric has one of its own."""
    if biased_by_samples is None:
        return ""
    return (
        f" But it may be the bias of {biased_by_samples:,} samples, which is much the same for all models, instead of "
        "a constant of the models."
    )


def _doubts(study: Study) -> Iterator[str]:
    """What keeps the data from supporting a form."""
    if not study.joint_describes:
        yield "the joint law does not describe the points, which deviate from it by more than chance"
    if study.constant_range is None:
        yield (
            "its interval takes points enough for the joint law with any one model left out "
            f"({FEWEST_VALUES} numbers of parameters, {FEWEST_VALUES} of images, {len(JointLaw._fields)} points)"
        )
    elif study.told is None:
        yield f"0 and any constant up to {_most(study)} agree with the points"
    else:
        yield f"the constant's interval lies between {_constant_range(study)}"
        if study.predicts_better not in (None, study.told):
            yield f"{ARTICLES[study.predicts_better]} predicts the held-out model better"


def _most(study: Study) -> str:
    """The largest constant that the data allow, beside the best value."""
    assert study.constant_range is not None
    most = study.constant_range[1]
    return f"{number(most, 3)} ({number(100 * most / study.best, 2)} % of the best value)"


def _constant_range(study: Study) -> str:
    assert study.constant_range is not None  # only where there is an interval
    return " and ".join(number(end, 3) for end in study.constant_range)


def held_out_error(study: Study, form: Form) -> str:
    """Of the held-out prediction; "" where the other models were too few for one."""
    percent = study.error(form)
    return "" if percent is None else f"{abs(percent):.2f} % too {'high' if percent > 0 else 'low'}"


def comparisons(studies: Sequence[Studied]) -> list[str]:
    """Of each two studies of one metric and dataset."""
    return [compared(one, other) for one, other in combinations(studies, 2) if _kind(one) == _kind(other)]


def _kind(one: Studied) -> tuple[str, str]:
    return one.unit, one.data


def compared(first: Studied, second: Studied) -> str:
    """Whether the bend of a curve, its constant, is there in both of two studies of one metric.

    Or in what they were measured differently, which alone may move a constant.
    """
    names = f"`{first.name}` and `{second.name}`"
    if differing := [key for key in first.settings if first.settings[key] != second.settings.get(key)]:
        ways = [f"{key}: {_shown(first.settings[key])} and {_shown(second.settings[key])}" for key in differing]
        return f"{names} were measured differently ({'; '.join(ways)}): their constants do not compare."
    both = first.study.supported is second.study.supported is Form.WITH_CONSTANT
    caution = _whose_constant(first.biased_by_samples) if both else ""
    return f"{names}: {_agreement(first, second)}.{caution}"


def _shown(setting: Any) -> str:
    return "all" if setting is None else str(setting)


def _agreement(first: Studied, second: Studied) -> str:
    supported = {one.name: one.study.supported for one in (first, second)}
    if doubtful := [f"`{name}`" for name, form in supported.items() if form is None]:
        return f"the data do not tell whether both have a constant, neither law is supported in {joined(doubtful)}"
    if set(supported.values()) == {Form.WITHOUT_CONSTANT}:
        return f"neither shows a constant, none above {joined([_most(one.study) for one in (first, second)])}"
    ranges = joined([f"{_constant_range(one.study)} in `{one.name}`" for one in (first, second)])
    if len(set(supported.values())) == 1:
        return f"both have a constant, between {ranges}"
    if not _disjoint(first.study, second.study):
        return f"the data do not tell whether their constants differ, they lie between {ranges}"
    bent, straight = sorted((first, second), key=lambda one: supported[one.name] is Form.WITHOUT_CONSTANT)
    return f"the constant of `{bent.name}` goes away in `{straight.name}`, it lies between {ranges}"


def _disjoint(first: Study, second: Study) -> bool:
    ranges = sorted(one.constant_range for one in (first, second) if one.constant_range is not None)
    return len(ranges) == 2 and ranges[0][1] < ranges[1][0]
