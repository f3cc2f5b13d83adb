"""Names of several evaluations that are seeds of one thing."""

import pytest

from iddpm.stages.evaluated import common_name


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["IWDiff-0", "IWDiff-1"], "IWDiff"),
        (["importance-sampling-2-0", "importance-sampling-2-1"], "importance-sampling-2"),
        (["hybrid-0-100", "hybrid-1-100"], "hybrid-100"),
        (["ancestral-100-seed-0", "ancestral-100-seed-1", "ancestral-100-seed-2"], "ancestral-100"),
        (["a-10", "a-11"], "a"),
        (["ancestral", "second"], "ancestral"),
        (["first-a", "first-b"], "first-a"),
        (["0", "1"], "0"),
        (["cold-seed", "cold-seed"], "cold-seed"),
    ],
)
def test_a_mean_has_the_common_part_of_its_seeds_names(names: list[str], common: str) -> None:
    assert common_name(names) == common
