"""What each process of the service sets up first: its signals and its log.

It imports nothing heavy, because signals may arrive before the libraries are loaded.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Literal


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and SIGHUP unless it is ignored, as under `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hangup]


def exit_on_signals() -> None:
    """Until the server handles signals, exit with 0 at once.

    SIGUSR1 and SIGUSR2, which make other servers reopen their log files, are ignored: by default they would end the
    process. Without a handler, a container's first process would not even receive SIGTERM.
    """
    for sig in stop_signals():
        # Not `sys.exit`: a library that is being imported could turn the exception into another error.
        signal.signal(sig, lambda *_: os._exit(0))
    for sig in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(sig, signal.SIG_IGN)


class JsonLines(logging.Formatter):
    """One JSON object a line; `extra={"fields": {...}}` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            # The text form repeats the fields in the message; here the first word suffices.
            "message": record.getMessage() if fields is None else record.msg.partition(" ")[0],
            **(fields or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(style: Literal["json", "text"]) -> None:
    """Log to stderr in one style; libraries log only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JsonLines() if style == "json" else text)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("app").setLevel(logging.INFO)
