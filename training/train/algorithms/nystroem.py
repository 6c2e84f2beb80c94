"""Kernel machines for more rows than an exact one can be fitted to: linear ones over a Nyström approximation of the kernel.

A row is described by its similarity to some training rows drawn at random, the components (Williams and Seeger, 2001). Of
these, a linear function is fitted: with the squared hinge loss, as scikit-learn's LinearSVC has it, or with the squared
epsilon-insensitive loss of LinearSVR. Newton's method needs few passes over the rows and adds up its sums block by block,
so memory depends on the components and not on the rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.calibration import _SigmoidCalibration
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC, SVR
from sklearn.utils._param_validation import Interval
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from training.data import memory
from training.train.folds import Rows

Floats = NDArray[np.float64]

COMPONENTS = 1000
CALIBRATION_PARTS = 5
"""Into which the rows are divided, as scikit-learn's calibration does."""
CALIBRATION_ROWS = 200_000
"""To which the two numbers of a sigmoid are fitted; of more, so many at random."""
START_ROWS = 20_000
"""Of so many at random, the minimum is found first, as a start for the search of that of all rows."""
MOST_PASSES = 200
TOLERANCE = 1e-6
"""The search ends when a step would lower the loss by less than this part of it."""
BLOCK_CELLS = 4_000_000
"""Similarities that are held at once (32 MB)."""
CURVATURE_CELLS = 16_000_000
"""Second derivatives that are held at once (128 MB)."""
LEAST_VARIATION = 1e-6
"""Directions in which the components vary less than this part of the most are left out: rounding would decide in them."""
INTERCEPT_PENALTY = 1e-6
"""Keeps an intercept finite where no row has a loss."""


_SHARED = ("C", "kernel", "degree", "gamma", "coef0")
_COUNT = {"n_components": [Interval(Integral, 1, None, closed="left")]}


