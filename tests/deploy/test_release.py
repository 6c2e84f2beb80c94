"""The release tool, on real git repositories and a real registry; GitHub is played by tests/deploy/github.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import overlays
from common.overlays import Release
from deploy.errors import ReleaseError
from deploy.git import Git
from deploy.rehearsal.github import Method
from deploy.release import deployments, publish, status
from deploy.release.commands import VERSION_LABEL
from deploy.release.deployments import Deployment, fold
from deploy.release.publish import Edit
from tests.deploy.github import FakeGitHub
from tests.deploy.project import MODEL, ROOT, Clone, Done, Project, version
from tests.tools import require

STAGING, PRODUCTION = overlays.path("staging", MODEL), overlays.path("production", MODEL)
PROMOTE = ("promote", "--without-evidence", "nothing watches a test")


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    require("gh")
    with FakeGitHub("espalier-ml/espalier", origin=project.origin) as server:
        for key, value in server.environment(folder=project.folder / "gh").items():
            monkeypatch.setenv(key, value)
        yield server
    assert server.errors == []


def assert_refused(done: Done, said: str) -> None:
    """One line that says it, and no more."""
    assert done.status == 1, done
    assert said in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


def digest(image: str) -> str:
    return image.partition("@")[2]


# set


def test_a_release_is_one_commit_that_tells_everything(project: Project) -> None:
    first = project.staged(1)
    image = project.made(2)
    before = project.me.state()
    done = project.me.release("set", "staging", "--image", image, "--push")
    assert (done.status, done.err) == (0, "")
    revision = project.me.git("rev-parse", "HEAD")
    assert project.runs("staging") == Release(image.partition("@")[0], digest(image), version(2), revision)
    assert project.at_origin("log", "-1", "--format=%s") == f"Release iris {version(2)} to staging"
    assert project.at_origin("diff", "--numstat", "main^", "main") == f"3\t3\t{STAGING}"
    message = project.message()
    for fact in (
        digest(first),
        digest(image),
        revision,
        "CV f1_macro    0.952 ± 0.010",
        "0.902 [0.800, 1.000]",
    ):
        assert fact in message
    assert project.trailers() == {
        "Espalier-Environment": "staging",
        "Espalier-Action": "release",
        "Espalier-Image": image,
        "Espalier-Previous-Image": first,
        "Espalier-Revision": revision,
        "Espalier-Model": f"iris {version(2)}",
    }
    after = project.me.state()
    assert {**after, "files": ""} == {**before, "files": ""}
    assert "branch.ab +0 -1" in after["files"], "the clone only learned that origin moved on"


def test_the_same_release_again_writes_nothing(project: Project) -> None:
    image = project.staged(1)
    tip = project.at_origin("rev-parse", "main")
    for options in (["--push"], ["--push", "--force"]):
        done = project.me.release("set", "staging", "--image", image, *options)
        assert (done.status, done.err) == (0, "")
        assert "already runs iris 000000000001" in done.out
        assert "nothing to do" in done.out
    assert project.at_origin("rev-parse", "main") == tip


def test_without_push_only_the_file_is_edited(project: Project) -> None:
    image = project.made(1)
    done = project.me.release("set", "staging", "--image", image)
    assert (done.status, done.err) == (0, "")
    assert "nothing is committed yet" in done.out
    assert project.me.git("status", "--porcelain", "--ignored", "-uall") == f"?? {STAGING}"
    written = overlays.parse((project.me.root / STAGING).read_text(), "x")
    assert written.digest == digest(image)
    assert "nothing to do" in project.me.release("set", "staging", "--image", image).out
    assert not project.released("staging")


def test_it_works_from_any_place_in_the_clone(project: Project) -> None:
    image = project.made(1)
    project.me.git("checkout", "-q", "--detach")
    below = Clone(project.me.root / "app")
    assert below.release("set", "staging", "--image", image, "--push").status == 0
    assert project.runs("staging").digest == digest(image)
    project.me.git("checkout", "-q", "-b", "hotfix")
    project.me.git("push", "-q", "origin", "hotfix")
    (project.me.root / "app/main.py").write_text("a change that nobody has committed\n")
    another = project.image(project.me.git("rev-parse", "HEAD"), 1, extra="label")
    assert project.me.release("set", "staging", "--image", another, "--push").status == 0
    assert project.runs("staging", "hotfix").digest == digest(another)
    assert project.runs("staging", "main").digest == digest(image), "the branch that is checked out is meant"
    assert project.me.release("set", "staging", "--image", another, "--push", "--branch", "main").status == 0
    assert project.runs("staging", "main").digest == digest(another)


@pytest.mark.slow
def test_what_must_not_be_released_is_refused_and_nothing_changes(project: Project) -> None:
    project.staged(1)
    newest = project.staged(2)
    older = project.image(
        project.at_origin("rev-list", "-1", "--grep=^Train model 1$", "main"), 1, again="built"
    )
    unmerged = project.change(3, push=False)
    merged = project.at_origin("log", "-1", "--format=%H", "--", "app/main.py")
    name = newest.partition("@")[0]
    before = (project.at_origin("rev-parse", "main"), project.me.state())
    for image, said in (
        (f"{name}:latest", "has no digest"),
        (f"{name}@sha256:123", "is no digest"),
        (f"espalier@{digest(newest)}", "does not name an image"),
        (f"{name}@sha256:{'1' * 64}", "has no image"),
        (f"{name}@{project.registry.push({})}", "has no label org.opencontainers.image.revision"),
        (project.image("main", 4), "which cannot be right"),
        (project.image(merged, 4, **{VERSION_LABEL: "not a label!"}), "which cannot be right"),
        (project.image("f" * 40, 4), "which is not in the history of main"),
        (project.image(unmerged, 3), "which is not in the history of main"),
        (older, "is older than"),
        (
            project.image(merged, 7),
            f"holds model {version(7)}, but reports/leaderboard.json at its revision says {version(2)}",
        ),
    ):
        assert_refused(project.me.release("set", "staging", "--image", image, "--push"), said)
    assert_refused(
        project.me.release("set", "nowhere", "--image", newest, "--push"), "no environment 'nowhere' at"
    )
    assert_refused(project.me.release("set", "nowhere", "--image", newest), "(production, staging)")
    assert_refused(
        project.me.release("set", "../base", "--image", newest, "--push"), "no environment '../base'"
    )
    assert_refused(
        project.me.release("set", "production", "--image", newest, "--push"), "is released by promoting"
    )
    assert_refused(
        project.me.release("set", "staging", "--image", newest, "--push", "--branch", "gone"),
        "origin has no branch gone",
    )
    assert (project.at_origin("rev-parse", "main"), project.me.state()) == before


def test_force_releases_what_is_older(project: Project) -> None:
    first = project.staged(1)
    project.staged(2)
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    assert_refused(project.me.release("set", "staging", "--image", first, "--push"), "is older than")
    assert project.me.release("set", "staging", "--image", first, "--push", "--force").status == 0
    assert project.runs("staging").digest == digest(first)


def test_what_was_taken_back_does_not_come_again_by_itself(project: Project) -> None:
    """A release that is run again must not undo a rollback."""
    first, bad = project.staged(1), project.staged(2)
    assert project.me.release("set", "staging", "--image", first, "--push", "--force").status == 0
    assert_refused(
        project.me.release("set", "staging", "--image", bad, "--push"), f"was taken back from {digest(bad)}"
    )
    project.staged(3)
    assert project.runs("staging").version == version(3)


def test_an_image_of_a_parallel_line_is_neither_newer_nor_older(project: Project) -> None:
    base = project.change(1)
    project.me.git("checkout", "-q", "-b", "side", base)
    (project.me.root / "side").write_text("side")
    project.me.git("add", "side")
    project.me.git("commit", "-q", "-m", "Beside")
    side = project.me.git("rev-parse", "HEAD")
    project.me.git("checkout", "-q", "main")
    project.staged(2)
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    project.me.git("merge", "-q", "--no-ff", "-m", "Merge", "side")
    project.me.git("push", "-q", "origin", "main")
    done = project.me.release("set", "staging", "--image", project.image(side, 1), "--push")
    assert_refused(done, "does not contain")


def test_what_runs_may_be_unknown(project: Project) -> None:
    """After the history was rewritten, nobody can say what is newer but a person."""
    image = project.made(1)
    gone = Release("registry.example.com/espalier", "sha256:" + "1" * 64, "1", "1" * 40)
    project.me.commit("Run what is not here", {STAGING: str(gone)})
    assert_refused(
        project.me.release("set", "staging", "--image", image, "--push"),
        "which this repository does not have",
    )
    assert project.me.release("set", "staging", "--image", image, "--push", "--force").status == 0


def test_a_shallow_clone_says_how_to_get_the_rest(project: Project) -> None:
    image = project.staged(1)
    project.staged(2)
    shallow = project.clone("shallow", "--depth=1")
    for command in (["set", "staging", "--image", image, "--push"], [*PROMOTE], ["rollback"], ["status"]):
        assert_refused(shallow.release(*command), "`fetch-depth: 0` for actions/checkout")
    needed = shallow.release("needed")
    assert (needed.status, needed.out) == (2, ""), "it cannot be told, which is not the answer no"
    assert "fetch-depth: 0" in needed.err


def test_outside_of_a_repository_it_says_so(project: Project, tmp_path: Path) -> None:
    assert_refused(Clone(tmp_path).release("status"), "not a git repository")
    empty = Clone(tmp_path / "empty")
    empty.root.mkdir()
    empty.git("init", "-q", "-b", "main")
    assert_refused(empty.release("status"), "HEAD")


def test_without_a_name_it_asks_for_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    image = project.made(1)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    project.me.git("config", "user.useConfigOnly", "true")
    assert_refused(
        project.me.release("set", "staging", "--image", image, "--push"), "git does not know who commits"
    )


def test_hooks_of_the_person_do_not_run(project: Project) -> None:
    """They would check the working tree, which is not what is committed and pushed."""
    image = project.made(1)
    for name in ("pre-commit", "commit-msg", "pre-push"):
        hook = project.me.root / ".git/hooks" / name
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    assert project.me.release("set", "staging", "--image", image, "--push").status == 0


def test_a_check_can_be_required(project: Project, github: FakeGitHub) -> None:
    image = project.made(1)
    revision = project.me.git("rev-parse", "HEAD")
    command = ["set", "staging", "--image", image, "--push", "--require-check", "gate"]
    assert_refused(project.me.release(*command), "the check 'gate' has not run at")
    github.add_check_run(revision, "gate", None)
    assert_refused(project.me.release(*command), "is not green: in_progress")
    github.add_check_run(revision, "gate", "failure")
    assert_refused(project.me.release(*command), "is not green: failure")
    github.add_check_run(revision, "gate", "success")
    assert project.me.release(*command).status == 0


# Others push at the same time.


def test_a_push_that_origin_declines_is_told_at_once(project: Project) -> None:
    image = project.made(1)
    hook = project.origin / "hooks/pre-receive"
    hook.write_text('#!/bin/sh\necho "GH006: Protected branch update failed" >&2\nexit 1\n')
    hook.chmod(0o755)
    before = (project.at_origin("rev-parse", "main"), project.me.state())
    done = project.me.release("set", "staging", "--image", image, "--push")
    assert_refused(done, "GH006: Protected branch update failed")
    assert (project.at_origin("rev-parse", "main"), project.me.state()) == before


def test_who_is_always_late_gives_up_and_leaves_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    image = project.made(1)
    git, other = Git(project.me.root), project.clone("other")
    before = project.me.state()
    rounds: list[str] = []

    def decide(tip: str) -> Edit:
        rounds.append(other.commit(f"Be first {len(rounds)}", {"other": str(len(rounds))}))
        return Edit(STAGING, "tardy", "Be late")

    with pytest.raises(ReleaseError, match="gave up after 3 tries, and nothing was released"):
        publish.push(git, "main", decide, tries=3)
    assert len(rounds) == 3
    assert "try 3 of 3: somebody else was first" in capsys.readouterr().err
    assert project.at_origin("rev-parse", "main") == rounds[-1]
    assert project.me.state()["branches"] == before["branches"]
    assert not project.released("staging")
    assert project.me.release("set", "staging", "--image", image, "--push").status == 0


def test_the_decision_is_made_anew_each_time(project: Project) -> None:
    """What the message says of the image before must be true of the tip that it is committed upon."""
    project.made(1)
    git, other = Git(project.me.root), project.clone("other")
    second = project.image(project.me.git("rev-parse", "HEAD"), 1, second="yes")
    seen: list[str | None] = []

    def decide(tip: str) -> Edit | None:
        running = deployments.current(git, tip, "staging", MODEL)
        seen.append(running.digest if running else None)
        if len(seen) == 1:
            assert other.release("set", "staging", "--image", second, "--push").status == 0
        new = Release("registry.example.com/espalier", "sha256:" + "2" * 64, "2", "2" * 40)
        return Edit(STAGING, str(new), f"After {seen[-1]}")

    assert publish.push(git, "main", decide) == project.at_origin("rev-parse", "main")
    assert seen == [None, digest(second)]
    assert project.message() == f"After {digest(second)}"
    assert project.at_origin("rev-list", "--count", "--merges", "main") == "0"


def test_a_release_that_was_overtaken_yields(project: Project) -> None:
    """The build of an older commit took longer: its checkout did not know what has been released since."""
    older = project.made(1)
    late = project.clone("late")
    newer = project.staged(2)
    tip = project.at_origin("rev-parse", "main")
    done = late.release("set", "staging", "--image", older, "--push")
    assert (done.status, done.err) == (0, "")
    assert "staging has been overtaken" in done.out
    assert project.at_origin("rev-parse", "main") == tip
    assert project.runs("staging").digest == digest(newer)


@pytest.mark.parametrize(
    ("falls", "said"), [("1|2", ""), ("2", "try 1 of 12: origin does not take the push to main")]
)
def test_a_network_that_stumbles_is_tried_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, falls: str, said: str
) -> None:
    image = project.made(1)
    counter = tmp_path / "counter"
    script = tmp_path / "ssh"
    # ssh HOST COMMAND: some connections break, the others run the command here.
    script.write_text(
        "#!/bin/sh\n"
        f"echo x >> {counter}\n"
        f'case $(wc -l < {counter}) in {falls}) echo "Connection reset by peer" >&2; exit 255;; esac\n'
        'for last; do :; done; eval "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH", str(script))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    project.me.git("remote", "set-url", "origin", f"ssh://host{project.origin}")
    done = project.me.release("set", "staging", "--image", image, "--push")
    assert done.status == 0
    assert said in done.err
    assert project.runs("staging").digest == digest(image)


def test_a_remote_that_is_not_there_is_told(project: Project) -> None:
    image = project.made(1)
    project.me.git("remote", "set-url", "origin", str(project.folder / "nowhere"))
    assert_refused(
        project.me.release("set", "staging", "--image", image, "--push"), "cannot fetch main from origin"
    )


@pytest.mark.long("common", "deploy/git.py", "deploy/release", "tests/deploy/test_release.py")
def test_many_release_at_once_and_none_is_lost(project: Project) -> None:
    """Three revisions are released to two environments by six processes, and others push other things at the same time."""
    count = 3
    folder = f"{overlays.FOLDER}/preview"
    files = {f"{folder}/{name}": "" for name in ("kustomization.yaml", f"{MODEL}/kustomization.yaml")}
    project.me.commit("Add an environment", files)
    images = [project.made(number) for number in range(1, count + 1)]
    clones = [project.clone(f"clone{number}") for number in range(count)]
    commands = [
        clone.start("set", environment, "--image", image, "--push", "--tries", "40")
        for clone, image in zip(clones, images, strict=True)
        for environment in ("staging", "preview")
    ]
    pushed: list[str] = []
    while any(process.poll() is None for process in commands):
        git = project.me
        git.git("fetch", "-q", "origin")
        git.git("reset", "-q", "--hard", "origin/main")
        (git.root / "other").write_text(str(len(pushed)))
        git.git("add", "other")
        git.git("commit", "-q", "-m", f"Other {len(pushed)}")
        if git.git("push", "-q", "origin", "HEAD:main", check=False) == "" and (
            git.git("rev-parse", "HEAD") == project.at_origin("rev-parse", "main")
        ):
            pushed.append(git.git("rev-parse", "HEAD"))
        time.sleep(1)
    for process in commands:
        out, err = process.communicate()
        assert process.returncode == 0, (out, err)
        assert " runs iris " in out or "has been overtaken" in out
    git_ = Git(project.clone("judge").root)
    for environment in ("staging", "preview"):
        assert project.runs(environment).digest == digest(images[-1])
        timeline = deployments.read(git_, "HEAD", environment, MODEL)
        order = [each.release.version for each in timeline.deployments]
        assert order == sorted(order), "no older revision came after a newer one"
        assert timeline.abandoned == {}
    every = project.at_origin("rev-list", "--first-parent", "main").split()
    assert set(pushed) <= set(every)
    assert project.at_origin("rev-list", "--merges", "main") == ""
    for commit in every:
        if project.at_origin("log", "-1", "--format=%s", commit).startswith("Release "):
            environment, parent = project.trailers(commit)["Espalier-Environment"], f"{commit}^"
            known = project.released(environment, parent)
            before = project.runs(environment, parent).image if known else "nothing"
            assert project.trailers(commit)["Espalier-Previous-Image"] == before


@pytest.mark.slow
def test_five_models_are_released_at_once_and_each_is_one_commit(project: Project) -> None:
    names = ["churn", "digits", "penguins", "wine"]
    for name in names:
        project.add_model(name)
    names.append(MODEL)
    images = {name: project.made(number, name) for number, name in enumerate(names, 1)}
    tip = project.at_origin("rev-parse", "main")
    commands = [
        project.clone(f"clone-{name}").start("set", "staging", "--image", image, "--push", "--tries", "40")
        for name, image in images.items()
    ]
    for process in commands:
        out, err = process.communicate()
        assert process.returncode == 0, (out, err)
    subjects = project.at_origin("log", "--first-parent", "--format=%s", f"{tip}..main").splitlines()
    assert sorted(subjects) == sorted(
        f"Release {name} {version(number)} to staging" for number, name in enumerate(names, 1)
    )
    assert {name: project.runs("staging", model=name).digest for name in names} == {
        name: digest(image) for name, image in images.items()
    }


@pytest.mark.slow
def test_releases_from_one_clone_do_not_disturb_each_other(project: Project) -> None:
    image = project.made(1)
    commands = [project.me.start("set", "staging", "--image", image, "--push") for _ in range(3)]
    for process in commands:
        out, err = process.communicate()
        assert process.returncode == 0, (out, err)
    assert project.at_origin("rev-list", "--count", "main", "--", STAGING) == "1"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.2, 1.6])
def test_a_killed_release_leaves_nothing_behind(project: Project, seconds: float) -> None:
    image = project.made(1)
    before = project.me.state()
    process = project.me.start("set", "staging", "--image", image, "--push")
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.3)  # a git of its may still be running
    after = project.me.state()
    if not project.released("staging"):
        assert after == before
    assert {**after, "files": ""} == {**before, "files": ""}
    assert project.me.release("set", "staging", "--image", image, "--push").status == 0
    assert project.runs("staging").digest == digest(image)
    assert project.at_origin("rev-list", "--count", "main", "--", STAGING) == "1"


# promote


@pytest.mark.slow
def test_a_promotion_is_proposed_with_all_that_a_reviewer_asks(project: Project, github: FakeGitHub) -> None:
    project.staged(1)
    assert project.me.release(*PROMOTE, "--pull-request").status == 0
    github.merge(1, "squash", by="Reviewer")
    image = project.staged(2)
    project.me.commit("Mention @somebody and `code` | pipes <b>", {"app/more.py": ""})
    third = project.staged(3)
    before = project.me.state()
    done = project.me.release(*PROMOTE, "--pull-request")
    assert (done.status, done.err) == (0, "")
    assert f"Promote iris {version(3)} to production" in done.out
    assert "opened http://github.localhost/espalier-ml/espalier/pull/2" in done.out
    assert {**project.me.state(), "files": ""} == {**before, "files": ""}
    (pull,) = github.open_pulls()
    assert pull["title"] == f"Promote iris {version(3)} to production"
    branch = pull["head"]["ref"]
    assert branch == f"promote/production-iris-{digest(third)[7:19]}"
    assert project.runs("production", branch) == project.runs("staging")
    assert project.at_origin("diff", "--name-only", f"main...{branch}") == PRODUCTION
    body = pull["body"]
    for fact in (
        f"| model | `{version(1)}` (svm) | iris `{version(3)}` (svm) |",
        f"`{digest(third)}`",
        "| CV f1_macro | 0.951 ± 0.010 | 0.953 ± 0.010 | +0.002 |",
        "| test accuracy | 0.901 [0.800, 1.000] | 0.903 [0.800, 1.000] | +0.002 |",
        "### Commits added: 3",
        "Train model 2",
        "Mention &#64;&#8203;somebody and &#96;code&#96; &#124; pipes &#60;b&#62;",
        "python -m deploy.release rollback production --model iris --pull-request",
        "Proposed without complete evidence, because: nothing watches a test",
        project.runs("production").digest,
    ):
        assert fact in body
    assert "Release iris" not in body, "what only released is no change"
    assert digest(image) not in body
    assert project.trailers(branch)["Espalier-Action"] == "promote"


@pytest.mark.slow
def test_the_same_promotion_is_the_same_pull_request(project: Project, github: FakeGitHub) -> None:
    project.staged(1)
    assert "opened" in project.me.release(*PROMOTE, "--pull-request").out
    (pull,) = github.open_pulls()
    tip = project.at_origin("rev-parse", pull["head"]["ref"])
    project.me.commit("Go on", {"other": "1"})
    again = project.clone("again").release(*PROMOTE, "--pull-request")
    assert "already open: http://github.localhost/espalier-ml/espalier/pull/1" in again.out
    assert project.at_origin("rev-parse", pull["head"]["ref"]) == tip, "an approval stays valid"
    # Production gets something else: the proposal's content stays, and would conflict with what is there now.
    other = project.image(project.runs("staging").revision, 1, another="build")
    assert project.me.release("set", "production", "--image", other, "--push", "--force").status == 0
    assert github.open_pulls()
    assert "already open" in project.me.release(*PROMOTE, "--pull-request").out
    assert f"`{digest(other)}`" in github.open_pulls()[0]["body"]
    assert len(github.state.pulls) == 1
    github.merge(1, "merge")
    assert project.runs("production") == project.runs("staging")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["merge", "squash", "rebase"])
def test_what_was_promoted_rolled_back_and_is_promoted_again(
    project: Project, github: FakeGitHub, method: Method
) -> None:
    """The branch of the first time may still be there; the way a pull request is merged makes no difference."""
    first = project.staged(1)
    for _ in ("to have something to go back to",):
        assert project.me.release(*PROMOTE, "--pull-request").status == 0
        github.merge(1, method, by="Grace")
    second = project.staged(2)
    assert project.me.release(*PROMOTE, "--pull-request").status == 0
    github.merge(2, method, by="Grace")
    assert project.me.release("rollback", "--pull-request").status == 0
    github.merge(3, method, by="Grace")
    assert project.runs("production").digest == digest(first)
    done = project.me.release(*PROMOTE, "--pull-request")
    assert "opened" in done.out, done
    assert done.err.startswith("note: production was taken back from this image in ")
    assert "Make sure that the reason is gone" in github.open_pulls()[0]["body"]
    github.merge(4, method, by="Grace")
    assert project.runs("production").digest == digest(second)
    state = json.loads(project.me.release("status", "--json", "--fetch").out)["models"]["iris"][
        "environments"
    ]["production"]
    assert state["abandoned"] == []
    assert state["previous"]["digest"] == digest(first)
    if method != "rebase":
        assert [each["pull_request"] for each in state["deployments"]] == [1, 2, 3, 4]
    if method == "merge":
        assert {each["by"] for each in state["deployments"]} == {"Grace"}


def test_a_promotion_can_stay_in_the_clone(project: Project) -> None:
    project.staged(1)
    before = project.me.state()
    done = project.me.release(*PROMOTE)
    assert (done.status, done.err) == (0, "")
    (branch,) = project.me.git("for-each-ref", "--format=%(refname:short)", "refs/heads/promote").split()
    assert branch in done.out
    assert project.at_origin("for-each-ref", "refs/heads/promote") == ""
    tip = project.me.git("rev-parse", branch)
    assert project.me.release(*PROMOTE).status == 0
    assert project.me.git("rev-parse", branch) == tip
    assert {**project.me.state(), "branches": "", "files": ""} == {**before, "branches": "", "files": ""}
    assert project.me.release(*PROMOTE, "--branch", "mine").status == 0
    assert project.me.git("diff", "--name-only", "origin/main", "mine") == PRODUCTION


@pytest.mark.slow
def test_only_what_staging_runs_is_promoted(project: Project, github: FakeGitHub) -> None:
    promote = [*PROMOTE, "--pull-request"]
    assert_refused(project.me.release(*promote), "iris was never released to staging")
    old = project.staged(1)
    image = project.staged(2)
    assert_refused(
        project.me.release(*promote, "--digest", digest(old)), "only what staging runs is promoted"
    )
    # What stands only here was never released.
    file = project.me.root / STAGING
    here = Release("registry.example.com/espalier", "sha256:" + "9" * 64, "9", "9" * 40)
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    file.write_text(str(here))
    assert_refused(
        project.me.release(*promote, "--digest", here.digest), "only what staging runs is promoted"
    )
    project.me.git("checkout", "-q", "--", STAGING)
    assert project.me.release(*promote, "--digest", digest(image)).status == 0
    github.merge(1)
    assert_refused(project.me.release(*promote), "already runs what staging runs")
    third = project.staged(3)
    project.registry.delete(digest(third))
    assert_refused(project.me.release(*promote), f"has no image espalier@{digest(third)}")
    assert github.open_pulls() == []
    assert len(github.state.pulls) == 1


def test_an_overlay_that_says_what_the_image_does_not_is_not_promoted(project: Project) -> None:
    project.staged(1)
    running = project.runs("staging")
    lie = Release(running.name, running.digest, version(7), running.revision)
    project.me.commit("Write by hand", {STAGING: str(lie)})
    assert_refused(project.me.release(*PROMOTE), f"overlay says iris {version(7)}")


def test_a_digest_must_be_whole(project: Project) -> None:
    done = project.me.release(*PROMOTE, "--digest", "sha256:123")
    assert done.status == 2
    assert "is no digest" in done.err


def test_github_in_trouble_is_one_line(project: Project, github: FakeGitHub) -> None:
    project.staged(1)
    github.fail_next = [(502, "Server Error")]
    assert_refused(project.me.release(*PROMOTE, "--pull-request"), "Server Error")
    assert project.me.release(*PROMOTE, "--pull-request").status == 0
    assert len(github.open_pulls()) == 1


@pytest.mark.slow
def test_two_who_promote_at_once_open_one_pull_request(project: Project, github: FakeGitHub) -> None:
    project.staged(1)
    commands = [project.clone(f"clone{number}").start(*PROMOTE, "--pull-request") for number in range(2)]
    for process in commands:
        out, err = process.communicate()
        assert process.returncode == 0, (out, err)
        assert "/pull/1" in out
    assert len(github.state.pulls) == 1
    assert project.runs("production", github.open_pulls()[0]["head"]["ref"]) == project.runs("staging")


# rollback


@pytest.fixture
def promoted(project: Project, github: FakeGitHub) -> list[str]:
    """Three images, each of which production has run."""
    images = []
    for number in (1, 2, 3):
        images.append(project.staged(number))
        assert project.me.release(*PROMOTE, "--pull-request").status == 0
        github.merge(number, "squash")
    return images


def roll_back(project: Project, github: FakeGitHub, *options: str) -> Release:
    done = project.me.release("rollback", *options, "--pull-request")
    assert done.status == 0, done.err
    github.merge(len(github.state.pulls), "squash")
    return project.runs("production")


@pytest.mark.slow
def test_rolling_back_goes_further_back_each_time(
    project: Project, github: FakeGitHub, promoted: list[str]
) -> None:
    before = project.runs("production")
    assert roll_back(project, github).digest == digest(promoted[1])
    pull = github.state.pulls[-1]
    assert pull["title"] == f"Roll production back to iris {version(2)}"
    assert pull["head"]["ref"] == f"rollback/production-iris-{digest(promoted[1])[7:19]}"
    assert f"`{before.digest}`" in pull["body"]
    assert "### Commits taken away: 1" in pull["body"]
    assert "Train model 3" in pull["body"]
    now = project.runs("production")
    assert (now.version, now.revision) == (
        version(2),
        project.at_origin("rev-list", "-1", "--grep=^Train model 2$", "main"),
    )
    assert project.at_origin("log", "-1", "--format=%s") == f"Roll production back to iris {version(2)} (#4)"
    assert roll_back(project, github).digest == digest(promoted[0])
    assert_refused(project.me.release("rollback"), "there is nothing good before it to go back to")
    assert project.me.release(*PROMOTE, "--pull-request").status == 0
    github.merge(len(github.state.pulls), "squash")
    assert project.runs("production").digest == digest(promoted[2])
    assert roll_back(project, github).digest == digest(promoted[0]), "the second one is still not good"


@pytest.mark.slow
def test_a_digest_to_go_back_to_can_be_named(
    project: Project, github: FakeGitHub, promoted: list[str]
) -> None:
    for wrong, said in (
        (digest(promoted[2]), "already runs"),
        ("sha256:" + "9" * 64, "was never released to production"),
        (digest(promoted[0])[7:12], "was never released to production"),
    ):
        assert_refused(project.me.release("rollback", "--to", wrong), said)
    assert roll_back(project, github, "--to", digest(promoted[0])[7:19]).digest == digest(promoted[0])
    assert roll_back(project, github, "--to", digest(promoted[1])).digest == digest(promoted[1])


def test_staging_can_be_rolled_back_too(project: Project) -> None:
    first = project.staged(1)
    project.staged(2)
    assert project.me.release("rollback", "staging", "--branch", "back").status == 0
    found = overlays.parse(project.me.git("show", f"back:{STAGING}") + "\n", "x")
    assert found.digest == digest(first)


@pytest.mark.slow
def test_an_image_that_has_vanished_is_not_gone_back_to(project: Project, promoted: list[str]) -> None:
    project.registry.delete(digest(promoted[1]))
    assert_refused(project.me.release("rollback"), f"has no image espalier@{digest(promoted[1])}")
    assert project.me.release("rollback", "--no-registry").status == 0
    assert project.me.release("rollback", "--to", digest(promoted[0])).status == 0


def test_before_the_first_release_there_is_nothing_to_go_back_to(project: Project) -> None:
    assert_refused(project.me.release("rollback"), "iris was never released to production")
    project.staged(1)
    assert_refused(project.me.release("rollback", "staging"), "there is nothing good before it")


# status


def test_status_shows_what_runs_where(project: Project, github: FakeGitHub) -> None:
    nothing = project.me.release("status")
    assert nothing.status == 0
    assert nothing.out.count("never released") == 2
    first = project.staged(1)
    assert project.me.release(*PROMOTE, "--pull-request").status == 0
    github.merge(1, "merge", by="Grace [Hopper]")
    second = project.staged(2)
    project.me.git("fetch", "-q")
    shown = project.me.release("status").out
    staging, production = (line for line in shown.splitlines() if " ago" in line or "just now" in line)
    assert staging.split()[:5] == [
        "iris",
        "staging",
        version(2),
        digest(second)[7:19],
        project.runs("staging").revision[:12],
    ]
    assert "Ada" in staging
    assert "Grace [Hopper]" in production
    assert production.split()[-2:] == ["#1", "1"]
    assert "iris: production is 1 commit behind staging:" in shown
    assert "Train model 2" in shown
    assert f"iris: staging can go back to {digest(first)[7:19]} (version {version(1)})" in shown
    document = json.loads(project.me.release("status", "--json").out)
    iris = document["models"]["iris"]
    current = iris["environments"]["production"]["current"]
    assert current["digest"] == digest(first)
    assert current["model_version"] == version(1)
    assert current["by"] == "Grace [Hopper]"
    assert current["pull_request"] == 1
    assert iris["environments"]["production"]["previous"] is None
    compared = iris["environments"]["production"]["compared"]
    assert compared["same"] is False
    assert [each["subject"] for each in compared["lacks"]] == ["Train model 2"]
    assert document["environments"]["production"] == {
        "cluster": "in-cluster",
        "region": "eu-central-1",
        "wave": 1,
    }
    assert document["commit"] == project.at_origin("rev-parse", "main")


def test_status_shows_every_model_and_what_was_removed(project: Project) -> None:
    for name in ("churn", "wine"):
        project.add_model(name)
    for number, name in enumerate(("iris", "churn", "wine"), 1):
        project.staged(number, name)
    image = project.made(4, "churn")
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    project.me.git("rm", "-q", "-r", "models/wine", "deploy/overlays/staging/wine")
    project.me.git("commit", "-q", "-m", "Remove wine")
    project.me.git("push", "-q", "origin", "HEAD:main")
    done = project.me.release("status", "--fetch")
    assert (done.status, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert [row[0] for row in rows if row[1:2] == ["staging"]] == ["iris", "churn", "wine"]
    assert "wine was removed from staging on " in done.out
    assert "argocd app delete espalier-staging.wine" in done.out
    assert_refused(project.me.release("status", "--model", "chrn"), "did you mean churn")
    (project.me.root / "models/new").mkdir()
    (project.me.root / "models/new/params.yaml").touch()
    assert_refused(project.me.release("status", "--model", "new"), "new has no overlay at origin/main")
    alone = project.me.release("status", "--model", "churn").out
    assert "iris" not in alone
    assert project.me.release("set", "staging", "--image", image, "--push").status == 0
    back = project.image(project.change(5, model="wine"), 5, "wine")
    assert_refused(
        project.me.release("set", "staging", "--image", back, "--push"), "no model 'wine' has an overlay"
    )


def test_status_is_as_of_the_last_fetch_unless_told(project: Project) -> None:
    project.staged(1)
    elsewhere = project.clone("elsewhere")
    project.staged(2)
    project.staged(3)
    assert version(1) in elsewhere.release("status").out
    shown = elsewhere.release("status", "--fetch").out
    assert version(3) in shown
    assert f"as of origin/main {project.at_origin('rev-parse', 'main')[:12]}" in shown


def test_status_says_what_was_gone_back_from(project: Project) -> None:
    first = project.staged(1)
    bad = project.staged(2)
    assert project.me.release("set", "staging", "--image", first, "--push", "--force").status == 0
    shown = project.me.release("status", "--fetch").out
    assert f"iris: staging was taken back from {digest(bad)[7:19]}" in shown


def test_an_overlay_that_is_broken_is_no_empty_environment(project: Project) -> None:
    project.staged(1)
    project.me.commit("Break it", {STAGING: "<<<<<<< HEAD\nimages: []\n"})
    assert_refused(project.me.release("status", "--fetch"), f"{STAGING} is not as")
    assert_refused(project.me.release(*PROMOTE), f"{STAGING} is not as")


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=23, minutes=59), "23 hours"),
        (timedelta(days=400), "400 days"),
    ],
)
def test_ages_are_for_people(ago: timedelta, said: str) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert status.age(now - ago, now) == said


# needed


def test_needed_compares_what_goes_into_the_image(project: Project) -> None:
    done = project.me.release("needed")
    assert done.out.startswith(
        f"iris: not needed: {project.me.git('rev-parse', 'HEAD')[:12]} has no trained model"
    )
    project.change(9)
    done = project.me.release("needed")
    assert (done.status, done.out) == (0, "iris: needed: it was never released to staging\n")
    project.staged(1)
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    project.me.git("checkout", "-q", project.runs("staging").revision)
    assert "which is this commit" in project.me.release("needed").out
    project.me.git("checkout", "-q", "main")
    done = project.me.release("needed")
    assert done.status == 1, "the commit that released is no reason to release"
    assert done.out.startswith("iris: not needed: nothing that goes into the image differs")
    assert done.out.endswith("no model changes: nothing is released\n")
    project.me.commit("Write docs", {"docs/more.md": "more", "params.yaml": "name: iris\na: 1\n"})
    assert project.me.release("needed").status == 1
    project.me.commit("Change the service", {"app/more.py": "more = 1\n"})
    done = project.me.release("needed")
    assert done.status == 0
    assert done.out.endswith("which staging runs, there changed app/more.py\n")
    project.change(2)
    assert ", model\n" in project.me.release("needed").out


def test_needed_names_the_models_whose_image_differs(
    project: Project,
) -> None:
    project.add_model("churn")
    project.add_model("wine")
    for number, name in enumerate(("iris", "churn", "wine"), 1):
        project.staged(number, name)
    project.change(4, model="churn")
    project.me.commit("Draft a model", {"models/new/params.yaml": "", "models/new/dvc.lock": "stages: {}\n"})
    done = project.me.release("needed", "--json")
    assert (done.status, done.err) == (0, "")
    *lines, last = done.out.splitlines()
    assert json.loads(last) == ["churn"]
    said = dict(line.split(": ", 1) for line in lines)
    assert said["churn"].startswith("needed: since ")
    assert said["churn"].endswith("there changed models/churn/model")
    assert said["wine"].startswith("not needed")
    assert said["new"].endswith("has no trained model")


def test_a_newer_release_makes_an_older_one_needless(project: Project) -> None:
    old = project.change(1)
    project.staged(2)
    project.me.git("checkout", "-q", "--detach", old)
    done = project.me.release("needed")
    assert done.status == 1
    assert f"which contains {old[:12]}" in done.out


def test_needed_has_a_status_of_its_own_for_errors(project: Project) -> None:
    project.change(1)
    project.me.commit("Break it", {STAGING: "images: []\n"})
    done = project.me.release("needed")
    assert (done.status, done.out) == (2, "")
    assert "is not as `python -m deploy.release` writes it" in done.err


def test_a_bug_is_not_taken_for_an_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.change(1)
    monkeypatch.setattr(deployments, "current", lambda *_: 1 / 0)
    done = project.me.release("needed")
    assert done.status == 2
    assert "ZeroDivisionError" in done.err


def test_needed_after_the_history_was_rewritten(project: Project) -> None:
    project.change(1)
    gone = Release("registry.example.com/espalier", "sha256:" + "1" * 64, "1", "1" * 40)
    project.me.commit("Run what is not here", {STAGING: str(gone)})
    done = project.me.release("needed")
    assert (done.status, "which this repository does not have" in done.out) == (0, True)


# History, in general.


def deployment(digit: int, number: int = 0) -> Deployment:
    release = Release("registry.example.com/espalier", "sha256:" + f"{digit:064x}", str(digit), "a" * 40)
    return Deployment(release, f"{number:040x}", datetime.fromtimestamp(number, UTC), "Ada", "subject")


def test_rolled_back_is_not_good() -> None:
    a, b, c = 1, 2, 3
    for digits, good, gone in (
        ([], [], []),
        ([a], [a], []),
        ([a, b], [a, b], []),
        ([a, b, a], [a], [b]),
        ([a, b, a, b], [a, b], []),
        ([a, b, c, b], [a, b], [c]),
        ([a, b, c, b, a], [a], [b, c]),
        ([a, b, c, a], [a], [b, c]),
        ([a, b, a, c], [a, c], [b]),
        ([a, b, a, c, a], [a], [b, c]),
    ):
        timeline = fold(deployment(digit, number) for number, digit in enumerate(digits))
        assert [int(each.release.version) for each in timeline.good] == good
        assert sorted(int(key.removeprefix("sha256:"), 16) for key in timeline.abandoned) == gone


@given(st.lists(st.one_of(st.integers(1, 5), st.just("back")), max_size=40))
def test_the_fold_agrees_with_somebody_who_keeps_a_list(steps: list[int | str]) -> None:
    """Whoever writes down what is good, and strikes out what was rolled back from, has the same list."""
    kept: list[int] = []
    seen: list[int] = []
    for step in steps:
        if step == "back":
            if len(kept) > 1:
                kept.pop()
                seen.append(kept[-1])
            continue
        assert isinstance(step, int)
        if step in kept:
            del kept[kept.index(step) + 1 :]
        else:
            kept.append(step)
        seen.append(step)
    timeline = fold(deployment(digit, number) for number, digit in enumerate(seen))
    assert [int(each.release.version) for each in timeline.good] == kept
    assert (timeline.previous is None) == (len(kept) < 2)
    if seen:
        assert timeline.current is not None
        assert int(timeline.current.release.version) == seen[-1]
    # Nothing is both, and whatever ran is one of the two.
    gone = {int(key.removeprefix("sha256:"), 16) for key in timeline.abandoned}
    assert gone.isdisjoint(kept)
    assert gone | set(kept) == set(seen)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_rolling_back_always_comes_to_an_end(digits: list[int]) -> None:
    seen = list(digits)
    for _ in range(len(set(digits))):
        timeline = fold(deployment(digit, number) for number, digit in enumerate(seen))
        if timeline.previous is None:
            return
        assert timeline.previous.release.digest not in timeline.abandoned
        seen.append(int(timeline.previous.release.version))
    pytest.fail("it went in circles")


def test_a_corrected_label_is_no_deployment() -> None:
    first = deployment(1, 1)
    other = Release("another.example.com/espalier", first.release.digest, "2", "b" * 40)
    second = Deployment(other, "2" * 40, datetime.now(UTC), "Grace", "Move the registry")
    (kept,) = fold([first, second]).deployments
    assert (kept.release, kept.commit, kept.author) == (other, first.commit, "Ada")


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("Merge pull request #12 from espalier-ml/promote/production-1", 12),
        ("Promote iris 1 to production (#13)", 13),
        ("Promote iris 1 to production (#13) again", None),
        ("Merge branch 'main'", None),
        ("Fix #14", None),
    ],
)
def test_the_pull_request_is_in_the_subject(subject: str, number: int | None) -> None:
    release = deployment(1).release
    assert Deployment(release, "", datetime.now(UTC), "", subject).pull_request == number


def test_broken_and_deleted_states_of_the_overlay_are_passed_over(project: Project) -> None:
    image = project.staged(1)
    good = project.at_origin("show", f"main:{STAGING}") + "\n"
    project.me.commit("Break it", {STAGING: "<<<<<<<\n"})
    project.me.git("rm", "-q", STAGING)
    project.me.git("commit", "-q", "-m", "Remove it")
    project.me.git("push", "-q", "origin", "HEAD:main")
    project.me.commit("Bring it back", {STAGING: good})
    timeline = deployments.read(Git(project.me.root), "origin/main", "staging", MODEL)
    assert [each.release.digest for each in timeline.deployments] == [digest(image)]


# Words.


def test_a_commit_without_metrics_says_so(project: Project) -> None:
    revision = project.me.commit("Begin the service", {"app/main.py": "a = 1\n"})
    assert project.me.release("set", "staging", "--image", project.image(revision, 1), "--push").status == 0
    assert "reports/leaderboard.json at that revision says nothing of its metrics" in project.message()
    assert project.trailers()["Espalier-Model"] == f"iris {version(1)}"


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "iris"}'])
def test_a_leaderboard_of_another_form_is_no_obstacle(project: Project, content: str) -> None:
    revision = project.me.commit(
        "Change the form", {"reports/leaderboard.json": content, "app/main.py": content}
    )
    assert project.me.release("set", "staging", "--image", project.image(revision, 1), "--push").status == 0
    assert project.me.release(*PROMOTE).status == 0


def test_signing_is_heeded(project: Project, tmp_path: Path) -> None:
    """git commit-tree does not by itself, and branches may demand it."""
    signer = tmp_path / "signer"
    signer.write_text("#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\necho 'a signature'\n")
    signer.chmod(0o755)
    project.me.git("config", "commit.gpgsign", "true")
    project.me.git("config", "gpg.program", str(signer))
    image = project.image(project.me.git("rev-parse", "HEAD"), 1)
    assert project.me.release("set", "staging", "--image", image, "--push").status == 0
    assert "gpgsig" in project.at_origin("cat-file", "commit", "main")


# The command itself.


@pytest.mark.slow
def test_it_runs_as_a_module_and_its_help_is_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.release", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("set", "promote", "rollback", "status", "needed"):
        assert f"\n    {command} " in done.stdout
        shown = Clone(ROOT).release(command, "--help")
        assert shown.status == 0
        assert max(map(len, shown.out.splitlines())) <= 120
    assert (ROOT / "docs/releasing.md").is_file()
