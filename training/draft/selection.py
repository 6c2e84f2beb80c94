"""Drafts the sections select and card of params.yaml: the thresholds for a model of this data, and its description.

Two quick models are cross-validated on the drafted data. A champion must get halfway from guessing to the better of
them, less where the test split is so small that chance alone could cost it the difference. This module drafts the
thresholds for classes, and `quantity` those for a regression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from app.contract import columns_of
from training.base.documents import parse_yaml
from training.base.section import Settings
from training.data.dataset import Origin, Profile, Split, as_split
from training.draft import document, quantity, quick, target, yaml_text
from training.fetch.stage import fetch
from training.prepare import split as division
from training.prepare import stage as prepare
from training.prepare.checks import check
from training.results import scores
from training.sections.card import TO_BE_WRITTEN
from training.sections.data import DataSettings
from training.sections.evaluate import EvaluateSettings
from training.sections.metrics import LOWER_IS_BETTER, METRICS, Metric
from training.sections.schema import SchemaSettings
from training.sections.select import SelectSettings
from training.sections.split import SplitSettings

SMALLEST_TIE = 0.005
RARE = 0.1
"""Share of the rarer of two classes below which its threshold may be drafted."""
TREES, LEAVES = 200, 256
"""Trees of the largest forest that the drafted limit of size allows."""

MOST_ROWS = 500_000
"""On which a draft is made; of more rows, so many at random."""


@dataclass(frozen=True)
class Baseline:
    """Scores of guessing and of the better quick model.

    Attributes:
        name: of the better one.
        rows: it was cross-validated on.
        f1: its macro F1.
        accuracy: its accuracy.
        guess: the macro F1 of guessing, which is one over the number of classes.
        majority: the accuracy of always answering with the most frequent class.
        entropy: the log loss of always answering with the classes' shares.
    """

    name: str
    rows: int
    f1: float
    accuracy: float
    guess: float
    majority: float
    entropy: float


class _Drafted(Settings):
    data: DataSettings
    data_schema: SchemaSettings = Field(alias="schema")
    split: SplitSettings | None = None


@dataclass(frozen=True)
class Prepared:
    """The drafted data, read and split as the pipeline will do it."""

    profile: Profile
    train: Split
    test: Split


def sections(drafted: str) -> str:
    """Write the two sections as YAML, from the sections data and schema."""
    return render(prepared(drafted))


def prepared(drafted: str) -> Prepared:
    """Read the source as the sections data and schema say, and split it as `split` does, there or in params.yaml."""
    settings = _Drafted.model_validate(
        {
            key: value
            for key, value in parse_yaml(drafted, spelling=True).items()
            if key in ("data", "schema", "split")
        }
    )
    data, schema = settings.data, settings.data_schema
    frame = fetch(data, MOST_ROWS)
    checked = check(frame, schema, data.cells)
    train, test = _divided(checked.frame, frame, settings)
    origin = Origin(source=data.source, sha256="0" * 64, rows=len(frame), columns=tuple(map(str, frame)))
    profile = prepare.resolve(checked, schema, origin, train, test, data.cells)
    return Prepared(profile, as_split(train, profile), as_split(test, profile))


def _divided(
    checked: pd.DataFrame, raw: pd.DataFrame, drafted: _Drafted
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test split as the pipeline makes them."""
    name, evaluation = drafted.data_schema.target, target.evaluation()
    split = drafted.split or evaluation.split
    if not {*document.columns_of(split)} <= {*raw.columns}:
        # They are of other data, and about to be removed.
        return division.split(checked, name, evaluation.drawn)
    placed = division.with_places(checked, raw, split, drafted.data.cells)
    return division.split(placed, name, split)


def render(data: Prepared) -> str:
    """The two sections."""
    profile, wanted = data.profile, target.evaluation().evaluate.score
    # A score of another task is about to be removed.
    score = EvaluateSettings(score=wanted if wanted in METRICS[profile.task] else None).score_of(profile.task)
    if profile.task == "regression":
        select = quantity.lines(
            quantity.measure(profile, data.train), profile, data.test.target, score, _limits(profile)
        )
    else:
        counts = np.bincount(data.test.target, minlength=len(profile.classes))
        select = _select(measure(profile, data.train), profile, counts, score)
    return "\n".join([*select, "", *_card(profile)]) + "\n"


def measure(profile: Profile, split: Split) -> Baseline:
    """The better of the quick models."""
    split, predictions = quick.predictions(profile, split)
    best: tuple[float, float, str] = (-1.0, 0.0, "")
    for name, predicted in predictions.items():
        certain = np.eye(len(profile.classes))[predicted]
        found = scores.point(scores.of("classification"), split.target, (predicted, certain))
        best = max(best, (found["f1_macro"], found["accuracy"], name))
    shares = np.array(profile.class_shares)
    return Baseline(
        name=best[2],
        rows=len(split),
        f1=best[0],
        accuracy=best[1],
        guess=1 / len(shares),
        majority=float(shares.max()),
        entropy=float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
    )


def least(reached: float, guessed: float, deviation: float) -> float:
    """Halfway from guessing to the reached score, or two deviations below the latter if lower; at least guessing."""
    value = min((reached + guessed) / 2, reached - 2 * deviation)
    # Where chance costs less than a hundredth, rounding to hundredths would decide.
    steps = 100 if deviation >= 0.005 else 1000
    return max(math.floor(value * steps) / steps, math.ceil(guessed * steps - 1e-9) / steps)


