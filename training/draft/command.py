"""Drafts the sections of params.yaml that depend on the data, for you to edit: name, data, schema, select and card.

    python -m training.draft data/source/flowers.csv --target species --rename SepalLengthCm=sepal_length --write

It marks what the data does not tell: units and physically possible values. A drafted range is the observed one,
widened by a quarter of its span on both sides (not past zero) and rounded. The drafted share of missing values is the
observed one, rounded up. Only rows without a class, or of a class that is too rare to learn, are left out; the draft
says how many. Columns that number the rows, free text and dates become comments. The gate is drafted from two quick
models on the data.

Without --write the sections are printed. With it they replace those in params.yaml, and `make` can run. With --model
a folder for a further model is created: `make model` does that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from app.cells import PLAIN, Cells
from common import files, models
from training.base import cli, config
from training.base.config import EvaluateSettings, SchemaSettings, Settings, SplitSettings
from training.base.errors import ConfigError, DataError
from training.data.columns import as_numbers, as_text
from training.draft import folder, infer, selection, yaml_text
from training.draft.infer import Columns
from training.fetch import sources
from training.fetch.csv_files import EncodingError, Table
from training.prepare import split as division
from training.prepare.checks import Checked, check

_SECTION = re.compile(r"^([A-Za-z_'\"][^\n:]*):(?=\s|$)", re.MULTILINE)
_TRAILING = re.compile(r"(?:^(?:[ \t]*|#[^\n]*)(?:\n|\Z))*\Z", re.MULTILINE)

MOST_CLASSES = 100
MOST_CODES = 30
"""Distinct whole numbers that count as classes; more are a quantity."""
MOST_DECIMALS = 10
"""Distinct numbers with decimals that count as classes."""


class _Evaluation(Settings):
    """The settings that decide how many rows a class needs."""

    split: SplitSettings = SplitSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


def main() -> None:
    parser = cli.parser("training.draft", __doc__)
    parser.add_argument("source", metavar="SOURCE", help=f"{sources.KINDS}")
    parser.add_argument("--target", required=True, help="the column to predict, by its new name if renamed")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="can be repeated")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--write", action="store_true", help="put the sections into params.yaml")
    where.add_argument("--model", metavar="NAME", help="create models/NAME with these sections")
    arguments = parser.parse_args()
    renames = _renames(arguments.rename)
    if arguments.model is not None:
        _create(arguments.model, arguments.source, arguments.target, renames)
        return
    text = draft(arguments.source, arguments.target, renames)
    text += "\n" + selection.sections(text)
    if not arguments.write:
        print(text, end="")
        return
    try:
        files.write_text(config.PARAMS_FILE, place(text, config.PARAMS_FILE.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            f"cannot write {config.PARAMS_FILE}: {error.strerror}; run this from the project's top folder"
        ) from None
    print(
        f"{config.PARAMS_FILE}: name, data, schema, select and card are drafted; look at them, then run `make`"
    )


def _create(name: str, source: str, target: str, renames: dict[str, str]) -> None:
    with folder.created(name, source) as copied:
        data = draft(copied, target, renames, name)
        content = "\n".join([folder.HEAD + data, folder.algorithms(), selection.sections(data)])
        files.write_text(config.PARAMS_FILE, content)
    place = f"{models.FOLDER}/{name}"
    print(
        f"{place}/{config.PARAMS_FILE} is drafted from {source}: look at it, then run `make MODEL={name}` "
        f"and commit {place}"
    )


def draft(source: str, target: str, renames: dict[str, str], name: str | None = None) -> str:
    """Write the three sections as YAML that `training.base.config` reads and `training.prepare` accepts.

    Raises:
        ConfigError: a column is missing, or has a name that a feature cannot have.
        DataError: the column cannot be a target; every message names the remedy.
    """
    from training.fetch.stage import rename

    table, encoding = _read(source)
    frame = rename(table.frame, renames)
    if target not in frame.columns:
        raise ConfigError(
            f"--target: there is no column {target!r}; there are {', '.join(map(str, frame.columns))}"
        )
    _check_names([*frame.columns, *renames])
    columns = infer.judge(frame.drop(columns=target), table.delimiter)
    classes = _target(frame, target, columns.cells)
    if not classes.kept.all():
        columns = infer.judge(frame[classes.kept].drop(columns=target), table.delimiter)
    if not columns.features:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in columns.left_out.items())
        raise DataError(f"no column of {source} beside {target} can be a feature: {reasons}")
    schema, comments = _schema(frame, target, classes, columns)
    lines = [
        yaml_text.entry("name", name or _name(source)),
        "",
        *_data_section(source, encoding, renames, columns),
        "",
        *_schema_section(schema, comments, columns),
    ]
    return "\n".join(lines) + "\n"


def place(drafted: str, document: str) -> str:
    """Replace the sections of a document that have the same names; append the others."""
    blocks = _blocks(document)
    for name, block in _blocks(drafted).items():
        if name:
            # Comments and blank lines at the end of a section belong to the next one.
            rest = _TRAILING.search(blocks[name])[0] if name in blocks else ""  # type: ignore[index]
            before = "" if name in blocks else "\n"
            blocks[name] = before + block.rstrip() + "\n" + rest
    return "".join(blocks.values())


def _blocks(document: str) -> dict[str, str]:
    """The top-level sections by name; the text before the first one has the name ""."""
    starts = [(found.start(), found[1].strip("'\"")) for found in _SECTION.finditer(document)]
    ends = [*(start for start, _ in starts[1:]), len(document)]
    head = document[: starts[0][0]] if starts else document
    return {"": head, **{name: document[start:end] for (start, name), end in zip(starts, ends, strict=False)}}


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    split = [pair.rpartition("=") for pair in pairs]
    for pair, (_, mark, new) in zip(pairs, split, strict=True):
        if not mark or not new:
            raise ConfigError(f"--rename {pair}: write OLD=NEW")
    return {old: new for old, _, new in split}


def _read(source: str) -> tuple[Table, str]:
    """The source, and the encoding in which it can be read."""
    try:
        return sources.read_table(source), "utf-8"
    except EncodingError as error:
        return sources.read_table(source, error.suggestion), error.suggestion


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if len(yaml_text.text(str(name))) > yaml_text.LONGEST_KEY:
            raise ConfigError(
                f"the column {str(name)[:40]!r}… has a name of {len(str(name)):,} characters, which YAML cannot "
                "have as a key: shorten it in the source"
            )


def _schema(
    frame: pd.DataFrame, target: str, found: _Target, columns: Columns
) -> tuple[dict[str, Any], dict[str, str]]:
    """The section's keys except `features`, and comments for some of them."""
    text, rare = found.text, found.rare
    missing = int(text.isna().sum())
    classes = infer.ordered(text[found.kept].unique())
    schema: dict[str, Any] = {"target": target, "classes": classes}
    comments = {}
    doubtful = [each for each in classes if infer.is_placeholder(each)]
    if doubtful:
        counted = ", ".join(f"{each!r} ({_rows(int((text == each).sum()))})" for each in doubtful)
        comments["classes"] = f"{counted} is a class here; data.replace can make it missing"
    if rare:
        counted = ", ".join(f"{each!r} ({_rows(count)})" for each, count in rare.items())
        comments["drop_classes"] = f"too few rows to learn: {counted}; data.replace can merge classes"
        schema["drop_classes"] = list(rare)
    if missing:
        words = (
            f": {', '.join(map(repr, found.unknown))}, unless schema.classes lists it"
            if found.unknown
            else ""
        )
        comments["missing_target"] = (
            f"drop | reject; {missing:,} of {_rows(len(frame))} without {target}{words}"
        )
        schema["missing_target"] = "drop"
    checked = _checked(frame, schema, columns)
    smallest = int(checked.frame[target].value_counts().min())
    schema["min_rows_per_class"] = min(20, smallest)
    schema["duplicates"] = "keep"
    comments["duplicates"] = "keep | drop | reject" + (
        f"; equal to an earlier one in all features and the target: {checked.equal_rows:,} of "
        f"{_rows(len(checked.frame))}"
        if checked.equal_rows
        else ""
    )
    schema["out_of_range"] = "reject"
    comments["out_of_range"] = "what the service does with values beyond a range: reject | accept"
    return schema, comments


