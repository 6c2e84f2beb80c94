"""Two bundles on the same rows: their figures, the differences with intervals, and whether they compare at all.

Pure: `training.production` finds the bundles and the data, and this module compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.contract import Bundle, Feature, Frozen, Layout, Manifest, Score
from training.data.dataset import Profile, Split, as_split
from training.data.table import ParquetTable, frames
from training.results import figures, scores
from training.results.figures import TITLES, Answers, rounded, shown
from training.sections.evaluate import EvaluateSettings
from training.sections.metrics import LOWER_IS_BETTER, METRICS, Metric
from training.sections.select import ProductionGateSettings

ENOUGH_ROWS = 20
"""Rows that production was not trained on; with fewer, all rows are used, because what is left says nothing."""
ROUNDING = 1e-9
"""A drop of exactly the limit is allowed, although its floating-point difference may exceed it."""
SHOWN: tuple[Metric, ...] = ("accuracy", "f1_macro", "roc_auc", "log_loss", "cost", *METRICS["regression"])


class Side(Frozen):
    """One of the two models."""

    name: str
    algorithm: str
    version: str
    commit: str | None
    """None: of the working tree."""

    @classmethod
    def of(cls, manifest: Manifest, commit: str | None = None) -> Side:
        return cls(name=manifest.name, algorithm=manifest.algorithm, version=manifest.version, commit=commit)

    @property
    def called(self) -> str:
        return f"{self.algorithm} {self.version}"


class Figure(Frozen):
    metric: str
    production: Score
    candidate: Score
    difference: Score
    """Candidate less production, with the interval of the paired bootstrap."""
    allowed: float | None
    """How much worse it may be, None where nothing is demanded."""
    passes: bool


class Answered(Frozen):
    """How many rows the two answer alike, and who is right where they differ."""

    alike: int
    only_candidate_right: int
    only_production_right: int
    chance: float
    """How often equally good models would differ at least this unevenly (exact McNemar test)."""


class Comparison(Frozen):
    """How the champion stands to the model in production: what `training.production --json` writes."""

    passed: bool
    outcome: Literal["nothing_released", "same", "compared", "incomparable"]
    verdict: str
    """One sentence."""
    environment: str
    candidate: Side
    production: Side | None = None
    rows: int = 0
    """Compared."""
    confidence: float = 0.0
    """Of the intervals."""
    figures: tuple[Figure, ...] = ()
    answered: Answered | None = None
    missed: tuple[str, ...] = ()
    """Each rule that is broken, with figure and rule."""
    reasons: tuple[str, ...] = ()
    """Why nothing can be compared."""
    warnings: tuple[str, ...] = ()


class IncomparableError(Exception):
    """Two models cannot be compared."""

    def __init__(self, reasons: Sequence[str], production: Side) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)
        self.production = production


@dataclass(frozen=True)
class History:
    """What production's model was made from, as far as it is known.

    Attributes:
        test_now: digest of the test split that is compared on.
        test_then: digest of the one it was measured on, None if its revision does not say.
        train: the rows it was trained on; None if they are not needed or cannot be had.
        why_not: why they cannot be read.
    """

    test_now: str
    test_then: str | None
    train: ParquetTable | None = None
    why_not: str = ""

    @property
    def same_test(self) -> bool:
        return self.test_now == self.test_then


@dataclass(frozen=True)
class Rules:
    evaluate: EvaluateSettings
    production: ProductionGateSettings


def compare(
    candidate: Bundle,
    production: Bundle,
    commit: str,
    profile: Profile,
    test: Split,
    history: History,
    rules: Rules,
    environment: str,
) -> Comparison:
    """Score both on the rows where that is fair and check the differences against the rules.

    Raises:
        IncomparableError: they answer different questions, or no fair rows are left.
    """
    side = Side.of(production.manifest, commit)
    if reasons := obstacles(production.manifest, profile):
        raise IncomparableError(reasons, side)
    chosen, warnings = _rows(production.manifest, profile, test, history)
    missing = sorted(set(range(len(profile.classes))) - set(test.target[chosen].tolist()))
    if not len(chosen):
        raise IncomparableError([*warnings, "no row is left to compare on"], side)
    if missing:
        names = " and ".join(repr(profile.classes[each]) for each in missing)
        raise IncomparableError([*warnings, f"no row of class {names} is left to compare on"], side)
    test = test.take(chosen)

    theirs = _answers(production, test, profile)
    ours = _answers(candidate, test, profile)
    if not all(np.isfinite(answers[-1]).all() for answers in (theirs, ours)):
        raise IncomparableError(["a model's answers are not all numbers"], side)
    confidence = rules.evaluate.confidence
    options: dict[str, Any] = {
        "resamples": rules.evaluate.bootstrap,
        "confidence": confidence,
        "seed": rules.evaluate.seed,
        "weights": test.weights,
        "groups": test.groups,
    }
    decision = candidate.manifest.decision
    scoring = scores.of(profile.task, np.array(decision.cost) if decision and decision.cost else None)
    before = scores.with_intervals(scoring, test.target, theirs, **options)
    after = scores.with_intervals(scoring, test.target, ours, **options)
    difference = scores.paired(scoring, test.target, theirs, ours, **options)
    missed = exceeded_limits(difference, rules.production)
    us = Side.of(candidate.manifest)
    verdict = f"{us.called} is not worse than {side.called} in {environment} by more than params.yaml allows"
    if missed:
        verdict = (
            f"{us.called} is worse than {side.called}, which {environment} runs: {'; '.join(missed)}. "
            "Improve the model, or change the rule in params.yaml"
        )
    return Comparison(
        passed=not missed,
        outcome="compared",
        verdict=verdict,
        environment=environment,
        candidate=us,
        production=side,
        rows=len(test),
        confidence=confidence,
        figures=tuple(
            _figure(metric, before[metric], after[metric], difference[metric], rules.production)
            for metric in _shown(rules, profile, scoring.metrics)
        ),
        answered=_answered(test.target, theirs[0], ours[0]) if profile.classes else None,
        missed=tuple(missed),
        warnings=tuple(warnings),
    )


def exceeded_limits(differences: Mapping[str, Score], rules: ProductionGateSettings) -> list[str]:
    """Check how far a champion is below the model in production.

    The points count, not the intervals: on a small test split hardly any difference is certain, so a rule
    that required certainty would let everything pass.

    Returns:
        A sentence with the figure and the limit for each limit that is exceeded.
    """
    found = [
        f"test {metric} is {-differences[metric].value:.4f} lower, and "
        f"select.gate.production.maximum_drop.{metric} allows {most:g}"
        for metric, most in rules.maximum_drop.items()
        if not -differences[metric].value <= most + ROUNDING
    ]
    return found + [
        f"test {TITLES[metric]} is {shown(differences[metric].value, 4)} higher, and "
        f"select.gate.production.maximum_rise.{metric} allows {most:g}"
        for metric, most in rules.maximum_rise.items()
        if not differences[metric].value <= most + ROUNDING
    ]


def obstacles(production: Manifest, profile: Profile) -> list[str]:
    """Reasons why production's model answers another question, or cannot answer at all."""
    if production.task != profile.task:
        return [f"production's model is a {production.task}, and this one is a {profile.task}"]
    reasons = []
    if set(production.classes) != set(profile.classes):
        gone = [repr(each) for each in production.classes if each not in profile.classes]
        new = [repr(each) for each in profile.classes if each not in production.classes]
        parts = [f"only production's knows {' and '.join(gone)}"] if gone else []
        parts += [f"only this one knows {' and '.join(new)}"] if new else []
        reasons.append(f"the models' classes differ: {', '.join(parts)}")
    kinds = {each.name: each.type for each in profile.features}
    absent = [repr(each.name) for each in production.features if each.name not in kinds]
    if absent:
        reasons.append(
            f"production's model needs {' and '.join(absent)}, which the data does not have any more"
        )
    reasons += [
        f"{each.name!r} was a {each.type} and is a {kinds[each.name]} now"
        for each in production.features
        if kinds.get(each.name, each.type) != each.type
    ]
    return reasons


