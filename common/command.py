"""Runs a command and ends the process with one line for an error and a status that tells how it went."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable

from common.errors import EspalierError


def run(main: Callable[[], None], *others: type[Exception], status: int = 1) -> None:
    """End with 0 when the command worked, and with `status` and one line on stderr for an error a person can act on.

    Any other error is a bug and shows its traceback, with the same status, because 1 may be an answer of the command.

    Args:
        main: the command.
        others: further errors that a person can act on.
        status: exit status of a failure.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # File names in params.yaml are UTF-8, too.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    expected: tuple[type[Exception], ...] = (EspalierError, *others)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The encoding of files, in every locale.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            main()
        finally:
            # `--help` exits after it has printed.
            sys.stdout.flush()
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
    except KeyboardInterrupt:
        # A further one ends what Python still waits for at exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does; Python must not flush the rest into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        traceback.print_exc()
        sys.exit(status)
