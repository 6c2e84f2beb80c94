from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from common import overlays
from common.git import GitError
from deploy.ci import patches, touched
from tests.deploy.ci.conftest import Origin
from tests.deploy.conftest import Call
from tests.e2e.clone import ROOT

PATHS = touched.pipeline_paths((ROOT / "dvc.yaml").read_text())


def is_of_pipeline(path: str) -> bool:
    return touched.is_below(path, PATHS)


def test_what_others_merged_since_does_not_count(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = origin.clone("work")
    clone.commit("Of somebody else", {"training/tree.py": "pass\n"})
    base = clone.git("rev-parse", "HEAD")
    clone.git("checkout", "--quiet", "-b", "mine", "HEAD~1")
    clone.commit("Mine", {"app/main.py": "app = 1\n"})
    monkeypatch.chdir(clone.folder)
    assert touched.changed(base) == ["app/main.py"]
    assert not any(map(is_of_pipeline, touched.changed(base)))


def test_a_file_that_moved_away_counts(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = origin.clone("work")
    clone.git("mv", "metrics/tree.json", "elsewhere.json")
    clone.git("commit", "--quiet", "--message", "Move")
    monkeypatch.chdir(clone.folder)
    assert "metrics/tree.json" in touched.changed("HEAD~1")


def test_a_shallow_clone_is_told_what_it_lacks(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = origin.tip("main")
    subprocess.run(
        [
            "git",
            "clone",
            "-q",
            "--depth=1",
            "--branch=change",
            f"file://{origin.folder}",
            str(tmp_path / "s"),
        ],
        check=True,
    )
    monkeypatch.chdir(tmp_path / "s")
    with pytest.raises(GitError, match="fetch-depth: 0"):
        touched.changed(base)


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("params.yaml", True),
        ("training/train/stage.py", True),
        ("training/train/onnx/svm.py", True),
        ("training/packages.yaml", True),
        ("training/review/comment.py", False),
        ("training/storage.py", False),
        ("metrics/svm.json", True),
        ("dvc.yaml", True),
        (".dvc/config", True),
        ("app/predictor.py", True),
        ("uv.lock", False),
        ("data/source/flowers.csv", True),
        ("app/main.py", False),
        ("docs/params.yaml", False),
        ("params.yaml.orig", False),
        ("trainings/x.py", False),
        ("deploy/base/rollout.yaml", False),
    ],
)
def test_paths(path: str, counts: bool) -> None:
    assert is_of_pipeline(path) is counts


EVERY = list(touched.JOBS)
RELEASES = [overlays.path("production", "iris"), overlays.path("staging", "churn")]


@pytest.mark.parametrize(
    ("paths", "jobs"),
    [
        (RELEASES, ["check", "manifests"]),
        ([RELEASES[0], "deploy/overlays/production/iris/kustomization.yaml"], ["check", "test", "manifests", "dashboards"]),
        (["deploy/overlays/production/release/kustomization.yaml"], ["check", "test", "manifests", "dashboards"]),
        ([*RELEASES, "README.md"], EVERY),
        (["deploy/base/rollout.yaml"], EVERY),
        (["docs/deploy/overlays/production/iris/release/kustomization.yaml"], EVERY),
        (["deploy/overlays"], EVERY),
        ([], EVERY),
    ],
)  # fmt: skip
def test_jobs_that_a_change_can_affect(paths: list[str], jobs: list[str]) -> None:
    assert touched.affected(paths) == jobs


@pytest.mark.slow
def test_a_promotion_skips_what_it_cannot_affect(
    origin: Origin, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("work")
    base = clone.commit("Add a pipeline", {"dvc.yaml": "stages: {}\n"})
    clone.commit("Promote", {RELEASES[0]: "images: []\n"})
    done = call(touched.main, clone.folder, "--base", base)
    assert (done.returncode, done.stdout) == (0, 'pipeline=false\njobs=["check", "manifests"]\n')
    # Main has no base, and is released only if every job passed.
    done = call(touched.main, clone.folder, "--base", "")
    assert done.stdout == f"pipeline=true\njobs={json.dumps(EVERY)}\n"


def test_the_list_is_that_of_dvc_yaml() -> None:
    """All that a stage reads from git, and all that it writes into git."""
    reads, writes = set(), set()
    for entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        stage = entry.get("do", entry)
        reads |= set(stage["deps"])
        for kind in ("outs", "metrics", "plots"):
            for output in stage.get(kind, []):
                ((path, options),) = output.items()
                if options.get("cache") is False:
                    writes.add(path.replace("${key}", "tree"))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    in_git = {each for each in reads if any(name.startswith(each) for name in tracked.stdout.splitlines())}
    assert in_git, "the stages read something"
    assert writes, "the stages write something into git"
    for path in in_git | writes:
        name = f"{path}/" if (ROOT / path).is_dir() else path
        assert is_of_pipeline(name), path
    for path in writes:
        assert patches.is_recorded(path), path
