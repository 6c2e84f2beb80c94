from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cmarkgfm  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.ci import retrain
from deploy.git import Git, LostRaceError
from deploy.rehearsal import runner
from monitoring import drift as monitoring
from tests.deploy.ci.actions import GitHubActions
from tests.deploy.ci.conftest import Clone, Origin
from tests.deploy.ci.test_lockback import RESULTS, reproduce
from tests.e2e.clone import BIN, ROOT
from tests.tools import require

OTHER = {"dvc.lock": "schema: '2.0'\nstages: {train: {outs: []}}\n"}


TABLE = """\
Drift: petal_length (above 0.2 in 4 of the last 6 windows, the newest until 2026-01-31 12:00 UTC).

In production, model 01dddd8b7714: 5,000 predictions in the newest window, 100,000 in 24 h

| feature | PSI newest | PSI 24 h | judged by | above 0.2 | verdict |
| --- | --: | --: | --- | --- | --- |
| petal_length | 0.500 | 0.311 | hours | 4 of 6 (1 unknown) | DRIFT |
| (predictions) | none | 0.020 | days | 0 of 6 | no drift |
"""


def command(
    clone: Clone, patch: Path, drift: Path | None = None, *, model: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    options = [f"--model={model}", *([] if drift is None else ["--drift", str(drift)])]
    return subprocess.run(
        [sys.executable, "-S", "-m", "deploy.ci.retrain", "--patch", str(patch), *options],
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


@pytest.mark.slow
def test_one_pull_request_is_opened_and_kept_up_to_date(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = origin.clone("job")
    done = command(clone, reproduce(clone, RESULTS, monkeypatch), TRIGGER="schedule")
    assert done.returncode == 0, done.stderr
    (pull,) = github.open_pulls()
    assert pull["head"]["ref"] == "retrain"
    assert "weekly look" in pull["body"]
    assert pull["title"] == "Retrain iris on fresh data"
    assert (
        "This retrains iris and changes `dvc.lock`, `metrics/forest.json`, `metrics/tree.json`"
        in pull["body"]
    )
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
        "espalier[bot]: Retrain iris on fresh data",
        *origin.log("main"),
    ]


WINE = {"models/wine/dvc.lock": "schema: '2.0'\nstages: {}\n", "models/wine/metrics/tree.json": "{}\n"}


def add_models(origin: Origin, *names: str) -> None:
    """Further models on main."""
    person = origin.clone("adds")
    person.commit("More", {f"models/{name}/params.yaml": f"name: {name}\n" for name in names})
    person.git("push", "--quiet", "origin", "main")


@pytest.mark.slow
def test_proposals_for_two_models_do_not_replace_each_other(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_models(origin, "wine")
    clone = origin.clone("wine")
    done = command(clone, reproduce(clone, WINE, monkeypatch), model="wine")
    assert done.returncode == 0, done.stderr
    clone = origin.clone("iris")
    done = command(clone, reproduce(clone, RESULTS, monkeypatch), model="iris")
    assert done.returncode == 0, done.stderr
    clone = origin.clone("both")
    done = command(clone, reproduce(clone, {**RESULTS, **WINE}, monkeypatch), TRIGGER="schedule")
    assert done.returncode == 0, done.stderr
    assert {each["head"]["ref"]: each["title"] for each in github.open_pulls()} == {
        "retrain-wine": "Retrain wine on fresh data",
        "retrain-iris": "Retrain iris on fresh data",
        "retrain": "Retrain iris and wine on fresh data",
    }


def test_many_models_are_counted_in_the_title(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"churn-of-the-customers-in-{number}" for number in range(3)]
    add_models(origin, *names)
    clone = origin.clone("job")
    results = {f"models/{name}/metrics/tree.json": "{}\n" for name in names}
    done = command(clone, reproduce(clone, results, monkeypatch))
    assert done.returncode == 0, done.stderr
    (pull,) = github.open_pulls()
    assert pull["title"] == "Retrain 3 models on fresh data"
    assert f"This retrains {', '.join(names)} and changes `models/" in pull["body"]


def test_a_model_that_is_unknown_or_not_the_one_of_the_patch_is_refused(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends the event can write anything into the name."""
    add_models(origin, "wine")
    clone = origin.clone("job")
    patch = reproduce(clone, RESULTS, monkeypatch)
    for name in ("../wine", "--base=x", "win\n::set-env name=x::y", "x" * 70_000):
        done = command(clone, patch, model=name)
        assert done.returncode == 1
        assert done.stderr.startswith("error: there is no model '")
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) < 300
    done = command(clone, patch, model="wine")
    assert done.stderr == "error: the patch changes more than wine, which was retrained\n"
    assert not origin.tip("retrain-wine")


@pytest.mark.slow
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


@pytest.mark.slow
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
    git = Git(later.folder)
    with pytest.raises(LostRaceError, match="does not take the push to retrain"):
        git.replace(git.require("HEAD"), "retrain", seen)
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


# What monitoring says of drift.


def test_the_table_of_drift_stands_in_the_pull_request(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "drift.md").write_text(TABLE)
    clone = origin.clone("job")
    done = command(clone, reproduce(clone, RESULTS, monkeypatch), tmp_path / "drift.md", DRIFT="success")
    assert done.returncode == 0, done.stderr
    (pull,) = github.open_pulls()
    assert pull["body"].endswith(f"### Drift\n\n{TABLE}")
    assert "Drift: " not in origin.log("retrain")[0], "the commit tells what changed"


def test_no_word_from_monitoring_stops_nothing_and_is_said(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clone = origin.clone("job")
    done = command(clone, reproduce(clone, RESULTS, monkeypatch), tmp_path / "absent", DRIFT="failure")
    assert done.returncode == 0, done.stderr
    (pull,) = github.open_pulls()
    assert "Drift was not looked at: the job that asks Prometheus failed." in pull["body"]


def test_without_a_prometheus_nothing_is_said_of_drift(tmp_path: Path) -> None:
    assert retrain.drift(tmp_path / "absent", "skipped") == ""


def test_drift_alone_is_no_proposal(
    origin: Origin, github: GitHubActions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "drift.md").write_text(TABLE)
    clone = origin.clone("job")
    done = command(clone, reproduce(clone, {}, monkeypatch), tmp_path / "drift.md")
    assert "nothing to propose" in done.stdout
    assert github.state.pulls == []


def test_what_monitoring_writes_gets_through_unchanged(tmp_path: Path) -> None:
    rows = (
        monitoring.Row("petal_length", (0.1, 0.3, None, 0.4, 0.5, 0.6), (0.25,) * 6),
        monitoring.Row("Höhe (cm)", (None,) * 6, (None,) * 6),
        monitoring.Row(None, (None,) * 6, (0.01,) * 6),
        monitoring.Row(monitoring.CLASSES, (None,) * 6, (0.01,) * 6),
    )
    versions = tuple(
        monitoring.Version("espalier-production", "production", "iris", name, 5000.0, None, rows)
        for name in "ab"
    )
    empty = monitoring.Version("espalier-production", "production", "iris", "c", 3.0, None, ())
    report = monitoring.Report(1_700_000_000, 3600, monitoring.alert_limits(), (*versions, empty))
    written = monitoring.markdown(report)
    (tmp_path / "drift.md").write_text(written)
    assert retrain.drift(tmp_path / "drift.md", "success") == f"### Drift\n\n{written.strip()}"


@given(
    st.lists(
        st.sampled_from([*"|-: \n@#<>[]()!`*~\\/w\u202e\x1b", "http://", "www.", "a.b", "| "]), max_size=80
    ).map("".join)
    | st.binary(max_size=80).map(lambda content: content.decode("latin-1"))
)
def test_nothing_in_the_table_means_anything_but_a_table(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.md"
    file.write_text(f"Drift\n\n| a | b |\n| --- | --- |\n{text}", encoding="utf-8", errors="replace")
    shown = retrain.drift(file, "success")
    html = cmarkgfm.github_flavored_markdown_to_html(shown, cmarkgfm.cmark.Options.CMARK_OPT_UNSAFE)
    assert not any(f"<{tag}" in html for tag in ("a ", "img", "script", "input", "pre", "code"))
    assert "@" not in shown
    assert not set("\u202e\x1b") & set(shown)


def test_a_table_of_any_size_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "drift.md"
    file.write_text(TABLE + "| petal | 0.1 | 0.1 | 0 of 6 | no drift |\n" * 100_000)
    shown = retrain.drift(file, "success")
    assert len(shown) < retrain.LARGEST_TABLE + 200
    assert shown.endswith("no drift |\n\nThe rest is in the artifact of this run.")
    file.write_text("x" * 1_000_000)
    assert len(retrain.drift(file, "success")) < 1000


def test_the_look_at_drift_decides_nothing_in_the_workflow(tmp_path: Path) -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/retrain.yml").read_text())["jobs"]
    assert "needs" not in jobs["train"]
    assert jobs["propose"]["needs"] == ["drift", "train"]
    assert "!cancelled()" in jobs["propose"]["if"]
    assert "needs.train.outputs.handed == 'success'" in jobs["propose"]["if"]
    script = next(step["run"] for step in jobs["drift"]["steps"] if step.get("name") == "Ask Prometheus")
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PROMETHEUS_URL": "http://127.0.0.1:1",
            "PROMETHEUS_TOKEN": "",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" in done.stderr
    said = "Drift could not be judged: Prometheus could not be asked."
    assert (tmp_path / "summary").read_text().strip() == said
    assert retrain.drift(tmp_path / "build/drift/drift.md", "success") == f"### Drift\n\n{said}"


@pytest.mark.parametrize(
    ("url", "drift_ends_with", "changed", "reproduced", "proposed"),
    [
        ("", 0, "true", "true", "DRIFT=skipped"),
        ("https://prometheus.example", 0, "true", "true", "DRIFT=success"),
        ("https://prometheus.example", 1, "true", "true", "DRIFT=failure"),
        ("https://prometheus.example", 0, "false", "true", None),
        ("", 0, "true", "false", "DRIFT=skipped"),
        ("", 0, "false", "false", None),
    ],
)
def test_what_is_proposed_depends_on_the_source_alone(
    tmp_path: Path, url: str, drift_ends_with: int, changed: str, reproduced: str, proposed: str | None
) -> None:
    """The jobs' own conditions, with nothing but words in their steps; a model that failed ends the run red."""
    require("act")
    workflow = yaml.safe_load((ROOT / ".github/workflows/retrain.yml").read_text())
    workflow["on"] = workflow.pop(True)
    jobs = workflow["jobs"]
    told = next(step["env"]["DRIFT"] for step in jobs["propose"]["steps"] if "DRIFT" in step.get("env", {}))
    jobs["drift"]["steps"] = [{"run": f"exit {drift_ends_with}"}]
    handed, verdict = (
        next(each for each in jobs["train"]["steps"] if each.get(key) == value)
        for key, value in (("id", "hand"), ("name", "Verdict"))
    )
    outputs = f'printf "changed={changed}\\nreproduced={reproduced}\\n" >> "$GITHUB_OUTPUT"'
    jobs["train"]["steps"] = [
        {"id": "train", "run": outputs},
        {"id": "hand", "if": handed["if"], "run": "true"},
        verdict,
    ]
    jobs["propose"]["steps"] = [{"env": {"DRIFT": told}, "run": 'echo "proposed with DRIFT=$DRIFT"'}]
    clone = tmp_path / "clone"
    (clone / ".github/workflows").mkdir(parents=True)
    (clone / ".github/workflows/retrain.yml").write_text(yaml.dump(workflow))
    for command_ in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["commit", "--quiet", "-m", "all"],
    ):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *command_], cwd=clone, check=True
        )
    run = runner.run(
        clone,
        "retrain",
        "repository_dispatch",
        {"action": "drift", "client_payload": {"reason": "petal_length"}},
        variables={"APP_ID": "1", **({"PROMETHEUS_URL": url} if url else {})},
        secrets={},
        environment={},
        folder=tmp_path / "act",
    )
    assert run.jobs.get("train") == ("success" if reproduced == "true" else "failure"), run.output
    assert ("drift" in run.jobs) is bool(url)
    assert run.says(f"proposed with {proposed}") if proposed else "propose" not in run.jobs
