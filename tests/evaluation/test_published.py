"""Published results: the numbers, and what keeps ours from standing beside them."""

import pytest

from iddpm.errors import UserError
from iddpm.evaluation.published import (
    ASPECTS,
    INCEPTION,
    Protocol,
    PublishedResult,
    comparable,
    published_result,
    published_results,
)

CIFAR10 = Protocol(
    dataset="cifar10", size=32, features=INCEPTION, images=50_000, rounding="nearest", reference_split="train",
    reference_images=50_000, manifold_reference=50_000, neighbours=3, inception_splits=10, likelihood_split="test",
    likelihood_terms="all T", hardware="cuda", conditioning="none", timesteps=4000, schedule="cosine",
    objective="hybrid", iterations=500_000, weights="ema", start="noise", sampler="ancestral", steps=4000,
)  # fmt: skip
EXPLICIT = PublishedResult(
    "made/up",
    "a source that says everything",
    {"fid": 3.0, "nll": 3.0},
    CIFAR10.model_copy(update={"dataset": "CIFAR-10"}),
    None,
)


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("paper-imagenet64/T4000-cosine-hybrid-1500K", {"nll": 3.57, "fid": 19.2}),
        ("paper-cifar10/T4000-cosine-vlb", {"nll": 2.94, "fid": 11.47}),
        ("paper-imagenet64-class/BigGAN-deep", {"fid": 4.06, "precision": 0.86, "recall": 0.59}),
        ("paper-imagenet256/two-stages", {"fid": 12.3}),
        ("coursework-steps/800K", {"is": 9.46, "fid": 3.17}),
        ("coursework-networks/MBConv96", {"is": 8.95, "fid": 4.10, "relative_speed": 0.77, "training_hours": 42.5}),
        ("coursework-objectives/both", {"is": 9.33, "fid": 3.42, "relative_time": 2.91}),
        ("coursework-surrogates/SNGAN-250", {"relative_speed": 4.0, "is": 8.94, "fid": 6.36}),
    ],
)
def test_numbers(name: str, scores: dict[str, float]) -> None:
    assert published_result(name).scores == scores


def test_every_result_says_where_it_is_from_and_how_it_was_measured() -> None:
    results = published_results()
    assert len(results) == 47
    assert all("20" in result.source and result.scores for result in results.values())
    assert results["coursework-T100/first"].protocol.timesteps == 100
    assert results["paper-cifar10/T1000-linear-simple"].protocol.images == 50_000


def test_relative_numbers_are_1_in_the_row_that_they_are_relative_to() -> None:
    for name, result in published_results().items():
        relative = {"relative_speed", "relative_time"} & set(result.scores)
        first = published_results().get(result.relative_to or "")
        assert not relative or (first is not None and all(first.scores[score] == 1 for score in relative)), name


def test_every_key_of_a_protocol_is_compared() -> None:
    assert list(ASPECTS) == list(Protocol.model_fields)


def test_what_no_source_says_is_not_assumed() -> None:
    silent = ("rounding", "weights", "likelihood_split", "likelihood_terms", "hardware")
    for name, result in published_results().items():
        stated = result.protocol
        assert {key: getattr(stated, key) for key in silent} == dict.fromkeys(silent), name
        assert stated.features == (INCEPTION if "precision" in result.scores else None), name
        assert stated.reference_split == ("train" if name.startswith("paper") else None), name
    required = Protocol(dataset="cifar10", size=32)
    assert set(required.model_dump(exclude={"dataset", "size"}).values()) == {None}


def test_the_same_protocol_has_no_difference() -> None:
    other = CIFAR10.model_copy(update={"sampler": None})
    assert [one.aspect.name for one in EXPLICIT.differences(other, ["fid", "nll"])] == ["sampler"]
    assert EXPLICIT.differences(CIFAR10, ["fid", "nll"]) == []
    assert comparable("fid", []) is True and comparable("nll", []) is True


def test_a_published_fid_is_by_some_inception_even_if_it_does_not_say_so() -> None:
    published = published_result("paper-cifar10/T4000-cosine-hybrid")
    for features, same in ((INCEPTION, None), ("lite0", False)):
        differences = published.differences(CIFAR10.model_copy(update={"features": features}), ["fid"])
        found = next(one for one in differences if one.aspect.name == "feature network")
        assert (found.published, found.same) == ("not stated, but some Inception", same)
        assert comparable("fid", differences) is same


@pytest.mark.parametrize(
    ("change", "aspect", "shown"),
    [
        ({"dataset": "digits"}, "dataset", ("CIFAR-10", "digits", False)),
        ({"dataset": "images/cifar"}, "dataset", ("CIFAR-10", "images/cifar", None)),
        ({"size": 16}, "image size", ("32", "16", False)),
        ({"features": "lite0"}, "feature network", ("2015 Inception", "lite0", False)),
        ({"rounding": "truncated"}, "rounding to grey levels", ("nearest", "truncated", False)),
        ({"images": 10_000}, "images generated", ("50,000", "10,000", False)),
        ({"reference_images": 10_000}, "reference images", ("50,000", "10,000", False)),
        ({"reference_split": "test"}, "reference", ("train", "test", False)),
    ],
)
def test_what_keeps_an_fid_from_being_compared(
    change: dict[str, object], aspect: str, shown: tuple[str, str, bool | None]
) -> None:
    differences = EXPLICIT.differences(CIFAR10.model_copy(update=change), ["fid"])
    found = next(one for one in differences if one.aspect.name == aspect)
    assert (found.published, found.ours, found.same) == shown
    assert comparable("fid", differences) is shown[2]


def test_a_method_may_differ() -> None:
    other = CIFAR10.model_copy(update={"steps": 50, "sampler": "ddim, eta 0", "objective": "vlb", "timesteps": 1000})
    differences = EXPLICIT.differences(other, ["fid"])
    assert {"T", "objective"} < {one.aspect.name for one in differences}
    assert comparable("fid", differences) is True


def test_a_difference_bears_on_some_scores_only() -> None:
    strided = CIFAR10.model_copy(update={"likelihood_terms": "250 of 4,000", "inception_splits": 1})
    differences = EXPLICIT.differences(strided, ["fid", "nll"])
    assert comparable("nll", differences) is False and comparable("fid", differences) is True
    assert "splits of IS" not in {one.aspect.name for one in differences}
    likelihood = EXPLICIT.differences(strided, ["nll"])
    assert "sampling steps" not in {one.aspect.name for one in likelihood}


def test_what_a_source_does_not_say_makes_a_score_uncertain() -> None:
    differences = published_result("coursework-steps/150K").differences(CIFAR10, ["fid", "is"])
    assert next(one for one in differences if one.aspect.name == "images generated").published == "not stated"
    assert comparable("fid", differences) is None


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("paper-cifar10/T4000", "choose paper-cifar10/T1000-linear-simple, "),
        ("paper/T4000", "choose TABLE/ROW of coursework-T100, coursework-networks, "),
        ("", "choose TABLE/ROW of "),
    ],
)
def test_an_unknown_result_is_refused_with_the_choices(name: str, choices: str) -> None:
    with pytest.raises(UserError, match=f"^'{name}' is no published result; {choices}"):
        published_result(name)
