"""Who may start when, without a server."""

import pytest

from pipelines.plan import Refused
from pipelines.slots import Demand, Slots, demands, gpu_devices

GRAPH: dict[str, list[str]] = {
    stage: [] for stage in ("shard@d", "train@m", "surrogate@gan", "surrogate@low", "report")
}


def parameters(workers: int, device: str = "auto") -> dict[str, object]:
    surrogates = {"gan": {"kind": "sngan"}, "low": {"kind": "low_resolution"}}
    return {"compute": {"workers": workers, "device": device}, "surrogates": surrogates}


def test_only_a_diffusion_models_training_takes_several() -> None:
    assert demands(GRAPH, parameters(4), gpus=8, cpu_slots=1) == {
        "shard@d": Demand(1, False),
        "train@m": Demand(4, True),
        "surrogate@gan": Demand(1, True),
        "surrogate@low": Demand(4, True),
        "report": Demand(1, False),
    }
    assert not any(demand.on_gpus for demand in demands(GRAPH, parameters(2, "cpu"), gpus=8, cpu_slots=2).values())


def test_a_training_in_the_stages_own_process_takes_one() -> None:
    assert {demand.slots for demand in demands(GRAPH, parameters(0), gpus=0, cpu_slots=1).values()} == {1}


def test_workers_on_a_cluster_take_no_slots_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    taken = demands(GRAPH, parameters(4), gpus=1, cpu_slots=1)
    assert taken["train@m"] == taken["surrogate@low"] == Demand(1, False)
    assert taken["surrogate@gan"] == Demand(1, True), "which trains in the stage's own process"
    assert demands(GRAPH, parameters(0), gpus=1, cpu_slots=1)["train@m"] == Demand(1, True), "likewise"


def test_more_workers_than_slots_are_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"^compute.workers: train@m .* 4 workers and the flow's gpus is 3; "):
        demands(GRAPH, parameters(4), gpus=3, cpu_slots=9)
    with pytest.raises(Refused, match=r"^compute.workers: train@m .* the flow's cpu_slots is 3; "):
        demands(GRAPH, parameters(4, "cpu"), gpus=9, cpu_slots=3)


def test_nobody_overtakes_a_training_that_waits_for_many_slots() -> None:
    needed = {"sample@a": Demand(1, True), "train@m": Demand(3, True), "sample@b": Demand(1, True)}
    slots = Slots(needed | {"report": Demand(1, False)}, ["4", "5", "6"], cpu_slots=1)
    slots.enqueue(["sample@a"])
    assert list(slots.admitted()) == [("sample@a", ["4"])]
    slots.enqueue(["train@m", "sample@b", "report"])
    assert list(slots.admitted()) == [("report", [])], "two GPUs are free, but train@m is first"
    slots.release("sample@a")
    assert [(stage, sorted(devices)) for stage, devices in slots.admitted()] == [("train@m", ["4", "5", "6"])]
    assert list(slots.admitted()) == []
    slots.release("train@m")
    assert [stage for stage, _ in slots.admitted()] == ["sample@b"]


def test_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1, 7,2")
    assert gpu_devices(2) == ["GPU-1", "7"]
    monkeypatch.setattr("pipelines.slots.device_count", lambda: 3)
    assert gpu_devices(None) == ["GPU-1", "7", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_devices(0) == []
    with pytest.raises(Refused, match=r"^gpus: 1 is more than the 0 that CUDA_VISIBLE_DEVICES="):
        gpu_devices(1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_devices(None) == ["0", "1", "2"]
    assert gpu_devices(3) == ["0", "1", "2"]
    with pytest.raises(Refused, match=r"^gpus: 4 is more than the 3 that this machine has$"):
        gpu_devices(4)
    monkeypatch.setattr("pipelines.slots.device_count", lambda: 0)
    assert gpu_devices(None) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpu_devices(None) == []
