"""Which signals stop the service. Imports nothing heavy, because signals may come before the libraries are loaded."""

from __future__ import annotations

import os
import signal


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and SIGHUP unless it is ignored, as behind `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hangup]


def exit_on_signals() -> None:
    """Until there is something to drain, end with 0 at once.

    SIGUSR1 and SIGUSR2, which other servers take as "open the log files again", are ignored: without a handler
    they would end the process. A container's first process would not even receive SIGTERM without one.
    """
    for sig in stop_signals():
        # Not `sys.exit`: a library that is being loaded would turn the exception into a failure of its own.
        signal.signal(sig, lambda *_: os._exit(0))
    for sig in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(sig, signal.SIG_IGN)
