"""Removing outputs of entries that params.yaml no longer has; DVC's cache keeps them."""

import shutil
from pathlib import Path

import yaml

from iddpm.checks import check_project

OUTPUT_FOLDERS = {
    "data/shards": ("datasets",),
    "runs/surrogates": ("surrogates",),
    "runs/times/surrogates": ("surrogates",),
    "runs/times/models": ("models",),
    "runs/models": ("models", "imports", "mixtures"),
    "runs/samples": ("samplings", "surrogate_samplings", "cascades"),
    "runs/reconstructions": ("reconstructions",),
    "runs/metrics": ("evaluations",),
    "runs/evaluations": ("evaluations",),
    "runs/likelihoods": ("likelihoods",),
    "runs/gradient-noise": ("gradient_noises",),
}


def prune(root: Path) -> list[str]:
    """Remove such outputs and return their paths; only what dvc.lock says DVC has cached is touched.

    The report depends on whole folders, so an output left behind by a removed entry would make it run again.
    """
    params = check_project(root)
    lock = root / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}
    cached = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}
    removed = []
    for folder, groups in OUTPUT_FOLDERS.items():
        names = {name for group in groups for name in getattr(params, group)}
        for path in sorted((root / folder).glob("*")):
            relative = path.relative_to(root).as_posix()
            if relative in cached and path.name.removesuffix(".json") not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(relative)
    return removed
