"""The interface of a tracker. Its module's caller and the process that records for it both use it, so it imports little."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from common.errors import EspalierError

Mode = Literal["online", "offline", "disabled"]
CONNECT_SECONDS = 5.0
HINT = 300
"""Longest reason of a failure, in characters."""
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


class TrackingError(Exception):
    """Nothing could be tracked; the message gives the reason."""


@dataclass(frozen=True)
class Recorder(ABC):
    """One tracker.

    `record` and `send` run in a process of their own (`training.track.child`), because a tracker's library may raise, print,
    hang or crash. The rest answers the caller and imports no such library.
    """

    name: str
    """The model."""
    project: str
    entity: str | None
    timeout: float
    """In seconds."""
    folder: str
    """Absolute; what is recorded on this machine, with the ledger that says so."""

    @staticmethod
    @abstractmethod
    def default_folder(environment: Mapping[str, str]) -> Path:
        """Where it keeps records on this machine."""

    @abstractmethod
    def mode(self, environment: Mapping[str, str]) -> Mode:
        """Whether it sends runs, records them here or does nothing."""

    @abstractmethod
    def server(self, environment: Mapping[str, str]) -> str:
        """The address of the server."""

    @abstractmethod
    def place(self, environment: Mapping[str, str]) -> str:
        """Where runs are sent: the server and what in it."""

    @abstractmethod
    def has_record(self, id: str) -> bool:
        """Whether a run that was recorded offline is still here."""

    @abstractmethod
    def hint(self) -> str:
        """How to look at offline records, and how to send them."""

    @abstractmethod
    def settings(self, cache: str) -> Mapping[str, str]:
        """Environment variables of the process that records, unless they are set. `cache` is a temporary folder."""

    @abstractmethod
    def record(self, group: str, runs: Sequence[Mapping[str, Any]], mode: Mode) -> None:
        """Record runs, each a `training.track.plan.Run` as a dictionary. A run that is there already is brought up to date."""

    @abstractmethod
    def send(self, ids: Sequence[str]) -> dict[str, str]:
        """Send runs that were recorded offline; return why others could not be sent, by id."""

    def check_reachable(self, environment: Mapping[str, str]) -> None:
        """Raise TrackingError unless the server's address takes connections: a library would try for minutes."""
        address = self.server(environment)
        url = urlsplit(address)
        if url.scheme not in {"http", "https"} or any(environment.get(each) for each in PROXIES):
            return
        try:
            port = url.port or (80 if url.scheme == "http" else 443)
            socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise TrackingError(f"cannot reach {url.netloc or address}: {error}") from None


def reason_of(error: BaseException) -> str:
    """In one line; the class says something only of errors that are not ours."""
    if isinstance(error, TrackingError | EspalierError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:HINT]}"
