"""Measures a repository with thirty further models, of 600 to 6,000 rows each, on six different tables.

In a fresh clone: seconds of the commands that add another model, of `deploy.manifests` over the overlays of all models, of
`deploy.release status` after a few releases of each, of a first `dvc repro` over all models, of one that finds nothing to
do, and of one after a single parameter changed. Beside the one with nothing to do, DVC alone: stages with as many
dependencies and outputs, whose commands do nothing. DVC needs hours to write the locks of three hundred such stages, so two
sizes are measured, and their straight line gives the seconds of as many stages. Models on one table share what DVC's run
cache has of it, so the first run is shorter than thirty trainings; nothing else depends on that. Only the ratios mean
anything on another machine.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks import machine
from common import overlays
from common.git import git
from deploy.rehearsal.clone import commit_working_tree

RESULT = Path(__file__).parent / "results" / "monorepo.md"
ROWS = (600, 6000)
TABLES = 6
CHEAP = {"svm": "{C: 1.0}", "random_forest": "{n_estimators: 5}", "xgboost": "{n_estimators: 5}"}
"""Parameters in the drafted files: training itself is not what is measured."""
QUICK = {"parity_rows": 1000, "bootstrap": 100}
STAGES = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
RELEASES = 3
"""Of each model in each environment."""
DEPENDENCIES, OUTPUTS = 15, 5
"""Of a stage of this repository, on average."""
ALONE = (2, 8)
"""Models of ten stages each in the two measurements of DVC alone."""


@dataclass(frozen=True)
class Figures:
    models: int
    stages: int
    add: float
    changed: list[str]
    manifests: float
    releases: int
    status: float
    first: float
    nothing: float
    dvc: float
    one: float
    reran: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.monorepo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=int, default=30, help="further models to generate (30)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = _report(_measure(Path(folder), arguments.models))
    RESULT.write_text(report, encoding="utf-8")
    print(report)


def _measure(folder: Path, count: int) -> Figures:
    project = folder / "project"
    commit_working_tree(project)
    git("rm", "-rq", "models", cwd=project)
    for number in range(TABLES):
        _generate(folder / f"table-{number}.csv", number)
    for number in range(count):
        _add(project, folder, number)
        print(f"model {number + 1} of {count}", file=sys.stderr)
    _commit(project, "models")
    add = _add(project, folder, count)
    git("add", "-A", cwd=project)
    changed = git("diff", "--cached", "--name-only", "--diff-filter=M", "HEAD", cwd=project).splitlines()
    manifests, _ = machine.timed(project, [sys.executable, "-m", "deploy.manifests"])
    releases = _release(project, count + 1)
    status, _ = machine.timed(project, [sys.executable, "-m", "deploy.release", "status"])
    first, said = _repro(project)
    stages = len(STAGES.findall(said))
    nothing = min(_repro(project)[0] for _ in range(3))
    params = project / "models/m1/params.yaml"
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    document["train"]["algorithms"]["decision_tree"] = {"max_depth": 2}
    params.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    one, said = _repro(project)
    return Figures(
        models=count + 2,
        stages=stages,
        add=add,
        changed=changed,
        manifests=manifests,
        releases=releases,
        status=status,
        first=first,
        nothing=nothing,
        dvc=_dvc_alone(folder / "alone", stages),
        one=one,
        reran=STAGES.findall(said),
    )


def _generate(file: Path, number: int) -> None:
    """A table with four numbers, a category and two classes that they decide."""
    random = np.random.default_rng(number)
    rows = ROWS[0] + (ROWS[1] - ROWS[0]) * number // (TABLES - 1)
    values = random.normal(size=(rows, 4)).round(3)
    kind = random.choice(["a", "b", "c"], size=rows)
    label = np.where(values[:, 0] + (kind == "a") + random.normal(scale=0.3, size=rows) > 0.3, "yes", "no")
    frame = pd.DataFrame(values, columns=["one", "two", "three", "four"]).assign(kind=kind, label=label)
    frame.to_csv(file, index=False)


def _add(project: Path, folder: Path, number: int) -> float:
    source = folder / f"table-{number % TABLES}.csv"
    command = [
        sys.executable,
        "-m",
        "training.draft",
        str(source),
        "--target",
        "label",
        "--model",
        f"m{number}",
    ]
    seconds = sum(
        machine.timed(project, each)[0]
        for each in (command, [sys.executable, "-m", "deploy.overlay", f"m{number}"])
    )
    params = project / f"models/m{number}/params.yaml"
    text = params.read_text(encoding="utf-8")
    for name, block in CHEAP.items():
        text = text.replace(f"    {name}:\n", f"    {name}: {block}\n")
    params.write_text(
        text + f"\nevaluate: {yaml.safe_dump(QUICK, default_flow_style=True)}", encoding="utf-8"
    )
    return seconds


def _release(project: Path, count: int) -> int:
    """Commit releases of every model to both environments, each as the release tool writes it; returns their number."""
    revision = git("rev-parse", "HEAD", cwd=project).strip()
    for turn in range(RELEASES):
        for number in range(count):
            for environment in ("staging", "production"):
                digest = f"sha256:{turn * count + number:064x}"
                release = overlays.Release("registry.example.com/espalier", digest, f"v{turn}", revision)
                file = project / overlays.path(environment, f"m{number}")
                file.parent.mkdir(exist_ok=True)
                file.write_text(str(release), encoding="utf-8")
                _commit(project, f"Release m{number} v{turn} to {environment}")
    return RELEASES * count * 2


def _repro(project: Path) -> tuple[float, str]:
    return machine.timed(project, ["dvc", "repro", "--all-pipelines"])


def _dvc_alone(folder: Path, stages: int) -> float:
    """Seconds in which DVC finds nothing to do in so many stages, each with a file of ten for each model."""
    few, many = ALONE
    start, end = _nothing_to_do(folder / "few", few), _nothing_to_do(folder / "many", many)
    return start + (end - start) / (10 * (many - few)) * (stages - 10 * few)


def _nothing_to_do(folder: Path, models: int) -> float:
    folder.mkdir(parents=True)
    git("init", "-q", cwd=folder)
    machine.timed(folder, ["dvc", "init", "-q"])
    for number in range(DEPENDENCIES):
        (folder / f"code{number}").mkdir()
        (folder / f"code{number}/module.py").write_text(f"{number}\n", encoding="utf-8")
    deps = [f"../code{number}" for number in range(DEPENDENCIES)]
    for model in range(models):
        document = {}
        for number in range(10):
            outs = [f"out{number}-{each}" for each in range(OUTPUTS)]
            document[f"stage{number}"] = {"cmd": f"touch {' '.join(outs)}", "deps": deps, "outs": outs}
        (folder / f"m{model}").mkdir()
        (folder / f"m{model}/dvc.yaml").write_text(yaml.safe_dump({"stages": document}), encoding="utf-8")
    _repro(folder)
    return min(_repro(folder)[0] for _ in range(3))


def _commit(project: Path, message: str) -> None:
    git("add", "-A", cwd=project)
    git("-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-qm", message, cwd=project)


def _report(figures: Figures) -> str:
    limit = max(6.0, 1.5 * figures.dvc)
    rows = [
        ("add a model, overlays included", f"{figures.add:.1f} s", "one command"),
        ("files that this changed", ", ".join(figures.changed) or "none", "CODEOWNERS"),
        (
            f"`deploy.manifests`, {figures.models} models in two environments",
            f"{figures.manifests:.1f} s",
            "at most 60 s",
        ),
        (
            f"`deploy.release status` after {figures.releases} releases",
            f"{figures.status:.1f} s",
            "at most 3 s",
        ),
        (f"`dvc repro` over all, first time, {figures.stages} stages", f"{figures.first:.0f} s", ""),
        ("`dvc repro` over all, nothing to do", f"{figures.nothing:.1f} s", f"at most {limit:.1f} s"),
        ("DVC alone with as many stages (extrapolated)", f"{figures.dvc:.1f} s", ""),
        ("after one parameter of one model", f"{figures.one:.1f} s", ""),
        ("stages that this ran", ", ".join(figures.reran), "at most 3"),
    ]
    lines = [f"| {what} | {value} | {goal} |" for what, value, goal in rows]
    return "\n".join(
        [
            f"# A repository with {figures.models} models",
            "",
            "| | measured | aim |",
            "|---|---|---|",
            *lines,
            "",
            f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine.cpu()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}, {machine.versions(('dvc',))}. "
            "Repeat with `python -m benchmarks.monorepo`.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
