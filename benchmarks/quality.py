"""Compares drafted models with tuned gradient boosting, on the public data sets of `benchmarks.datasets`.

Each set is drafted, trained and served without an edit, as `benchmarks.datasets` does. Then LightGBM, CatBoost and
HistGradientBoosting are each tuned with Optuna on the same training rows and the same folds, with native categories, and
fitted to the whole training split. The one that is best in cross-validation is the reference; both are measured on the same
test split. A normalised score is 0 for the baseline and 1 for the reference. Takes hours; needs `make estimators`.
"""

from __future__ import annotations

import datetime
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from statistics import mean, median
from typing import Any

import numpy as np
import optuna
import pandas as pd
from pydantic import BaseModel, ConfigDict

from benchmarks import machine
from benchmarks.datasets import Outcome, run
from benchmarks.sets import ROOT, SETS, Set, command
from training.base import config
from training.base.section import Settings
from training.data.dataset import TEST_FILE, TRAIN_FILE, Profile, Split, read_profile, read_split
from training.results.leaderboard import read as read_leaderboard
from training.sections.evaluate import EvaluateSettings
from training.train.folds import folds

RESULT = ROOT / "benchmarks/results/quality.md"
TRIALS = 25
SEED = 7
MOST_ROWS = 6000
"""Of a table; of a larger one so many are drawn, for the drafted model too."""
MOST_CATEGORIES = 255
"""Of a native category of HistGradientBoosting; one with more is a number there."""
LEAST_GAIN = 0.01
"""By which the reference has to exceed the baseline, so that a share of it means something."""


class Tuned(BaseModel):
    """A reference: its score in cross-validation, with the best parameters, and on the test split."""

    model_config = ConfigDict(frozen=True)

    cv: float
    test: float


class Comparison(BaseModel):
    """A set's drafted model beside the references."""

    model_config = ConfigDict(frozen=True)

    rows: int
    score: str
    algorithm: str
    cv: float
    test: float
    baseline: float
    references: dict[str, Tuned]

    @property
    def reference(self) -> str:
        """The one that is best in cross-validation."""
        return max(self.references, key=lambda name: self.references[name].cv)

    @property
    def normalised(self) -> float | None:
        """None if the reference is no better than the baseline."""
        return self._of(self.references[self.reference].test)

    @property
    def against_best(self) -> float | None:
        """With the reference that happens to be best on the test split."""
        return self._of(max(each.test for each in self.references.values()))

    def _of(self, test: float) -> float | None:
        gain = test - self.baseline
        return (self.test - self.baseline) / gain if gain >= LEAST_GAIN else None


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    command("benchmarks.quality", __doc__, RESULT, Comparison, _measure, report)


def _measure(chosen: Set) -> Comparison | None:
    outcome = run(chosen, MOST_ROWS)
    if not outcome.algorithm:
        print(outcome.refusal or outcome.fault, file=sys.stderr)
        return None
    with chdir(ROOT / "models" / chosen.model):
        return compare(outcome)


class _Evaluation(Settings):
    evaluate: EvaluateSettings


def compare(outcome: Outcome) -> Comparison:
    """The model in this folder beside tuned gradient boosting on its rows and folds."""
    board, profile = read_leaderboard(), read_profile()
    train, test = read_split(TRAIN_FILE, profile), read_split(TEST_FILE, profile)
    evaluate = config.load(_Evaluation).evaluate
    divided = list(folds(train, evaluate.folds, evaluate.seed, "evaluate.folds"))
    champion = next(each for each in board.rows if each.algorithm == outcome.algorithm)
    return Comparison(
        rows=profile.train_rows,
        score=outcome.score,
        algorithm=outcome.algorithm,
        cv=champion.cv_mean,
        test=outcome.value,
        baseline=outcome.baseline,
        references={
            name: tune(Reference(name, profile, outcome.score), train, test, divided) for name in REFERENCES
        },
    )


def tune(
    reference: Reference,
    train: Split,
    test: Split,
    divided: Sequence[tuple[Any, Any]],
    trials: int = TRIALS,
) -> Tuned:
    """Search on the folds, fit with the best parameters to all of `train`, and measure on `test`."""

    def objective(trial: optuna.Trial) -> float:
        parameters = reference.propose(trial)
        reached: list[float] = []
        for number, (inner, outer) in enumerate(divided):
            reached.append(reference.measure(parameters, train.take(inner), train.take(outer)))
            trial.report(mean(reached), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return mean(reached)

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=SEED),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    study.optimize(objective, n_trials=trials)
    best = reference.propose(optuna.trial.FixedTrial(study.best_params))
    return Tuned(cv=study.best_value, test=reference.measure(best, train, test))


