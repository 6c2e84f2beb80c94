"""Time tracking in W&B and in MLflow without a server, in turns: `python -m benchmarks.tracking`. Needs `make` and MLflow's client.

A first call records the seven runs of the first model; a second one finds nothing to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import cpu, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/tracking.md"
TRACKERS = ("wandb", "mlflow")
FILES = ("params.yaml", "candidates", "model", "reports", "metrics")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for tracker in TRACKERS:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "model"
                folder.mkdir()
                for each in FILES:
                    copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copyfile
                    copy(ROOT / each, folder / each)
                for call in ("first", "second"):
                    taken.setdefault((tracker, call), []).append(_seconds(folder, tracker))
    lines = ["| call | W&B, s | MLflow, s | MLflow / W&B |", "|---|--:|--:|--:|"]
    for call in ("first", "second"):
        wandb, mlflow = (taken[tracker, call] for tracker in TRACKERS)
        ratios = [second / first for first, second in zip(wandb, mlflow, strict=True)]
        lines.append(
            f"| {call} | {statistics.median(wandb):.1f} | {statistics.median(mlflow):.1f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
        )
    text = "\n".join(
        [
            "# Tracking without a server",
            "",
            f"`python -m benchmarks.tracking`, {rounds} rounds, in turns, on {cpu()}; {versions(('wandb', 'mlflow-skinny'))}.",
            "",
            *lines,
            "",
        ]
    )
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


def _seconds(folder: Path, tracker: str) -> float:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_"))
    }
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "training.track", "--to", tracker],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