@dataclass(frozen=True)
class _Target:
    """What the target holds.

    Attributes:
        text: the class of each row, None where it is missing.
        rare: classes with too few rows, and how many they have.
        kept: which rows have a class with enough rows.
        unknown: words that mean that a row has no class.
    """

    text: pd.Series[Any]
    rare: dict[str, int]
    kept: pd.Series[bool]
    unknown: list[str]


def _target(frame: pd.DataFrame, target: str, cells: Cells) -> _Target:
    text, wrong = as_text(frame[target])
    if wrong.any():
        raise DataError(
            f"{target} holds {frame[target].dtype}: a target has a class, as text or number, in every row"
        )
    words = infer.words_among(text.dropna().unique(), cells)
    unknown = sorted(words & set(text.dropna()))
    text = text.where(~text.isin(words), None)
    names = text.dropna().unique()
    if not 2 <= len(names) <= MOST_CLASSES:
        quantity = (
            "; it looks like a quantity"
            if len(names) > MOST_CLASSES and _are_numbers(frame[target], cells)
            else ""
        )
        raise DataError(
            f"{target} has {len(names):,} different values{quantity}; a classifier takes 2 to {MOST_CLASSES} classes: "
            "choose another target, or group the values in the source"
        )
    if _are_numbers(frame[target], cells):
        whole = all(re.fullmatch(r"[+-]?\d+", each) for each in names)
        if len(names) > (MOST_CODES if whole else MOST_DECIMALS):
            raise DataError(
                f"{target} has {len(names)} different numbers: it looks like a quantity, and a classifier predicts "
                "classes: choose another target, or group the numbers into named ranges in the source"
            )
    rare = _rare(text.dropna())
    if len(names) - len(rare) < 2:
        raise DataError(
            f"{target}: {len(rare)} of {len(names)} classes have too few rows to train and test on, such as "
            f"{next(iter(rare))!r} with {next(iter(rare.values()))}: a classifier needs two classes with more rows; "
            "merge classes in the source, choose another target, or lower evaluate.folds in params.yaml"
        )
    return _Target(text, rare, text.notna() & ~text.isin(rare), unknown)