class Reference:
    """A package of gradient boosting, fitted to a model's features as its documentation advises."""

    def __init__(self, name: str, profile: Profile, score: str) -> None:
        self._make, self._bounds = REFERENCES[name]
        self._name, self._profile, self._score = name, profile, score

    def propose(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Parameters for a trial: whole numbers between whole bounds."""
        return {
            name: trial.suggest_int(name, low, high, log=True)
            if isinstance(low, int) and isinstance(high, int)
            else trial.suggest_float(name, low, high, log=True)
            for name, (low, high) in self._bounds.items()
        }

    def measure(self, parameters: dict[str, Any], train: Split, held_out: Split) -> float:
        from sklearn.metrics import f1_score, r2_score

        estimator, options = self._make(self._profile, parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = estimator.fit(self._frame(train), train.target, **options)
            answers = np.asarray(fitted.predict(self._frame(held_out))).ravel()
        if self._score == "r2":
            return float(r2_score(held_out.target, answers))
        return float(f1_score(held_out.target, answers, average="macro"))

    def _frame(self, split: Split) -> pd.DataFrame:
        """Numbers, and categories as each package takes them; the columns are called by their position."""
        numbers = pd.DataFrame(split.numbers).add_prefix("n")
        features = {each.name: each for each in self._profile.features}
        columns: dict[str, Any] = {}
        for position, name in enumerate(self._profile.layout.categories):
            feature = features[name]
            assert feature.type == "category"
            values = split.categories[:, position].astype(str)
            if self._name == "CatBoost":
                columns[f"c{position}"] = values
                continue
            coded = pd.Categorical(values, categories=["", *feature.categories])
            wide = len(coded.categories) > MOST_CATEGORIES
            columns[f"c{position}"] = coded.codes if wide and self._name != "LightGBM" else coded
        return pd.concat([numbers, pd.DataFrame(columns, index=numbers.index)], axis=1)


def _lightgbm(profile: Profile, parameters: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMClassifier if profile.classes else LGBMRegressor
    return kind(**parameters, random_state=SEED, n_jobs=1, verbose=-1), {}


def _catboost(profile: Profile, parameters: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostClassifier if profile.classes else CatBoostRegressor
    fixed = {"random_state": SEED, "thread_count": 1, "verbose": False, "allow_writing_files": False}
    categories = [f"c{position}" for position in range(len(profile.layout.categories))]
    return kind(**parameters, **fixed), {"cat_features": categories}


def _hist_gradient_boosting(profile: Profile, parameters: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if profile.classes else HistGradientBoostingRegressor
    return kind(**parameters, random_state=SEED, categorical_features="from_dtype"), {}


Bounds = tuple[float, float]
Maker = Callable[[Profile, dict[str, Any]], tuple[Any, dict[str, Any]]]

REFERENCES: Mapping[str, tuple[Maker, Mapping[str, Bounds]]] = {
    "LightGBM": (
        _lightgbm,
        {
            "n_estimators": (50, 300),
            "num_leaves": (4, 64),
            "learning_rate": (0.02, 0.3),
            "min_child_samples": (2, 60),
            "colsample_bytree": (0.5, 1.0),
            "reg_lambda": (1e-3, 10.0),
        },
    ),
    "CatBoost": (
        _catboost,
        {"iterations": (50, 300), "depth": (3, 7), "learning_rate": (0.02, 0.3), "l2_leaf_reg": (1.0, 10.0)},
    ),
    "HistGradientBoosting": (
        _hist_gradient_boosting,
        {
            "max_iter": (50, 300),
            "max_leaf_nodes": (4, 64),
            "learning_rate": (0.02, 0.3),
            "min_samples_leaf": (2, 60),
            "l2_regularization": (1e-3, 10.0),
        },
    ),
}
"""What each package is made by, and the bounds between which its parameters are drawn, on a logarithmic scale."""


def report(found: Mapping[str, Comparison]) -> str:
    sets = [(each, found[each.model]) for each in SETS if each.model in found]
    lines = [
        "# Drafted models beside tuned gradient boosting",
        "",
        _summary(sets),
        "",
        f"The models are those of `make model`, without an edit. The reference is the best in cross-validation of {_names()}, "
        f"each tuned with {TRIALS} trials of Optuna on the same folds, with native categories. All scores but the first are of "
        f"the same test split. Of tables with more than {MOST_ROWS:,} rows, so many were drawn.",
        "",
        f"| data set | training rows | score | in folds | champion | on test | baseline | {' | '.join(REFERENCES)} | normalised |",
        f"| --- | ---: | --- | ---: | --- | ---: | ---: | {' | '.join(['---:'] * len(REFERENCES))} | ---: |",
        *(_row(each, one) for each, one in sets),
        "",
        "The reference of each set is in bold. A set whose reference is no better than its baseline has no normalised score.",
        "",
        "## On what",
        "",
        f"{datetime.date.today().isoformat()}, {machine.cpu()}, Python {platform.python_version()}, "
        f"{machine.versions(('lightgbm', 'catboost', 'scikit-learn', 'optuna'))}. "
        "`python -m benchmarks.quality` measures it again.",
        "",
    ]
    return "\n".join(lines)


def _summary(sets: Sequence[tuple[Set, Comparison]]) -> str:
    shares = [one.normalised for _, one in sets if one.normalised is not None]
    severe = [one.against_best for _, one in sets if one.against_best is not None]
    counted = f"{len(sets)} of the {len(SETS)} sets were measured, and {len(shares)} have a normalised score"
    if not shares:
        return f"{counted}."
    return (
        f"The median normalised score is {median(shares):.3f} (asked: 0.98): 0 is the baseline and 1 the reference. A quarter of "
        f"the sets is below {np.quantile(shares, 0.25):.3f}, and the lowest is {min(shares):.3f}. {counted}. Against the package that "
        f"happens to be best on each test split the median is {median(severe):.3f}."
    )


def _names() -> str:
    *first, last = REFERENCES
    return f"{', '.join(first)} and {last}"


def _row(each: Set, one: Comparison) -> str:
    cells = [
        f"**{tuned.test:.3f}**" if name == one.reference else f"{tuned.test:.3f}"
        for name, tuned in one.references.items()
    ]
    share = "" if one.normalised is None else f"{one.normalised:.3f}"
    return (
        f"| {each.name} | {one.rows:,} | {one.score} | {one.cv:.3f} | {one.algorithm} | {one.test:.3f} "
        f"| {one.baseline:.3f} | {' | '.join(cells)} | {share} |"
    )


if __name__ == "__main__":
    main()
