"""The delivery exporter: on histories in real git, against the release tool's own reading of them; GitHub is played."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from common import overlays
from common.overlays import OverlayError, Release
from deploy.git import Git
from deploy.rehearsal.github import API, Method
from deploy.release import deployments, leaderboard
from monitoring.delivery import exposition, files
from monitoring.delivery.clone import Clone, DeliveryError
from monitoring.delivery.exporter import Exporter
from monitoring.delivery.facts import Deployment, Facts, Run, Timeline
from monitoring.delivery.files import Place
from monitoring.delivery.github import GitHub
from tests.deploy import project as projects
from tests.deploy import registries
from tests.deploy.github import SERVER, FakeGitHub
from tests.deploy.project import ROOT, Project
from tests.deploy.registries import Server
from tests.monitoring import pods
from tests.tools import examples, require

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""A history that fails is shown as it is: to shrink it would take minutes of processes."""
BEGAN = 1_700_000_000
MODEL = "iris"
PRODUCTION = Place("production", MODEL)
STAGED = Release("registry.example.com/espalier", f"sha256:{9:064x}", "v9", f"{9:040x}")
"""Runs in staging from the first commit on, as another model."""
OTHER = Place("staging", "wine")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    projects.isolate(monkeypatch, tmp_path / "home")


@contextmanager
def through(github: FakeGitHub) -> Iterator[None]:
    """Let this process' requests go to the played GitHub."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in github.environment().items():
            patch.setenv(key, value)
        yield


def source() -> GitHub:
    return GitHub("espalier-ml/espalier", lambda: "a-token", server=SERVER, api=API)


def samples(text: str) -> Samples:
    """What Prometheus' own library reads in the text."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def values(text: str, name: str, **labels: str) -> list[float]:
    return [
        value
        for (each, found), value in samples(text).items()
        if each == name and labels.items() <= dict(found).items()
    ]


# Histories made up.


@dataclass(frozen=True)
class Step:
    """A commit, or a branch that is merged: what it does to the model's release file in production."""

    kind: str
    """direct, noise, merge (a branch from `back` commits ago), mixed (that branch brought main in before)."""
    digest: int
    """Which image; -1 is a text that says nothing, -2 removes the file."""
    label: int
    seconds: int
    """Since the last one; clocks may differ."""
    back: int
    kept: bool
    """Whether a merge takes the branch's file, or leaves main's as it is."""


STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["direct", "direct", "noise", "merge", "mixed"]),
        digest=st.sampled_from([1, 1, 2, 2, 3, 3, 4, -1, -2]),
        label=st.sampled_from([1, 1, 1, 2]),
        seconds=st.integers(-100, 5000),
        back=st.integers(0, 5),
        kept=st.booleans(),
    ),
    max_size=20,
)


def text_of(step: Step) -> str | None:
    if step.digest < 0:
        return None if step.digest == -2 else "<<<<<<< HEAD\n"
    name = f"sha256:{step.digest:064x}"
    return str(Release("registry.example.com/espalier", name, f"{step.label:012x}", f"{step.digest:040x}"))


