"""The jobs of .gitlab-ci.yml, through gitlab-ci-local: from a merge request to production and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import yaml

from common import models
from common.git import git
from common.overlays import Release
from deploy.rehearsal import containers, jobs, pipelines
from deploy.rehearsal.clone import commit_working_tree
from deploy.rehearsal.gitlab import PROJECT, GitLab
from deploy.rehearsal.pipelines import Pipeline
from deploy.rehearsal.world import World, world
from deploy.yaml_loader import LOADER
from tests.e2e import mlflow_store
from tests.e2e.clone import ROOT
from tests.tools import free_port, require

SUBJECTS = (".ci", ".gitlab-ci.yml", "deploy/ci", "deploy/forge", "deploy/pipelines", "deploy/release")
OF_CI = {"touched", "check", "test", "manifests", "dashboards", "container"}
TOOLS = ("jq", "node", "npm", "rsync", *containers.TOOLS)


@dataclass
class Player:
    """Plays GitLab's runners."""

    world: World
    gitlab: GitLab
    runs: Iterator[int]

    def __post_init__(self) -> None:
        self.model = models.name(self.world.engineer)

    def checkout(self, at: str = "main") -> Path:
        return jobs.checkout(self.world, self.world.folder / f"checkout-{next(self.runs)}", at)

    def run(self, checkout: Path, variables: dict[str, str], *names: str, must: bool = True) -> Pipeline:
        folder = self.world.folder / f"run-{next(self.runs)}"
        environment = jobs.environment(self.world, folder)
        settings = {name: value for name, value in environment.items() if name.startswith(("CI_", "GITLAB_"))}
        settings |= {"TASK": "ci", **jobs.variables(self.world), **variables}
        made = pipelines.run(checkout, settings, environment, *names)
        assert made.succeeded is must, made.output[-12_000:]
        return made

    def task(self, task: str, *names: str, must: bool = True, **variables: str) -> Pipeline:
        """A pipeline that a person or a schedule starts on main."""
        checkout = self.checkout()
        given = pipelines.of_main(checkout, "web", TASK=task, **variables)
        return self.run(checkout, given, *names, must=must)

    def push(self, *names: str) -> Pipeline:
        """The pipeline of the newest commit of main."""
        checkout = self.checkout()
        return self.run(checkout, pipelines.of_main(checkout), *names)

    def running(self, environment: str) -> Release:
        found = jobs.running(self.world, environment, self.model)
        assert found is not None, f"{environment} runs nothing"
        return found

    def change(self, branch: str) -> tuple[int, str]:
        """Push a branch that changes a parameter, and open its merge request; its number and where it left main."""
        jobs.regularise(self.world, branch)
        body = json.dumps({"source_branch": branch, "target_branch": "main", "title": "Regularise more"})
        headers = ("-H", "PRIVATE-TOKEN: x", "-H", "Content-Type: application/json")
        answer = self.world.call("curl", "-sSf", "--noproxy", "*", *headers, "-d", body, self._merge_requests)
        return int(json.loads(answer)["iid"]), self.world.main()

    @property
    def _merge_requests(self) -> str:
        return f"{self.gitlab.address}/api/v4/projects/{PROJECT}/merge_requests"


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Player]:
    for tool in TOOLS:
        require(tool)
    pipelines.program()
    with world(tmp_path, GitLab) as made:
        assert isinstance(made.forge, GitLab)
        jobs.prepare(made)
        yield Player(made, made.forge, count(1))
        assert made.forge.errors == []


@pytest.mark.long(*SUBJECTS)
def test_a_change_goes_to_production_and_comes_back(player: Player) -> None:
    # A merge request: one comment, and dvc.lock in its branch.
    number, base = player.change("flatter")
    given = pipelines.merge_request(number, "flatter", base)
    done = player.run(player.checkout("flatter"), given, "touched", "check", "test", "reproduce", "record")
    assert "NOT RUN: .ci/run" in done.log("test")
    assert "NOT RUN: make check" in done.log("check")
    (note,) = player.gitlab.state.notes
    for part in ("logistic_regression.C", "f1_macro", "production"):
        assert part in note["body"]
    recorded = player.world.git("rev-parse", "flatter", cwd=player.world.origin)
    changed = player.world.git("diff", "--name-only", base, recorded, cwd=player.world.origin).split()
    assert {"params.yaml", "dvc.lock"} <= set(changed)

    assert {"logistic_regression", "decision_tree", "data", "leaderboard"} <= mlflow_store.runs(player.world)

    # The pipeline of that commit changes nothing, and an MLflow that does not answer is no failure.
    away = f"http://127.0.0.1:{free_port()}"
    done = player.run(
        player.checkout("flatter"), {**given, "MLFLOW_TRACKING_URI": away}, "touched", "reproduce", "record"
    )
    assert "warning: not sent: cannot reach" in done.log("reproduce")
    assert player.world.git("rev-parse", "flatter", cwd=player.world.origin) == recorded
    assert len(player.gitlab.state.notes) == 1

    # Merged, it is released and promoted. A bad release is rolled back.
    player.gitlab.merge(number)
    done = player.push("touched", "current", "dashboards", "releasable", "build", "stage", "mirror")
    first = player.running("staging")
    assert mlflow_store.aliases(player.world) == {"staging": first.version}
    assert jobs.has_image(first)
    assert "NOT SIGNED, only found" in done.log("build")
    assert "NOT SCANNED, only found" in done.log("build")
    release = player.world.main()
    player.task("promote", "promote", REASON=jobs.NO_CLUSTER)
    player.gitlab.merge(2)
    assert player.running("production") == first
    jobs.break_production(player.world, player.model)
    assert player.running("production") != first
    player.task("rollback", "rollback")
    player.gitlab.merge(3)
    assert player.running("production") == first

    # The releases' commits start no pipeline; a merged rollback starts one, in which nothing is built.
    assert pipelines.listed(player.checkout(), commit(player, release)) == {}
    done = player.push("touched", "releasable", "build", "stage", "mirror")
    assert mlflow_store.aliases(player.world) == dict.fromkeys(
        ("staging", "production", "champion"), first.version
    )
    assert "release=false" in done.log("releasable")
    assert "python -m deploy.release" not in done.log("build")
    assert player.running("staging") == first

    # Nothing new in the source: retraining proposes nothing. What fails is told once.
    done = player.task("retrain", "train", "propose")
    assert "changed=false" in done.log("train")
    assert player.gitlab.open_merge_requests() == []
    failed = player.gitlab.add_pipeline("running", name="retrain", train="failed")
    player.task("retrain", "alarm", CI_PIPELINE_ID=str(failed))
    (issue,) = player.gitlab.state.issues
    assert issue["title"] == "Workflow retrain fails"


