"""Searches an algorithm's parameters by grid, at random or by successive halving, as its block asks."""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from training.algorithms import inputs
from training.config import Distribution, Metric, SearchSettings
from training.dataset import Split
from training.errors import ConfigError
from training.report import SearchOutcome
from training.scores import rounded

_SCORING = {"log_loss": "neg_log_loss", "roc_auc": "roc_auc_ovr"}
"""scikit-learn's names where they are not ours."""


def search(
    pipeline: Pipeline, prefix: str, settings: SearchSettings, split: Split, score: Metric, name: str
) -> SearchOutcome:
    """Find the best parameters by stratified cross-validation within a split.

    Args:
        pipeline: unfitted; parameters that are not searched are already set.
        prefix: of the searched parameters' names, seen from the pipeline.
        settings: method, space, budget and seed.
        split: rows to search on; nothing else is looked at.
        score: what to optimise.
        name: of the algorithm, for messages.

    Raises:
        ConfigError: no candidate could be fitted.
    """
    space = {prefix + key: _values(values) for key, values in settings.space.items()}
    searcher = _searcher(pipeline, space, settings, _SCORING.get(score, score))
    with warnings.catch_warnings():
        # A candidate that cannot be fitted scores NaN and loses; all of them failing is handled below.
        warnings.simplefilter("ignore")
        try:
            searcher.fit(inputs(split), split.labels)
        except ValueError as error:
            first = " ".join(str(error).split("\n\n")[0].split())
            raise ConfigError(f"train.algorithms.{name}.search cannot run: {first[:400]}") from error
    best = {key.removeprefix(prefix): _plain(value) for key, value in searcher.best_params_.items()}
    return SearchOutcome(
        method=settings.method,
        candidates=len(searcher.cv_results_["params"]),
        best={key: best[key] for key in settings.space},
        score=rounded(abs(searcher.best_score_)),
    )


def _searcher(pipeline: Pipeline, space: dict[str, Any], settings: SearchSettings, scoring: str) -> Any:
    common = {
        "scoring": scoring,
        "cv": StratifiedKFold(settings.folds, shuffle=True, random_state=settings.seed),
        "refit": False,
    }
    if settings.method == "grid":
        return GridSearchCV(pipeline, space, **common)
    if settings.method == "random":
        return RandomizedSearchCV(
            pipeline, space, n_iter=settings.budget, random_state=settings.seed, **common
        )
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - importing it allows the next line
    from sklearn.model_selection import HalvingRandomSearchCV

    return HalvingRandomSearchCV(
        pipeline, space, n_candidates=settings.budget, random_state=settings.seed, **common
    )


def _values(values: list[Any] | Distribution) -> Any:
    if isinstance(values, list):
        return values
    from scipy import stats

    if values.integer:
        # Both ends belong to the range, as a person reading the file expects.
        low, high = int(values.low), int(values.high) + 1
        return _LogIntegers(low, high) if values.log else stats.randint(low, high)
    if values.log:
        return stats.loguniform(values.low, values.high)
    return stats.uniform(values.low, values.high - values.low)


class _LogIntegers:
    """Whole numbers whose logarithm is uniform: scipy has no such distribution."""

    def __init__(self, low: int, high: int) -> None:
        from scipy import stats

        self.continuous = stats.loguniform(low, high)

    def rvs(self, *, random_state: Any = None) -> int:
        return int(self.continuous.rvs(random_state=random_state))


def _plain(value: Any) -> Any:
    """A value as YAML and JSON write it: numpy's numbers become Python's."""
    return value.item() if hasattr(value, "item") else value
