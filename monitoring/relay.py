"""Starts retraining when Alertmanager reports drift: receives its webhook, sends GitHub's `repository_dispatch`.

It uses only the standard library, because it runs from a ConfigMap in a plain Python image. It keeps no state:
Alertmanager's `repeat_interval` limits how often a group of alerts is sent, and the workflow's concurrency group turns two
dispatches of a model at once into one run.

    RELAY_REPOSITORY=OWNER/NAME RELAY_TOKEN_FILE=FILE python relay.py

Its status decides what Alertmanager does next:

    200  sent, or nothing to send: no repetition before repeat_interval
    503  GitHub is down, slow or asks to wait: Alertmanager retries soon
    424  GitHub refuses (token, repository, workflow): a retry only at the group's next change or interval, because the
         same request would fail again; logged and counted
    400, 411, 413, 404, 405  the request is not Alertmanager's
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DRIFT = {"EspalierFeatureDrift": "feature", "EspalierClassDrift": "class"}
"""The alerts that start retraining; all others are ignored, whatever the routes send."""
EVENT = "drift"
MOST_BYTES = 512 * 1024
"""Limit of a request's body. Fifty alerts, the receiver's maximum, are about 60 kB."""
LONGEST_REASON = 250
MOST_NAMES = 8
SECONDS = 15
"""Time limit of GitHub's answer, and of a client's request."""
OUTCOMES = ("sent", "retry", "refused")
MODEL = re.compile(r"[a-z](-?[a-z0-9]){0,30}")
"""The names of models, as `common.models` has them."""


class Retry(Exception):  # noqa: N818 - it is an answer
    """GitHub may accept it later."""


class Refused(Exception):  # noqa: N818 - it is an answer
    """GitHub refuses it until somebody changes something."""


class NotAlertmanager(ValueError):  # noqa: N818 - it is an answer
    """The request's body is not a notification of Alertmanager."""


class Dispatcher:
    """Sends the event to one repository."""

    def __init__(self, api: str, repository: str, token_file: Path) -> None:
        self._url = f"{api.rstrip('/')}/repos/{repository}/dispatches"
        self._token_file = token_file
        # A redirect would carry the token to another host, and turn the POST into a GET.
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, model: str, reason: str) -> None:
        """Send the event that retrains a model.

        Raises:
            Retry: no answer, 5xx, 429, or a rate limit.
            Refused: any other answer, or the token cannot be read.
        """
        try:
            # Read each time, because the file changes when the token is renewed.
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise Refused(f"the token cannot be read: {type(error).__name__}") from None
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Refused("the token's file holds no token")
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked when the program starts
            self._url,
            data=json.dumps(
                {"event_type": EVENT, "client_payload": {"model": model, "reason": reason}}
            ).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "User-Agent": "espalier-relay",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=SECONDS):
                return
        except urllib.error.HTTPError as error:
            with error:
                limited = (
                    error.headers.get("Retry-After") or error.headers.get("X-RateLimit-Remaining") == "0"
                )
            said = f"GitHub answers {error.code}"
            if error.code >= 500 or error.code == 429 or (error.code == 403 and limited):
                raise Retry(said) from None
            raise Refused(said) from None
        except (OSError, http.client.HTTPException) as error:
            # Only the error's type: its message may quote headers.
            raise Retry(f"GitHub cannot be reached: {type(error).__name__}") from None


def reasons_of(notification: object) -> dict[str, str]:
    """Why to retrain, in one short line of harmless characters, by model; nothing if no drift alert in it fires.

    Alertmanager sends the alerts of one model at a time. An alert without a model's name is ignored, because it does not say
    what to retrain.

    Raises:
        NotAlertmanager: the notification has no list of alerts with labels.
    """
    alerts = notification.get("alerts") if isinstance(notification, dict) else None
    if not isinstance(alerts, list):
        raise NotAlertmanager("no list of alerts")
    firing: dict[str, list[dict[str, Any]]] = {}
    for each in alerts:
        if not isinstance(each, dict) or not isinstance(each.get("labels"), dict):
            raise NotAlertmanager("an alert without labels")
        labels = each["labels"]
        if labels.get("alertname") not in DRIFT or each.get("status") != "firing":
            continue
        if MODEL.fullmatch(model := str(labels.get("model", ""))):
            firing.setdefault(model, []).append(labels)
        else:
            log("a drift alert without a model's name")
    return {model: _reason(model, found) for model, found in firing.items()}


def _reason(model: str, alerts: list[dict[str, Any]]) -> str:
    """Of the labels of a model's alerts."""

    def named(label: str, otherwise: str) -> str:
        return ", ".join(dict.fromkeys(_harmless(each.get(label, otherwise)) for each in alerts))

    features = [
        _harmless(each.get("feature", "a feature"))
        if DRIFT[each["alertname"]] == "feature"
        else "the mix of predictions"
        for each in alerts
    ]
    shown = list(dict.fromkeys(features))
    more = f" and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
    place, version = named("environment", "an unnamed environment"), named("model_version", "unknown")
    text = f"Drift in {place} of {model}, version {version}: {', '.join(shown[:MOST_NAMES])}{more}"
    return text[:LONGEST_REASON]


