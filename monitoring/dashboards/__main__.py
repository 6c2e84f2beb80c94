"""Writes the dashboards' JSON, or with `--check` names the files that are not what the Python says."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import files
from common.command import run
from monitoring.dashboards import FOLDER, generate
from monitoring.errors import MonitoringError


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.dashboards", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    options = parser.parse_args()
    generated = generate()
    differing = [path for path, text in generated.items() if _read(path) != text]
    # A file that nobody builds any more would still be given to Grafana.
    left = sorted(path for path in FOLDER.glob("*.json") if path not in generated)
    if options.check:
        if differing or left:
            names = ", ".join(path.name for path in sorted([*differing, *left]))
            raise MonitoringError(f"{names} in {FOLDER.name}/ differ from the Python: run `make dashboards`")
        return
    for path in differing:
        files.write_text(path, generated[path])
        print(f"wrote {path.name}")
    for path in left:
        path.unlink()
        print(f"removed {path.name}")


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    run(main)
