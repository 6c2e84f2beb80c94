from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ci import retrain
from deploy.errors import DeployError
from tests.deploy.ci.actions import GitHubActions
from tests.deploy.ci.conftest import Clone, Origin
from tests.deploy.ci.test_lockback import RESULTS, reproduce
from tests.e2e.clone import BIN, ROOT

OTHER = {"dvc.lock": "schema: '2.0'\nstages: {train: {outs: []}}\n"}


def command(clone: Clone, patch: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "deploy.ci.retrain", "--patch", str(patch)],
        cwd=clone.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}", **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_proposed_when_nothing_changed(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job")
    done = command(clone, reproduce(clone, {}, monkeypatch))
    assert done.returncode == 0, done.stderr
    assert "nothing to propose" in done.stdout
    assert not origin.tip("retrain")
    assert github.state.pulls == []


def test_one_pull_request_is_opened_and_kept_up_to_date(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job")
    done = command(clone, reproduce(clone, RESULTS, monkeypatch), TRIGGER="schedule")
    assert done.returncode == 0, done.stderr
    (pull,) = github.open_pulls()
    assert pull["head"]["ref"] == "retrain"
    assert "weekly look" in pull["body"]
    assert "`dvc.lock`, `metrics/forest.json`, `metrics/tree.json`" in pull["body"]
    first = origin.tip("retrain")
    # A week later the source has changed again, and main has moved.
    person = origin.clone("person")
    person.commit("Meanwhile", {"app/main.py": "app = 2\n"})
    person.git("push", "--quiet", "origin", "main")
    later = origin.clone("later")
    done = command(
        later,
        reproduce(later, OTHER, monkeypatch),
        TRIGGER="repository_dispatch",
        REASON="petal_length drifted",
    )
    assert done.returncode == 0, done.stderr
    (pull,) = github.open_pulls()
    assert "> petal_length drifted" in pull["body"]
    assert origin.tip("retrain") != first
    assert origin.log("retrain") == [
        "espalier[bot]: Retrain on what the source holds now",
        *origin.log("main"),
    ]


def test_a_branch_that_somebody_works_on_is_theirs(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job")
    assert command(clone, reproduce(clone, RESULTS, monkeypatch)).returncode == 0
    person = origin.clone("person", "retrain")
    mine = person.commit("Loosen a threshold for it", {"params.yaml": "depth: 5\n"})
    person.git("push", "--quiet", "origin", "retrain")
    later = origin.clone("later")
    done = command(later, reproduce(later, OTHER, monkeypatch))
    assert done.returncode == 1
    assert done.stderr.startswith("error: branch retrain holds a commit that was made by hand")
    assert origin.tip("retrain") == mine


def test_its_own_recorded_results_are_not_by_hand(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reproduce` may add a commit to the branch too; that one can be replaced."""
    from deploy.ci import lockback

    clone = origin.clone("job")
    assert command(clone, reproduce(clone, RESULTS, monkeypatch)).returncode == 0
    tip = origin.tip("retrain")
    job = origin.clone("reproduce", "retrain")
    assert lockback.record(reproduce(job, OTHER, monkeypatch), "retrain", tip)
    later = origin.clone("later")
    assert command(later, reproduce(later, OTHER, monkeypatch)).returncode == 0


def test_a_push_in_between_is_not_overwritten(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job")
    assert command(clone, reproduce(clone, RESULTS, monkeypatch)).returncode == 0
    seen = origin.tip("retrain")
    person = origin.clone("person", "retrain")
    mine = person.commit("Mine", {"params.yaml": "depth: 5\n"})
    person.git("push", "--quiet", "origin", "retrain")
    later = origin.clone("later")
    later.commit("Again", {"dvc.lock": "other\n"})
    monkeypatch.chdir(later.folder)
    with pytest.raises(DeployError, match="cannot push to retrain"):
        retrain._push(seen)
    assert origin.tip("retrain") == mine


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("PSI of petal_length is 0.31 (limit 0.2)", "PSI of petal_length is 0.31 (limit 0.2)"),
        ("two\nlines\r\nhere", "two lines here"),
        ("@everyone [click](https://evil.example) #12", "everyone click ( evil.example) 12"),
        ("![x](http://evil/x.png)<script>", "x ( evil/x.png) script"),
        ("HTTPS://evil www.evil.example", "evil evil.example"),
        ("`code` **bold** > quote | cell", "code bold quote cell"),
        ("\u202eoverride\x1b[0m", "override 0m"),
        ("x" * 1000, "x" * 300),
        ("", ""),
    ],
)
def test_a_reason_is_words_on_one_line(said: str, shown: str) -> None:
    assert retrain.sanitise(said) == shown


def test_an_unknown_trigger_is_still_said() -> None:
    assert retrain.why("", "") == "It was started by hand."
    assert retrain.why("repository_dispatch", "drift") == "Monitoring asked for it. It says:\n\n> drift"