class History:
    """Writes commits by `git fast-import`, which takes milliseconds for all of them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.count = 0
        self.now = BEGAN
        self.states: dict[int, tuple[str | None, int]] = {}
        """By commit, production's release file and the content of another file."""

    def commit(self, parents: list[int], state: tuple[str | None, int], at: int | None = None) -> int:
        self.count += 1
        when = self.now if at is None else at
        files = {OTHER.path: str(STAGED), "README.md": str(state[1])}
        files |= {PRODUCTION.path: state[0]} if state[0] is not None else {}
        self.add(
            "commit refs/heads/work", f"mark :{self.count}", f"committer Ada <ada@localhost> {when} +0000"
        )
        self.data("A change")
        self.add(*(f"{'merge' if n else 'from'} :{each}" for n, each in enumerate(parents)), "deleteall")
        for path, content in files.items():
            self.add(f"M 644 inline {path}")
            self.data(content)
        self.states[self.count] = state
        return self.count

    def add(self, *lines: str) -> None:
        self.lines += [line.encode() for line in lines]

    def data(self, content: str) -> None:
        self.lines += [f"data {len(content.encode())}".encode(), content.encode()]

    def play(self, steps: list[Step]) -> None:
        line = [self.commit([], (None, 0))]
        for number, step in enumerate(steps, 1):
            self.now += step.seconds
            tip, base = line[-1], line[max(0, len(line) - 1 - step.back)]
            now, then = self.states[tip], self.states[base]
            wanted = text_of(step)
            if step.kind == "noise":
                line.append(self.commit([tip], (now[0], number)))
            elif step.kind == "direct":
                line.append(self.commit([tip], (wanted, now[1])))
            else:
                branch = self.commit([base], (wanted, then[1]), self.now - 50)
                if step.kind == "mixed":
                    branch = self.commit([branch, tip], (wanted, now[1]), self.now - 20)
                line.append(self.commit([tip, branch], (wanted if step.kept else now[0], now[1])))
        # The file as it is now can be read: otherwise both refuse.
        if self.states[line[-1]][0] == "<<<<<<< HEAD\n":
            line.append(self.commit([line[-1]], (text_of(Step("direct", 4, 1, 0, 0, True)), 0)))
        self.add("reset refs/heads/main", f"from :{line[-1]}", "done")

    def write(self, folder: Path) -> Path:
        subprocess.run(["git", "init", "-q", "--bare", "--template=", "-b", "main", str(folder)], check=True)
        subprocess.run(
            ["git", f"--git-dir={folder}", "fast-import", "--quiet", "--done"],
            input=b"\n".join(self.lines) + b"\n",
            check=True,
        )
        return folder


# Main went from 1 to 2, and a branch from before that brought main in, kept its own 3, and was merged: a list of the
# path's commits has no trace of 2.
HIDDEN = [
    Step("direct", 1, 1, 10, 0, True),
    Step("direct", 2, 1, 10, 0, True),
    Step("mixed", 3, 1, 100, 1, True),
]
# The same, and the branch kept 1: such a list has no trace of 2, nor of the way back, and the text at its ends is equal.
RESTORED = [*HIDDEN[:2], Step("mixed", 1, 1, 100, 1, True)]
# One that was found by chance, with commits dated before their parents.
FOUND = [
    Step("merge", 1, 2, 3745, 1, True),
    Step("direct", 2, 1, 4759, 3, False),
    Step("direct", 3, 2, -88, 5, False),
    Step("merge", 2, 1, 2359, 3, True),
    Step("mixed", -2, 1, 2397, 5, False),
    Step("direct", 3, 2, -8, 1, True),
    Step("merge", -1, 2, 633, 5, True),
    Step("merge", -2, 1, -69, 0, False),
    Step("direct", 2, 2, 364, 3, True),
    Step("mixed", 2, 1, 527, 0, True),
    Step("noise", 2, 1, 333, 5, False),
    Step("direct", 2, 1, 3746, 3, True),
    Step("merge", 1, 2, 700, 1, True),
    Step("direct", 1, 2, 206, 4, True),
    Step("merge", 2, 2, 3404, 5, False),
    Step("mixed", 2, 1, -56, 2, True),
    Step("merge", 2, 1, 1186, 0, False),
    Step("noise", 1, 1, 595, 5, False),
    Step("direct", 1, 1, 413, 5, False),
    Step("direct", -2, 1, 128, 2, True),
]


@contextmanager
def played(steps: list[Step]) -> Iterator[Path]:
    made = History()
    made.play(steps)
    with TemporaryDirectory() as folder:
        yield made.write(Path(folder) / "origin.git")


Row = tuple[str, str, str, str, int, str]


def expected(origin: Path, place: Place = PRODUCTION) -> tuple[list[Row], int] | None:
    """What the release tool reads: digest, version, revision, commit, time, and whether it was a way back.

    And how many good ones the ways back have left behind. None where nothing runs.
    """
    git = Git(origin)
    timeline = deployments.read(git, git.require("main"), place.environment, place.model)
    found = timeline.deployments
    if timeline.removed or not found:
        return None
    rows, failed = [], 0
    for number, each in enumerate(found):
        before, after = (len(deployments.fold(found[:length]).good) for length in (number, number + 1))
        failed += max(0, before - after)
        release = each.release
        rows.append(
            (
                release.digest,
                release.version,
                release.revision,
                each.commit,
                int(each.time.timestamp()),
                "rollback" if after <= before else "forth",
            )
        )
    return rows, failed


