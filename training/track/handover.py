"""Lets a child process record runs, which may raise, print, hang or crash without affecting this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.track.plan import Plan
from training.track.recorder import HINT, Mode, Recorder, TrackingError
from training.track.recorders import RECORDERS


def hand_over(
    plan: Plan, recorder: Recorder, mode: Mode, lock: int, earlier: Sequence[str] = ()
) -> dict[str, str]:
    """Let a child process record the plan's runs and send earlier offline records.

    The tracker's library may raise, print, hang or crash without affecting this process.

    Args:
        plan: the runs.
        recorder: where to.
        mode: online or offline.
        lock: a descriptor that the child keeps open, so that the folder stays locked while it runs.
        earlier: ids of runs that were recorded offline.

    Returns:
        Why earlier records could not be sent, by id.

    Raises:
        TrackingError: it failed or took longer than `track.timeout_seconds`.
    """
    (tracker,) = (name for name, kind in RECORDERS.items() if isinstance(recorder, kind))
    message = {
        "tracker": tracker,
        "recorder": asdict(recorder),
        "mode": mode,
        "earlier": list(earlier),
        **asdict(plan),
    }
    with (
        tempfile.TemporaryDirectory() as cache,
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as answered,
        tempfile.TemporaryFile() as said,
    ):
        asked.write(json.dumps(message).encode())
        asked.seek(0)
        # Files instead of pipes: a surviving grandchild would keep a pipe open and block the reader.
        child = subprocess.Popen(
            [sys.executable, "-m", "training.track.child"],
            stdin=asked,
            stdout=answered,
            stderr=said,
            env=_environment(recorder, cache),
            start_new_session=True,
            pass_fds=[lock],
        )
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            code = child.wait(timeout=recorder.timeout)
        except subprocess.TimeoutExpired:
            limit = f"{recorder.timeout:g} s (track.timeout_seconds)"
            raise TrackingError(f"no answer after {limit}") from None
        finally:
            _end(child)
            signal.signal(signal.SIGTERM, before)
        answered.seek(0)
        said.seek(0)
        return _answer(answered.read(), said.read(), code)


def _stop(number: int, _: object) -> None:
    """Leave through `finally`, so that the child does not outlive this process."""
    sys.exit(128 + number)


def _answer(answered: bytes, said: bytes, code: int) -> dict[str, str]:
    try:
        answer: dict[str, Any] = dict(json.loads(answered.decode(errors="replace").splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise TrackingError(f"the tracker ended with code {code}: {last[0][:HINT]}") from None
    if "error" in answer:
        raise TrackingError(answer["error"])
    return dict(answer["unsent"])


def _environment(recorder: Recorder, cache: str) -> dict[str, str]:
    environment = {**recorder.settings(cache), **os.environ}
    # The child must import this package from any working directory.
    top = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [top, environment.get("PYTHONPATH")]))
    return environment


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its descendants; wandb's service leaves the process group, so killing that is not enough."""
    if child.poll() is not None:
        return
    import psutil

    with suppress(psutil.Error):
        left = psutil.Process(child.pid).children(recursive=True)
        for each in left:
            with suppress(psutil.Error):
                each.kill()
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()
