"""scikit-learn's forests with a label that follows from the votes before they are divided.

After the division by the number of trees, sums that differ in their last digit may be equal. Of equal ones scikit-learn
takes the first, and a model file, which compares the sums, the larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier


class _LargestSum:
    def predict(self: Any, X: Any) -> NDArray[Any]:
        values = self._validate_X_predict(X)
        sums = np.zeros((len(values), len(self.classes_)))
        for tree in self.estimators_:
            sums += tree.predict_proba(values, check_input=False)
        predicted: NDArray[Any] = self.classes_[sums.argmax(axis=1)]
        return predicted


class SummedRandomForestClassifier(_LargestSum, RandomForestClassifier):  # type: ignore[misc]
    """A random forest."""


class SummedExtraTreesClassifier(_LargestSum, ExtraTreesClassifier):  # type: ignore[misc]
    """Extremely randomised trees."""
