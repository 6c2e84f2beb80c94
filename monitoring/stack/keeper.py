"""Ends the stack's processes when the stack is killed and cannot do it itself.

It reads from a pipe whose other end only the stack holds: `+PID` when a process has started, `-PID` when the stack has
ended it. However the stack ends, the pipe closes, and every remaining process group gets SIGTERM. Linux could do this
with PR_SET_PDEATHSIG; the pipe also works on macOS, and reaches the children of the processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

SECONDS = 5
"""Processes that take longer to end are killed."""


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for how in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, how)
        deadline = time.monotonic() + SECONDS
        while groups and time.monotonic() < deadline:
            groups = {group for group in groups if _lives(group)}
            time.sleep(0.05)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
