"""Where each run is recorded, so that none is recorded twice."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import files
from training.sections.track import TrackSettings
from training.track.plan import Run

log = logging.getLogger(__name__)

SERVER = "https://api.wandb.ai"
OFFLINE = "offline"


class TrackingError(Exception):
    """Nothing could be tracked; the message gives the reason."""


@dataclass
class Ledger:
    """Where each run is recorded: `wandb/tracked.json`.

    It belongs to the machine and not to the repository, because clones send runs independently.
    """

    folder: Path
    lock: int
    """A descriptor that every process that writes into the folder keeps open."""
    server: str
    """Where runs are sent: address, entity and project."""
    places: dict[str, dict[str, str]]
    """By place (a server or `OFFLINE`) and run id, the group: an unchanged run moves to the group of the next
    comparison."""

    @classmethod
    def read(cls, folder: Path, lock: int, settings: TrackSettings) -> Ledger:
        parts = [os.environ.get("WANDB_BASE_URL") or SERVER, settings.entity, settings.project]
        try:
            read = json.loads((folder / "tracked.json").read_bytes())
            places = {place: {id: str(group) for id, group in runs.items()} for place, runs in read.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            # Then everything is recorded again, under the same ids.
            places = {}
        return cls(folder, lock, "/".join(each.strip("/") for each in parts if each), places)

    def is_sent(self, group: str, id: str) -> bool:
        return self.places.get(self.server, {}).get(id) == group

    def is_recorded(self, group: str, id: str) -> bool:
        """Whether it was sent, or completely recorded offline in a record that still exists."""
        offline = self.places.get(OFFLINE, {}).get(id) == group
        return self.is_sent(group, id) or (offline and any(self.folder.glob(f"offline-run-*-{id}")))

    def unsent(self, current: Collection[str]) -> list[str]:
        """The offline records of earlier comparisons. Other projects may use the same folder."""
        earlier = self.places.get(OFFLINE, {}).keys() - set(current)
        return [str(path) for id in sorted(earlier) for path in self.folder.glob(f"offline-run-*-{id}")]

    def add(self, place: str, group: str, runs: Iterable[Run]) -> None:
        """Record that a place has these runs.

        Raises:
            TrackingError: it cannot be written.
        """
        self.places.setdefault(place, {}).update({each.id: group for each in runs})
        try:
            files.write_json(self.folder / "tracked.json", self.places)
        except OSError as error:
            raise TrackingError(f"cannot write {self.folder / 'tracked.json'}: {error.strerror}") from None


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Lock a folder: two processes would record the same runs and overwrite each other's ledger.

    Yields:
        The lock's descriptor. A child that inherits it keeps the lock even if this process is killed.

    Raises:
        TrackingError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "tracked.lock").open("ab")
    except OSError as error:
        raise TrackingError(f"cannot write to {folder}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that tracks into %s", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()