def told(facts: Facts, place: Place = PRODUCTION) -> tuple[list[Row], int] | None:
    timeline = facts.timelines.get(place)
    if timeline is None:
        return None
    rows = [
        (
            each.release.digest,
            each.release.version,
            each.release.revision,
            each.commit,
            each.time,
            each.action if each.action == "rollback" else "forth",
        )
        for each in timeline.deployments
    ]
    return rows, timeline.failed


def read_or_none(source: Clone) -> Facts | None:
    """None where it is refused, because a release file says nothing now."""
    try:
        return source.read()
    except DeliveryError:
        return None


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture], phases=QUICK)
@given(STEPS)
@example(HIDDEN)
def test_a_clone_tells_what_the_release_tool_reads(steps: list[Step]) -> None:
    with played(steps) as origin:
        facts = Clone(origin).read()
        assert told(facts) == expected(origin)
        assert [each.release.version for each in facts.timelines[OTHER].deployments] == ["v9"]


@settings(max_examples=examples(5), suppress_health_check=[HealthCheck.function_scoped_fixture], phases=QUICK)
@given(STEPS)
@example(FOUND)
@pytest.mark.slow
def test_github_tells_what_a_clone_tells(steps: list[Step]) -> None:
    """Also when the history grows between two readings, and when it is rewritten."""
    with played(steps) as origin, FakeGitHub(origin=origin) as github, through(github):
        asked = source()
        tip = github._git("rev-parse", "main")
        earlier = github._git("rev-parse", "--verify", "--quiet", f"{tip}~{len(steps) // 2}", check=False)
        for commit in (earlier, tip, earlier, tip):
            if commit:
                github._git("update-ref", "refs/heads/main", commit)
                assert read_or_none(asked) == read_or_none(Clone(origin))
        assert github.errors == []


@pytest.mark.parametrize(
    ("steps", "digests", "failed"), [(HIDDEN, [1, 2, 3], 0), (RESTORED, [1, 2, 1], 1)], ids=["on", "back"]
)
def test_a_deployment_that_a_branch_overruled_is_told(
    steps: list[Step], digests: list[int], failed: int
) -> None:
    """Git's own list of the file's commits, which GitHub's API gives, leaves such deployments out."""
    with played(steps) as origin, FakeGitHub(origin=origin) as github, through(github):
        for each in (source(), Clone(origin)):
            timeline = each.read().timelines[PRODUCTION]
            assert [int(made.release.digest[7:], 16) for made in timeline.deployments] == digests
            assert timeline.failed == failed
        listed = Git(origin).run("log", "--format=%H", "main", "--", PRODUCTION.path).split()
        assert timeline.deployments[1].commit not in listed


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029"), max_size=20)


RELEASES = st.builds(
    Release,
    st.just("r.example.com/espalier"),
    st.from_regex(overlays.DIGEST, fullmatch=True),
    st.from_regex(overlays.VERSION, fullmatch=True),
    st.from_regex(overlays.REVISION, fullmatch=True),
)


@given(RELEASES, st.sampled_from(["\n", "\r\n"]))
def test_the_exporter_reads_what_the_release_tool_writes(release: Release, end: str) -> None:
    text = str(release).replace("\n", end)
    said = overlays.parse(text, "x")
    assert files.parse(text) == files.Release(said.digest, said.version, said.revision)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("digest:", "digst:"),
        ("sha256:", "sha512:"),
        ("espalier.dev/revision:", "espalier.dev/revisions:"),
        ("    digest:", f"    digest: sha256:{1:064x}\n    digest:"),
        ('version: "v9"', "version: v9"),
    ],
)
def test_what_says_nothing_is_no_release(old: str, new: str) -> None:
    text = str(STAGED)
    assert files.parse(text) is not None
    assert old in text
    assert files.parse(text.replace(old, new)) is None
    with pytest.raises(OverlayError):
        overlays.parse(text.replace(old, new), "x")


def test_only_release_files_are_of_a_model() -> None:
    assert PRODUCTION.path == overlays.path(PRODUCTION.environment, PRODUCTION.model)
    assert files.place(PRODUCTION.path) == PRODUCTION
    for other in ("production/kustomization.yaml", "production/iris/kustomization.yaml"):
        assert files.place(f"{overlays.FOLDER}/{other}") is None


