"""Finds a free port for a server that is about to start."""

from __future__ import annotations

import itertools
import os
import socket

_PORTS = range(20_000, 30_000)
"""Below the ports that systems choose for connections, so no other process takes one before the server binds it."""
_places = itertools.count(os.getpid() * 97)
"""Processes that start together have neighbouring numbers, and so ports of their own."""


def free_port() -> int:
    """A port of loopback that is free now, and that this process has not given before.

    Raises:
        RuntimeError: all are taken.
    """
    for place in itertools.islice(_places, len(_PORTS)):
        port = _PORTS[place % len(_PORTS)]
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise RuntimeError(f"no port of {_PORTS} is free")
