from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from common import overlays
from common.overlays import Release
from deploy import clusters
from deploy.ci import releasable
from tests.deploy.ci.actions import GitHubActions
from tests.deploy.ci.conftest import Clone, Origin
from tests.deploy.conftest import Call
from tests.deploy.project import MODEL
from tests.e2e.clone import ROOT

RELEASE = Release("registry.example.com/espalier", f"sha256:{'a' * 64}", "0123456789ab", "b" * 40)
LOCK = "stages:\n  select:\n    outs:\n    - path: model\n      md5: {:032x}.dir\n"


@pytest.fixture
def main(origin: Origin) -> Clone:
    """Main as the job has it, with our own overlays in it; staging runs nothing yet."""
    clone = origin.clone("main")
    names = [
        clusters.CLUSTERS,
        clusters.ENVIRONMENTS,
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


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(call: Call) -> Ask:
    """The release tool, which it starts, is ours too."""

    def asked(clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call(releasable.main, clone.folder, *arguments, PYTHONPATH=str(ROOT))

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
def test_a_later_job_of_the_same_run_asks_no_forge(
    ask: Ask, main: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in GitLab CI and Jenkins, where the stages before have passed."""
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.delenv("GITLAB_TOKEN", raising=False)
    commit = main.git("rev-parse", "HEAD")
    done = ask(main, commit, "--gated")
    assert done.stdout.endswith(f'names={MODEL}\nmodels=["{MODEL}"]\nrelease=true\n'), done.stderr
    assert ask(main, commit).stderr.startswith("error: GitLab: no token")


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


@pytest.mark.slow
def test_a_commit_that_staging_has_gone_past_is_not_released_again(
    ask: Ask, main: Clone, github: GitHubActions
) -> None:
    """With an old release tool, too, which would release whatever differs from staging."""
    older = main.git("rev-parse", "HEAD")
    newer = main.commit("Change the service", {"app/main.py": "app = 3\n"})
    release = Release("registry.example.com/espalier", f"sha256:{'a' * 64}", "0123456789ab", newer)
    main.commit("Release", {overlays.path("staging", MODEL): str(release)})
    main.git("push", "--quiet", "origin", "main")
    github.add_check_run(older, "gate")
    github.add_check_run(newer, "gate")

    # Ci of the older commit was slower: nothing is to be done.
    done = ask(main, older)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: staging runs {newer[:12]}, which contains {older[:12]}: left as it is" in done.stdout
    assert done.stdout.endswith("release=false\n")

    # Somebody asks for it.
    main.git("checkout", "--quiet", "main")
    done = ask(main, older, "--by-hand")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {older[:12]} is older than {newer[:12]}, which staging runs of {MODEL}, and would displace it: release a "
        "newer commit, or start the workflow rollback with the environment staging (`python -m deploy.release rollback "
        f"staging --model {MODEL} --pull-request`)\n"
    )
    assert "release=" not in done.stdout

    # What staging runs may be asked for again, and is there already.
    main.git("checkout", "--quiet", "main")
    done = ask(main, newer, "--by-hand")
    assert (done.returncode, done.stdout.endswith("release=false\n")) == (0, True)


@pytest.mark.slow
def test_a_model_that_is_behind_is_released_and_one_that_is_ahead_is_left(
    ask: Ask, main: Clone, github: GitHubActions
) -> None:
    other = "plants"
    main.commit(
        "Add a model",
        {
            f"models/{other}/params.yaml": f"name: {other}\n",
            f"models/{other}/dvc.lock": LOCK.format(2),
            f"{overlays.folder('staging', other)}/kustomization.yaml": "",
        },
    )
    older = main.git("rev-parse", "HEAD")
    newer = main.commit("Change the service", {"app/main.py": "app = 3\n"})
    release = Release("registry.example.com/espalier", f"sha256:{'a' * 64}", "0123456789ab", newer)
    main.commit("Release one of them", {overlays.path("staging", MODEL): str(release)})
    main.git("push", "--quiet", "origin", "main")
    github.add_check_run(older, "gate")
    done = ask(main, older, "--by-hand")
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: staging runs {newer[:12]}" in done.stdout
    assert done.stdout.endswith(f'models=["{other}"]\nrelease=true\n')


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
    main.commit("Repair it", {overlays.path("staging", MODEL): str(RELEASE)})
    main.git("push", "--quiet", "origin", "main")
    github.add_check_run(commit, "gate")
    # The commit's release tool reads the overlay of origin, so origin's is broken for it.
    main.git("update-ref", "refs/remotes/origin/main", commit)
    done = ask(main, commit)
    assert done.returncode == 1
    assert "`python -m deploy.release needed` failed with 2" in done.stderr
    assert "release=" not in done.stdout
