"""The users of the load test, for locust: `python -m tests.load.run` or `locust -f tests/load/locustfile.py`.

The first user reads `/model` of the host, and all users take what they send from that, so any deployment of
any bundle can be loaded without a local file. Every answer is checked, not only counted: a prediction must be
one, and a bad request must get its refusal.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random, expovariate
from time import perf_counter
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from locust import FastHttpUser, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import STATE_INIT, WorkerRunner
from locust.stats import StatsEntry

from app.contract import Manifest
from tests.load import exporter
from tests.load.traffic import CARD, Request, Traffic

TIMEOUT_SECONDS = 10.0
LONGEST_GAP = 5.0
"""In average gaps."""


class Caller(FastHttpUser):
    """Sends mostly single rows, at a rate that does not depend on how fast the answers come."""

    connection_timeout = TIMEOUT_SECONDS
    network_timeout = TIMEOUT_SECONDS
    # Certificates are checked as any client would; SSL_CERT_FILE adds an authority.
    insecure = False

    traffic: Traffic | None = None
    """Shared by the users of a process: one read of the card, or the start would colour the figures."""
    _learning = BoundedSemaphore()

    _due = 0.0

    def wait_time(self) -> float:
        """Gaps as between independent people's requests, `rate` a second on average.

        Locust's own constant throughput counts from the moment users were made, and users are made together:
        they would all send at once, again and again, and each would wait for all others.
        """
        rate = self.environment.parsed_options.rate
        now = perf_counter()
        # The time that the last answer took is part of the gap; a slow service is not caught up with.
        self._due = max(now, self._due + min(expovariate(rate), LONGEST_GAP / rate))
        return self._due - now

    def on_start(self) -> None:
        """Learn the schema, however long it takes the host to answer."""
        with self._learning:
            while Caller.traffic is None:
                Caller.traffic = self._learn()
                gevent.sleep(0 if Caller.traffic else 1)
        self._due = perf_counter()
        gevent.sleep(self.wait_time())

    @task(60)
    def one_row(self) -> None:
        self._send(Traffic.instance)

    @task(15)
    def instances(self) -> None:
        self._send(Traffic.instances)

    @task(5)
    def columns(self) -> None:
        self._send(Traffic.columns)

    @task(10)
    def tensors(self) -> None:
        self._send(Traffic.tensors)

    @tag("bad")
    @task(10)
    def bad(self) -> None:
        self._send(Traffic.bad)

    def _learn(self) -> Traffic | None:
        with self.client.get(CARD, catch_response=True) as response:
            if response.status_code != 200:
                return None
            try:
                return Traffic(Manifest.model_validate_json(response.content or b""), Random())
            except ValueError:
                response.failure("not the card of a bundle of this release")
                return None

    def _send(self, make: Callable[[Traffic], Request]) -> None:
        traffic = Caller.traffic
        if traffic is None:
            return
        request = make(traffic)
        headers = {"Content-Type": request.content_type}
        with self.client.post(
            request.path, data=request.body, headers=headers, name=request.name, catch_response=True
        ) as response:
            if response.status_code == 0:
                return  # No answer: locust counts the connection's error as the failure.
            fault = traffic.fault(request, response.status_code, response.content or b"")
            if fault is None:
                response.success()
            else:
                response.failure(fault)


def _forget(**_: Any) -> None:
    """A test that starts in the same process, from locust's page, may find another model."""
    Caller.traffic = None


def _add_options(parser: LocustArgumentParser) -> None:
    """Options that a master hands on to its workers."""
    parser.add_argument(
        "--rate", type=float, default=5.0, help="requests a second that each user sends on average"
    )
    parser.add_argument(
        "--summary", default="", help="file for the figures, written every second and at the end"
    )
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="port of the figures for Prometheus; 0 for none"
    )
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address to serve them on")


def _write_summaries(environment: Environment, **_: Any) -> None:
    path = getattr(environment.parsed_options, "summary", "")
    if not path or isinstance(environment.runner, WorkerRunner):
        return
    target = Path(path)

    def write(**_: Any) -> None:
        temporary = target.with_name(target.name + ".tmp")
        temporary.write_text(json.dumps(_summary(environment)), encoding="utf-8")
        temporary.replace(target)

    def every_second() -> None:
        while True:
            write()
            gevent.sleep(1)

    gevent.spawn(every_second)
    hooks: Any = environment.events
    hooks.quit.add_listener(write)


def _serve_metrics(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    port = getattr(options, "metrics_port", 0)
    if not port or isinstance(environment.runner, WorkerRunner):
        return
    try:
        exporter.serve(environment, options.metrics_host, port)
    except OSError as error:
        sys.exit(f"locust: error: no metrics on port {port}: {error.strerror or error}")


def _stop_on_interrupt(environment: Environment, **_: Any) -> None:
    """End a headless test on SIGINT as its time limit does.

    The usual KeyboardInterrupt appears in whichever greenlet is running, and the one that writes Locust's CSV
    swallows it; besides, the report would be written before the workers' last figures are in.
    """
    runner, options = environment.runner, environment.parsed_options
    if runner is None or isinstance(runner, WorkerRunner) or not (options and options.headless):
        return

    def stop() -> None:
        waiting = runner.state == STATE_INIT
        runner.quit()
        if waiting:
            sys.exit(1)  # A master without its workers has nothing to write.

    gevent.signal_handler(signal.SIGINT, stop)


def _summary(environment: Environment) -> dict[str, Any]:
    """What `tests.load.run` judges and prints."""
    stats, runner = environment.stats, environment.runner
    return {
        "users": runner.user_count if runner else 0,
        "total": _figures(stats.total),
        "requests": [_figures(stats.entries[key]) for key in sorted(stats.entries)],
        "failures": [
            {"name": each.name, "error": each.parse_error(each.error), "count": each.occurrences}
            for each in stats.errors.values()
        ],
        "exceptions": [
            {"error": each["msg"], "count": each["count"]}
            for each in (runner.exceptions.values() if runner else ())
        ],
    }


def _figures(entry: StatsEntry) -> dict[str, Any]:
    p50, p95, p99 = (float(entry.get_response_time_percentile(share) or 0) for share in (0.5, 0.95, 0.99))
    return {
        "name": entry.name,
        "count": entry.num_requests,
        "failed": entry.num_failures,
        "per_second": entry.total_rps,
        "p50": p50,
        "p95": p95,
        "p99": p99,
    }


_hooks: Any = events  # Their methods carry no types.
_hooks.init_command_line_parser.add_listener(_add_options)
_hooks.init.add_listener(_write_summaries)
_hooks.init.add_listener(_serve_metrics)
_hooks.init.add_listener(_stop_on_interrupt)
_hooks.test_start.add_listener(_forget)