def certainty(comparison: Comparison) -> str:
    """What this number of rows allows to conclude."""
    answered = comparison.answered
    if answered is None:
        return f"{comparison.rows:,} rows." if comparison.rows else ""
    text = f"{comparison.rows:,} rows; one is {1 / comparison.rows:.3f} of accuracy. "
    if not answered.only_candidate_right + answered.only_production_right:
        return text + "Both are right on the same rows: only the probabilities tell them apart."
    text += (
        f"Only this model is right on {answered.only_candidate_right}, only production's on "
        f"{answered.only_production_right}. Equally good models would differ at least so "
    )
    if answered.chance > 0.05:
        return text + f"in {answered.chance:.0%} of all cases: by accuracy, neither is certainly better."
    return text + f"in {answered.chance:.1%} of all cases."


def signed(score: Score) -> str:
    """A difference with its interval."""
    return (
        f"{figures.signed(score.value)} [{figures.signed(score.low or 0)}, {figures.signed(score.high or 0)}]"
    )


def _rows(
    production: Manifest, profile: Profile, test: Split, history: History
) -> tuple[NDArray[np.intp], list[str]]:
    """The rows on which the comparison is fair, and warnings about the others."""
    warnings = []
    usable = _accepted(production, test.frame)
    if not usable.all():
        warnings.append(
            f"{(~usable).sum():,} of {len(test):,} rows are left out: production's service refuses them "
            "(a missing value, an unknown category or a value out of range)"
        )
    if not history.same_test:
        then = f"{history.test_then[:10]}…" if history.test_then else "unknown"
        text = f"the test split changed since production's model was measured (md5 {then} then, {history.test_now[:10]}… now)"
        if history.train is None:
            text += (
                f"; whether that model was trained on some of these rows cannot be seen ({history.why_not}), "
                "and if it was, that flatters it"
            )
        else:
            usable, said = _without_seen(production, profile, test, usable, history.train)
            text += said
        warnings.append(text)
    return np.flatnonzero(usable), warnings


