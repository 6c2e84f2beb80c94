"""Drafts the sections of params.yaml that depend on the data, for you to edit: name, data, schema, select and card.

    python -m training.draft data/source/flowers.csv --target species --rename SepalLengthCm=sepal_length --write

A target with many different numbers is a quantity, which a regression predicts; any other has classes. --task decides
otherwise. The draft marks what the data does not tell: units and physically possible values. A drafted range is the observed one,
widened by a quarter of its span on both sides (not past zero) and rounded. The drafted share of missing values is the
observed one, rounded up. Only rows without a class or value, or of a class that is too rare to learn, are left out; the draft
says how many. Columns that number the rows, free text and dates become comments. The gate is drafted from two quick
models on the data. Of more than 500,000 rows, so many are drawn at random. --group and --time name columns that keep the
test split and all folds apart from training.

Without --write the sections are printed. With it they replace those in params.yaml, and `make` can run; algorithms and
plots of another task are replaced too. With --model a folder for a further model is created: `make model` does that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from pydantic import ValidationError

from app.cells import PLAIN
from app.contract import Task
from common import files, models
from common.pipelines import PIPELINE_FILE
from training.base import cli, config
from training.base.documents import parse_yaml
from training.base.errors import ConfigError, DataError
from training.data.dataset import Profile
from training.draft import document, folder, selection, yaml_text
from training.draft.infer import Columns
from training.draft.target import Target, evaluation, judge
from training.draft.texts import is_placeholder, times
from training.fetch import sources
from training.fetch.csv_files import EncodingError
from training.fetch.sources import Table
from training.prepare.checks import Checked, check
from training.sections.data import FeastSettings
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings

log = logging.getLogger(__name__)


def main() -> None:
    parser = cli.parser("training.draft", __doc__)
    parser.add_argument("source", metavar="SOURCE", help=f"{sources.KINDS}")
    parser.add_argument("--target", required=True, help="the column to predict, by its new name if renamed")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="can be repeated")
    parser.add_argument(
        "--task", choices=get_args(Task), help="what to draft, whatever the target looks like"
    )
    parser.add_argument(
        "--group", metavar="COLUMN", help="rows with the same value, such as a patient, stay together"
    )
    parser.add_argument("--time", metavar="COLUMN", help="the newest rows are the test split")
    parser.add_argument(
        "--feast-repository",
        metavar="FOLDER",
        help="of a source feast:FEATURE_SERVICE: where feature_store.yaml is",
    )
    parser.add_argument("--entities", metavar="SOURCE", help="and the rows to which its features are joined")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--write", action="store_true", help="put the sections into params.yaml")
    where.add_argument("--model", metavar="NAME", help="create models/NAME with these sections")
    arguments = parser.parse_args()
    what = arguments.target, _renames(arguments.rename), arguments.task
    split = _split(arguments.group, arguments.time)
    feast = _feast(arguments.source, arguments.feast_repository, arguments.entities)
    if arguments.model is not None:
        _create(arguments.model, arguments.source, *what, split, feast)
        return
    text = draft(arguments.source, *what, split=split, feast=feast)
    data = selection.prepared(text)
    text += "\n" + selection.render(data)
    if arguments.write:
        _write(text, data.profile)
    else:
        print(text, end="")


def _write(text: str, profile: Profile) -> None:
    file = config.PARAMS_FILE
    try:
        fitted, changes = document.fit(file.read_text(encoding="utf-8"), profile)
        if "decision" in (parse_yaml(fitted) or {}):
            # It may have costs, which no data tells.
            text = document.remove(text, "decision")
        files.write_text(file, document.place(text, fitted))
    except OSError as error:
        raise ConfigError(
            f"cannot write {file}: {error.strerror}; run this from the project's top folder"
        ) from None
    has_other_plots = folder.write_plots(profile.task)
    print(f"{file}: name, data, schema, select and card are drafted; look at them, then run `make`")
    for each in changes:
        print(f"{file}: {each}")
    if has_other_plots:
        print(f"{PIPELINE_FILE}: lists the plots of a {profile.task}")


def _create(
    name: str,
    source: str,
    target: str,
    renames: dict[str, str],
    task: Task | None,
    split: SplitSettings | None,
    feast: FeastSettings | None,
) -> None:
    with folder.created(name, source) as copied:
        text = draft(copied, target, renames, task, name, split, feast)
        data = selection.prepared(text)
        profile = data.profile
        train = document.algorithms(profile.task, profile.train_rows, document.widest(profile))
        files.write_text(config.PARAMS_FILE, "\n".join([folder.HEAD + text, train, selection.render(data)]))
        folder.write_plots(profile.task)
    place = f"{models.FOLDER}/{name}"
    print(
        f"{place}/{config.PARAMS_FILE} is drafted from {source}: look at it, then run `make MODEL={name}` "
        f"and commit {place}"
    )


def draft(
    source: str,
    target: str,
    renames: dict[str, str],
    task: Task | None = None,
    name: str | None = None,
    split: SplitSettings | None = None,
    feast: FeastSettings | None = None,
) -> str:
    """Write name, data and schema as YAML that `training.base.config` reads and `training.prepare` accepts.

    Args:
        source: what data.source takes.
        target: the column to predict, by its new name.
        renames: new names of columns.
        task: to draft for, whatever the target looks like.
        name: of the model; made of the source if None.
        split: to write, too; without it, that of params.yaml counts.
        feast: of a source `feast:`.

    Raises:
        ConfigError: a column is missing, or has a name that a feature cannot have.
        DataError: the column cannot be a target; every message names the remedy.
    """
    from training.fetch.stage import rename

    table, encoding = _read(source, feast)
    frame = rename(table.frame, renames)
    if len(frame) >= selection.MOST_ROWS:
        log.warning(
            "drafted from a random sample of %s: `make` names ranges, categories and classes that others go beyond",
            _rows(len(frame)),
        )
    split_columns = (split.group, split.time) if split else (None, None)
    for option, column in zip(("--target", "--group", "--time"), (target, *split_columns), strict=True):
        if column is not None and column not in frame.columns:
            raise ConfigError(
                f"{option}: there is no column {column!r}; there are {', '.join(map(str, frame.columns))}"
            )
    _check_names([*frame.columns, *renames])
    found = judge(frame, target, table.delimiter, task)
    columns = found.columns
    if (group := (split or evaluation().split).group) and columns.features.pop(group, None):
        columns.left_out[group] = (
            "left out, since split.group names it: the model is asked about other groups"
        )
    if not columns.features:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in columns.left_out.items())
        raise DataError(f"no column of {source} beside {target} can be a feature: {reasons}")
    log.info(
        "%s: drafted for a %s%s", target, found.task, f", since its {found.reason}" if found.reason else ""
    )
    schema, comments = _schema(frame, found)
    lines = [
        yaml_text.entry("name", name or _name(source)),
        "",
        *_data_section(source, encoding, renames, columns, feast),
        "",
        *_schema_section(schema, comments, columns),
        *(_split_section(split) if split else ()),
    ]
    return "\n".join(lines) + "\n"


def _split(group: str | None, time: str | None) -> SplitSettings | None:
    """The split that the options ask for, of the size that params.yaml here says; None without options."""
    given = {key: column for key, column in (("group", group), ("time", time)) if column is not None}
    if not given:
        return None
    size = evaluation().drawn.model_dump(include={"test_share", "seed"}, exclude_defaults=True)
    return SplitSettings.model_validate({"by": "_".join(given), **given, **size})


def _feast(source: str, repository: str | None, entities: str | None) -> FeastSettings | None:
    if not source.startswith("feast:"):
        if repository or entities:
            raise ConfigError("--feast-repository and --entities are of a source feast:FEATURE_SERVICE")
        return None
    if not repository or not entities:
        raise ConfigError("a source feast:… needs --feast-repository FOLDER and --entities SOURCE")
    return FeastSettings(repository=repository, entities=entities)


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    split = [pair.rpartition("=") for pair in pairs]
    for pair, (_, mark, new) in zip(pairs, split, strict=True):
        if not mark or not new:
            raise ConfigError(f"--rename {pair}: write OLD=NEW")
    return {old: new for old, _, new in split}


def _read(source: str, feast: FeastSettings | None) -> tuple[Table, str]:
    """The source, or a sample of its rows, and the encoding in which it can be read."""
    try:
        return sources.read_table(source, rows=selection.MOST_ROWS, feast=feast), "utf-8"
    except EncodingError as error:
        return sources.read_table(source, error.suggestion, selection.MOST_ROWS, feast), error.suggestion


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if len(yaml_text.text(str(name))) > yaml_text.LONGEST_KEY:
            raise ConfigError(
                f"the column {str(name)[:40]!r}… has a name of {len(str(name)):,} characters, which YAML cannot "
                "have as a key: shorten it in the source"
            )


def _schema(frame: pd.DataFrame, found: Target) -> tuple[dict[str, Any], dict[str, str]]:
    """The section's keys except `features`, and comments for some of them."""
    target, columns = found.name, found.columns
    schema: dict[str, Any] = {"target": target}
    comments = {}
    if found.reason or found.task == "regression":
        schema["task"] = found.task
        comments["task"] = found.reason
    if columns.target:
        unit = columns.units.get(target)
        schema |= {"unit": unit} if unit else {}
        comments["target"] = (
            f"{columns.target.comment}; add {'' if unit else '`unit: …`, and '}`range: [low, high]` to refuse other values"
        )
    else:
        schema |= _classes(found, comments)
    if found.missing:
        words = (
            f": {', '.join(map(repr, found.unknown))}, unless schema.classes lists it"
            if found.unknown
            else ""
        )
        comments["missing_target"] = (
            f"drop | reject; {found.missing:,} of {_rows(len(frame))} without {target}{words}"
        )
        schema["missing_target"] = "drop"
    checked = _checked(frame, schema, columns)
    if found.task == "classification":
        schema["min_rows_per_class"] = min(20, int(checked.frame[target].value_counts().min()))
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


