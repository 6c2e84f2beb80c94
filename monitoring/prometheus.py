"""A client of Prometheus' HTTP API: instant and range queries, and the loaded rules."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from common.errors import EspalierError

SECONDS = 30
"""A query that takes longer has failed; Prometheus itself gives up after two minutes."""
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


def seconds(text: str) -> float:
    """The length of a time as Prometheus writes it, such as `1h30m`."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no time")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


class PrometheusError(EspalierError):
    """Prometheus cannot be reached, or refuses a query."""


@dataclass(frozen=True)
class Sample:
    """The value of one series at one time; the label `__name__` has its name if the query keeps it."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """The values of one series over time, as (seconds since 1970, value) in order; empty steps are absent."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Rule:
    """A loaded rule. `error` is the error of its last evaluation, or empty."""

    group: str
    name: str
    kind: str
    expression: str
    error: str


class Prometheus:
    """One server. `token` is sent as a bearer token; over plain HTTP only to this machine.

    Raises:
        PrometheusError: the address is not valid; from every method: the server cannot be reached or refuses.
    """

    def __init__(self, address: str, token: str | None = None, seconds: float = SECONDS) -> None:
        try:
            url = httpx.URL(address.rstrip("/") + "/")
        except httpx.InvalidURL:
            raise PrometheusError(f"{address!r} is no address: give http://HOST:9090") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise PrometheusError(f"{address!r} is no address: give http://HOST:9090")
        self.address = str(url.copy_with(username=None, password=None)).rstrip("/")
        """The address without a password, for messages."""
        here = _is_loopback(url.host)
        if token and url.scheme != "https" and not here:
            raise PrometheusError(f"{self.address} would get the token unencrypted: give its https address")
        self._seconds = seconds
        self._client = httpx.Client(
            base_url=url,
            timeout=seconds,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            # A configured proxy does not reach this machine's loopback.
            trust_env=not here,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The instant vector (or the one scalar) of an expression, at a time in seconds since 1970 or now."""
        parameters = {"query": expression} | ({} if at is None else {"time": repr(at)})
        data = self._ask("api/v1/query", parameters)
        try:
            if data["resultType"] == "scalar":
                return [Sample({}, float(data["result"][1]))]
            # A native histogram has no single value; no rule records one.
            return [
                Sample(each["metric"], float(each["value"][1])) for each in data["result"] if "value" in each
            ]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._not_understood(error) from None

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """The values of an expression at start, start + step, … up to end; times and step in seconds."""
        parameters = {"query": expression, "start": repr(start), "end": repr(end), "step": repr(step)}
        data = self._ask("api/v1/query_range", parameters)
        try:
            return [
                Series(
                    each["metric"], tuple((float(at), float(value)) for at, value in each.get("values", []))
                )
                for each in data["result"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_understood(error) from None

    def rules(self) -> list[Rule]:
        """Every loaded recording and alerting rule."""
        data = self._ask("api/v1/rules")
        try:
            return [
                Rule(
                    group["name"], rule["name"], rule["type"], rule["query"], rule.get("lastError", "") or ""
                )
                for group in data["groups"]
                for rule in group["rules"]
            ]
        except (KeyError, TypeError) as error:
            raise self._not_understood(error) from None

    def get(self, path: str) -> Any:
        """The `data` at a path of the API: `targets`, `alertmanagers`, `alerts`, `status/buildinfo`."""
        return self._ask(f"api/v1/{path}")

    def wait(self, seconds: float = 60) -> None:
        """Wait until it answers queries.

        Raises:
            PrometheusError: it does not within `seconds`; the last error.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.query("1")
            except PrometheusError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _ask(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        try:
            # POST, because a query may be longer than an address may be.
            if parameters is None:
                answer = self._client.get(path)
            else:
                answer = self._client.post(path, data=dict(parameters))
        except httpx.TimeoutException:
            raise PrometheusError(
                f"Prometheus at {self.address} does not answer within {self._seconds:g} s"
            ) from None
        except httpx.HTTPError as error:
            raise PrometheusError(
                f"Prometheus at {self.address} cannot be reached: {str(error) or type(error).__name__}"
            ) from None
        try:
            document = answer.json()
            if document["status"] == "success":
                return document["data"]
            said = str(document["error"])
        except (ValueError, KeyError, TypeError):
            remedy = {401: "; give --token-file", 403: "; may this token read?"}.get(
                answer.status_code, ": is this Prometheus?"
            )
            raise PrometheusError(f"{self.address} answers with {answer.status_code}{remedy}") from None
        raise PrometheusError(f"Prometheus at {self.address} refuses: {' '.join(said.split())}")

    def _not_understood(self, error: Exception) -> PrometheusError:
        return PrometheusError(f"the answer of {self.address} is not Prometheus': {error!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
