"""Proposes candidates by a model of how the score depends on the parameters (TPE of Optuna)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from training.base.progress import progress
from training.data.dataset import Split
from training.results.report import SearchOutcome
from training.sections.algorithms import Distribution, SearchSettings
from training.train.trials import Candidate, Trial

log = logging.getLogger(__name__)


def search(trial: Trial, split: Split, settings: SearchSettings, name: str) -> SearchOutcome:
    """Find the best parameters within the budget; arguments as for `training.train.search`.

    A candidate whose mean over the first folds is below the median of the others' is given up, if the settings say so.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=settings.seed),
        pruner=optuna.pruners.MedianPruner() if settings.pruning else optuna.pruners.NopPruner(),
    )
    candidates: dict[int, Candidate] = {}

    def objective(proposed: Any) -> float:
        candidate = candidates[proposed.number] = _proposed(proposed, settings)
        values: list[float] = []
        for value in trial.values(candidate, split):
            values.append(value)
            proposed.report(trial.mean_of(values, split), len(values))
            if proposed.should_prune() and len(values) < settings.folds:
                raise optuna.TrialPruned
        return trial.mean_of(values, split)

    # For good, because the folds' searches may run side by side and the filters are those of the process.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    limit = f" for at most {settings.seconds:g} s" if settings.seconds else ""
    # With a limit of time, nobody knows how many candidates are left.
    with progress(
        f"{name}: search{limit}", None if limit else settings.budget, "candidates", len(split)
    ) as done:
        study.optimize(
            objective,
            n_trials=settings.budget,
            timeout=settings.seconds,
            callbacks=[lambda *_: done.advance()],
        )
    pruned = len(study.get_trials(states=[optuna.trial.TrialState.PRUNED]))
    if pruned:
        log.info("%s: %s of %s candidates were given up early", name, f"{pruned:,}", f"{len(study.trials):,}")
    if trial.unconverged:
        log.warning("%s: %s fits of the search did not converge", name, f"{trial.unconverged:,}")
    return SearchOutcome(
        method=settings.method,
        candidates=len(study.trials),
        best=candidates[study.best_trial.number],
        score=abs(study.best_value),
    )


def _proposed(proposed: Any, settings: SearchSettings) -> Candidate:
    found: Candidate = {}
    for key, values in settings.space.items():
        if isinstance(values, Distribution):
            if values.integer:
                found[key] = proposed.suggest_int(key, int(values.low), int(values.high), log=values.log)
            else:
                found[key] = proposed.suggest_float(key, values.low, values.high, log=values.log)
        else:
            # By position: Optuna takes no lists and mappings as values.
            found[key] = values[proposed.suggest_categorical(key, range(len(values)))]
    return found
