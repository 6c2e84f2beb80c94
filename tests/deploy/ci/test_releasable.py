from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from common import overlays
from common.overlays import Release
from deploy.ci import releasable
from tests.deploy.ci.actions import GitHubActions
from tests.deploy.ci.conftest import Clone, Origin
from tests.deploy.conftest import Call
from tests.deploy.project import MODEL
from tests.e2e.clone import ROOT

LOCK = "stages:\n  select:\n    outs:\n    - path: model\n      md5: {:032x}.dir\n"


@pytest.fixture
def main(origin: Origin) -> Clone:
    """Main as the job has it, with our own overlays in it; staging runs nothing yet."""
    clone = origin.clone("main")
    names = [
        f"{overlays.FOLDER}/staging/kustomization.yaml",
        f"{overlays.folder('staging', MODEL)}/kustomization.yaml",
    ]
    files = {name: (ROOT / name).read_text() for name in names}
    files |= {
        "uv.lock": "",
        "pyproject.toml": "",
        "params.yaml": f"name: {MODEL}\n",
        "dvc.lock": LOCK.format(1),
    }
    clone.commit("Add the overlays", files)
    clone.git("push", "--quiet", "origin", "main")
    return clone


Ask = Callable[[Clone, str], subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(call: Call) -> Ask:
    """The release tool, which it starts, is ours too."""

    def asked(clone: Clone, commit: str) -> subprocess.CompletedProcess[str]:
        return call(releasable.main, clone.folder, commit, PYTHONPATH=str(ROOT))

    return asked


@pytest.mark.slow
def test_a_green_commit_of_main_is_released(main: Clone, github: GitHubActions) -> None:
    commit = main.git("rev-parse", "HEAD")
    github.add_check_run(commit, "gate")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.ci.releasable", commit],
        cwd=main.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("release=true\n")
    assert f"{MODEL}: needed: it was never released to staging" in done.stdout


@pytest.mark.slow
def test_when_staging_runs_the_same_there_is_nothing_to_do(
    ask: Ask, main: Clone, origin: Origin, github: GitHubActions
) -> None:
    released = main.git("rev-parse", "HEAD")
    release = Release("registry.example.com/espalier", f"sha256:{'a' * 64}", "0123456789ab", released)
    commit = main.commit("Release", {overlays.path("staging", MODEL): str(release)})
    main.git("push", "--quiet", "origin", "main")
    github.add_check_run(commit, "gate")
    done = ask(main, commit)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("release=false\n")
    # The commit before it, whose ci was slower, is in what staging runs.
    main.git("checkout", "--quiet", "main")
    github.add_check_run(released, "gate")
    assert ask(main, released).stdout.endswith("release=false\n")
    main.git("checkout", "--quiet", "main")
    changed = main.commit("Change the service", {"app/main.py": "app = 3\n"})
    main.git("push", "--quiet", "origin", "main")
    github.add_check_run(changed, "gate")
    done = ask(main, changed)
    assert done.stdout.endswith("release=true\n"), done.stderr
    assert "app/main.py" in done.stdout


@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "skipped", "timed_out", None])
def test_what_is_not_green_is_refused(
    ask: Ask, main: Clone, github: GitHubActions, conclusion: str | None
) -> None:
    commit = main.git("rev-parse", "HEAD")
    github.add_check_run(commit, "gate", conclusion)
    github.add_check_run(commit, "check")
    done = ask(main, commit)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the check 'gate' at ")
    assert "not green" in done.stderr
    assert "release=" not in done.stdout


def test_a_commit_that_ci_never_saw_is_refused(ask: Ask, main: Clone, github: GitHubActions) -> None:
    commit = main.git("rev-parse", "HEAD")
    github.add_check_run(commit, "another")
    assert "the check 'gate' has not run" in ask(main, commit).stderr


def test_a_branch_is_refused_however_green(
    ask: Ask, main: Clone, origin: Origin, github: GitHubActions
) -> None:
    commit = origin.tip("change")
    github.add_check_run(commit, "gate")
    done = ask(main, commit)
    assert done.returncode == 1
    assert done.stderr == f"error: {commit[:12]} is not part of main: merge it first\n"


@pytest.mark.parametrize("commit", ["main", "HEAD", "abc123", "0" * 39, "--help me", "a" * 40])
def test_anything_but_a_full_commit_of_main_is_refused(
    ask: Ask, main: Clone, github: GitHubActions, commit: str
) -> None:
    done = ask(main, commit)
    assert done.returncode != 0
    assert "release=" not in done.stdout


def test_when_github_does_not_answer_nothing_is_released(
    ask: Ask, main: Clone, github: GitHubActions
) -> None:
    commit = main.git("rev-parse", "HEAD")
    github.add_check_run(commit, "gate")
    github.fail_next.append((503, "unicorn"))
    done = ask(main, commit)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_when_it_cannot_be_told_what_is_needed_that_is_no_no(
    ask: Ask, main: Clone, github: GitHubActions
) -> None:
    commit = main.commit("Break the overlay", {overlays.path("staging", MODEL): "images: []\n"})
    main.git("push", "--quiet", "origin", "main")
    github.add_check_run(commit, "gate")
    done = ask(main, commit)
    assert done.returncode == 1
    assert "`python -m deploy.release needed` failed with 2" in done.stderr
    assert "release=" not in done.stdout
