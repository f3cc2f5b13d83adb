"""Checkpoints are whole or passed over."""

import resource
from pathlib import Path

import pytest
import torch

from iddpm.errors import UserError
from iddpm.training.checkpoint import FORMAT, newest_checkpoint, open_checkpoint, save_step, write_checkpoint

WEIGHTS = {"model": {"w": torch.arange(1000.0)}, "ema": {"w": torch.ones(1000)}}
STATE = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "count": 7}


def save(root: Path, *steps: int) -> None:
    for step in steps:
        save_step(root, step, {"kind": "test"}, WEIGHTS, STATE)


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path, 10)
    checkpoint = newest_checkpoint(tmp_path, print)
    assert checkpoint is not None and checkpoint.about == {"format": FORMAT, "kind": "test", "step": 10}
    assert torch.equal(checkpoint.weights("model")["w"], WEIGHTS["model"]["w"])
    assert checkpoint.state()["count"] == 7
    with pytest.raises(UserError, match=r"raw\.safetensors: missing"):
        checkpoint.weights("raw")


@pytest.mark.parametrize(
    "file", ["model.safetensors", "ema.safetensors", "state.pt", "checkpoint.json", "manifest.json"]
)
@pytest.mark.parametrize("fault", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path: Path, file: str, fault: str) -> None:
    save(tmp_path, 10, 20)
    victim = tmp_path / "step-000000020" / file
    content = bytearray(victim.read_bytes())
    if fault == "delete":
        victim.unlink()
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(bytes(content[: len(content) // 2] if fault == "truncate" else content))
    messages: list[str] = []
    checkpoint = newest_checkpoint(tmp_path, messages.append)
    assert checkpoint is not None and checkpoint.about["step"] == 10
    assert len(messages) == 1 and "step-000000020" in messages[0]


def test_pruning_keeps_two_that_verify(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, 30)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000020", "step-000000030"]
    (tmp_path / "step-000000030" / "ema.safetensors").write_bytes(b"")
    save(tmp_path, 40)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000020", "step-000000030", "step-000000040"]


@pytest.mark.parametrize("largest", [1000, 5000])  # bytes: in the weights, in state.pt
def test_a_disk_that_is_full_loses_nothing(tmp_path: Path, largest: int) -> None:
    save(tmp_path, 10)
    padded = STATE | {"padding": torch.zeros(10_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        with pytest.raises(UserError, match=r"step-000000020: could not be written"):
            save_step(tmp_path, 20, {"kind": "test"}, WEIGHTS, padded)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]


def test_what_a_kill_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".step-000000010.123.tmp").mkdir()
    save(tmp_path, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000020"]


def test_state_is_never_unpickled(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", {"kind": "test"}, WEIGHTS, {"object": Path("x")})
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        open_checkpoint(tmp_path / "c").state()
