"""Where a finished model comes from: what made it, at which commit, from which files."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from iddpm.errors import UserError
from iddpm.stages.context import fingerprint, git_commit
from iddpm.stages.measurements import require
from iddpm.tracking import Lineage
from iddpm.training.checkpoint import Checkpoint, open_checkpoint

TIMED = {"models": "train", "surrogates": "surrogate"}
"""Folder of runs -> the stage that trains what is there, and keeps its record in runs/times."""


def trace(root: Path, parts: dict[str, tuple[str, Checkpoint]]) -> Lineage:
    """Of a version of these parts, each the path of a finished model, such as runs/models/digits, and what is read of
    it, which may be a snapshot.

    UserError for a part whose record is missing, and for a mixture of other models than lie there now.
    """
    lock = root / "dvc.lock"
    tags = {
        "registered_at_commit": git_commit(root),
        "registered_at_dvc_lock_sha256": fingerprint(lock) if lock.exists() else "",
    }
    made_by = {}
    for part, path, checkpoint in _with_mixed(root, parts):
        stage = _stage(path, checkpoint)
        made_by[part] = (f"{stage}@{Path(path).name}", fingerprint(root / path))
        tags |= {f"{part}_{key}": value for key, value in _tags(root, path, stage, checkpoint).items()}
    return Lineage(tags, made_by)


def _with_mixed(root: Path, parts: dict[str, tuple[str, Checkpoint]]) -> Iterator[tuple[str, str, Checkpoint]]:
    """The parts, and behind a mixture its two as PART_middle and PART_ends."""
    for part, (path, checkpoint) in parts.items():
        yield part, path, checkpoint
        mixed = {}
        for place, sha256 in checkpoint.about.get("parts_sha256", {}).items():
            of = f"runs/models/{checkpoint.about['params'][place]}"
            if fingerprint(root / of) != sha256:
                address = f"mix@{Path(path).name}"
                raise UserError(f"{address}: outdated: {of} has changed since; `dvc repro {address}` makes it again")
            mixed[f"{part}_{place}"] = (of, open_checkpoint(root / of))
        yield from _with_mixed(root, mixed)


def _stage(path: str, checkpoint: Checkpoint) -> str:
    if checkpoint.about["kind"] == "mixture":
        return "mix"
    return "import" if "imported" in checkpoint.about else TIMED[Path(path).parent.name]


def _tags(root: Path, path: str, stage: str, checkpoint: Checkpoint) -> dict[str, str]:
    about = checkpoint.about
    tags = {
        "manifest_sha256": fingerprint(checkpoint.path),
        "dataset_card_sha256": hashlib.sha256(json.dumps(about["card"], sort_keys=True).encode()).hexdigest(),
        "params": json.dumps(about["params"]),
    }
    if stage == "import":
        tags |= {"source_file": about["imported"]["file"], "source_sha256": about["imported"]["sha256"]}
    elif stage != "mix":
        time = require(root, f"{path.replace('runs/', 'runs/times/')}.json", f"{stage}@{Path(path).name}")
        tags |= {
            "git_commit": json.loads(time.read_text())["record"]["git_commit"],
            "shards_sha256": about["index_sha256"],
        }
    return tags
