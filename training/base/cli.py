"""What every stage's command line has in common: help from the module, one clear line per error, logging."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from app.contract import BundleError
from common import command


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Run a stage as `common.command.run` does, with its log on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command.run(main, BundleError)
