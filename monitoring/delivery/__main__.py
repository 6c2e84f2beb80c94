"""Exports to Prometheus what was delivered, read from git."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from . import exposition
from .clone import Clone, DeliveryError
from .exporter import Exporter, log, server
from .github import API, SERVER, GitHub

PORT = 9101
INTERVAL = 300
"""Seconds."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def main() -> None:
    options = _options()
    if options.once:
        print(exposition.text(_source(options).read(), up=True, read_at=time.time()), end="")
        return
    exporter = Exporter(_source(options), options.interval)
    try:
        serving = server(exporter, options.host, options.port)
    except OSError as error:
        raise DeliveryError(f"--port {options.port}: {error.strerror}; choose another") from None

    def stop(*_: object) -> None:
        exporter.stopping.set()
        threading.Thread(target=serving.shutdown).start()

    # A container's process 1 ignores signals for which it has no handler.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    threading.Thread(target=exporter.run, daemon=True).start()
    log("info", f"{exporter.source.name}: metrics at {options.host}:{serving.server_address[1]}/metrics")
    with serving:
        serving.serve_forever()


def _source(options: argparse.Namespace) -> Clone:
    if options.git is not None:
        return Clone(options.git, options.branch)
    file: Path | None = options.token_file

    def token() -> str:
        if file is None:
            return ""
        try:
            found = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryError(f"--token-file {file}: {error}") from None
        # A line break would end the header and begin another.
        if not re.fullmatch(r"[!-~]+", found):
            raise DeliveryError(f"--token-file {file}: it must hold a token and nothing else")
        return found

    token()
    return GitHub(
        options.repository, token, options.branch, options.server.rstrip("/"), options.api.rstrip("/")
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--git", type=Path, metavar="PATH", help="read a clone on this machine")
    source.add_argument(
        "--repository",
        metavar="OWNER/NAME",
        help="fetch a clone of a repository on GitHub, and ask for its workflows' runs",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help="file with GitHub's token; without, GitHub answers 60 requests an hour",
    )
    parser.add_argument("--branch", default="main", help="(default: %(default)s)")
    parser.add_argument("--server", default=SERVER, help="where git fetches from (default: %(default)s)")
    parser.add_argument("--api", default=API, help="where workflow runs are read from (default: %(default)s)")
    parser.add_argument(
        "--interval", type=float, default=INTERVAL, help="seconds from one reading to the next (%(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="(default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="print the metrics once, instead of serving them")
    options = parser.parse_args()
    if options.repository is not None and not _REPOSITORY.fullmatch(options.repository):
        parser.error(f"--repository {options.repository!r} is not OWNER/NAME")
    for name, given, such in (("server", options.server, SERVER), ("api", options.api, API)):
        if urllib.parse.urlsplit(given).scheme not in ("http", "https"):
            parser.error(f"--{name} {given!r} is not a web address, such as {such}")
    if not options.interval >= 1:
        parser.error("--interval must be at least 1 second")
    if not 0 <= options.port <= 65535:
        parser.error("--port must be between 0 and 65535")
    return options


if __name__ == "__main__":
    try:
        main()
    except DeliveryError as problem:
        sys.exit(f"error: {problem}")
