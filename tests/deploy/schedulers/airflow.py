"""Airflow in an environment of its own, from the lock beside the DAG."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.clone import ROOT
from tests.tools import require

PROJECT = ROOT / "deploy/schedulers/airflow"


@dataclass(frozen=True)
class Airflow:
    """A home with an SQLite database, and the DAGs of a folder."""

    home: Path
    variables: dict[str, str]

    def python(self, script: str) -> str:
        """What a script prints that runs beside Airflow."""
        return subprocess.run(
            [str(self.home / "venv/bin/python"), "-c", script],
            env=self.variables,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    def run(self, *arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.home / "venv/bin/airflow"), *arguments],
            cwd=self.home,
            env={**self.variables, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"airflow {arguments}: {done.stdout[-5000:]}"
        return done


def install(home: Path, dags: Path, **variables: str) -> Airflow:
    """Install it and make its database."""
    uv = require("uv")
    home.mkdir(parents=True)
    subprocess.run(
        [uv, "sync", "--quiet", "--locked", "--project", str(PROJECT)],
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(home / "venv")},
        check=True,
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "VIRTUAL_ENV"))}
    airflow = Airflow(
        home,
        {
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **variables,
        },
    )
    airflow.run("db", "migrate")
    return airflow
