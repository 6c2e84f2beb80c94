from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common import files
from tests.training.rows import mixed
from training.base.errors import DataError
from training.data import dataset


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_prepare_writes_is_what_later_stages_read() -> None:
    profile, split = mixed()
    dataset.write_profile(profile)
    files.write_parquet(dataset.TRAIN_FILE, split.frame)
    assert dataset.read_profile() == profile
    again = dataset.read_split(dataset.TRAIN_FILE, profile)
    np.testing.assert_array_equal(again.numbers, split.numbers)
    np.testing.assert_array_equal(again.categories, split.categories)
    np.testing.assert_array_equal(again.target, split.target)
    assert len(again) == len(split.frame)


def test_missing_is_nan_for_a_number_and_empty_for_a_category() -> None:
    profile, split = mixed()
    parts = ("seen.year", "seen.month", "seen.weekday", "seen.hour", "seen.elapsed")
    assert profile.layout.numbers == ("length", "width", *parts)
    assert profile.layout.categories == ("colour",)
    assert np.isnan(split.numbers[:, 0]).sum() == profile.missing["length"] > 0
    assert np.isnan(split.numbers[:, 2:]).sum() == 5 * profile.missing["seen"] > 0
    assert (split.categories[:, 0] == "").sum() == profile.missing["colour"] > 0
    assert {type(each) for each in split.categories[:, 0]} == {str}


def test_a_missing_or_mixed_up_file_says_what_to_run() -> None:
    profile, _ = mixed()
    with pytest.raises(DataError, match=r"data/profile.json.*dvc repro prepare"):
        dataset.read_profile()
    with pytest.raises(DataError, match=r"data/train.parquet.*dvc repro prepare"):
        dataset.read_split(dataset.TRAIN_FILE, profile)
    document = json.loads(profile.model_dump_json())
    document["features"][0]["edges"] = [3, 2]
    files.write_json(dataset.PROFILE_FILE, document)
    with pytest.raises(DataError, match="dvc repro prepare"):
        dataset.read_profile()
