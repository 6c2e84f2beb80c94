"""The steps of the rehearsal: from a changed parameter to production and back, each with its checks."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from common import models, overlays
from common.overlays import Release
from deploy.ci.releasable import REQUIRED_CHECK
from deploy.rehearsal import containers, events
from deploy.rehearsal.runner import Run, WorkflowError
from deploy.rehearsal.world import World, fill_storage

ADDED = "churn"
"""The model that a pull request adds."""
WITHOUT_EVIDENCE = "a rehearsal has no cluster that Prometheus could watch"


class StoryError(Exception):
    """A check of the story failed; the message says which."""


@dataclass
class Story:
    world: World
    first: Release | None = None
    """What production ran of the first model before the change."""
    number: int = 0
    """Of the pull request that brings the change."""
    changed: str = ""
    """The commit of main that brought it."""

    @property
    def model(self) -> str:
        """The first model."""
        return models.name(self.world.engineer)

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """The steps in order, each with its title; a step returns its findings in a few words."""
        return [
            ("the pipeline's outputs are in S3", self.fill),
            ("a push to main is released to staging", self.first_release),
            ("production is promoted to it by pull request", self.promote),
            ("a pull request adds a second model, which is trained", self.add_model),
            ("a pull request changes a parameter of the first one and is reproduced", self.change),
            ("its own commit of dvc.lock starts nothing new", self.no_second_commit),
            ("merged, main is verified without any data", self.merge_change),
            ("the images of both are released to staging", self.release_change),
            ("the releases' commits release nothing", self.no_loop),
            ("production is promoted to both", self.promote_change),
            ("a worse model is stopped by the gate", self.worse),
            ("production is rolled back", self.roll_back),
            ("a commit without green CI is refused", self.refuse_red),
        ]

    def fill(self) -> str:
        return fill_storage(self.world)

    def first_release(self) -> str:
        return self._release(self.world.main(), self.model)

    def promote(self) -> str:
        said = self._promote(self.model)
        self.first = self.running("production")
        return said

    def add_model(self) -> str:
        number = self._pull_request("add", self._draft, f"Add the model {ADDED}")
        self._reproduce(number, must_pass=True)
        comment = self._comment(number)
        _must(f"## {ADDED}" in comment, f"the comment has no section on {ADDED}:\n{comment}")
        _must(f"## {self.model}\n" not in comment, f"the comment has a section on {self.model}:\n{comment}")
        changed = self._git("diff", "--name-only", "main", "add").split()
        others = [each for each in changed if ADDED not in each and each != ".github/CODEOWNERS"]
        _must(f"models/{ADDED}/dvc.lock" in changed and not others, f"the branch changes {changed}")
        self.world.github.merge(number, "squash", by="Reviewer")
        _must(not self._released("staging", ADDED), f"{ADDED} has a release before it was built")
        return f"{len(changed)} files, none of which the first model has; a comment of {len(comment):,} characters"

    def change(self) -> str:
        self.number = self._pull_request("flatter", _edit(_flatter), "Regularise the regression more")
        run = self._reproduce(self.number, must_pass=True)
        comment = self._comment(self.number)
        for part in ("logistic_regression.C", "f1_macro", "production"):
            _must(part in comment, f"the comment does not speak of {part}:\n{comment}")
        recorded = self._git("log", "-1", "--format=%an: %s", "flatter")
        _must("bot" in recorded, f"nothing was recorded in the branch: {recorded}")
        changed = self._git("diff", "--name-only", "main", "flatter").split()
        _must({"params.yaml", "dvc.lock"} <= set(changed), f"dvc.lock was not recorded: {changed}")
        return f"{len(run.jobs)} jobs; “{recorded}” in the branch, a comment of {len(comment):,} characters"

    def no_second_commit(self) -> str:
        before = self._git("rev-parse", "flatter")
        self._reproduce(self.number, must_pass=True)
        _must(self._git("rev-parse", "flatter") == before, "reproducing again made another commit")
        self._comment(self.number)
        return "no commit; the comment was updated in place"

    def merge_change(self) -> str:
        before = self.world.main()
        self.changed = self.world.github.merge(self.number, "squash", by="Reviewer")
        run = self.world.workflow("verify", "push", events.push(before, self.changed), at=self.changed)
        _must_succeed(run)
        return f"main is {self.changed[:10]}; dvc.lock is current"

    def release_change(self) -> str:
        before, tip = self.running("staging"), self.world.main()
        said = self._release(self.changed, self.model, ADDED)
        now = self.running("staging")
        subjects = self._git("log", "--format=%s", f"{tip}..main").splitlines()
        expected = [
            f"Release {name} {self.running('staging', name).version} to staging"
            for name in (self.model, ADDED)
        ]
        _must(sorted(subjects) == sorted(expected), f"the commits of the releases are {subjects}")
        _must(now.version != before.version, f"staging still runs model {now.version}")
        _must(now.digest != before.digest, "staging still runs the same image")
        _must(self.running("production") == self.first, "the release touched production")
        return said

    def no_loop(self) -> str:
        commit = self.world.main()
        changed = self._git("diff", "--name-only", f"{commit}~1", commit).split()
        ignored = _ignored_by_ci(self.world.read(".github/workflows/ci.yml"))
        started = [each for each in changed if not any(fnmatch.fnmatch(each, rule) for rule in ignored)]
        _must(not started, f"the release's commit changes {started}, which starts ci")
        # And if ci ran for it all the same, as after a push of other files: nothing in the image has changed.
        self.world.github.add_check_run(commit, REQUIRED_CHECK)
        run = self.world.workflow("release", "workflow_run", events.ci_completed(commit), at=commit)
        _must(run.succeeded, "\n".join(run.failed))
        _must(not _builds(run), f"a second image was built: {run.jobs}")
        _must(self.world.main() == commit, "the release's commit was followed by another")
        return f"it changes {', '.join(changed)}, for which ci does not start; release, asked anyway, builds nothing"

    def promote_change(self) -> str:
        said = []
        for name in (self.model, ADDED):
            said.append(self._promote(name))
            same = self.running("production", name) == self.running("staging", name)
            _must(same, f"production does not run what staging runs of {name}")
        return "; ".join(said)

    def worse(self) -> str:
        number = self._pull_request("worse", _edit(_worse), "Save on training")
        run = self._reproduce(number, must_pass=False)
        comment = self._comment(number)
        verdict = next((line for line in comment.splitlines() if "production" in line), "")
        _must("maximum_drop" in comment or "below" in comment, f"the comment names no rule:\n{comment}")
        _must(run.jobs.get("reproduced") == "failure", f"the required check did not fail: {run.jobs}")
        self.world.github.close(number)
        return verdict.strip("> *#")[:160]

    def roll_back(self) -> str:
        other = self.running("production", ADDED)
        run = self.world.workflow(
            "rollback",
            "workflow_dispatch",
            events.by_hand(),
            at="main",
            inputs={"model": self.model, "environment": "production", "to": ""},
        )
        _must_succeed(run)
        self._merge_the_open_one()
        _must(self.running("production") == self.first, f"production runs {self.running('production')}")
        _must(self.running("production", ADDED) == other, f"the rollback of {self.model} changed {ADDED}")
        return self._ask("production", self.model)

    def refuse_red(self) -> str:
        commit, image = self.world.main(), self.running("staging")
        ignored = self.world.workflow(
            "release", "workflow_run", events.ci_completed(commit, "failure"), at=commit
        )
        _must(not ignored.jobs, f"release ran after a red ci: {ignored.jobs}")
        self.world.github.add_check_run(commit, REQUIRED_CHECK, "failure")
        refused = self.world.workflow(
            "release", "workflow_dispatch", events.by_hand(), at="main", inputs={"commit": commit}
        )
        _must(not refused.succeeded, "release by hand did not refuse a commit whose ci is red")
        _must(not _builds(refused), f"an image was built from a red commit: {refused.jobs}")
        _must(self.running("staging") == image, "staging has changed")
        return "neither by event nor by hand"

    # What steps share.

    def running(self, environment: str, model: str | None = None) -> Release:
        """What the release file on main says; of the first model, unless another is named."""
        path = overlays.path(environment, model or self.model)
        # What git prints comes without its last line's end.
        return overlays.parse(f"{self.world.read(path)}\n", path)

    def _released(self, environment: str, model: str) -> bool:
        return bool(self._git("ls-tree", "--name-only", "main", "--", overlays.path(environment, model)))

    def _release(self, commit: str, *names: str) -> str:
        """Record a green ci for a commit of main, run release for it, and ask the images of these models."""
        self.world.github.add_check_run(commit, REQUIRED_CHECK)
        run = self.world.workflow("release", "workflow_run", events.ci_completed(commit), at=commit)
        _must_succeed(run)
        said = []
        for name in names:
            now = self.running("staging", name)
            _must(now.revision == commit, f"staging runs revision {now.revision} of {name}, not {commit}")
            said.append(self._ask("staging", name))
        return "; ".join(said)

    def _promote(self, model: str) -> str:
        inputs = {"model": model, "without_evidence": WITHOUT_EVIDENCE}
        _must_succeed(
            self.world.workflow("promote", "workflow_dispatch", events.by_hand(), at="main", inputs=inputs)
        )
        self._merge_the_open_one()
        return self._ask("production", model)

    def _merge_the_open_one(self) -> None:
        opened = self.world.github.open_pulls()
        _must(len(opened) == 1, f"{len(opened)} pull requests are open instead of one")
        self.world.github.merge(opened[0]["number"], "squash", by="Reviewer")

    def _ask(self, environment: str, model: str) -> str:
        """Start the image that a release file names, by its digest, and let it predict an example."""
        running = self.running(environment, model)
        with (
            containers.container(running.image) as container,
            httpx.Client(base_url=container.url, trust_env=False, timeout=10) as client,
        ):
            card = client.get("/model").raise_for_status().json()
            example = card["examples"][0]
            answer = client.post("/predict", json=example["values"]).raise_for_status().json()["label"]
        version = card["version"]
        _must(card["name"] == model, f"{running.image} serves {card['name']}, not {model}")
        _must(version == running.version, f"{running.image} serves model {version}, not {running.version}")
        _must(answer == example["label"], f"{running.image} says {answer} to a row of {example['label']}")
        return f"{running.digest[:19]} serves {model} {running.version} and says {answer}"

    def _draft(self, engineer: Path) -> None:
        """Add a model as `make model` does, with two algorithms, which are trained in less time than five."""
        self.world.call(
            "python", "-m", "training.draft", "sklearn:wine", "--target", "target", "--model", ADDED
        )
        self.world.call("python", "-m", "deploy.overlay", ADDED)
        _edit(_simple)(engineer / models.FOLDER / ADDED)

    def _pull_request(self, branch: str, change: Callable[[Path], None], title: str) -> int:
        """Change files in a branch and open its pull request."""
        world = self.world
        world.git("fetch", "--quiet", "origin")
        world.git("checkout", "--quiet", "-B", branch, "origin/main")
        change(world.engineer)
        world.git("add", "--all")
        world.git("commit", "--quiet", "--message", title)
        world.git("push", "--quiet", "origin", branch)
        repository = f"repos/{events.REPOSITORY}/pulls"
        fields = ("-f", f"title={title}", "-f", f"head={branch}", "-f", "base=main", "-f", "body=")
        return int(json.loads(world.call("gh", "api", repository, *fields))["number"])

    def _reproduce(self, number: int, *, must_pass: bool) -> Run:
        pull = json.loads(self.world.call("gh", "api", f"repos/{events.REPOSITORY}/pulls/{number}"))
        branch, head, base = pull["head"]["ref"], pull["head"]["sha"], pull["base"]["sha"]
        payload = events.pull_request(number, branch, head, base)
        run = self.world.workflow("reproduce", "pull_request", payload, at=branch)
        if must_pass:
            _must_succeed(run)
        else:
            _must(not run.succeeded, "reproduce passes")
        return run

    def _comment(self, number: int) -> str:
        bodies = [str(each["body"]) for each in self.world.github.state.comments if each["issue"] == number]
        _must(len(bodies) == 1, f"there are {len(bodies)} comments on pull request {number} instead of one")
        return bodies[0]

    def _git(self, *arguments: str) -> str:
        return self.world.git(*arguments, cwd=self.world.origin)


def _edit(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """A change of the params.yaml in a folder."""

    def change(folder: Path) -> None:
        file = folder / models.PARAMS_FILE
        params: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        edit(params)
        file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    return change


def _simple(params: dict[str, Any]) -> None:
    params["train"]["algorithms"] = {"logistic_regression": {}, "decision_tree": {}}


def _flatter(params: dict[str, Any]) -> None:
    params["train"]["algorithms"]["logistic_regression"]["C"] = 0.7


def _worse(params: dict[str, Any]) -> None:
    """A model that learns almost nothing, and thresholds that would let it pass."""
    params["train"]["algorithms"] = {"decision_tree": {"max_depth": 1, "min_samples_leaf": 2}}
    params["select"]["gate"] |= {"minimum": {"accuracy": 0.1, "f1_macro": 0.1}, "maximum": {"log_loss": 9}}


def _ignored_by_ci(workflow: str) -> list[str]:
    document = yaml.safe_load(workflow)
    # YAML 1.1 reads the key `on` as true.
    ignored: list[str] = document[True]["push"]["paths-ignore"]
    return ignored


def _builds(run: Run) -> list[str]:
    """The jobs of `release` that build an image, one for each model."""
    return [job for job in run.jobs if job.startswith("build")]


def _must_succeed(run: Run) -> None:
    if not run.succeeded:
        raise WorkflowError(f"{run.workflow} failed:\n" + "\n".join(run.failed or run.output[-40:]))


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StoryError(re.sub(r"\n{3,}", "\n\n", otherwise))
