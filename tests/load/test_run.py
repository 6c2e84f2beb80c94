"""The command: its verdict by itself, and whole runs against a service in another process.

Locust patches the process it is imported in, so here it only ever runs in processes of its own. No test
holds the machine to a time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common import models
from tests.bundles import write_mixed_bundle, write_number_bundle
from tests.load import run
from tests.load.run import ROOT, Budget, Fault, Figures, Summary, judge
from tests.tools import http_server

GENEROUS = ["--p95-ms", "60000", "--max-error-share", "0"]
LIMIT_SECONDS = 90


def figures(name: str, count: int = 100, failed: int = 0, p95: float = 20) -> Figures:
    return Figures(name=name, count=count, failed=failed, per_second=10, p50=5, p95=p95, p99=90)


def summary(**changes: object) -> Summary:
    content: dict[str, object] = {
        "users": 5,
        "total": figures("Aggregated"),
        "requests": [figures("predict: one row")],
        "failures": [],
        "exceptions": [],
    }
    return Summary.model_validate(content | changes)


BUDGET = Budget(p95_ms=20, max_error_share=0.01)


def test_a_measurement_on_the_budget_is_accepted() -> None:
    assert judge(summary(total=figures("Aggregated", failed=1)), BUDGET) is None


def test_the_verdict_names_each_figure_and_its_budget() -> None:
    fault = judge(summary(total=figures("Aggregated", failed=2, p95=21)), BUDGET)

    assert fault == (
        "p95 is 21 ms, over the budget of 20 ms; 2 % of the requests failed, over the budget of 1 %"
    )


def test_users_that_only_read_the_card_have_measured_nothing() -> None:
    card = figures(run.CARD, count=3, failed=3)

    fault = judge(summary(total=card, requests=[card], failures=[Fault(error="refused", count=3)]), BUDGET)

    assert fault == "nothing was sent, so nothing was measured: refused"


def test_an_error_in_the_users_themselves_is_no_success() -> None:
    assert judge(summary(exceptions=[Fault(error="KeyError('x')", count=1)]), BUDGET) == (
        "the load test itself failed: KeyError('x')"
    )


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--time", "1 week", "is not a time such as 30s, 5m or 1h30m"),
        ("--time", "0s", "is not a time"),
        ("--users", "0", "is not a whole number from 1"),
        ("--p95-ms", "nan", "is not a number above 0"),
        ("--max-error-share", "5", "is not a share between 0 and 1"),
        ("--metrics-port", "70000", "is not a port"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    option: str, value: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main([option, value])

    assert stopped.value.code == 2
    assert f"{option}: {value} {why}" in capsys.readouterr().err


def test_nobody_at_home_is_one_line_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    status = run.main(["--host", f"127.0.0.1:{free_port()}"])

    assert status == 1
    line = capsys.readouterr().err
    assert re.fullmatch(r"error: http://127.0.0.1:\d+ does not answer \(.+\): .*`make serve`.*\n", line)


def test_a_model_that_is_unknown_is_corrected() -> None:
    with pytest.raises(models.UnknownModelError, match="no model 'wien': did you mean wine"):
        run.main(["--model", "wien"])


@pytest.mark.slow
def test_a_host_that_serves_another_model_is_refused(
    number_host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--model", "wine", "--host", number_host]) == 1
    assert capsys.readouterr().err.startswith(f"error: {number_host} serves iris, not wine: ")


# ------------------------------------------------------------------------------------------ whole runs


@dataclass(frozen=True)
class Outcome:
    status: int
    output: str
    error: str
    files: Path

    def summary(self) -> Summary:
        return Summary.model_validate_json((self.files / "run.json").read_bytes())

    def requests(self) -> dict[str, Figures]:
        return {each.name: each for each in self.summary().requests}


@pytest.fixture(scope="module")
def number_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("numbers")
    write_number_bundle(directory)
    with serving(directory) as host:
        yield host


@pytest.mark.slow
def test_a_run_within_its_budget(number_host: str, tmp_path: Path) -> None:
    outcome = load(number_host, tmp_path, *GENEROUS)

    assert outcome.status == 0, outcome.error
    assert outcome.error == ""
    assert "within the budget" in outcome.output
    assert "<title>Locust" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "run_stats.csv").exists()
    requests = outcome.requests()
    assert requests.keys() >= {
        "predict: one row",
        "predict: instances",
        "predict: columns",
        "v2: infer",
        "bad: 422",
    }
    assert sum(each.failed for each in requests.values()) == 0


@pytest.mark.slow
def test_bad_requests_are_refused_by_the_service_and_count_as_successes(tmp_path: Path) -> None:
    write_mixed_bundle(tmp_path)
    with serving(tmp_path) as host:
        outcome = load(host, tmp_path, *GENEROUS)
        with urllib.request.urlopen(f"{host}/metrics", timeout=10) as response:
            metrics = response.read().decode()

    assert outcome.status == 0, outcome.error
    requests = outcome.requests()
    bad = [each for name, each in requests.items() if name.startswith("bad: ")]
    assert sum(each.count for each in bad) > 0
    assert sum(each.failed for each in bad) == 0
    refused = sum(float(n) for n in re.findall(r"^model_rejected_total\{.*\} (\S+)$", metrics, re.MULTILINE))
    assert refused >= sum(each.count for each in bad)


@pytest.mark.slow
def test_a_broken_budget_fails_the_run(number_host: str, tmp_path: Path) -> None:
    outcome = load(number_host, tmp_path, environment={"LOAD_P95_MS": "0.001"})

    assert outcome.status == 1
    # Locust counts in whole milliseconds, and there are other figures in the same line if the machine is slow.
    assert re.match(r"error: p95 is \d+ ms, over the budget of 0.001 ms", outcome.error)
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_service_that_answers_anything_is_found_out(tmp_path: Path) -> None:
    card = write_number_bundle(tmp_path).model_dump_json().encode()
    with pretending(card) as host:
        outcome = load(host, tmp_path, "--p95-ms", "60000")

    assert outcome.status == 1
    # Only the card itself was as it should be.
    assert re.fullmatch(
        r"error: (100|99\.\d) % of the requests failed, over the budget of 0.1 %\n", outcome.error
    )
    # The terminal shows the most frequent only, and which those are is chance.
    faults = [each.error for each in outcome.summary().failures]
    assert any("200 instead of 422" in fault for fault in faults)
    assert any("the answer has another shape (KeyError)" in fault for fault in faults)
    assert re.search(r"^ +\d+  .+: .+$", outcome.output, re.MULTILINE)


@pytest.mark.slow
def test_an_interrupt_ends_with_the_report_of_what_was_measured(number_host: str, tmp_path: Path) -> None:
    with started("--host", number_host, "--time", "10m", *files(tmp_path), *GENEROUS) as process:
        until(lambda: measured(tmp_path) > 20, process)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=LIMIT_SECONDS)

    assert process.returncode == 0, error
    assert "stopped early" in output
    assert (tmp_path / "report.html").exists()


@pytest.mark.long("tests/load", "uv.lock")
def test_a_master_and_its_workers_measure_together(number_host: str, tmp_path: Path) -> None:
    port = str(free_port())
    master = ["--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1"]
    options = ["--host", number_host, "--users", "8", "--time", "4s", *files(tmp_path), *GENEROUS]
    worker = [
        *(sys.executable, "-m", "locust", "-f", "tests/load/locustfile.py"),
        *("--worker", "--master-host", "127.0.0.1", "--master-port", port),
    ]
    with started(*options, *master, "--master-bind-port", port) as process:
        workers = [
            subprocess.Popen(worker, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        try:
            output, error = process.communicate(timeout=LIMIT_SECONDS)
            statuses = [each.wait(timeout=LIMIT_SECONDS) for each in workers]
        finally:
            for each in workers:
                each.kill()

    assert process.returncode == 0, error
    assert statuses == [0, 0]
    assert "within the budget" in output
    requests = Outcome(0, output, error, tmp_path).requests()
    assert requests["predict: one row"].count > 0
    # Each worker process reads the card once.
    assert requests[run.CARD].count == 2


@pytest.mark.slow
def test_prometheus_can_watch_a_run(number_host: str, tmp_path: Path) -> None:
    port = free_port()
    options = ["--host", number_host, "--users", "4", "--time", "10m", *files(tmp_path), *GENEROUS]
    with started(*options, "--spawn-rate", "100", "--metrics-port", str(port)) as process:
        until(lambda: measured(tmp_path) > 60, process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            families = {
                family.name: family.samples
                for family in text_string_to_metric_families(response.read().decode())
            }
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=LIMIT_SECONDS)

    assert process.returncode == 0, error
    assert [each.value for each in families["locust_users"]] == [4]
    requests = {each.labels["name"]: each.value for each in families["locust_requests"]}
    assert requests["predict: one row"] > 0
    assert sum(requests.values()) >= 60
    assert {each.labels["name"] for each in families["locust_failures"]} == requests.keys()
    assert sum(each.value for each in families["locust_failures"]) == 0
    for name, number in requests.items():
        samples = [s for s in families["locust_request_duration_seconds"] if s.labels["name"] == name]
        buckets = [s.value for s in samples if s.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == number


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(number_host: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = load(number_host, tmp_path, "--metrics-port", str(port))

    assert outcome.status == 1
    assert re.fullmatch(rf"error: locust ended with status 1: no metrics on port {port}: .+\n", outcome.error)


def load(host: str, directory: Path, *options: str, environment: dict[str, str] | None = None) -> Outcome:
    arguments = ["--host", host, "--users", "20", "--rate", "10", "--time", "3s", *files(directory), *options]
    with started(*arguments, environment=environment) as process:
        output, error = process.communicate(timeout=LIMIT_SECONDS)
    return Outcome(process.returncode, output, error, directory)


def files(directory: Path) -> list[str]:
    return ["--html", str(directory / "report.html"), "--csv", str(directory / "run")]


def measured(directory: Path) -> int:
    try:
        count: int = json.loads((directory / "run.json").read_bytes())["total"]["count"]
    except FileNotFoundError:
        return 0
    return count


@contextmanager
def started(*options: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, without budgets from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOAD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.load.run", *options],
        cwd=ROOT,
        env=inherited | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # So that it takes locust with it.
            process.terminate()
            process.communicate()


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """The real service with a bundle."""
    port = free_port()
    settings = {"ESPALIER_MODEL_DIR": str(model), "ESPALIER_PORT": str(port), "ESPALIER_DRAIN_SECONDS": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: listens(port), process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_SECONDS)


@contextmanager
def pretending(card: bytes) -> Iterator[str]:
    """A server that has a card and answers everything else with 200 and an empty object."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(card)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b"{}")

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as address:
        yield address


def until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None, f"the process ended with {process.returncode}"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
