"""What is recorded of the code that made a result."""

import subprocess
from pathlib import Path

from iddpm.stages.context import git_commit


def git(root: Path, *arguments: str) -> str:
    own = ["-c", "user.name=me", "-c", "user.email=me@here"]
    done = subprocess.run(["git", *own, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_is_dirty_by_code_and_not_by_what_every_run_writes(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""
    for name in ("params.yaml", "dvc.lock", "dvc.yaml", "code.py"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) == ""  # nothing is committed yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "params.yaml").write_text("22")
    (tmp_path / "dvc.lock").write_text("22")
    assert git_commit(tmp_path) == commit and len(commit) == 40
    for name in ("dvc.yaml", "code.py"):
        (tmp_path / name).write_text("22")
        assert git_commit(tmp_path) == f"{commit}-dirty"
        (tmp_path / name).write_text("1")
        assert git_commit(tmp_path) == commit
