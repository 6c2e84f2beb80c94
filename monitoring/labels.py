"""Joins delayed ground truth to the prediction log: how accurate is the model on the rows that it really saw?

The truth is a table with the columns `id`, the response's `x-request-id`; `label`, the true class, or `value`, the true
value of a regression; and `row`, the number of the row within its request (0 without the column). The result is a table for people, metrics for Prometheus (in a file
for the node exporter's textfile collector, or through a Pushgateway), and with `--output` the joined rows as training data.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from app.contract import MANIFEST_FILE, Manifest
from common import files
from common.command import run
from common.errors import EspalierError
from monitoring.scores import Figures, Logged, Scoring, scoring_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

JOB = "espalier-labels"
ROWS = "model_live_labelled_rows"
COMPUTED = "model_live_computed_timestamp_seconds"

_SHOWN = 5
_UNKNOWN_VERSION = "unknown"

Key = tuple[str, int]
"""A request's id, and the number of a row in the request."""


@dataclass
class Truth:
    """The true labels or values, and the faults of their table."""

    labels: dict[Key, Any]
    rows: int
    """Number of rows of the table."""
    unlabelled: int = 0
    """Number of rows without an id or a label."""
    repeated: int = 0
    """Number of rows that repeat another one."""
    contradicted: set[Key] = field(default_factory=set)
    """Rows for which the table has several labels; they do not count."""
    unknown: Counter[Any] = field(default_factory=Counter)
    """Labels that are not a class of the model, or values that are not finite, with their numbers."""


@dataclass
class Join:
    """The log's lines with their true labels."""

    matched: dict[Key, tuple[Logged[Any], Any]]
    rows: Counter[str]
    """Number of the log's lines by model version."""
    repeated: int
    """Number of lines that share id and row with another line; the last one counts."""
    missing: list[Key]
    """Rows of the truth that the log lacks."""


@dataclass(frozen=True)
class Score:
    """How right one version is."""

    version: str
    logged: int
    labelled: int
    figures: Figures


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    manifest = read_manifest(options.model)
    if options.output and options.output.suffix not in (".csv", ".parquet"):
        raise EspalierError(f"--output {options.output}: it must end with .csv or .parquet")
    scoring = scoring_of(manifest)
    truth = read_truth(options.truth, scoring)
    joined = join(read_log(options.log, scoring, options.since), truth)
    _print_notes(truth, joined, scoring, sys.stderr)
    if not joined.matched:
        raise EspalierError(_why_nothing(options.log, truth, joined))
    scores = score(joined, scoring)
    _show(scores, scoring)
    if options.textfile or options.pushgateway:
        where = {"environment": options.environment, "model": manifest.name}
        publish(scores, scoring, where, textfile=options.textfile, pushgateway=options.pushgateway)
    if options.output:
        write_rows(joined, manifest, scoring, options.output)
        print(f"{len(joined.matched)} labelled rows are in {options.output}")


# ------------------------------------------------------------------------------ reading


def read_manifest(folder: Path) -> Manifest:
    """The model's card, which has its classes, features and target."""
    file = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise EspalierError(
            f"{file}: {error.strerror}; `make pull TARGETS=model` fetches the bundle, --model says where it is"
        ) from None
    except ValueError:
        raise EspalierError(f"{file} is no card of a model: --model must be the folder of a bundle") from None


