"""One of several workers: `python -m app.worker LISTENER SUPERVISOR SLOT`, started by `app.supervisor`.

It inherits the first two as descriptors: the listening socket, and a connection to the supervisor.
"""

from __future__ import annotations

import socket
import sys

from app.contract import BundleError, read_bundle
from app.metrics import share
from app.process import configure_logging, exit_on_signals
from app.server import serve
from app.settings import SettingsError, read_settings


def main(listener: int, supervisor: int, slot: int) -> int:
    exit_on_signals()
    share(slot)
    try:
        settings = read_settings()
        configure_logging(settings.log_format)
        serve(
            settings,
            read_bundle(settings.model_dir),
            socket.socket(fileno=listener),
            socket.socket(fileno=supervisor),
        )
    except (SettingsError, BundleError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
