"""What a pattern means, and that a file is there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.batch.errors import BatchError
from app.batch.places import matcher, place_of, split_pattern


@pytest.mark.parametrize(
    ("given", "place", "pattern"),
    [
        ("s3://b/in/*.parquet", "s3://b/in/", "*.parquet"),
        ("s3://b/*.parquet", "s3://b/", "*.parquet"),
        ("s3://b/in/day=*/part-?.parquet", "s3://b/in/", "day=*/part-?.parquet"),
        ("s3://b/in/part.parquet", "s3://b/in/", "part.parquet"),
        ("s3://b/in", "s3://b/in", "**/*.parquet"),
        ("gs://b", "gs://b", "**/*.parquet"),
        ("data/*.parquet", "data/", "*.parquet"),
        ("*.parquet", ".", "*.parquet"),
        ("/data/a.parquet", "/data/", "a.parquet"),
        ("data", "data", "**/*.parquet"),
    ],
)
def test_an_input_is_a_place_and_a_pattern(given: str, place: str, pattern: str) -> None:
    assert split_pattern(given) == (place, pattern)


@pytest.mark.parametrize(
    ("pattern", "meant", "others"),
    [
        ("*.parquet", ["a.parquet"], ["b/a.parquet", "_a.parquet", ".a.parquet", "a.csv", "aparquet"]),
        (
            "**/*.parquet",
            ["a.parquet", "b/c/a.parquet"],
            ["_done/a.parquet", "b/.c/a.parquet", "b/_a.parquet"],
        ),
        (
            "day=*/p?.parquet",
            ["day=1/p1.parquet", "day=/p_.parquet"],
            ["day=1/p12.parquet", "day=1/2/p1.parquet"],
        ),
        ("_a+[1].parquet", ["_a+[1].parquet"], ["_aa1.parquet"]),
    ],
)
def test_a_pattern_means_files(pattern: str, meant: list[str], others: list[str]) -> None:
    found = [each for each in [*meant, *others] if matcher(pattern).fullmatch(each)]
    assert found == meant


def test_other_schemes_are_refused() -> None:
    with pytest.raises(BatchError, match="--output ftp://host/x: it must be a folder, s3://BUCKET/PREFIX"):
        place_of("ftp://host/x", "--output")


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    place = place_of(str(tmp_path), "--output")
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), place.writing("a") as file:  # noqa: PT012
        file.write(b"half")
        file.flush()
        assert [each.path for each in place.files()] == ["a"]
        # Another process may clean while this one writes.
        place.clean()
        assert len(list(tmp_path.iterdir())) == 2
        raise ZeroDivisionError
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / "day=1" / ".a.parquet.x7.unfinished"
    left.parent.mkdir()
    left.write_bytes(b"half")
    (tmp_path / "day=1" / "a.parquet").write_bytes(b"whole")
    place_of(str(tmp_path), "--output").clean()
    assert [each.name for each in left.parent.iterdir()] == ["a.parquet"]