def read_truth(file: Path, scoring: Scoring[Any]) -> Truth:
    """A table of ground truth.

    Raises:
        EspalierError: it cannot be read, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    column = scoring.column
    types = {"id": pa.string(), column: getattr(pa, scoring.type)(), "row": pa.int64()}
    try:
        if file.suffix == ".csv":
            # Ids are text: 007 keeps its zeros.
            table = pa.csv.read_csv(file, convert_options=pa.csv.ConvertOptions(column_types=types))
        elif file.suffix == ".parquet":
            table = pa.parquet.read_table(file)
        else:
            raise EspalierError(f"--truth {file}: it must end with .csv or .parquet")
        if lacking := [name for name in ("id", column) if name not in table.column_names]:
            raise EspalierError(
                f"{file} has no column {' and no '.join(lacking)}, but {', '.join(table.column_names) or 'none'}; "
                f"the truth has the columns id, {column} and, of requests with several rows, row"
            )
        columns = {name: table.column(name).cast(types[name]) for name in types if name in table.column_names}
    except OSError as error:
        raise EspalierError(f"{file}: {error.strerror or _first_line(error)}") from None
    except pa.ArrowException as error:
        raise EspalierError(f"{file} cannot be read as a table: {_first_line(error)}") from None
    ids, labels = columns["id"].to_pylist(), columns[column].to_pylist()
    numbers = columns["row"].to_pylist() if "row" in columns else [0] * len(ids)
    truth = Truth({}, len(ids))
    for request_id, number, label in zip(ids, numbers, labels, strict=True):
        key = (request_id, number or 0)
        if not request_id or label is None or label == "":
            truth.unlabelled += 1
        elif not scoring.known(label):
            truth.unknown[label] += 1
        elif key not in truth.labels:
            truth.labels[key] = label
        elif truth.labels[key] == label:
            truth.repeated += 1
        else:
            truth.contradicted.add(key)
    for key in truth.contradicted:
        del truth.labels[key]
    return truth


def read_log(
    target: str, scoring: Scoring[Any], since: datetime | None = None
) -> Iterator[tuple[Key, Logged[Any]]]:
    """The lines of a prediction log.

    Args:
        target: a directory or `s3://BUCKET/PREFIX`.
        scoring: of the model's task.
        since: only lines with this time or a later one.

    Raises:
        EspalierError: it cannot be read, or has lines that do not belong to a prediction log.
    """
    from obstore import get
    from obstore import list as listed
    from obstore.exceptions import BaseError

    # A file is named after the day of its first line, and may hold lines of the next day.
    first = None if since is None else since.astimezone(UTC).date() - timedelta(days=1)
    try:
        store = _open(target)
        names = sorted(each["path"] for batch in listed(store) for each in batch)
        for name in names:
            found = re.fullmatch(r"date=(\d{4}-\d\d-\d\d)/[^/]+\.jsonl", name)
            if found is None or (first is not None and date.fromisoformat(found[1]) < first):
                continue
            content = bytes(get(store, name).bytes())
            for number, line in enumerate(content.splitlines(), 1):
                where = f"{target.rstrip('/')}/{name}, line {number}"
                key, time, logged = _parsed(line, where, scoring, since)
                if since is None or (time is not None and time >= since):
                    yield key, logged
    except BaseError as error:
        raise EspalierError(f"--log {target}: {_first_line(error)}") from None


def _parsed(
    line: bytes, where: str, scoring: Scoring[Any], since: datetime | None
) -> tuple[Key, datetime | None, Logged[Any]]:
    try:
        document = json.loads(line)
        key = (str(document["id"]), int(document["row"]))
        time = document.get("time")
        moment = None if time is None else datetime.fromisoformat(time)
        answer = scoring.prediction(document[scoring.column])
        interval = document.get("interval")
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        version = document.get("model_version", _UNKNOWN_VERSION)
    except KeyError as error:
        raise EspalierError(
            f"{where} has no {error.args[0]}: ESPALIER_PREDICTION_LOG_FIELDS must have id and {scoring.column} for a join"
        ) from None
    except (ValueError, TypeError, AttributeError, IndexError):
        raise EspalierError(f"{where} is no line of a prediction log") from None
    if since is not None and moment is None:
        raise EspalierError(
            f"{where} has no time, which --since needs: ESPALIER_PREDICTION_LOG_FIELDS has not got it"
        )
    return key, moment, Logged(time or "", version, answer, document.get("features") or {}, ends)


def _open(target: str) -> ObjectStore:
    from obstore.store import LocalStore, from_url

    if "://" not in target:
        folder = Path(target)
        if not folder.is_dir():
            raise EspalierError(f"--log {target}: there is no such directory")
        return LocalStore(folder.absolute())
    if not re.fullmatch(r"s3://[^/]+(/.*)?", target):
        raise EspalierError(f"--log {target}: it must be a directory or s3://BUCKET/PREFIX")
    return from_url(
        target,
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=30)},
        client_options={"allow_http": True, "connect_timeout": timedelta(seconds=5)},
    )


# ------------------------------------------------------------------------------ joining and scoring


def join(log: Iterator[tuple[Key, Logged[Any]]], truth: Truth) -> Join:
    """Look up each line of a log in the truth. Memory holds the truth and the matches, but not the log."""
    matched: dict[Key, tuple[Logged[Any], Any]] = {}
    rows: Counter[str] = Counter()
    repeated = 0
    for key, logged in log:
        rows[logged.version] += 1
        label = truth.labels.get(key)
        if label is None:
            continue
        former = matched.get(key)
        repeated += former is not None
        # The client used the last answer.
        if former is None or former[0].time <= logged.time:
            matched[key] = logged, label
    return Join(matched, rows, repeated, [key for key in truth.labels if key not in matched])


def score(joined: Join, scoring: Scoring[Any]) -> list[Score]:
    """The figures of each version that has labelled rows."""
    pairs: dict[str, list[tuple[Logged[Any], Any]]] = {}
    for logged, truth in joined.matched.values():
        pairs.setdefault(logged.version, []).append((logged, truth))
    return [
        Score(version, joined.rows[version], len(found), scoring.score(found))
        for version, found in sorted(pairs.items())
    ]


# ------------------------------------------------------------------------------ output


def publish(
    scores: list[Score],
    scoring: Scoring[Any],
    where: Mapping[str, str],
    *,
    textfile: Path | None = None,
    pushgateway: str | None = None,
) -> None:
    """Publish the scores for Prometheus, all with the labels `where`.

    Raises:
        EspalierError: the file cannot be written, or the gateway refuses them.
    """
    registry = CollectorRegistry()
    by = [*where, "model_version"]
    rows = Gauge(ROWS, "Rows of the prediction log whose truth is known.", by, registry=registry)
    show = scoring.gauges(registry, by)
    for each in scores:
        labels = {**where, "model_version": each.version}
        rows.labels(**labels).set(each.labelled)
        show(labels, each.figures)
    computed = Gauge(COMPUTED, "When the live figures were computed.", list(where), registry=registry)
    computed.labels(**where).set_to_current_time()
    if textfile is not None:
        try:
            # It writes under a temporary name and renames the file.
            write_to_textfile(str(textfile), registry)
        except OSError as error:
            raise EspalierError(f"--textfile {textfile}: {error.strerror}") from None
    if pushgateway is not None:
        try:
            push_to_gateway(pushgateway, JOB, registry, dict(where), timeout=30)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise EspalierError(f"--pushgateway {pushgateway} does not take the metrics: {reason}") from None


def write_rows(joined: Join, manifest: Manifest, scoring: Scoring[Any], file: Path) -> None:
    """Write the labelled rows as training data: features and target, named as in the schema.

    Raises:
        EspalierError: the log lacks a feature, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    names = [feature.name for feature in manifest.features]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    # In the order of the requests, so that the same log and truth make the same file.
    for (request_id, _), (logged, _) in sorted(joined.matched.items()):
        if lacking := [name for name in names if name not in logged.features]:
            raise EspalierError(
                f"--output: the log has no {', '.join(lacking)} of request {request_id}, and training needs all "
                "features: ESPALIER_PREDICTION_LOG_FEATURES must be all"
            )
        for name in names:
            columns[name].append(logged.features[name])
    types = {each.name: pa.float64() if each.type == "number" else pa.string() for each in manifest.features}
    arrays = {name: pa.array(columns[name], types[name]) for name in names}
    arrays[manifest.target] = pa.array(
        [truth for _, (_, truth) in sorted(joined.matched.items())], getattr(pa, scoring.type)()
    )
    try:
        # A mistyped folder must not be created.
        file.parent.stat()
        with files.replacing(file) as temporary:
            write = pa.csv.write_csv if file.suffix == ".csv" else pa.parquet.write_table
            write(pa.table(arrays), temporary)
    except OSError as error:
        raise EspalierError(f"--output {file}: {error.strerror or _first_line(error)}") from None


