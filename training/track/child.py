"""The process that uses a tracker's library, so that it cannot affect its caller.

`python -m training.track.child` reads one JSON message on stdin, records its runs, sends earlier ones and answers with one
JSON line on stdout. `training.track.handover` writes the message and kills this process after a time limit.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from training.track.recorder import reason_of
from training.track.recorders import RECORDERS

GRACE = 10
"""Seconds that the caller has to end this process before it ends itself."""


def main() -> None:
    message = json.load(sys.stdin)
    recorder = RECORDERS[message["tracker"]](**message["recorder"])
    if hasattr(signal, "alarm"):
        # If the caller is killed, this process ends by itself, and the tracker's own service with it.
        signal.alarm(int(recorder.timeout) + GRACE)
    answer: dict[str, Any]
    try:
        recorder.record(message["group"], message["runs"], message["mode"])
        answer = {"unsent": recorder.send(message["earlier"]) if message["earlier"] else {}}
    except Exception as error:  # the caller turns any failure of a tracker into a warning
        answer = {"error": reason_of(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
