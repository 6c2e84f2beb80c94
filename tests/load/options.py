"""Types of command-line options; argparse prints what they say about a value that makes no sense."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable


def _number(text: str, accepts: Callable[[float], bool], wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and accepts(value)):
        raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
    return value


def positive(text: str) -> float:
    return _number(text, lambda value: value > 0, "a number above 0")


def share(text: str) -> float:
    return _number(text, lambda value: 0 <= value <= 1, "a share between 0 and 1")


def count(text: str) -> int:
    return int(_number(text, lambda value: value >= 1 and value.is_integer(), "a whole number from 1"))


def port(text: str) -> int:
    return int(_number(text, lambda value: 1 <= value <= 65535 and value.is_integer(), "a port"))


def seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if total == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time such as 30s, 5m or 1h30m")
    return float(total)


def host(text: str) -> str:
    return (text if "://" in text else f"http://{text}").rstrip("/")
