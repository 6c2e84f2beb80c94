"""What a reproduction gives is recorded in the branch once, without a loop and without a fight."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.git import GitError
from deploy.ci import lockback, patches
from deploy.errors import DeployError
from tests.deploy.ci.conftest import Clone, Origin
from tests.e2e.clone import ROOT

STEP = [sys.executable, "-S", "-m", "deploy.ci.lockback"]
RESULTS = {
    "dvc.lock": "schema: '2.0'\nstages: {train: {}}\n",
    "metrics/tree.json": '{"f1": 0.8}\n',
    "metrics/forest.json": '{"f1": 0.95}\n',
}


def reproduce(clone: Clone, results: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Play `dvc repro`, make the patch, and take the results away again, as they are in another job."""
    clone.write(**results)
    monkeypatch.chdir(clone.folder)
    patch = clone.folder.parent / f"{clone.folder.name}.patch"
    patch.write_bytes(patches.make())
    clone.git("reset", "--hard", "--quiet")
    clone.git("clean", "-fdq")
    return patch


def command(clone: Clone, patch: Path, head: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The step as the workflow runs it: no package, no site."""
    return subprocess.run(
        [*STEP, "--patch", str(patch), "--branch", "change", "--head", head],
        cwd=clone.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_results_are_committed_by_the_bot_and_nothing_else_is(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    patch = reproduce(clone, {**RESULTS, "params.yaml": "depth: 99\n", "notes.txt": "mine"}, monkeypatch)
    done = command(clone, patch, head)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("recorded=true\n")
    assert origin.log("change")[0] == f"espalier[bot]: Record what {head[:10]} reproduces to"
    assert origin.show("change", "metrics/forest.json") == RESULTS["metrics/forest.json"].strip()
    changed = clone.git("diff", "--name-only", f"{head}..{origin.tip('change')}").split()
    assert changed == sorted(RESULTS)


def test_its_own_commit_is_not_followed_by_another(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    assert lockback.record(reproduce(clone, RESULTS, monkeypatch), "change", head)
    # The push starts a run for the new commit, which reproduces the same.
    tip = origin.tip("change")
    second = origin.clone("second", "change")
    assert not lockback.record(reproduce(second, RESULTS, monkeypatch), "change", tip)
    assert origin.tip("change") == tip


def test_a_pipeline_that_never_gives_the_same_does_not_loop(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    assert lockback.record(reproduce(clone, RESULTS, monkeypatch), "change", head)
    tip = origin.tip("change")
    second = origin.clone("second", "change")
    other = {"metrics/tree.json": '{"f1": 0.81}\n'}
    with pytest.raises(DeployError, match=r"changed metrics/tree\.json again: the pipeline does not give"):
        lockback.record(reproduce(second, other, monkeypatch), "change", tip)
    assert origin.tip("change") == tip


def test_it_gives_way_to_a_newer_push(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    patch = reproduce(clone, RESULTS, monkeypatch)
    person = origin.clone("person", "change")
    newer = person.commit("And shallower still", {"params.yaml": "depth: 2\n"})
    person.git("push", "--quiet", "origin", "change")
    done = command(clone, patch, head)
    assert done.returncode == 0, done.stderr
    assert f"change has moved on to {newer[:10]}" in done.stdout
    assert done.stdout.endswith("recorded=false\n")
    assert origin.tip("change") == newer


def test_it_gives_way_to_a_branch_that_was_rewritten(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    patch = reproduce(clone, RESULTS, monkeypatch)
    person = origin.clone("person", "change")
    person.git("commit", "--quiet", "--amend", "--message", "Rewritten")
    person.git("push", "--quiet", "--force", "origin", "change")
    rewritten = origin.tip("change")
    assert not lockback.record(patch, "change", head)
    assert origin.tip("change") == rewritten


def test_a_branch_that_was_deleted_does_not_come_back(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    patch = reproduce(clone, RESULTS, monkeypatch)
    clone.git("push", "--quiet", "origin", "--delete", "change")
    assert not lockback.record(patch, "change", head)
    assert not origin.tip("change")
    assert "change is gone" in capsys.readouterr().out


def test_of_two_runs_at_once_one_records(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    head = origin.tip("change")
    jobs = [origin.clone(f"job{number}", "change") for number in range(4)]
    prepared = [(job, reproduce(job, RESULTS, monkeypatch)) for job in jobs]
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda job=job, patch=patch: done.append(command(job, patch, head)))
        for job, patch in prepared
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.returncode for each in done] == [0, 0, 0, 0], [each.stderr for each in done]
    # Two within one second make the very same commit, and both are right that it is recorded.
    assert any(each.stdout.endswith("recorded=true\n") for each in done)
    assert len(origin.log("change")) == 3


def test_without_an_app_it_says_what_to_do(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    done = command(clone, reproduce(clone, RESULTS, monkeypatch), head, CAN_PUSH="false")
    assert done.returncode == 1
    assert done.stderr.startswith("error: dvc.lock, metrics/forest.json, metrics/tree.json must be committed")
    assert done.stderr.count("\n") == 1
    assert origin.tip("change") == head
    again = origin.clone("again", "change")
    current = command(again, reproduce(again, {}, monkeypatch), head, CAN_PUSH="false")
    assert current.returncode == 0, current.stderr


def test_a_push_that_is_refused_is_an_error(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    patch = reproduce(clone, RESULTS, monkeypatch)
    hook = origin.folder / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'no such permission' >&2; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitError, match=r"does not take the push to change: .*no such permission"):
        lockback.record(patch, "change", head)


def test_another_commit_than_the_reproduced_one(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = origin.clone("job", "change")
    patch = reproduce(clone, RESULTS, monkeypatch)
    with pytest.raises(DeployError, match="HEAD is not"):
        lockback.record(patch, "change", origin.tip("main"))


# What comes from the other job is not trusted.


def patch_of(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that differs, as somebody would make it who wants more than results recorded."""
    monkeypatch.chdir(clone.folder)
    clone.git("add", "--all")
    patch = clone.folder.parent / "evil.patch"
    done = subprocess.run(
        ["git", "diff", "--binary", "HEAD"], cwd=clone.folder, capture_output=True, check=True
    )
    patch.write_bytes(done.stdout)
    clone.git("reset", "--hard", "--quiet")
    return patch


@pytest.mark.parametrize(
    "path",
    [
        "params.yaml",
        ".github/workflows/ci.yml",
        "deploy/overlays/production/kustomization.yaml",
        "metrics.py",
        "models/dvc.lock",
        "models/wine/params.yaml",
        "models/wine/dvc.yaml",
        "models/wine/notes/dvc.lock",
        "elsewhere/wine/dvc.lock",
    ],
)
def test_nothing_but_results_is_changed(origin: Origin, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = origin.clone("job", "change")
    clone.write(**{**RESULTS, path: "evil\n"})
    with pytest.raises(DeployError, match=f"the patch changes {path}, which no reproduction writes"):
        patches.apply(patch_of(clone, monkeypatch))
    assert clone.git("status", "--short") == ""


def test_results_of_a_further_model_are_results(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    clone.write(**{"models/wine/params.yaml": "name: wine\n"})
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--message", "Wine")
    clone.git("push", "--quiet", "origin", "HEAD:change")
    head = origin.tip("change")
    results = {f"models/wine/{name}": text for name, text in RESULTS.items()}
    assert lockback.record(reproduce(clone, results, monkeypatch), "change", head)
    for name, text in results.items():
        assert origin.show("change", name) == text.strip()


def test_a_result_that_moves_something_else_away(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = origin.clone("job", "change")
    clone.git("mv", "params.yaml", "metrics/params.json")
    with pytest.raises(DeployError, match=r"params\.yaml"):
        patches.apply(patch_of(clone, monkeypatch))


def test_no_symbolic_link_and_no_program(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = origin.clone("job", "change")
    (clone.folder / "metrics/link.json").symlink_to("/etc/passwd")
    with pytest.raises(DeployError, match=r"metrics/link\.json something else than a plain file"):
        patches.apply(patch_of(clone, monkeypatch))
    assert clone.git("status", "--short") == ""
    (clone.folder / "metrics/tree.json").chmod(0o755)
    with pytest.raises(DeployError, match=r"metrics/tree\.json something else than a plain file"):
        patches.apply(patch_of(clone, monkeypatch))


@pytest.mark.parametrize("path", ["../outside", "metrics/../../outside", "/tmp/outside", ".git/config"])
def test_nothing_outside_of_the_clone(
    origin: Origin, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job", "change")
    monkeypatch.chdir(clone.folder)
    patch = tmp_path / "p.patch"
    patch.write_text(f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+evil\n")
    with pytest.raises(GitError, match="invalid path"):
        patches.apply(patch)
    assert not (tmp_path / "outside").exists()


def test_a_patch_that_is_none_too_large_or_of_another_commit(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job", "change")
    patch = reproduce(clone, RESULTS, monkeypatch)
    clone.commit("Meanwhile", {"dvc.lock": "something else\n"})
    with pytest.raises(GitError, match="the patch does not fit"):
        patches.apply(patch)
    patch.write_text("hello")
    with pytest.raises(GitError, match="No valid patches"):
        patches.apply(patch)
    patch.write_bytes(b"x" * (patches.LARGEST + 1))
    with pytest.raises(DeployError, match="bytes"):
        patches.apply(patch)
    with pytest.raises(DeployError, match="cannot read"):
        patches.apply(tmp_path / "absent")


def test_results_that_are_no_text_come_through(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, head = origin.clone("job", "change"), origin.tip("change")
    (clone.folder / "reports/plot.png").write_bytes(bytes(range(256)))
    (clone.folder / "reports/latin.md").write_bytes(b"caf\xe9\n")
    patch = reproduce(clone, {}, monkeypatch)
    assert lockback.record(patch, "change", head)
    clone = origin.clone("again", "change")
    assert (clone.folder / "reports/plot.png").read_bytes() == bytes(range(256))
    assert (clone.folder / "reports/latin.md").read_bytes() == b"caf\xe9\n"
