"""The steps of the Jenkinsfile: each runs, in order, in a clone, from a merge to production and back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common import models
from deploy import npm
from deploy.rehearsal import containers, events, jenkins, jobs
from deploy.rehearsal.jenkins import Step
from deploy.rehearsal.world import World, world
from tests.e2e import mlflow_store
from tests.e2e.clone import ROOT
from tests.tools import require

FILE = (ROOT / "Jenkinsfile").read_text()
STEPS = jenkins.steps(FILE)
SUBJECTS = (".ci", "Jenkinsfile", "deploy/ci", "deploy/forge", "deploy/pipelines", "deploy/release")
REPLACED = {
    ".ci/run",
    ".ci/tools && .ci/build .venv/bin && make feast",
    "REQUIRE_TOOLS=all make test-long",
    'make check BASE="${BASE:-HEAD~1}"',
    "make explore",
    "make manifests",
    "make workflows",
}
"""Steps whose command has tests of its own and takes minutes: they are called, and something else answers."""
TOKENS = {"Record", "Stage", "Promote", "Roll back", "Propose"}
"""The stages that have a token of the forge."""


@dataclass
class Player:
    """Plays Jenkins: a workspace for each stage with an agent, and what its credentials hold."""

    world: World
    ran: list[Step] = field(default_factory=list)
    count: int = 0

    def stage(self, name: str, at: str = "main", but: tuple[str, ...] = (), **given: str) -> str:
        """Run the steps of a stage in a new workspace, and give their output."""
        self.count += 1
        folder = self.world.folder / f"run-{self.count}"
        workspace = jobs.checkout(self.world, self.world.folder / f"workspace-{self.count}", at)
        # An agent keeps DVC's cache.
        shutil.copytree(self.world.engineer / ".dvc/cache", workspace / ".dvc/cache", dirs_exist_ok=True)
        variables = {**jobs.environment(self.world, folder), **jobs.variables(self.world), **declared()}
        token = self.world.folder / "aws-token"
        token.write_text("not-exchanged")
        variables |= {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "BASE": "", "MODEL": ""}
        if name not in TOKENS:
            variables.pop("GH_TOKEN")
        chosen = [each for each in STEPS if each.workspace == name and each.stage not in but]
        assert chosen, name
        said = ""
        for step in chosen:
            said += jenkins.run(step, workspace, {**variables, **given}, self.world.folder / "stashes")
            self.ran.append(step)
        return said

    def running(self, environment: str) -> object:
        return jobs.running(self.world, environment, models.name(self.world.engineer))

    def merge(self) -> None:
        (opened,) = self.world.github.open_pulls()
        self.world.github.merge(opened["number"], "squash", by="Reviewer")


def declared() -> dict[str, str]:
    """The constants under `environment` of the pipeline."""
    block = re.search(r"^  environment \{(.*?)^  \}", FILE, re.MULTILINE | re.DOTALL)
    assert block
    return dict(re.findall(r"^    ([A-Z_0-9]+) = '(.*)'$", block[1], re.MULTILINE))


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    for tool in ("gh", "jq", *containers.TOOLS):
        require(tool)
    with world(tmp_path) as made:
        jobs.prepare(made)
        yield Player(made)
        assert made.github.errors == []


@pytest.mark.long(*SUBJECTS)
def test_every_step_runs(player: Player) -> None:
    stranger = "Check/Reproduce for a stranger"
    of_main = ("Check/Current",)
    made = player.world

    # main: checked, released and promoted.
    said = player.stage("Check", "main", (stranger,))
    assert 'jobs=["check", "test", "manifests", "dashboards", "image"]' in said
    assert "dvc.lock is not current" not in said
    names = re.search(r"^names=(.*)$", player.stage("Releasable"), re.MULTILINE)
    assert names
    said = player.stage("Build", NAMES=names[1])
    assert "NOT SIGNED, only found" in said
    player.stage("Stage", NAMES=names[1])
    first = jobs.running(made, "staging", names[1])
    assert first is not None
    assert jobs.has_image(first)
    player.stage("Mirror")
    assert mlflow_store.aliases(made) == {"staging": first.version}
    player.stage("Promote", REASON=jobs.NO_CLUSTER)
    player.merge()
    assert player.running("production") == first

    # The commit of the release affects no image.
    tip = made.main()
    player.stage("Check", "main", (stranger, *others("Touched")), GIT_PREVIOUS_SUCCESSFUL_COMMIT=f"{tip}~1")
    outputs = (made.folder / f"workspace-{player.count}/build/outputs.env").read_text()
    assert 'jobs=["check", "manifests"]' in outputs

    # A pull request of our own; then as if a stranger had opened it.
    number = change(player)
    pull = {"BASE": "origin/main", "CHANGE_ID": str(number), "CHANGE_BRANCH": "flatter"}
    but = (*others("Touched", "Reproduce for a stranger", "Offline"), *of_main)
    player.stage("Reproduce", "flatter", (), AWS_ROLE_DATA=made.variables()["AWS_ROLE_DATA"], **pull)
    assert {"logistic_regression", "decision_tree", "data", "leaderboard"} <= mlflow_store.runs(made)
    player.stage("Record", "flatter", (), **pull)
    (comment,) = made.github.state.comments
    assert "logistic_regression.C" in comment["body"]
    recorded = made.git("log", "-1", "--format=%an: %s", "flatter", cwd=made.origin)
    assert recorded.startswith("espalier[bot]: Record what")
    player.stage("Check", "flatter", but, **pull)
    made.github.close(number)

    # A bad release of production is rolled back.
    jobs.break_production(made, names[1])
    assert player.running("production") != first
    player.stage("Roll back")
    player.merge()
    assert player.running("production") == first

    # The source has nothing new, and dvc.lock is what is computed from scratch.
    assert "changed=false" in player.stage("Retrain")
    assert "nothing to propose" in player.stage("Propose")
    player.stage("Nightly")
    assert "every hash is the one in dvc.lock" in player.stage("Scratch")

    assert {*player.ran} == {*STEPS}


def others(*names: str) -> tuple[str, ...]:
    """The stages inside of Check, but for some."""
    return tuple(
        {each.stage for each in STEPS if each.workspace == "Check"} - {f"Check/{name}" for name in names}
    )


def change(player: Player) -> int:
    """A pull request that changes a parameter; its number."""
    jobs.regularise(player.world, "flatter")
    fields = ("-f", "title=Regularise", "-f", "head=flatter", "-f", "base=main", "-f", "body=")
    opened = player.world.call("gh", "api", f"repos/{events.REPOSITORY}/pulls", *fields)
    return int(json.loads(opened)["number"])


def test_every_step_of_the_file_is_read() -> None:
    code = re.sub(r"//.*", "", FILE)
    assert len([each for each in STEPS if each.kind == "sh"]) == len(re.findall(r"\bsh\b *['(\"]", code))
    assert len([each for each in STEPS if each.kind == "stash"]) == len(re.findall(r"\bstash\b", code))
    assert len([each for each in STEPS if each.kind == "unstash"]) == len(re.findall(r"\bunstash\b", code))
    assert {each.text for each in STEPS if each.text in REPLACED} == REPLACED
    for step in STEPS:
        assert step.stage, step


def test_a_token_is_where_no_training_runs() -> None:
    stages = re.split(r"^    stage\('", FILE, flags=re.MULTILINE)[1:]
    for text in stages:
        name = text.partition("'")[0]
        assert ("GH_TOKEN" in text) is (name in TOKENS), name
        assert ("espalier-token" in text) is (name in TOKENS), name
        if name in TOKENS:
            assert not re.search(r"deploy\.ci\.reproduce|make repro|\.ci/image|make test", text), name
        if name == "Check":
            assert "credentials" not in text.replace("so these stages have no credentials", "").lower()
        if "Credentials(" in text or "credentials('" in text:
            assert "branch 'main'" in text or "!env.CHANGE_FORK" in text, name
        # Nor does it run beside the token of MLflow, which its block of steps alone has.
        for block in re.findall(r"^( +)withCredentials\(\[(.*?)^\1\}", text, re.MULTILINE | re.DOTALL):
            if "'espalier-mlflow'" in block[1]:
                assert "deploy.ci.reproduce" not in block[1], name


def test_a_step_that_is_not_understood_is_no_step() -> None:
    with pytest.raises(ValueError, match="backslash"):
        jenkins.steps("stage('a') { sh 'printf \\\\n' }")
    with pytest.raises(ValueError, match="braces"):
        jenkins.steps("stage('a') {")
    assert jenkins.steps("stage('a') { stage('b') { sh 'x' } sh '''y \\\n z''' } // sh 'no'") == [
        Step("a/b", "sh", "x"),
        Step("a", "sh", "y  z"),
    ]


@pytest.mark.long("Jenkinsfile", "deploy/pipelines")
def test_it_is_groovy() -> None:
    """What Jenkins makes of it, only Jenkins can say; this finds what no Groovy is."""
    for tool in ("java", "node", "npm"):
        require(tool)
    assert lint(FILE) == (0, [])
    status, found = lint(FILE.replace("stage('Lint') {", "stage('Lint' {"))
    assert status == 1
    assert found


def lint(text: str) -> tuple[int, list[str]]:
    """The status of npm-groovy-lint, and the errors that it finds."""
    program = npm.install(Path("deploy/pipelines"), ROOT) / "node_modules/.bin/npm-groovy-lint"
    # One rule in place of all: a text that cannot be parsed is an error with any.
    options = ["--noserver", "--failon", "error", "--output", "json", "--rulesets", "DuplicateImport"]
    done = subprocess.run(
        [str(program), *options, "--source", text, "--sourcefilepath", "Jenkinsfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    document = json.loads(done.stdout[done.stdout.index("{") :])
    found = [
        each["msg"]
        for file in document["files"].values()
        for each in file["errors"]
        if each["severity"] == "error"
    ]
    return done.returncode, found
