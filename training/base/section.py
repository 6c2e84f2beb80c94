"""What the settings of all sections of `params.yaml` are made of."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
VERSION = re.compile(r"[0-9a-f]{12}\Z")


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _as_text(value: Any) -> Any:
    """Accept a number where a class or category is meant, as the text that the file has.

    A spelling such as 1.10 or 010, which YAML would not write, is refused: DVC does not see a change from 1.10 to 1.1.
    """
    if isinstance(value, bool | date) or value is None:
        kind = "a boolean" if isinstance(value, bool) else "nothing" if value is None else "a date"
        raise ValueError(f"YAML reads this as {kind}: put the value in quotes")
    if not isinstance(value, int | float):
        return value
    text, spelling = str(value), getattr(value, "spelling", None)
    if spelling not in (None, text):
        raise ValueError(f"YAML reads {spelling} as the number {text}: put it in quotes, as '{spelling}'")
    return text


Text = Annotated[str, BeforeValidator(_as_text)]


def _is_version(value: Any) -> Any:
    if not isinstance(value, str) or not VERSION.match(value):
        # Unquoted, YAML takes a version without letters for a number and drops its leading zeros.
        raise ValueError(f"a version is twelve hexadecimal digits in quotes, and {value!r} is not")
    return value


Version = Annotated[str, BeforeValidator(_is_version)]
"""Of a bundle."""