def _are_numbers(column: pd.Series[Any], cells: Cells) -> bool:
    return not as_numbers(column, cells)[1].any()


def _rare(labels: pd.Series[Any]) -> dict[str, int]:
    """The classes that `prepare` would refuse, with all their rows."""
    try:
        evaluation = config.load(_Evaluation)
    except ConfigError:
        evaluation = _Evaluation()
    rare: dict[str, int] = {}
    while True:
        kept = labels[~labels.isin(rare)]
        if kept.empty:
            return rare
        train, _ = division.split(kept.to_frame("class"), "class", evaluation.split)
        found = division.too_rare(train["class"], kept.unique(), evaluation.evaluate.folds)
        if not found:
            return rare
        rare |= {name: int((kept == name).sum()) for name in found}


def _checked(frame: pd.DataFrame, schema: dict[str, Any], columns: Columns) -> Checked:
    """The rows as `prepare` will see them, checked by the check that it makes."""
    from training.fetch.stage import remove_units, replace

    features = {name: each for name, (each, _) in columns.features.items()}
    try:
        settings = SchemaSettings.model_validate(
            {**schema, "features": features, "min_rows_per_class": 2, "duplicates": "keep"}
        )
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{message}; give it another name with --rename OLD=NEW") from None
    return check(replace(remove_units(frame, columns.units), columns.replace), settings, columns.cells)


def _data_section(source: str, encoding: str, renames: dict[str, str], columns: Columns) -> list[str]:
    cells = columns.cells
    lines = ["data:", "  " + yaml_text.entry("source", source)]
    if encoding != "utf-8":
        lines.append(
            f"  {yaml_text.entry('encoding', encoding)}  # not UTF-8: look whether its texts come out right"
        )
    lines += ["  " + yaml_text.entry("rename", renames)]
    if columns.units:
        lines.append(
            f"  {yaml_text.entry('units', columns.units)}  # what stands beside the numbers, taken off"
        )
    if columns.replace:
        lines.append("  replace:")
        lines += [f"    {yaml_text.entry(name, values)}" for name, values in columns.replace.items()]
    else:
        lines.append("  replace: {}")
    counted = [
        f"{word!r} stands {infer.times(sum(places.values()))} in {', '.join(map(repr, places))}"
        for word, places in columns.missing.items()
    ]
    comment = f"; {'; '.join(counted)}" if counted else ""
    lines.append(
        f'  {yaml_text.entry("missing", cells.missing)}  # texts that mean "no value", as an empty cell does{comment}'
    )
    marks = {"decimal": cells.decimal, "thousands": cells.thousands}
    lines += [
        f"  {yaml_text.entry(key, mark)}  # {columns.example}"
        for key, mark in marks.items()
        if mark != getattr(PLAIN, key)
    ]
    return lines


def _schema_section(schema: dict[str, Any], comments: dict[str, str], columns: Columns) -> list[str]:
    keys = [
        f"  {yaml_text.entry(key, value)}" + (f"  # {comments[key]}" if key in comments else "")
        for key, value in schema.items()
    ]
    return [
        "schema:",
        *keys,
        "  features:  # units: add `unit: cm`; ranges: put what is possible, these are what was seen and a bit more",
        *(
            f"    {yaml_text.entry(name, each)}" + (f"  # {comment}" if comment else "")
            for name, (each, comment) in columns.features.items()
        ),
        *(f"    # {yaml_text.text(name)}: {reason}" for name, reason in columns.left_out.items()),
    ]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _name(source: str) -> str:
    kind, _, rest = source.partition(":")
    text = "model" if kind == "sql" else Path(rest if kind in ("sklearn", "s3") else source).stem
    return models.proposed_name(text)
