"""Ground truth joined to a log that the real service wrote, told to a real Pushgateway."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import binomtest

from app.contract import Manifest
from common.errors import EspalierError
from monitoring import labels
from monitoring.labels import JOB, main, read_log
from monitoring.scores import Accuracy, Classes, Logged, wilson
from tests.app.processes import PATIENCE, ROOT, running
from tests.buckets import BUCKET, bucket
from tests.bundles import (
    MARGIN,
    PLANT_CLASSES,
    harvest_row,
    mixed_row,
    write_harvest_bundle,
    write_mixed_bundle,
    write_number_bundle,
)
from tests.tools import free_port, require

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
ROWS = [
    mixed_row(4.9, 3.0, "clay", "2024-05-01T14:30:00+02:00"),
    mixed_row(None, 7.9, "sand", "2024-12-24T23:15:00+01:00"),
    mixed_row(12.0, 60.0, None),
]


with TemporaryDirectory() as _folder:
    PLANTS = Classes(write_mixed_bundle(Path(_folder)))


class World:
    """A bundle, a log and a truth to be put together."""

    def __init__(self, folder: Path, write: Callable[[Path], Manifest] = write_mixed_bundle) -> None:
        self.folder = folder
        self.model, self.log = folder / "model", folder / "log"
        self.model.mkdir()
        self.manifest = write(self.model)
        self.truth_file = folder / "truth.csv"

    def logged(self, *lines: dict[str, Any], day: str = "2026-11-21", name: str = "a") -> None:
        file = self.log / f"date={day}" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def truth(self, *rows: str, head: str = "id,label") -> None:
        self.truth_file.write_text("\n".join((head, *rows)) + "\n")

    def run(self, *more: str | Path) -> None:
        given_options = ("--log", self.log, "--truth", self.truth_file, "--model", self.model, *more)
        main([str(each) for each in given_options])


def line(request_id: str, label: str = "no", row: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": request_id,
        "row": row,
        "time": "2026-11-21T10:00:00.000+00:00",
        "model_version": "v1",
        "label": label,
        **more,
    }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def parsed(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def post(url: str, body: object, request_id: str) -> None:
    head = {"content-type": "application/json", "x-request-id": request_id}
    request = urllib.request.Request(url, json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.headers["x-request-id"] == request_id


def ask_the_service(model: Path, target: str | Path) -> None:
    """Three single rows and one request of three rows, in the log when this returns."""
    with running(model, prediction_log=target) as service:
        for index, row in enumerate(ROWS):
            post(f"{service.url}/predict", row.values, f"one-{index}")
        post(f"{service.url}/predict", {"instances": [row.values for row in ROWS]}, "many")


# ------------------------------------------------------------------------------ with the real service


@pytest.mark.slow
def test_what_the_service_logged_is_scored_told_and_kept_for_training(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_the_service(world.model, world.log)
    answers = [row.label for row in ROWS]
    wrong = {"no": "yes", "yes": "no"}
    rows = [f"one-{index},0,{label}" for index, label in enumerate(answers)]
    rows += [f"many,{index},{label}" for index, label in enumerate(answers[:2])] + [
        f"many,2,{wrong[answers[2]]}"
    ]
    world.truth(*rows, head="id,row,label")
    textfile, output = world.folder / "live.prom", world.folder / "live.csv"

    world.run("--textfile", textfile, "--output", output, "--environment", "staging")

    series = parsed(textfile.read_text())
    about = {"model_version": world.manifest.version, "model": world.manifest.name, "environment": "staging"}
    assert value(series, "model_live_accuracy_ratio", **about) == pytest.approx(5 / 6)
    assert value(series, "model_live_labelled_rows", **about) == 6
    truth = answers + answers[:2] + [wrong[answers[2]]]
    for name in PLANT_CLASSES:
        right = [a == t for a, t in zip(answers * 2, truth, strict=True) if t == name]
        share = value(series, "model_live_recall_ratio", **about, **{"class": name})
        assert share == pytest.approx(sum(right) / len(right))
    assert (
        abs(
            value(
                series,
                "model_live_computed_timestamp_seconds",
                environment="staging",
                model=world.manifest.name,
            )
            - time.time()
        )
        < 60
    )
    told = capsys.readouterr().out
    assert world.manifest.version in told
    assert "83.3% (43.6% to 97.0%)" in told
    assert "6 labelled rows are in" in told
    assert {path.name for path in world.folder.iterdir()} == {
        "model",
        "log",
        "truth.csv",
        "live.prom",
        "live.csv",
    }

    as_text = pa.csv.ConvertOptions(column_types={"sown": pa.string()}, strings_can_be_null=True)
    table = pa.csv.read_csv(output, convert_options=as_text)
    assert table.column_names == [*(each.name for each in world.manifest.features), world.manifest.target]
    many = [{**row.values, world.manifest.target: label} for row, label in zip(ROWS, truth[3:], strict=True)]
    found = [{key: None if each == "" else each for key, each in row.items()} for row in table.to_pylist()]
    assert found[:3] == many


@pytest.mark.slow
def test_the_rows_for_training_keep_the_schema_that_the_service_has(world: World) -> None:
    """As `fetch` would read them, and `prepare` check them."""
    from training.fetch import sources
    from training.prepare.checks import check
    from training.sections.schema import SchemaSettings

    ask_the_service(world.model, world.log)
    truth = [*(f"one-{index},0,{row.label}" for index, row in enumerate(ROWS))]
    truth += [f"many,{index},{row.label}" for index, row in enumerate(ROWS)]
    world.truth(*truth, head="id,row,label")
    schema = SchemaSettings.model_validate(
        {
            "target": world.manifest.target,
            "classes": PLANT_CLASSES,
            "min_rows_per_class": 2,
            "duplicates": "keep",
            "features": {
                feature.name: {"type": feature.type, "missing": 0.5} for feature in world.manifest.features
            },
        }
    )
    for name in ("live.csv", "live.parquet"):
        world.run("--output", world.folder / name)
        checked = check(sources.read(str(world.folder / name)), schema)
        assert checked.left_out == ()
        frame = checked.frame
        assert frame[world.manifest.target].tolist() == [row.label for row in ROWS] * 2
        assert frame["age"].tolist() == [row.values["age"] for row in ROWS] * 2
        sown = [None if each is pd.NaT else each for each in frame["sown"]]
        assert (
            sown == [moment and pd.Timestamp(moment) for moment in (row.values["sown"] for row in ROWS)] * 2
        )
        assert frame.isna().sum().to_dict() == {
            "Höhe (cm)": 2,
            "age": 0,
            "soil type": 2,
            "sown": 2,
            world.manifest.target: 0,
        }


@pytest.mark.slow
def test_a_log_in_a_bucket_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket(world.folder / "s3") as environment:
        for name, each in environment.items():
            monkeypatch.setenv(name, each)
        target = f"s3://{BUCKET}/predictions"
        ask_the_service(world.model, target)
        assert len(list(read_log(target, PLANTS))) == 6
        with pytest.raises(EspalierError, match=r"^--log s3://nowhere: "):
            list(read_log("s3://nowhere", PLANTS))


# ------------------------------------------------------------------------------ values


@pytest.fixture
def harvests(tmp_path: Path) -> World:
    return World(tmp_path, write_harvest_bundle)


def valued(request_id: str, number: float, **more: Any) -> dict[str, Any]:
    made = line(request_id, **{"value": number, "interval": [number - MARGIN, number + MARGIN], **more})
    return {name: each for name, each in made.items() if name != "label"}


@pytest.mark.slow
def test_values_that_the_service_logged_are_scored_and_kept_for_training(
    harvests: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_the_service(harvests.model, harvests.log)
    rows = [harvest_row(*row.values.values()) for row in ROWS]  # type: ignore[arg-type]
    errors = [0.5, -1.0, 2.0, 0.0, 4.0, MARGIN]
    keys = [*(f"one-{index},0" for index in range(3)), *(f"many,{index}" for index in range(3))]
    truth = [row.value + error for row, error in zip(rows * 2, errors, strict=True)]
    pairs = [f"{key},{value!r}" for key, value in zip(keys, truth, strict=True)]
    harvests.truth(*pairs, head="id,row,value")
    textfile, output = harvests.folder / "live.prom", harvests.folder / "live.parquet"

    harvests.run("--textfile", textfile, "--output", output)

    series = parsed(textfile.read_text())
    about = {"model_version": harvests.manifest.version, "model": "harvests", "environment": "local"}
    assert value(series, "model_live_labelled_rows", **about) == 6
    assert value(series, "model_live_mean_absolute_error", **about) == pytest.approx(10 / 6)
    squared = sum(each * each for each in errors) / 6
    assert value(series, "model_live_root_mean_squared_error", **about) == pytest.approx(squared**0.5)
    assert value(series, "model_live_interval_coverage_ratio", **about) == pytest.approx(5 / 6)
    assert not [name for name, _ in series if "accuracy" in name or "recall" in name]
    told = capsys.readouterr().out
    assert "1.667 kg" in told
    assert "83.3% (43.6% to 97.0%)" in told
    table = pa.parquet.read_table(output)
    assert table.column_names == [*(each.name for each in harvests.manifest.features), "harvest"]
    assert table.column("harvest").type == pa.float64()
    assert sorted(table.column("harvest").to_pylist()) == sorted(truth)


def test_a_log_without_intervals_has_no_coverage(harvests: World, capsys: pytest.CaptureFixture[str]) -> None:
    harvests.logged(valued("a", 3.0, interval=None))
    harvests.truth("a,4", head="id,value")
    textfile = harvests.folder / "live.prom"
    harvests.run("--textfile", textfile)
    about = {"model_version": "v1", "model": "harvests", "environment": "local"}
    series = parsed(textfile.read_text())
    assert value(series, "model_live_mean_absolute_error", **about) == 1
    assert ("model_live_interval_coverage_ratio", frozenset(about.items())) not in series
    assert "not in the log" in capsys.readouterr().out


def test_whatever_does_not_count_of_values_is_said(
    harvests: World, capsys: pytest.CaptureFixture[str]
) -> None:
    harvests.logged(valued("a", 3.0), valued("zero", 0.5))
    harvests.truth("a,4", "a,4.0", "zero,0", "both,1", "both,2", "odd,inf", "blank,", head="id,value")
    harvests.run()
    assert capsys.readouterr().err.splitlines() == [
        "note: 1 rows of the truth have no id or no value and do not count",
        "note: 1 rows of the truth say once more what another one says and count once",
        "note: 1 rows have several values and do not count: both row 0",
        "note: 1 values are not finite and do not count: inf",
    ]


@pytest.mark.parametrize(
    ("head", "row", "logged", "said"),
    [
        (
            "id,label",
            "a,1",
            {},
            "has no column value, but id, label; the truth has the columns id, value and",
        ),
        ("id,value", "a,much", {}, "cannot be read as a table: .*much"),
        ("id,value", "a,1", {"value": "much"}, "line 1 is no line of a prediction log"),
        ("id,value", "a,1", {"interval": [1]}, "line 1 is no line of a prediction log"),
    ],
)
def test_values_that_cannot_be_read_are_one_line(
    harvests: World, head: str, row: str, logged: dict[str, Any], said: str
) -> None:
    harvests.logged(valued("a", 3.0, **logged) | logged)
    harvests.truth(row, head=head)
    with pytest.raises(EspalierError, match=said):
        harvests.run()


def test_the_log_of_a_classification_has_no_values(harvests: World) -> None:
    harvests.logged(line("a"))
    harvests.truth("a,1", head="id,value")
    with pytest.raises(EspalierError, match="FIELDS must have id and value for a join"):
        harvests.run()


# ------------------------------------------------------------------------------ the Pushgateway


@pytest.fixture(scope="module")
def pushgateway() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [require("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}"],
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(f"{url}/-/ready"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def test_a_pushgateway_gets_the_figures_by_environment_and_forgets_the_former(
    world: World, pushgateway: str
) -> None:
    def pushed() -> Series:
        with urllib.request.urlopen(f"{pushgateway}/metrics", timeout=PATIENCE) as answer:
            every = parsed(answer.read().decode())
        return {key: number for key, number in every.items() if key[0].startswith("model_live_")}

    world.logged(line("a", "no"), line("b", "yes", model_version="v2"))
    world.truth("a,no", "b,no")
    for environment in ("staging", "production"):
        world.run("--pushgateway", pushgateway, "--environment", environment)
    about = {"environment": "staging", "model": world.manifest.name, "job": JOB, "instance": ""}
    series = pushed()
    assert value(series, "model_live_accuracy_ratio", model_version="v1", **about) == 1
    assert value(series, "model_live_accuracy_ratio", model_version="v2", **about) == 0
    world.truth("a,no")
    world.run("--pushgateway", pushgateway, "--environment", "staging")
    versions = {
        (dict(key)["environment"], dict(key)["model_version"])
        for name, key in pushed()
        if name == "model_live_labelled_rows"
    }
    assert versions == {("staging", "v1"), ("production", "v1"), ("production", "v2")}


def test_a_pushgateway_that_is_away_is_one_line(world: World) -> None:
    world.logged(line("a"))
    world.truth("a,no")
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EspalierError, match=rf"^--pushgateway {url} does not take the metrics: .*refused"):
        world.run("--pushgateway", url)
    with pytest.raises(EspalierError, match=r"^--pushgateway ftp://x does not take the metrics: "):
        world.run("--pushgateway", "ftp://x")


# ------------------------------------------------------------------------------ what does not fit


def test_whatever_does_not_count_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.logged(
        line("a"),
        line("twice", "no"),
        line("twice", "yes", time="2026-11-21T11:00:00.000+00:00"),
        line("unlabelled"),
    )
    world.truth(
        "a,no",
        "a,no",
        "twice,yes",
        "gone,yes",
        "both,yes",
        "both,no",
        "odd,maybe",
        ",no",
        "blank,",
        "gone too,no",
    )
    textfile = world.folder / "live.prom"
    world.run("--textfile", textfile)
    assert capsys.readouterr().err.splitlines() == [
        "note: 2 rows of the truth have no id or no label and do not count",
        "note: 1 rows of the truth say once more what another one says and count once",
        "note: 1 rows have several labels and do not count: both row 0",
        "note: 1 labels are no class of the model and do not count: maybe",
        "note: 1 lines of the log have the id and row of another; the last one counts",
        "note: 2 labelled rows have no line in the log: gone row 0, gone too row 0",
    ]
    series = parsed(textfile.read_text())
    about = {"model_version": "v1", "model": world.manifest.name, "environment": "local"}
    assert value(series, "model_live_labelled_rows", **about) == 2
    assert value(series, "model_live_accuracy_ratio", **about) == 1


def test_of_equal_ids_the_last_line_counts_wherever_it_is(world: World) -> None:
    later = line("a", "yes", time="2026-11-21T11:00:00.000+00:00")
    world.truth("a,yes")
    textfile = world.folder / "live.prom"
    for first, second in ((later, line("a")), (line("a"), later)):
        world.logged(first, name="a")
        world.logged(second, name="b")
        world.run("--textfile", textfile)
        about = {"model_version": "v1", "model": world.manifest.name, "environment": "local"}
        assert value(parsed(textfile.read_text()), "model_live_accuracy_ratio", **about) == 1


def test_nothing_joined_is_an_error_that_leaves_the_figures_as_they_were(world: World) -> None:
    textfile = world.folder / "live.prom"
    textfile.write_text("former")

    def why() -> str:
        with pytest.raises(EspalierError) as caught:
            world.run("--textfile", textfile)
        return str(caught.value)

    world.logged(line("a"))
    world.truth("b,no")
    assert "none of the 1 labelled rows has a line among the 1 of the log" in why()
    world.truth("a,maybe")
    assert why() == "none of the 1 rows of the truth can be used"
    world.truth()
    assert why() == "none of the 0 rows of the truth can be used"
    world.truth("a,no")
    world.logged()
    assert "has no lines" in why()
    assert textfile.read_text() == "former"


def spoil(name: str) -> Callable[[World], None]:
    def truth(content: bytes, suffix: str = ".csv") -> Callable[[World], None]:
        def write(world: World) -> None:
            world.truth_file = world.folder / f"truth{suffix}"
            world.truth_file.write_bytes(content)

        return write

    def log(content: str) -> Callable[[World], None]:
        return lambda world: (world.log / "date=2026-11-21" / "a.jsonl").write_text(content) and None  # type: ignore[return-value]

    def remove_model(world: World) -> None:
        (world.model / "model.json").unlink()

    ways = {
        "no truth": lambda world: world.truth_file.unlink(),
        "an empty truth": truth(b""),
        "no label": truth(b"id,answer\na,no\n"),
        "a row that is no number": truth(b"id,row,label\na,first,no\n"),
        "no CSV": truth(b"id,label\na,no,1,2\n"),
        "no Parquet": truth(b"PAR1", ".parquet"),
        "another kind": truth(b"", ".xlsx"),
        "no log": lambda world: setattr(world, "log", world.folder / "nowhere"),
        "a log that is cut": log('{"id": "a", "ro'),
        "a log of something else": log("[1]\n"),
        "a log without labels": log('{"id": "a", "row": 0}\n'),
        "no model": remove_model,
        "another model.json": lambda world: (world.model / "model.json").write_text("{}") and None,
    }
    return ways[name]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no truth", r"truth\.csv: .*No such file"),
        ("an empty truth", r"truth\.csv cannot be read as a table: Empty CSV file"),
        (
            "no label",
            r"truth\.csv has no column label, but id, answer; the truth has the columns id, label and",
        ),
        ("a row that is no number", r"truth\.csv cannot be read as a table: .*first"),
        ("no CSV", r"truth\.csv cannot be read as a table: .*Expected 2 columns, got 4"),
        ("no Parquet", r"truth\.parquet cannot be read as a table: "),
        ("another kind", r"truth\.xlsx: it must end with \.csv or \.parquet"),
        ("no log", r"nowhere: there is no such directory"),
        ("a log that is cut", r"log/date=2026-11-21/a\.jsonl, line 1 is no line of a prediction log"),
        ("a log of something else", r"line 1 is no line of a prediction log"),
        (
            "a log without labels",
            r"line 1 has no label: ESPALIER_PREDICTION_LOG_FIELDS must have id and label",
        ),
        ("no model", r"model\.json: No such file or directory; `make pull TARGETS=model`"),
        ("another model.json", r"model\.json is no card of a model"),
    ],
)
def test_what_cannot_be_read_is_one_line(world: World, fault: str, said: str) -> None:
    world.logged(line("a"))
    world.truth("a,no")
    spoil(fault)(world)
    with pytest.raises(EspalierError, match=said) as caught:
        world.run()
    assert "\n" not in str(caught.value)


def test_training_needs_all_features(world: World) -> None:
    world.logged(line("a", features={"age": 3.0}))
    world.truth("a,no")
    with pytest.raises(
        EspalierError, match=r"no Höhe \(cm\), soil type, sown of request a.*FEATURES must be all"
    ):
        world.run("--output", world.folder / "live.csv")
    with pytest.raises(EspalierError, match=r"live\.txt: it must end with \.csv or \.parquet"):
        world.run("--output", world.folder / "live.txt")
    full = line("a", features={"age": 3.0, "Höhe (cm)": None, "soil type": "clay", "sown": None})
    world.logged(full)
    with pytest.raises(EspalierError, match=r"--output .*nowhere/live\.csv: "):
        world.run("--output", world.folder / "nowhere" / "live.csv")
    with pytest.raises(EspalierError, match=r"--textfile .*nowhere/live\.prom: No such file"):
        world.run("--textfile", world.folder / "nowhere" / "live.prom")


# ------------------------------------------------------------------------------ times, types, figures


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("2026-11-19", {"early", "midnight", "late"}),
        ("2026-11-21", {"midnight", "late"}),
        ("2026-11-21T10:00", {"late"}),
        ("2026-11-21T10:00:00+02:00", {"late"}),
        ("2026-11-22", set()),
    ],
)
def test_since_looks_at_the_lines_and_not_only_at_the_files(
    world: World, since: str, found: set[str]
) -> None:
    world.logged(
        line("early", time="2026-11-20T23:59:59.900+00:00"),
        # In a file of the day before, as its first line was.
        line("midnight", time="2026-11-21T00:00:00.100+00:00"),
        day="2026-11-20",
    )
    world.logged(line("late"))
    assert {key[0] for key, _ in read_log(str(world.log), PLANTS, labels._since(since))} == found


def test_since_may_be_relative_and_needs_times(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    day = str((now - timedelta(hours=1)).date())
    world.logged(line("a", time=(now - timedelta(hours=1)).isoformat()), day=day)
    assert len(list(read_log(str(world.log), PLANTS, labels._since("2h")))) == 1
    assert list(read_log(str(world.log), PLANTS, labels._since("0h"))) == []
    world.logged({"id": "a", "row": 0, "label": "no"}, day=day)
    assert len(list(read_log(str(world.log), PLANTS))) == 1
    with pytest.raises(EspalierError, match="has no time, which --since needs"):
        list(read_log(str(world.log), PLANTS, labels._since("2h")))
    with pytest.raises(SystemExit):
        world.run("--since", "yesterday")
    assert "yesterday is no time: write 2026-11-21" in capsys.readouterr().err


def test_ids_and_labels_of_digits_stay_text(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.logged(line("007"), line("7", "yes"))
    world.truth("007,no", "7,yes")
    textfile = world.folder / "live.prom"
    world.run("--textfile", textfile)
    about = {"model_version": "v1", "model": world.manifest.name, "environment": "local"}
    assert value(parsed(textfile.read_text()), "model_live_labelled_rows", **about) == 2
    # And in Parquet, where numbers are numbers.
    world.truth_file = world.folder / "truth.parquet"
    pa.parquet.write_table(
        pa.table({"id": [7], "row": pa.array([0], pa.int8()), "label": ["no"]}), world.truth_file
    )
    world.run("--textfile", textfile)
    assert value(parsed(textfile.read_text()), "model_live_accuracy_ratio", **about) == 0


@given(st.integers(1, 10**6).flatmap(lambda number: st.tuples(st.integers(0, number), st.just(number))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    right, number = counts
    expected = binomtest(right, number).proportion_ci(0.95, method="wilson")
    low, high = wilson(right, number)
    assert [low, high] == pytest.approx([expected.low, expected.high], abs=1e-12)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(PLANT_CLASSES), st.sampled_from("xy")
        ),
        max_size=12,
    ),
    st.dictionaries(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), st.sampled_from(PLANT_CLASSES)),
)
def test_scores_are_those_of_a_plain_count(
    lines: list[tuple[str, int, str, str]], known: dict[tuple[str, int], str]
) -> None:
    log = {(request_id, row): (label, version) for request_id, row, label, version in lines}
    truth = labels.Truth(dict(known), len(known))
    entries = (
        (key, Logged("", version, label, {}))
        for key, (label, version) in ((tuple(each[:2]), each[2:]) for each in lines)
    )
    joined = labels.join(entries, truth)  # type: ignore[arg-type]
    for each in labels.score(joined, PLANTS):
        pairs = [(log[key][0], known[key]) for key in log if key in known and log[key][1] == each.version]
        assert each.labelled == len(pairs)
        assert isinstance(each.figures, Accuracy)
        assert each.figures.right == sum(answer == label for answer, label in pairs)
        assert each.logged == sum(version == each.version for *_, version in lines)
    assert set(joined.missing) == set(known) - set(log)
    assert joined.repeated == sum(tuple(each[:2]) in known for each in lines) - len(set(log) & set(known))


def test_memory_holds_the_truth_and_not_the_log(world: World) -> None:
    """A line of the log that has no truth is counted and gone."""
    joined = labels.join(
        iter([((str(number), 0), Logged("", "v", "no", {})) for number in range(1000)]),
        labels.Truth({("5", 0): "no"}, 1),
    )
    assert len(joined.matched) == 1
    assert joined.rows == {"v": 1000}


def test_classes_are_those_of_the_model_that_is_given(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_number_bundle(world.model)
    world.logged(line("a", "setosa"))
    world.truth("a,no")
    with pytest.raises(EspalierError, match="none of the 1 rows of the truth can be used"):
        world.run()


def test_the_command_ends_with_one_line_and_1(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "monitoring.labels", "--log", str(world.log), "--truth", "truth.csv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ESPALIER_MODEL_DIR": str(world.model)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: truth.csv: ")
    assert len(done.stderr.splitlines()) == 1
    assert socket.gethostname() not in done.stderr