def _classes(found: Target, comments: dict[str, str]) -> dict[str, Any]:
    """The keys that only a classification has; what is to be said of them is added to the comments."""
    schema: dict[str, Any] = {"classes": found.classes}
    doubtful = [each for each in found.classes if is_placeholder(each)]
    if doubtful:
        counted = ", ".join(f"{each!r} ({_rows(found.counts[each])})" for each in doubtful)
        comments["classes"] = f"{counted} is a class here; data.replace can make it missing"
    if found.rare:
        counted = ", ".join(f"{each!r} ({_rows(count)})" for each, count in found.rare.items())
        comments["drop_classes"] = f"too few rows to learn: {counted}; data.replace can merge classes"
        schema["drop_classes"] = list(found.rare)
    return schema


def _checked(frame: pd.DataFrame, schema: dict[str, Any], columns: Columns) -> Checked:
    """The rows as `prepare` will see them, checked by the check that it makes."""
    from training.fetch.stage import remove_units, replace

    features = {name: each for name, (each, _) in columns.features.items()}
    try:
        settings = SchemaSettings.model_validate(
            {
                **schema,
                "features": features,
                "duplicates": "keep",
                **({} if columns.target else {"min_rows_per_class": 2}),
            }
        )
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{message}; give it another name with --rename OLD=NEW") from None
    return check(replace(remove_units(frame, columns.units), columns.replace), settings, columns.cells)


def _data_section(
    source: str, encoding: str, renames: dict[str, str], columns: Columns, feast: FeastSettings | None
) -> list[str]:
    cells = columns.cells
    lines = ["data:", "  " + yaml_text.entry("source", source)]
    if feast is not None:
        lines.append("  " + yaml_text.entry("feast", feast.model_dump(include={"repository", "entities"})))
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
        f"{word!r} stands {times(sum(places.values()))} in {', '.join(map(repr, places))}"
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
        f"  {yaml_text.entry(key, value)}" + (f"  # {comments[key]}" if comments.get(key) else "")
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


def _split_section(split: SplitSettings) -> list[str]:
    written = split.model_dump(exclude_defaults=True)
    return ["", "split:", *(f"  {yaml_text.entry(key, value)}" for key, value in written.items())]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _name(source: str) -> str:
    kind, _, rest = source.partition(":")
    text = "model" if kind == "sql" else Path(rest if kind in ("sklearn", "s3") else source).stem
    return models.proposed_name(text)