def _without_seen(
    production: Manifest, profile: Profile, test: Split, usable: NDArray[np.bool_], train: ParquetTable
) -> tuple[NDArray[np.bool_], str]:
    """The usable rows that production's model was not trained on, or all of them if those are too few; and a warning."""
    seen = np.isin(
        _fingerprints(test.frame, production.features, profile.target),
        _fingerprints(train, production.features, production.target),
    )
    fresh = usable & ~seen
    count = int((usable & seen).sum())
    if not count:
        return usable, "; it was trained on none of these rows"
    same_classes = not profile.classes or set(test.target[fresh]) == set(test.target[usable])
    if fresh.sum() >= ENOUGH_ROWS and same_classes:
        return fresh, f"; it was trained on {count:,} of these rows, so only the other {fresh.sum():,} count"
    return usable, (
        f"; it was trained on {count:,} of these {usable.sum():,} rows, which flatters it, but the others are too few"
    )


def _fingerprints(table: Any, features: Sequence[Feature], target: str) -> NDArray[np.uint64]:
    """A hash for each row of a frame or a `ParquetTable`.

    Rows of equal values have equal hashes, whatever their types in the file.
    """
    return np.concatenate([_hashes(frame, features, target) for _, frame in frames(table)])


def _hashes(frame: pd.DataFrame, features: Sequence[Feature], target: str) -> NDArray[np.uint64]:
    columns: dict[str, pd.Series[Any]] = {}
    for each in features:
        column = frame[each.name]
        if each.type == "number":
            columns[each.name] = column.astype(np.float64)
        elif each.type == "datetime":
            columns[each.name] = column
        else:
            columns[each.name] = column.astype(object).where(column.notna(), "").astype(str)
    # No feature is called "", so the target, whatever its name, has this one.
    whole = pd.DataFrame({**columns, "": frame[target].astype(str)})
    return np.asarray(pd.util.hash_pandas_object(whole, index=False), dtype=np.uint64)


def _accepted(manifest: Manifest, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """The rows that the service answers with a bundle; it refuses the others."""
    accepted = np.ones(len(frame), dtype=bool)
    for each in manifest.features:
        column = frame[each.name]
        missing = column.isna().to_numpy(dtype=bool)
        if each.type == "category":
            known = column.isin(each.categories).to_numpy(dtype=bool)
        elif each.type == "number" and each.bounded and manifest.out_of_range == "reject":
            known = column.between(each.minimum, each.maximum).to_numpy(dtype=bool)
        else:
            known = ~missing
        accepted &= np.where(missing, each.missing, known)
    return accepted


def _answers(bundle: Bundle, test: Split, profile: Profile) -> Answers:
    """A bundle's answers; classes and probabilities in the order of the profile's, whatever the bundle's order is."""
    manifest = bundle.manifest
    split = as_split(test.frame, profile.model_copy(update={"features": manifest.features}))
    answers = scores.of(profile.task).answerer(bundle.model, Layout.of(manifest.features))(split)
    if not profile.classes:
        return answers
    predicted, probabilities = answers
    order = [manifest.classes.index(name) for name in profile.classes]
    return np.argsort(order)[predicted], probabilities[:, order]


def _answered(labels: NDArray[np.int64], theirs: NDArray[np.int64], ours: NDArray[np.int64]) -> Answered:
    from scipy.stats import binomtest

    us = int(((ours == labels) & (theirs != labels)).sum())
    them = int(((theirs == labels) & (ours != labels)).sum())
    return Answered(
        alike=int((ours == theirs).sum()),
        only_candidate_right=us,
        only_production_right=them,
        chance=rounded(binomtest(us, us + them).pvalue) if us + them else 1.0,
    )


def _figure(
    metric: str, before: Score, after: Score, difference: Score, rules: ProductionGateSettings
) -> Figure:
    limits = {**rules.maximum_drop, **rules.maximum_rise}
    allowed = {str(name): most for name, most in limits.items()}.get(metric)
    loss = difference.value if metric in LOWER_IS_BETTER else -difference.value
    return Figure(
        metric=metric,
        production=before,
        candidate=after,
        difference=difference,
        allowed=allowed,
        passes=allowed is None or loss <= allowed + ROUNDING,
    )


def _shown(rules: Rules, profile: Profile, metrics: Sequence[Metric]) -> list[str]:
    """The metrics that are shown: those of the rules, the one that selects, and the usual ones."""
    demanded = {*rules.production.maximum_drop, *rules.production.maximum_rise}
    named = {*demanded, rules.evaluate.score_of(profile.task), *SHOWN}
    return [metric for metric in metrics if metric in named]