def _print_notes(truth: Truth, joined: Join, scoring: Scoring[Any], stream: Any) -> None:
    """Print a line for everything that does not count."""
    known = [
        (truth.unlabelled, f"rows of the truth have no id or no {scoring.column} and do not count"),
        (truth.repeated, "rows of the truth say once more what another one says and count once"),
        (
            len(truth.contradicted),
            f"rows have several {scoring.column}s and do not count: {_some(map(_named, sorted(truth.contradicted)))}",
        ),
        (
            truth.unknown.total(),
            f"{scoring.refusal}: {_some(map(str, sorted(truth.unknown)))}",
        ),
        (joined.repeated, "lines of the log have the id and row of another; the last one counts"),
        (
            len(joined.missing),
            f"labelled rows have no line in the log: {_some(map(_named, sorted(joined.missing)))}",
        ),
    ]
    for number, what in known:
        if number:
            print(f"note: {number} {what}", file=stream)


def _why_nothing(log: str, truth: Truth, joined: Join) -> str:
    if not truth.labels:
        return f"none of the {truth.rows} rows of the truth can be used"
    if not joined.rows:
        return f"the log {log} has no lines; is it the right place, and --since not too late?"
    return (
        f"none of the {len(truth.labels)} labelled rows has a line among the {joined.rows.total()} of the log: is it "
        "the right log, and are the truth's ids those of the answers' x-request-id?"
    )


