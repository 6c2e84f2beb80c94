"""Numbers as command-line options: argparse shows the message for a value that makes no sense."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def number(accepts: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    """A type for `add_argument`: a finite number that is accepted."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and accepts(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is {wanted}")
        return value

    return parse