def _harmless(name: object) -> str:
    return " ".join(re.sub(r"[^A-Za-z0-9_ .()%+-]", " ", str(name)[:60]).split()) or "unnamed"


class Relay(ThreadingHTTPServer):
    """Answers Alertmanager, and counts the outcomes."""

    # The process ends after the requests in progress.
    daemon_threads = False

    def __init__(self, address: tuple[str, int], dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def count(self, name: str) -> None:
        with self._lock:
            self._counted[name] += 1

    def metrics(self) -> str:
        """The body of `/metrics`."""
        with self._lock:
            counted = dict(self._counted)
        lines = [
            "# HELP relay_dispatches_total Drift reports, by what became of them.",
            "# TYPE relay_dispatches_total counter",
            *(f'relay_dispatches_total{{outcome="{each}"}} {counted.get(each, 0)}' for each in OUTCOMES),
            "# HELP relay_notifications_total Notifications of Alertmanager, whether or not they told of drift.",
            "# TYPE relay_notifications_total counter",
            f"relay_notifications_total {counted.get('notification', 0)}",
        ]
        return "\n".join(lines) + "\n"


class _Handler(BaseHTTPRequestHandler):
    server: Relay
    timeout = SECONDS

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, "ok\n")
        elif self.path == "/metrics":
            self._answer(200, self.server.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer(405 if self.path == "/" else 404, "GET /health, GET /metrics or POST /\n")

    def do_POST(self) -> None:
        if self.path != "/":
            self._answer(404, "POST /\n")
            return
        length = self.headers.get("Content-Length", "")
        # ASCII digits only: int(), isdigit() and \d accept others.
        if not re.fullmatch(r"[0-9]{1,9}", length):
            self._answer(411, "a Content-Length is needed\n")
        elif int(length) > MOST_BYTES:
            self._answer(413, f"at most {MOST_BYTES} bytes\n")
        else:
            self._answer(*self._relay(self.rfile.read(int(length))))

    def _relay(self, body: bytes) -> tuple[int, str]:
        try:
            reasons = reasons_of(json.loads(body))
        except (NotAlertmanager, ValueError, RecursionError) as error:
            log(f"not understood: {error if isinstance(error, NotAlertmanager) else 'not JSON'}")
            return 400, "not a notification of Alertmanager\n"
        self.server.count("notification")
        for model, reason in reasons.items():
            try:
                self.server.dispatcher.send(model, reason)
            except Retry as error:
                self.server.count("retry")
                log(f"not sent, to be tried again: {error}: {reason}")
                return 503, "GitHub cannot take it now\n"
            except Refused as error:
                self.server.count("refused")
                log(f"refused: {error}: {reason}")
                return 424, "GitHub refuses it: see the log\n"
            self.server.count("sent")
            log(f"sent: {reason}")
        return 200, "sent\n" if reasons else "nothing that asks for retraining\n"

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        # One request a connection: the rest of an unread body must not be read as the next request.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Probes and scrapes are not logged."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        """Follow no redirect; the answer counts as it is."""


def log(message: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"time": now, "message": message}), flush=True)


def made(environment: Mapping[str, str]) -> Relay:
    """The relay that the environment describes, listening.

    Raises:
        ValueError: a variable is missing or invalid, or the address is taken; the message says which and why.
    """
    repository = environment.get("RELAY_REPOSITORY", "")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise ValueError(f"RELAY_REPOSITORY is {repository!r}: say OWNER/NAME")
    token_file = Path(environment.get("RELAY_TOKEN_FILE") or "/nowhere")
    if not token_file.is_file():
        raise ValueError(
            f"RELAY_TOKEN_FILE is {str(token_file)!r}, which is no file: mount the token's Secret there"
        )
    api = environment.get("RELAY_API") or "https://api.github.com"
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", api):
        raise ValueError(f"RELAY_API is {api!r}: say https://HOST")
    port = environment.get("RELAY_PORT") or "9099"
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"RELAY_PORT is {port!r}: say a number up to 65535")
    # A pod has a network of its own; elsewhere set RELAY_HOST=127.0.0.1.
    host = environment.get("RELAY_HOST") or "0.0.0.0"  # noqa: S104
    try:
        return Relay((host, int(port)), Dispatcher(api, repository, token_file))
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def main() -> None:
    try:
        relay = made(os.environ)
    except ValueError as error:
        sys.exit(f"error: {error}")
    # shutdown() waits for the loop of this thread, so it needs another one.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: threading.Thread(target=relay.shutdown).start())
    log(f"listening on {relay.server_address[0]!s}:{relay.server_address[1]}")
    relay.serve_forever(poll_interval=0.1)
    relay.server_close()
    log("stopped")


if __name__ == "__main__":
    main()
