"""Ends the processes of a benchmark that was killed; needs only Python.

Reads lines such as `+123` and `-123` from stdin, for process groups that began and ended. When stdin ends, the
benchmark is gone, however it went, and the groups that are left are killed.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
