"""A split as input of a pipeline."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.dataset import Split


def inputs(split: Split) -> NDArray[np.float64] | pd.DataFrame:
    """A split as input of the pipeline: numbers first, then categories, as in the model file."""
    if not split.categories.shape[1]:
        return split.numbers
    numbers = pd.DataFrame(split.numbers).add_prefix("number_")
    categories = pd.DataFrame(np.asarray(split.categories), dtype=object).add_prefix("category_")
    return pd.concat([numbers, categories], axis=1)
