"""Where models come from that no training made: imports their source, mixtures their two parts."""

import json
from pathlib import Path

import pytest

from iddpm.errors import UserError
from iddpm.params import Mixture
from iddpm.stages.context import fingerprint
from iddpm.stages.lineage import trace
from iddpm.stages.mix import mix
from iddpm.training.checkpoint import open_checkpoint, write_checkpoint

from .test_draw import write_model


def write_made(path: Path, more: dict[str, object]) -> None:
    """A model that is described as its stage describes it."""
    described = open_checkpoint(write_model(path, raw=False))
    weights = {"ema": described.weights("ema")}
    write_checkpoint(path, described.about | {"params": {"own": path.name}} | more, weights)


def test_an_import_and_a_mixture(tmp_path: Path) -> None:
    models = tmp_path / "runs" / "models"
    write_made(models / "own", {"index_sha256": "1" * 64})
    write_made(models / "public", {"imported": {"file": "cifar10.pt", "sha256": "2" * 64}})
    (tmp_path / "runs/times/models").mkdir(parents=True)
    (tmp_path / "runs/times/models/own.json").write_text(json.dumps({"record": {"git_commit": "earlier"}}))
    parts = [open_checkpoint(models / name) for name in ("own", "public")]
    write_checkpoint(models / "mixed", *mix("mixtures.mixed", Mixture(middle="own", ends="public", within=5), *parts))
    mixed = {"model": ("runs/models/mixed", open_checkpoint(models / "mixed"))}
    tags, made_by = (lineage := trace(tmp_path, mixed)).tags, lineage.made_by
    assert tags["model_middle_git_commit"] == "earlier" and tags["model_middle_shards_sha256"] == "1" * 64
    assert tags["model_ends_source_file"] == "cifar10.pt" and tags["model_ends_source_sha256"] == "2" * 64
    assert "model_git_commit" not in tags and json.loads(tags["model_params"])["middle"] == "own"
    assert made_by == {
        "model": ("mix@mixed", fingerprint(models / "mixed")),
        "model_middle": ("train@own", fingerprint(models / "own")),
        "model_ends": ("import@public", fingerprint(models / "public")),
    }
    write_made(models / "own", {"index_sha256": "3" * 64})
    with pytest.raises(UserError, match=r"^mix@mixed: outdated: runs/models/own has changed since; `dvc repro mix@mix"):
        trace(tmp_path, mixed)
