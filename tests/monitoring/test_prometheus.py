from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from monitoring.prometheus import Prometheus, PrometheusError, Rule, Sample
from tests.deploy.prometheus import NOW, serving

RULES = """\
groups:
  - name: made-up
    rules:
      - record: made:up
        expr: vector(1)
      - alert: MadeUp
        expr: made:up > 2
"""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    labels = (("feature", 'a "quoted" wörd'),)
    made_up = {
        ("psi", labels): [(NOW - 120, 0.1), (NOW - 60, 0.2), (NOW, 0.3)],
        ("odd", ()): [(NOW, math.nan)],
    }
    with serving(made_up, folder, [rules]) as server, Prometheus(server.address) as opened:
        yield opened


def test_an_instant_vector(prometheus: Prometheus) -> None:
    labels = {"__name__": "psi", "feature": 'a "quoted" wörd'}
    assert prometheus.query("psi", NOW) == [Sample(labels, 0.3)]
    assert prometheus.query("psi", NOW - 60) == [Sample(labels, 0.2)]
    assert prometheus.query("psi{feature='b'}", NOW) == []
    assert math.isnan(prometheus.query("odd", NOW)[0].value)


def test_a_scalar(prometheus: Prometheus) -> None:
    assert prometheus.query("6 * 7") == [Sample({}, 42.0)]


def test_a_range(prometheus: Prometheus) -> None:
    (series,) = prometheus.query_range("psi", NOW - 180, NOW, 60)
    assert series.labels["feature"] == 'a "quoted" wörd'
    assert series.samples == ((NOW - 120.0, 0.1), (NOW - 60.0, 0.2), (float(NOW), 0.3))
    assert prometheus.query_range("absent", NOW - 180, NOW, 60) == []


def test_a_query_longer_than_an_address_may_be(prometheus: Prometheus) -> None:
    assert prometheus.query(" + ".join(["1"] * 3_000))[0].value == 3_000


def test_what_is_loaded(prometheus: Prometheus) -> None:
    assert prometheus.rules() == [
        Rule("made-up", "made:up", "recording", "vector(1)", ""),
        Rule("made-up", "MadeUp", "alerting", "made:up > 2", ""),
    ]
    assert prometheus.get("status/buildinfo")["version"]


def test_a_query_that_is_none_is_refused_in_prometheus_words(prometheus: Prometheus) -> None:
    with pytest.raises(PrometheusError, match=r"^Prometheus at http://127.* refuses: .*parse error"):
        prometheus.query("rate(")


@pytest.mark.parametrize(
    "address", ["", "prometheus:9090", "ftp://there", "http://", "http://h:port", "nonsense"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(PrometheusError, match="is no address: give http://HOST:9090"):
        Prometheus(address)


def test_nobody_answers() -> None:
    with pytest.raises(PrometheusError, match=r"^Prometheus at http://127\.0\.0\.1:1 cannot be reached: "):
        Prometheus("http://127.0.0.1:1/").query("1")
    with pytest.raises(PrometheusError, match="cannot be reached"):
        Prometheus("http://127.0.0.1:1/").wait(seconds=0.2)


def test_a_password_in_the_address_is_not_shown() -> None:
    opened = Prometheus("http://me:hidden@127.0.0.1:1/under")
    assert opened.address == "http://127.0.0.1:1/under"
    with pytest.raises(PrometheusError) as caught:
        opened.query("1")
    assert "hidden" not in str(caught.value)


def test_a_token_goes_over_https_or_to_this_machine() -> None:
    with pytest.raises(PrometheusError, match="unencrypted: give its https address"):
        Prometheus("http://prometheus.example", token="t")
    Prometheus("https://prometheus.example", token="t")
    Prometheus("http://localhost:9090", token="t")
    Prometheus("http://[::1]:9090", token="t")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>Sign in</html>", "answers with 200: is this Prometheus?"),
        (302, b"", "answers with 302: is this Prometheus?"),
        (401, b"no", "answers with 401; give --token-file"),
        (403, b"no", "answers with 403; may this token read?"),
        (200, b'{"status": "success", "data": {"resultType": "vector", "result": [{}, 1]}}', "is not Prometheus'"),
        (200, b'{"status": "success", "data": 7}', "is not Prometheus'"),
        (200, b"[]", "is this Prometheus?"),
        (422, b'{"status": "error", "error": "two\\nlines"}', "refuses: two lines"),
    ],
)  # fmt: skip
def test_somebody_else_answers(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as (address, _), pytest.raises(PrometheusError) as caught:
        Prometheus(address).query("1")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_token_is_sent_and_the_path_of_the_address_kept() -> None:
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode()
    with answering(200, body) as (address, asked):
        assert Prometheus(address + "/prometheus/", token="secret").query("1") == []
    assert asked == [("/prometheus/api/v1/query", "Bearer secret")]


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server with one answer to everything; what it was asked."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
