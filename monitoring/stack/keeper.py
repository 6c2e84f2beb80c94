"""Ends the stack's processes when the stack itself is killed and cannot do it.

It reads from a pipe whose other end only the stack holds: `+PID` when a process has started, `-PID` when it was ended
in good order. However the stack ends, the pipe then closes, and every process that is left gets SIGTERM, with its group.
Linux could do it with PR_SET_PDEATHSIG; this way works on macOS too, and reaches what the processes have started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

SECONDS = 5
"""Then what is left is killed."""


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