class _Nystroem(BaseEstimator):  # type: ignore[misc]
    """What the classifier and the regressor share.

    Attributes:
        support_vectors_: the components, shape (components, columns).
        dual_coef_: their weights, shape (outputs, components).
        intercept_: shape (outputs,).

    These have the names that they have in scikit-learn's exact machines.
    """

    def _scores(self, X: Any) -> Floats:
        """The linear functions of each row, shape (rows, outputs)."""
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, dtype=np.float64)
        scores: Floats = self._sums(values, self.dual_coef_.T) + self.intercept_
        return scores

    def _sums(self, values: Floats, weights: Floats) -> Floats:
        blocks = memory.blocks(len(values), self._block)
        return np.concatenate([self._similarities(values[rows]) @ weights for rows in blocks])

    @property
    def _block(self) -> int:
        """Rows whose similarities are held at once."""
        return max(1, BLOCK_CELLS // len(self.support_vectors_))

    def _similarities(self, values: Floats) -> Floats:
        found: Floats = pairwise_kernels(
            values,
            self.support_vectors_,
            metric=self.kernel,
            filter_params=True,
            gamma=self._gamma,
            coef0=self.coef0,
            degree=self.degree,
        )
        return found

    def _residuals(self, y: NDArray[Any], outputs: NDArray[np.int64], scores: Floats) -> Floats:
        """How far each score is from costing nothing, and in which direction. Its square is the loss."""
        raise NotImplementedError

    def _fit(
        self, X: Floats, y: NDArray[Any], outputs: int, weights: Floats | None, parts: NDArray[np.int8]
    ) -> Floats:
        """Fit weights and intercepts.

        Args:
            X: shape (rows, columns).
            y: the number of each row's class, or its value.
            outputs: how many there are.
            weights: of the rows; None if all count alike.
            parts: the number of the part that each row is in, from 0 on.

        Returns:
            What weights and, below them, intercepts would be without the rows of each part, shape (parts, components + 1,
            outputs).
        """
        self._validate_params()
        random = np.random.default_rng(self.random_state)
        drawn, few = (
            np.sort(random.choice(len(X), min(len(X), most), replace=False))
            for most in (self.n_components, START_ROWS)
        )
        self.support_vectors_, some = np.array(X[drawn]), np.array(X[few])
        self._gamma = self.gamma
        if isinstance(self.gamma, str):
            self._gamma = 1.0 / (X.shape[1] * (1.0 if self.gamma == "auto" else some.var() or 1.0))
        basis = _basis(self._similarities(self.support_vectors_))
        costs = np.full(len(X), float(self.C)) if weights is None else self.C * weights
        # Where there are fewer rows, each counts more, so that the penalty counts as much.
        start = _Problem(
            self, basis, some, y[few], costs[few] * (len(X) / len(few)), np.zeros(len(few), np.int8)
        )
        whole = _Problem(self, basis, X, y, costs, parts)
        at_once = max(1, CURVATURE_CELLS // (basis.size * (int(parts.max()) + 1)))
        found = []
        for those in memory.blocks(outputs, at_once):
            numbers = np.arange(outputs)[those]
            found.append(
                whole.minimum(start.minimum(None, numbers)[0] if len(X) > len(few) else None, numbers)
            )
        solution, without = (np.concatenate(each, axis=-1) for each in zip(*found, strict=True))
        self.dual_coef_, self.intercept_ = (basis[:-1] @ solution).T, solution[-1]
        found_without: Floats = basis @ without
        return found_without


def _basis(similarities: Floats) -> Floats:
    """What the similarities to the components, and a one below them, are multiplied with.

    The products of the results approximate the kernel; the last result is the one.
    """
    values, vectors = linalg.eigh(similarities)
    size = np.abs(values)
    kept = size > LEAST_VARIATION * size.max()
    return np.asarray(linalg.block_diag(vectors[:, kept] / np.sqrt(size[kept]), [[1.0]]))


@dataclass(frozen=True)
class _Problem:
    """The losses of some rows, each of which is in a part and costs so much."""

    machine: _Nystroem
    basis: Floats
    X: Floats
    y: NDArray[Any]
    costs: Floats
    parts: NDArray[np.int8]

    def minimum(self, start: Floats | None, outputs: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """The solution for some outputs, and those without each part of the rows.

        The latter are one further step of Newton's method away, of the derivatives that the other rows have.

        Args:
            start: a solution; None for zeros.
            outputs: their numbers.

        Returns:
            Shapes (directions, outputs) and (parts, directions, outputs).
        """
        best = np.zeros((self.basis.shape[1], len(outputs))) if start is None else start
        penalty = np.ones((len(best), 1))
        penalty[-1] = INTERCEPT_PENALTY
        step, least = np.zeros_like(best), np.full(len(outputs), np.inf)
        gain = np.zeros(len(outputs))
        for _ in range(MOST_PASSES):
            tried = best + step
            loss, slopes, curves = self._derivatives(tried, outputs)
            loss += (penalty * np.square(tried)).sum(axis=0) / 2
            better = loss <= least
            # A step that was too long ends where a parabola through what is known of it has its minimum.
            shorter = np.clip(gain[~better] / ((loss - least)[~better] + 2 * gain[~better]), 0.1, 0.5)
            step[:, ~better] *= shorter
            gain[~better] *= shorter
            best, least = np.where(better, tried, best), np.minimum(loss, least)
            slope = slopes.sum(axis=0) + penalty * best
            for output in np.flatnonzero(better):
                curve = curves[:, output].sum(axis=0) + np.diag(penalty[:, 0])
                step[:, output] = -linalg.solve(curve, slope[:, output], assume_a="pos")
                gain[output] = -step[:, output] @ slope[:, output] / 2
            step[:, gain <= TOLERANCE * least] = 0
            if not step.any():
                break
        else:
            warnings.warn("the search for the smallest loss has not ended", ConvergenceWarning, stacklevel=2)
        without = np.empty((len(slopes), *best.shape))
        for part, output in np.ndindex(len(slopes), len(outputs)):
            curve = curves[:, output].sum(axis=0) - curves[part, output] + np.diag(penalty[:, 0])
            rest = slope[:, output] - slopes[part, :, output]
            without[part, :, output] = best[:, output] - linalg.solve(curve, rest, assume_a="pos")
        return best, without

    def _derivatives(self, solution: Floats, outputs: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """The sum of the losses, and its first and second derivatives.

        Returns:
            Shapes (outputs), (parts, directions, outputs) and (parts, outputs, directions, directions).
        """
        count, width = len(outputs), len(self.basis)
        parts, weights = int(self.parts.max()) + 1, self.basis @ solution
        loss = np.zeros(count)
        slopes, curves = np.zeros((parts, width, count)), np.zeros((parts, count, width, width))
        for block in memory.blocks(len(self.X), self.machine._block):
            rows = np.ones((block.stop - block.start, width))
            rows[:, :-1] = self.machine._similarities(self.X[block])
            residuals = self.machine._residuals(self.y[block, np.newaxis], outputs, rows @ weights)
            costs = self.costs[block]
            loss += costs @ np.square(residuals)
            for part, output in np.ndindex(parts, count):
                chosen = np.flatnonzero((residuals[:, output] != 0) & (self.parts[block] == part))
                roots = np.sqrt(2 * costs[chosen])
                lost = rows[chosen] * roots[:, np.newaxis]
                slopes[part, :, output] -= (residuals[chosen, output] * roots) @ lost
                curves[part, output] += lost.T @ lost
        return loss, self.basis.T @ slopes, self.basis.T @ curves @ self.basis


class NystroemSVC(ClassifierMixin, _Nystroem):  # type: ignore[misc]
    """One machine for each class against all others, or one for two classes, with a sigmoid over each.

    The sigmoids are fitted to scores of rows without which the machine was fitted, as in the calibration of the exact one.

    Attributes:
        cv: rows to fit on and rows to hold out, each row once, for the sigmoids; None for parts at random. It is no parameter,
            because a block may not set it.
        slopes_: of the sigmoids, 1 / (1 + exp(slope * score + offset)), shape (outputs,).
        offsets_: as `slopes_`.
    """

    cv: list[tuple[Rows, Rows]] | None = None
    _parameter_constraints = _COUNT | {
        key: SVC._parameter_constraints[key] for key in (*_SHARED, "class_weight")
    }

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: str = "rbf",
        degree: int = 3,
        gamma: float | str = "scale",
        coef0: float = 0.0,
        class_weight: Any = None,
        n_components: int = COMPONENTS,
        random_state: int | None = None,
    ) -> None:
        self.C = C
        self.kernel = kernel
        self.degree = degree
        self.gamma = gamma
        self.coef0 = coef0
        self.class_weight = class_weight
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Floats | None = None) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_ = np.unique(y)
        numbers = np.searchsorted(self.classes_, y)
        outputs = len(self.classes_) if len(self.classes_) > 2 else 1
        weights = sample_weight
        if self.class_weight is not None:
            of_classes = compute_sample_weight(self.class_weight, y)
            weights = of_classes if weights is None else weights * of_classes
        parts = self._parts(len(X))
        without = self._fit(X, numbers, outputs, weights, parts)
        rows = np.arange(len(X))
        if len(X) > CALIBRATION_ROWS:
            rows = np.sort(
                np.random.default_rng(self.random_state).choice(len(X), CALIBRATION_ROWS, replace=False)
            )
        scores = np.empty((len(rows), outputs))
        for part, solution in enumerate(without):
            inside = np.flatnonzero(parts[rows] == part)
            scores[inside] = self._sums(X[rows[inside]], solution[:-1]) + solution[-1]
        counted = None if sample_weight is None else sample_weight[rows]
        sigmoids = [
            _SigmoidCalibration().fit(scores[:, output], numbers[rows] == own, counted)
            for output, own in enumerate(self._own(outputs))
        ]
        self.slopes_ = np.array([each.a_ for each in sigmoids])
        self.offsets_ = np.array([each.b_ for each in sigmoids])
        return self

    def decision_function(self, X: Any) -> Floats:
        scores = self._scores(X)
        return scores if scores.shape[1] > 1 else scores[:, 0]

    def predict_proba(self, X: Any) -> Floats:
        sigmoids = special.expit(-(self.slopes_ * self._scores(X) + self.offsets_))
        if len(self.classes_) == 2:
            return np.hstack([1 - sigmoids, sigmoids])
        # If all of them are zero, the classes are equal.
        sigmoids = np.maximum(sigmoids, np.finfo(np.float64).tiny)
        return np.asarray(sigmoids / sigmoids.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> NDArray[Any]:
        classes: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return classes

    def _parts(self, count: int) -> NDArray[np.int8]:
        if self.cv is None:
            return np.random.default_rng(self.random_state).integers(
                0, CALIBRATION_PARTS, count, dtype=np.int8
            )
        parts = np.empty(count, dtype=np.int8)
        for number, (_, held_out) in enumerate(self.cv):
            parts[held_out] = number
        return parts

    @staticmethod
    def _own(outputs: int) -> NDArray[np.int64]:
        """The class that each output stands for; of two classes the second."""
        return np.arange(outputs) if outputs > 1 else np.array([1])

    def _residuals(self, y: NDArray[Any], outputs: NDArray[np.int64], scores: Floats) -> Floats:
        own = outputs if len(self.classes_) > 2 else 1
        side = np.where(y == own, 1.0, -1.0)
        return np.asarray(side * np.maximum(0.0, 1.0 - side * scores))


class NystroemSVR(RegressorMixin, _Nystroem):  # type: ignore[misc]
    """A machine whose errors up to `epsilon` cost nothing."""

    _parameter_constraints = _COUNT | {key: SVR._parameter_constraints[key] for key in (*_SHARED, "epsilon")}

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: str = "rbf",
        degree: int = 3,
        gamma: float | str = "scale",
        coef0: float = 0.0,
        epsilon: float = 0.1,
        n_components: int = COMPONENTS,
        random_state: int | None = None,
    ) -> None:
        self.C = C
        self.kernel = kernel
        self.degree = degree
        self.gamma = gamma
        self.coef0 = coef0
        self.epsilon = epsilon
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Floats | None = None) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._fit(X, y, 1, sample_weight, np.zeros(len(X), dtype=np.int8))
        return self

    def predict(self, X: Any) -> Floats:
        return self._scores(X)[:, 0]

    def _residuals(self, y: NDArray[Any], outputs: NDArray[np.int64], scores: Floats) -> Floats:  # noqa: ARG002
        gaps = y - scores
        return np.asarray(np.sign(gaps) * np.maximum(0.0, np.abs(gaps) - self.epsilon))
