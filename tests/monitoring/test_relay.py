"""The relay: what it sends, what it answers, and the whole way from a real alert to the event."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common import models
from deploy.ci.retrain import sanitise
from monitoring import relay
from tests.tools import free_port, require

ROOT = Path(__file__).parents[2]
S = TypeVar("S", bound=ThreadingHTTPServer)
TOKEN = "github_pat_0123456789abcdef"


class GitHub(ThreadingHTTPServer):
    """Plays the one route of GitHub's that the relay asks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Dispatches)
        self.received: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        """What to answer next; 204 when empty."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Dispatches(BaseHTTPRequestHandler):
    server: GitHub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"]))
        status, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        if status == 204:
            self.server.received.append(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def github() -> Iterator[GitHub]:
    with _serving(GitHub()) as server:
        yield server


@contextmanager
def _serving(server: S) -> Iterator[S]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


@pytest.fixture
def address(github: GitHub, token: Path) -> Iterator[str]:
    made = relay.Relay(("127.0.0.1", 0), relay.Dispatcher(github.url, "o/n", token))
    with _serving(made):
        yield f"http://127.0.0.1:{made.server_address[1]}/"


def _alert(name: str = "EspalierFeatureDrift", status: str = "firing", **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {
            "alertname": name,
            "environment": "production",
            "model": "iris",
            "model_version": "0123",
            **labels,
        },
        "annotations": {},
    }


def _notification(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "receiver": "retrain", "alerts": list(alerts)}


def test_drift_becomes_one_event(github: GitHub, address: str) -> None:
    told = _notification(
        _alert(feature="petal_length"), _alert(feature="petal_width"), _alert("EspalierClassDrift")
    )
    assert httpx.post(address, json=told).status_code == 200
    reason = "Drift in production of iris, version 0123: petal_length, petal_width, the mix of predictions"
    payload = {"model": "iris", "reason": reason}
    assert github.received == [{"event_type": "drift", "client_payload": payload}]
    assert github.asked == [("/repos/o/n/dispatches", f"Bearer {TOKEN}")]
    assert sanitise(reason) == reason


def test_each_model_is_retrained_by_itself(github: GitHub, address: str) -> None:
    told = _notification(_alert(feature="x"), _alert(feature="x", model="wine"), _alert("EspalierClassDrift"))
    assert httpx.post(address, json=told).status_code == 200
    assert [each["client_payload"] for each in github.received] == [
        {"model": "iris", "reason": "Drift in production of iris, version 0123: x, the mix of predictions"},
        {"model": "wine", "reason": "Drift in production of wine, version 0123: x"},
    ]


def test_names_are_those_of_models() -> None:
    assert f"{relay.MODEL.pattern}\\Z" == models.NAME.pattern


@pytest.mark.parametrize(
    "alerts",
    [
        (),
        (_alert(status="resolved"),),
        (_alert("EspalierNotReady"),),
        (_alert("EspalierModelTooOld"),),
        (_alert(model=""),),
        (_alert(model="a b"),),
    ],
    ids=["none", "resolved", "not-ready", "old", "no model", "no name"],
)
def test_nothing_else_starts_anything(
    alerts: tuple[dict[str, Any], ...], github: GitHub, address: str
) -> None:
    assert httpx.post(address, json=_notification(*alerts)).status_code == 200
    assert github.asked == []


@pytest.mark.parametrize(
    ("github_says", "relay_says", "counted"),
    [
        ((500, {}), 503, "retry"),
        ((502, {}), 503, "retry"),
        ((429, {}), 503, "retry"),
        ((403, {"Retry-After": "60"}), 503, "retry"),
        ((403, {"X-RateLimit-Remaining": "0"}), 503, "retry"),
        ((401, {}), 424, "refused"),
        ((403, {}), 424, "refused"),
        ((404, {}), 424, "refused"),
        ((422, {}), 424, "refused"),
        ((307, {"Location": "http://elsewhere.invalid/"}), 424, "refused"),
        ((302, {"Location": "http://elsewhere.invalid/"}), 424, "refused"),
    ],
)
def test_the_answer_says_whether_to_try_again(
    github_says: tuple[int, dict[str, str]],
    relay_says: int,
    counted: str,
    github: GitHub,
    address: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    github.answers = [github_says]
    assert httpx.post(address, json=_notification(_alert())).status_code == relay_says
    assert f'relay_dispatches_total{{outcome="{counted}"}} 1' in httpx.get(address + "metrics").text
    said = capsys.readouterr()
    assert str(github_says[0]) in said.out
    assert TOKEN not in said.out + said.err
    # And the next one is none the worse for it.
    assert httpx.post(address, json=_notification(_alert())).status_code == 200
    assert 'relay_dispatches_total{outcome="sent"} 1' in httpx.get(address + "metrics").text


def test_no_github_is_worth_another_try(token: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(relay.Retry, match="cannot be reached"):
            relay.Dispatcher(f"http://127.0.0.1:{taken.getsockname()[1]}", "o/n", token).send("iris", "why")


@pytest.mark.parametrize("content", [None, "", "two words", "line\nbreak", "\x00"])
def test_no_token_is_refused(content: str | None, github: GitHub, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(relay.Refused, match="token"):
        relay.Dispatcher(github.url, "o/n", file).send("iris", "why")
    assert github.asked == []


def test_a_renewed_token_is_used(github: GitHub, address: str, token: Path) -> None:
    token.write_text("renewed")
    httpx.post(address, json=_notification(_alert()))
    assert github.asked[0][1] == "Bearer renewed"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"alerts": [1]}', 400),
        (b'{"alerts": [{"labels": []}]}', 400),
        (b"[" * 100_000, 400),
        (b" " * (relay.MOST_BYTES + 1), 413),
    ],
)
def test_what_alertmanager_does_not_send_is_not_understood(content: bytes, status: int, address: str) -> None:
    assert httpx.post(address, content=content).status_code == status


def test_a_length_is_asked_for(address: str) -> None:
    assert httpx.post(address, content=iter([b"{}"])).status_code == 411


def test_other_paths(address: str) -> None:
    assert httpx.get(address + "health").text == "ok\n"
    assert httpx.get(address).status_code == 405
    assert httpx.get(address + "else").status_code == 404
    assert httpx.post(address + "else").status_code == 404


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=40))
def test_reasons_are_short_and_harmless(labels: list[tuple[str, str, str]]) -> None:
    alerts = [_alert(feature=f, environment=e, model_version=m) for f, e, m in labels]
    (reason,) = relay.reasons_of(_notification(*alerts)).values()
    assert len(reason) <= relay.LONGEST_REASON
    assert reason.isascii()
    assert reason.isprintable()
    assert not set(reason) & set("@#`<>[]{}|*\"'\\$&;/")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RELAY_REPOSITORY": ""}, "RELAY_REPOSITORY"),
        ({"RELAY_REPOSITORY": "o/n/../x"}, "RELAY_REPOSITORY"),
        ({"RELAY_TOKEN_FILE": "/nowhere/token"}, "RELAY_TOKEN_FILE"),
        ({"RELAY_TOKEN_FILE": ""}, "RELAY_TOKEN_FILE"),
        ({"RELAY_API": "file:///etc/passwd"}, "RELAY_API"),
        ({"RELAY_API": "https://user@host"}, "RELAY_API"),
        ({"RELAY_PORT": "x"}, "RELAY_PORT"),
        ({"RELAY_PORT": "70000"}, "RELAY_PORT"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, str], said: str, token: Path) -> None:
    given = {"RELAY_REPOSITORY": "o/n", "RELAY_TOKEN_FILE": str(token), "RELAY_PORT": "0", **changes}
    with pytest.raises(ValueError, match=f"^{said} "):
        relay.made(given)


def test_it_runs_alone_and_stops_when_told(github: GitHub, token: Path) -> None:
    """With -I nothing beside the standard library can be found, as in a plain image."""
    port = free_port()
    settings = {"RELAY_REPOSITORY": "o/n", "RELAY_TOKEN_FILE": str(token), "RELAY_API": github.url}
    process = _relay(port, settings)
    try:
        _wait(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200)
        assert httpx.post(f"http://127.0.0.1:{port}/", json=_notification(_alert())).status_code == 200
        again = _relay(port, settings)
        _, errors = again.communicate(timeout=30)
        assert again.returncode == 1
        assert errors.startswith("error: cannot listen on")
        assert errors.count("\n") == 1
    finally:
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == ""
    assert [json.loads(line)["message"].split(":")[0] for line in said.splitlines()][1:] == [
        "sent",
        "stopped",
    ]
    assert TOKEN not in said


def _relay(port: int, settings: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", ROOT / "monitoring" / "relay.py"],
        env={"PATH": os.environ["PATH"], "RELAY_HOST": "127.0.0.1", "RELAY_PORT": str(port), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_from_an_alert_to_the_event(github: GitHub, address: str, tmp_path: Path) -> None:
    """Real Prometheus, real Alertmanager with our routes and shorter times, real relay; GitHub fails at first."""
    alertmanager = next(filter(None, map(_found, ("alertmanager", "prometheus-alertmanager"))), None)
    prometheus = require("prometheus")
    alertmanager = alertmanager or require("alertmanager")
    github.answers = [(502, {})]
    at = {name: f"127.0.0.1:{free_port()}" for name in ("alertmanager", "prometheus")}
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(_hurried(address)))
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "now", "rules": _firing()}]}))
    configuration = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [at["alertmanager"]]}]}]},
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    commands = [
        [
            alertmanager,
            f"--config.file={tmp_path}/alertmanager.yml",
            f"--storage.path={tmp_path}/a",
            f"--web.listen-address={at['alertmanager']}",
            "--cluster.listen-address=",
        ],
        [
            prometheus,
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/p",
            f"--web.listen-address={at['prometheus']}",
            # It tells of an alert at once, before it knows whom, and then again after a minute.
            "--rules.alert.resend-delay=1s",
        ],
    ]
    with (tmp_path / "log").open("w") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
        try:
            _wait(lambda: bool(github.received), (tmp_path / "log").read_text)
            # What staging and what others drift in would have come with it.
            _wait(lambda: len(httpx.get(f"http://{at['alertmanager']}/api/v2/alerts").json()) == 4)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=30)
    reason = "Drift in production of iris, version 0123: petal_length, petal_width"
    assert github.received == [{"event_type": "drift", "client_payload": {"model": "iris", "reason": reason}}]
    assert len(github.asked) == 2


def _firing() -> list[dict[str, Any]]:
    """Alerts with the real rules' names and labels.

    They fire after eight seconds: Prometheus looks for Alertmanager every five, and Alertmanager does not wait for more
    alerts of a group when one of them has been firing for long.
    """
    shared = {"severity": "ticket", "team": "espalier", "model": "iris", "model_version": "0123"}
    return [
        {"alert": name, "expr": "vector(1)", "for": "8s", "labels": {**shared, **labels}}
        for name, labels in (
            ("EspalierFeatureDrift", {"environment": "production", "feature": "petal_length"}),
            ("EspalierFeatureDrift", {"environment": "production", "feature": "petal_width"}),
            ("EspalierFeatureDrift", {"environment": "staging", "feature": "sepal_width"}),
            ("EspalierNotReady", {"environment": "production"}),
        )
    ]


def _hurried(address: str) -> dict[str, Any]:
    """Our routes, inhibitions and names of receivers; other times, and only the relay is told."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())
    del found["global"]
    found["receivers"] = [
        {
            "name": each["name"],
            "webhook_configs": [{**hook, "url": address} for hook in each["webhook_configs"]],
        }
        if "webhook_configs" in each
        else {"name": each["name"]}
        for each in found["receivers"]
    ]

    def hurry(route: dict[str, Any]) -> None:
        times = {"group_wait": "3s", "group_interval": "1m", "repeat_interval": "1h"}
        route.update({name: value for name, value in times.items() if name in route})
        for each in route.get("routes", ()):
            hurry(each)

    hurry(found["route"])
    return found


def _found(tool: str) -> str | None:
    import shutil

    return shutil.which(tool)


def _wait(done: Callable[[], bool], log: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if done():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"it never came:\n{log()}")
