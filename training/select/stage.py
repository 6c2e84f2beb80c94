"""Choose the champion, check it against the gate and write the bundle that the service runs.

Reads  candidates/*/{model.onnx,explain.onnx,report.json}, data/test.parquet, data/profile.json,
       params.yaml (name, explain, train.algorithms, select, card)
Writes reports/leaderboard.{json,md}, MODEL_CARD.md and, if the gate passes, model/{model.onnx,model.json} with
       explain.onnx if predictions are explained

The cross-validated score chooses; the test split is reported with intervals and only the gate looks at it. The reports
are written before its verdict: after a refusal they show what was refused.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from app.contract import (
    EXPLANATION_FILE,
    MODEL_FILE,
    Bundle,
    DataOrigin,
    Example,
    Manifest,
    Score,
    write_bundle,
)
from app.moments import written
from common import files
from training.base import cli, config
from training.base.errors import DataError, GateError
from training.base.section import Settings
from training.data.columns import moments
from training.data.dataset import TEST_FILE, Profile, Split, read_profile, read_split
from training.results import leaderboard, report, scores
from training.results.board import LEADERBOARD_FILE
from training.results.leaderboard import CARD_FILE, MARKDOWN_FILE
from training.results.report import Report
from training.sections.algorithms import AlgorithmsSettings
from training.sections.card import CardSettings
from training.sections.explain import Explain
from training.sections.select import SelectSettings
from training.select import card, gate

log = logging.getLogger(__name__)

BUNDLE = Path("model")
EXAMPLES = 6
"""Approximate number of test rows in the bundle for people to try."""


class SelectStageSettings(Settings):
    name: str
    explain: Explain = "none"
    train: AlgorithmsSettings
    select: SelectSettings
    card: CardSettings


def main() -> None:
    cli.parser("training.select", __doc__).parse_args()
    settings = config.load(SelectStageSettings)
    _prune(settings.train.algorithms)
    profile = read_profile()
    test = read_split(TEST_FILE, profile)
    reports = [report.read(name) for name in settings.train.algorithms]
    competing = _explained(reports) if settings.explain != "none" else reports
    ranked, rule = leaderboard.rank(competing, settings.select.tie, settings.select.tie_log_loss)
    ranked += leaderboard.by_score([each for each in reports if each not in competing])
    champion = ranked[0]
    model = _read(champion, MODEL_FILE)
    latency = gate.latency(scores.of(profile.task).answerer(model, profile.layout), test)
    log.info("%s: %.3f ms for one row (median, this machine)", champion.algorithm, latency)
    missed = gate.missed(champion, latency, settings.select.gate)

    manifest = _manifest(settings.name, champion, profile, test).sealed()
    version = "" if missed else manifest.version
    board = leaderboard.build(settings.name, version, ranked, rule, profile, missed)
    files.write_text(LEADERBOARD_FILE, board.model_dump_json(indent=2) + "\n")
    files.write_text(MARKDOWN_FILE, leaderboard.as_markdown(board))
    files.write_text(CARD_FILE, card.render(manifest, champion, board, profile, settings.card))
    if missed:
        leaderboard.show(board)
        gate.refuse(champion.algorithm, missed.values())
    with files.replacing(BUNDLE) as temporary:
        temporary.mkdir()
        explanation = _read(champion, EXPLANATION_FILE) if champion.explained else None
        write_bundle(Bundle(manifest=manifest, model=model, explanation=explanation), temporary)
    log.info("champion: %s %s, %s", champion.algorithm, manifest.version, rule)
    if wrong := card.off_level(champion.interval):
        log.warning("warning: %s", wrong)
    if unwritten := card.unwritten(settings.card):
        log.warning("%s is not finished: write %s in params.yaml", CARD_FILE, " and ".join(unwritten))


def _prune(algorithms: Collection[str]) -> None:
    """Remove the folders of algorithms that params.yaml no longer has.

    DVC leaves them behind, and they would make this stage's inputs differ from those of a fresh clone.
    """
    for folder in [each.parent for each in report.CANDIDATES.glob("*/report.json")]:
        if folder.name not in algorithms:
            log.info("removing %s: params.yaml has no such algorithm any more", folder)
            shutil.rmtree(folder)
            report.metrics_file(folder.name).unlink(missing_ok=True)


def _explained(reports: Sequence[Report]) -> list[Report]:
    """Those whose predictions can be explained.

    Raises:
        GateError: there are none.
    """
    found = [each for each in reports if each.explained]
    if not found:
        reasons = "; ".join(f"{each.algorithm}: {each.unexplained}" for each in reports)
        raise GateError(
            f"explain: shap needs a model that can be explained, and there is none ({reasons}): add one such as "
            f"logistic_regression, ridge or xgboost under train.algorithms, or write `explain: none`"
        )
    return found


def _read(champion: Report, name: str) -> bytes:
    path = report.directory(champion.algorithm) / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; run `dvc repro`") from None


def _manifest(name: str, champion: Report, profile: Profile, test: Split) -> Manifest:
    return Manifest(
        name=name,
        algorithm=champion.algorithm,
        target=profile.target,
        classes=profile.classes,
        class_shares=profile.class_shares,
        value=profile.value,
        interval=champion.interval,
        predicted=champion.predicted,
        decision=champion.decision,
        explanation=champion.explained.explanation if champion.explained else None,
        out_of_range=profile.out_of_range,
        cells=profile.cells,
        features=profile.features,
        metrics={
            "cv": {metric: Score(value=folds.mean) for metric, folds in champion.cv.items()},
            "train": champion.train,
            "test": champion.test,
        },
        data=DataOrigin(
            source=profile.origin.source,
            sha256=profile.origin.sha256,
            train_rows=profile.train_rows,
            test_rows=profile.test_rows,
        ),
        model=champion.model,
        examples=_examples(profile, test),
        partitioned=champion.partitioned,
        approximated=champion.approximated,
    )


def _examples(profile: Profile, test: Split) -> tuple[Example, ...]:
    """The first rows of each class, or rows from the lowest to the highest value."""
    layout = profile.layout
    dated = {
        each.name: (test.frame[each.name], each.timezone)
        for each in profile.features
        if each.type == "datetime"
    }
    chosen = []
    for row in _rows_of_classes(profile, test) if profile.classes else _rows_of_values(test):
        numbers = dict(zip(layout.numbers, test.numbers[row].tolist(), strict=True))
        categories = dict(zip(layout.categories, test.categories[row].tolist(), strict=True))
        values = {
            **numbers,
            **categories,
            **{
                name: None if (seen := moments(column.iloc[[row]], zone)[0]) is None else written(seen)
                for name, (column, zone) in dated.items()
            },
        }
        actual = test.target[row].item()
        chosen.append(
            Example(
                values={feature.name: _shown(values[feature.name]) for feature in profile.features},
                label=profile.classes[actual] if profile.classes else actual,
            )
        )
    return tuple(chosen)


def _rows_of_classes(profile: Profile, test: Split) -> Iterator[np.intp]:
    each = max(1, EXAMPLES // len(profile.classes))
    for index in range(len(profile.classes)):
        yield from np.flatnonzero(test.target == index)[:each]


def _rows_of_values(test: Split) -> Iterator[np.intp]:
    ranked = np.argsort(test.target, kind="stable")
    yield from ranked[np.unique(np.linspace(0, len(ranked) - 1, EXAMPLES).round().astype(int))]


def _shown(value: float | str | None) -> float | str | None:
    """A value as a request contains it: null where it is missing."""
    if value is None:
        return None
    missing = value == "" if isinstance(value, str) else np.isnan(value)
    return None if missing else value