@given(WORDS, WORDS, WORDS)
def test_labels_are_escaped(version: str, workflow: str, metric: str) -> None:
    made = Deployment(files.Release("sha256:1", version, "abc"), "def", BEGAN, "release")
    facts = Facts(
        {OTHER: Timeline((made,))},
        {"abc": BEGAN - 5},
        {(OTHER.model, "abc"): {("cv", metric): float("inf")}},
        [Run(workflow, 1, 1.5, BEGAN)],
    )
    found = samples(exposition.text(facts, True, 1.5))
    assert {dict(labels).get("version") for (name, labels), _ in found.items() if name.endswith("_info")} == {
        version
    }
    assert {dict(labels).get("workflow") for (_, labels) in found} == {None, workflow}
    assert {dict(labels).get("metric") for (_, labels) in found} == {None, metric}


# Histories that the release tool made.


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with registries.serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, registry: Server, _isolated: None) -> Project:
    return projects.make(tmp_path / "project", registry)


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    require("gh")
    with FakeGitHub(origin=project.origin) as server:
        for key, value in server.environment(folder=project.folder / "gh").items():
            monkeypatch.setenv(key, value)
        yield server
    assert server.errors == []


@pytest.mark.slow
def test_the_life_of_a_project_by_both_sources(project: Project, github: FakeGitHub) -> None:
    """Merged by each of GitHub's buttons in turn; beside it a further model, which goes to staging and is removed there."""
    project.add_model("wine")
    project.staged(7, "wine")
    buttons: dict[int, Method] = {1: "merge", 2: "rebase"}
    for number, button in buttons.items():
        project.staged(number)
        assert project.me.release("promote", "--pull-request", "--without-evidence", "a test").status == 0
        github.merge(number, button)
    assert project.me.release("rollback", "--pull-request").status == 0
    github.merge(3, "squash")
    began = datetime.fromtimestamp(BEGAN, UTC)
    github.add_run("ci", began, datetime.fromtimestamp(BEGAN + 300, UTC), "success")

    facts = source().read()
    clone = Clone(project.clone("watched").root)
    assert facts == replace(clone.read(), runs=facts.runs)
    assert list(facts.timelines) == [PRODUCTION, Place("staging", MODEL), OTHER]
    for place in facts.timelines:
        assert told(facts, place) == expected(project.origin, place)
    text = exposition.text(facts, True, time.time())
    assert values(
        text, "espalier_deployments_total", environment="staging", action="release", model=MODEL
    ) == [2]
    assert values(
        text, "espalier_deployments_total", environment="staging", action="release", model="wine"
    ) == [1]
    assert values(text, "espalier_deployments_total", environment="production", action="promote") == [2]
    assert values(text, "espalier_deployments_total", environment="production", action="rollback") == [1]
    assert values(text, "espalier_failed_changes_total", environment="production") == [1]
    assert values(text, "espalier_deployment_info", environment="production", action="rollback") == [1]
    timeline = facts.timelines[PRODUCTION].deployments
    assert values(text, "espalier_restore_seconds") == [timeline[2].time - timeline[1].time]
    revised = int(project.at_origin("log", "-1", "--format=%ct", timeline[1].release.revision))
    assert values(text, "espalier_lead_time_seconds", environment="production") == [
        timeline[1].time - revised
    ]
    assert values(text, "espalier_workflow_run_seconds", workflow="ci") == [300]
    # The champion of what runs, by the release tool's own reading.
    for place, line in facts.timelines.items():
        assert line.current is not None
        board = leaderboard.read(Git(project.me.root), line.current.release.revision, place.model)
        assert board is not None
        scores = {
            f"{'CV' if dict(labels)['split'] == 'cv' else 'test'} {dict(labels)['metric']}": value
            for (name, labels), value in samples(text).items()
            if name == "espalier_release_metric"
            and {("environment", place.environment), ("model", place.model)} <= set(labels)
        }
        assert scores == {name: figure.value for name, figure in board.figures.items()}
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    project.me.git("rm", "-q", OTHER.path)
    project.me.git("commit", "-q", "-m", "Remove wine from staging")
    project.me.git("push", "-q", "origin", "HEAD:main")
    assert OTHER not in source().read().timelines
    linted = subprocess.run(
        [require("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


# GitHub's ways.


@pytest.fixture
def small() -> Iterator[FakeGitHub]:
    """Four deployments, the last one a rollback."""
    steps = [Step("direct", digest, 1, 60, 0, True) for digest in (1, 2, 3, 2)]
    with played([*steps, Step("noise", 0, 1, 60, 0, True)]) as origin, FakeGitHub(origin=origin) as github:
        with through(github):
            yield github
        assert github.errors == []


@pytest.mark.slow
def test_hours_of_reading_cost_nothing(small: FakeGitHub) -> None:
    moment = datetime.fromtimestamp(BEGAN, UTC)
    small.add_run("ci", moment, moment, "success")
    asked = source()
    first = asked.read()
    small.requests.clear()
    small.fetches = 0
    for _ in range(24):
        assert asked.read() == first
    # The workflows and each workflow's runs: GitHub counts none of these requests.
    assert len(small.requests) == small.unmodified == 24 * 2
    # The server's abilities and its branches, and no objects.
    assert small.fetches == 24 * 2


def test_the_last_verdict_of_each_workflow_counts(small: FakeGitHub) -> None:
    def add(workflow: str, minute: int, conclusion: str, **more: object) -> None:
        began, ended = (datetime.fromtimestamp(BEGAN + 60 * (minute + n), UTC) for n in (0, 2))
        small.add_run(workflow, began, ended, conclusion, **more)

    add("ci", 0, "success")
    add("ci", 10, "failure")
    add("ci", 20, "cancelled")
    add("ci", 30, "success", head_branch="topic")
    add("ci", 40, "success", event="pull_request", head_repository={"full_name": "fork/espalier"})
    add("ci", 45, "success", head_repository=None)
    add("retrain", 0, "failure")
    add("retrain", 10, "success")
    add("release", 0, "skipped")
    add("dynamic/dependabot/update", 0, "success")
    text = exposition.text(source().read(), True, None)
    assert {dict(labels)["workflow"] for (name, labels) in samples(text) if "workflow" in name} == {
        "ci",
        "retrain",
    }
    assert values(text, "espalier_workflow_success", workflow="ci") == [0]
    assert values(text, "espalier_workflow_success", workflow="retrain") == [1]
    assert values(text, "espalier_workflow_run_seconds", workflow="ci") == [120]
    assert values(text, "espalier_workflow_completed_timestamp_seconds", workflow="ci") == [BEGAN + 720]


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (500, "Server Error", "500 Server Error"),
        (401, "Bad credentials", "the token is not valid"),
        (403, "Resource not accessible by personal access token", "must be allowed to read"),
        (404, "Not Found", "the repository's name must be right"),
        (403, "You have exceeded a secondary rate limit", "a secondary rate limit"),
    ],
)
def test_trouble_keeps_the_last_facts(
    small: FakeGitHub, status: int, message: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exporter = Exporter(source(), interval=10)
    assert values(exporter.text(), "espalier_delivery_up") == [0]
    assert exporter.refresh() == 10
    before = samples(exporter.text())
    assert values(exporter.text(), "espalier_delivery_up") == [1]
    small.fail_next = [(status, message)] * 3
    waits = [exporter.refresh()]
    after = samples(exporter.text())
    assert after == before | {("espalier_delivery_up", ()): 0}
    logged = json.loads(capsys.readouterr().err)
    assert said in logged["message"]
    assert f"{API}/repos/espalier-ml/espalier" in logged["message"]
    waits += [exporter.refresh(), exporter.refresh()]
    assert waits == [10, 20, 40]
    assert exporter.refresh() == 10
    assert values(exporter.text(), "espalier_delivery_up") == [1]


@pytest.mark.slow
def test_waiting_has_an_end(small: FakeGitHub) -> None:
    exporter = Exporter(source(), interval=60)
    small.fail_next = [(500, "no")] * 20
    assert [exporter.refresh() for _ in range(20)][-1] == 3600


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "returned error: 500"),
        (401, "the token valid and allowed to read contents"),
        (403, "the token valid and allowed to read contents"),
        (404, "the repository's name must be right"),
    ],
)
def test_a_fetch_that_fails_is_one_line(
    small: FakeGitHub, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exporter = Exporter(source(), interval=10)
    # The first time, when there is no clone yet, and later.
    for _ in range(2):
        small.fail_fetches = [status]
        exporter.refresh()
        (line,) = capsys.readouterr().err.splitlines()
        message = json.loads(line)["message"]
        assert message.startswith(f"git fetch of {SERVER}/espalier-ml/espalier: ")
        assert said in message
        assert "\n" not in message
        assert "a-token" not in message
        assert values(exporter.text(), "espalier_delivery_up") == [0]
        exporter.refresh()
        assert values(exporter.text(), "espalier_delivery_up") == [1]
        capsys.readouterr()


def test_a_token_that_is_not_known_is_told(small: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    small.tokens = {"another": "somebody"}
    Exporter(source(), interval=10).refresh()
    assert "it was refused; the repository's name must be right" in capsys.readouterr().err


def test_an_answer_of_another_form_is_one_line(small: FakeGitHub) -> None:
    small.add_run("ci", datetime.now(UTC), datetime.now(UTC), "success", updated_at="yesterday")
    with pytest.raises(DeliveryError, match=r"runs.*: the answer is not what it was: ValueError"):
        source().read()


def test_the_token_goes_to_no_other_host() -> None:
    asked: list[tuple[str, str | None]] = []

    class Renamed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.headers["Host"].partition(":")[0], self.headers["Authorization"]))
            self.send_response(301 if len(asked) == 1 else 404)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Renamed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}"
        github = GitHub("espalier-ml/espalier", lambda: "a-token", server=SERVER, api=api)
        try:
            with pytest.raises(DeliveryError, match="404 Not Found; the repository's name must be right"):
                github._runs()
        finally:
            server.shutdown()
    assert asked == [("127.0.0.1", "Bearer a-token"), ("localhost", None)]