def tie(baseline: Baseline, counts: NDArray[np.floating[Any]]) -> float:
    """One standard error of the score on so many rows of each class; at most a quarter of the gain over guessing.

    Models that differ by less differ by chance, so the simplest may win. On many rows this is SMALLEST_TIE.
    """
    most = (baseline.f1 - baseline.guess) / 4
    return max(SMALLEST_TIE, round(min(_deviation(baseline.f1, counts), most), 3))


def _deviation(f1: float, counts: NDArray[Any]) -> float:
    """The standard error of a macro F1 on so many rows of each class."""
    f1 = min(max(f1, 0.05), 0.95)
    return math.sqrt(float((f1 * (1 - f1) / np.maximum(counts, 1)).sum())) / len(counts)


def _select(baseline: Baseline, profile: Profile, counts: NDArray[np.int64], score: Metric) -> list[str]:
    rows, classes = int(counts.sum()), len(counts)
    f1_deviation = _deviation(baseline.f1, counts)
    trained = np.array(profile.class_shares) * profile.train_rows
    within = SMALLEST_TIE if score in LOWER_IS_BETTER else tie(baseline, trained)
    accuracy_deviation = math.sqrt(max(baseline.accuracy * (1 - baseline.accuracy), 0.01) / rows)
    minimum = {"f1_macro": (least(baseline.f1, baseline.guess, f1_deviation), baseline.guess, baseline.f1)}
    if baseline.accuracy - 2 * accuracy_deviation > baseline.majority:
        lowest = least(baseline.accuracy, baseline.majority, accuracy_deviation)
        minimum["accuracy"] = (lowest, baseline.majority, baseline.accuracy)
    rise = _up(baseline.entropy / 10)
    learnt = baseline.f1 - 2 * f1_deviation > baseline.guess
    return [
        *([] if learnt else _decision(profile)),
        "select:",
        "  # Scores closer than this to the best are a tie; the simpler model wins it. Drafted: what chance does to a",
        f"  # score on {profile.train_rows:,} training rows.",
        f"  tie: {within:g}",
        *(
            [f"  tie_log_loss: {rise:g}  # a tenth of the log loss of answering with the classes' shares"]
            if rise < SelectSettings.model_fields["tie_log_loss"].default
            else []
        ),
        "  gate:",
        f"    # Drafted: halfway from guessing to a quick {baseline.name}, cross-validated on {baseline.rows:,} rows, less",
        f"    # where chance on {rows:,} test rows could cost as much. Raise it to what the model is needed for.",
        *(
            []
            if learnt
            else ["    # The quick model is hardly better than guessing: there may be little to learn."]
        ),
        "    minimum:  # measured on the test split",
        *(
            f"      {metric}: {value:g}  # guessing {guessed:.3g}, quick model {reached:.3g}"
            for metric, (value, guessed, reached) in minimum.items()
        ),
        "    maximum:",
        f"      log_loss: {_up(baseline.entropy):g}  # of answering with the classes' shares, whatever the row",
        *_limits(profile),
        "    production:  # how much worse than the model in production, on the same rows",
        f"      maximum_drop:  # one row of the test split is {1 / rows:.2g} of the accuracy",
        f"        accuracy: {_up(max(0.01, 1 / rows)):g}",
        f"        f1_macro: {_up(max(0.01, 1 / (classes * max(int(counts.min()), 1)))):g}",
        f"      maximum_rise: {{log_loss: {rise:g}}}",
    ]


def _decision(profile: Profile) -> list[str]:
    """The section decision, if one of two classes is so rare that a model would hardly ever answer it."""
    share = min(profile.class_shares)
    if len(profile.classes) > 2 or share >= RARE:
        return []
    rare = profile.classes[profile.class_shares.index(share)]
    return [
        "decision:",
        f"  # {share:.1%} of the training rows are of {rare!r}, which a quick model hardly ever answers from 0.5.",
        "  threshold: tuned  # 0.5 | tuned",
        "",
    ]


def _limits(profile: Profile) -> list[str]:
    return [
        f"    maximum_latency_ms: {_latency(profile)}  # one row through the ONNX model, median",
        f"    maximum_bytes: {_bytes(profile)}  # room for {TREES} trees, or for every training row as a support vector",
    ]


def _latency(profile: Profile) -> int:
    """Milliseconds: a row with many features takes longer to convert and, with kernels, to compute."""
    return 5 + len(profile.features) // 50


def _bytes(profile: Profile) -> int:
    """Size of the largest model file that the algorithms are likely to make from this data; two digits."""
    width = sum(
        len(each.categories) + 1 if each.type == "category" else len(columns_of(each))
        for each in profile.features
    )
    classes = max(1, len(profile.classes))
    kernel = profile.train_rows * (width + classes) * 8
    forest = TREES * min(LEAVES, profile.train_rows) * (2 * 60 + 40 * classes)
    most = max(5_000_000, kernel + 500_000, forest)
    digits = len(str(most)) - 2
    return int(math.ceil(most / 10**digits) * 10**digits)


def _card(profile: Profile) -> list[str]:
    limits = [
        f"where the {profile.origin.rows:,} rows of {profile.origin.source} come from, and whom or what they do not cover.",
        "what it costs when the model is wrong, and who notices.",
    ]
    return [
        "card:",
        "  # What only a person can say. Until these are rewritten, MODEL_CARD.md says that it is not finished.",
        f"  intended_use: {yaml_text.text(f'{TO_BE_WRITTEN}: who uses the predictions of {profile.target}, for what, and for what not.')}",
        "  limits:",
        *(f"    - {yaml_text.text(f'{TO_BE_WRITTEN}: {each}')}" for each in limits),
    ]


def _up(value: float) -> float:
    return math.ceil(value * 100 - 1e-9) / 100