def _show(scores: list[Score], scoring: Scoring[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("model version", "rows in log", "labelled", *scoring.heads):
        table.add_column(
            name, justify="right" if name in ("rows in log", "labelled") else "left", no_wrap=True
        )
    for each in scores:
        table.add_row(each.version, str(each.logged), str(each.labelled), *each.figures.cells())
    # A job's log has no width, so lines are not wrapped there.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _some(names: Iterator[str] | list[str]) -> str:
    every = list(names)
    return ", ".join(every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")


def _named(key: Key) -> str:
    return f"{key[0]} row {key[1]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _since(text: str) -> datetime:
    """A time, a day, or a length of time before now."""
    ago = re.fullmatch(r"(\d+)([hd])", text)
    if ago:
        return datetime.now(UTC) - int(ago[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1)}[ago[2]]
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is no time: write 2026-11-21, 2026-11-21T15:00 or 7d"
        ) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--log", required=True, metavar="DIR|s3://…", help="the value of ESPALIER_PREDICTION_LOG"
    )
    parser.add_argument("--truth", required=True, type=Path, metavar="FILE", help="a .csv or .parquet file")
    parser.add_argument(
        "--since",
        type=_since,
        metavar="TIME",
        help="only rows predicted since a time (UTC) or so long ago, e.g. 7d",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(os.environ.get("ESPALIER_MODEL_DIR", "model")),
        metavar="DIR",
        help="the bundle, for its classes and features (default: model)",
    )
    parser.add_argument("--environment", default="local", help="label of the metrics (default: local)")
    parser.add_argument("--textfile", type=Path, metavar="FILE.prom", help="write the metrics to this file")
    parser.add_argument("--pushgateway", metavar="URL", help="push the metrics there")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the labelled rows as training data (.csv or .parquet)",
    )
    return parser


if __name__ == "__main__":
    run(main)
