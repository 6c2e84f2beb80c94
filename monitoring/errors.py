"""The errors of monitoring that a person can do something about: shown as one line, ending with a status that says so.

Parts of `monitoring` run where nothing else of the project is, so it has a family of its own.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable


class MonitoringError(Exception):
    """The message names the thing at fault and the remedy."""


class PrometheusError(MonitoringError):
    """Prometheus cannot be asked, or does not understand the question."""


class StackError(MonitoringError):
    """The local stack does not start, or a part of it ended."""


def run(main: Callable[[], None], status: int = 1) -> None:
    """Run a command and end the process: `status` with one line on stderr for an error a person can act on.

    Anything else is a bug and shows its traceback, with the same status: 1 may be an answer of the command's.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # As files are read, whatever the locale is.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            main()
        finally:
            # Also what `--help` has printed before it exits.
            sys.stdout.flush()
    except MonitoringError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does; what is left must not be written at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        traceback.print_exc()
        sys.exit(status)
