from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import files


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def write() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half of the new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    code = (
        "import sys, time; from pathlib import Path; from common import files\n"
        "with files.replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_a_directory_takes_the_place_of_one_with_files_in_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("first", "second"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [each.name for each in path.iterdir()] == ["second"]


def test_a_directory_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever something is deleted, the new content is already in place."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("old")
    delete, seen = shutil.rmtree, []

    def watched(path: Path) -> None:
        seen.append({each.name: each.read_text() for each in folder.iterdir()})
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", watched)
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        for name in ("a", "b"):
            (temporary / name).write_text("new")
    assert seen == [{"a": "new", "b": "new"}]
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.touch(mode=0o700)
    files.write_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o700


def test_folders_are_made(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "result.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(allow_nan=False), st.text() | st.none()), min_size=1))
def test_the_same_frame_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("frames")
    frame = pd.DataFrame(rows, columns=["number", "text"]).astype({"text": "str"})
    for suffix, write in (("parquet", files.write_parquet), ("csv", files.write_csv)):
        first, second = folder / f"1.{suffix}", folder / f"2.{suffix}"
        write(first, frame)
        write(second, frame)
        assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "1.parquet"), frame)
