"""Where each run is recorded, so that none is recorded twice."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import files
from training.track.plan import Plan
from training.track.recorder import Recorder, TrackingError

log = logging.getLogger(__name__)

OFFLINE = "offline"


@dataclass
class Ledger:
    """Where each run of a tracker is recorded: `tracked.json` in the tracker's folder.

    It belongs to the machine and not to the repository, because clones send runs independently.
    """

    recorder: Recorder
    lock: int
    """A descriptor that every process that writes into the folder keeps open."""
    places: dict[str, dict[str, str]]
    """By place (a server or `OFFLINE`) and run id, the group: an unchanged run moves to the group of the next
    comparison."""

    @classmethod
    def read(cls, recorder: Recorder, lock: int) -> Ledger:
        try:
            read = json.loads((Path(recorder.folder) / "tracked.json").read_bytes())
            places = {place: {id: str(group) for id, group in runs.items()} for place, runs in read.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            # Then everything is recorded again, under the same ids.
            places = {}
        return cls(recorder, lock, places)

    def has(self, place: str, plan: Plan, id: str) -> bool:
        group = self.places.get(place, {}).get(id)
        return group == plan.group or (group is not None and not plan.latest)

    def unsent(self, place: str, current: Collection[str]) -> dict[str, str]:
        """The offline records of earlier comparisons that a place lacks: by id, the group."""
        recorded = self.places.get(OFFLINE, {})
        earlier = recorded.keys() - set(current) - self.places.get(place, {}).keys()
        return {id: recorded[id] for id in sorted(earlier) if self.recorder.has_record(id)}

    def add(self, place: str, runs: Mapping[str, str]) -> None:
        """Record that a place has these runs, given as the group by id.

        Raises:
            TrackingError: it cannot be written.
        """
        self.places.setdefault(place, {}).update(runs)
        file = Path(self.recorder.folder) / "tracked.json"
        try:
            files.write_json(file, self.places)
        except OSError as error:
            raise TrackingError(f"cannot write {file}: {error.strerror}") from None


@contextmanager
def locked(path: str) -> Iterator[int]:
    """Lock a folder: two processes would record the same runs and overwrite each other's ledger.

    Yields:
        The lock's descriptor. A child that inherits it keeps the lock even if this process is killed.

    Raises:
        TrackingError: it cannot be written to.
    """
    folder = Path(path)
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
