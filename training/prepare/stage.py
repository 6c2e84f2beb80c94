"""Checks the raw data and splits it: data/raw.parquet -> data/{train,test}.parquet, data/profile.json, reports/data.md.

The sections `schema` and `split` of params.yaml describe the data. One error lists every broken rule with the first
offending rows. Declared ranges are always checked here, because `out_of_range` concerns only requests to the service.
Columns that the schema does not name are left out.
"""

from __future__ import annotations

import logging

from pydantic import Field, ValidationError

from app.cells import PLAIN, Cells
from common import files
from training.base import cli, config
from training.base.errors import DataError
from training.base.progress import counted, step
from training.base.section import Settings
from training.data.dataset import (
    DATA_REPORT_FILE,
    ORIGIN_FILE,
    RAW_FILE,
    TEST_FILE,
    TRAIN_FILE,
    Origin,
    Profile,
    write_profile,
)
from training.data.table import ParquetTable, Table
from training.prepare import describe, leakage, summary
from training.prepare.checks import Checked, check
from training.prepare.slices import with_slices
from training.prepare.split import check_size, division, split, with_places
from training.results import leaderboard
from training.sections.data import DataSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.schema import SchemaSettings
from training.sections.split import SplitSettings

log = logging.getLogger(__name__)


class PrepareSettings(Settings):
    data: DataSettings
    data_schema: SchemaSettings = Field(alias="schema")
    split: SplitSettings
    evaluate: EvaluateSettings


def main() -> None:
    cli.parser("training.prepare", __doc__).parse_args()
    settings = config.load(PrepareSettings)
    schema = settings.data_schema
    raw, origin = read_raw()
    leaderboard.discard(origin.source, schema.target, schema.task)
    checked = check(raw, schema, settings.data.cells)
    with step("split", len(checked.frame)):
        frame = with_places(checked.frame, raw, settings.split, settings.data.cells, schema.weight)
        frame = with_slices(frame, raw, settings.evaluate.slices, settings.data.cells)
        train, test = split(frame, schema.target, settings.split)
        check_size(train, test, checked.classes, schema, settings.evaluate.folds)
    profile = resolve(checked, schema, origin, train, test, settings.data.cells)
    with step("signs of leakage", len(frame)):
        profile = profile.model_copy(
            update={
                "division": division(train, test, settings.split, len(frame)),
                "leakage": leakage.signs(profile, train, test, settings.split.group),
            }
        )
    with step(f"{TRAIN_FILE} and {TEST_FILE}", len(train) + len(test)):
        train.write(TRAIN_FILE)
        test.write(TEST_FILE)
    write_profile(profile)
    used = {schema.weight, settings.split.time, settings.split.group, *settings.evaluate.slices}
    left_out = [each for each in checked.left_out if each not in used]
    with step(f"{DATA_REPORT_FILE}", len(frame)):
        files.write_text(DATA_REPORT_FILE, summary.render(profile, train, test, left_out))
    if left_out:
        log.info("left out, because the schema does not name them: %s", ", ".join(left_out))
    if checked.duplicates_dropped:
        log.info("duplicate rows dropped: %s", f"{checked.duplicates_dropped:,}")
    for sentence in (*profile.losses(), *profile.leakage):
        log.warning("warning: %s", sentence)
    log.info(
        "prepared %s rows: %s to train, %s to test -> %s",
        *(f"{each:,}" for each in (profile.rows, len(train), len(test))),
        DATA_REPORT_FILE,
    )


def read_raw() -> tuple[ParquetTable, Origin]:
    try:
        return ParquetTable(RAW_FILE), Origin.model_validate_json(ORIGIN_FILE.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot use {RAW_FILE} and {ORIGIN_FILE}: {error}; run `dvc repro fetch`") from None


def resolve(
    checked: Checked,
    schema: SchemaSettings,
    origin: Origin,
    train: Table,
    test: Table,
    cells: Cells = PLAIN,
) -> Profile:
    """Fill in what the schema leaves to the data."""
    frame = checked.frame
    bins = describe.bins_for(len(schema.features))
    shares = train[schema.target].value_counts(normalize=True)
    value = None
    if schema.value is not None:
        value = describe.number(schema.target, schema.value, train[schema.target], frame[schema.target])
    return Profile(
        origin=origin,
        target=schema.target,
        classes=checked.classes,
        class_shares=tuple(float(shares[name]) for name in checked.classes),
        value=value,
        out_of_range=schema.out_of_range,
        features=tuple(
            describe.feature(name, each, train[name], frame[name], bins)
            for name, each in counted(schema.features.items(), "description", "columns", len(frame))
        ),
        rows=len(train) + len(test),
        duplicates_dropped=checked.duplicates_dropped,
        equal_rows=checked.equal_rows,
        without_target=checked.without_target,
        classes_dropped=checked.classes_dropped,
        cells=cells,
        train_rows=len(train),
        test_rows=len(test),
        missing={name: int(frame[name].isna().sum()) for name in schema.features},
    )
