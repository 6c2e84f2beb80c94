"""Lets a child process record runs, which may raise, print, hang or crash without affecting this one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from training.sections.track import TrackSettings
from training.track.ledger import SERVER, Ledger, TrackingError
from training.track.plan import Plan

CONNECT_SECONDS = 5.0


def hand_over(
    plan: Plan,
    settings: TrackSettings,
    mode: Literal["online", "offline"],
    ledger: Ledger,
    earlier: Sequence[str] = (),
) -> dict[str, Any]:
    """Let a child process record the plan's runs and send earlier offline records.

    wandb may raise, print, hang or crash without affecting this process.

    Returns:
        The child's answer: `unsent` says why earlier records could not be sent.

    Raises:
        TrackingError: it failed or took longer than `track.timeout_seconds`.
    """
    message = {
        "mode": mode,
        "project": settings.project,
        "entity": settings.entity,
        "root": str(ledger.folder.parent),
        "earlier": list(earlier),
        "timeout": settings.timeout_seconds,
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
            [sys.executable, "-m", "training.track.recorder"],
            stdin=asked,
            stdout=answered,
            stderr=said,
            env=_environment(cache),
            start_new_session=True,
            pass_fds=[ledger.lock],
        )
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            code = child.wait(timeout=settings.timeout_seconds)
        except subprocess.TimeoutExpired:
            limit = f"{settings.timeout_seconds:g} s (track.timeout_seconds)"
            raise TrackingError(f"no answer after {limit}") from None
        finally:
            _end(child)
            signal.signal(signal.SIGTERM, before)
        answered.seek(0)
        said.seek(0)
        return _answer(answered.read(), said.read(), code)


def check_reachable(environment: Mapping[str, str]) -> None:
    """Raise TrackingError unless the server's address takes connections: wandb itself would retry for minutes."""
    url = urlsplit(environment.get("WANDB_BASE_URL") or SERVER)
    if any(environment.get(each) for each in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        return
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise TrackingError(f"cannot reach {url.netloc or 'WANDB_BASE_URL'}: {error}") from None


def _stop(number: int, _: object) -> None:
    """Leave through `finally`, so that the child does not outlive this process."""
    sys.exit(128 + number)


def _answer(answered: bytes, said: bytes, code: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = dict(json.loads(answered.decode(errors="replace").splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise TrackingError(f"the tracker ended with code {code}: {last[0][:300]}") from None
    if "error" in answer:
        raise TrackingError(answer["error"])
    return answer


def _environment(cache: str) -> dict[str, str]:
    environment = dict(os.environ)
    # Otherwise uploaded artifacts accumulate in the home folder.
    environment.setdefault("WANDB_CACHE_DIR", cache)
    environment.setdefault("WANDB_ERROR_REPORTING", "false")
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