def commit(player: Player, revision: str) -> dict[str, str]:
    """The variables of a push of a commit of main."""
    checkout = player.checkout()
    player.world.git("checkout", "--quiet", "--detach", revision, cwd=checkout)
    found = pipelines.of_main(checkout)
    assert re.search("^Espalier-Action: release$", found["CI_COMMIT_MESSAGE"], re.MULTILINE)
    return found


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A commit of this working tree, whose origin is on GitLab."""
    for tool in ("node", "npm", "rsync"):
        require(tool)
    commit_working_tree(tmp_path)
    git("remote", "add", "origin", "https://gitlab.localhost/espalier-ml/espalier.git", cwd=tmp_path)
    git("update-ref", "refs/remotes/origin/main", "main", cwd=tmp_path)
    return tmp_path


@pytest.mark.long(".gitlab-ci.yml", "deploy/rehearsal", "tests/e2e/test_gitlab.py")
def test_what_starts_depends_on_whose_change_it_is(clone: Path) -> None:
    """A fork's merge request starts nothing that names an environment or takes a role, here and in the fork."""
    document = yaml.load((ROOT / ".gitlab-ci.yml").read_text(), LOADER)
    settings = {"TASK": "ci", "REGISTRY": "registry.example.com/espalier"}

    def listed(variables: dict[str, str], **more: str) -> dict[str, str]:
        return pipelines.listed(clone, {**settings, **variables, **more})

    own = listed(pipelines.merge_request(1, "change", "main"))
    assert set(own) == {*OF_CI, "reproduce", "record"}
    assert own["record"] == "always"
    fork = listed(pipelines.merge_request(1, "change", "main", fork=True))
    assert set(fork) == {*OF_CI, "fork"}
    for name in fork:
        assert "environment" not in document[name], name
    main = pipelines.of_main(clone)
    assert listed(main) == {
        **dict.fromkeys((*OF_CI, "current", "releasable", "build"), "on_success"),
        **dict.fromkeys(("stage", "alarm"), "always"),
        "promote": "manual",
    }
    assert set(listed(main, REGISTRY="")) == {*OF_CI, "current", "alarm"}
    tracked = listed(main, MLFLOW_TRACKING_URI="https://mlflow.example.com")
    assert tracked == {**listed(main), "mirror": "always"}
    assert "mirror" not in listed(main, MLFLOW_TRACKING_URI="https://mlflow.example.com", REGISTRY="")
    for task, started in {
        "nightly": {"explore", "long"},
        "promote": {"promote"},
        "retrain": {"train", "propose"},
        "rollback": {"rollback"},
        "scratch": {"scratch"},
    }.items():
        assert set(listed(main, CI_PIPELINE_SOURCE="schedule", TASK=task)) == {*started, "alarm"}
    assert "drift" in listed(main, TASK="retrain", PROMETHEUS_URL="https://prometheus.example.com")
    assert set(document["variables"]["TASK"]["options"]) == {
        "ci",
        "nightly",
        "promote",
        "retrain",
        "rollback",
        "scratch",
    }
    # A branch without a merge request has no pipeline.
    assert listed({"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "change"}) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("author", "action", "starts"),
    [
        ("espalier[bot] <bot@example.com>", "release", False),
        ("espalier[bot] <bot@example.com>", "promote", True),
        ("Ada <ada@example.com>", "release", True),
    ],
)
def test_only_the_commit_of_a_release_starts_no_pipeline(
    clone: Path, author: str, action: str, starts: bool
) -> None:
    message = f"Release iris 0123 to staging\n\nEspalier-Environment: staging\nEspalier-Action: {action}\nEspalier-Model: iris\n"
    given = {**pipelines.of_main(clone), "CI_COMMIT_AUTHOR": author, "CI_COMMIT_MESSAGE": message}
    assert bool(pipelines.listed(clone, {"TASK": "ci", **given})) is starts
