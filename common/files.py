"""Writes files so that a reader sees the old content or the new, never a part, and with the same bytes each time.

A file is written under a temporary name that ends in `.tmp` beside its destination, and then renamed. `.gitignore` and
`.dvcignore` exclude such names, so the remains of a killed process change nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or a directory, which replaces `path` at the end.

    If the body raises, `path` stays unchanged and the temporary path is removed. A file is replaced in one step, a
    directory in two renames, between which it is absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.former.tmp")
    _remove(temporary)
    try:
        yield temporary
        if path.is_file():
            shutil.copymode(path, temporary)
        if temporary.is_dir() and path.exists():
            # A directory cannot be renamed over one that has files in it.
            _remove(former)
            path.replace(former)
        temporary.replace(path)
    finally:
        _remove(temporary)
        _remove(former)


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Indented JSON in the order given. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        frame.to_parquet(temporary, engine="pyarrow", index=False)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """CSV with six decimals: enough for a plot, and the same text on every machine."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
