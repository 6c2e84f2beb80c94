"""What every stage's command line has in common: help from the module, one clear line per error, logging."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable

from app.contract import BundleError
from training.base.errors import EspalierError


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Run a stage and end the process: 0 when it worked, 1 with one line on stderr when it could not.

    Only the errors a person can act on become a line. Anything else is a bug and shows its traceback.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # Names of files in params.yaml are UTF-8, too.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # As files are read, whatever the locale is.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        try:
            main()
        finally:
            # Also what `--help` has printed before it exits.
            sys.stdout.flush()
    except (EspalierError, BundleError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was left behind", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does; what is left must not be written at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