# The program.


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitoring.delivery", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_runs_in_the_cluster(tmp_path: Path, small: FakeGitHub) -> None:
    """The container's command, on the ConfigMap's files: but for GitHub's addresses, and once."""
    done = pods.run("delivery", tmp_path, "a-token\n", "--once", "--server", SERVER, "--api", API)
    assert (done.returncode, done.stderr) == (0, "")
    assert values(done.stdout, "espalier_deployments_total", action="rollback", environment="production") == [
        1
    ]
    assert small.requests


def test_it_serves_until_it_is_told_to_stop(small: FakeGitHub, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "monitoring.delivery",
            "--git",
            str(small.origin),
            "--port",
            "0",
            "--interval",
            "1",
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = json.loads(process.stderr.readline())
        address = "http://" + line["message"].rpartition("metrics at ")[2]
        deadline = time.monotonic() + 60
        up = [0.0]
        while up != [1] and time.monotonic() < deadline:
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.headers["Content-Type"] == exposition.CONTENT_TYPE
                up = values(answer.read().decode(), "espalier_delivery_up")
        assert up == [1]
        with urllib.request.urlopen(address.replace("/metrics", "/health"), timeout=10) as answer:
            assert answer.read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("/metrics", "/secrets"), timeout=10)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert process.returncode == 0


