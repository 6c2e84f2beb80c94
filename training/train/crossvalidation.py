"""Measures an algorithm on rows that it was not fitted on, and decides by what it says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.contract import Decision
from training.base.errors import ConfigError
from training.base.progress import progress
from training.data.dataset import Split, Taken
from training.results import scores
from training.results.figures import Answers, decimals, rounded
from training.results.report import FoldScores
from training.sections.decision import DecisionSettings
from training.train import baseline, engine
from training.train.decision import decide, decided
from training.train.fitting import Parameters, Task, exported, fit_with, searched
from training.train.folds import folds


@dataclass(frozen=True)
class Fold:
    """Rows that a fold was not fitted on, without their features, and what its model file and the baseline say of them."""

    held_out: Split
    answers: Answers
    baseline: Answers


def cross_validate(task: Task) -> list[Fold]:
    """Answers for the rows of each fold, which is searched, fitted and exported like the whole."""
    divided = [
        (Taken(task.train, inner), Taken(task.train, outer))
        for inner, outer in folds(task.train, task.evaluate.folds, task.evaluate.seed, "evaluate.folds")
    ]
    best: list[Parameters] = [{} for _ in divided]
    if task.block.search is not None:
        runner = engine.runner(spread=task.spread)
        with progress(
            f"{task.name}: searches within the folds", len(divided), "folds", len(task.train)
        ) as done:

            def found_in(fold: tuple[Taken, Taken]) -> Parameters:
                parameters, _ = searched(task, fold[0]())
                done.advance()
                return parameters

            best = runner.together(found_in, divided)
    tasks = [(*each, parameters) for each, parameters in zip(divided, best, strict=True)]
    found = []
    known = task.train.answers_only()
    answered = engine.mapped(
        partial(_answers, task),
        tasks,
        f"{task.name}: cross-validation",
        "folds",
        len(task.train),
        spread=task.spread,
    )
    for (rows, held_out), answers in zip(divided, answered, strict=True):
        outer = known.take(held_out.rows)
        found.append(Fold(outer, answers, baseline.answers(known.take(rows.rows), outer)))
    return found


def _answers(task: Task, fold: tuple[Taken, Taken, Parameters]) -> Answers:
    rows, held_out, best = fold
    fitted, parameters = fit_with(task, rows(), best)
    return task.answerer(exported(task, fitted, parameters))(held_out())


def decision_of(task: Task, cv: Sequence[Fold]) -> Decision | None:
    """The decision for a class, tuned on the given folds if the settings ask for it; None for a regression."""
    if task.profile.task == "regression":
        return None
    target = np.concatenate([each.held_out.target for each in cv])
    probabilities = np.concatenate([each.answers[1] for each in cv])
    weights = [each.held_out.weights for each in cv if each.held_out.weights is not None]
    return decide(
        task.decision,
        task.profile,
        target,
        probabilities,
        task.score,
        np.concatenate(weights) if weights else None,
    )


def fold_scores(task: Task, cv: Sequence[Fold]) -> dict[str, FoldScores]:
    """Every metric over the folds. A threshold for one of them is tuned on the others, so it does not flatter the score."""
    answered = []
    for each in cv:
        answers = each.answers
        if task.profile.classes and task.decision != DecisionSettings():
            others = [other for other in cv if other is not each]
            answers = (decided(decision_of(task, others), task.profile.classes, answers[1]), answers[1])
        answered.append(answers)
    return over_folds(task, cv, answered)


def over_folds(task: Task, cv: Sequence[Fold], answered: Sequence[Answers]) -> dict[str, FoldScores]:
    measured = [
        scores.point(task.scoring, fold.held_out.target, answers, fold.held_out.weights)
        for fold, answers in zip(cv, answered, strict=True)
    ]
    if all(math.isnan(each[task.score]) for each in measured):
        raise ConfigError(
            f"evaluate.score {task.score} is defined in no fold: each has rows of one class only"
        )
    return {
        str(metric): _summary([each[metric] for each in measured], decimals(metric, task.train.target))
        for metric in task.scoring.metrics
    }


def _summary(values: Sequence[float], digits: int) -> FoldScores:
    # The ROC AUC of a fold whose rows are all of one class is not defined.
    known = [each for each in values if not math.isnan(each)] or [math.nan]
    return FoldScores(
        folds=tuple(values),
        mean=rounded(float(np.mean(known)), digits),
        std=rounded(float(np.std(known, ddof=1)), digits) if len(known) > 1 else 0.0,
    )
