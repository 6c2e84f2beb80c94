"""Drafts the sections name, data and schema of params.yaml from a source, for you to edit.

    python -m training.draft data/source/flowers.csv --target species --rename SepalLengthCm=sepal_length

What it cannot know, it marks: units, and what is physically possible. A drafted range is what was seen, widened
by a quarter of its span on both sides (not past zero) and rounded. The drafted share of missing values is
what was seen, rounded up. Columns that look like row numbers, free text or dates become comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from training import cli, sources
from training.checks import LARGEST, check
from training.columns import as_numbers, as_text
from training.config import SchemaSettings
from training.errors import ConfigError, DataError

MOST_CATEGORIES = 50
MOST_CLASSES = 100
WIDENED = 0.25


def main() -> None:
    parser = cli.parser("training.draft", __doc__)
    parser.add_argument("source", metavar="SOURCE", help=f"{sources.KINDS}")
    parser.add_argument("--target", required=True, help="the column to predict, by its new name if renamed")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="can be repeated")
    arguments = parser.parse_args()
    print(draft(arguments.source, arguments.target, _renames(arguments.rename)), end="")


def draft(source: str, target: str, renames: dict[str, str]) -> str:
    """Write the three sections as YAML that `training.config` reads and `training.prepare` accepts.

    Raises:
        ConfigError: a column is not there, or has a name that a feature cannot have.
        DataError: the target cannot be one; every reason names the remedy.
    """
    from training.fetch import rename

    frame = rename(sources.read(source), renames)
    if target not in frame.columns:
        raise ConfigError(
            f"--target: there is no column {target!r}; there are {', '.join(map(str, frame.columns))}"
        )
    features, skipped = _features(frame.drop(columns=target))
    if not features:
        raise DataError(
            f"no column of {source} beside {target} can be a feature: {'; '.join(f'{name}: {reason}' for name, reason in skipped.items())}"
        )
    schema: dict[str, Any] = {"target": target, "classes": _classes(frame, target)}
    smallest = _smallest_class(
        frame, {**schema, "features": {name: each for name, (each, _) in features.items()}}
    )
    schema["min_rows_per_class"] = min(20, smallest)
    lines = [
        _line("name", _name(source)),
        "",
        "data:",
        "  " + _line("source", source),
        "  " + _line("rename", renames),
        "  " + _line("replace", {}),
        "",
        "schema:",
        *(f"  {_line(key, value)}" for key, value in schema.items()),
        "  duplicates: drop      # drop | reject | keep",
        "  out_of_range: reject  # what the service does with values beyond a range: reject | accept",
        "  features:  # units: add `unit: cm`; ranges: put what is possible, these are what was seen and a bit more",
        *(f"    {_line(name, each)}{comment}" for name, (each, comment) in features.items()),
        *(f"    # {_line(name, reason)}" for name, reason in skipped.items()),
    ]
    return "\n".join(lines) + "\n"


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for pair, (old, _, new) in zip(pairs, split, strict=True):
        if not old or not new:
            raise ConfigError(f"--rename {pair}: write OLD=NEW")
    return {old: new for old, _, new in split}


def _classes(frame: pd.DataFrame, target: str) -> list[str]:
    text, wrong = as_text(frame[target])
    if wrong.any():
        raise DataError(
            f"{target} holds {frame[target].dtype}: a target has a class, as text or number, in every row"
        )
    if text.isna().any():
        raise DataError(f"{target} is missing in {int(text.isna().sum())} rows: take them out of the source")
    names = _sorted(text.unique())
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(
            f"{target} has {len(names)} different values; a classifier takes 2 to {MOST_CLASSES} classes"
        )
    return names


def _features(frame: pd.DataFrame) -> tuple[dict[str, tuple[dict[str, Any], str]], dict[str, str]]:
    """The features, each with a comment, and why other columns are none."""
    features: dict[str, tuple[dict[str, Any], str]] = {}
    skipped = {}
    for name in map(str, frame.columns):
        found = _number(frame[name]) or _category(frame[name])
        if isinstance(found, str):
            skipped[name] = found
        else:
            features[name] = found
    return features, skipped


def _number(column: pd.Series[Any]) -> tuple[dict[str, Any], str] | str | None:
    """The feature and its comment, why it is none, or None if its cells are not numbers."""
    values, wrong = as_numbers(column)
    seen = values.dropna().to_numpy(np.float64)
    if wrong.any():
        return None
    if not len(seen):
        return "every value is missing"
    if np.abs(seen).max() > LARGEST:
        return f"some values are infinite or beyond {LARGEST:g}; data.replace can make them missing"
    if _zero_padded(column):
        return None
    low, high = float(seen.min()), float(seen.max())
    if len(seen) == len(values) > 2 and np.array_equal(np.sort(seen), np.arange(low, low + len(seen))):
        return "left out, since it numbers the rows"
    feature = {"type": "number", "range": list(_padded(seen)), **_missing(values)}
    return feature, f"  # seen {_tidy(low)} to {_tidy(high)}"


def _category(column: pd.Series[Any]) -> tuple[dict[str, Any], str] | str:
    text, wrong = as_text(column)
    if wrong.any():
        return f"left out, since it holds {column.dtype}"
    categories = _sorted(text.dropna().unique())
    if not categories:
        return "every value is missing"
    if len(categories) > min(MOST_CATEGORIES, max(2, len(text) // 2)):
        return f"left out, since its {len(categories)} different texts are no categories"
    return {"type": "category", "categories": categories, **_missing(text)}, ""


def _zero_padded(column: pd.Series[Any]) -> bool:
    """007 is a code and not the number seven."""
    text = column.dropna()
    return isinstance(text.dtype, pd.StringDtype) and bool(text.str.strip().str.match(r"0\d").any())


def _missing(values: pd.Series[Any]) -> dict[str, float]:
    share = math.ceil(float(values.isna().mean()) * 100 - 1e-9) / 100
    return {"missing": share} if values.isna().any() else {}


def _padded(seen: NDArray[np.floating[Any]]) -> tuple[float, float]:
    low, high = float(seen.min()), float(seen.max())
    span = (high - low) or abs(high) or 1.0
    digits = min(1 - math.floor(math.log10(span)), 30)
    if (seen == np.round(seen)).all():
        digits = min(digits, 0)
    wider_low = math.floor((low - span * WIDENED) * 10.0**digits) / 10.0**digits
    wider_high = math.ceil((high + span * WIDENED) * 10.0**digits) / 10.0**digits
    if low >= 0:
        wider_low = max(wider_low, 0.0)
    elif high <= 0:
        wider_high = min(wider_high, 0.0)
    return _tidy(min(wider_low, low)), _tidy(max(wider_high, high))


def _tidy(value: float) -> float:
    """Whole numbers without decimals."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _sorted(values: Any) -> list[str]:
    """Texts in order; whole numbers by size, so that 10 follows 9."""
    texts = sorted(map(str, values))
    return sorted(texts, key=int) if all(re.fullmatch(r"-?\d{1,9}", each) for each in texts) else texts


def _name(source: str) -> str:
    kind, _, rest = source.partition(":")
    text = "model" if kind == "sql" else Path(rest if kind in ("sklearn", "s3") else source).stem
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"


def _line(key: str, value: Any) -> str:
    """One `key: value` line, quoted where YAML needs it."""
    nested = isinstance(value, dict | list)
    text = yaml.safe_dump(
        {key: value}, default_flow_style=nested, sort_keys=False, allow_unicode=True, width=math.inf
    ).strip()
    return text[1:-1] if nested else text


def _smallest_class(frame: pd.DataFrame, schema: dict[str, Any]) -> int:
    """Rows of the smallest class once duplicates are dropped, counted by the very check that `prepare` makes."""
    from pydantic import ValidationError

    try:
        settings = SchemaSettings.model_validate({**schema, "min_rows_per_class": 2, "duplicates": "drop"})
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{message}; give it another name with --rename OLD=NEW") from None
    return int(check(frame, settings).frame[settings.target].value_counts().min())


if __name__ == "__main__":
    cli.run(main)