def test_a_reading_ends_with_the_exporter(small: FakeGitHub) -> None:
    exporter = Exporter(source(), interval=3600)
    thread = threading.Thread(target=exporter.run)
    thread.start()
    exporter.stopping.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "one of the arguments --git --repository is required"),
        (["--git", ".", "--repository", "a/b"], 2, "not allowed with"),
        (["--repository", "https://github.com/a/b"], 2, "is not OWNER/NAME"),
        (["--repository", "a/b", "--api", "ftp://x"], 2, "is not a web address"),
        (["--repository", "a/b", "--server", "/srv/git"], 2, "is not a web address"),
        (["--repository", "a/b", "--interval", "0"], 2, "at least 1 second"),
        (["--repository", "a/b", "--port", "70000"], 2, "--port must be"),
        (["--repository", "a/b", "--token-file", "/nowhere/token"], 1, "--token-file /nowhere/token: "),
        (["--repository", "a/b", "--token-file", "README.md"], 1, "must hold a token and nothing else"),
        (["--git", "/nowhere"], 1, "there is no such folder"),
        (["--git", "/", "--once"], 1, "not a git repository"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], status: int, said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_shallow_clone_is_refused(project: Project) -> None:
    project.staged(1)
    shallow = project.clone("shallow", "--depth", "1")
    done = run("--git", str(shallow.root), "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "git fetch --unshallow" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_overlay_that_says_nothing_is_an_error_not_silence(project: Project) -> None:
    project.staged(1)
    project.me.commit("Break", {PRODUCTION.path: "<<<<<<< HEAD\n"})
    with pytest.raises(
        DeliveryError, match=r"production/iris/release/kustomization.yaml does not say what runs"
    ):
        Clone(project.me.root).read()


def test_a_port_that_is_taken_is_named(small: FakeGitHub) -> None:
    port = small.proxy.rpartition(":")[2]
    done = run("--git", str(small.origin), "--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --port {port}: ")
